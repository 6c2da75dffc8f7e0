"""Reading one run's loss curve: what was planted in it is found, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import new_run, train_here

from llmlab.corpora.dataset import load_dataset
from llmlab.corpora.windows import Windows
from llmlab.experiments.closely import noise_scale, with_texts
from llmlab.experiments.curves import find_spikes, overfitting_onset, rate_events, smooth, time_to
from llmlab.experiments.history import RunHistory, read_history
from llmlab.runs.columns import STEP_FIELDS
from llmlab.runs.folder import RunFolder
from llmlab.settings import PretrainSettings, TrainSettings
from llmlab.training.events import Evaluated
from llmlab.training.schedule import learning_rate

STEPS = np.arange(1, 301)


def history(loss: np.ndarray, **columns: np.ndarray) -> RunHistory:
    """A run of these step losses."""
    values = {name: np.zeros(len(loss)) for name in STEP_FIELDS}
    values |= {"step": np.arange(1, len(loss) + 1), "loss": loss, "active_seconds": np.arange(1, len(loss) + 1) / 10}
    values |= columns
    return RunHistory(steps=np.array([values[name] for name in STEP_FIELDS], dtype=float))


def falling(seed: int = 0) -> np.ndarray:
    return 2 + 2.2 * np.exp(-STEPS / 40) + np.random.default_rng(seed).normal(0, 0.03, len(STEPS))


def evaluated(rows: list[tuple[int, float, float]]) -> list[Evaluated]:
    return [Evaluated(step, 1.0, train, val, False, 0.1) for step, train, val in rows]


@pytest.mark.parametrize("seed", range(5))
def test_planted_spikes_are_found_and_a_curve_without_any_has_none(seed: int) -> None:
    loss = falling(seed)
    assert find_spikes(history(loss)) == []
    loss[[49, 180]] += [0.9, 0.5]
    loss[181:184] += 0.3  # it takes some steps to recover: the same spike
    spikes = find_spikes(history(loss))
    assert {spike.step for spike in spikes} == {50, 181}
    assert spikes[0].loss - spikes[0].expected == pytest.approx(0.9 if spikes[0].step == 50 else 0.5, abs=0.15)


def test_a_steep_and_smooth_fall_is_no_spike() -> None:
    assert find_spikes(history(6 - 4 * STEPS / 300)) == []
    assert find_spikes(history(2 + 4 * np.exp(-STEPS / 20))) == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A real run of 60 steps of two batches each."""
    run = new_run(tmp_path_factory.mktemp("outputs"), 60, train__grad_accum=2, checkpoints__interval=20)
    return train_here(run)


def test_a_spike_is_told_with_the_texts_of_its_own_batches(trained: RunFolder) -> None:
    lines = [json.loads(line) for line in trained.events.read_text().splitlines()]
    planted = next(line for line in lines if line["event"] == "step" and line["step"] == 31)
    before = trained.events.read_bytes()
    planted["loss"] += 3.0
    trained.events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    try:
        spikes, notes = with_texts(trained, find_spikes(read_history(trained)), trained.path.parent.parent)
    finally:
        trained.events.write_bytes(before)
    assert [spike.step for spike in spikes] == [31]
    assert notes == []
    settings = trained.info().settings
    assert isinstance(settings, PretrainSettings)
    data = load_dataset(settings.data, 16, lambda what, share: None, lambda: False)
    windows = Windows(data.train, 16, 4, settings.data.order, settings.data.stride, settings.train.seed)
    read = [windows.batch(index)[0] for index in (60, 61)]  # step 31 is the 61st and 62nd batch
    texts = {data.tokenizer.decode(row.tolist()) for rows in read for row in rows}
    assert len(spikes[0].batch) == 6
    assert {row.text for row in spikes[0].batch} <= texts
    losses = [row.loss for row in spikes[0].batch]
    assert losses == sorted(losses, key=lambda loss: -(loss or 0.0))


