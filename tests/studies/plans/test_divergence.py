"""The rule by which runs are cut early, and what a run's events say after a resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fakes import FakeRun

from llmlab.store.events import Evaluated, Failed, StepEvent
from llmlab.store.history import read_history
from llmlab.studies.plans.divergence import NOT_FINITE, DivergenceWatch, divergence
from llmlab.studies.plans.records import DivergenceRule

RULE = DivergenceRule(window=5, above_start=0.5, above_best=1.0)


def _watch(losses: list[float], start: float = 4.0) -> DivergenceWatch:
    watch = DivergenceWatch(RULE)
    watch.add(Evaluated(0, 1.0, start, start, True, 0.1))
    for step, loss in enumerate(losses, 1):
        watch.add(StepEvent(step, 1.0, loss, 1e-3, 1.0, step, 1.0, 1.0, 1.0, 1, 0.1))
    return watch


def test_a_falling_loss_and_single_spikes_are_left_alone() -> None:
    assert not _watch([4.0, 3.5, 9.0, 3.0, 2.5, 9.0, 2.4, 2.3, 9.0, 2.2]).note


def test_a_loss_above_its_start_is_cut_at_the_step_where_the_median_is() -> None:
    watch = _watch([4.0, 4.2, 5.0, 5.1, 5.2, 5.3])
    assert watch.step == 5  # the median of the first five is 5.0
    assert "above its start of 4.000" in watch.note


def test_a_loss_that_climbs_back_above_its_best_is_cut() -> None:
    watch = _watch([4.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0] + [3.1] * 5)
    assert watch.step == 10  # three of the five are then at 3.1
    assert "above its best of 2.000" in watch.note


def test_a_high_plateau_below_the_start_is_no_divergence() -> None:
    assert not _watch([3.3] * 50).note


def test_a_number_that_is_none_is_divergence_in_the_words_of_training() -> None:
    from llmlab.training import run  # who says it

    assert NOT_FINITE in Path(run.__file__).read_text()
    watch = _watch([4.0, 3.0])
    watch.add(Failed(3, 1.0, f"The loss at step 3 {NOT_FINITE}, so training stopped.", "", ""))
    assert watch.step == 3


def test_other_failures_are_none() -> None:
    watch = _watch([4.0, 3.0])
    watch.add(Failed(3, 1.0, "The disk is full.", "", ""))
    assert not watch.note


def test_what_a_resume_made_void_counts_no_more(outputs: Path) -> None:
    fake = FakeRun(outputs, steps=60).start().advance(20, evaluate=False)
    high = [dataclasses.replace(fake.step_event(step), loss=9.0) for step in range(21, 41)]
    fake.append(*high)
    fake.step = 40
    assert divergence(fake.run, RULE).note
    fake.resume_from(20)
    fake.advance(20, evaluate=False)
    assert not divergence(fake.run, RULE).note
    history = read_history(fake.run)
    assert history.last_step == 40
    assert len(history.step_columns["loss"]) == 40
    assert history.step_columns["loss"].max() < 9
