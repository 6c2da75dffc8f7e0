"""What a run's history keeps, cuts and thins."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fakes import FakeRun

from llmlab.store.columns import STEP_FIELDS
from llmlab.store.events import (
    CheckpointSaved,
    Evaluated,
    Finished,
    Paused,
    Sampled,
    Scored,
    Shared,
    Started,
    StepEvent,
    Stopped,
)
from llmlab.store.history import RunHistory
from llmlab.store.overview import read_overview
from llmlab_gui.train.event_sentences import history_sentences
from llmlab_gui.train.loss import reference_lines


def _steps(fake: FakeRun) -> list[StepEvent]:
    return [event for event in fake.written if isinstance(event, StepEvent)]


def test_columns_hold_exactly_what_the_events_say(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).start().advance(600).finish()
    history = RunHistory()
    assert not history.extend(fake.written)
    for name in STEP_FIELDS:
        assert history.step_columns[name].tolist() == [getattr(event, name) for event in _steps(fake)]
    evaluated = [event for event in fake.written if isinstance(event, Evaluated)]
    for name in ("step", "train_loss", "val_loss"):
        assert history.evaluations[name].tolist() == [getattr(event, name) for event in evaluated]
    assert history.samples == [event for event in fake.written if isinstance(event, Sampled)]
    assert history.checkpoints == [event for event in fake.written if isinstance(event, CheckpointSaved)]
    assert isinstance(history.ended, Finished)


def test_a_restart_drops_all_that_is_later_than_its_step(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, steps=2000).start().advance(600).warn("late")
    at = 600, fake.time_of(600)
    fake.append(Shared(*at, [0.5, 0.4]), Scored(*at, 1, 2, [], 0.1), Paused(*at, "requested"))
    history = RunHistory()
    history.extend(fake.written)
    version = history.version
    before = len(fake.written)
    fake.resume_from(300)
    assert len(fake.written) < before
    assert history.extend(fake.written[-1:])
    assert history.version != version
    assert history.step_columns["step"][-1] == 300
    assert history.evaluations["step"].tolist() == [250]
    assert history.samples == history.warnings == history.shares == history.scores == []
    assert [one.reason for one in history.interruptions] == ["restarted"]
    fake.advance(50)
    assert not history.extend(_steps(fake)[300:])
    again = RunHistory()
    again.extend(fake.written)
    assert np.array_equal(history.step_columns.values, again.step_columns.values)
    assert history.ended is None


def test_a_worker_that_ended_before_it_trained_changes_nothing_that_is_known(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).start().advance(30)
    first = fake.written[0]
    assert isinstance(first, Started)
    unknown: dict[str, Any] = {"parameters": None, "vocab_size": None, "uniform_loss": None, "unigram_loss": None}
    early = replace(first, step=30, attempt=2, **unknown)
    stopped = Stopped(30, fake.time_of(31), 3.0, None)
    history = RunHistory()
    assert not history.extend([*fake.written, early, stopped])
    assert history.step_columns["step"].tolist() == list(range(1, 31))
    assert (history.started, history.ended) == (first, stopped)
    assert len(reference_lines(history)) >= 2

    alone = RunHistory()
    alone.extend([early, stopped])
    assert alone.ended == stopped
    assert reference_lines(alone) == []
    assert next(told.text for told in history_sentences(alone, 10)) == "Attempt 2 began to read the text."


def test_a_tasks_uniform_line_counts_its_answers_and_not_all_of_its_tokens(tmp_path: Path) -> None:
    first = FakeRun(tmp_path).start().written[0]
    assert isinstance(first, Started)
    history = RunHistory()
    history.extend([replace(first, vocab_size=7, uniform_loss=math.log(3))])
    assert reference_lines(history)[0].label == "uniform 1.10: all 3 tokens equally likely"


def test_a_long_history_is_thinned_and_keeps_its_spikes(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, steps=10_000)
    events = [fake.step_event(step) for step in range(1, 10_001)]
    events[700].loss = 50.0
    events[900].grad_norm = 99.0
    history = RunHistory(max_rows=2000)
    for begin in range(0, len(events), 333):
        history.extend(events[begin : begin + 333])
        assert len(history.step_columns) <= 2000
    steps, losses = history.step_columns["step"], history.step_columns["loss"]
    assert losses[steps == 701].tolist() == [50.0]
    assert history.step_columns["grad_norm"].max() == 99.0
    assert np.all(np.diff(steps) > 0)
    # The newest are untouched, and no step left the averages.
    assert steps[-500:].tolist() == list(range(9501, 10_001))
    assert history.step_columns["loss_count"].sum() == 10_000


def test_values_that_are_not_finite_are_gaps(tmp_path: Path) -> None:
    event = FakeRun(tmp_path).step_event(1)
    event.loss, event.grad_norm = math.inf, math.nan
    history = RunHistory()
    history.extend([event])
    assert np.isnan(history.step_columns["loss"][0])
    assert np.isnan(history.step_columns["grad_norm"][0])
    assert history.step_columns["loss_count"][0] == 0


def test_an_overview_is_loaded_and_followed_on(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, steps=4000).start().write_lines(3000, eval_every=500)
    history = RunHistory()
    version = history.version
    history.load(read_overview(fake.run, 500))
    assert history.version != version
    assert history.evaluations["step"].tolist() == [500, 1000, 1500, 2000, 2500, 3000]
    before = len(fake.written)
    fake.advance(10, evaluate=False)
    history.extend(fake.written[before:])
    assert history.step_columns["step"][-10:].tolist() == list(range(3001, 3011))


def test_evaluations_find_their_place_on_every_axis(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).start().advance(500)
    history = RunHistory()
    history.extend(fake.written)
    at_step = [250.0, 500.0]
    assert history.evaluations["step"].tolist() == at_step
    for axis in ("step", "tokens", "active_seconds", "elapsed"):
        everywhere = history.x(axis)
        expected = everywhere[[249, 499]]
        assert np.array_equal(history.x(axis, history.evaluations["step"]), expected)
    assert history.x("elapsed")[0] == _steps(fake)[0].time - fake.written[0].time


def test_pauses_and_restarts_are_remembered(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).start().advance(100).pause()
    history = RunHistory()
    history.extend(fake.written)
    assert [(pause.step, pause.end) for pause in history.interruptions] == [(100, None)]
    fake.unpause(90.0).advance(100).resume_from(150).advance(10)
    history = RunHistory()
    history.extend(fake.written)
    paused, restarted = history.interruptions
    assert paused.end is not None
    assert paused.end - paused.start == 90.0
    assert (restarted.step, restarted.reason) == (150, "restarted")


def test_a_clock_that_jumps_back_does_not_turn_the_curve_around(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path)
    events = [fake.step_event(step) for step in range(1, 11)]
    events[5].time -= 3600
    history = RunHistory()
    history.extend(events)
    assert np.all(np.diff(history.x("elapsed")) >= 0)
