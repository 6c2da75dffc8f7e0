"""The losses of an experiment's runs while they train: read little by little, handed on as arrays of their own."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from llmlab.store.columns import EVALUATION_COLUMNS, STEP_COLUMNS
from llmlab.store.events import Started
from llmlab.store.history import RunHistory
from llmlab.store.run_folder import RunFolder
from llmlab.store.run_log import EventFollower
from llmlab.studies.records import ExperimentFolder, ExperimentRecord

# Rows kept of a run: dozens of curves share a chart, and each has at most so many pixels.
_MOST_ROWS = 4000
# A block of events parses in about 10 ms; the interpreter is shared with the window.
_BLOCK_BYTES = 512 << 10


@dataclass(frozen=True)
class TrialCurve:
    """What one run's losses were so far. Never changes: a later look makes another one.

    steps: STEP_COLUMNS as [column, row]; evaluations: EVALUATION_COLUMNS as [column, row]. origin: when its first
    worker began, Unix seconds. started: how the last one did, which knows what its tokens are.
    """

    name: str
    steps: np.ndarray = field(default_factory=lambda: np.empty((len(STEP_COLUMNS), 0)))
    evaluations: np.ndarray = field(default_factory=lambda: np.empty((len(EVALUATION_COLUMNS), 0)))
    origin: float = 0.0
    started: Started | None = None

    def column(self, name: str) -> np.ndarray:
        """One of STEP_COLUMNS, a value a row."""
        found: np.ndarray = self.steps[STEP_COLUMNS.index(name)]
        return found

    def evaluated(self, name: str) -> np.ndarray:
        """One of EVALUATION_COLUMNS, a value an evaluation."""
        found: np.ndarray = self.evaluations[EVALUATION_COLUMNS.index(name)]
        return found

    def x(self, axis: str, at: np.ndarray | None = None) -> np.ndarray:
        """Where rows stand on an axis: `step`, `tokens`, `active_seconds`, or `elapsed` (seconds since the start).

        at: steps to look up instead, interpolated between the rows beside them.
        """
        if axis == "elapsed":  # a clock that was set back must not turn the curve around
            values = np.maximum.accumulate(self.column("time") - self.origin)
        else:
            values = self.column(axis)
        if at is None or axis == "step":
            return values if at is None else np.asarray(at, dtype=np.float64)
        return np.interp(at, self.column("step"), values) if len(values) else np.full(len(at), np.nan)


class TrialCurves:
    """Follows all runs of one experiment. Touches no Qt: the poller's thread has it."""

    def __init__(self, folder: ExperimentFolder, record: ExperimentRecord) -> None:
        names = [trial.name for trial in record.trials]
        self._trials = dict(zip(names, map(_Followed, names, folder.runs_of(record)), strict=True))

    def look(self) -> bool:
        """Reads what is new, at most a block of each run. True when a curve changed; then there may be more."""
        return sum(trial.look() for trial in self._trials.values()) > 0  # all of them look

    def curves(self) -> dict[str, TrialCurve]:
        """What is known now, by the names of the trials; runs that have no step yet are left out."""
        made = {name: trial.curve() for name, trial in self._trials.items()}
        return {name: curve for name, curve in made.items() if curve.steps.shape[1]}


class _Followed:
    """One run. A file that did not change is not opened."""

    def __init__(self, name: str, run: RunFolder) -> None:
        self._name, self._run = name, run
        self._history = RunHistory(_MOST_ROWS)
        self._follower: EventFollower | None = None
        self._stamp = (0, 0)
        self._curve: TrialCurve | None = TrialCurve(name)

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

    def curve(self) -> TrialCurve:
        if self._curve is None:
            history = self._history
            self._curve = TrialCurve(
                self._name,
                history.step_columns.values.copy(),
                history.evaluations.values.copy(),
                history.origin or 0.0,
                history.worker,
            )
        return self._curve
