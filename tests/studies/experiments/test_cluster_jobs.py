"""An experiment whose runs are jobs of submitit's local executor: the same results, and cancelled with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from forks import wait_until
from small_runs import quick_settings, same_weights
from waits import SECONDS

from llmlab.core.processes import available_cores
from llmlab.store.run_folder import RunFolder
from llmlab.studies.experiments.kinds import find_kind
from llmlab.studies.experiments.plan import Request, make_plan
from llmlab.studies.launcher import create_experiment, start_experiment, stop_experiment
from llmlab.studies.plans.records import ExperimentFolder

pytest.importorskip("submitit")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="submitit's signals are POSIX")]


def planned(outputs: Path, steps: int) -> ExperimentFolder:
    settings = quick_settings(steps, checkpoints__interval=20, train__eval_interval=10)
    return create_experiment(outputs, make_plan(Request(find_kind("depth"), settings, outputs, id="deep", grid=[1, 2])))


def runs_of(folder: ExperimentFolder) -> list[RunFolder]:
    return [folder.run_of(trial, "pretraining") for trial in folder.record().trials]


def losses(folder: ExperimentFolder) -> list[Any]:
    return [trial["val_loss"] for trial in json.loads(folder.results_json.read_text())["trials"]]


def test_jobs_give_the_results_of_runs_that_were_started_here(tmp_path: Path) -> None:
    here, there = planned(tmp_path / "here", 12), planned(tmp_path / "there", 12)
    for folder, cluster in ((here, None), (there, "local")):
        assert start_experiment(folder, cluster=cluster).wait(SECONDS) == 0
    assert there.recorded_status().jobs == min(2, available_cores())
    assert losses(here) == losses(there)
    assert all(same_weights(*pair) for pair in zip(runs_of(here), runs_of(there), strict=True))


def test_a_stop_of_the_experiment_ends_its_jobs_and_saves_their_runs(outputs: Path) -> None:
    folder = planned(outputs, 100_000)
    worker = start_experiment(folder, cluster="local")
    runs = runs_of(folder)
    wait_until(lambda: all(run.recorded_status().step > 1 for run in runs))
    stop_experiment(folder)
    assert worker.wait(SECONDS) == 0
    assert folder.status().state == "stopped"
    assert [run.status().state for run in runs] == ["stopped", "stopped"]
    assert all(any(run.checkpoints.iterdir()) for run in runs)
