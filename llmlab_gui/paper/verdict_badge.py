"""The sign of a verdict: its words on a ground of their colour, in tables and above the evidence."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetrics, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab_gui.widgets.theme import Theme, current_theme, mix, theme_notifier

_SIDE, _UP = 9, 3  # of the words, to the badge's edge
_GROUND = 0.16  # how much of the colour the ground has
# Shapes differ, so that the colour is not needed to tell verdicts apart.
_SIGNS = {SUPPORTED: "✓", NOT_SUPPORTED: "✗", INCONCLUSIVE: "?"}


def badge_text(state: str) -> str:
    """`✓ supported`."""
    sign = _SIGNS.get(state, "")
    return f"{sign} {state}" if sign else state


def badge_color(state: str, theme: Theme) -> str:
    """The colour that goes with a verdict, or with why there is none."""
    colors = {SUPPORTED: theme.good, NOT_SUPPORTED: theme.bad, INCONCLUSIVE: theme.warning, "running": theme.accent}
    return colors.get(state, theme.quiet)


def paint_badge(painter: QPainter, room: QRectF, state: str) -> None:
    """At the left of `room`, in its middle. A verdict has a ground; other states are words alone."""
    theme = current_theme()
    color, text = QColor(badge_color(state, theme)), badge_text(state)
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    metrics = QFontMetrics(painter.font())
    inside = room.width() - (2 * _SIDE if state in _SIGNS else 0)
    text = metrics.elidedText(text, Qt.TextElideMode.ElideRight, int(inside))
    left = room.left()
    if state in _SIGNS:
        height = metrics.height() + 2 * _UP
        width = min(room.width(), metrics.horizontalAdvance(text) + 2 * _SIDE)
        pill = QRectF(left, room.center().y() - height / 2, width, height)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(mix(theme.surface, color, _GROUND))
        painter.drawRoundedRect(pill, height / 2, height / 2)
        left += _SIDE
    painter.setPen(color)
    painter.drawText(QRectF(left, room.top(), room.right() - left, room.height()), Qt.AlignmentFlag.AlignVCenter, text)
    painter.restore()


class BadgeDelegate(QStyledItemDelegate):
    """Cells whose words are a verdict, or why there is none."""

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        state = str(index.data(Qt.ItemDataRole.DisplayRole) or "")
        self.initStyleOption(option, index)
        option.text = ""
        widget = option.widget
        assert widget is not None
        widget.style().drawControl(QStyle.ControlElement.CE_ItemViewItem, option, painter, widget)
        paint_badge(painter, QRectF(option.rect).adjusted(4, 0, -4, 0), state)


class Badge(QWidget):
    """One verdict, a little larger."""

    def __init__(self) -> None:
        super().__init__()
        self._state = ""
        font = QFont(self.font())
        font.setWeight(QFont.Weight.DemiBold)
        self.setFont(font)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Verdict")
        theme_notifier.changed.connect(self.update)

    @property
    def state(self) -> str:
        """What it says."""
        return self._state

    def say(self, state: str) -> None:
        """Shows another verdict."""
        self._state = state
        self.setAccessibleDescription(state)
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        metrics = QFontMetrics(self.font())
        wide = 2 * _SIDE if self._state in _SIGNS else 0
        return QSize(metrics.horizontalAdvance(badge_text(self._state)) + wide + 2, metrics.height() + 2 * _UP + 2)

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setFont(self.font())
        paint_badge(painter, QRectF(self.rect()), self._state)
