"""A line chart by keyboard: arrows read it from point to point, Enter chooses one, + and - zoom, Home shows all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PySide6.QtCore import Qt
from PySide6.QtGui import QKeyEvent

if TYPE_CHECKING:
    from llmlab_gui.charts.line_chart import LineChart

_FINEST = 400  # a press goes to the next point, but at least this part of what is shown: a long run has more points
_PAGES = 10
_ZOOM = 2.0
_CLOSEST = 1e-9  # what is shown at least, as a part of where it is: floats have seven digits more
_MARGIN = 0.1  # of the width, beside a point that the view follows
_MOVES = {
    Qt.Key.Key_Left: -1 / _FINEST,
    Qt.Key.Key_Right: 1 / _FINEST,
    Qt.Key.Key_PageUp: -1 / _PAGES,
    Qt.Key.Key_PageDown: 1 / _PAGES,
}
_ZOOMS = {Qt.Key.Key_Plus: 1 / _ZOOM, Qt.Key.Key_Equal: 1 / _ZOOM, Qt.Key.Key_Minus: _ZOOM}


class LineKeys:
    """Knows which x the keys have come to. Places are x as it is drawn: its logarithm on such an axis."""

    def __init__(self, chart: LineChart) -> None:
        self._chart = chart
        self._at = math.nan

    def press(self, event: QKeyEvent) -> bool:
        """Does what a key asks for; False for one that asks for nothing here."""
        key = Qt.Key(event.key())
        if event.modifiers() & ~(Qt.KeyboardModifier.KeypadModifier | Qt.KeyboardModifier.ShiftModifier):
            return False
        if key in _MOVES:
            self._move(_MOVES[key])
        elif key in _ZOOMS:
            self._zoom(_ZOOMS[key])
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and math.isfinite(self._at):
            self._chart.chosen.emit(10.0**self._at if self._chart.log_x else self._at)
        elif key == Qt.Key.Key_Home:
            self._chart.show_whole()
        else:
            return False
        return True

    def leave(self) -> None:
        """The keyboard went elsewhere."""
        if math.isfinite(self._at):  # else the mouse may be there
            self._at = math.nan
            self._chart.pointed.emit(math.nan)

    def _move(self, share: float) -> None:
        """To the nearest point that is so much of the view further; the first time from the view's end."""
        low, high = self._shown()
        if not low <= self._at <= high:
            self._at = low if share > 0 else high
        at = self._next(self._at + share * (high - low), forward=share > 0)
        if math.isnan(at):
            return
        self._at = at
        if not low <= at <= high:
            first = at - (1 - _MARGIN if at > high else _MARGIN) * (high - low)
            self._chart.look_at(first, first + high - low)
        self._chart.pointed.emit(10.0**at if self._chart.log_x else at)

    def _shown(self) -> tuple[float, float]:
        low, high = self._chart.getPlotItem().getViewBox().viewRange()[0]
        return float(low), float(high)

    def _next(self, bound: float, *, forward: bool) -> float:
        """The place of the first point from `bound` on, of all curves; else of the last one there is."""
        value = 10.0 ** min(bound, 300.0) if self._chart.log_x else bound
        found: list[float] = []
        ends: list[float] = []
        for curve in self._chart.curves().values():
            points = curve.x[int(np.searchsorted(curve.x, 0.0, side="right")) :] if self._chart.log_x else curve.x
            if len(points):
                at = int(
                    np.searchsorted(points, value) if forward else np.searchsorted(points, value, side="right") - 1
                )
                ends.append(float(points[-1] if forward else points[0]))
                found += [float(points[at])] if 0 <= at < len(points) else []
        if not ends:
            return math.nan
        nearest, furthest = (min, max) if forward else (max, min)
        x = float(nearest(found) if found else furthest(ends))
        return math.log10(x) if self._chart.log_x else x

    def _zoom(self, factor: float) -> None:
        """Around what is read, or the middle; no further out than all there is."""
        low, high = self._shown()
        whole_low, whole_high = self._chart.whole_x()
        if (high - low) * factor >= whole_high - whole_low:
            self._chart.show_whole()
            return
        if (high - low) * factor < _CLOSEST * max(abs(low), abs(high)):
            return
        center = self._at if low <= self._at <= high else (low + high) / 2
        self._chart.look_at(center - (center - low) * factor, center + (high - center) * factor)
