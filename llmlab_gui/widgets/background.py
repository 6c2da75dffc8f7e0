"""Slow work off the window's thread: one function in, its result back through a signal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import shiboken6
from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import Cancelled, LabError, explained

Then = Callable[[Any], None]


class WindowError(LabError):
    """A mistake of the window itself; its traceback is in the window's log."""


def as_lab_error(error: BaseException) -> LabError:
    """Any error in a form that people can read; of one mistake the same each time, whoever tells of it."""
    if isinstance(error, LabError):
        return error
    told = WindowError(
        "The window hit an unexpected error.",
        f"{type(error).__name__}: {error}".strip().split("\n")[0],
        "Training is not affected. The full traceback is in the window's log.",
    )
    return error.__dict__.setdefault("told", told)


class Background(QObject):
    """Runs functions one after the other in a thread of its own; results arrive on the window's thread.

    The functions must not touch Qt. `shutdown()` drops what has not begun and waits for what has: a function that may
    take more than a moment calls `check` on its way, which ends it then, and where Qt has deleted the object.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pool: ThreadPoolExecutor | None = None
        self._stopped = threading.Event()
        self._post = _post()

    def run(self, function: Callable[[], Any], then: Then, failed: Callable[[LabError], None]) -> None:
        """Calls `then(result)`, or `failed(error)` when it raised anything; neither after `shutdown`.

        An error that is neither LabError nor OSError is a mistake of the window: it is logged and told as all are, and
        `failed` gets it too, so that whoever waits for an answer has one.
        """
        if self._stopped.is_set():
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="background")
        self._pool.submit(self._work, function, then, failed)

    def check(self, what: str = "", done: float = 0, total: float = 0) -> None:
        """A Progress for the functions: raises Cancelled once nobody waits for them any more. From their thread."""
        if self.is_over:
            raise Cancelled

    def tell(self, then: Then, value: Any) -> None:
        """Calls `then(value)` on the window's thread, unless it is over by then. For the functions, from theirs."""
        self._post.news.emit(self, then, value)

    @property
    def is_over(self) -> bool:
        """Nothing is delivered any more."""
        return self._stopped.is_set() or not shiboken6.isValid(self)

    def shutdown(self) -> None:
        """Ends the thread. Nothing is delivered any more."""
        self._stopped.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _work(self, function: Callable[[], Any], then: Then, failed: Callable[[LabError], None]) -> None:
        try:
            with explained("A file could not be read or changed."):
                answer: tuple[Callable[..., None], Any] = (then, function())
        except Cancelled:
            return
        except LabError as error:
            # As long as it is on screen, its frames would keep what the function held: the arrays of an archive.
            error.__cause__ = error.__context__ = None
            answer = (failed, error.with_traceback(None))
        except Exception as error:
            sys.excepthook(*sys.exc_info())
            answer = (failed, as_lab_error(error))
        self.tell(*answer)


class _Post(QObject):
    """Carries what threads tell. It is never deleted: Qt crashes where an object is while a thread emits its signal."""

    news = Signal(object, object, object)  # a Background, the callback, and what it is called with

    def __init__(self) -> None:
        super().__init__()
        self.news.connect(self._deliver)

    def _deliver(self, background: Background, then: Then, value: Any) -> None:
        if not background.is_over:
            then(value)


@cache
def _post() -> _Post:
    return _Post()
