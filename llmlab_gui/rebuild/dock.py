"""The Rebuild panel: the pieces at the left; the task, the answer, and yours beside ours at the right."""

from __future__ import annotations

import os
from pathlib import Path

from PySide6.QtCore import QFileSystemWatcher, Qt, QUrl
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QLabel, QListWidget, QListWidgetItem, QPushButton, QTabWidget, QWidget

from llmlab.core.errors import LabError
from llmlab.exercises.checker import FAILED, PASSED, Answer
from llmlab.exercises.pieces import Piece, Workbook, all_pieces
from llmlab_gui.host.command import LLMLAB
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.pages.browser import TOP, PageBrowser
from llmlab_gui.pages.page import Page
from llmlab_gui.rebuild.checks import Checks
from llmlab_gui.rebuild.use import Browser, UsePanel
from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.labels import QuietLabel
from llmlab_gui.widgets.layouts import column, flow, settling_timer, split
from llmlab_gui.widgets.saving import open_outside
from llmlab_gui.widgets.theme import theme_notifier

_CAPTION = (
    "Write a GPT piece by piece in an editor of your own. Each time you save, the piece is checked in a process of its "
    "own, and the first fact that does not hold is shown."
)
_SAVED_MS = 300  # after a change of the file: editors write it in several steps
_MARKS = {"new": " ", "begun": "…", "passed": "✓", "changed": "↻"}
_WORDS = {"new": "not started", "begun": "started", "passed": "passed", "changed": "changed since it passed"}
_USE = 3  # the tab in which what passed is used
_STEP_MARKS = {PASSED: "✓", FAILED: "✗"}


