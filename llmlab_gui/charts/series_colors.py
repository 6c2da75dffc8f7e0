"""Colours of several curves in one chart: in an order that the eye sees, or as different as can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PySide6.QtGui import QColor

from llmlab_gui.charts.color_scale import ColorScale, one_sided
from llmlab_gui.widgets.theme import current_theme

# The part of viridis that a thin line is seen in: its yellow end is too near to white, its violet one to black.
_ON_LIGHT, _ON_DARK = (0.0, 0.82), (0.32, 1.0)


def sequence_colors(count: int) -> list[QColor]:
    """`count` colours in an order that the eye sees: from little to much."""
    low, high = _ON_DARK if QColor(current_theme().surface).lightnessF() < 0.5 else _ON_LIGHT
    scale = one_sided(0.0, 1.0)
    return [scale.color(low + (high - low) * (i / (count - 1) if count > 1 else 0.5)) for i in range(count)]


def seen_part(scale: ColorScale) -> ColorScale:
    """The scale with only those of its colours that small points are seen in on the panel's ground."""
    low, high = _ON_DARK if QColor(current_theme().surface).lightnessF() < 0.5 else _ON_LIGHT
    last = len(scale.table) - 1
    return replace(scale, table=scale.table[np.linspace(low * last, high * last, last + 1).astype(np.intp)])


def series_color(number: int) -> QColor:
    """The colour of one of a few things that have no order."""
    series = current_theme().series
    return QColor(series[number % len(series)])
