"""The queue of runs as the window sees it: starts the next run when the one before has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PySide6.QtCore import QObject, QTimer, Signal

from llmlab.core.errors import LabError
from llmlab.jobs.queue import QueuedRun, QueueState, RunQueue
from llmlab_gui.lab.folder_poller import Stamp, file_stamp
from llmlab_gui.lab.run_controller import RunController
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.widgets.background import Background

# Another window, or a person with an editor, may change the file.
_LOOK_MS = 1000


class QueueRunner(QObject):
    """`state` is what waits now. The window owns one; a second window on the same outputs shares the file."""

    changed = Signal()
    failed = Signal(object)  # LabError

    def __init__(
        self,
        outputs: Path,
        controller: RunController,
        runs: Callable[[], list[RunRow]],
        parent: QObject | None = None,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """runs: the runs that are known now. busy: something else trains, also between two runs: a plan of several."""
        super().__init__(parent)
        self.state = QueueState()
        self._controller, self._runs, self._busy = controller, runs, busy
        self._background = Background(self)
        self.queue = RunQueue(outputs, self._background.check)
        self.holding = False  # that it is paused is not written yet
        self._stamp: Stamp | None = None
        self._asked = False  # a start is under way
        self._looked = False  # which runs live is known
        self._timer = QTimer(self, interval=_LOOK_MS)
        self._timer.timeout.connect(self._tick)
        self._timer.start()
        controller.queue_answered.connect(self._answered)

    @property
    def live(self) -> list[RunRow]:
        """The runs that have to end first."""
        return [row for row in self._runs() if row.status.live and not row.status.elsewhere]

    def waiting(self) -> list[QueuedRun]:
        """What will be started in time."""
        return [] if self.state.paused or self.holding else [item for item in self.state.items if not item.problem]

    def add(self, item: QueuedRun, added: Callable[[], object] = lambda: None) -> None:
        """Puts a run at the end. added: called when it is there, and not when it could not be put there."""
        self._change(lambda: self.queue.add(item), added)

    def remove(self, ids: Sequence[str], removed: Callable[[], object] = lambda: None) -> None:
        """Takes runs out. removed: called when they are, and not when they could not be."""
        self._change(lambda: self.queue.remove(ids), removed)

    def move(self, item_id: str, place: int) -> None:
        """Puts a run at another place."""
        self._change(lambda: self.queue.move(item_id, place))

    def set_paused(self, paused: bool) -> None:
        """Starts nothing, or goes on."""
        self._change(lambda: self.queue.set_paused(paused))

    def toggle_paused(self) -> None:
        """Starts nothing any more, or goes on."""
        self.set_paused(not self.state.paused)

    def hold(self) -> None:
        """Starts nothing from now on, and pauses: the window is about to close."""
        self.holding = True

        def held(_: object) -> None:
            self.holding = False
            self.look()

        def failed(error: LabError) -> None:
            held(None)
            self.failed.emit(error)

        self._background.run(lambda: self.queue.set_paused(True), held, failed)

    def start_now(self, item_id: str) -> None:
        """Starts a run at once, whatever else trains."""
        self._asked = True
        self._controller.start_queued(self.queue, item_id)

    def runs_changed(self) -> None:
        """The runs are other ones, or one has ended."""
        self._looked = True
        self._go_on()

    def look(self) -> None:
        """Reads the file when it changed."""
        stamp = file_stamp(self.queue.path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            state = self.queue.read()
        except LabError as error:
            self.failed.emit(error)
            return
        if state != self.state:
            self.state = state
            self.changed.emit()
        self._go_on()

    def shutdown(self) -> None:
        """Starts nothing any more."""
        self._timer.stop()
        self._looked = False
        self._background.shutdown()

    def _tick(self) -> None:
        self.look()
        self._go_on()

    def _go_on(self) -> None:
        if self._looked and not self._asked and self.waiting() and not self.live and not self._busy():
            self._asked = True
            self._controller.start_queued(self.queue)

    def _answered(self) -> None:
        self._asked = False
        self.look()

    def _change(self, change: Callable[[], None], then: Callable[[], object] = lambda: None) -> None:
        """Away from the window's thread: whoever makes a run's folder holds the queue meanwhile."""

        def done(_: object) -> None:
            self.look()
            then()

        def failed(error: LabError) -> None:
            self.failed.emit(error)
            self.look()

        self._background.run(change, done, failed)