class RebuildDock(LabDock):
    """The learner's workbook. Saving a file checks it, whether or not the panel is in sight."""

    def __init__(self, lab: Lab, parent: QWidget | None = None, command: tuple[str, ...] = LLMLAB) -> None:
        super().__init__(lab, "rebuild", "Rebuild", parent)
        self._workbook, self._pieces = Workbook(lab.outputs), all_pieces()
        self._hints: dict[str, int] = {}  # how many were asked for
        self._answers: dict[str, Answer] = {}
        self.checks = Checks(lab.outputs, self, command)
        self.list, self.file = QListWidget(), QuietLabel()
        self.start, self.check = QPushButton("Start"), QPushButton("Check")
        self.hint = push_button("Hint", self._more_hints)
        self.tabs, self.verdict, self.steps = QTabWidget(), QLabel(), QListWidget()
        self.tabs.setDocumentMode(True)
        self.task, self.yours, self.lab_code = (
            Browser(name, self._background) for name in ("Task", "Your code", "Our code")
        )
        self.use = UsePanel(lab, self._workbook, self._pieces, self._background, command)
        self._watcher = QFileSystemWatcher(self)
        self._saved = settling_timer(self, _SAVED_MS, self._look)
        self._saves: dict[str, tuple[int, int, int]] = {}  # what tells one save from another
        self._lay_out()
        self._connect()
        self.caption(_CAPTION, "attention")
        if not self._pieces:
            self.show_empty("There are no pieces", "The folder resources is missing from this installation.")
            return
        for piece in self._pieces:  # saves are seen before the panel is
            self._watch(piece)

    @property
    def piece(self) -> Piece:
        """The one that is chosen."""
        return self._pieces[max(0, self.list.currentRow())]

    def main_part(self) -> QWidget | None:
        return self.list if self.list.isVisible() else super().main_part()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._pieces and self.list.currentRow() < 0:
            self.list.setCurrentRow(self._row_in_work())
        self._show()

    def shutdown(self) -> None:
        self.checks.shutdown()
        self.use.shutdown()
        super().shutdown()

    def _lay_out(self) -> None:
        for widget, name in ((self.list, "Pieces"), (self.steps, "Answer, step by step"), (self.tabs, "Piece")):
            widget.setAccessibleName(name)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)  # titles are cut
        self.steps.setWordWrap(True)
        self.verdict.setWordWrap(True)
        self.verdict.setTextFormat(Qt.TextFormat.PlainText)
        self.verdict.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.verdict.setMargin(4)
        self.file.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.file.setWordWrap(True)
        self.tabs.addTab(self.task, "Task")
        self.tabs.addTab(column(self.verdict, (self.steps, 1)), "Answer")
        self.tabs.addTab(split(self.yours, self.lab_code, across=True), "Yours and ours")
        self.tabs.addTab(self.use, "Use")
        for item in self._pieces:
            self.list.addItem(QListWidgetItem(item.title))
        right = column(flow(self.start, self.check, self.hint), self.file, (self.tabs, 1))
        self.set_body(split((self.list, 1), (right, 3), across=True, sizes=(230, 600)))

    def _connect(self) -> None:
        self.task.stale.connect(self._show)
        self.list.currentRowChanged.connect(lambda _: self._show())
        self.list.itemActivated.connect(lambda _: self._begin())
        self.start.clicked.connect(self._begin)
        self.check.clicked.connect(lambda: self._ask(self.piece))
        self.tabs.currentChanged.connect(lambda _: self._show())
        for browser in (self.task, self.yours, self.lab_code):
            browser.anchorClicked.connect(self._follow)
        self.checks.began.connect(self._await)
        self.checks.answered.connect(self._take)
        self.checks.failed.connect(self._refused)
        self._watcher.fileChanged.connect(lambda _: self._saved.start())
        self._watcher.directoryChanged.connect(lambda _: self._saved.start())
        self.lab.runs_changed.connect(self.use.update_state)
        theme_notifier.changed.connect(self._show)

    # What is shown ---------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        """The chosen piece as it stands; when the panel comes to sight, since files and pages are read for it."""
        if not self._pieces or not self.isVisible():
            return
        piece, states = self.piece, [self._workbook.state(one) for one in self._pieces]
        for row, state in enumerate(states):
            self._watch(self._pieces[row])  # it may have been started in a terminal
            item = self.list.item(row)
            item.setText(f"{_MARKS[state]}  {row + 1}. {self._pieces[row].title}")
            item.setToolTip(_WORDS[state])
            item.setData(Qt.ItemDataRole.AccessibleTextRole, f"{self._pieces[row].title}, {_WORDS[state]}")
        state = states[self.list.currentRow()]
        path = self._workbook.file(piece)
        self.start.setText("Start" if state == "new" else "Open in editor")
        self.check.setEnabled(state != "new")
        self.file.setText(f"{path}" if state != "new" else f"Start writes {path}, and opens it in your editor.")
        told = self._hints.get(piece.name, 0)
        self.hint.setEnabled(told < len(piece.hints))
        self.hint.setText(f"Hint {min(told + 1, len(piece.hints))} of {len(piece.hints)}")
        hints = "".join(f"\n\n**Hint {number}.** {hint}" for number, hint in enumerate(piece.hints[:told], 1))
        self._put(self.task, piece.page + hints)
        self._show_answer()
        self.tabs.setTabEnabled(2, state == "passed")
        if state == "passed":
            self._put(self.yours, f"# Yours\n\n```python\n{_read(path)}\n```\n")
            self._put(self.lab_code, f"# Ours\n\n{piece.ours}")
        if self.tabs.currentIndex() == _USE:
            self.use.show_piece(piece.name)

    def _row_in_work(self) -> int:
        """Of the pieces that are started and do not pass, the one saved last; else the first that does not pass."""
        states = {row: self._workbook.state(piece) for row, piece in enumerate(self._pieces)}
        working = [row for row, state in states.items() if state in ("begun", "changed")]
        left = [row for row, state in states.items() if state != "passed"] or [len(states) - 1]
        return max(working, key=lambda row: _save_of(self._workbook.file(self._pieces[row])), default=left[0])

    def _put(self, browser: PageBrowser, text: str) -> None:
        place = browser.place() if browser.property("piece") == self.piece.name else TOP
        browser.setProperty("piece", self.piece.name)
        browser.show_page(Page(self.piece.name, self.piece.title, text), place)

    def _show_answer(self) -> None:
        answer = self._answers.get(self.piece.name)
        self.steps.clear()
        if self.checks.awaited(self.piece.name):
            self.verdict.setText("Checking …")
        elif answer is None:
            self.verdict.setText("Save your file, or press Check, to have it checked.")
        elif answer.passed:
            self.verdict.setText("It passes. Under Use you can train with it.")
        else:
            mistake = f" A known mistake has this result: {answer.mistake}. {answer.why}" if answer.mistake else ""
            self.verdict.setText(f"{answer.fact}{mistake}")
        for step in answer.steps if answer is not None else ():
            self.steps.addItem(
                f"{_STEP_MARKS.get(step.state, ' ')}  {step.title}{': ' if step.fact else ''}{step.fact}"
            )
        if answer is not None and answer.printed.strip():
            self.steps.addItem(f"It printed:\n{answer.printed.rstrip()}")

    # What is done ----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Starts the piece, or opens its file where it is started."""
        piece = self.piece
        try:
            self._workbook.start(piece)
        except LabError as error:
            self.lab.error_raised.emit(error)
            return
        self._watch(piece)
        path = self._workbook.file(piece)
        # Windows may run a Python file instead of opening it.
        open_outside(path.parent if os.name == "nt" else path, self.lab.error_raised)
        self._show()

    def _ask(self, piece: Piece) -> None:
        self.checks.ask(piece.name)
        self.tabs.setCurrentIndex(1)

    def _await(self, name: str) -> None:
        self._answers.pop(name, None)  # of a file that was another
        self._show_answer()

    def _take(self, answer: Answer) -> None:
        self._answers[answer.piece] = answer
        self._show()

    def _refused(self, error: LabError) -> None:
        self._show_answer()
        self.lab.error_raised.emit(error)

    def _more_hints(self) -> None:
        name = self.piece.name
        self._hints[name] = min(self._hints.get(name, 0) + 1, len(self.piece.hints))
        self._show()
        self.tabs.setCurrentIndex(0)
        self.task.verticalScrollBar().setValue(self.task.verticalScrollBar().maximum())

    def _follow(self, url: QUrl) -> None:
        if url.scheme() == "concept":
            self.lab.concept_requested.emit(url.path())

    def _watch(self, piece: Piece) -> None:
        """From now on a change of its file is seen."""
        path = self._workbook.file(piece)
        if path.exists():
            self._watcher.addPaths([str(path.parent), str(path)])
            self._saves.setdefault(piece.name, _save_of(path))

    def _look(self) -> None:
        """Checks what was saved. An editor that puts a new file in the old one's place ends the watch of the old."""
        for piece in self._pieces:
            path = self._workbook.file(piece)
            if not path.exists():
                self._answers.pop(piece.name, None)
                self._saves.pop(piece.name, None)
            elif (now := _save_of(path)) != self._saves.get(piece.name):
                self._saves[piece.name] = now
                self.checks.ask(piece.name)
                if piece.name == self.piece.name:
                    self.tabs.setCurrentIndex(1)
            self._watch(piece)
        self._show()


def _save_of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").rstrip()
    except OSError:
        return ""
