"""The Log dock: what happened in a run, in sentences; and what its worker printed."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QFontDatabase,
    QGuiApplication,
    QHideEvent,
    QResizeEvent,
    QShowEvent,
    QTextCharFormat,
    QTextCursor,
)
from PySide6.QtWidgets import QCheckBox, QPlainTextEdit, QPushButton, QWidget

from llmlab.core.errors import LabError
from llmlab.store.events import Event, Started
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.train.event_sentences import Sentence, history_sentences, sentence
from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.find_bar import FindBar
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import choice_box, column, flow, stack
from llmlab_gui.widgets.numbers import unbroken
from llmlab_gui.widgets.saving import open_outside
from llmlab_gui.widgets.theme import current_theme, theme_notifier

# Rows of each view; about the 2 MB that the tail begins with, at 100 characters a line.
_MAX_LINES = 20_000
_MAX_SENTENCES = 1_000
_AT_ONCE = 100  # sentences
_LONGEST_SENTENCE = 5_000
_POLL_MS = 500
EVENTS, OUTPUT = 0, 1


class LogDock(LabDock):
    """Two views of the current run, one at a time; both follow their end until scrolled away from it."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "log", "Log", parent)
        self._run_id = ""
        self._tail: LogTail | None = None
        self._sentences: deque[Sentence] = deque(maxlen=_MAX_SENTENCES)
        self._seen = False  # sentences are written while somebody sees them
        self._unwritten: deque[Sentence] = deque(maxlen=_MAX_SENTENCES)
        self._stale = False  # they are to be taken from the run's history anew
        self._writing = False  # what moves the view now is its text, and no person

        self.which = choice_box("What the log shows")
        self.which.addItems(["Events", "Worker output"])
        self.follow = labelled(QCheckBox("Follow"), tip="Keep the newest line in view")
        self.follow.setChecked(True)
        copy = labelled(QPushButton("Copy"), tip="Copy the selection, or all that is shown")
        copy.clicked.connect(self.copy)
        self.open_button = push_button("Open file", self.open_file, tip="Open worker.log in the editor of this system")
        self.events_view, self.output_view = self._text_view(_MAX_SENTENCES), self._text_view(_MAX_LINES)
        self.events_view.setAccessibleName("Events of the run")
        self.output_view.setAccessibleName("Output of the worker")
        self.output_view.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.output_view.setPlaceholderText("The worker has printed nothing.")
        self._views = stack(self.events_view, self.output_view)

        self.find_bar = FindBar(self)
        self.find_bar.set_view(self.events_view)
        row = flow(self.which, self.follow, right=(copy, self.open_button))
        self.set_body(column(row, self.find_bar, (self._views, 1)))
        self.caption("Events of this run, and the output of its training process.", "checkpoints")

        for view in (self.events_view, self.output_view):
            view.verticalScrollBar().valueChanged.connect(partial(self._scrolled, view))
        self.which.currentIndexChanged.connect(self._switch)
        self.follow.toggled.connect(self._go_to_end)
        self._timer = QTimer(self, interval=_POLL_MS)
        self._timer.timeout.connect(self.read_output)
        self.visibilityChanged.connect(self._see)
        lab.current_changed.connect(self._change_run)
        lab.events_arrived.connect(self._take)
        lab.history_reset.connect(self._reset)
        theme_notifier.changed.connect(self._redraw)
        row_now = lab.current()
        self._change_run(row_now.id if row_now else "")
        self._switch(EVENTS)

    @property
    def view(self) -> QPlainTextEdit:
        """The view that is shown."""
        return self.output_view if self.which.currentIndex() == OUTPUT else self.events_view

    def show_output(self) -> None:
        """Turns to the worker's output (where a traceback is)."""
        self.which.setCurrentIndex(OUTPUT)

    def copy(self) -> None:
        """The selection, or everything that is shown, to the clipboard."""
        selected = self.view.textCursor().selection().toPlainText()
        QGuiApplication.clipboard().setText(selected or self.view.toPlainText())

    def open_file(self) -> None:
        """worker.log in the system's editor."""
        if self._tail is None:
            return
        if not self._tail.path.exists():
            self.lab.error_raised.emit(
                LabError("There is no worker.log yet.", "The worker creates it when it starts.", "Start the run.")
            )
            return
        open_outside(self._tail.path, self.lab.error_raised)

    def read_output(self) -> None:
        """Takes what the worker has printed since the last look."""
        if self._tail is None:
            return
        lines, fresh = self._tail.read()
        if fresh:
            self._clear(self.output_view)
        if not lines:
            return
        with self._keeping_place(self.output_view):
            self.output_view.appendPlainText("\n".join(lines))
        QTimer.singleShot(0, self, self.read_output)  # the rest of a long file, piece by piece

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._watch()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._timer.stop()

    def _text_view(self, lines: int) -> _TextView:
        view = _TextView()
        view.fitted.connect(lambda: self._go_to_end(self.follow.isChecked()))
        view.setReadOnly(True)
        view.setUndoRedoEnabled(False)
        view.setMaximumBlockCount(lines)
        view.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        return view

    def _switch(self, index: int) -> None:
        self._views.setCurrentIndex(index)
        self.find_bar.set_view(self.view)
        self.open_button.setVisible(index == OUTPUT)
        self._watch()
        self._go_to_end(self.follow.isChecked())

    def _watch(self) -> None:
        """The file is looked at only while someone sees it."""
        if self.which.currentIndex() == OUTPUT and self.isVisible() and self._tail is not None:
            self.read_output()
            self._timer.start()
        else:
            self._timer.stop()

    def _change_run(self, run_id: str) -> None:
        row = self.lab.row(run_id) if run_id else None
        self._run_id = run_id if row else ""
        self._tail = LogTail(row.run.log) if row else None
        self._clear(self.output_view)
        if row is None:
            self.show_no_run("Start one in Set-up, or choose one in Runs.")
        else:
            self.show_body()
            read = "The events appear here as soon as they are read."
            self.events_view.setPlaceholderText(read if row.status.step else "Nothing has happened yet.")
        self._rebuild()
        self._watch()

    def _reset(self, run_id: str) -> None:
        if run_id == self._run_id:
            self._rebuild()

    def _see(self, seen: bool) -> None:
        came, self._seen = seen and not self._seen, seen
        if came:
            self._rebuild() if self._stale else self._write()

    def _rebuild(self) -> None:
        self._stale = not self._seen
        if self._stale:
            return
        self._sentences.clear()
        if self._run_id:
            self._sentences += history_sentences(self.lab.history(self._run_id), _MAX_SENTENCES)
        self._redraw()

    def _take(self, run_id: str, events: list[Event]) -> None:
        if run_id != self._run_id or self._stale:
            return
        if any(isinstance(event, Started) and event.attempt > 1 for event in events):
            self._rebuild()  # a resumed worker made later events void
            return
        told = [text for event in events if (text := sentence(event)) is not None]
        self._sentences += told
        self._append(told)

    def _redraw(self) -> None:
        self._clear(self.events_view)
        self._unwritten.clear()
        self._append(self._sentences)

    def _append(self, sentences: Iterable[Sentence]) -> None:
        waits = bool(self._unwritten)  # they come after those that are still to be written
        self._unwritten += sentences
        if self._seen and not waits:
            self._write()

    def _write(self) -> None:
        """Some at a time: many at once would hold the window up."""
        if not self._unwritten or not self._seen:
            return
        told = [self._unwritten.popleft() for _ in range(min(_AT_ONCE, len(self._unwritten)))]
        cursor = QTextCursor(self.events_view.document())
        with self._keeping_place(self.events_view):
            cursor.beginEditBlock()
            cursor.movePosition(QTextCursor.MoveOperation.End)
            for each in told:
                _write_line(cursor, each)
            cursor.endEditBlock()
        if self._unwritten:
            QTimer.singleShot(0, self, self._write)

    def _clear(self, view: QPlainTextEdit) -> None:
        with self._keeping_place(view):
            view.clear()

    @contextmanager
    def _keeping_place(self, view: QPlainTextEdit) -> Iterator[None]:
        """Afterwards the view shows the end where it follows, and else what it showed before."""
        bar = view.verticalScrollBar()
        before, self._writing = bar.value(), True
        try:
            yield
            bar.setValue(bar.maximum() if self.follow.isChecked() else before)
        finally:
            self._writing = False

    def _scrolled(self, view: _TextView, value: int) -> None:
        """Whoever scrolls up reads there; at the end the view follows again."""
        if view is self.view and view.isVisible() and not (self._writing or view.is_fitting):
            self.follow.setChecked(value == view.verticalScrollBar().maximum())

    def _go_to_end(self, follow: bool) -> None:
        if follow:
            with self._keeping_place(self.view):
                pass


