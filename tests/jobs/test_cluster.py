"""Runs as jobs of a cluster: handed to submitit, followed through their folders, taken back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_runs import new_run, quick_settings

from llmlab.core.errors import LabError
from llmlab.jobs import cluster
from llmlab.store import requests
from llmlab.store.run_folder import RunFolder
from llmlab.studies.experiments.kinds import find_kind
from llmlab.studies.experiments.plan import Request, make_plan
from llmlab.studies.launcher import create_experiment
from llmlab.studies.plans.trials import Training

SACCT = r"JobID|State|NodeList\n4321|PENDING|"


class Handed:
    """A job that a cluster has taken."""

    over, cancelled, job_id = False, 0, "7"

    def done(self) -> bool:
        return self.over

    def cancel(self, check: bool) -> None:
        self.cancelled += 1


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a cluster was given."""
    found: dict[str, Any] = {"job": Handed()}

    def submit(work: cluster.Work) -> Handed:
        found["work"] = work
        job: Handed = found["job"]
        return job

    executor = SimpleNamespace(update_parameters=lambda **values: found.update(values), submit=submit)
    monkeypatch.setattr(cluster, "_executor", lambda name, folder: executor)
    return found


def submitted(run: RunFolder, **options: str) -> cluster.Job:
    return cluster.submit(run, "slurm", run.outputs / "jobs", 7200.0, options)


def test_a_job_gets_time_and_parameters_and_its_run_waits_with_it(outputs: Path, taken: dict[str, Any]) -> None:
    run = new_run(outputs)
    requests.send(run.requests, "stop")  # to a worker of long ago
    job = submitted(run, slurm_partition="gpu", gpus_per_node="2")
    assert (taken["name"], taken["timeout_min"]) == ("run", 480)
    assert (taken["slurm_partition"], taken["gpus_per_node"]) == ("gpu", 2)
    assert requests.take(run.requests) == []
    assert job.poll() is None
    assert run.status().words == "queued on slurm, where it waits"


def test_what_has_not_begun_is_taken_back_and_what_trains_is_asked(outputs: Path, taken: dict[str, Any]) -> None:
    run = new_run(outputs)
    job = submitted(run)
    job.terminate()
    assert taken["job"].cancelled == 1
    run.write_status(replace(run.recorded_status(), state="running", host="node-3"))
    job.terminate()
    assert taken["job"].cancelled == 1
    assert [one.name for one in requests.take(run.requests)] == ["stop"]


def test_a_job_that_ended_without_a_word_leaves_a_run_that_can_go_on(
    outputs: Path, taken: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, now = new_run(outputs), [100.0]
    job = submitted(run)
    monkeypatch.setattr(cluster.time, "monotonic", lambda: now[0])
    taken["job"].over = True
    assert job.poll() is None  # its last word may be on its way here
    now[0] += 61.0
    assert job.poll() == 0
    assert run.status().state == "interrupted"


@pytest.mark.skipif(sys.platform == "win32", reason="Slurm's programs are shell scripts here")
def test_an_experiment_that_was_killed_takes_its_waiting_jobs_up_again_and_back(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    (programs := tmp_path / "slurm").mkdir()
    asked = tmp_path / "asked"
    for name, says in {"sbatch": "Submitted batch job 4321", "scancel": "", "srun": "", "sacct": SACCT}.items():
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$1" >> {asked}\nprintf "{says}\n"\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    plan = make_plan(Request(find_kind("depth"), quick_settings(), outputs, id="deep", grid=[1, 2]))
    folder = create_experiment(outputs, plan)
    status = replace(folder.recorded_status(), cluster="slurm")
    trial = plan.trials[0]
    began = Training(folder, plan, trial, status)
    assert began.run.status().words == "queued on slurm, where it waits"
    del began  # with the process that had submitted it
    resumed, now = Training(folder, plan, trial, status), [100.0]
    assert resumed.run.status().state == "queued"
    monkeypatch.setattr(cluster.time, "monotonic", lambda: now[0])
    assert not resumed.look(stop=True, terminate=False)
    now[0] += 61.0
    assert resumed.look(stop=True, terminate=False)
    assert resumed.run.status().state == "interrupted"
    lines = [line for line in asked.read_text().splitlines() if not line.startswith("sacct")]
    assert [line.split()[0] for line in lines] == ["sbatch", "scancel"]
    assert lines[1] == "scancel 4321"
    for later in ({"state": "running", "host": "node-3"}, {"state": "queued", "host": ""}):  # it began; it waits here
        resumed.run.write_status(replace(resumed.run.recorded_status(), **later))
        assert cluster.waiting_job(resumed.run, folder.path / "cluster") is None


@pytest.mark.skipif(sys.platform == "win32", reason="submitit's signals are POSIX")
def test_a_job_whose_time_is_up_saves_and_is_handed_in_again(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes while the job waits for its worker, in the same thread."""
    pytest.importorskip("submitit")
    waits = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(7)); print('up', flush=True); signal.pause()"
    work, again, begin = cluster.Work(new_run(outputs).path), [], subprocess.Popen

    def start(command: object, **options: Any) -> subprocess.Popen[bytes]:
        worker = begin([sys.executable, "-c", waits], stdout=subprocess.PIPE)
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"up\n"
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        return worker

    monkeypatch.setattr(cluster.subprocess, "Popen", start)
    before = signal.signal(signal.SIGALRM, lambda *_: again.append(work.checkpoint()))
    try:
        assert work() == 7
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [one.function for one in again] == [work]


def test_a_cluster_that_refuses_leaves_no_run_that_waits(outputs: Path, taken: dict[str, Any]) -> None:
    def refuse(work: object) -> None:
        raise RuntimeError("sbatch: error: invalid partition\nand more")

    run = new_run(outputs)
    cluster._executor("slurm", outputs).submit = refuse
    with pytest.raises(LabError, match="invalid partition"):
        submitted(run)
    assert run.status().state == "interrupted"


def test_without_submitit_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(LabError, match="pip install submitit"):
        cluster.require_cluster("slurm")
    with pytest.raises(LabError, match="no cluster 'pbs'"):
        cluster.require_cluster("pbs")
