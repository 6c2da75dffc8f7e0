"""Tables of whole rows: one model for all of them, and one look."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from PySide6.QtCore import (
    QAbstractItemModel,
    QAbstractTableModel,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QSortFilterProxyModel,
    Qt,
)
from PySide6.QtGui import QAction, QColor, QGuiApplication, QKeyEvent, QKeySequence
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QToolBar,
    QToolButton,
)

from llmlab_gui.widgets.icons import state_color, state_icon, swatch
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.saving import Cell, Table
from llmlab_gui.widgets.theme import current_theme, theme_notifier

R = TypeVar("R")
Index = QModelIndex | QPersistentModelIndex
_ROOT = QModelIndex()
SORT_ROLE = int(Qt.ItemDataRole.UserRole)
KEY_ROLE = SORT_ROLE + 1
_LONG = 16  # characters that a narrow column may not have room for
_DATED = re.compile(r"\d{8}-(\d\d)(\d\d)(\d\d)-(.+)")
_PADDING = 8  # pixels beside a cell's text
_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)


@dataclass(frozen=True)
class Column(Generic[R]):
    """title; how a cell reads; the header's tool tip; numbers stand at the right; state: whose sign it has.

    width: in characters. value: what a file has in the cell, a number at full precision, its text unless given. order:
    by what it sorts, its value unless given. in_file: its title in a file, with the unit; its title unless given, and
    what has neither is not in the file.
    """

    title: str
    text: Callable[[R], str]
    tip: str = ""
    right: bool = False
    state: Callable[[R], str] | None = None
    width: int = 10
    order: Callable[[R], Any] | None = None
    value: Callable[[R], Cell] | None = None
    in_file: str = ""

    def cell(self, row: R) -> Cell:
        """How a file has it."""
        return (self.value or self.text)(row)

    def place(self, row: R) -> Any:
        """By what it sorts; a number that is not there comes last."""
        found = (self.order or self.cell)(row)
        return math.inf if found is None else found


def numbers(
    title: str,
    value: Callable[[R], float | None],
    words: Callable[[float], str],
    tip: str,
    unit: str = "",
    *,
    width: int = 10,
    missing: str = "–",
    order: Callable[[R], float] | None = None,
) -> Column[R]:
    """A column of numbers. words: how a cell reads; missing: where there is none. unit: in a file's title."""

    def text(row: R) -> str:
        found = value(row)
        return missing if found is None else words(found)

    in_file = f"{title} ({unit})" if unit else title
    return Column(title, text, tip, right=True, width=width, order=order, value=value, in_file=in_file)


