"""Signed bars in groups: what each part of a model adds, above or below zero.

Painted: as items of pyqtgraph, the same bars take 14 to 19 ms to show in place of 2 to 4 (4 to 48 layers), and a film
shows others at every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from PySide6.QtCore import QEvent, QPoint, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QContextMenuEvent,
    QFont,
    QHelpEvent,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
)
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from llmlab.core.signs import minus
from llmlab_gui.charts.axes import round_step
from llmlab_gui.widgets.alternatives import plain_tip
from llmlab_gui.widgets.numbers import exact, ticks
from llmlab_gui.widgets.theme import current_theme, mix, theme_notifier

_LEFT, _RIGHT, _GAP = 58, 10, 6  # pixels beside the bars, and between lines of text
_UNIT_LEFT, _SERIES_SIGN = 8, 26  # pixels before the unit; beside the name of a kind of bar
_MOST_TICKS = 6
_WIDEST_BAR = 46
_SMALLEST_GROUP = 3


@dataclass(frozen=True)
class Bar:
    """One bar. series: its place in the chart's series. tip: the hover's words, in full; "" for label and value."""

    value: float
    series: int
    tip: str = ""


@dataclass(frozen=True)
class BarGroup:
    """Bars that stand together under one label. apart: a gap before it, as before a sum."""

    label: str
    bars: tuple[Bar, ...]
    apart: bool = False


@dataclass(frozen=True)
class Series:
    """A kind of bar: its name in the legend, and its colour's place among the theme's series; -1 for the text's."""

    name: str
    color: int


@dataclass(frozen=True)
class Bars:
    """All of a chart: plot-ready, knows no model. unit: what the values are; across: what the groups are."""

    groups: tuple[BarGroup, ...] = ()
    series: tuple[Series, ...] = ()
    unit: str = ""
    across: str = ""


