"""The cross-hair of a line chart: a line at one x, a dot on each curve near it, and their values in a box beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QLabel, QWidget

from llmlab_gui.charts.curve import CurveStyle, drawn
from llmlab_gui.widgets.numbers import read_out
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


_GAP = 14  # pixels between the cross-hair and the box


@dataclass(frozen=True)
class ReadOutRow:
    """One curve's nearest point."""

    style: CurveStyle
    x: float
    y: float


class ReadOut(QLabel):
    """Lies over a chart and lets the mouse through."""

    def __init__(self, chart: QWidget) -> None:
        super().__init__(chart)
        self._chart = chart
        self.setTextFormat(Qt.TextFormat.RichText)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setObjectName("readOut")
        self.hide()

    def show_rows(
        self, rows: list[ReadOutRow], x: float, x_label: str, x_kind: str, y_kind: str, y_unit: str, at: float
    ) -> None:
        """Writes the rows, grouped by run, beside the place `at` (pixels from the chart's left edge)."""
        # Percentages have their sign already, and a long unit is on the axis.
        unit = f" {y_unit}" if y_unit and y_kind != "percent" and len(y_unit) < 10 else ""
        lines = [f"<tr><td colspan=3><b>{escape(x_label)} {read_out(x, x_kind)}</b></td></tr>"]
        group = None
        several = len({row.style.group for row in rows}) > 1
        for row in rows:
            if several and row.style.minor:
                continue
            if several and row.style.group != group:
                group = row.style.group
                lines.append(f"<tr><td colspan=3>{escape(group)}</td></tr>")
            # Evaluations are far apart: say where the value was measured when that is not here.
            away = f" at {read_out(row.x, x_kind)}" if read_out(row.x, x_kind) != read_out(x, x_kind) else ""
            away = away if row.style.markers else ""
            lines.append(
                f'<tr><td><span style="color:{row.style.color.name()}">●</span></td>'
                f"<td>{escape(row.style.label)}&nbsp;</td>"
                f'<td align="right">{read_out(row.y, y_kind)}{unit}{away}</td></tr>'
            )
        self.setText(f"<table cellspacing=0 cellpadding=1>{''.join(lines)}</table>")
        self.adjustSize()
        left = at + _GAP
        if left + self.width() > self._chart.width():
            left = at - _GAP - self.width()
        self.move(int(max(0.0, left)), 10)
        self.show()

    def apply_theme(self, theme: Theme) -> None:
        self.setStyleSheet(
            f"#readOut {{ background: {theme.background}; color: {theme.text}; border: 1px solid {theme.grid};"
            " border-radius: 4px; padding: 4px; }"
        )
