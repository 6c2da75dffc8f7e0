"""Running the plan of an experiment, from wherever it stands.

`ExperimentWorker` takes the folder's lock and runs the trials, each in a worker of its own like any run: one after the
other, or as many at once as status.json says (`jobs`). What has ended is never touched again; a run that was
interrupted goes on from its checkpoint. Everything that decides where the experiment stands is in the runs' own
folders, so this process can be killed at any moment.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llmlab.core.errors import Cancelled, LabError
from llmlab.core.files import clear_litter
from llmlab.core.processes import host_name, process_start
from llmlab.core.progress import Work
from llmlab.store import requests
from llmlab.store.history import read_history
from llmlab.studies.experiments.gathered import trial_result
from llmlab.studies.experiments.outcomes import MEASURED_KINDS, write_results
from llmlab.studies.experiments.results import build_results, forecast_next
from llmlab.studies.plans.records import TRIAL_ENDED_STATES, ExperimentFolder, ExperimentStatus, Trial, TrialStatus
from llmlab.studies.plans.trials import Training, seconds_left
from llmlab.studies.report import write_report
from llmlab.training import thread_spin

_POLL_SECONDS = 0.2
_STATUS_SECONDS = 1.0
# What takes no longer was measured by an earlier worker, and only read.
_MEASURED_BEFORE_SECONDS = 0.2


class Stop(Cancelled):
    """The experiment was asked to stop; what was begun is saved."""


class ExperimentWorker:
    """Runs the plan of one experiment from where it stands."""

    def __init__(self, folder: ExperimentFolder) -> None:
        """LabError when there is no such experiment."""
        self.folder = folder
        self.record = folder.record()
        self.stop_signal = threading.Event()
        self.terminated = False  # by SIGTERM, whose sender waits for seconds only
        self.status = folder.recorded_status()
        self._training: list[Training] = []
        self._ended: deque[Trial] = deque()  # finished runs that are to be measured
        self._work: Work | None = None  # measuring one of them, or judging
        self._ratios: list[float] = []  # of runs that were measured: the time that it took over the estimate
        self._began = time.monotonic()
        self._seconds_before = self.status.active_seconds
        self._last_status = 0.0

    def run(self) -> None:
        """Until the plan is done, a stop, or an error. filelock.Timeout when another worker is at it; LabError."""
        with self.folder.held():
            for path in (self.folder.path, self.folder.requests):
                clear_litter(path)
            self.status = self.folder.recorded_status()
            pid = os.getpid()
            attempt = self.status.attempt + 1
            here = {"host": host_name(), "pid": pid, "pid_start": process_start(pid)}
            self._update(state="running", attempt=attempt, error=None, **here)
            try:
                try:
                    self._run_plan()
                except Stop:
                    self._update(state="stopping")
                    self._conclude("stopped")
            except Exception as error:
                failure = _explained(error)
                print(traceback.format_exc(), file=sys.stderr)
                self._update(state="failed", doing="", error=failure.as_dict())
                raise failure from error

    def _run_plan(self) -> None:
        # Where each trial stands is asked of its run: it may have ended after this worker's forerunner was killed.
        # What failed is tried again, since someone has started the experiment anew.
        standing = {trial.name: self._standing(trial) for trial in self.record.trials}
        again = {name: replace(one, state="stopped") for name, one in standing.items() if one.state == "failed"}
        self._update(trials=standing | again)
        waiting = deque(trial for trial in self.record.trials if not self.status.trials[trial.name].ended)
        self._ended.extend(trial for trial in self.record.trials if self.status.trials[trial.name].state == "finished")
        try:
            while waiting or self._training or self._ended:
                self._require_go()
                while waiting and self._may_begin(waiting[0]):
                    self._begin(waiting.popleft())
                self._look()
                if self._ended:
                    trial = self._ended.popleft()
                    self._measure_timed(trial)
                elif self._training:
                    time.sleep(_POLL_SECONDS)
        except Exception:  # a stop, or an error: what trains saves first
            self.stop_signal.set()
            self._update(state="stopping")
            while self._training:
                self._look()
                time.sleep(_POLL_SECONDS)
            raise
        whole = all(self.status.trials[trial.name].ended for trial in self.record.trials)
        self._conclude("finished" if whole else "stopped")

    def _may_begin(self, trial: Trial) -> bool:
        """Whether there is room for one more. What is to be predicted from the others waits for all of them."""
        room = len(self._training) + len(self._ended) < self.status.jobs
        return room and (not trial.forecast or all(one.trial.forecast for one in self._training))

    def _begin(self, trial: Trial) -> None:
        before = self.status.trials[trial.name]
        self._update(trial=trial.name, doing="")
        try:
            if trial.forecast:
                forecast_next(self.folder, self.record, trial)  # written down before the run begins
            self._training.append(Training(self.folder, self.record, trial, self.status))
        except LabError as error:  # this one cannot be made or started; the others can
            self._set(trial, replace(before, state="failed", note=str(error)))
            self._write_results()

    def _look(self) -> None:
        """At all that train: what is over is written down, and is to be measured where it finished."""
        for one in list(self._training):
            stop = self._stop_wanted()
            try:
                if not one.look(stop=stop, terminate=self.terminated):
                    continue
                ended = self._standing(one.trial)
            except LabError as error:
                ended = replace(one.before, state="failed", note=str(error))
            self._training.remove(one)
            self._set(one.trial, replace(ended, wall_seconds=one.seconds, at_once=self.status.share))
            if not stop:
                self._write_results()
            if ended.state == "finished":
                self._ended.append(one.trial)
        self._show()

    def _set(self, trial: Trial, standing: TrialStatus) -> None:
        self._update(trials=self.status.trials | {trial.name: standing})

    def _show(self) -> None:
        """Where the runs that train stand, about once a second."""
        if not self._training or time.monotonic() - self._last_status < _STATUS_SECONDS:
            return
        now = self._now()
        doing = [(name, one.doing) for name, one in now.items() if one.doing]
        words = "; ".join(what if len(now) == 1 else f"{name}: {what}" for name, what in doing)
        self._update(trials=self.status.trials | now, trial=next(iter(now)), doing=words)

    def _now(self) -> dict[str, TrialStatus]:
        """Where those that train are, by their names."""
        return {one.trial.name: one.standing() for one in self._training}

    def _standing(self, trial: Trial) -> TrialStatus:
        """Where a trial stands, from its run's folder alone; only the time it took is kept."""
        known = self.status.trials.get(trial.name, TrialStatus())
        run = self.folder.run_of(trial, self.record.track)
        if not run.run_json.is_file():
            return known if known.state == "failed" else TrialStatus(wall_seconds=known.wall_seconds)
        result = trial_result(self.record, trial, run, read_history(run))
        state = result.state if result.state in TRIAL_ENDED_STATES else ("stopped" if result.steps else "planned")
        status = run.recorded_status()
        return TrialStatus(
            state=state,
            step=result.steps,
            steps=status.steps,
            loss=status.loss,
            val_loss=result.val_loss,
            active_seconds=result.seconds,
            wall_seconds=known.wall_seconds,
            note=result.note,
            at_once=known.at_once,
        )

    def _conclude(self, state: str) -> None:
        """Results, figures and report of what is there, then the last word."""
        self._update(trial="", doing="Writing the report")
        self._write_report()
        self._update(state=state, doing="")

    def _measure_timed(self, trial: Trial) -> None:
        """Measures a run, and learns how long that takes."""
        work = self._work = Work(self._measuring([trial]))
        self._update(trial=trial.name, doing=f"Measuring {trial.name}")
        self._measure(trial)
        self._work = None
        if work.spent > _MEASURED_BEFORE_SECONDS and trial.measuring_seconds > 0:
            self._ratios.append(work.spent / trial.measuring_seconds)

    def _measuring(self, trials: Sequence[Trial]) -> float:
        """Seconds that measuring these takes: the estimates, corrected by what it took so far."""
        ratio = statistics.median(self._ratios) if self._ratios else 1.0
        return ratio * sum(trial.measuring_seconds for trial in trials)

    def _seconds_left(self, status: ExperimentStatus) -> float:
        """Of the whole plan: training, and measuring, between the runs or beside them."""
        training = seconds_left(self.record, status.trials, status.jobs, status.share)
        to_train = [one for one in self.record.trials if not status.trials.get(one.name, TrialStatus()).ended]
        measuring = self._measuring([*to_train, *self._ended])
        measuring += self._work.left if self._work is not None else 0.0
        return training + measuring if status.jobs == 1 else max(training, measuring)

    # What a kind of plan does with its runs ----------------------------------------------------------------------

    def _measure(self, trial: Trial) -> None:
        """What is to be measured on a finished run's checkpoints, unless that was done."""
        if self.record.kind in MEASURED_KINDS:
            with thread_spin.sleeping():
                from llmlab.studies.experiments.measure import measure_trial  # torch, which other kinds need not
            measure_trial(self.folder, self.record, trial, self._require_go)

    def _write_results(self) -> None:
        """What the runs that have ended say."""
        write_results(self.folder, build_results(self.folder, self.record))

    def _write_report(self) -> None:
        """All that came out, for people."""
        results = build_results(self.folder, self.record, look_closely=True)
        write_results(self.folder, results)
        write_report(self.folder, self.record, results, seconds=self._seconds())

    def _stop_wanted(self) -> bool:
        if not self.stop_signal.is_set():
            asked = requests.take(self.folder.requests)
            if any(request.name == "stop" for request in asked):
                self.stop_signal.set()
        return self.stop_signal.is_set()

    def _require_go(self) -> None:
        """Raises Stop when one is wanted."""
        if self._stop_wanted():
            raise Stop

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _update(self, **changes: Any) -> None:
        """Changes the status and writes it."""
        changed = replace(self.status, **changes)
        left = self._seconds_left(changed)
        self.status = replace(changed, heartbeat=time.time(), active_seconds=self._seconds(), eta_seconds=left)
        self._last_status = time.monotonic()
        self.folder.write_status(self.status)


def _explained(error: Exception) -> LabError:
    if isinstance(error, LabError):
        return error
    if isinstance(error, OSError):
        return LabError("The experiment's folder could not be written.", f"{error}.", "Free some space, then resume.")
    return LabError(
        f"The experiment ended by an error that the lab did not expect: {type(error).__name__}.",
        str(error).strip().split("\n")[0],
        "The full error is in worker.log.",
    )
