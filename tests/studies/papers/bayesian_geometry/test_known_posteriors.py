"""The tasks' posteriors are exact, and nothing but the evidence moves them."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from llmlab.core.task_settings import NUMBERS, ROWS, TaskDataSettings
from llmlab.data.synthetic.bijection import Bijection
from llmlab.data.synthetic.hmm import HiddenMarkov, forward, hundredths, row_ids, row_numbers
from llmlab.data.synthetic.known_tasks import task_of
from llmlab.data.synthetic.tasks import HELD_OUT, TRAIN, Task
from llmlab.studies.papers.bayesian_geometry.calibration import baselines

TASKS = (Bijection(5, 4), Bijection(4, 6, repeats=True), HiddenMarkov(3, 2, 4, ROWS), HiddenMarkov(2, 3, 4, NUMBERS))


def by_enumeration(values: int, keys: list[int], shown: list[int]) -> np.ndarray:
    """Of the last key's value: all bijections that agree with the pairs before it, counted."""
    counts = np.zeros(values)
    for one in permutations(range(values)):
        if all(one[key] == value for key, value in zip(keys[:-1], shown, strict=True)):
            counts[one[keys[-1]]] += 1
    return counts / counts.sum()


@pytest.mark.parametrize("task", [Bijection(5, 5), Bijection(4, 7, repeats=True)])
def test_a_bijections_posterior_is_that_of_counting_all_bijections(task: Bijection) -> None:
    batch = task.batch(1, TRAIN, 0, 20)
    keys, values = batch.ids[:, 0::2], batch.ids[:, 1::2] - task.values
    for row in range(20):
        for k in range(task.pairs):
            expected = by_enumeration(task.values, keys[row, : k + 1].tolist(), values[row, :k].tolist())
            np.testing.assert_allclose(batch.posterior[row, k], expected, atol=1e-15)
            assert batch.scored[row, k] == (keys[row, k] not in keys[row, :k])


def test_an_hmms_posterior_is_that_of_summing_over_all_paths() -> None:
    task = HiddenMarkov(3, 2, 5)
    batch = task.batch(2, TRAIN, 0, 6)
    transitions, emissions, observed = task.parts(batch.ids)
    for row in range(6):
        for k in range(task.length):
            weights = np.zeros(3)
            for path in product(range(3), repeat=k + 1):
                p = 1 / 3
                for t, state in enumerate(path):
                    p *= transitions[row, path[t - 1], state] if t else 1.0
                    p *= emissions[row, state, observed[row, t]]
                weights[path[-1]] += p
            np.testing.assert_allclose(batch.posterior[row, k], weights / weights.sum(), atol=1e-12)


def test_permuted_evidence_gives_the_same_posterior() -> None:
    task = Bijection(8, 7)
    batch = task.batch(3, TRAIN, 0, 50)
    keys, values = batch.ids[:, 0::2], np.concatenate([batch.ids[:, 1::2] - 8, np.zeros((50, 1), int)], axis=1)
    values[:, -1] = batch.target[:, -1].argmax(-1)
    order = np.append(np.random.default_rng(0).permutation(6), 6)
    permuted = task.read(keys[:, order], values[:, order])
    np.testing.assert_array_equal(permuted.posterior[:, -1], batch.posterior[:, -1])
    assert (permuted.ids != batch.ids).any()


def test_a_window_as_long_as_the_sequence_sees_everything() -> None:
    task = HiddenMarkov(3, 3, 6)
    batch = task.batch(4, TRAIN, 0, 20)
    parts = task.parts(batch.ids)
    np.testing.assert_allclose(forward(*parts, window=6), batch.posterior, atol=1e-12)
    one = forward(*parts, window=1)
    likelihood = np.take_along_axis(parts[1], parts[2][:, None, :], axis=2).transpose(0, 2, 1)
    np.testing.assert_allclose(one, likelihood / likelihood.sum(-1, keepdims=True), atol=1e-12)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_a_batch_is_a_function_of_its_number_and_fits_its_layout(task: Task) -> None:
    first, again, other = task.batch(1, TRAIN, 3, 16), task.batch(1, TRAIN, 3, 16), task.batch(1, TRAIN, 4, 16)
    np.testing.assert_array_equal(first.ids, again.ids)
    assert (first.ids != other.ids).any()
    assert (first.ids != task.batch(1, HELD_OUT, 3, 16).ids).any()
    layout, count = task.layout, len(task.layout.positions)
    assert first.ids.shape == (16, layout.time)
    assert first.posterior.shape == first.target.shape == (16, count, layout.answers[1] - layout.answers[0])
    assert first.ids.min() >= 0
    assert layout.row_width or first.ids.max() < layout.vocab_size
    np.testing.assert_allclose(first.posterior.sum(-1), 1)
    for id in np.unique(first.ids):
        assert task.token_text(int(id))


def test_both_layouts_of_an_hmm_say_the_same() -> None:
    rows, numbers = (HiddenMarkov(3, 4, 5, kind) for kind in (ROWS, NUMBERS))
    one, other = rows.batch(5, TRAIN, 0, 9), numbers.batch(5, TRAIN, 0, 9)
    np.testing.assert_array_equal(one.posterior, other.posterior)
    for mine, theirs in zip(rows.parts(one.ids), numbers.parts(other.ids), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_rows_are_whole_hundredths_that_sum_to_one_and_rule_nothing_out() -> None:
    rows = hundredths(np.random.default_rng(1).dirichlet(np.ones(5), 2000))
    assert (rows.sum(-1) == 100).all()
    assert rows.min() >= 4
    np.testing.assert_array_equal(row_numbers(row_ids(rows, 7) - 7, 5), rows)


def test_observations_come_from_the_matrices_that_are_shown() -> None:
    task = HiddenMarkov(2, 3, 1)
    batch = task.batch(6, TRAIN, 0, 40_000)
    _, emissions, observed = task.parts(batch.ids)
    expected = emissions.mean(1)  # the first state is uniform
    share = np.mean([np.eye(3)[observed[:, 0]] - expected], axis=(0, 1))
    assert np.abs(share).max() < 0.01


@pytest.mark.parametrize(
    ("data", "expected", "within"),
    [
        (TaskDataSettings(values=20, pairs=19), {"uniform": 1.107}, 0.001),
        (TaskDataSettings(values=8, pairs=7), {"uniform": 0.814}, 0.001),
        (
            TaskDataSettings(task="hmm", states=5, symbols=5, length=20),
            {"uniform": 0.425, "last 1": 0.162, "last 2": 0.0485, "last 3": 0.0151, "last 4": 0.0050},
            0.006,
        ),
        (TaskDataSettings(task="hmm"), {"last 1": 0.188, "last 2": 0.054, "last 3": 0.0168, "last 4": 0.0059}, 0.004),
    ],
    ids=["bijection 20", "bijection 8", "hmm 5", "hmm 3"],
)
def test_floors_are_those_that_were_measured_elsewhere(
    data: TaskDataSettings, expected: dict[str, float], within: float
) -> None:
    found = baselines(task_of(data), 2000)
    for name, value in expected.items():
        assert found[name].entropy_error == pytest.approx(value, abs=within), name
