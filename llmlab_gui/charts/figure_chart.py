"""What finished charts share: axes in words, a legend over the curves, and a tip for what is pointed at."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, QSize, Qt
from PySide6.QtGui import QColor, QFocusEvent, QKeyEvent, QMouseEvent, QResizeEvent
from PySide6.QtWidgets import QToolTip

from llmlab.core.charts import Axis, Chart
from llmlab.store.events import BITS
from llmlab.studies.experiments.outcomes import Chart as ResultsChart
from llmlab_gui.charts.axes import NumberAxis, bare_plot, name_style, style_plot
from llmlab_gui.charts.curve import drawn
from llmlab_gui.charts.legend import Legend
from llmlab_gui.widgets.theme import current_theme, faded, theme_notifier

_NEAR = 14.0  # pixels: how close the mouse has to come to a point
_MARGIN = 0.06  # of what is shown, around it
_COUNTED = ("steps", "tokens", "sequences", "windows", "layers", "runs", "values per token", "numbers a token")
_BEAM = 0.012  # width of an error bar's end, of the chart's
SYMBOLS = ("o", "s", "t", "d", "t1", "p", "h", "star")
BAND_ALPHA = 0.18
# Larger numbers are no measurements, and no screen has a place for them.
_LARGEST = 1e30

# How far each goes, and whether along a line.
_ARROWS = {
    Qt.Key.Key_Left: (-1, True),
    Qt.Key.Key_Right: (1, True),
    Qt.Key.Key_Up: (-1, False),
    Qt.Key.Key_Down: (1, False),
}

Line = tuple[np.ndarray, np.ndarray]


class FigureChart(pg.PlotWidget):
    """Subclasses draw few items that do not change while they are shown, and say what there is to see.

    They call `begin_chart` or `begin` with what they show, and override `_draw`, `_seen` and `_tip`.
    """

    def __init__(self, name: str, *, bottom: NumberAxis | None = None) -> None:
        self._axes = {"bottom": bottom or NumberAxis("bottom"), "left": NumberAxis("left")}
        self._pair: tuple[Axis, Axis] | None = None
        self._drawn_name = ""  # of the chart that is shown
        super().__init__(enableMenu=False, axisItems=self._axes)
        self.log_x = self.log_y = False
        self._spots: list[Line] = []  # what can be pointed at, in values of the axes
        self._view = bare_plot(self, name)
        self._view.disableAutoRange()
        self.legend = Legend(self.getPlotItem())
        self._items: list[pg.GraphicsObject] = []
        self._read: tuple[int, int] | None = None  # line and place in `_spots` that keys have come to
        self._ring = pg.ScatterPlotItem(size=16, brush=None)
        self._ring.setZValue(50)
        self.getPlotItem().addItem(self._ring, ignoreBounds=True)
        self.viewport().setMouseTracking(True)
        theme_notifier.changed.connect(self.redraw)
        self.redraw()

    def begin(self, pair: tuple[Axis, Axis] | None, *, fresh: bool) -> None:
        """What is shown now has these axes, x first. fresh: it is another chart, whose axes are as it asks for."""
        self._pair = pair
        if pair is not None and fresh:
            self.log_x, self.log_y = pair[0].log, pair[1].log
        self.redraw()

    def begin_chart(self, chart: Chart | ResultsChart | None) -> None:
        """The same of a chart as data; one with another name than before is another."""
        fresh = chart is not None and chart.name != self._drawn_name
        self._drawn_name = chart.name if chart is not None else ""
        if chart is not None:
            self.setAccessibleDescription(chart.title)
        self.begin((chart.x_axis, chart.y_axis) if chart is not None else None, fresh=fresh)

    def set_log(self, *, x: bool, y: bool) -> None:
        """Logarithmic axes; what is not above zero is left out there."""
        if (x, y) != (self.log_x, self.log_y):
            self.log_x, self.log_y = x, y
            self.redraw()

    def place_of(self, x: float, y: float) -> QPointF:
        """Where a place of the chart is in the viewport."""
        at = QPointF(float(self.across(np.array([x]))[0]), float(self.up(np.array([y]))[0]))
        return QPointF(self.mapFromScene(self._view.mapViewToScene(at)))

    def tip_at(self, where: QPointF) -> str:
        """What the nearest point says; empty when none is near."""
        at = self._view.mapSceneToView(self.mapToScene(where.toPoint()))
        across, up = self._view.viewPixelSize()
        nearest, best = None, _NEAR
        for number, (x, y) in enumerate(self._spots):
            distance = np.hypot((self.across(x) - at.x()) / across, (self.up(y) - at.y()) / up)
            if np.isfinite(distance).any() and (place := int(np.nanargmin(distance))) >= 0 and distance[place] <= best:
                nearest, best = (number, place), float(distance[place])
        return "" if nearest is None else self._tip(*nearest)

    def across(self, values: np.ndarray) -> np.ndarray:
        """Where values of the x axis stand in the plot."""
        return drawn(_shown(values), self.log_x)

    def up(self, values: np.ndarray) -> np.ndarray:
        """The same of the y axis."""
        return drawn(_shown(values), self.log_y)

    def sizeHint(self) -> QSize:
        return QSize(420, 260)

    def minimumSizeHint(self) -> QSize:
        return QSize(200, 120)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
        if self._pair is not None:
            self.lay_out()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        super().mouseMoveEvent(event)
        # Without words it hides.
        QToolTip.showText(event.globalPosition().toPoint(), self.tip_at(event.position()), self)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """A double click shows everything again."""
        super().mouseDoubleClickEvent(event)
        self._fit_view()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Arrow keys read point after point along a line, and from line to line; Home shows everything again."""
        found = self._neighbour(Qt.Key(event.key())) if event.key() in _ARROWS else None
        if found is not None:
            self._point_at(found)
        elif event.key() == Qt.Key.Key_Home:
            self._fit_view()
        else:
            super().keyPressEvent(event)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self._point_at(None)

    def _neighbour(self, key: Qt.Key) -> tuple[int, int] | None:
        """The point that an arrow key goes to from the one that is read; at first one of the first line."""
        lines: list[list[tuple[float, int]]] = []  # of each: its points that are drawn, from left to right
        for x, y in self._spots:
            across, up = self.across(x), self.up(y)
            drawn_here = np.flatnonzero(np.isfinite(across) & np.isfinite(up))
            lines.append(sorted((float(across[place]), int(place)) for place in drawn_here))
        filled = [number for number, line in enumerate(lines) if line]
        if not filled:
            return None
        by, along = _ARROWS[key]
        if self._read is None:
            return filled[0], lines[filled[0]][-1 if by < 0 else 0][1]
        number, place = self._read
        at = [point for _, point in lines[number]].index(place)
        if along:
            return number, lines[number][min(max(at + by, 0), len(lines[number]) - 1)][1]
        other = filled[(filled.index(number) + by) % len(filled)]
        return other, min(lines[other], key=lambda point: abs(point[0] - lines[number][at][0]))[1]

    def _point_at(self, found: tuple[int, int] | None) -> None:
        """Rings a point and says its values; None for none."""
        if found is None and self._read is None:
            return
        self._read = found
        if found is None:
            self._ring.setData([], [])
            QToolTip.hideText()
            return
        line, place = found
        x, y = (float(values[place]) for values in self._spots[line])
        across, up = self.across(np.array([x])), self.up(np.array([y]))
        self._ring.setData(across, up, pen=pg.mkPen(QColor(current_theme().text), width=2))
        QToolTip.showText(self.viewport().mapToGlobal(self.place_of(x, y).toPoint()), self._tip(line, place), self)

    # What subclasses say ---------------------------------------------------------------------------------------

    def _draw(self) -> None:
        """Adds the items (`_add`), their names (`legend`) and what can be pointed at (`_spots`)."""
        raise NotImplementedError

    def _seen(self) -> Line:
        """All x, and all y, that are to be in sight."""
        raise NotImplementedError

    def _tip(self, line: int, place: int) -> str:
        """What a point of a line of `_spots` says."""
        raise NotImplementedError

    # Drawing ---------------------------------------------------------------------------------------------------

    def redraw(self) -> None:
        """Draws everything anew, in the theme's colours."""
        plot = self.getPlotItem()
        for item in self._items:
            plot.removeItem(item)
        self._items, self._spots = [], []
        self._point_at(None)
        self.legend.clear()
        self._style_axes()
        if self._pair is not None:
            self._draw()
            if all(np.array_equal(x, np.round(x), equal_nan=True) for x, _ in self._spots):  # layers, steps, ranks
                self._axes["bottom"].set_kind("count")
            self._fit_view()
        self.lay_out()

    def _add(self, item: pg.GraphicsObject) -> None:
        self.getPlotItem().addItem(item, ignoreBounds=True)
        self._items.append(item)

    def _draw_marked(
        self, x: np.ndarray, y: np.ndarray, color: QColor, symbol: str | None, *, size: int = 8, line: bool = True
    ) -> pg.PlotDataItem:
        """Points by symbols, hollow where a line joins them; all in values of the axes."""
        item = pg.PlotDataItem(
            self.across(x),
            self.up(y),
            pen=pg.mkPen(color, width=1.8) if line else None,
            symbol=symbol,
            symbolSize=size,
            symbolPen=pg.mkPen(color, width=1.6),
            symbolBrush=pg.mkBrush(QColor(current_theme().surface) if line else color),
            connect="finite",
            antialias=True,
        )
        item.setZValue(10)
        self._add(item)
        return item

    def _draw_errors(self, x: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray, color: QColor) -> None:
        """A bar from low to high at each point, all in values of the axes."""
        x, y, low, high = self.across(x), self.up(y), self.up(low), self.up(high)
        good = np.isfinite(x) & np.isfinite(y) & np.isfinite(low) & np.isfinite(high)
        if good.any():
            (left, right), _ = self._whole()
            item = pg.ErrorBarItem(
                x=x[good],
                y=y[good],
                bottom=(y - low)[good],
                top=(high - y)[good],
                beam=(right - left) * _BEAM,
                pen=pg.mkPen(color, width=1.4),
            )
            item.setZValue(8)
            self._add(item)

    def _draw_band(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, color: QColor) -> None:
        """What lies between low and high, all in values of the axes, behind everything else."""
        edges = [pg.PlotCurveItem(self.across(x), self.up(edge), pen=None) for edge in (low, high)]
        band = pg.FillBetweenItem(*edges, brush=pg.mkBrush(faded(color, BAND_ALPHA)))
        band.setZValue(-10)
        for item in (*edges, band):
            self._add(item)

    def _style_axes(self) -> None:
        theme = current_theme()
        style_plot(self, self._axes.values())
        self._axes["bottom"].setLogMode(x=self.log_x)
        self._axes["left"].setLogMode(y=self.log_y)
        style = name_style(theme.text)
        for side, found in zip(("bottom", "left"), self._pair or (None, None), strict=True):
            self._axes[side].set_kind(axis_kind(found) if found else "value")
            self.getPlotItem().setLabel(side, escape(axis_text(found)) if found else "", **style)

    def lay_out(self) -> None:
        """Room for the legend, the name of y and its numbers."""
        left, plot = self._axes["left"], self.getPlotItem()
        for _ in range(2):  # what one takes, the others lack
            plot.layout.activate()
            self.legend.arrange(self._view.width(), self.height())
            if self._pair is not None:
                axis = self._pair[1]
                unusual = [axis.unit] if axis.unit == BITS else []  # of losses, and to be said before their name
                short = ["loss"] if axis.label.endswith(" loss") else []  # which one, the chart's title says
                name = left.fitting_name([axis_text(axis), *unusual, axis.label, *short])
                left.write_name(name, current_theme().text)
            left.set_room(left.needed_width())

    def _fit_view(self) -> None:
        (left, right), (bottom, top) = self._whole()
        across, up = (right - left) * _MARGIN, (top - bottom) * _MARGIN
        self._view.setRange(
            xRange=(left - across, right + across), yRange=(bottom - up, top + up), padding=0, disableAutoRange=True
        )

    def _whole(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """What there is to see, in the plot's own coordinates."""
        if self._pair is None:
            return (0.0, 1.0), (0.0, 1.0)
        x, y = self._seen()
        return _range(self.across(x)), _range(self.up(y))


def axis_text(axis: Axis) -> str:
    """Its name, with the unit."""
    return axis.label if not axis.unit or axis.unit.startswith(axis.label) else f"{axis.label} ({axis.unit})"


def axis_kind(axis: Axis) -> str:
    """The kind of its numbers, of widgets/numbers.py."""
    return "count" if axis.unit in _COUNTED or "parameters" in axis.label else "value"


def floats(values: Iterable[float | None]) -> np.ndarray:
    """As an array; what is missing is NaN."""
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _shown(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(values) < _LARGEST, values, np.nan)


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    room = 0.0 if high > low else abs(high) * 0.05 or 0.5
    return low - room, high + room
