"""A finished comparison as a picture: measured points with their errors, fits with their bands, named places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor

from llmlab.studies.experiments.outcomes import Chart, Curve, Fit, Mark
from llmlab_gui.charts.color_scale import curve_colors
from llmlab_gui.charts.figure_chart import BAND_ALPHA, SYMBOLS, FigureChart, Line, axis_kind, floats
from llmlab_gui.widgets.numbers import read_out
from llmlab_gui.widgets.saving import Cell
from llmlab_gui.widgets.theme import current_theme, faded

_MOST_IN_LEGEND = 9
_MOST_MARKERS = 60  # of a curve
_FAINT = 0.43  # alpha
_RISEN = 0.5  # nats above its start: what counts as diverged (llmlab.studies.plans.records.DivergenceRule)


@dataclass(frozen=True)
class Expected:
    """What someone expected, on one of the axes: from low to high, or one place where they are equal."""

    on_x: bool
    low: float
    high: float
    label: str


class ResultChart(FigureChart):
    """Draws one `llmlab.studies.experiments.outcomes.Chart`. Hovering a point says what it is."""

    def __init__(self, name: str) -> None:
        self.chart: Chart | None = None
        self.expected: list[Expected] = []
        super().__init__(name)

    def show_chart(self, chart: Chart | None, expected: Sequence[Expected] = ()) -> None:
        """Replaces everything; another chart than before begins with the axes that it asks for."""
        self.chart, self.expected = chart, list(expected)
        self.begin_chart(chart)

    def table(self) -> tuple[Sequence[str], Sequence[Sequence[Cell]]]:
        """Header and rows of all that is drawn, at full precision."""
        header = ("chart", "kind", "curve", "x", "y", "low", "high", "runs", "label")
        rows: list[Sequence[Cell]] = []
        chart = self.chart
        if chart is None:
            return header, rows
        for curve in chart.curves:
            for p in curve.points:
                rows.append(
                    (chart.name, "measured", curve.name, p.x, p.y, _number(p.low), _number(p.high), p.runs, p.label)
                )
        for fit in chart.fits:
            lows, highs = fit.low or [math.nan] * len(fit.x), fit.high or [math.nan] * len(fit.x)
            for x, y, low, high in zip(fit.x, fit.y, lows, highs, strict=False):
                rows.append((chart.name, "fit", fit.name, x, y, low, high, 0, fit.formula))
        for one in self.expected:
            axes = (one.low, math.nan) if one.on_x else (math.nan, one.low)
            rows.append((chart.name, "expected", "", *axes, one.low, one.high, 0, one.label))
        rows += [(chart.name, "mark", "", mark.x, math.nan, math.nan, math.nan, 0, mark.label) for mark in chart.marks]
        return header, rows

    # Drawing ---------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        chart, theme = self.chart, current_theme()
        assert chart is not None
        clear = [curve for curve in chart.curves if not curve.faint]
        colors = curve_colors([curve.name for curve in clear])
        by_name = {curve.name: color for curve, color in zip(clear, colors, strict=True)}
        for fit in chart.fits:
            self._draw_fit(fit, by_name.get(fit.name, QColor(theme.accent)))
        for number, curve in enumerate(chart.curves):
            color = by_name[curve.name] if not curve.faint else QColor(theme.quiet)
            self._draw_curve(curve, color, SYMBOLS[number % len(SYMBOLS)])
        for mark in chart.marks:
            self._draw_mark(mark)
        for expected in self.expected:
            self._draw_expected(expected)

    def _seen(self) -> Line:
        chart = self.chart
        assert chart is not None
        points = [point for curve in chart.curves for point in curve.points]
        x = [p.x for p in points] + [x for fit in chart.fits for x in fit.x] + [mark.x for mark in chart.marks]
        y = [p.y for p in points] + [y for fit in chart.fits for y in (*fit.y, *fit.low, *fit.high)]
        x += [edge for one in self.expected if one.on_x for edge in (one.low, one.high)]
        y += [edge for one in self.expected if not one.on_x for edge in (one.low, one.high)]
        y += [edge for p in points for edge in (p.low, p.high) if edge is not None]
        top = _ceiling(chart)
        return floats(x), floats(y if top is None else (min(value, top) for value in y))

    @property
    def _named(self) -> bool:
        """Whether there is more than one thing to tell apart."""
        return self.chart is not None and len(self.chart.curves) + len(self.chart.fits) > 1

    def _draw_curve(self, curve: Curve, color: QColor, symbol: str) -> None:
        x, y = floats(p.x for p in curve.points), floats(p.y for p in curve.points)
        shown = faded(color, _FAINT if curve.faint else 1.0)
        mark = symbol if len(x) <= _MOST_MARKERS else None
        item = self._draw_marked(x, y, shown, mark, size=6 if curve.faint else 9, line=curve.line)
        if curve.faint:
            item.setZValue(5)
        low, high = floats(p.low for p in curve.points), floats(p.high for p in curve.points)
        self._draw_errors(x, y, low, high, shown)
        if curve.name and self._named and len(self.legend.names) < _MOST_IN_LEGEND:
            self.legend.add(item, curve.name)
        self._spots.append((x, y))

    def _draw_fit(self, fit: Fit, color: QColor) -> None:
        x = floats(fit.x)
        line = pg.PlotDataItem(
            self.across(x),
            self.up(floats(fit.y)),
            pen=pg.mkPen(color, width=1.6, style=Qt.PenStyle.DashLine),
            connect="finite",
            antialias=True,
        )
        line.setZValue(3)
        self._add(line)
        if self._named:
            self.legend.add(line, " ".join(part for part in (fit.name, fit.formula) if part))
        if fit.low and fit.high and len(fit.low) == len(fit.x):
            self._draw_band(x, floats(fit.low), floats(fit.high), color)

    def _draw_mark(self, mark: Mark) -> None:
        place = float(self.across(np.array([mark.x]))[0])
        if not math.isfinite(place):
            return
        quiet = QColor(current_theme().quiet)
        options = {"position": 0.06, "anchors": [(0, 1), (1, 1)], "color": quiet, "movable": False}
        line = pg.InfiniteLine(
            place,
            angle=90,
            movable=False,
            pen=pg.mkPen(quiet, style=Qt.PenStyle.DotLine),
            label=mark.label,
            labelOpts=options,
        )
        line.setZValue(-5)
        self._add(line)

    def _draw_expected(self, expected: Expected) -> None:
        low, high = (self.across if expected.on_x else self.up)(floats([expected.low, expected.high]))
        if not (math.isfinite(low) and math.isfinite(high)):
            return
        color = QColor(current_theme().warning)
        pen = pg.mkPen(color, width=1.5, style=Qt.PenStyle.DotLine if high > low else Qt.PenStyle.DashLine)
        if high > low:
            region = pg.LinearRegionItem(
                (low, high),
                orientation="vertical" if expected.on_x else "horizontal",
                movable=False,
                brush=pg.mkBrush(faded(color, BAND_ALPHA / 2)),
                pen=pen,
            )
            region.setZValue(-15)
            self._add(region)
        else:
            line = pg.InfiniteLine(low, angle=90 if expected.on_x else 0, movable=False, pen=pen)
            line.setZValue(-4)
            self._add(line)
        self.legend.add(pg.PlotDataItem([], [], pen=pen), expected.label)

    def _tip(self, line: int, place: int) -> str:
        chart = self.chart
        assert chart is not None
        curve = chart.curves[line]
        point = curve.points[place]
        lines = [part for part in (curve.name, point.label) if part]
        for axis, value in ((chart.x_axis, point.x), (chart.y_axis, point.y)):
            lines.append(f"{axis.label} {read_out(value, axis_kind(axis))}")
        if point.low is not None and point.high is not None:
            lines[-1] += f" ± {(point.high - point.low) / 2:.2g}"
        if point.runs > 1:
            lines.append(f"mean of {point.runs} runs, one standard error to each side")
        return "\n".join(lines)


def _ceiling(chart: Chart) -> float | None:
    """Of losses along training: the start of those that ended above it, and all of the others; None for no limit."""
    if chart.x_axis.unit != "steps":
        return None
    rising = [c for c in chart.curves if len(c.points) > 1 and c.points[-1].y > c.points[0].y + _RISEN]
    others = [p.y for c in chart.curves if c not in rising for p in c.points]
    return max([*others, *(c.points[0].y for c in rising)]) if rising and others else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
