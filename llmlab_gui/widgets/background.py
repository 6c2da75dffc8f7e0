"""Slow work off the window's thread: one function in, its result back through a signal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError

Then = Callable[[Any], None]


class Background(QObject):
    """Runs functions one after the other in a thread of its own; results arrive on the window's thread.

    The functions must not touch Qt. `shutdown()` drops what has not begun and waits for what has.
    """

    _finished = Signal(object, object)  # the callback, and what it is called with

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pool: ThreadPoolExecutor | None = None
        self._stopped = threading.Event()
        self._finished.connect(self._deliver)

    def run(self, function: Callable[[], Any], then: Then, failed: Callable[[LabError], None]) -> None:
        """Calls `then(result)`, or `failed(error)` when it raised LabError or OSError; neither after `shutdown`."""
        if self._stopped.is_set():
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="background")
        self._pool.submit(self._work, function, then, failed)

    def shutdown(self) -> None:
        """Ends the thread. Nothing is delivered any more."""
        self._stopped.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _work(self, function: Callable[[], Any], then: Then, failed: Callable[[LabError], None]) -> None:
        try:
            answer: tuple[Callable[..., None], Any] = (then, function())
        except LabError as error:
            answer = (failed, error)
        except OSError as error:
            answer = (failed, LabError("A file could not be read or changed.", str(error)))
        if not self._stopped.is_set():
            self._finished.emit(*answer)

    def _deliver(self, callback: Callable[..., None], value: Any) -> None:
        if not self._stopped.is_set():
            callback(value)
