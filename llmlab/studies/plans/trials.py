"""A trial while it trains: its run made, begun in a worker of its own, followed, asked to stop; and how long all of a
plan still take. No torch."""

from __future__ import annotations

import contextlib
import heapq
import math
import statistics
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace

from llmlab.core.errors import LabError
from llmlab.core.processes import available_cores
from llmlab.gpt.estimate import precision_of_all
from llmlab.jobs.cluster import Job, submit, waiting_job
from llmlab.jobs.launcher import create_run, start_worker
from llmlab.store import requests
from llmlab.store.run_folder import RunFolder
from llmlab.store.run_log import EventFollower
from llmlab.studies.plans.divergence import DivergenceWatch
from llmlab.studies.plans.records import (
    ExperimentFolder,
    ExperimentRecord,
    ExperimentStatus,
    Trial,
    TrialStatus,
    settings_of,
)

# A run whose worker is killed again and again has a reason that starting it anew does not mend.
_ATTEMPTS = 3
# A run saves and ends within this time of being asked, or is killed: its last checkpoint counts then.
_STOP_SECONDS = 120.0
_PACED = 0.05  # the share of its steps after which a trial's own pace is believed


def _ready(folder: ExperimentFolder, record: ExperimentRecord, trial: Trial, status: ExperimentStatus) -> RunFolder:
    """The trial's run, made if it is not there yet. LabError when it cannot be made.

    Runs that train here at once share the cores. One that is there keeps its threads: its rounding depends on them.
    """
    run = folder.run_of(trial, record.track)
    if run.run_json.is_file():
        return run
    settings, watched = settings_of(record, trial), record.watched
    threads = max(1, (available_cores() - watched) // status.share) if status.share > 1 else 0
    return create_run(
        folder.outputs,
        settings,
        name=trial.run,
        preset=record.preset,
        watched=watched,
        threads=threads,
        precision=_precision(folder, record, status),
    )


def _precision(folder: ExperimentFolder, record: ExperimentRecord, status: ExperimentStatus) -> str:
    """What "auto" takes in all trials on a processor: what those took that are there; on a cluster, of whose processors
    nothing is known, fp32."""
    taken = {_precision_taken(run) for run in folder.runs_of(record)} - {""}
    if taken:
        return "bf16" if taken == {"bf16"} else "fp32"
    return "fp32" if status.cluster else precision_of_all(settings_of(record, one) for one in record.trials)


def _precision_taken(run: RunFolder) -> str:
    """Empty where the run is not there, or its run.json is damaged: the other trials train all the same."""
    with contextlib.suppress(LabError):
        return run.info().precision_on_a_processor
    return ""


class Training:
    """One trial that trains. A run that someone else trains already is followed."""

    def __init__(
        self, folder: ExperimentFolder, record: ExperimentRecord, trial: Trial, status: ExperimentStatus
    ) -> None:
        """Begins. LabError when it cannot be made or started."""
        self.trial, self.before = trial, status.trials[trial.name]
        self.run = _ready(folder, record, trial, status)
        self.began = time.monotonic()
        self._folder, self._record, self._status = folder, record, status
        self._attempts = 0
        self._asked: float | None = None  # to stop, time.monotonic()
        self._worker: subprocess.Popen[bytes] | Job | None = None
        self._begin()

    @property
    def seconds(self) -> float:
        """That it took, over all sessions."""
        return self.before.wall_seconds + time.monotonic() - self.began

    def standing(self) -> TrialStatus:
        """Where it is now, and what keeps it from its next step."""
        now = self.run.recorded_status()
        return replace(
            self.before,
            state="running",
            step=now.step,
            steps=now.steps,
            loss=now.loss,
            val_loss=now.val_loss,
            wall_seconds=self.seconds,
            doing=now.doing or ("Paused" if now.state == "paused" else ""),
            note="",
            at_once=self._status.share,
            eta_seconds=now.eta_seconds,
        )

    def look(self, *, stop: bool, terminate: bool) -> bool:
        """Whether it is over: it has ended by itself, was cut by the rule, or saved since it was asked to (`stop`).

        A run whose worker was killed is begun again: LabError when that happens again and again. terminate: asks by
        SIGTERM, after which a worker has seconds only.
        """
        # Asked before reading, so that its last words are read.
        gone = self._worker.poll() is not None if self._worker is not None else not self.run.status().live
        while events := self._follower.poll():
            for event in events:
                self._watch.add(event)
        if gone:
            if stop or self._watch.note or self.run.status().state != "interrupted":
                return True
            if self._attempts == _ATTEMPTS:
                raise LabError(
                    f"The worker of {self.run.id} was killed {_ATTEMPTS} times.", f"Its log: {self.run.log}."
                )
            self._begin()
            return False
        if self._asked is None and (self._watch.note or stop):
            self._asked = time.monotonic()
            if isinstance(self._worker, Job) or (terminate and self._worker is not None):
                self._worker.terminate()
            else:
                requests.send(self.run.requests, "stop")
        if self._asked is not None and time.monotonic() - self._asked > _STOP_SECONDS:
            if self._worker is None:  # another's, who has heard it or never will
                return True
            self._worker.kill()
            self._asked = math.inf  # once
        return False

    def _begin(self) -> None:
        self._attempts += 1
        self._watch, self._follower = DivergenceWatch(self._record.rule), EventFollower(self.run)
        self._asked = self._worker = None
        status, jobs = self.run.recorded_status(), self._folder.path / "cluster"
        if status.live and self.run.has_worker(status):  # another's, or a job that was submitted before
            self._worker = waiting_job(self.run, jobs)
        elif self.run.status().state == "finished":
            return
        elif cluster := self._status.cluster:
            seconds, options = self.trial.estimated_seconds, self._status.cluster_options
            self._worker = submit(self.run, cluster, jobs, seconds, options)
        else:
            self._worker = start_worker(self.run, follow_parent=True)


def seconds_left(record: ExperimentRecord, trials: Mapping[str, TrialStatus], jobs: int = 1, share: int = 1) -> float:
    """Time until every trial has ended: the estimates, corrected by what trials really take.

    The correction is the median of taken / estimated over trials that finished, train or were stopped: these have their
    own pace. Before any has, it is at least what the first ones have taken to start. Of those that train the rest is
    what they say, of others it counts by their steps.
    jobs: that train at once; as one ends, the next begins. share: how many of them have one machine together.
    """
    standing = [(trial, trials.get(trial.name, TrialStatus())) for trial in record.trials]
    timed = [
        (trial.estimated_seconds * status.at_once, status) for trial, status in standing if trial.estimated_seconds
    ]
    ratios = [taken / expected for expected, status in timed if (taken := _taken(status)) is not None]
    if not ratios:
        ratios = [max(1.0, one.wall_seconds / expected) for expected, one in timed if one.state == "running"]
    ratio = statistics.median(ratios) if ratios else 1.0
    free = [0.0] * jobs  # when each is, from now on: a heap
    for trial, status in standing:
        if not status.ended:
            done = status.step / status.steps if status.steps else 0.0
            left = trial.estimated_seconds * ratio * share * (1 - done)
            if status.eta_seconds is not None and _taken(status) is not None:
                left = status.eta_seconds
            elif status.state == "running" and not status.active_seconds:  # it starts: its time is running, too
                left = max(left - status.wall_seconds, left / 10)
            heapq.heapreplace(free, free[0] + left)
    return max(free)


def _taken(status: TrialStatus) -> float | None:
    """Seconds that a trial took, or will have taken, once its pace is known; None before."""
    if status.state == "finished":
        return status.wall_seconds
    if status.state not in ("running", "stopped") or status.step <= _PACED * status.steps:
        return None
    if status.state == "running" and status.eta_seconds is not None:
        return status.wall_seconds + status.eta_seconds
    if status.state == "running" and not status.active_seconds:
        return None
    # Stopped; or resumed, and starting again: its pace is that of before.
    return status.wall_seconds + status.active_seconds * (status.steps / status.step - 1) or None
