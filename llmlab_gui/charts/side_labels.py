"""Names beside the rows and above the columns of a map: as many as can be read, and always those that matter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QPainter, QPen

from llmlab_gui.charts.heat_view import HeatView
from llmlab_gui.widgets.theme import current_theme

_GAP = 5.0
_GAP_MARK = 4.0  # pixels of the line between two labels, where others are left out
_LEAST_ROOM = 26.0
_BOLD = 1.12  # as wide as marked names are
# Names beyond these are not measured: they are cut to the room anyway.
_MEASURED = 400


def room_for(metrics: QFontMetricsF, names: Sequence[str], most: float) -> float:
    """Pixels that the names need, within reason."""
    return min(max(_widest(metrics, names) + 2 * _GAP, _LEAST_ROOM), max(most, _LEAST_ROOM))


def paint_rows(painter: QPainter, view: HeatView, names: Sequence[str], marked: Collection[int]) -> None:
    """Right-aligned, to the left of the map."""
    metrics = QFontMetricsF(painter.font())
    room = QRectF(0, 0, view.shown.left() - _GAP, metrics.height())
    how = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
    shown = spaced(view.rows(), view.cell_height, metrics.height() * 0.92, marked)
    left = view.shown.left() - _GAP
    for gap in _gaps(shown):
        middle = view.rect(0, view.columns().start).center().y() + gap * view.cell_height
        _mark_gap(painter, QPointF(left, middle), QPointF(left - _GAP_MARK, middle))
    for place in shown:
        middle = view.rect(place, view.columns().start).center().y()
        _label(painter, room.translated(0, middle - metrics.height() / 2), names[place], how, place in marked)


def paint_columns(painter: QPainter, view: HeatView, names: Sequence[str], marked: Collection[int]) -> None:
    """Above the map; where their columns are narrower than the names, turned to be read from below."""
    metrics = QFontMetricsF(painter.font())
    if _widest(metrics, names) <= view.cell_width:
        centred = Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignVCenter
        for place in view.columns():
            left = view.rect(view.rows().start, place).left()
            room = QRectF(left, view.shown.top() - _GAP - metrics.height(), view.cell_width, metrics.height())
            _label(painter, room, names[place], centred, place in marked)
        return
    how = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
    shown = spaced(view.columns(), view.cell_width, metrics.height() * 0.92, marked)
    foot = view.shown.top() - _GAP
    for gap in _gaps(shown):
        middle = view.rect(view.rows().start, 0).center().x() + gap * view.cell_width
        _mark_gap(painter, QPointF(middle, foot), QPointF(middle, foot - _GAP_MARK))
    for place in shown:
        middle = view.rect(view.rows().start, place).center().x()
        painter.save()
        painter.translate(middle, view.shown.top() - _GAP)
        painter.rotate(-90)
        room = QRectF(0, -metrics.height() / 2, view.shown.top() - _GAP, metrics.height())
        _label(painter, room, names[place], how, place in marked)
        painter.restore()


def paint_names(painter: QPainter, view: HeatView, rows: str, columns: str, room: float) -> None:
    """What the rows and the columns are: above the names of the rows, and behind those of the columns, where there are
    so many pixels."""
    metrics = QFontMetricsF(painter.font())
    top, ends = view.shown.top() - _GAP - metrics.height(), (view.shown.left() - _GAP, view.shown.right() + _GAP)
    painter.setPen(QColor(current_theme().quiet))
    for name, left, width, side in (
        (rows, 0.0, ends[0], Qt.AlignmentFlag.AlignRight),
        (columns, ends[1], room - _GAP, Qt.AlignmentFlag.AlignLeft),
    ):
        if metrics.horizontalAdvance(name) <= width:
            painter.drawText(QRectF(left, top, width, metrics.height()), side | Qt.AlignmentFlag.AlignVCenter, name)


def _widest(metrics: QFontMetricsF, names: Sequence[str]) -> float:
    """Pixels of the longest name, where it is marked."""
    step = max(1, len(names) // _MEASURED)
    return _BOLD * max((metrics.horizontalAdvance(name) for name in names[::step]), default=0.0)


def spaced(places: range, cell: float, line: float, marked: Collection[int]) -> list[int]:
    """Places that have room for a label: every so many, without those that a marked one would touch, which has one."""
    every = max(1, -int(-line // max(cell, 1e-6)))
    if every > 10:  # numbers that are read at a glance: 20, 50, 100
        ten = 10 ** (len(str(every)) - 1)
        every = next(one * ten for one in (1, 2, 5, 10) if one * ten >= every)
    shown = [place for place in marked if place in places]
    free = [
        place
        for place in places
        if place % every == 0 and all(place == mark or abs(place - mark) * cell >= line for mark in shown)
    ]
    return sorted({*free, *shown})


def _gaps(shown: Sequence[int]) -> list[float]:
    """The middles between labels where others are left out: letters side by side would read as a word."""
    return [(before + after) / 2 for before, after in pairwise(shown) if after - before > 1]


def _mark_gap(painter: QPainter, start: QPointF, end: QPointF) -> None:
    painter.save()
    painter.setPen(QPen(QColor(current_theme().quiet), 1))
    painter.drawLine(start, end)
    painter.restore()


def _label(painter: QPainter, room: QRectF, text: str, how: Qt.AlignmentFlag, marked: bool) -> None:
    theme = current_theme()
    font = QFont(painter.font())
    font.setBold(marked)
    painter.save()
    painter.setFont(font)
    painter.setPen(QColor(theme.accent if marked else theme.text))
    shown = QFontMetricsF(font).elidedText(text, Qt.TextElideMode.ElideRight, room.width())
    painter.drawText(room, how, shown)
    painter.restore()
