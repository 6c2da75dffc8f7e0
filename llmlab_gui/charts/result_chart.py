"""A finished comparison as a picture: measured points with their errors, fits with their bands, named places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, QSize, Qt
from PySide6.QtGui import QColor, QMouseEvent
from PySide6.QtWidgets import QToolTip, QWidget

from llmlab.experiments.outcomes import Chart, Curve, Fit, Mark, Point
from llmlab.experiments.records import Axis
from llmlab_gui.charts.axes import NumberAxis
from llmlab_gui.charts.curve import drawn
from llmlab_gui.charts.legend_corner import emptiest_corner
from llmlab_gui.charts.numbers import read_out
from llmlab_gui.charts.picture import Cell
from llmlab_gui.charts.series_colors import sequence_colors, series_color
from llmlab_gui.theme import current_theme, theme_notifier

_NEAR = 14.0  # pixels: how close the mouse has to come to a point
_FEW = 4  # curves that are told apart by hue; more have an order, and its colours
_SYMBOLS = ("o", "s", "t", "d", "t1", "p", "h", "star")
_MOST_IN_LEGEND = 9
_BAND_ALPHA, _FAINT_ALPHA = 46, 110
_MARGIN = 0.06  # of what is shown, around it
_RISEN = 0.5  # nats above its start: what counts as diverged (llmlab.experiments.records.DivergenceRule)
_COUNTED = ("steps", "tokens", "windows", "layers", "runs", "numbers a token")


@dataclass(frozen=True)
class Expected:
    """What someone expected, on one of the axes: from low to high, or one place where they are equal."""

    on_x: bool
    low: float
    high: float
    label: str


class ResultChart(pg.PlotWidget):
    """Draws one `llmlab.experiments.outcomes.Chart`. Hovering a point says what it is."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        self._axes = {"bottom": NumberAxis("bottom"), "left": NumberAxis("left")}
        super().__init__(parent, axisItems=self._axes)
        self.chart: Chart | None = None
        self.expected: list[Expected] = []
        self.log_x = self.log_y = False
        self._places: list[tuple[Curve, Point]] = []
        self._under = -1
        self.setAccessibleName(name)
        plot = self.getPlotItem()
        plot.setMenuEnabled(False)
        plot.hideButtons()
        plot.setContentsMargins(0, 6, 10, 0)
        self._axes["left"].setWidth(66)
        self._view: pg.ViewBox = plot.getViewBox()
        self._view.disableAutoRange()
        self._legend = plot.addLegend(offset=(-12, 8), labelTextSize="9pt", verSpacing=-4)
        self._items: list[pg.GraphicsObject] = []
        self.viewport().setMouseTracking(True)
        theme_notifier.changed.connect(self.redraw)
        self.redraw()

    def show_chart(self, chart: Chart | None, expected: Sequence[Expected] = ()) -> None:
        """Replaces everything; another chart than before begins with the axes that it asks for."""
        fresh = chart is not None and (self.chart is None or self.chart.name != chart.name)
        self.chart, self.expected = chart, list(expected)
        if chart is not None and fresh:
            self.log_x, self.log_y = chart.x_axis.log, chart.y_axis.log
            self.setAccessibleDescription(chart.title)
        self.redraw()

    def set_log(self, *, x: bool, y: bool) -> None:
        """Logarithmic axes; what is not above zero is left out there."""
        if (x, y) != (self.log_x, self.log_y):
            self.log_x, self.log_y = x, y
            self.redraw()

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

    def place_of(self, x: float, y: float) -> QPointF:
        """Where a place of the chart is in the viewport."""
        at = QPointF(float(drawn(np.array([x]), self.log_x)[0]), float(drawn(np.array([y]), self.log_y)[0]))
        return QPointF(self.mapFromScene(self._view.mapViewToScene(at)))

    def tip_at(self, where: QPointF) -> str:
        """What the nearest point says; empty when none is near."""
        best, nearest = _NEAR, -1
        for number, (_, point) in enumerate(self._places):
            place = self.place_of(point.x, point.y)
            distance = math.hypot(place.x() - where.x(), place.y() - where.y())
            if distance <= best:
                best, nearest = distance, number
        return "" if nearest < 0 else self._tip(*self._places[nearest])

    def sizeHint(self) -> QSize:
        return QSize(420, 260)

    def minimumSizeHint(self) -> QSize:
        return QSize(200, 120)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        super().mouseMoveEvent(event)
        text = self.tip_at(event.position())
        if text:
            QToolTip.showText(event.globalPosition().toPoint(), text, self)
        else:
            QToolTip.hideText()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """A double click shows everything again."""
        super().mouseDoubleClickEvent(event)
        self._fit_view()

    # Drawing ---------------------------------------------------------------------------------------------------

    def redraw(self) -> None:
        """Draws everything anew, in the theme's colours."""
        plot, theme = self.getPlotItem(), current_theme()
        for item in self._items:
            plot.removeItem(item)
        self._items, self._places = [], []
        self._legend.clear()
        self._style_axes()
        chart = self.chart
        self._legend.setVisible(chart is not None)
        if chart is None:
            return
        clear = [curve for curve in chart.curves if not curve.faint]
        colors = [series_color(i) for i in range(len(clear))] if len(clear) <= _FEW else sequence_colors(len(clear))
        by_name = {curve.name: color for curve, color in zip(clear, colors, strict=True)}
        for fit in chart.fits:
            self._draw_fit(fit, by_name.get(fit.name, QColor(theme.accent)))
        for number, curve in enumerate(chart.curves):
            color = by_name[curve.name] if not curve.faint else QColor(theme.quiet)
            self._draw_curve(curve, color, _SYMBOLS[number % len(_SYMBOLS)])
        for mark in chart.marks:
            self._draw_mark(mark)
        for expected in self.expected:
            self._draw_expected(expected)
        self._legend.setVisible(bool(self._legend.items) and (len(chart.curves) + len(chart.fits) > 1))
        self._fit_view()
        self._place_legend()

    def _draw_curve(self, curve: Curve, color: QColor, symbol: str) -> None:
        x = drawn(np.array([p.x for p in curve.points], dtype=float), self.log_x)
        y = drawn(np.array([p.y for p in curve.points], dtype=float), self.log_y)
        faded = QColor(color)
        faded.setAlpha(_FAINT_ALPHA if curve.faint else 255)
        theme = current_theme()
        many = len(x) > 60
        item = pg.PlotDataItem(
            x,
            y,
            pen=pg.mkPen(faded, width=1.8) if curve.line else None,
            symbol=None if many else symbol,
            symbolSize=6 if curve.faint else 9,
            symbolPen=pg.mkPen(faded, width=1.6),
            symbolBrush=pg.mkBrush(QColor(theme.surface) if curve.line else faded),
            connect="finite",
            antialias=True,
        )
        item.setZValue(5 if curve.faint else 10)
        self._add(item)
        self._draw_errors(curve, faded)
        if curve.name and len(self._legend.items) < _MOST_IN_LEGEND:
            self._legend.addItem(item, curve.name)
        self._places += [(curve, point) for point in curve.points]

    def _draw_errors(self, curve: Curve, color: QColor) -> None:
        points = [p for p in curve.points if p.low is not None and p.high is not None]
        if not points:
            return
        x = drawn(np.array([p.x for p in points], dtype=float), self.log_x)
        y, low, high = (
            drawn(np.array([getattr(p, name) for p in points], dtype=float), self.log_y)
            for name in ("y", "low", "high")
        )
        good = np.isfinite(x) & np.isfinite(y) & np.isfinite(low) & np.isfinite(high)
        if good.any():
            (left, right), _ = self._whole()
            item = pg.ErrorBarItem(
                x=x[good],
                y=y[good],
                bottom=(y - low)[good],
                top=(high - y)[good],
                beam=(right - left) * 0.012,
                pen=pg.mkPen(color, width=1.4),
            )
            item.setZValue(8)
            self._add(item)

    def _draw_fit(self, fit: Fit, color: QColor) -> None:
        x = drawn(np.array(fit.x, dtype=float), self.log_x)
        line = pg.PlotDataItem(
            x,
            drawn(np.array(fit.y, dtype=float), self.log_y),
            pen=pg.mkPen(color, width=1.6, style=Qt.PenStyle.DashLine),
            connect="finite",
            antialias=True,
        )
        line.setZValue(3)
        self._add(line)
        self._legend.addItem(line, " ".join(part for part in (fit.name, fit.formula) if part))
        if fit.low and fit.high and len(fit.low) == len(fit.x):
            edges = [
                pg.PlotCurveItem(x, drawn(np.array(edge, dtype=float), self.log_y), pen=None)
                for edge in (fit.low, fit.high)
            ]
            tint = QColor(color)
            tint.setAlpha(_BAND_ALPHA)
            band = pg.FillBetweenItem(*edges, brush=pg.mkBrush(tint))
            band.setZValue(-10)
            for item in (*edges, band):
                self._add(item)

    def _draw_mark(self, mark: Mark) -> None:
        place = float(drawn(np.array([mark.x]), self.log_x)[0])
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
        log = self.log_x if expected.on_x else self.log_y
        low, high = drawn(np.array([expected.low, expected.high], dtype=float), log)
        if not (math.isfinite(low) and math.isfinite(high)):
            return
        color = QColor(current_theme().warning)
        tint = QColor(color)
        tint.setAlpha(_BAND_ALPHA // 2)
        if high > low:
            region = pg.LinearRegionItem(
                (low, high),
                orientation="vertical" if expected.on_x else "horizontal",
                movable=False,
                brush=pg.mkBrush(tint),
                pen=pg.mkPen(color, style=Qt.PenStyle.DotLine),
            )
            region.setZValue(-15)
            self._add(region)
        # Its name stands away from those of the marks.
        options = {"position": 0.97 if expected.on_x else 0.03, "color": color, "movable": False}
        options["anchors"] = [(0, 0), (1, 0)] if expected.on_x else [(0, 1), (0, 1)]
        line = pg.InfiniteLine(
            (low + high) / 2,
            angle=90 if expected.on_x else 0,
            movable=False,
            pen=pg.mkPen(color, width=1.5, style=Qt.PenStyle.DashLine if high == low else Qt.PenStyle.NoPen),
            label=expected.label,
            labelOpts=options,
        )
        line.setZValue(-4)
        self._add(line)

    def _add(self, item: pg.GraphicsObject) -> None:
        self.getPlotItem().addItem(item, ignoreBounds=True)
        self._items.append(item)

    def _style_axes(self) -> None:
        theme, chart = current_theme(), self.chart
        self.setBackground(QColor(theme.surface))
        plot = self.getPlotItem()
        self._axes["bottom"].setLogMode(x=self.log_x)
        self._axes["left"].setLogMode(y=self.log_y)
        for axis in self._axes.values():
            axis.setPen(pg.mkPen(QColor(theme.quiet)))
            axis.setTextPen(pg.mkPen(QColor(theme.text)))
            axis.setTickPen(pg.mkPen(QColor(theme.grid)))
            axis.setGrid(255)
            axis.setZValue(-1000)  # the grid lies behind the curves
        style = {"color": theme.text, "font-size": "9pt"}
        for side, found in (("bottom", chart.x_axis if chart else None), ("left", chart.y_axis if chart else None)):
            self._axes[side].set_kind(axis_kind(found) if found else "value")
            plot.setLabel(side, axis_text(found) if found else "", **style)
        veil = QColor(theme.surface)
        veil.setAlpha(215)
        self._legend.setLabelTextColor(QColor(theme.text))
        self._legend.setBrush(pg.mkBrush(veil))
        self._legend.setPen(pg.mkPen(QColor(theme.grid)))

    def _place_legend(self) -> None:
        """Where it covers least."""
        (left, right), (bottom, top) = self._whole()
        chart = self.chart
        assert chart is not None
        lines = [([p.x for p in curve.points], [p.y for p in curve.points]) for curve in chart.curves]
        lines += [(fit.x, fit.y) for fit in chart.fits]
        across, up = emptiest_corner(
            (
                (drawn(np.array(x, dtype=float), self.log_x) - left) / (right - left),
                (drawn(np.array(y, dtype=float), self.log_y) - bottom) / (top - bottom),
            )
            for x, y in lines
        )
        place = (across, 1 - up)  # a legend's places count from the top
        self._legend.anchor(place, place, offset=(-12 if across else 12, 8 if up else -8))

    def _fit_view(self) -> None:
        (left, right), (bottom, top) = self._whole()
        across, up = (right - left) * _MARGIN, (top - bottom) * _MARGIN
        self._view.setRange(
            xRange=(left - across, right + across), yRange=(bottom - up, top + up), padding=0, disableAutoRange=True
        )

    def _whole(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """What there is to see, in the plot's own coordinates."""
        chart = self.chart
        if chart is None:
            return (0.0, 1.0), (0.0, 1.0)
        points = [point for curve in chart.curves for point in curve.points]
        x = [p.x for p in points] + [x for fit in chart.fits for x in fit.x] + [mark.x for mark in chart.marks]
        y = [p.y for p in points] + [y for fit in chart.fits for y in (*fit.y, *fit.low, *fit.high)]
        x += [edge for one in self.expected if one.on_x for edge in (one.low, one.high)]
        y += [edge for one in self.expected if not one.on_x for edge in (one.low, one.high)]
        y += [edge for p in points for edge in (p.low, p.high) if edge is not None]
        top = _ceiling(chart)
        y = y if top is None else [min(value, top) for value in y]
        return _range(drawn(np.array(x, dtype=float), self.log_x)), _range(drawn(np.array(y, dtype=float), self.log_y))

    def _tip(self, curve: Curve, point: Point) -> str:
        chart = self.chart
        assert chart is not None
        lines = [part for part in (curve.name, point.label) if part]
        for axis, value in ((chart.x_axis, point.x), (chart.y_axis, point.y)):
            lines.append(f"{axis.label} {read_out(value, axis_kind(axis))}")
        if point.low is not None and point.high is not None:
            lines[-1] += f" ± {(point.high - point.low) / 2:.2g}"
        if point.runs > 1:
            lines.append(f"mean of {point.runs} runs, one standard error to each side")
        return "\n".join(lines)


def axis_text(axis: Axis) -> str:
    """Its name, with the unit."""
    return axis.label if not axis.unit or axis.unit.startswith(axis.label) else f"{axis.label} ({axis.unit})"


def axis_kind(axis: Axis) -> str:
    """The kind of its numbers, of charts/numbers.py."""
    return "count" if axis.unit in _COUNTED or "parameters" in axis.label else "value"


def _ceiling(chart: Chart) -> float | None:
    """Of losses along training: the start of those that ended above it, and all of the others; None for no limit."""
    if chart.x_axis.unit != "steps":
        return None
    rising = [c for c in chart.curves if len(c.points) > 1 and c.points[-1].y > c.points[0].y + _RISEN]
    others = [p.y for c in chart.curves if c not in rising for p in c.points]
    return max([*others, *(c.points[0].y for c in rising)]) if rising and others else None


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    room = 0.0 if high > low else abs(high) * 0.05 or 0.5
    return low - room, high + room


def _number(value: float | None) -> float:
    return math.nan if value is None else value
