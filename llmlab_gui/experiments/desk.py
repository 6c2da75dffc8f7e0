"""The window's model of its experiments: which there are, which one is looked at, and what came out of it.

Checks of a paper's claims are kept on a desk of their own, which works alike (see `Source`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Generic

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.store.history import RunHistory
from llmlab.store.worker_folder import is_elsewhere
from llmlab_gui.experiments.controller import ExperimentController
from llmlab_gui.experiments.poller import ExperimentRow, ExperimentsPoller, Outcome, R, Source
from llmlab_gui.lab.plans import PlansDesk

__all__ = ["ExperimentDesk", "ExperimentRow"]


class ExperimentDesk(PlansDesk, Generic[R]):
    """What the docks about experiments share. Owns their threads; `shutdown()` waits for them.

    The current experiment is what those docks are about; the newest that lives is, unless the learner chose another.
    """

    changed = Signal()  # the list, or where some experiment stands
    current_changed = Signal(str)  # id, "" for none
    outcome_changed = Signal()  # results or report of the current one
    curves_changed = Signal()  # losses of the current one's runs

    def __init__(self, outputs: Path, source: Source[R], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.looked = False  # whether the outputs folder was read at least once
        self.controller = ExperimentController(outputs, source, self)
        self._source = source
        self._rows: dict[str, ExperimentRow] = {}
        self._current = ""
        self._by_hand = False
        self._awaited = ""  # just started: it becomes the current one as soon as it is found
        self._outcome: Outcome[R] = Outcome("")
        self.curves: dict[str, RunHistory] = {}  # of the current one's runs, by the names of its trials
        self._ended = False
        self._poller = ExperimentsPoller(outputs, source, self)
        self._poller.found.connect(self._take_rows)
        self._poller.outcome_found.connect(self._take_outcome)
        self._poller.curves_found.connect(self._take_curves)
        self._poller.failed.connect(self.failed)
        self.controller.failed.connect(self.failed)
        self.controller.said.connect(self.said)
        self.controller.started.connect(self._started)
        self.controller.started.connect(self.started)
        self._poller.start()

    def rows(self) -> list[ExperimentRow]:
        """Every experiment in the outputs folder, newest first."""
        return list(self._rows.values())

    def row(self, experiment_id: str) -> ExperimentRow | None:
        """An experiment by its id."""
        return self._rows.get(experiment_id)

    def current(self) -> ExperimentRow | None:
        """The one that the docks are about."""
        return self._rows.get(self._current)

    def set_current(self, experiment_id: str) -> None:
        """Makes an experiment the one that the docks are about; "" for none."""
        self._by_hand = bool(experiment_id)
        self._make_current(experiment_id)

    @property
    def outcome(self) -> Outcome[R]:
        """Results and report of the current experiment, as far as they are there."""
        return self._outcome if self._outcome.id == self._current else Outcome(self._current)

    def live(self) -> list[ExperimentRow]:
        """Those that a worker of this machine is at."""
        return [row for row in self._rows.values() if row.status.live and not is_elsewhere(row.status)]

    def refresh(self) -> None:
        """Looks at the outputs folder at once."""
        self._poller.poke()

    def shutdown(self) -> None:
        """Ends every thread and waits for it. Workers go on."""
        self._ended = True
        self._poller.stop()
        self._poller.wait()
        self.controller.shutdown()

    def _started(self, experiment_id: str) -> None:
        """What this window started is what its user wants to see."""
        self._awaited = experiment_id
        self.refresh()

    def _take_rows(self, rows: list[ExperimentRow]) -> None:
        if self._ended:  # sent before the poller stopped, delivered after
            return
        before, self._rows = self._rows, {row.id: row for row in rows}
        self.looked = True
        for row in rows:
            if row.id in before and before[row.id].status.live and not row.status.live:
                self._tell_end(row)
        self._choose()
        self.changed.emit()

    def _choose(self) -> None:
        if self._awaited in self._rows:
            self._by_hand = True
            self._make_current(self._awaited)
            self._awaited = ""
        current = self._rows.get(self._current)
        if current is None:
            self._by_hand = False
        if current is None or (not self._by_hand and not current.status.live):
            newest = min(self._rows.values(), key=lambda row: not row.status.live, default=None)
            self._make_current(newest.id if newest else "")

    def _make_current(self, experiment_id: str) -> None:
        if experiment_id == self._current:
            return
        self._current = experiment_id
        self.curves = {}
        self._poller.choose(experiment_id)
        self.current_changed.emit(experiment_id)
        self.outcome_changed.emit()
        self.curves_changed.emit()

    def _take_outcome(self, outcome: Outcome[R]) -> None:
        if outcome.id == self._current and not self._ended:
            self._outcome = outcome
            self.outcome_changed.emit()

    def _take_curves(self, experiment_id: str, curves: dict[str, RunHistory]) -> None:
        if experiment_id == self._current and not self._ended and (curves or self.curves):
            self.curves = curves
            self.curves_changed.emit()

    def _tell_end(self, row: ExperimentRow) -> None:
        status = row.status
        if status.state == "failed" and status.error is not None:
            parts = (str(status.error.get(part, "")) for part in ("what", "why", "do"))
            self.failed.emit(LabError(*parts))
        elif status.state == "finished":
            self.said.emit(f"{row.record.title}: {row.id} has finished. {self._source.ended}")
        self.ended.emit(row.id)
