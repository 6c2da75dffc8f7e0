"""Colours of several curves in one chart: in an order that the eye sees, or as different as can be."""

from __future__ import annotations

from PySide6.QtGui import QColor

from llmlab_gui.charts.heat_colors import ground_table
from llmlab_gui.theme import current_theme

# Where on the way from the panel's ground to the far end the first and the last value lie: the first is to be seen too.
_FIRST, _LAST = 0.38, 0.96


def sequence_colors(count: int) -> list[QColor]:
    """`count` colours in an order that the eye sees: from near the ground to far from it."""
    table = ground_table(current_theme())
    places = [_FIRST + (_LAST - _FIRST) * (i / (count - 1) if count > 1 else 0.5) for i in range(count)]
    return [QColor(*(int(part) for part in table[round(place * (len(table) - 1))])) for place in places]


def series_color(number: int) -> QColor:
    """The colour of one of a few things that have no order."""
    series = current_theme().series
    return QColor(series[number % len(series)])
