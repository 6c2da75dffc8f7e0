"""A preview of examples: one of them token by token, their lengths, and the unusable lines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtGui import QGuiApplication, QResizeEvent
from PySide6.QtWidgets import QHeaderView, QLabel, QSpinBox, QTabWidget, QToolButton, QWidget

from llmlab.data.example_preview import Preview
from llmlab_gui.charts.picture import copy_picture, save_shown
from llmlab_gui.finetune.example_chips import ExampleChips, StateLegend
from llmlab_gui.finetune.lengths import LengthHistogram
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.widgets.buttons import menu_button
from llmlab_gui.widgets.labels import ProblemLabel, labelled
from llmlab_gui.widgets.layouts import column, flow, split
from llmlab_gui.widgets.one_line import OneLine
from llmlab_gui.widgets.row_tables import Column, RowsModel, rows_table
from llmlab_gui.widgets.saving import OF_A_CHART, Cell, Export, csv_text, export_button

EXAMPLE, LENGTHS, BAD_LINES = "example", "lengths", "bad lines"
# What can be exported: its name in the menus, and in which formats.
_PARTS = (
    (EXAMPLE, "Example", OF_A_CHART),
    (LENGTHS, "Lengths", OF_A_CHART),
    (BAD_LINES, "Unusable lines", ("csv",)),
)
# Below this height the example is a tab beside the lengths instead of above them.
_SHORT = 400
_HINT = "Point at a token, or choose one with the arrow keys."

# Line numbers (rows of a table that has no lines) and reasons, in the order of the file.
_BAD_LINE_COLUMNS: tuple[Column[tuple[int, str]], ...] = (
    Column("Line", lambda line: f"{line[0]:,}", right=True, width=8),
    Column("Why it is unusable", lambda line: line[1]),
)


class BadLinesModel(RowsModel[tuple[int, str]]):
    """Unusable lines, each with its reason."""

    columns = _BAD_LINE_COLUMNS

    def tip(self, row: tuple[int, str]) -> str:
        return row[1]


class PreviewView(QWidget):
    """place_wanted(n): another example is asked for, counted from 0."""

    place_wanted = Signal(int)

    def __init__(self, dock: LabDock) -> None:
        """dock: writes files."""
        super().__init__()
        self._dock = dock
        self.preview: Preview | None = None
        self._waiting = False
        self.template, self.sizes, self.about_token = OneLine(), OneLine(quiet=True), OneLine(quiet=True)
        self.template.setAccessibleName("Chat template")
        self.sizes.setAccessibleName("Sizes")
        self.about_token.setAccessibleName("The chosen token")
        self.trouble = labelled(ProblemLabel(), "Why nothing can be trained with these examples")
        self.previous_button = _arrow(Qt.ArrowType.LeftArrow, "Previous example")
        self.next_button = _arrow(Qt.ArrowType.RightArrow, "Next example")
        self.number = labelled(QSpinBox(), "Number of the example", "Which example is shown")
        self.number.setKeyboardTracking(False)
        self.of, self.about_example = QLabel(), QLabel()
        self.about_example.setToolTip("Its line in the file, and in which part of the examples it is")
        self.chips, self.legend = ExampleChips(), StateLegend()
        self.lengths, self.lines = LengthHistogram(), BadLinesModel(self)
        self.bad_lines = rows_table(self.lines, "Unusable lines", _BAD_LINE_COLUMNS)
        self.bad_lines.setWordWrap(True)  # reasons are long
        self.bad_lines.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.tabs = QTabWidget(documentMode=True)
        exports = (
            Export(partial(self.export, what), partial(what.replace, " ", "-"), formats, words)
            for what, words, formats in _PARTS
        )
        self.export_button = export_button(*exports)
        self.copy_button = menu_button("Copy", "Copy what is shown to the clipboard")
        self._fill_copy_menu()
        self._lay_out()
        self.previous_button.clicked.connect(lambda: self._step(-1))
        self.next_button.clicked.connect(lambda: self._step(1))
        self.number.valueChanged.connect(lambda number: self.place_wanted.emit(number - 1))
        self.chips.clicked.connect(self._choose)
        self.chips.pointed.connect(self._point)

    def show_preview(self, preview: Preview) -> None:
        """Replaces everything."""
        self.preview = preview
        self.template.say(f"Template: {preview.template}")
        self.sizes.say(_sizes(preview))
        self.trouble.say(" ".join(part for part in preview.trouble if part) if preview.trouble is not None else "")
        self.lengths.show_preview(preview)
        self.lines.show(preview.bad)
        bad_tab = self.tabs.indexOf(self.bad_lines)
        self.tabs.setTabText(bad_tab, f"Unusable lines ({preview.bad_total:,})")
        listed = f"The first {len(preview.bad):,} are listed" if preview.bad_total > len(preview.bad) else ""
        self.tabs.setTabToolTip(bad_tab, listed)
        self._show_example()
        self.set_waiting(False)

    def set_waiting(self, waiting: bool) -> None:
        """While another answer is waited for, no further example can be asked for."""
        self._waiting = waiting
        there = self.preview is not None and self.preview.example is not None and not waiting
        self.previous_button.setEnabled(there and self.number.value() > 1)
        self.next_button.setEnabled(there and self.number.value() < self.number.maximum())

    def table(self, what: str) -> tuple[Sequence[str], list[list[Cell]]]:
        """Header and rows of the example's tokens, the lengths, or the bad lines."""
        if what == LENGTHS:
            return self.lengths.table()
        if what == BAD_LINES:
            return ("line", "why"), [list(line) for line in self.lines.rows]
        tokens = zip(self.chips.tokens, self.chips.states, strict=True)
        rows: list[list[Cell]] = [
            [position, token.id, token.text, state] for position, (token, state) in enumerate(tokens)
        ]
        return ("position", "id", "text", "state"), rows

    def picture(self, what: str) -> QWidget:
        """What a picture of the example or of the lengths is of."""
        return self.lengths if what == LENGTHS else self.chips

    def export(self, what: str, path: Path) -> None:
        """Writes the example or the lengths to a .png or .svg, or any of the three to a .csv, in the background."""
        self._dock.write_file(save_shown([self.picture(what)], partial(self.table, what), path), path)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        short, in_tab = self.height() < _SHORT, self.tabs.indexOf(self._upper) >= 0
        if short and not in_tab:
            self.tabs.insertTab(0, self._upper, "Example")
            self.tabs.setCurrentIndex(0)
        elif in_tab and not short:
            self._halves.insertWidget(0, self._upper)
            self._upper.show()

    def _lay_out(self) -> None:
        right = (self.legend, self.copy_button, self.export_button)
        row = flow(self.previous_button, self.number, self.of, self.next_button, self.about_example, right=right)
        self._upper = column(row, (self.chips, 1), self.about_token, spacing=3)
        self.tabs.addTab(self.lengths, "Lengths")
        self.tabs.addTab(self.bad_lines, "Unusable lines")
        halves = self._halves = split((self._upper, 3), (self.tabs, 2))
        column(self.template, self.sizes, self.trouble, (halves, 1), spacing=3, into=self)

    def _fill_copy_menu(self) -> None:
        menu = self.copy_button.menu()
        for what, words, formats in _PARTS:
            if formats == OF_A_CHART:
                menu.addAction(f"{words}: picture", partial(self._copy_picture, what))
            menu.addAction(f"{words}: table (CSV)", partial(self._copy_table, what))

    def _copy_picture(self, what: str) -> None:
        copy_picture([self.picture(what)])

    def _copy_table(self, what: str) -> None:
        QGuiApplication.clipboard().setText(csv_text(*self.table(what)))

    def _show_example(self) -> None:
        preview = self.preview
        example = preview.example if preview is not None else None
        self.about_token.say(_HINT if example is not None else "")
        if preview is None or example is None:
            self.number.setEnabled(False)
            self.of.setText("")
            self.about_example.setText("No example can be shown")
            self.chips.show_example(())
            return
        with QSignalBlocker(self.number):
            self.number.setEnabled(True)
            self.number.setRange(1, preview.examples)
            self.number.setValue(example.place + 1)
        self.of.setText(f"of {preview.examples:,}")
        shown = f" ({len(example.tokens):,} shown)" if example.length > len(example.tokens) else ""
        self.about_example.setText(f"line {example.number:,} · {example.part} · {example.length:,} tokens{shown}")
        self.chips.show_example(example.tokens)

    def _step(self, by: int) -> None:
        self.number.setValue(self.number.value() + by)

    def _choose(self, token: int) -> None:
        self.chips.choose(token)
        self._point(token)

    def _point(self, token: int) -> None:
        """Says what the token under the pointer is, or else the chosen one."""
        token = token if token >= 0 else self.chips.chosen
        self.about_token.say(self.chips.words(token) if 0 <= token < len(self.chips.tokens) else _HINT)


def _sizes(preview: Preview) -> str:
    share = f", of which {100 * preview.trained / preview.tokens:.0f} % are in the loss" if preview.tokens else ""
    cut = f"{preview.cut:,} examples are truncated" if preview.cut != 1 else "1 example is truncated"
    later = f"{preview.left_out:,} left out: their answers start too late"
    shortened = [cut] * bool(preview.cut) + [later] * bool(preview.left_out)
    words = [
        f"{preview.train:,} to train on, {preview.held_out:,} held out",
        f"{preview.tokens:,} tokens{share}",
        *(shortened or ["no example is truncated"]),
        f"{100 * preview.filling:.0f} % of each batch is padding",
    ]
    return " · ".join(words)


def _arrow(kind: Qt.ArrowType, tip: str) -> QToolButton:
    return labelled(QToolButton(arrowType=kind), tip, tip)