def test_texts_that_are_gone_are_a_remark(trained: RunFolder, tmp_path: Path) -> None:
    info = trained.info()
    assert isinstance(info.settings, PretrainSettings)
    gone = replace(info.settings, data=replace(info.settings.data, corpus=str(tmp_path / "gone.txt")))
    trained.write_info(replace(info, settings=gone))
    try:
        loss = falling()
        loss[99] += 2
        spikes, notes = with_texts(trained, find_spikes(history(loss)), tmp_path)
    finally:
        trained.write_info(info)
    assert [(spike.step, spike.batch) for spike in spikes] == [(100, [])]
    assert "could not be read" in notes[0]


def test_overfitting_begins_at_the_lowest_validation_loss_when_it_turns_up() -> None:
    run = history(falling())
    run.evaluations = evaluated([(0, 4, 4), (50, 2.5, 2.6), (100, 2.2, 2.4), (150, 2.0, 2.42), (200, 1.5, 2.6)])
    assert overfitting_onset(run) == 100


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 4, 4), (50, 2.5, 2.6), (100, 2.2, 2.4), (150, 2.1, 2.41)],  # up by less than 1 %
        [(0, 4, 4), (50, 2.5, 2.6), (100, 2.2, 2.4), (150, 3.0, 3.2)],  # both rise: that is no overfitting
        [(0, 4, 4), (50, 2.5, 2.6)],
    ],
)
def test_other_curves_do_not_overfit(rows: list[tuple[int, float, float]]) -> None:
    run = history(falling())
    run.evaluations = evaluated(rows)
    assert overfitting_onset(run) is None


def test_the_marks_of_a_schedule_are_read_from_its_rates() -> None:
    train = TrainSettings(steps=300, warmup_steps=30, schedule="wsd", decay_fraction=0.2)
    lr = np.array([learning_rate(step, train) for step in range(300)])
    events = rate_events(history(falling(), lr=lr))
    # The step that follows `s` finished ones is number s + 1; wsd begins to fall after step 241's rate.
    assert (events.warmup_end, events.decay_start) == (31, 241)
    assert events.jumps == ()
    lr[149:] /= 10
    assert rate_events(history(falling(), lr=lr)).jumps == (150,)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
def test_a_decay_to_zero_is_no_jump_of_the_rate(schedule: str) -> None:
    train = TrainSettings(steps=300, warmup_steps=30, schedule=schedule, min_learning_rate=0.0)
    lr = np.array([learning_rate(step, train) for step in range(300)])
    assert rate_events(history(falling(), lr=lr)).jumps == ()


def test_smoothing_keeps_constants_and_straight_lines() -> None:
    assert smooth(np.full(50, 3.0), 5) == pytest.approx(np.full(50, 3.0))
    line = np.arange(200.0)  # far from its ends, whose pull halves every two steps
    assert smooth(line, 2)[50:150] == pytest.approx(line[50:150], abs=1e-5)


def test_the_time_to_a_target_lies_between_the_evaluations_around_it() -> None:
    run = history(falling())
    run.evaluations = evaluated([(0, 4, 4.0), (100, 3, 3.0), (200, 2, 2.0)])
    assert time_to(run, 2.5) == (150, pytest.approx(15.0))
    assert time_to(run, 1.0) is None


def test_the_noise_scale_of_gradients_with_a_known_covariance_is_found() -> None:
    # One row's gradient is G + noise of variance 0.5 in each of 2000 places: tr(S) = 1000, |G|^2 = 2000 * 0.01 = 20.
    generator = torch.Generator().manual_seed(0)
    mean = torch.full((2000,), 0.1)

    def gradient(index: int) -> torch.Tensor:
        return mean + torch.randn(8, 2000, generator=generator).mul(0.5**0.5).mean(0)

    assert noise_scale(gradient, small=8, batches=16) == pytest.approx(50.0, rel=0.1)
    assert noise_scale(lambda index: torch.zeros(4), small=8, batches=4) is None