class _TextView(QPlainTextEdit):
    """Says what moves it where no person does: lines are wrapped anew in another width."""

    fitted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.is_fitting = False

    def resizeEvent(self, event: QResizeEvent) -> None:
        self.is_fitting = True
        super().resizeEvent(event)
        self.is_fitting = False
        self.fitted.emit()


def _write_line(cursor: QTextCursor, told: Sentence) -> None:
    """One event in a paragraph of its own: time and step quiet, the sentence in its colour."""
    theme = current_theme()
    colors = {"plain": theme.text, "good": theme.good, "warning": theme.warning, "bad": theme.bad}
    quiet, loud = QTextCharFormat(), QTextCharFormat()
    quiet.setForeground(QColor(theme.quiet))
    loud.setForeground(QColor(colors[told.tone]))
    if not cursor.atStart():
        cursor.insertBlock()
    at = time.strftime("%H:%M:%S", time.localtime(told.time))
    cursor.insertText(f"{at}  step {told.step:,}  ", quiet)
    # A line separator keeps a message of several lines in its paragraph.
    cursor.insertText(unbroken(told.text[:_LONGEST_SENTENCE]).replace("\n", "\u2028"), loud)


# What is kept of a log: far more than anyone reads, little enough to search at once.
TAIL_BYTES = 2_000_000
# A piece a look: about 2 ms to read, decode and show.
_PIECE_BYTES = 128_000
# Longer lines are cut: a text widget lays out a line as a whole.
_LINE_CHARACTERS = 2000
# Escape sequences that colour a terminal or move its cursor (ECMA-48), and other control signs.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class LogTail:
    """New lines of a growing file at each `read`, in bounded memory; begins TAIL_BYTES before its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset: int | None = None
        self._identity: tuple[int, int] | None = None
        self._partial = b""
        self.skipped = 0  # bytes before the part that is shown

    def read(self) -> tuple[list[str], bool]:
        """The lines that are new, and whether everything before them is void (another or a shorter file is there).

        At most about 128 kB at once: call again for more. A missing file has no lines.
        """
        try:
            with self.path.open("rb") as file:
                about = os.fstat(file.fileno())
                fresh = self._place(about)
                assert self._offset is not None
                file.seek(self._offset)
                block = file.read(_PIECE_BYTES)
        except OSError:
            return [], False
        self._offset += len(block)
        *lines, self._partial = (self._partial + block).split(b"\n")
        if len(self._partial) > _PIECE_BYTES:  # a line without end: shown as far as it goes
            lines.append(self._partial)
            self._partial = b""
        return [_clean(line) for line in lines], fresh

    def _place(self, about: os.stat_result) -> bool:
        """Where to read on; True when the file is not the one that was read before."""
        identity = (about.st_dev, about.st_ino)
        if self._offset is not None and identity == self._identity and about.st_size >= self._offset:
            return False
        first_time = self._offset is None
        self._identity = identity
        self._offset = self.skipped = max(0, about.st_size - TAIL_BYTES)
        self._partial = b""
        return not first_time


def _clean(line: bytes) -> str:
    """One line for a text widget: the last state of a progress bar, no escapes, not too long."""
    text = line.decode("utf-8", errors="replace").rstrip("\r")
    text = _ESCAPES.sub("", text.rpartition("\r")[2])
    if len(text) > _LINE_CHARACTERS:
        return f"{text[:_LINE_CHARACTERS]} … ({len(text) - _LINE_CHARACTERS:,} more characters)"
    return text
