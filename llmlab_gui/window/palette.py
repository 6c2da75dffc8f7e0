"""The command palette: everything that the window can do, found by typing a few of its letters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QAbstractListModel, QEvent, QModelIndex, QObject, QPersistentModelIndex, QRect, QSize, Qt
from PySide6.QtGui import QColor, QKeyEvent, QPainter
from PySide6.QtWidgets import (
    QDialog,
    QLineEdit,
    QListView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from llmlab_gui.widgets.theme import current_theme, mix

_ROOT = QModelIndex()
_MOST = 200
_ROW_PADDING = 12
_ROWS = 14  # in sight at once


@dataclass(frozen=True)
class Command:
    """text: what it does. kind: the quiet word before it. hint: a shortcut, at the right."""

    text: str
    run: Callable[[], object]
    kind: str = ""
    hint: str = ""


def score(wanted: str, text: str) -> float | None:
    """How well `text` has the letters of `wanted`, in order; None when it lacks some. Higher is better.

    A letter at the start of a word counts most, then one right after the letter before; gaps cost a little.
    """
    letters = text.lower()
    reached: dict[int, float] = {-1: 0.0}  # place of the last letter found, and the best score that leads there
    for letter in wanted.lower().replace(" ", ""):
        onward: dict[int, float] = {}
        for place, found in enumerate(letters):
            before = [(at, points) for at, points in reached.items() if at < place]
            if found != letter or not before:
                continue
            starts = place == 0 or not letters[place - 1].isalnum()
            gain = max(points + (2.0 if at == place - 1 else -0.1 * (place - at)) for at, points in before)
            onward[place] = gain + (3.0 if starts else 0.0)
        reached = onward
    return max(reached.values()) - 0.01 * len(text) if reached else None


def best(commands: Iterable[Command], wanted: str) -> list[Command]:
    """The commands that fit, best first; all of them, as they come, when nothing is wanted."""
    if not wanted.strip():
        return list(commands)[:_MOST]
    scored = [(found, command) for command in commands if (found := _score(wanted, command)) is not None]
    return [command for _, command in sorted(scored, key=lambda pair: -pair[0])][:_MOST]


def _score(wanted: str, command: Command) -> float | None:
    found = [s for text in (command.text, f"{command.kind} {command.text}") if (s := score(wanted, text)) is not None]
    return max(found, default=None)


class CommandPalette(QDialog):
    """A line to type in, and the commands that fit. Enter runs the chosen one, Escape closes."""

    def __init__(self, commands: list[Command], parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Popup | Qt.WindowType.FramelessWindowHint)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._commands = commands
        self.line = QLineEdit()
        self.line.setPlaceholderText("Type to find a command, panel, run or page")
        self.line.setAccessibleName("Command")
        self.list = QListView()
        self.list.setAccessibleName("Commands")
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.list.setUniformItemSizes(True)
        self.list.setItemDelegate(_CommandDelegate(self.list))
        self._model = _CommandModel(self)
        self.list.setModel(self._model)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.addWidget(self.line)
        layout.addWidget(self.list)
        self.line.installEventFilter(self)
        self.line.textChanged.connect(self._filter)
        self.list.clicked.connect(lambda _: self._run())
        width = min(640, parent.width() - 40)
        self.setFixedWidth(width)
        self._filter()
        corner = parent.mapToGlobal(parent.rect().topLeft())
        self.move(corner.x() + (parent.width() - width) // 2, corner.y() + 60)
        self.line.setFocus()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            steps = {Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1, Qt.Key.Key_PageDown: 8, Qt.Key.Key_PageUp: -8}
            distance = steps.get(Qt.Key(event.key()))
            if distance is not None:
                last = self._model.rowCount() - 1
                place = self.list.currentIndex().row() + distance
                # One step beyond an end goes to the other.
                place = place % (last + 1) if abs(distance) == 1 and last >= 0 else min(max(place, 0), last)
                self.list.setCurrentIndex(self._model.index(place))
                return True
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self._run()
                return True
        return super().eventFilter(watched, event)

    def _filter(self) -> None:
        self._model.show(best(self._commands, self.line.text()))
        self.list.setCurrentIndex(self._model.index(0))
        rows = min(max(1, self._model.rowCount()), _ROWS)
        row_height = self.fontMetrics().height() + _ROW_PADDING
        self.list.setFixedHeight(rows * row_height + 2 * self.list.frameWidth() + 2)
        self.adjustSize()

    def _run(self) -> None:
        place = self.list.currentIndex().row()
        if 0 <= place < len(self._model.commands):
            command = self._model.commands[place]
            self.close()
            command.run()


class _CommandModel(QAbstractListModel):
    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.commands: list[Command] = []

    def show(self, commands: list[Command]) -> None:
        self.beginResetModel()
        self.commands = commands
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex = _ROOT) -> int:
        return 0 if parent.isValid() else len(self.commands)

    def data(self, index: QModelIndex | QPersistentModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        command = self.commands[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return command.text
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return f"{command.kind} {command.text}"
        return command if role == Qt.ItemDataRole.UserRole else None


class _CommandDelegate(QStyledItemDelegate):
    """Kind, text, and the shortcut at the right."""

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        return QSize(200, option.fontMetrics.height() + _ROW_PADDING)

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        command: Command = index.data(Qt.ItemDataRole.UserRole)
        theme = current_theme()
        selected = bool(option.state & QStyle.StateFlag.State_Selected)
        rect: QRect = option.rect
        painter.save()
        if selected:
            painter.fillRect(rect, mix(theme.surface, theme.accent, 0.2))
        inside = rect.adjusted(8, 0, -8, 0)
        middle = Qt.AlignmentFlag.AlignVCenter
        kind_width = painter.fontMetrics().averageCharWidth() * 12
        hint_width = painter.fontMetrics().horizontalAdvance(command.hint) + 12
        shade = QColor(theme.text if selected else theme.quiet)
        painter.setPen(shade)
        painter.drawText(inside, middle | Qt.AlignmentFlag.AlignLeft, command.kind)
        painter.drawText(inside, middle | Qt.AlignmentFlag.AlignRight, command.hint)
        painter.setPen(QColor(theme.text))
        words = inside.adjusted(kind_width, 0, -hint_width, 0)
        text = painter.fontMetrics().elidedText(command.text, Qt.TextElideMode.ElideRight, words.width())
        painter.drawText(words, middle | Qt.AlignmentFlag.AlignLeft, text)
        painter.restore()
