"""The learning rate at points that were worked out by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlab.core.run_settings import TrainSettings
from llmlab.core.settings import DataSettings, ModelSettings, PretrainSettings, PretrainTrainSettings
from llmlab.training.schedule import learning_rate, muon_learning_rate

# Peak 1, minimum 0.1, 9 steps of warm-up, 109 in all: the decay spans 100 steps.
PLAIN = TrainSettings(learning_rate=1.0, min_learning_rate=0.1, warmup_steps=9, steps=109)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
def test_warm_up_rises_in_equal_parts_and_the_first_step_already_moves(schedule: str) -> None:
    train = replace(PLAIN, schedule=schedule)
    assert [learning_rate(step, train) for step in range(9)] == pytest.approx([(step + 1) / 10 for step in range(9)])
    assert learning_rate(9, train) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("schedule", "changes", "points"),
    [
        ("cosine", {}, {9: 1.0, 34: 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2, 59: 0.55, 84: 0.2318, 109: 0.1}),
        ("linear", {}, {9: 1.0, 34: 0.775, 59: 0.55, 84: 0.325, 109: 0.1}),
        ("constant", {}, {9: 1.0, 59: 1.0, 108: 1.0}),
        ("constant", {"min_learning_rate": 5.0}, {9: 1.0, 108: 1.0}),
        # The last fifth of 109 steps begins at round(87.2) and lasts 22.
        ("wsd", {}, {9: 1.0, 87: 1.0, 98: 0.55, 109: 0.1}),
        ("linear", {"min_learning_rate": 0.0}, {9: 1.0, 59: 0.5, 108: 0.01, 109: 0.0}),
        ("wsd", {"min_learning_rate": 0.0}, {9: 1.0, 87: 1.0, 98: 0.5, 108: 1 / 22, 109: 0.0}),
        ("wsd", {"decay_fraction": 1.0}, {9: 1.0, 59: 0.55, 109: 0.1}),
        ("wsd", {"decay_fraction": 0.0}, {9: 1.0, 108: 1.0}),
    ],
)
def test_after_warm_up_each_schedule_is_its_formula(
    schedule: str, changes: dict[str, Any], points: dict[int, float]
) -> None:
    train = replace(PLAIN, schedule=schedule, **changes)
    for step, expected in points.items():
        assert learning_rate(step, train) == pytest.approx(expected, abs=1e-4), step


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
def test_without_warm_up_the_first_step_is_at_the_peak(schedule: str) -> None:
    assert learning_rate(0, replace(PLAIN, schedule=schedule, warmup_steps=0)) == pytest.approx(1.0)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
def test_a_run_shorter_than_its_warm_up_only_rises(schedule: str) -> None:
    train = replace(PLAIN, schedule=schedule, warmup_steps=99, steps=50)
    rates = [learning_rate(step, train) for step in range(50)]
    assert rates == pytest.approx([(step + 1) / 100 for step in range(50)])


@given(
    st.sampled_from(["cosine", "linear", "constant", "wsd"]),
    st.integers(0, 60),
    st.integers(1, 50),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_it_stays_between_minimum_and_peak_and_never_rises_after_warm_up(
    schedule: str, warmup: int, steps: int, fraction: float, low: float
) -> None:
    train = TrainSettings(
        learning_rate=1.0,
        min_learning_rate=low,
        warmup_steps=warmup,
        steps=steps,
        schedule=schedule,
        decay_fraction=fraction,
    )
    rates = [learning_rate(step, train) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    after = rates[warmup:]
    assert all(rate >= low - 1e-12 for rate in after)
    assert all(first >= second - 1e-12 for first, second in itertools.pairwise(after))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
@pytest.mark.parametrize("low", [0.0, 0.1])
def test_muons_rate_is_the_same_course_from_its_own_peak(schedule: str, low: float) -> None:
    train = PretrainTrainSettings(
        learning_rate=0.5, min_learning_rate=low, warmup_steps=9, steps=109, schedule=schedule, muon_learning_rate=0.02
    )
    for step in (0, 5, 9, 50, 100, 108):
        assert muon_learning_rate(step, train) == pytest.approx(learning_rate(step, train) * 0.02 / 0.5), step
    frozen = replace(train, learning_rate=0.0, min_learning_rate=0.0)  # embeddings and norms stay as they are
    assert muon_learning_rate(9, frozen) == pytest.approx(0.02)


def _settings(batch: int, accumulated: int, block: int, batch_warmup: int, length_warmup: int) -> PretrainSettings:
    return PretrainSettings(
        model=ModelSettings(block_size=block),
        data=DataSettings(batch_size=batch, batch_warmup_steps=batch_warmup, length_warmup_steps=length_warmup),
        train=PretrainTrainSettings(steps=30, grad_accum=accumulated),
    )


def test_batch_and_length_rise_in_equal_parts_to_what_they_are_without_a_warm_up() -> None:
    both = _settings(batch=4, accumulated=3, block=64, batch_warmup=11, length_warmup=7)
    sizes = [both.batch_at(step) for step in range(14)]
    # One sequence more each step; above a batch of 4, whole batches.
    assert [sequences for sequences, _ in sizes] == [1, 2, 3, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12]
    assert [length for _, length in sizes] == [8, 16, 24, 32, 40, 48, 56, *7 * [64]]
    assert {_settings(4, 3, 64, 0, 0).batch_at(step) for step in range(30)} == {(12, 64)}


@given(st.integers(1, 9), st.integers(1, 5), st.integers(2, 70), st.integers(0, 40), st.integers(0, 40))
def test_a_warm_up_never_falls_and_its_tokens_add_up(
    batch: int, accumulated: int, block: int, batch_warmup: int, length_warmup: int
) -> None:
    settings = _settings(batch, accumulated, block, batch_warmup, length_warmup)
    sizes = [settings.batch_at(step) for step in range(45)]
    assert all(a <= b and c <= d for (a, c), (b, d) in itertools.pairwise(sizes))
    assert all(n >= 1 and (n <= batch or n % batch == 0) and min(8, block) <= t <= block for n, t in sizes)
    assert sizes[max(batch_warmup, length_warmup)] == (batch * accumulated, block)
    assert [settings.tokens_until(step) for step in range(31)] == [
        sum(n * t for n, t in sizes[:step]) for step in range(31)
    ]
    assert settings.full_steps == sum(n * t for n, t in sizes[:30]) / settings.tokens_per_step
