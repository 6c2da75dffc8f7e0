"""Work of the window itself that takes longer than a moment: in a thread, with progress, and cancelled when wished."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import Cancelled, LabError
from llmlab.core.progress import Progress
from llmlab_gui.host.selection import Working
from llmlab_gui.widgets.background import Background

# Files are deleted by the thousand in a second.
_TELL_SECONDS = 0.1


class LongWork(QObject):
    """One piece after the other. `working` is what a ProgressStrip shows of it; `cancel` ends the one under way."""

    working_changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.working: Working | None = None
        self._background = Background(self)
        self._begun: list[tuple[threading.Event, str]] = []  # what is under way, then what waits: its cancel, its name

    def run(
        self,
        what: str,
        function: Callable[[Progress], Any],
        then: Callable[[Any], object],
        failed: Callable[[LabError], object],
        cancelled: Callable[[], object] = lambda: None,
    ) -> None:
        """Calls `function` with what it tells its progress to; then `then(result)`, `failed(error)` or `cancelled()`.

        None of them after `shutdown`. what: shown until the function says more.
        """
        told, cancel = 0.0, threading.Event()

        def tell(what: str, done: float, total: float) -> None:
            nonlocal told
            self._background.check()
            if cancel.is_set():
                raise Cancelled
            if time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                self._background.tell(self._show, Working(what, done / total if total else None))

        def work() -> Callable[[], object]:
            try:
                return partial(then, function(tell))
            except Cancelled:
                return cancelled

        def ended(tell_end: Callable[[], object]) -> None:
            self._begun.remove((cancel, what))
            self._show(Working(self._begun[0][1]) if self._begun else None)
            tell_end()

        self._begun.append((cancel, what))
        if self.working is None:
            self._show(Working(what))
        self._background.run(work, ended, lambda error: ended(partial(failed, error)))

    def cancel(self) -> None:
        """Ends what is under way; what it has done stays done."""
        if self._begun:
            self._begun[0][0].set()

    def shutdown(self) -> None:
        """Cancels all of it and waits for its end; nothing is told any more."""
        self._background.shutdown()

    def _show(self, working: Working | None) -> None:
        if working is not None and not self._begun:  # told by the thread just before its end
            return
        self.working = working
        self.working_changed.emit()
