"""What the end of a run, or a pause of its own, leads to: words, and another model where its live one was open."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.store.checkpoints import list_checkpoints
from llmlab.store.events import Event, Paused, Resumed, Started
from llmlab.store.run_folder import RunStatus
from llmlab_gui.host.session import InspectionSession
from llmlab_gui.lab.run_rows import RunRow


class RunEnds(QObject):
    """Hears of each run's status before and after a change, and of its events."""

    raised = Signal(object)  # LabError
    over = Signal(object)  # one that was raised here: its run goes on
    said = Signal(str)  # good news, one sentence
    ended = Signal(str)  # id of a run that was live and no longer is

    def __init__(
        self,
        killed: set[Path],
        inspection: InspectionSession,
        row_called: Callable[[str], RunRow | None],
        parent: QObject | None = None,
    ) -> None:
        """killed: folders of runs that this window has ended. row_called: the run that a reference names."""
        super().__init__(parent)
        self._killed, self._inspection, self._row_called = killed, inspection, row_called
        self._raised: dict[str, list[LabError]] = {}  # of each run
        inspection.look.live_failed.connect(self._live_failed)

    def compare(self, before: RunStatus, row: RunRow) -> None:
        """What a run that just ended has to say: its error, or its result."""
        if row.status.live and not before.live:
            self._killed.discard(row.run.path)
            self.goes_on(row.id)
        if not before.live or row.status.live:
            return
        said = said_at_end(row, self._killed)
        if isinstance(said, LabError):
            self.complain(row.id, said)
        elif said:
            self.said.emit(said)
        self._leave_live(row.id)
        self.ended.emit(row.id)

    def hear(self, row: RunRow, events: Sequence[Event]) -> None:
        """What a run that trains has just done: gone on, or paused by itself."""
        if row.status.live and any(isinstance(event, (Resumed, Started)) for event in events):
            self.goes_on(row.id)
        if (paused := said_at_pause(row, events)) is not None:
            self.complain(row.id, paused)

    def complain(self, run_id: str, error: LabError) -> None:
        """Raises an error that is over once the run goes on."""
        self._raised.setdefault(run_id, []).append(error)
        self.raised.emit(error)

    def goes_on(self, run_id: str) -> None:
        """The run trains again."""
        for error in self._raised.pop(run_id, ()):
            self.over.emit(error)

    def rename(self, run_id: str, renamed: str) -> None:
        """The run has another id now."""
        self._raised[renamed] = self._raised.pop(run_id, [])

    def _leave_live(self, run_id: str) -> bool:
        """Turns from a live model to the newest checkpoint of its run, which has ended; whether it does."""
        row = self._live_row()
        if row is None or row.id != run_id or not list_checkpoints(row.run.checkpoints):
            return False
        if not self._inspection.choice.undecided:
            self._inspection.open(f"{row.run.path}@latest")
        return True

    def _live_failed(self, error: LabError) -> None:
        """A live model answers no more. When its run has just ended, nothing is wrong."""
        row = self._live_row()
        if row is None or row.run.status().live or not self._leave_live(row.id):
            self.raised.emit(error)

    def _live_row(self) -> RunRow | None:
        about = self._inspection.about
        return self._row_called(about.reference.removesuffix("@live")) if about is not None and about.live else None


def said_at_end(row: RunRow, killed: Collection[Path]) -> LabError | str:
    """Its error or its result; "" for one that somebody stopped. killed: folders of runs that were, from here."""
    status = row.status
    if row.run.path in killed and status.state in ("failed", "interrupted"):
        return ""  # of several processes, those that are left say that one was killed
    if status.state == "failed" and status.error is not None:
        return LabError(*(str(status.error.get(part, "")) for part in ("what", "why", "do")))
    if status.state == "interrupted":
        saved = list_checkpoints(row.run.checkpoints)
        return LabError(
            f"{row.name} was interrupted at step {status.step:,}.",
            "Its process ended without a message, as happens when the system kills it for lack of memory.",
            f"Resume starts from its newest checkpoint, step {saved[-1].step:,}."
            if saved
            else "It has no checkpoint: Resume starts from the beginning.",
        )
    if status.state == "finished":
        loss = f" Validation loss {status.val_loss:.3f}." if status.val_loss is not None else ""
        return f"{row.name} has finished.{loss}"
    return ""


def said_at_pause(row: RunRow, events: Sequence[Event]) -> LabError | None:
    """Why a run that is live has paused, where nobody asked for it and these events end in that pause."""
    pause = unended_pause(events)
    if not row.status.live or pause is None or pause.reason == "requested":
        return None
    return LabError(f"{row.name} has paused by itself at step {pause.step:,}.", pause.reason)


def unended_pause(events: Sequence[Event]) -> Paused | None:
    """The pause that these events end in; those of a log that is read again are long over."""
    last = next((event for event in reversed(events) if isinstance(event, (Paused, Resumed, Started))), None)
    return last if isinstance(last, Paused) else None
