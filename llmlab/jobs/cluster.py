"""Runs as jobs of a cluster, by submitit: Slurm's, or processes of this machine that are handled as Slurm's are.

A job is a worker like any other: it trains the run in its folder, which must be on a disk that all machines share, and
whoever watches reads that folder. submitit is imported when the first job is submitted.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmlab.core.errors import LabError, UsageError
from llmlab.core.files import read_json, write_json
from llmlab.core.paths import module_command
from llmlab.jobs.launcher import worker_environment
from llmlab.store import requests
from llmlab.store.run_folder import RunFolder

CLUSTERS = ("slurm", "local")
# Of what a run is expected to take, a job may take so often; at least an hour. One whose time is up saves, and is
# queued again.
_TIMES, _LEAST_MINUTES = 4, 60
_LAST_WORD_SECONDS = 60.0  # for which NFS may show a folder as it was (acdirmax in nfs(5))
_VISIBLE = "CUDA_VISIBLE_DEVICES"


class Job:
    """One submitted run; answers like the process of a worker."""

    def __init__(self, run: RunFolder, job: Any) -> None:
        self._run, self._job = run, job
        self._over: float | None = None  # since when, time.monotonic()

    def poll(self) -> int | None:
        """0 once it is over, however; None while it waits or trains. What became of it is in the run's folder."""
        if self._over is None and not self._job.done():
            return None
        # A job that was cancelled while it waited, or killed on its machine, has said nothing. The last word of one
        # that ended by itself may be on its way here.
        if self._run.recorded_status().elsewhere:
            self._over = self._over or time.monotonic()
            if time.monotonic() - self._over < _LAST_WORD_SECONDS:
                return None
            self._run.take_over()
        return 0

    def terminate(self) -> None:
        """Asks it to save and end; takes it back where it has not begun."""
        if self._run.recorded_status().state == "queued":
            self.kill()
            self._over = time.monotonic()  # submitit asks Slurm every ten minutes at most
        else:
            requests.send(self._run.requests, "stop")

    def kill(self) -> None:
        """Cancels it: Slurm sends a SIGTERM first, by which it saves."""
        self._job.cancel(check=False)


class Work:
    """What a job does, on its machine."""

    def __init__(self, run: Path) -> None:
        self._run, self._visible = run, os.environ.get(_VISIBLE)
        self._worker: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        run = RunFolder(self._run)
        if run.recorded_status().state == "finished":  # by a job that was submitted after this one
            return 0
        environment = {**os.environ, **worker_environment(), "PYTHONUNBUFFERED": "1"}
        if environment.get("SUBMITIT_EXECUTOR") == "local":  # which hides the GPUs that nobody asked it for
            environment.pop(_VISIBLE, None)
            environment |= {} if self._visible is None else {_VISIBLE: self._visible}
        command = [*module_command("llmlab.jobs.worker"), str(run.path), "--follow-parent", str(os.getpid())]
        with run.log.open("ab") as log:
            worker = self._worker = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        return worker.wait()

    def checkpoint(self, *_: Any) -> Any:
        """By submitit, when the job's time is nearly up: the run saves, and the same is submitted again."""
        from submitit.helpers import DelayedSubmission

        if self._worker is not None:
            self._worker.terminate()
            # This runs in a signal's handler, inside `wait` above, whose lock Popen's own `wait` would wait for.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self._worker.pid, os.WEXITED | os.WNOWAIT)
            self._worker = None
        return DelayedSubmission(self)


def submit(run: RunFolder, cluster: str, folder: Path, seconds: float, options: Mapping[str, str]) -> Job:
    """Submits a run, which goes on from its newest checkpoint if it has one.

    folder: for submitit's files. seconds: that the run is expected to take. options: of submitit's AutoExecutor
    (`slurm_partition`, `timeout_min`, `gpus_per_node`). LabError when there is no submitit, or it refuses.
    """
    executor = _executor(cluster, folder)
    minutes = max(_LEAST_MINUTES, math.ceil(_TIMES * seconds / 60))
    try:
        executor.update_parameters(name=run.id, timeout_min=minutes)
        executor.update_parameters(**{name: _number(value) for name, value in options.items()})
        requests.clear(run.requests)
        status = replace(run.recorded_status(), state="queued", heartbeat=time.time(), pid=None, error=None)
        run.write_status(replace(status, host=f"{cluster}, where it waits"))
        job = executor.submit(Work(run.path))
    except Exception as error:  # of submitit's own kinds, or of a program of the cluster's
        run.take_over()
        first = str(error).strip().partition("\n")[0]
        raise LabError(f"{run.id} could not be submitted to {cluster}.", first, "See --cluster-set.") from error
    with contextlib.suppress(OSError):  # it trains all the same
        write_json(_kept(run, folder), {"cluster": cluster, "job": job.job_id})
    return Job(run, job)


def waiting_job(run: RunFolder, folder: Path) -> Job | None:
    """The job of Slurm's in which a run waits, whoever submitted it, from what `submit` left in `folder`.

    None where it has begun, since then it hears requests, and where there is no Slurm. Local jobs begin at once.
    """
    kept, status = read_json(_kept(run, folder)) or {}, run.recorded_status()
    waits = status.state == "queued" and status.elsewhere  # not in the window's queue
    if kept.get("cluster") != "slurm" or not waits or shutil.which("scancel") is None:
        return None
    require_cluster("slurm")
    import submitit

    return Job(run, submitit.SlurmJob(folder, str(kept.get("job"))))


def _kept(run: RunFolder, folder: Path) -> Path:
    return folder / f"{run.id}.json"


def require_cluster(cluster: str) -> None:
    """UsageError for a cluster that the lab does not know, LabError where submitit is missing."""
    if cluster not in CLUSTERS:
        raise UsageError(f"There is no cluster {cluster!r}.", f"There are: {', '.join(CLUSTERS)}.")
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        do = "Install it beside the lab: pip install submitit"
        raise LabError("Jobs of a cluster need the package submitit.", "It is not installed.", do) from error


def _executor(cluster: str, folder: Path) -> Any:
    require_cluster(cluster)
    import submitit

    try:
        return submitit.AutoExecutor(folder=folder, cluster=cluster)
    except Exception as error:  # no `srun` here, say
        raise LabError(f"{cluster} cannot be used here.", str(error).strip().partition("\n")[0]) from error


def _number(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text
