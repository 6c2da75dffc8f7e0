"""Explain it back: the learner writes the whole from memory, then ticks point by point what the text has."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtGui import QHideEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPlainTextEdit,
    QPushButton,
    QWidget,
)

from llmlab.core.errors import LabError
from llmlab.learning.recall import Try, new_try, save, tries
from llmlab.learning.stations import LearningPath
from llmlab_gui.learn.stations import Stations
from llmlab_gui.pages.paths import path_page
from llmlab_gui.widgets.labels import PrimaryButton, ProblemLabel, QuietLabel, labelled
from llmlab_gui.widgets.layouts import choice_box, column, flow, settling_timer, split

_SAVE_MS = 1000  # after the first key since it was saved
_POINT = int(Qt.ItemDataRole.UserRole)  # what belongs there, without a remark


class ExplainIt(QWidget):
    """The last station of a path. What is written is saved as it is typed, and never replaced by another try."""

    go = Signal(str)  # a page

    def __init__(self, outputs: Path, stations: Stations, failed: Callable[[LabError], None]) -> None:
        """failed: told what could not be saved when the page is left."""
        super().__init__()
        self._outputs, self._stations, self._failed = outputs, stations, failed
        self._path: LearningPath | None = None
        self._titles: Mapping[str, str] = {}
        self._tries: list[Try] = []
        self._try: Try | None = None
        self._opened: list[str] = []  # stations, by what this try lacked when its ticks were kept before
        self.ask, self.where, self.result = QLabel(), QuietLabel(), QuietLabel()
        self.ask.setWordWrap(True)
        self.problem = ProblemLabel()
        self.text = labelled(QPlainTextEdit(tabChangesFocus=True), "Your explanation")
        self.text.setPlaceholderText("Write in your own words, without looking. Sketches can stay on paper.")
        self.points = labelled(QListWidget(), "What belongs there")
        self.points.setWordWrap(True)
        self.points.setSpacing(1)  # the boxes are higher than a line
        self.points.setTextElideMode(Qt.TextElideMode.ElideNone)
        self.points.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.points.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.points.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.uncover_button, self.keep_button = (
            PrimaryButton("Uncover the checklist"),
            PrimaryButton("Keep what I ticked"),
        )
        self.again_button, self.back_button = QPushButton("Write it again"), QPushButton("Back to the path")
        self.which = choice_box("Your tries", least=24)
        self.which.setPlaceholderText("A new one")
        column(
            self.ask,
            (split((self.text, 1), (self.points, 1)), 1),
            self.result,
            self.problem,
            self.where,  # above the buttons, which stay where they are as it appears
            flow(self.which, self.uncover_button, self.keep_button, self.again_button, right=(self.back_button,)),
            into=self,
        )
        self._settle = settling_timer(self, _SAVE_MS, self.save)
        self.text.textChanged.connect(self._typed)
        self.uncover_button.clicked.connect(self.uncover)
        self.keep_button.clicked.connect(self.keep)
        self.again_button.clicked.connect(self.begin)
        self.back_button.clicked.connect(self._go_back)
        self.which.activated.connect(self._choose)
        self.points.itemChanged.connect(self._ticked)
        self.result.linkActivated.connect(lambda link: self.go.emit(link.removeprefix("concept:")))

    def show_path(self, path: LearningPath, titles: Mapping[str, str]) -> None:
        """Its last try: a draft to be gone on with, else what was ticked."""
        if path is self._path or not self.save():  # what cannot be saved stays in sight
            return
        self._path, self._titles = path, titles
        self.ask.setText(path.explain.ask)
        self._list()
        self._show(self._tries[-1] if self._tries else new_try(self._outputs, path, time.time()))

    def begin(self) -> None:
        """An empty text; the tries before stay."""
        if self._path is not None and self.save():
            self._show(new_try(self._outputs, self._path, time.time()))
            self.text.setFocus()

    def save(self) -> bool:
        """Writes down what was typed or ticked. -> whether all of it is in its file; why not is said."""
        self._settle.stop()
        if self._try is None:
            return True
        text, had = self.text.toPlainText(), self._had()
        written = replace(self._try, had=had) if self._try.uncovered else replace(self._try, text=text)
        return written == self._try or self._write(written)

    def uncover(self) -> None:
        """Shows what belongs there; the text is not changed any more."""
        assert self._path is not None
        assert self._try is not None
        had = {point.belongs: False for point in self._path.explain.points}
        if self._write(replace(self._try, text=self.text.toPlainText(), had=had)):
            self._settle.stop()
            self._list()
            self._show(self._try)
            self.points.setFocus()
            self.points.setCurrentRow(0)

    def keep(self) -> None:
        """Writes down what was ticked; the stations of what is missing are open again."""
        assert self._path is not None
        assert self._try is not None
        if not self.save():
            return
        missing, before = self._missing_pages(), self._opened
        self._stations.open_again(
            self._path.name,
            [page for page in missing if page not in before],
            [page for page in before if page not in missing],
        )
        self._opened = missing
        self._list()
        self._show(self._try, kept=True)

    def _go_back(self) -> None:
        assert self._path is not None
        self.go.emit(path_page(self._path.name))

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self.save()

    def _typed(self) -> None:
        self._offer_to_uncover()
        if self._try is not None and not self._settle.isActive():  # who types without a pause is saved, too
            self._settle.start()

    def _offer_to_uncover(self) -> None:
        empty = not self.text.toPlainText().strip()
        self.uncover_button.setEnabled(not empty)
        self.uncover_button.setToolTip("Write something first" if empty else "The text stays as it is from then on")

    def _ticked(self) -> None:
        self.keep_button.setEnabled(True)
        self._typed()

    def _had(self) -> dict[str, bool]:
        """The points that are shown, each with its tick."""
        rows = [self.points.item(row) for row in range(self.points.count())]
        return {row.data(_POINT): row.checkState() == Qt.CheckState.Checked for row in rows}

    def _write(self, written: Try) -> bool:
        assert self._path is not None
        try:
            self._try = save(written, self._path)
        except LabError as error:
            self.problem.say(str(error))
            if not self.isVisible():
                self._failed(error)
            return False
        self.problem.say("")
        self.where.setText(f"Saved in {html.escape(str(written.file))}")
        return True

    def _list(self) -> None:
        """The tries, the first one first."""
        assert self._path is not None
        self._tries = tries(self._outputs, self._path)
        self.which.clear()
        self.which.addItems([_name(one) for one in self._tries])

    def _choose(self, place: int) -> None:
        chosen = self._tries[place]
        if self.save():
            self._list()  # with what has just been saved, and without what was deleted meanwhile
            self._show(next((one for one in self._tries if one.file == chosen.file), chosen))

    def _show(self, shown: Try, *, kept: bool = False) -> None:
        """A try: to be written, to be ticked, or as it was. kept: its ticks, just now."""
        self._settle.stop()
        self._try = None  # what the text box says meanwhile is not typed
        self.text.setPlainText(shown.text)
        self.text.setReadOnly(shown.uncovered)
        self._try = shown
        self._offer_to_uncover()
        files = [one.file for one in self._tries]
        newest = shown.file not in files[:-1]
        self.which.setVisible(files not in ([], [shown.file]))
        self.which.setCurrentIndex(files.index(shown.file) if shown.file in files else -1)
        if not kept:
            self._opened = []
        self._fill_points(shown, newest)
        self.points.setVisible(shown.uncovered)
        self.uncover_button.setVisible(not shown.uncovered)
        self.keep_button.setVisible(shown.uncovered and newest)
        self.keep_button.setEnabled(not (shown.ticked or kept))
        self.again_button.setVisible(shown.uncovered)
        self.where.setText(f"Saved in {html.escape(str(shown.file))}" if shown.held is not None else "")
        self.problem.say("")
        self.result.setText(self._said(kept))
        self.result.setVisible(bool(self.result.text()))

    def _fill_points(self, shown: Try, newest: bool) -> None:
        """Each with its tick; of a later try, with what was otherwise in the first."""
        first = self._tries[0] if self._tries and self._tries[0].file != shown.file else None
        with QSignalBlocker(self.points):
            self.points.clear()
            for belongs, had in shown.had.items():
                before = first.had.get(belongs) if first is not None else None
                note = "" if before in (None, had) or not shown.ticked else " (new)" if had else " (was there at first)"
                item = QListWidgetItem(belongs + note, self.points)
                item.setData(_POINT, belongs)
                flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
                item.setFlags(flags | Qt.ItemFlag.ItemIsUserCheckable if newest else flags)
                item.setCheckState(Qt.CheckState.Checked if had else Qt.CheckState.Unchecked)

    def _missing_pages(self) -> list[str]:
        """The stations that explain what the try lacks, in the order of the path."""
        assert self._path is not None
        assert self._try is not None
        missing = {page for point in self._try.missing(self._path.explain.points) for page in point.pages}
        return [station.page for station in self._path.stations if station.page in missing]

    def _said(self, kept: bool) -> str:
        """What is to be done with the checklist, or what came of it."""
        assert self._try is not None
        if not self._try.uncovered:
            return ""
        if not (self._try.ticked or kept):
            return (
                "Your text stays as it is now. Tick each point that it makes, in whatever words. Space ticks, and "
                "the arrow keys move on."
            )
        links = ", ".join(
            f'<a href="concept:{page}">{self._titles.get(page, page)}</a>' for page in self._missing_pages()
        )
        missing = f" What is missing is explained by: {links}." if links else ""
        opened = " These stations are open again." if links and kept else ""
        return f"{_count(self._try)} points.{missing}{opened}"


def _count(one: Try) -> str:
    return f"{one.ticked} of {len(one.had)}"


def _name(one: Try) -> str:
    what = _count(one) if one.ticked else "not ticked" if one.uncovered else "draft"
    return f"{datetime.fromtimestamp(one.time):%Y-%m-%d %H:%M}: {what}"
