"""One stage of a walk: formula and numbers, code, why; and its values as a strip, a heatmap or a table."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, QSignalBlocker, Qt, Signal
from PySide6.QtGui import QFont, QFontDatabase
from PySide6.QtWidgets import QLabel, QStackedWidget, QTableView, QWidget

from llmlab.core.signs import minus
from llmlab.walk.stage import Array, Stage, Value
from llmlab_gui.charts.heatmap import Heat, Heatmap
from llmlab_gui.pages.html import colored_html, page_colors
from llmlab_gui.pages.places import DOCK_PAGES
from llmlab_gui.widgets.alternatives import visible
from llmlab_gui.widgets.buttons import toggle_button
from llmlab_gui.widgets.labels import QuietLabel, demi_bold, scrolled
from llmlab_gui.widgets.layouts import beside, choice_box, column, split
from llmlab_gui.widgets.theme import theme_notifier

# Values that a table shows better: their digits count, and a colour of one cell says nothing.
_FEW = 4
# Decides which values are drawn from zero on: a strip of bytes has no sign.
_POSITIVE = -1e-12


class StageView(QWidget):
    """panel_wanted(dock id): its link was followed. number_chosen(`norm[5]=`): of what can be changed."""

    panel_wanted = Signal(str)
    number_chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.stage: Stage | None = None
        self.title, self.formula, self.numbers = QLabel(), QLabel(), QLabel()
        self.note, self.code, self.why = QuietLabel(), QLabel(), QuietLabel()
        self.value = choice_box("Value of the stage that is drawn", least=24)
        self.as_table = toggle_button("Numbers", "All numbers of this value, as a table")
        self.against = toggle_button("Difference", "What the change did: now minus before")
        self.picture, self.table, self._model = (
            Heatmap("Value of the stage", square=False),
            QTableView(),
            NumbersModel(),
        )
        self._lay_out()
        self.value.currentIndexChanged.connect(self._draw)
        self.as_table.toggled.connect(self._draw)
        self.against.toggled.connect(self._draw)
        self.picture.clicked.connect(self._choose)
        self.table.activated.connect(lambda index: self._change(index.row()))
        self.why.linkActivated.connect(lambda link: self.panel_wanted.emit(link.removeprefix("dock:")))
        theme_notifier.changed.connect(self._say)

    def show_stage(self, stage: Stage | None) -> None:
        """Another stage; the value of the same name stays chosen, unless it is not what a change has changed."""
        kept = self.value.currentData()
        changed = [value.name for value in stage.values if value.changed] if stage is not None else []
        if changed and kept not in changed:
            kept = changed[0]
        if stage is None or self.stage is None or stage.name != self.stage.name:
            self.picture.choose(-1, -1)  # a number of that one
        self.stage = stage
        self._say()
        with QSignalBlocker(self.value):
            self.value.clear()
            for value in stage.values if stage is not None else ():
                marked = f": {value.changed:,} changed" if value.was is not None else ""
                self.value.addItem(f"{value.name} {value.shape_words}{marked}", value.name)
            self.value.setCurrentIndex(max(0, self.value.findData(kept)))
        self._draw()

    def chosen_value(self) -> Value | None:
        """The one that is drawn."""
        place = self.value.currentIndex()
        return self.stage.values[place] if self.stage is not None and 0 <= place < len(self.stage.values) else None

    def is_drawn(self) -> bool:
        """Whether a picture is what is shown, and no table."""
        return self.chosen_value() is not None and self._pages.currentWidget() is self.picture

    def _say(self) -> None:
        stage = self.stage
        self.title.setText(stage.title if stage is not None else "")
        for label, words in (
            (self.formula, stage.formula if stage is not None else ""),
            (self.numbers, _numbers(stage) if stage is not None else ""),
        ):
            label.setText(words)
            label.setVisible(bool(words))
        if stage is None:
            for quiet in (self.note, self.code, self.why):
                quiet.setText("")
            return
        equal = ""
        if stage.difference is not None:
            near = f"equal to the model's numbers within {stage.difference:.1g}"
            exact = near if stage.difference else "exactly the model's numbers"
            equal = f"Recomputed: {exact}."
        notes = [words for words in (stage.note, stage.reused, equal) if words]
        self.note.setText(" ".join(notes))
        self.note.setVisible(bool(notes))
        title = DOCK_PAGES.get(stage.panel, ("",))[0]
        link = f' <a href="dock:{stage.panel}">{html.escape(title)}</a> shows all of it.' if title else ""
        self.why.setText(html.escape(stage.why) + link)
        self.code.setVisible(stage.code is not None)
        if stage.code is not None:
            lines = colored_html(stage.code.text, page_colors().code)
            lines = lines.replace("\n", "<br>").replace("    ", "&nbsp; &nbsp; ")
            self.code.setText(f"{html.escape(stage.code.file)}:{stage.code.line}<br>{lines}")

    def _draw(self) -> None:
        value = self.chosen_value()
        few = value is not None and value.array.size <= _FEW
        for part in (self.value, self._pages):
            part.setVisible(value is not None)
        self.as_table.setVisible(value is not None and not few)
        self.against.setVisible(value is not None and value.changed > 0 and not few)
        as_table = few or self.as_table.isChecked()
        self._pages.setCurrentIndex(int(as_table))
        if value is None:
            return
        if as_table:
            self._model.show(value)
            return
        array, rows = value.array, [""]
        if self.against.isChecked() and value.changed and value.was is not None and value.was.shape == array.shape:
            with np.errstate(invalid="ignore"):  # minus infinity minus itself is none
                array = array - value.was
            rows = ["now − before"]
        elif value.changed and array.ndim == 1 and value.was is not None and value.was.shape == array.shape:
            array, rows = np.stack([array, value.was]), ["now", "before"]
        self.picture.show_heat(_heat(value, array, rows))

    def _choose(self, row: int, component: int) -> None:
        self.picture.choose(row, component)
        self._change(component)

    def _change(self, place: int) -> None:
        """A number that was clicked, or Enter was pressed on, can be changed where it is one of a vector."""
        stage, value = self.stage, self.chosen_value()
        if stage is not None and value is not None and (begun := value.change_of(stage.name, place)):
            self.number_chosen.emit(begun)

    def _lay_out(self) -> None:
        demi_bold(self.title, 1.1)
        self.code.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.code.setTextFormat(Qt.TextFormat.RichText)
        for plain in (self.title, self.formula, self.numbers, self.note):
            plain.setTextFormat(Qt.TextFormat.PlainText)
        for label, name in (
            (self.title, "Stage"),
            (self.formula, "Formula"),
            (self.numbers, "The formula with this model's numbers"),
            (self.code, "The lines of code that do it"),
        ):
            label.setWordWrap(True)
            label.setAccessibleName(name)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        for quiet in (self.note, self.why):
            quiet.setWordWrap(True)
        self.table.setModel(self._model)
        self.table.setAccessibleName("Numbers of the value")
        self.table.setTabKeyNavigation(False)
        self._pages = QStackedWidget()
        self._pages.addWidget(self.picture)
        self._pages.addWidget(self.table)
        self._pages.setMinimumHeight(90)
        words = column(
            *(self.title, self.formula, self.numbers, self.note, self.why, self.code, (QWidget(), 1)),
            spacing=5,
            margins=(4, 4, 4, 4),  # the ring of what has the keyboard lies around it
        )
        row = beside(self.value, self.as_table, self.against, grows=self.value)
        drawn = column(row, (self._pages, 1), spacing=3)
        self.words = scrolled(words)
        self._halves = split((self.words, 1), (drawn, 1), sizes=[230, 220])
        column((self._halves, 1), into=self)


def _numbers(stage: Stage) -> str:
    return f"{stage.numbers}\nBefore the change: {stage.was}" if stage.was else stage.numbers


def _heat(value: Value, array: Array, rows: list[str]) -> Heat:
    """A vector as one row, or two; a matrix as it is. Names along its positions are the tokens'."""
    flat = np.atleast_2d(np.asarray(array, np.float64))
    if len(flat) != len(rows) or value.array.ndim == 2:
        rows = [str(place) for place in range(len(flat))]
    labels = [visible(label) for label in value.labels]
    columns = labels or [str(place) for place in range(flat.shape[1])]
    finite = flat[np.isfinite(flat)]
    signed = bool(finite.size and finite.min() < _POSITIVE)
    whole = bool(np.array_equal(finite, finite.round()))  # ids, counts, one-hot vectors
    first = value.axes[0] if value.array.ndim == 2 else ""
    return Heat(flat, rows, columns, first, value.axes[-1], signed, kind="count" if whole else "value")


