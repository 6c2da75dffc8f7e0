"""Errors that nobody caught: logged with their traceback, and told to the window in a sentence."""

from __future__ import annotations

import logging
import sys
import threading
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType

import platformdirs
from PySide6.QtCore import QObject, QtMsgType, Signal, qInstallMessageHandler

from llmlab_gui.widgets.background import as_lab_error

_log = logging.getLogger("llmlab_gui")
_LOG_BYTES = 1 << 20


class ErrorPost(QObject):
    """Carries errors to the window's thread, whichever thread they happened in."""

    unexpected = Signal(object)  # LabError


def log_path() -> Path:
    """The window's own log (each run's worker has another, in the run's folder)."""
    return Path(platformdirs.user_log_dir("llmlab", appauthor=False)) / "window.log"


def install(path: Path) -> ErrorPost:
    """Sends uncaught errors of all threads, and Qt's own messages, to the log; errors also to the returned post."""
    _log.setLevel(logging.INFO)
    _log.addHandler(_handler(path))
    post, told = ErrorPost(), threading.local()

    def caught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        # May run in any thread: nothing of the window is touched here.
        if error is None or issubclass(kind, KeyboardInterrupt):
            return
        _log.error("uncaught", exc_info=(kind, error, trace))
        if not hasattr(told, "now"):  # an error in telling of one would tell of itself without end
            told.now = error
            post.unexpected.emit(as_lab_error(error))
            del told.now

    sys.excepthook = caught
    threading.excepthook = lambda args: caught(args.exc_type, args.exc_value, args.exc_traceback)
    qInstallMessageHandler(_log_qt)
    return post


def last_lines(path: Path) -> str:
    """The last 30 lines of a log file; empty when there is none."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])
    except OSError:
        return ""


def _handler(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler: logging.Handler = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
    except OSError:  # a read-only home: the terminal is better than nothing
        handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s %(message)s"))
    return handler


def _log_qt(kind: QtMsgType, _context: object, message: str | None) -> None:
    levels = {QtMsgType.QtWarningMsg: logging.WARNING, QtMsgType.QtCriticalMsg: logging.ERROR}
    _log.log(levels.get(kind, logging.INFO), "Qt: %s", message)