class RowsModel(QAbstractTableModel, Generic[R]):
    """Rows by a key. Subclasses name their columns, and say what a row's key is and what else is shown of it."""

    columns: Sequence[Column[R]] = ()
    in_file: Sequence[tuple[str, Callable[[R], Cell]]] = ()  # what a file has beside them: title, cell

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.rows: list[R] = []
        theme_notifier.changed.connect(self.repaint_all)

    def key(self, row: R) -> Hashable:
        """Tells rows apart."""
        return cast(Hashable, row)

    def tip(self, row: R) -> str:
        """What hovering it says."""
        return ""

    def mark(self, row: R) -> QColor | None:
        """A square of this colour before the first column."""
        return None

    def show(self, rows: Sequence[R]) -> None:
        """Replaces the rows; those that stay keep their places, so that selection and scrolling stay."""
        fresh = {self.key(row): row for row in rows}
        for place in reversed(range(len(self.rows))):
            if self.key(self.rows[place]) not in fresh:
                self.beginRemoveRows(_ROOT, place, place)
                del self.rows[place]
                self.endRemoveRows()
        known = {self.key(row) for row in self.rows}
        if [key for key in fresh if key in known] != [self.key(row) for row in self.rows]:
            self.beginResetModel()  # the order changed: rare enough to begin again
            self.rows = list(fresh.values())
            self.endResetModel()
            return
        for place, (key, row) in enumerate(fresh.items()):
            if key not in known:
                self.beginInsertRows(_ROOT, place, place)
                self.rows.insert(place, row)
                self.endInsertRows()
            elif self.rows[place] != row:
                self.rows[place] = row
                self.dataChanged.emit(self.index(place, 0), self.index(place, len(self.columns) - 1))

    def table(self, shown: QSortFilterProxyModel | None = None) -> Table:
        """Header and rows, as a file has them. shown: which of the rows, in which order."""
        rows = self.rows
        if shown is not None:
            at = (shown.mapToSource(shown.index(place, 0)).row() for place in range(shown.rowCount()))
            rows = [rows[place] for place in at]
        of_columns = [(column.in_file or column.title, column.cell) for column in self.columns]
        cells = [(title, cell) for title, cell in (*of_columns, *self.in_file) if title]
        return [title for title, _ in cells], [[cell(row) for _, cell in cells] for row in rows]

    def repaint_all(self) -> None:
        """Colours, or what cells say of the time, are different."""
        if self.rows:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self.rows) - 1, len(self.columns) - 1))

    def rowCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: Index = _ROOT) -> int:
        return 0 if parent.isValid() else len(self.columns)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row, column = self.rows[index.row()], self.columns[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return column.text(row)
        if role == KEY_ROLE:
            return self.key(row)
        if role == SORT_ROLE:
            return column.place(row)
        if role == Qt.ItemDataRole.TextAlignmentRole and column.right:
            return _RIGHT
        if role == Qt.ItemDataRole.ToolTipRole:
            text, tip = column.text(row), self.tip(row)
            return (tip if text in tip or len(text) < _LONG else f"{text}\n{tip}".strip()) or None
        if role == Qt.ItemDataRole.DecorationRole:
            if column.state is not None:
                return state_icon(column.state(row))
            color = self.mark(row) if index.column() == 0 else None
            return swatch(color) if color is not None else None
        if role == Qt.ItemDataRole.ForegroundRole and column.state is not None:
            return QColor(state_color(column.state(row), current_theme()))
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        column = self.columns[section]
        if role == Qt.ItemDataRole.DisplayRole:
            return column.title
        if role == Qt.ItemDataRole.ToolTipRole:
            return column.tip
        if role == Qt.ItemDataRole.TextAlignmentRole and column.right:
            return _RIGHT
        return None


class CopyingTable(QTableView):
    """What is selected goes to the clipboard by the system's key for it."""

    def selected_text(self) -> str:
        """What is selected; "" for nothing."""
        raise NotImplementedError

    def copy_selection(self) -> None:
        """As the key does."""
        if text := self.selected_text():
            QGuiApplication.clipboard().setText(text)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.matches(QKeySequence.StandardKey.Copy):
            self.copy_selection()
        else:
            super().keyPressEvent(event)


class DatedNames(QStyledItemDelegate):
    """A name made by the lab, 20261130-081913-baby-shakespeare, that is too long leaves its date out, 08:19:13
    baby-shakespeare, and then its beginning: the time of day tells it from others, and its end the trials of an
    experiment."""

    def initStyleOption(self, option: QStyleOptionViewItem, index: Index) -> None:
        super().initStyleOption(option, index)
        dated, metrics = _DATED.fullmatch(option.text), option.fontMetrics
        room = option.rect.width() - _PADDING
        if dated is not None and metrics.horizontalAdvance(option.text) > room:
            hours, minutes, seconds, name = dated.groups()
            time = f"{hours}:{minutes}:{seconds} "
            room -= metrics.horizontalAdvance(time)
            option.text = time + metrics.elidedText(name, Qt.TextElideMode.ElideLeft, room)


def sorted_proxy(model: QAbstractTableModel, parent: QObject) -> QSortFilterProxyModel:
    """The model, sorted by values instead of by their text."""
    proxy = QSortFilterProxyModel(parent)
    proxy.setSourceModel(model)
    proxy.setSortRole(SORT_ROLE)
    return proxy


def rows_table(
    model: QAbstractItemModel,
    name: str,
    columns: Sequence[Column[Any]],
    *,
    several: bool = False,
    sort: tuple[int, Qt.SortOrder] | None = None,
) -> QTableView:
    """A table of whole rows, as all of the window's are. several: more than one can be chosen. sort: by which column,
    and in which order, at first; None for a table that keeps its order."""
    table = labelled(QTableView(), name)
    table.setModel(model)
    modes = QAbstractItemView.SelectionMode
    table.setSelectionMode(modes.ExtendedSelection if several else modes.SingleSelection)
    table.setAlternatingRowColors(True)
    table.setWordWrap(False)
    table.horizontalHeader().setStretchLastSection(True)
    show_whole_rows(table, [column.width for column in columns])
    if sort is not None:
        table.setSortingEnabled(True)
        table.sortByColumn(*sort)
    return table


def table_actions(
    table: QTableView, prefix: str, words: Iterable[tuple[str, str, str, Callable[[], object], str]]
) -> dict[str, QAction]:
    """Actions by name, in the table's context menu, too. words: name, text, tip, what it does, keys or ""."""
    made = {}
    for name, text, tip, slot, keys in words:
        action = made[name] = QAction(text, table)
        action.setObjectName(f"action.{prefix}_{name}")
        action.setIconText(text)  # Qt takes the dots off a button's text otherwise
        action.setToolTip(f"{tip} ({keys})" if keys else tip)
        action.triggered.connect(lambda _=False, do=slot: do())
        if keys:
            action.setShortcut(QKeySequence(keys))
            action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
    table.addActions(list(made.values()))
    table.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
    return made


def tool_bar(actions: Mapping[str, QAction]) -> QToolBar:
    """Their buttons, by their texts, with Tab; in a narrow dock, what does not fit goes behind its » button."""
    tools = QToolBar(toolButtonStyle=Qt.ToolButtonStyle.ToolButtonTextOnly)
    tools.addActions(list(actions.values()))
    for button in tools.findChildren(QToolButton):
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return tools


def select_row(table: QTableView, key: str) -> None:
    """Selects the row with this key, without telling anyone; none when there is none."""
    model = table.model()
    for place in range(model.rowCount()):
        if model.index(place, 0).data(KEY_ROLE) == key:
            if table.currentIndex().row() != place or not table.selectionModel().hasSelection():
                table.selectRow(place)
            return
    table.clearSelection()


def selected_key(table: QTableView) -> str:
    """The key of the selected row, "" for none."""
    rows = table.selectionModel().selectedRows()
    return str(rows[0].data(KEY_ROLE)) if rows else ""


def show_whole_rows(table: QTableView, widths: Sequence[int]) -> None:
    """Rows are chosen as a whole, and nothing is edited. widths: of the columns, in characters; the model is set."""
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setShowGrid(False)
    table.setTabKeyNavigation(False)
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 6)
    header = table.horizontalHeader()
    header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
    header.setHighlightSections(False)
    header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    unit = table.fontMetrics().averageCharWidth()
    for column, width in enumerate(widths):
        table.setColumnWidth(column, unit * width + 12)