_Index = QModelIndex | QPersistentModelIndex
_ROLE = Qt.ItemDataRole


class NumbersModel(QAbstractTableModel):
    """A vector has a column for what it was before a change."""

    def __init__(self) -> None:
        super().__init__()
        self._value: Value | None = None

    def show(self, value: Value | None) -> None:
        """Another value."""
        self.beginResetModel()
        self._value = value
        self.endResetModel()

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008  # Qt's signature
        return 0 if self._value is None or parent.isValid() else len(self._value.array)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        value = self._value
        if value is None or parent.isValid():
            return 0
        return value.array.shape[1] if value.array.ndim == 2 else 1 if value.was is None else 2

    def data(self, index: _Index, role: int = _ROLE.DisplayRole) -> Any:
        value = self._value
        if value is None or not index.isValid():
            return None
        at: tuple[int, ...] = (index.row(), index.column()) if value.array.ndim == 2 else (index.row(),)
        if role == _ROLE.DisplayRole:
            source = value.was if value.array.ndim == 1 and index.column() == 1 else value.array
            return minus(f"{float(source[at]):.7g}") if source is not None and index.row() < len(source) else ""
        if role == _ROLE.TextAlignmentRole:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role == _ROLE.FontRole and _changed(value, at):
            font = QFont()
            font.setBold(True)
            return font
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = _ROLE.DisplayRole) -> Any:
        value = self._value
        if value is None or role != _ROLE.DisplayRole:
            return None
        last = value.array.ndim - 1
        axis = last if (orientation == Qt.Orientation.Horizontal) == (value.array.ndim == 2) else 0
        if orientation == Qt.Orientation.Horizontal and value.array.ndim == 1:
            return ("now", "was")[section] if value.was is not None else value.name
        labels = value.labels if axis == last else ()
        return labels[section] if section < len(labels) else str(section)


def _changed(value: Value, at: tuple[int, ...]) -> bool:
    if value.was is None or value.was.shape != value.array.shape:
        return False
    return not np.array_equal(value.was[at], value.array[at])
