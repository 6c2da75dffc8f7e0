"""The cross-hair of a line chart: a line at one x, a dot on each curve near it, and their values in a box beside it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, Qt
from PySide6.QtGui import QColor

from llmlab_gui.charts.curve import drawn
from llmlab_gui.charts.read_out import ReadOut, ReadOutRow
from llmlab_gui.widgets.theme import Theme

if TYPE_CHECKING:
    from llmlab_gui.charts.line_chart import LineChart


class CrossHair:
    """Hidden until it is pointed somewhere. box: the values."""

    def __init__(self, chart: LineChart) -> None:
        self._chart = chart
        self._line = pg.InfiniteLine(angle=90, movable=False)
        self._line.setZValue(50)
        self._dots = pg.ScatterPlotItem(size=7)
        self._dots.setZValue(51)
        for item in (self._line, self._dots):
            item.hide()
            chart.getPlotItem().addItem(item, ignoreBounds=True)
        self.box = ReadOut(chart)

    @property
    def place(self) -> float:
        """Where it was last, in the plot's own coordinates."""
        return float(self._line.value())

    def point_at(self, x: float) -> None:
        """Shows what all curves are near `x`; NaN hides everything."""
        chart, view = self._chart, self._chart.getPlotItem().getViewBox()
        place = float(drawn(np.array([x]), chart.log_x)[0])
        (low, high), _ = view.viewRange()
        rows = []
        if math.isfinite(place) and low <= place <= high:
            nearest = ((curve.style, curve.nearest(x, chart.log_x)) for curve in chart.curves().values())
            rows = [ReadOutRow(style, *point) for style, point in nearest if point is not None]
        self._line.setVisible(bool(rows))
        self._dots.setVisible(bool(rows))
        if not rows:
            self.box.hide()
            return
        self._line.setPos(place)
        xs = drawn(np.array([row.x for row in rows]), chart.log_x)
        ys = drawn(np.array([row.y for row in rows]), chart.log_y)
        good = np.isfinite(xs) & np.isfinite(ys)
        brushes = [pg.mkBrush(row.style.color) for row, keep in zip(rows, good, strict=True) if keep]
        self._dots.setData(xs[good], ys[good], brush=brushes, pen=None)
        at = chart.mapFromScene(view.mapViewToScene(QPointF(place, 0.0))).x()
        self.box.show_rows(rows, x, chart.x_label, chart.x_kind, chart.y_kind, chart.y_unit, at)

    def apply_theme(self, theme: Theme) -> None:
        """Takes the theme's colours."""
        self._line.setPen(pg.mkPen(QColor(theme.quiet), style=Qt.PenStyle.DashLine))
        self.box.apply_theme(theme)
