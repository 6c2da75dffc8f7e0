"""An experiment's worker with real runs: interrupted anywhere, it resumes where it was, and what ended stays."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import pytest
from forks import Fork, wait_until, work_on
from small_runs import new_run, quick_settings, train_here

from llmlab.core.errors import LabError
from llmlab.core.processes import follow_parent
from llmlab.gpt import estimate
from llmlab.jobs.launcher import create_run
from llmlab.store import requests, worker_folder
from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder
from llmlab.studies import experiment_worker, worker
from llmlab.studies.experiment_worker import ExperimentWorker
from llmlab.studies.experiments.kinds import find_kind
from llmlab.studies.experiments.outcomes import read_results
from llmlab.studies.experiments.plan import Request, make_plan
from llmlab.studies.launcher import create_experiment, start_experiment, stop_experiment
from llmlab.studies.plans import trials
from llmlab.studies.plans.records import DivergenceRule, ExperimentFolder, ExperimentRecord, Trial
from llmlab.training.loop import FromScratch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and dies with its parent by prctl")
HELD, STEPS = 12, 24  # of a run that is interrupted: where, and all


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A run in this process, so that what training imports with its first step is there when it forks."""
    train_here(new_run(tmp_path_factory.mktemp("imported"), 1))


@pytest.fixture(autouse=True)
def forked_runs(imported: None, no_figures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are forks of the experiment's worker, which saves importing torch; they die with it all the same."""

    def start(run: RunFolder, *, follow_parent: bool) -> Fork:
        assert follow_parent
        parent = os.getpid()
        return Fork(lambda: _run(run, parent))

    monkeypatch.setattr(trials, "start_worker", start)
    monkeypatch.setattr(experiment_worker, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(experiment_worker, "_STATUS_SECONDS", 0.2)
    monkeypatch.setattr(worker_folder, "_LOCK_SECONDS", 0.2)


def _run(run: RunFolder, parent: int) -> int:
    follow_parent(parent)
    return work_on(run)


def planned(
    outputs: Path,
    steps: int = 12,
    change: Callable[[ExperimentRecord], ExperimentRecord] = lambda record: record,
    **more: Any,
) -> ExperimentFolder:
    """Three depths of a tiny GPT. more: settings."""
    settings = quick_settings(steps, checkpoints__interval=HELD - 2, train__eval_interval=HELD - 2, **more)
    request = Request(find_kind("depth"), settings, outputs, id="deep", grid=[1, 2, 3])
    return create_experiment(outputs, change(make_plan(request)))


def holding(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], Path]:
    """`hold(outputs, depth)`: a run of that depth waits before each step after step HELD, while the file that it
    gives is there. So it is interrupted on its way, however few its steps are."""
    plain = FromScratch.optimizer_step

    def step(self: FromScratch) -> object:
        if self.progress.step > HELD and (self.run.outputs / f"hold-{self.settings.model.n_layer}").exists():
            time.sleep(0.2)
        return plain(self)

    monkeypatch.setattr(FromScratch, "optimizer_step", step)

    def hold(outputs: Path, depth: int) -> Path:
        file = outputs / f"hold-{depth}"
        file.touch()
        return file

    return hold


@pytest.fixture
def held(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """The same, of runs in `outputs`."""
    return partial(holding(monkeypatch), outputs)


@pytest.fixture
def begun() -> Iterator[Callable[[ExperimentFolder], Fork]]:
    """Starts a worker in a process of its own; killed at the end."""
    forks: list[Fork] = []

    def begin(folder: ExperimentFolder) -> Fork:
        forks.append(Fork(lambda: worker.main([str(folder.path)])))
        return forks[-1]

    yield begin
    for fork in forks:
        fork.kill()


def states(folder: ExperimentFolder) -> list[str]:
    status = folder.recorded_status()
    return [status.trials[trial.name].state for trial in folder.record().trials]


def bytes_of(run: RunFolder) -> dict[str, str]:
    """Every file of a run that matters, as digests."""
    files = [path for path in run.path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_whole_plan_runs_and_its_results_are_the_runs_own(outputs: Path) -> None:
    folder = planned(outputs)
    ExperimentWorker(folder).run()
    status, results = folder.status(), read_results(folder)
    assert status.state == "finished"
    assert states(folder) == ["finished"] * 3
    assert results is not None
    assert results.complete
    for trial in results.trials:
        assert trial.val_loss == RunFolder(outputs / "pretraining" / trial.run).recorded_status().val_loss
    assert results.value("best_loss") == min(trial.val_loss or 9.0 for trial in results.trials)
    assert folder.report.is_file()


def test_a_name_that_somebody_took_meanwhile_fails_that_run_alone(outputs: Path) -> None:
    folder = planned(outputs)
    second = folder.run_of(folder.record().trials[1], "pretraining")
    (second.checkpoints / "step-00000001").mkdir(parents=True)  # somebody's work, although its run.json is gone
    ExperimentWorker(folder).run()
    assert states(folder) == ["finished", "failed", "finished"]
    assert (second.checkpoints / "step-00000001").is_dir()


@pytest.mark.parametrize(
    ("part", "value"),
    [("name", "../../../notes"), ("run", "../elsewhere"), ("run", "/tmp/x"), ("track", ".."), ("window", 0)],
)
def test_a_record_whose_names_lead_out_of_its_folders_is_damaged(outputs: Path, part: str, value: Any) -> None:
    folder = planned(outputs)
    values = json.loads(folder.experiment_json.read_text())
    where = {"track": values, "window": values["rule"]}.get(part, values["trials"][0])
    where[part] = value
    folder.experiment_json.write_text(json.dumps(values))
    with pytest.raises(LabError, match="damaged"):
        folder.record()


def test_an_error_while_it_stops_is_recorded(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = planned(outputs)
    one = ExperimentWorker(folder)
    one.stop_signal.set()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(one, "_write_report", full)
    with pytest.raises(LabError, match="could not be written"):
        one.run()
    status = folder.recorded_status()
    assert (status.state, status.live) == ("failed", False)
    assert status.error is not None
    assert "No space left" in status.error["why"]


@pytest.mark.slow
def test_killed_and_begun_again_it_leaves_finished_runs_as_they_were(
    outputs: Path, begun: Callable[[ExperimentFolder], Fork], held: Callable[[int], Path]
) -> None:
    folder, hold = planned(outputs, steps=STEPS), held(2)
    first, second, _ = (folder.run_of(trial, "pretraining") for trial in folder.record().trials)
    fork = begun(folder)
    wait_until(lambda: second.recorded_status().step > HELD)
    pid = second.recorded_status().pid
    fork.kill()
    hold.unlink()
    assert folder.status().state == "interrupted"
    wait_until(lambda: second.status().state == "interrupted")  # it died with its parent
    assert pid is not None
    before = bytes_of(first)
    saved = second.recorded_status().attempt
    assert begun(folder).wait() == 0
    assert bytes_of(first) == before
    assert second.recorded_status().attempt == saved + 1
    assert second.events.read_text().count('"event": "started"') == 2  # it went on from a checkpoint
    assert folder.status().state == "finished"
    assert folder.status().attempt == 2


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_by_itself(
    outputs: Path, begun: Callable[[ExperimentFolder], Fork], held: Callable[[int], Path]
) -> None:
    folder, hold = planned(outputs, steps=STEPS), held(1)
    run = folder.run_of(folder.record().trials[0], "pretraining")
    fork = begun(folder)
    wait_until(lambda: run.recorded_status().step > HELD)
    pid = run.recorded_status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    hold.unlink()
    assert fork.wait() == 0
    assert states(folder) == ["finished"] * 3
    assert run.recorded_status().attempt == 2


@pytest.mark.parametrize("how", ["request", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_asked_to_stop_it_saves_and_goes_on_later(
    outputs: Path, begun: Callable[[ExperimentFolder], Fork], held: Callable[[int], Path], how: str
) -> None:
    folder, hold = planned(outputs, steps=STEPS), held(1)
    run = folder.run_of(folder.record().trials[0], "pretraining")
    fork = begun(folder)
    wait_until(lambda: run.recorded_status().step > HELD)
    if how == "request":
        requests.send(run.requests, "pause")
        wait_until(lambda: folder.recorded_status().doing == "Paused")  # else it would stand still unexplained
        stop_experiment(folder)
    else:
        fork.terminate()
    assert fork.wait() == 0
    assert folder.status().state == "stopped"
    assert run.status().state == "stopped"
    assert states(folder) == ["stopped", "planned", "planned"]
    assert read_results(folder) is not None
    done = run.recorded_status().step
    hold.unlink()
    assert begun(folder).wait() == 0
    assert states(folder) == ["finished"] * 3
    assert '"event": "started", "time"' in run.events.read_text()
    assert HELD < done < STEPS


def at_once(folder: ExperimentFolder, jobs: int) -> ExperimentFolder:
    folder.write_status(replace(folder.recorded_status(), jobs=jobs))
    return folder


def outcome(folder: ExperimentFolder) -> tuple[Any, dict[str, str]]:
    """results.json without times, and the weights of each run."""
    found = json.loads(folder.results_json.read_text())
    for timed in (found, *found["trials"]):
        timed.pop("seconds")
    for charts in (found["charts"], found["other_unit"]):
        for chart in [chart for chart in charts if chart["x_axis"]["unit"] == "seconds"]:
            charts.remove(chart)
    runs = [folder.run_of(trial, "pretraining") for trial in folder.record().trials]
    weights = [sorted(run.checkpoints.glob("*/model.safetensors"))[-1] for run in runs]
    return found, {file.parts[-4]: hashlib.sha256(file.read_bytes()).hexdigest() for file in weights}


@pytest.mark.slow
def test_runs_at_once_give_the_very_results_of_one_after_the_other(
    tmp_path: Path, begun: Callable[[ExperimentFolder], Fork], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed on the way, too: the worker, with all that trains, and then one run alone."""
    hold = holding(monkeypatch)
    outcomes = {}
    for jobs in (1, 2):
        folder = at_once(planned(tmp_path / str(jobs), steps=STEPS, train__threads=1), jobs)
        assert begun(folder).wait() == 0
        outcomes[jobs] = outcome(folder)
    folder = at_once(planned(tmp_path / "3", steps=STEPS, train__threads=1), 2)
    runs = [folder.run_of(trial, "pretraining") for trial in folder.record().trials]
    holds = [hold(tmp_path / "3", depth) for depth in (1, 2, 3)]
    fork = begun(folder)
    wait_until(lambda: all(run.recorded_status().step > HELD for run in runs[:2]))
    fork.kill()
    wait_until(lambda: not any(run.status().live for run in runs))
    holds[0].unlink()
    holds[1].unlink()
    fork = begun(folder)
    wait_until(lambda: runs[2].recorded_status().step > HELD)
    pid = runs[2].recorded_status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    holds[2].unlink()
    assert fork.wait() == 0
    assert [run.recorded_status().attempt for run in runs] == [2, 2, 2]
    outcomes[3] = outcome(folder)
    assert outcomes[1] == outcomes[2] == outcomes[3]


@pytest.mark.slow
def test_as_many_train_at_once_as_wanted_and_all_save_when_it_is_stopped(
    outputs: Path, begun: Callable[[ExperimentFolder], Fork], held: Callable[[int], Path]
) -> None:
    folder, holds = at_once(planned(outputs, steps=STEPS), 2), [held(1), held(2)]
    runs = [folder.run_of(trial, "pretraining") for trial in folder.record().trials]
    fork = begun(folder)
    wait_until(lambda: all(run.recorded_status().step > HELD for run in runs[:2]))
    wait_until(lambda: list(folder.recorded_status().training) == ["l1", "l2"])
    assert not runs[2].path.exists()
    stop_experiment(folder)
    assert fork.wait() == 0
    assert states(folder) == ["stopped", "stopped", "planned"]
    assert all(run.status().state == "stopped" for run in runs[:2])
    for hold in holds:
        hold.unlink()
    assert begun(folder).wait() == 0
    assert states(folder) == ["finished"] * 3
    assert {trial.at_once for trial in folder.recorded_status().trials.values()} == {2}


def test_an_error_beside_a_run_that_trains_lets_it_save(
    outputs: Path, held: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = at_once(planned(outputs, steps=STEPS), 2)
    second = folder.run_of(folder.record().trials[1], "pretraining")
    held(2)

    def measure(self: ExperimentWorker, trial: Trial) -> None:
        wait_until(lambda: second.recorded_status().step > HELD)
        raise LabError("Out of memory.")

    monkeypatch.setattr(ExperimentWorker, "_measure", measure)
    with pytest.raises(LabError, match="Out of memory"):
        ExperimentWorker(folder).run()
    assert folder.status().state == "failed"
    assert states(folder) == ["finished", "stopped", "planned"]
    assert second.status().state == "stopped"


def test_a_stop_does_not_wait_for_ever_for_a_run_of_another_machine(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "_STOP_SECONDS", 0.5)
    folder = planned(outputs)
    record = folder.record()
    run = trials._ready(folder, record, record.trials[0], folder.recorded_status())
    run.write_status(replace(run.recorded_status(), state="running", host="gpu-node-7", step=9))
    training = trials.Training(folder, record, record.trials[0], folder.recorded_status())
    assert not training.look(stop=True, terminate=False)
    wait_until(lambda: training.look(stop=True, terminate=False))
    assert [one.name for one in requests.take(run.requests)] == ["stop"]
    assert run.status().elsewhere


def test_an_experiment_of_another_machine_says_how_to_take_it_over(outputs: Path) -> None:
    folder = planned(outputs)
    folder.write_status(replace(folder.recorded_status(), state="running", host="dhcp-17", pid=9))
    with pytest.raises(LabError, match=r"on dhcp-17 is working on it.*experiment resume deep --take-over"):
        start_experiment(folder)


def test_runs_that_share_a_machine_share_its_cores(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "available_cores", lambda: 7)
    folder = planned(outputs)
    record, status = folder.record(), folder.recorded_status()
    shares = [
        (replace(status, jobs=2), 3),
        (status, 0),  # as its worker chooses
        (replace(status, jobs=3, cluster="slurm"), 0),
    ]
    for trial, (now, threads) in zip(record.trials, shares, strict=True):
        assert trials._ready(folder, record, trial, now).info().threads == threads
    first = trials._ready(folder, record, record.trials[0], replace(status, jobs=7))
    assert first.info().threads == 3  # its rounding stays


@pytest.mark.parametrize(("half", "cluster", "expected"), [(3, "", "bf16"), (2, "", "fp32"), (3, "slurm", "fp32")])
def test_all_trials_have_one_precision(
    half: int, cluster: str, expected: str, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = planned(outputs)
    record, status = folder.record(), replace(folder.recorded_status(), cluster=cluster)
    large = [trials.settings_of(record, trial) for trial in record.trials[:half]]
    monkeypatch.setattr(estimate, "precision_of", lambda settings: "bf16" if settings in large else "fp32")
    assert len(record.trials) == 3
    assert {trials._ready(folder, record, trial, status).info().precision for trial in record.trials} == {expected}


def test_trials_that_are_added_take_the_precision_of_those_that_trained(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = planned(outputs)
    record, status = folder.record(), folder.recorded_status()
    first, *others = record.trials
    monkeypatch.setattr(estimate, "precision_of", lambda settings: "bf16")
    run = trials._ready(folder, record, first, status)
    run.change_info(lambda now: replace(now, device="cpu", precision=""))  # as before version 0.5: fp32
    assert {trials._ready(folder, record, trial, status).info().precision for trial in others} == {"fp32"}


def test_a_damaged_run_keeps_no_other_trial_from_training(outputs: Path) -> None:
    folder = planned(outputs)
    record, status = folder.record(), folder.recorded_status()
    first, *others = record.trials
    trials._ready(folder, record, first, status).run_json.write_text("{")
    assert {trials._ready(folder, record, trial, status).id for trial in others} == {trial.run for trial in others}


@pytest.mark.slow
def test_what_is_predicted_from_the_others_waits_for_all_of_them(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, int]] = []

    class Watched(trials.Training):
        def _begin(self) -> None:
            training = sum(run.status().live for run in list_runs(outputs) if run.id != self.trial.run)
            begun.append((self.trial.name, training))
            super()._begin()

    monkeypatch.setattr(experiment_worker, "Training", Watched)
    settings = quick_settings(12, checkpoints__interval=20, train__eval_interval=6)
    request = Request(find_kind("scaling"), settings, outputs, id="law", grid=[8, 16, 24, 32], seeds=1)
    folder = at_once(create_experiment(outputs, make_plan(request)), 4)
    ExperimentWorker(folder).run()
    assert states(folder) == ["finished"] * 4
    assert [name for name, _ in begun] == ["w8", "w16", "w24", "w32"]
    assert begun[-1] == ("w32", 0)


def test_a_run_that_diverges_is_cut_and_stays_cut(outputs: Path) -> None:
    # A rule by which any loss is too high, from the fifth step on.
    rule = DivergenceRule(window=5, above_start=-10.0)
    folder = planned(outputs, 100_000, lambda record: replace(record, rule=rule, trials=record.trials[:1]))
    ExperimentWorker(folder).run()
    run = folder.run_of(folder.record().trials[0], "pretraining")
    assert states(folder) == ["diverged"]
    assert folder.status().state == "finished"
    assert run.recorded_status().state == "stopped"
    results = read_results(folder)
    assert results is not None
    assert results.trials[0].diverged_at == 5
    assert "Stopped at step 5" in results.trials[0].note
    assert results.value("diverged") == 1
    assert [found.unit for found in results.findings if found.name == "diverged"] == ["run"]
    before = bytes_of(run)
    ExperimentWorker(folder).run()
    assert bytes_of(run) == before


def test_a_run_that_fails_is_told_and_the_others_go_on(outputs: Path) -> None:
    def broken(record: ExperimentRecord) -> ExperimentRecord:
        first, *others = record.trials  # no window of such a length fits into the text
        return replace(record, trials=[replace(first, settings=first.settings | {"model.block_size": 60_000}), *others])

    folder = planned(outputs, change=broken)
    ExperimentWorker(folder).run()
    assert states(folder) == ["failed", "finished", "finished"]
    assert "too short" in folder.recorded_status().trials["l1"].note
    assert folder.status().state == "finished"
    results = read_results(folder)
    assert results is not None
    assert "too short" in results.trials[0].note


def test_two_workers_at_once_are_refused(outputs: Path, begun: Callable[[ExperimentFolder], Fork]) -> None:
    folder = planned(outputs, steps=100_000)
    fork = begun(folder)
    wait_until(lambda: folder.recorded_status().pid == fork.pid)
    with pytest.raises(filelock.Timeout):
        ExperimentWorker(folder).run()
    with pytest.raises(LabError, match="already running"):
        start_experiment(folder)
    assert folder.status().pid == fork.pid


def test_an_experiment_that_cannot_be_made_takes_no_failed_run_away(outputs: Path) -> None:
    record = planned(outputs).record()
    shutil.rmtree(outputs / "experiments")
    failed = create_run(outputs, quick_settings(3), name=record.trials[0].run)
    failed.write_status(replace(failed.recorded_status(), state="failed"))
    other = create_run(outputs, quick_settings(3), name=record.trials[1].run)
    other.write_status(replace(other.recorded_status(), state="stopped"))
    with pytest.raises(LabError, match="already there"):
        planned(outputs)
    assert failed.run_json.is_file()


def test_the_name_of_an_experiment_is_taken_once(outputs: Path) -> None:
    planned(outputs)
    with pytest.raises(LabError, match="already there"):
        planned(outputs)
