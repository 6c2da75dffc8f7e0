"""Text that takes one line, whatever its length: labels, boxes of choices, menus. The tool tip has the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from PySide6.QtCore import QEvent, QSignalBlocker, QSize, Qt, Signal
from PySide6.QtGui import QHelpEvent, QPainter, QPaintEvent, QPalette
from PySide6.QtWidgets import (
    QComboBox,
    QLabel,
    QMenu,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QToolTip,
)

from llmlab_gui.widgets.theme import current_theme, faded, theme_notifier

_FAINT = 0.43  # alpha of a line that is disabled: what it says is not current
# Characters of a name: as much of it as tells it from others.
_LONGEST_CHOICE = 32
_LONGEST_ACTION = 60
_LONGEST_ENTRY = 80  # of a list, which has the whole line: a run's name, its step, its loss


class ChoiceBox(QComboBox):
    """Its list has the ground of all lists; Fusion fills it with the colour that outlines menus (`theme._edged`)."""

    def entries(self) -> list[tuple[Any, str]]:
        """Data and words of each."""
        return [(self.itemData(place), self.itemText(place)) for place in range(self.count())]

    def fill(self, entries: Iterable[Sequence[Any]], chosen: object = None) -> None:
        """Replaces the entries, each its data, its words, and perhaps a tool tip. Nobody is told.

        chosen: the data of the one to choose; the first where there is no such.
        """
        with QSignalBlocker(self):
            self.clear()
            for data, words, *tips in entries:
                self.addItem(words, data)
                for tip in tips:
                    self.setItemData(self.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
            self.setCurrentIndex(max(0, self.findData(chosen)) if self.count() else -1)

    def showPopup(self) -> None:
        palette = self.view().palette()
        palette.setColor(QPalette.ColorRole.Window, palette.color(QPalette.ColorRole.Base))
        self.view().setPalette(palette)
        super().showPopup()


class OneLineBox(ChoiceBox):
    """No wider than a short name; longer ones are cut in the middle, and whole in the tool tip."""

    opens = Signal()  # the list is about to be shown

    def sizeHint(self) -> QSize:
        return self._bounded(super().sizeHint())

    def minimumSizeHint(self) -> QSize:
        return self._bounded(super().minimumSizeHint())

    def showPopup(self) -> None:
        self.opens.emit()
        self.view().setTextElideMode(Qt.TextElideMode.ElideMiddle)
        tip = Qt.ItemDataRole.ToolTipRole
        for place in range(self.count()):
            if len(self.itemText(place)) > _LONGEST_CHOICE and not self.itemData(place, tip):
                self.setItemData(place, self.itemText(place), tip)
        most = self.fontMetrics().averageCharWidth() * _LONGEST_ENTRY
        self.view().window().setMaximumWidth(max(self.width(), most))  # the list's window
        bar = self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
        self.view().setMinimumWidth(min(most, self.view().sizeHintForColumn(0) + bar))
        super().showPopup()

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip and self._cut() != self.currentText():
            QToolTip.showText(event.globalPos(), f"{self.currentText()}\n{self.toolTip()}".strip(), self)
            return True
        return super().event(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        option = QStyleOptionComboBox()
        with (painter := QStylePainter(self)):
            self.initStyleOption(option)
            painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
            option.currentText = self._cut() or self.placeholderText()
            painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)

    def _cut(self) -> str:
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        field = self.style().subControlRect(
            QStyle.ComplexControl.CC_ComboBox, option, QStyle.SubControl.SC_ComboBoxEditField, self
        )
        room = field.width() - (0 if self.itemIcon(self.currentIndex()).isNull() else self.iconSize().width() + 4)
        return self.fontMetrics().elidedText(self.currentText(), Qt.TextElideMode.ElideMiddle, room)

    def _bounded(self, hint: QSize) -> QSize:
        return QSize(min(hint.width(), self.fontMetrics().averageCharWidth() * _LONGEST_CHOICE + 40), hint.height())


def keep_short(menu: QMenu) -> None:
    """Its entries hold names of any length: long ones are cut in the middle."""
    menu.setToolTipsVisible(True)
    for action in menu.actions():
        text, half = action.text(), _LONGEST_ACTION // 2
        if len(text) > _LONGEST_ACTION:
            tip = action.toolTip()
            action.setText(f"{text[:half].rstrip('&')}…{text[-half:].lstrip('&')}")
            action.setToolTip(tip)


class OneLine(QLabel):
    """Plain text. quiet: in the colour of captions. elide: where it is cut."""

    def __init__(self, *, quiet: bool = False, elide: Qt.TextElideMode = Qt.TextElideMode.ElideRight) -> None:
        super().__init__()
        self._quiet, self._elide = quiet, elide
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        theme_notifier.changed.connect(self.update)

    def say(self, text: str) -> None:
        """Replaces it."""
        self.setText(text)
        self.setToolTip(text)

    def sizeHint(self) -> QSize:
        return QSize(60, self.fontMetrics().height() + 2)

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        with QPainter(self) as painter:
            color = faded(theme.quiet if self._quiet else theme.text, 1.0 if self.isEnabled() else _FAINT)
            painter.setPen(color)
            shown = self.fontMetrics().elidedText(self.text(), self._elide, self.width())
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, shown)