class BarChart(QWidget):
    """Draws `Bars`. `clicked(group, bar)`: places of a bar that was clicked, or chosen by arrow keys and Enter."""

    clicked = Signal(int, int)
    pointed = Signal(int)  # group under the mouse, -1 for none
    asked = Signal(int, int, QPoint)  # a right click, or the menu key: group, bar, place on the screen

    def __init__(self, name: str) -> None:
        super().__init__()
        self.bars = Bars()
        self.chosen = -1  # the marked group; -1 for none
        self._pointed = (-1, -1)
        self._places: list[list[QRectF]] = []  # of each bar, from the top of the plot to its bottom
        self.setAccessibleName(name)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        theme_notifier.changed.connect(self.update)

    def show_bars(self, bars: Bars, chosen: int = -1) -> None:
        """Replaces everything. chosen: the group that is marked, -1 for none."""
        self.bars, self.chosen, self._pointed = bars, chosen, (-1, -1)
        self._place()
        self.setAccessibleDescription(f"{len(bars.groups)} groups, {bars.unit}")
        self.update()

    def choose(self, group: int) -> None:
        """Marks a group, -1 for none."""
        if group != self.chosen:
            self.chosen = group
            self.update()

    def bar_at(self, point: QPoint | QPointF) -> tuple[int, int]:
        """Group and place of the bar whose column is under a point; (-1, -1) for none."""
        where = QPointF(point)
        for number, places in enumerate(self._places):
            for place, rect in enumerate(places):
                if rect.contains(where):
                    return number, place
        return -1, -1

    def center_of(self, group: int, bar: int) -> QPoint:
        """The middle of a bar's column."""
        return self._places[group][bar].center().toPoint()

    def tip(self, group: int, bar: int) -> str:
        """What hovering a bar says."""
        chosen = self.bars.groups[group]
        value = chosen.bars[bar]
        name = self.bars.series[value.series].name
        return value.tip or f"{chosen.label}, {name}: {exact(value.value)} {self.bars.unit}".rstrip()

    def sizeHint(self) -> QSize:
        return QSize(420, 200)

    def minimumSizeHint(self) -> QSize:
        return QSize(160, 96)

    # Mouse and keys --------------------------------------------------------------------------------------------

    def resizeEvent(self, event: object) -> None:
        self._place()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        found = self.bar_at(event.position())
        if found != self._pointed:
            self._pointed = found
            self.pointed.emit(found[0])
            tip = plain_tip(self.tip(*found)) if found[0] >= 0 else ""  # which hides it
            QToolTip.showText(event.globalPosition().toPoint(), tip, self)
            self.update()

    def leaveEvent(self, event: QEvent) -> None:
        self._pointed = (-1, -1)
        self.pointed.emit(-1)
        self.update()

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent):  # the pointer rests: its words again
            found = self.bar_at(event.pos())
            if found[0] >= 0:
                QToolTip.showText(event.globalPos(), plain_tip(self.tip(*found)), self)
                return True
        return super().event(event)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        found = self.bar_at(event.position())
        if event.button() == Qt.MouseButton.LeftButton and found[0] >= 0:
            self.clicked.emit(*found)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        event.accept()

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        by_key = event.reason() == QContextMenuEvent.Reason.Keyboard
        found = self._pointed if by_key else self.bar_at(event.pos())
        if found[0] >= 0:
            self.asked.emit(*found, self.mapToGlobal(self.center_of(*found)) if by_key else event.globalPos())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        flat = [(g, b) for g, group in enumerate(self.bars.groups) for b in range(len(group.bars))]
        steps = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}
        if event.key() in steps and flat:
            at = flat.index(self._pointed) if self._pointed in flat else (-1 if event.key() == Qt.Key.Key_Right else 0)
            self._pointed = flat[(at + steps[Qt.Key(event.key())]) % len(flat)]
            self.pointed.emit(self._pointed[0])
            place = self.center_of(*self._pointed)
            QToolTip.showText(self.mapToGlobal(place), plain_tip(self.tip(*self._pointed)), self)
            self.update()
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space) and self._pointed in flat:
            self.clicked.emit(*self._pointed)
        else:
            super().keyPressEvent(event)

    # Drawing ---------------------------------------------------------------------------------------------------

    def _plot(self) -> QRectF:
        line = self.fontMetrics().height()
        above = (line + 2) * max(1, len(self._legend()))
        return QRectF(self.rect()).adjusted(_LEFT, above + _GAP + 2, -_RIGHT, -line - _GAP)

    def _legend(self) -> list[list[Series]]:
        """The kinds of bars by lines above the plot; in the first one beside the unit all, or none without room."""
        width, series = self.fontMetrics().horizontalAdvance, self.bars.series
        room = self.width() - _RIGHT - _UNIT_LEFT
        if width(self.bars.unit) + sum(width(one.name) + _SERIES_SIGN for one in series) <= room:
            return [list(series)]
        rows: list[list[Series]] = [[]] if self.bars.unit else []
        left = 0
        for one in series:
            left -= width(one.name) + _SERIES_SIGN
            if left < 0:
                rows.append([])
                left = room - width(one.name) - _SERIES_SIGN
            rows[-1].append(one)
        return rows

    def _place(self) -> None:
        """Where each bar's column is."""
        plot, groups = self._plot(), self.bars.groups
        slots = len(groups) + 0.5 * sum(group.apart for group in groups)
        self._places = []
        if not slots:
            return
        width = max(plot.width() / slots, _SMALLEST_GROUP)
        left = plot.left()
        for group in groups:
            left += width / 2 if group.apart else 0.0
            inside = width * (0.84 if width > 8 else 1.0)
            each = min(inside / max(1, len(group.bars)), _WIDEST_BAR)
            first = left + (width - each * len(group.bars)) / 2
            self._places.append(
                [QRectF(first + each * place, plot.top(), each, plot.height()) for place in range(len(group.bars))]
            )
            left += width

    def _range(self) -> tuple[float, float]:
        values = [bar.value for group in self.bars.groups for bar in group.bars if math.isfinite(bar.value)]
        low, high = min([0.0, *values]), max([0.0, *values])
        if low == high:
            high = low + 1.0
        # Above and below: the number that stands at a bar's end.
        room = (high - low) * min(0.3, (self.fontMetrics().height() + 4) / max(1.0, self._plot().height()))
        return low - (room if low < 0 else 0.0), high + (room if high > 0 else 0.0)

    def paintEvent(self, event: QPaintEvent) -> None:
        with QPainter(self) as painter:
            self.paint(painter)

    def paint(self, painter: QPainter) -> None:
        """All of it, on any device."""
        theme, plot = current_theme(), self._plot()
        painter.fillRect(self.rect(), QColor(theme.surface))
        low, high = self._range()

        def height(value: float) -> float:
            return plot.bottom() - (value - low) / (high - low) * plot.height()

        self._paint_axis(painter, plot, low, high)
        self._paint_legend(painter, plot)
        colors = [QColor(theme.text if s.color < 0 else theme.series[s.color]) for s in self.bars.series]
        zero = height(0.0)
        for number, (group, places) in enumerate(zip(self.bars.groups, self._places, strict=True)):
            if number == self.chosen and places:
                column = QRectF(
                    places[0].left() - 2, plot.top(), places[-1].right() - places[0].left() + 4, plot.height()
                )
                painter.fillRect(column, mix(theme.surface, theme.accent, 0.16))
            for place, (bar, rect) in enumerate(zip(group.bars, places, strict=True)):
                if not math.isfinite(bar.value):
                    continue
                top = height(bar.value)
                color = colors[bar.series]
                if (number, place) == self._pointed:
                    painter.fillRect(rect, mix(theme.surface, theme.text, 0.08))
                    color = mix(color, theme.text, 0.25)
                gap = 1.0 if rect.width() > 5 else 0.0
                solid = QRectF(rect.left() + gap / 2, min(top, zero), rect.width() - gap, max(1.0, abs(top - zero)))
                painter.fillRect(solid, color)
                self._paint_value(painter, bar, rect, top, plot)
        painter.setPen(QPen(QColor(theme.quiet), 1))
        painter.drawLine(QPointF(plot.left(), zero), QPointF(plot.right(), zero))
        self._paint_labels(painter, plot)
        painter.setPen(QColor(theme.quiet))
        before = QRectF(0, plot.bottom() + 3, _LEFT - 6, self.fontMetrics().height())
        painter.drawText(before, _RIGHT_ALIGNED, self.bars.across)

    def _paint_value(self, painter: QPainter, bar: Bar, rect: QRectF, top: float, plot: QRectF) -> None:
        """The number at the bar's end, where there is room for it."""
        text = minus(f"{bar.value:.3g}")
        metrics = self.fontMetrics()
        if metrics.horizontalAdvance(text) > rect.width() + 2:
            return
        upwards = bar.value >= 0
        y = top - metrics.height() if upwards else top
        y = min(max(y, plot.top() - metrics.height() / 2), plot.bottom() - metrics.height())
        painter.setPen(QColor(current_theme().text))
        painter.drawText(QRectF(rect.left() - 20, y, rect.width() + 40, metrics.height()), _CENTER, text)

    def _paint_axis(self, painter: QPainter, plot: QRectF, low: float, high: float) -> None:
        theme, metrics = current_theme(), self.fontMetrics()
        step = round_step((high - low) / max(2, min(_MOST_TICKS, plot.height() / 34)))
        shown = [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
        for value, text in zip(shown, ticks(shown, step, "value"), strict=True):
            y = plot.bottom() - (value - low) / (high - low) * plot.height()
            painter.setPen(QColor(theme.grid))
            painter.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y))
            painter.setPen(QColor(theme.quiet))
            place = QRectF(0, y - metrics.height() / 2, _LEFT - 6, metrics.height())
            painter.drawText(place, _RIGHT_ALIGNED, text)

    def _paint_legend(self, painter: QPainter, plot: QRectF) -> None:
        """The unit on the left, the kinds of bars on the right or in lines of their own, above the plot."""
        theme, metrics = current_theme(), self.fontMetrics()
        height, beside, rows = metrics.height(), plot.right(), self._legend()
        for number, row in enumerate(rows):
            top, right = 2 + number * (height + 2), plot.right()
            for series in reversed(row):
                width = metrics.horizontalAdvance(series.name)
                painter.setPen(QColor(theme.text))
                painter.drawText(QRectF(right - width, top, width + 1, height), _LEFT_ALIGNED, series.name)
                color = QColor(theme.text if series.color < 0 else theme.series[series.color])
                painter.fillRect(QRectF(right - width - 14, top + height / 2 - 5, 10, 10), color)
                right -= width + _SERIES_SIGN
            beside = right if number == 0 else beside
        painter.setPen(QColor(theme.quiet))
        room = QRectF(_UNIT_LEFT, 2, max(0.0, beside - _UNIT_LEFT), height)
        painter.drawText(room, _LEFT_ALIGNED, metrics.elidedText(self.bars.unit, _ELIDE, int(room.width())))

    def _paint_labels(self, painter: QPainter, plot: QRectF) -> None:
        """Under the groups; as many as fit, and always those that stand apart."""
        theme, metrics = current_theme(), self.fontMetrics()
        centers = [(places[0].left() + places[-1].right()) / 2 if places else 0.0 for places in self._places]
        taken: list[tuple[float, float]] = []
        groups = self.bars.groups
        order = sorted(
            range(len(centers)), key=lambda n: (n != self.chosen, not groups[n].apart, groups[n].label.isdecimal(), n)
        )
        every = self._every(centers)
        for number in order:
            group = self.bars.groups[number]
            # Whole numbers are thinned (0, 2, 4, ...), names are not.
            if group.label.isdecimal() and number != self.chosen and int(group.label) % every:
                continue
            width = metrics.horizontalAdvance(group.label)
            left = min(max(centers[number] - width / 2, plot.left()), self.width() - width - 2)
            if any(left < end + 4 and left + width > start - 4 for start, end in taken):
                continue
            taken.append((left, left + width))
            font = QFont(self.font())
            font.setBold(number == self.chosen)
            painter.setFont(font)
            painter.setPen(QColor(theme.text if number == self.chosen else theme.quiet))
            painter.drawText(QRectF(left - 4, plot.bottom() + 3, width + 8, metrics.height()), _CENTER, group.label)
        painter.setFont(self.font())

    def _every(self, centers: list[float]) -> int:
        """Label each, each second, each fifth ... so that they do not touch."""
        plain = [group.label for group in self.bars.groups if not group.apart]
        if len(plain) < 2 or len(centers) < 2:
            return 1
        widest = max(self.fontMetrics().horizontalAdvance(label) for label in plain) + 8
        distance = abs(centers[-1] - centers[0]) / (len(centers) - 1) or 1.0
        return next((step for step in (1, 2, 5, 10, 20, 50, 100) if step * distance >= widest), 200)


_CENTER = Qt.AlignmentFlag.AlignCenter
_LEFT_ALIGNED = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
_RIGHT_ALIGNED = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_ELIDE = Qt.TextElideMode.ElideRight
