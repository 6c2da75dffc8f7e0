"""The Rebuild panel: the pieces at the left; the task, the answer, and yours beside ours at the right."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PySide6.QtCore import QFileSystemWatcher, Qt, QUrl
from PySide6.QtGui import QImage, QShowEvent
from PySide6.QtWidgets import QLabel, QListWidget, QListWidgetItem, QPushButton, QTabWidget, QWidget

from llmlab.core.errors import LabError
from llmlab.core.presets import DEFAULT_PRESET, load_preset
from llmlab.core.rebuilt_settings import RebuiltSettings
from llmlab.exercises.checker import FAILED, PASSED, Answer
from llmlab.exercises.pieces import Piece, Workbook, all_pieces
from llmlab.jobs.rebuilt import Beside, beside, make_ours, make_yours, plain_settings
from llmlab.store.history import read_history
from llmlab.store.run_folder import RunFolder
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab, RunRow
from llmlab_gui.notebook.asking import ask_of_run
from llmlab_gui.pages.browser import TOP, PageBrowser
from llmlab_gui.pages.page import Page
from llmlab_gui.rebuild.checks import CHECK_COMMAND, Checks
from llmlab_gui.widgets.labels import QuietLabel
from llmlab_gui.widgets.layouts import column, flow, settling_timer, split
from llmlab_gui.widgets.outside import open_outside
from llmlab_gui.widgets.theme import theme_notifier

_CAPTION = (
    "Write a GPT piece by piece in an editor of your own. Each time you save, the piece is checked in a process of its "
    "own, and the first fact that does not hold is said."
)
_SAVED_MS = 300  # after a change of the file: editors write it in several steps
_MARKS = {"new": " ", "begun": "…", "passed": "✓", "changed": "↻"}
_WORDS = {"new": "not started", "begun": "started", "passed": "passed", "changed": "changed since it passed"}
_RUNS = 3  # the tab with the outcome
_NO_OURS = (
    "**Train ours** trains the lab's own run of the same settings and seed, and their losses and speeds stand here."
)
_STEP_MARKS = {PASSED: "✓", FAILED: "✗"}


class _Browser(PageBrowser):
    """A page of an exercise; none has figures."""

    def figure(self, name: str) -> QImage | None:
        return None


class RebuildDock(LabDock):
    """The learner's workbook. Saving a file checks it, whether or not the panel is in sight."""

    def __init__(self, lab: Lab, parent: QWidget | None = None, command: tuple[str, ...] = CHECK_COMMAND) -> None:
        super().__init__(lab, "rebuild", "Rebuild", parent)
        self._workbook, self._pieces = Workbook(lab.outputs), all_pieces()
        self._hints: dict[str, int] = {}  # how many were asked for
        self._answers: dict[str, Answer] = {}
        self.checks = Checks(lab.outputs, self, command)
        self.list, self.file = QListWidget(), QuietLabel()
        self.start, self.check = QPushButton("Start"), QPushButton("Check")
        self.hint, self.train = QPushButton("Hint"), QPushButton("Train with mine")
        self.ours = QPushButton("Train ours")
        self.tabs, self.verdict, self.steps = QTabWidget(), QLabel(), QListWidget()
        self.tabs.setDocumentMode(True)
        self.task, self.yours, self.lab_code, self.outcome = (
            _Browser(name, self._background) for name in ("Task", "Your code", "Our code", "Your run beside ours")
        )
        self._compared: tuple[object, ...] = ()  # which two runs the outcome is of, and how far they were
        self._watcher = QFileSystemWatcher(self)
        self._saved = settling_timer(self, _SAVED_MS, self._look)
        self._making = False  # a run to train, which is not in the list of runs yet
        self._saves: dict[str, tuple[int, int, int]] = {}  # what tells one save from another
        self._lay_out()
        self._connect()
        self.caption(_CAPTION, "attention")
        if not self._pieces:
            self.show_empty("There are no pieces", "The folder resources is missing from this installation.")
            return
        for piece in self._pieces:  # saves are seen before the panel is
            self._watch(piece)
        self.list.setCurrentRow(0)

    @property
    def piece(self) -> Piece:
        """The one that is chosen."""
        return self._pieces[max(0, self.list.currentRow())]

    def main_part(self) -> QWidget | None:
        return self.list if self.list.isVisible() else super().main_part()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._show()

    def shutdown(self) -> None:
        self.checks.shutdown()
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
        self.train.setToolTip("A run of the smallest preset with all pieces of yours that have passed")
        self.ours.setToolTip("The lab's own run of the same settings and seed, to compare with yours")
        self.tabs.addTab(self.task, "Task")
        self.tabs.addTab(column(self.verdict, (self.steps, 1)), "Answer")
        self.tabs.addTab(split(self.yours, self.lab_code, across=True), "Yours and ours")
        self.tabs.addTab(self.outcome, "Runs")
        for item in self._pieces:
            self.list.addItem(QListWidgetItem(item.title))
        buttons = flow(self.start, self.check, self.hint, right=(self.train, self.ours))
        right = column(buttons, self.file, (self.tabs, 1))
        self.set_body(split((self.list, 1), (right, 3), across=True, sizes=(230, 600)))

    def _connect(self) -> None:
        self.task.stale.connect(self._show)
        self.list.currentRowChanged.connect(lambda _: self._show())
        self.list.itemActivated.connect(lambda _: self._begin())
        self.start.clicked.connect(self._begin)
        self.check.clicked.connect(lambda: self._ask(self.piece))
        self.hint.clicked.connect(self._more_hints)
        self.train.clicked.connect(self._train)
        self.ours.clicked.connect(self._train_ours)
        for browser in (self.task, self.yours, self.lab_code):
            browser.anchorClicked.connect(self._follow)
        self.checks.began.connect(self._await)
        self.checks.answered.connect(self._take)
        self.checks.failed.connect(self._refused)
        self._watcher.fileChanged.connect(lambda _: self._saved.start())
        self._watcher.directoryChanged.connect(lambda _: self._saved.start())
        self.lab.runs_changed.connect(self._update_training)
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
        self._update_training()

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
            self.verdict.setText("It passes.")
        else:
            mistake = (
                f" This is what comes of a known mistake: {answer.mistake}. {answer.why}" if answer.mistake else ""
            )
            self.verdict.setText(f"{answer.fact}{mistake}")
        for step in answer.steps if answer is not None else ():
            self.steps.addItem(
                f"{_STEP_MARKS.get(step.state, ' ')}  {step.title}{': ' if step.fact else ''}{step.fact}"
            )
        if answer is not None and answer.printed.strip():
            self.steps.addItem(f"It printed:\n{answer.printed.rstrip()}")

    def _update_training(self) -> None:
        if not self._pieces or not self.isVisible():
            return
        passed = any(self._workbook.state(piece) == "passed" for piece in self._pieces)
        one = not self._making and not any(row.info.track == "rebuilt" and row.status.live for row in self.lab.runs())
        self.train.setEnabled(passed and one)
        yours, ours = self._pair()
        self.ours.setEnabled(one and yours is not None and ours is None)
        self._compare(yours, ours)

    def _compare(self, yours: RunRow | None, ours: RunRow | None) -> None:
        """Losses and speeds of the newest run of theirs beside ours, as far as both are."""
        self.tabs.setTabEnabled(_RUNS, yours is not None)
        rows = tuple((row.id, row.status.step, row.status.state) for row in (yours, ours) if row is not None)
        if yours is None or rows == self._compared:
            return
        self._compared = rows
        if ours is None:
            self.outcome.show_page(_page(f"{yours.name}: {yours.status.words}. {_NO_OURS}"))
            return

        def read() -> Beside:
            return beside(read_history(yours.run), read_history(ours.run))

        def show(found: Beside) -> None:
            self.outcome.show_page(_page(_outcome(yours, ours, found)), self.outcome.place())

        self._background.run(read, show, self.lab.error_raised.emit)

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
            self.lab.open_concept(url.path())

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

    def _train(self) -> None:
        settings = load_preset(DEFAULT_PRESET).settings
        predictions = ask_of_run(self, self.lab, settings, DEFAULT_PRESET)
        if predictions is not None:
            make = partial(make_yours, self.lab.outputs, (), settings, preset=DEFAULT_PRESET)
            self._make(partial(make, watched=True, predictions=predictions))

    def _train_ours(self) -> None:
        yours, _ = self._pair()
        if yours is not None:
            self._make(partial(make_ours, yours.run, watched=True))

    def _make(self, make: Callable[[], RunFolder]) -> None:
        """Makes a run and trains it; until it has ended there is no second one."""

        def made(run: RunFolder) -> None:
            self._making = False
            self.lab.controller.train_made(run)
            self.lab.refresh()
            self.tabs.setCurrentIndex(_RUNS)  # where the run is told of

        def failed(error: LabError) -> None:
            self._making = False
            self._update_training()
            self.lab.error_raised.emit(error)

        self._making = True
        self._update_training()
        self._background.run(make, made, failed)

    def _pair(self) -> tuple[RunRow | None, RunRow | None]:
        """The newest run with pieces of the learner's, and ours of the same settings and seed; one that was stopped or
        failed is none."""
        rows = self.lab.runs()  # newest first
        yours = next((row for row in rows if row.info.track == RebuiltSettings.track), None)
        if yours is None:
            return None, None
        plain = plain_settings(yours.info)
        same = (row for row in rows if row.info.settings == plain)
        return yours, next((row for row in same if row.status.live or row.status.state == "finished"), None)


def _page(text: str) -> Page:
    return Page("rebuilt-runs", "Runs", f"# Your run and ours\n\n{text}\n")


def _outcome(yours: RunRow, ours: RunRow, found: Beside) -> str:
    """As `llmlab-run exercise use` has it."""
    pieces = ", ".join(yours.info.settings_as(RebuiltSettings).pieces.yours)
    lines = [
        f"Yours is {yours.name}, with your {pieces}: {yours.status.words}. Ours is {ours.name}: {ours.status.words}."
    ]
    lines += ["", "| validation loss at step | yours | ours | difference |", "| --- | --- | --- | --- |"]
    lines += [f"| {step:,} | {mine:.4f} | {theirs:.4f} | {mine - theirs:+.4f} |" for step, mine, theirs in found.losses]
    if found.our_speed and found.your_speed:
        share = found.your_speed / found.our_speed
        lines += ["", "| | yours | ours | times as fast |", "| --- | --- | --- | --- |"]
        lines += [f"| tokens per second | {found.your_speed:,.0f} | {found.our_speed:,.0f} | {share:.2f} |"]
    lines += [
        "",
        "The two have one seed: their losses differ by rounding alone where your pieces compute what ours do.",
    ]
    return "\n".join(lines)


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
