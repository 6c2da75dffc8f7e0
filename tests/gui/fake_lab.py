"""FakeLab: the signals and questions of the window's model, answered from fake runs, at once and in this thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes import FakeRun
from PySide6.QtCore import QObject, Signal

from llmlab.notebook.predictions import Prediction
from llmlab.store.checkpoints import Checkpoint
from llmlab.store.events import Event
from llmlab.store.history import RunHistory
from llmlab.store.run_folder import RunFolder, RunInfo, RunStatus
from llmlab_gui.host.session import InspectionSession
from llmlab_gui.lab.book import Book
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.plans import PlansDesk
from llmlab_gui.lab.run_rows import RunRow


@dataclass
class FakeRow:
    run: RunFolder
    info: RunInfo
    status: RunStatus
    saved, trains_here, model = RunRow.saved, RunRow.trains_here, RunRow.model

    @property
    def id(self) -> str:
        return self.run.full_name

    @property
    def name(self) -> str:
        return self.run.id


class FakeController:
    def __init__(self) -> None:
        self.saved: list[str] = []
        self.paused: list[str] = []
        self.branched: list[tuple[str, str, Mapping[str, Any], str | None]] = []

    def save(self, run: RunFolder) -> None:
        self.saved.append(run.id)

    def pause(self, run: RunFolder) -> None:
        self.paused.append(run.id)

    def branch(
        self,
        run: RunFolder,
        checkpoint: Checkpoint,
        overrides: Mapping[str, Any],
        name: str | None = None,
        predictions: Sequence[Prediction] = (),
    ) -> None:
        self.branched.append((run.id, checkpoint.name, dict(overrides), name))


class FakeLab(QObject):
    runs_changed = Signal()
    run_renamed = Signal(str, str)
    current_changed = Signal(str)
    shown_runs_changed = Signal()
    events_arrived = Signal(str, list)
    history_reset = Signal(str)
    run_ended = Signal(str)
    error_raised = Signal(object)
    said = Signal(str)
    concept_requested = Signal(str)
    compare_requested = Signal(str)
    comparison_requested = Signal(str, str)
    look_requested = Signal(str)
    write_requested = Signal(str, str)
    setup_requested = Signal(dict)
    finetune_requested = Signal(dict)
    dock_requested = Signal(str)
    workspace_requested = Signal(str)
    paper_requested = Signal(str, str)
    check_requested = Signal(str, str, str)
    experiment_requested = Signal(object)
    set_up_again, current_model = Lab.set_up_again, Lab.current_model

    def __init__(self, outputs: Path) -> None:
        super().__init__()
        self.outputs = outputs
        self.desks: list[PlansDesk] = []
        self.controller = FakeController()
        self.notebook = Book(outputs, self)
        self.notebook.set_asks(False)
        self.inspection = InspectionSession(outputs, self)  # starts no process until it is asked
        self.errors: list[Any] = []
        self._fakes: dict[str, FakeRun] = {}
        self._histories: dict[str, RunHistory] = {}
        self._taken: dict[str, int] = {}
        self._current, self._by_hand = "", False
        self.error_raised.connect(self._keep)

    def add(self, fake: FakeRun, *, in_turn: bool = False) -> FakeRun:
        """A run appears, and becomes the current one. in_turn: started by the queue, and not by the learner."""
        self._fakes[fake.run.full_name] = fake
        self.runs_changed.emit()
        self._make_current(fake.run.full_name, by_hand=not in_turn)
        self.pump(fake)
        return fake

    def pump(self, fake: FakeRun) -> None:
        """What the run wrote since the last time arrives."""
        run_id = fake.run.full_name
        fresh = fake.written[self._taken.get(run_id, 0) :]
        self._taken[run_id] = len(fake.written)
        self._arrive(run_id, fresh)
        self.runs_changed.emit()

    def reload(self, fake: FakeRun) -> None:
        """The history is read anew, as after a cut."""
        run_id = fake.run.full_name
        self._histories[run_id] = RunHistory()
        self._histories[run_id].extend(fake.written)
        self._taken[run_id] = len(fake.written)
        self.history_reset.emit(run_id)

    def runs(self) -> list[FakeRow]:
        return [self._row(fake) for fake in reversed(self._fakes.values())]

    def row(self, run_id: str) -> FakeRow | None:
        fake = self._fakes.get(run_id)
        return self._row(fake) if fake else None

    def row_called(self, name: str) -> FakeRow | None:
        return next((row for row in self.runs() if name in (row.name, row.id, str(row.run.path))), None)

    def current(self) -> FakeRow | None:
        return self.row(self._current)

    def set_current(self, run_id: str) -> None:
        self._make_current(run_id, by_hand=True)

    def chosen(self) -> str:
        return self._current if self._by_hand else ""

    def history(self, run_id: str) -> RunHistory:
        return self._histories.setdefault(run_id, RunHistory())

    def _make_current(self, run_id: str, *, by_hand: bool) -> None:
        self._current, self._by_hand = run_id, by_hand
        self.current_changed.emit(run_id)

    def _keep(self, error: Any) -> None:
        # A method, which the connection holds weakly: one that held the list would never let go of a lab with an error,
        # whose traceback leads to who asked, and from there to the lab.
        self.errors.append(error)

    def _arrive(self, run_id: str, events: list[Event]) -> None:
        self.history(run_id).extend(events)
        self.events_arrived.emit(run_id, events)

    @staticmethod
    def _row(fake: FakeRun) -> FakeRow:
        return FakeRow(fake.run, fake.run.info(), fake.run.status())
