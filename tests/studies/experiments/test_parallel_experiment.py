"""The experiment on several processes: what it plans, and that it finds what was planted in its runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fake_trials import experiment, finish
from preset_settings import resolve_settings

from llmlab.store.events import Shared, from_line, to_line
from llmlab.studies.experiments.kinds import find_kind
from llmlab.studies.experiments.outcomes import ExperimentResults
from llmlab.studies.experiments.plan import lean
from llmlab.studies.experiments.results import build_results
from llmlab.studies.plans.records import ExperimentFolder, Trial, TrialStatus

PLAN = ["one", "ddp-2", "ddp-4", "fsdp2-2", "fsdp2-4"]


def planted(folder: ExperimentFolder, trial: Trial, off: float, speed: float, busy: list[float]) -> None:
    """A finished run whose losses are off by a share that grows with the step, and which is so fast."""
    run = finish(folder, trial, 2.0).run
    changed = []
    for line in run.events.read_text().splitlines():
        values = json.loads(line)
        if values["event"] == "step":
            values["loss"] *= 1 + off * values["step"]
            values["tokens_per_second"] = speed if values["step"] > 5 else 1.0  # it only begins
        changed.append(json.dumps(values))
        if values["event"] == "step" and values["step"] == 20 and busy:
            changed.append(to_line(Shared(20, 1.75e9, busy)))
    run.events.write_text("".join(f"{line}\n" for line in changed))
    assert all(from_line(line.encode()) is not None for line in changed)


def results_of(folder: ExperimentFolder, off: float) -> ExperimentResults:
    for trial in folder.record().trials:
        count = int(trial.x)
        share, busy = (off, [0.5] * (count - 1) + [0.8]) if count > 1 else (0.0, [])
        planted(folder, trial, share, 1000.0 * (1.5 if trial.name == "ddp-2" else 1.0), busy)
    return build_results(folder, folder.record())


def test_one_process_is_compared_with_two_and_four_by_each_strategy(outputs: Path) -> None:
    record = experiment(outputs, "parallel").record()
    assert [trial.name for trial in record.trials] == PLAN
    assert [trial.settings["distributed.processes"] for trial in record.trials] == [1, 2, 4, 2, 4]
    assert record.trials[0].settings["distributed.strategy"] == "none"
    base = resolve_settings("baby", overrides={"model.dropout": 0.1})
    short = lean(base, find_kind("parallel"), [])
    assert (short.train.steps, short.model.dropout) == (60, 0.0)
    assert lean(base, find_kind("parallel"), ["train.steps"]).train.steps == base.train.steps


def test_what_each_costs_and_how_far_its_losses_are_off_is_found(outputs: Path) -> None:
    folder = experiment(outputs, "parallel")
    results = results_of(folder, 1e-7)
    parameters = results.trials[0].parameters
    assert parameters is not None
    assert results.value("processes_gain") == pytest.approx(1.5)
    assert results.value("speed_one") == pytest.approx(1000.0)
    assert results.value("speed_fsdp2_4") == pytest.approx(1000.0)
    assert results.value("megabytes_ddp_2") == pytest.approx(4 * parameters / 1e6)
    assert results.value("megabytes_fsdp2_4") == pytest.approx(3 * 0.75 * 4 * parameters / 1e6)
    assert results.value("waiting_ddp_4") == pytest.approx(0.2)
    assert results.value("losses_difference") == pytest.approx(20e-7, rel=1e-3)
    found = {finding.name: finding for finding in results.findings}
    assert found["losses_difference"].text == "within the bound of 1e-05"
    charts = {chart.name: chart for chart in results.charts}
    assert [point.x for point in charts["speed-by-processes"].curves[0].points] == [1, 2, 4]
    assert [len(curve.points) for curve in charts["difference-by-step"].curves] == [20, 20, 20, 20, 2]


def test_losses_beyond_the_bound_are_called_so(outputs: Path) -> None:
    found = {one.name: one for one in results_of(experiment(outputs, "parallel"), 1e-6).findings}
    assert found["losses_difference"].text == "BEYOND the bound of 1e-05"


def test_runs_that_trained_at_the_same_time_are_said_to_have_other_speeds(outputs: Path) -> None:
    folder = experiment(outputs, "parallel")
    assert not any("same time" in note for note in results_of(folder, 1e-7).notes)
    status = folder.recorded_status()
    folder.write_status(replace(status, trials=status.trials | {"one": TrialStatus(state="finished", at_once=2)}))
    assert any("same time" in note for note in build_results(folder, folder.record()).notes)
