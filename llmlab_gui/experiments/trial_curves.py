"""The losses of an experiment's runs while they train: read little by little, handed on as they are at a moment."""

from __future__ import annotations

import copy

from llmlab.store.history import RunHistory
from llmlab.store.run_folder import RunFolder
from llmlab.store.run_log import EventFollower
from llmlab.studies.plans.records import ExperimentFolder, ExperimentRecord

# Rows kept of a run: dozens of curves share a chart, and each has at most so many pixels.
_MOST_ROWS = 4000
# A block of events parses in about 10 ms; the interpreter is shared with the window.
_BLOCK_BYTES = 512 << 10


class TrialCurves:
    """Follows all runs of one experiment. Touches no Qt: the poller's thread has it."""

    def __init__(self, folder: ExperimentFolder, record: ExperimentRecord) -> None:
        names = [trial.name for trial in record.trials]
        self._trials = dict(zip(names, map(_Followed, folder.runs_of(record)), strict=True))

    def look(self) -> bool:
        """Reads what is new, at most a block of each run. True when a curve changed; then there may be more."""
        return sum(trial.look() for trial in self._trials.values()) > 0  # all of them look

    def curves(self) -> dict[str, RunHistory]:
        """What is known now, by the names of the trials; runs that have no step yet are left out.

        Their rows never change: a later look makes other histories.
        """
        made = {name: trial.curve() for name, trial in self._trials.items()}
        return {name: curve for name, curve in made.items() if len(curve.step_columns)}


class _Followed:
    """One run. A file that did not change is not opened."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._history = RunHistory(_MOST_ROWS)
        self._follower: EventFollower | None = None
        self._stamp = (0, 0)
        self._curve: RunHistory | None = None

    def look(self) -> bool:
        try:
            found = self._run.events.stat()
        except OSError:  # not begun
            return False
        stamp = (found.st_mtime_ns, found.st_size)
        if stamp == self._stamp:
            return False
        if self._follower is None:
            self._follower = EventFollower(self._run)
        events = self._follower.poll(_BLOCK_BYTES)
        if self._follower.offset >= found.st_size or not events:
            self._stamp = stamp
        if events:
            self._history.extend(events)
            self._curve = None
        return bool(events)

    def curve(self) -> RunHistory:
        if self._curve is None:
            history, self._curve = self._history, copy.copy(self._history)
            self._curve.step_columns = copy.deepcopy(history.step_columns)
            self._curve.evaluations = copy.deepcopy(history.evaluations)
        return self._curve
