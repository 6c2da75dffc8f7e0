"""A chart of a verdict: lines, bounds, coloured points, and bars by category, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QFontMetricsF

from llmlab.core.charts import BARS, DASHED, POINTS, Chart, Series
from llmlab_gui.charts.axes import NumberAxis, Ticks
from llmlab_gui.charts.color_scale import ColorScale, curve_colors, fitted, seen_part
from llmlab_gui.charts.figure_chart import SYMBOLS, FigureChart, Line, axis_kind, floats
from llmlab_gui.charts.scale_bar import ScaleItem
from llmlab_gui.widgets.numbers import read_out
from llmlab_gui.widgets.saving import Cell
from llmlab_gui.widgets.theme import current_theme

_PATTERNS = (Qt.PenStyle.DashLine, Qt.PenStyle.DotLine, Qt.PenStyle.DashDotLine, Qt.PenStyle.DashDotDotLine)
_MOST_IN_LEGEND = 10
_MOST_MARKERS, _MOST_ERRORS = 40, 40  # of a line; with more its interval is a band
_MOST_POINTS = 8000  # drawn of a series, evenly taken
_MANY_POINTS = 300  # are drawn small, and seen through
_POINT_ALPHA = 150
_BAR_ROOM = 0.8  # of a category's place, shared by its bars
_LEAST_NAME = 34.0  # pixels that a category's name takes at least
_LONGEST_NAME = 80  # characters


class CategoryAxis(NumberAxis):
    """Numbers, or the names of 0, 1, 2, ... as far as they have room."""

    def __init__(self) -> None:
        super().__init__("bottom")
        self.names: list[str] = []
        self.setStyle(hideOverlappingLabels=False)

    def show_names(self, names: Sequence[str]) -> None:
        """No names: numbers again."""
        self.names = list(names)
        self.picture = None
        self.update()

    def tickValues(self, minVal: float, maxVal: float, size: float) -> Ticks:
        if not self.names:
            return super().tickValues(minVal, maxVal, size)
        first, last = max(0, int(np.ceil(minVal))), min(len(self.names) - 1, int(np.floor(maxVal)))
        room = size / max(1e-9, maxVal - minVal)
        step = max(1, int(np.ceil(_LEAST_NAME / max(room, 1e-9))))
        return [(float(step), [float(place) for place in range(first, last + 1) if place % step == 0])]

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        if not self.names:
            return super().tickStrings(values, scale, spacing)
        low, high = self.range
        room = self.size().width() / max(1e-9, high - low) * spacing - 6
        metrics = QFontMetricsF(self.font())
        return [metrics.elidedText(self.names[int(v)], Qt.TextElideMode.ElideRight, room) for v in values]


class ClaimChart(FigureChart):
    """Draws one `llmlab.core.charts.Chart`. Hovering a point says what it is."""

    def __init__(self, name: str) -> None:
        self.chart: Chart | None = None
        self._shown: list[tuple[Series, np.ndarray]] = []  # beside `_spots`: the series, and which of its points
        self._names = CategoryAxis()
        super().__init__(name, bottom=self._names)
        self.scale_item = ScaleItem(self.getPlotItem())

    def show_chart(self, chart: Chart | None) -> None:
        """Replaces everything; another chart than before begins with the axes that it asks for."""
        if chart is not None and chart == self.chart:
            return
        self.chart = chart
        self._names.show_names([name[:_LONGEST_NAME] for name in chart.categories] if chart is not None else [])
        self.begin_chart(chart)

    def table(self) -> tuple[Sequence[str], Sequence[Sequence[Cell]]]:
        """Header and rows of all that is drawn, at full precision."""
        header = ("chart", "series", "kind", "category", "x", "y", "low", "high", "color")
        rows: list[Sequence[Cell]] = []
        chart = self.chart
        for one in chart.series if chart is not None else []:
            x, y, low, high, color = _columns(one)
            for place in range(len(x)):
                values = (x[place], y[place], low[place], high[place], color[place])
                rows.append((chart.name if chart else "", one.name, one.kind, self._category(x[place]), *values))
        return header, rows

    # Drawing ---------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        chart = self.chart
        assert chart is not None
        self._shown = []
        solid = [one for one in chart.series if one.kind != DASHED]
        colors = curve_colors([one.name for one in solid])
        scale = self._scale(chart)
        self.scale_item.show_scale(scale, chart.color_label)
        dashes = bars = 0
        for one in chart.series:
            if one.kind == DASHED:
                self._draw_dashed(one, _PATTERNS[dashes % len(_PATTERNS)])
                dashes += 1
                continue
            number = next(place for place, other in enumerate(solid) if other is one)
            if one.kind == BARS:
                self._draw_bars(one, colors[number], bars)
                bars += 1
            elif one.kind == POINTS:
                self._draw_points(one, colors[number], scale if one.color else None, SYMBOLS[number % len(SYMBOLS)])
            else:
                self._draw_line(one, colors[number], SYMBOLS[number % len(SYMBOLS)])

    def _draw_line(self, one: Series, color: QColor, symbol: str) -> None:
        x, y, low, high, _ = _columns(one)
        item = self._draw_marked(x, y, color, symbol if len(x) <= _MOST_MARKERS else None)
        if one.low and len(x) <= _MOST_ERRORS:
            self._draw_errors(x, y, low, high, color)
        elif one.low:
            self._draw_band(x, low, high, color)
        self._note(item, one, x, y)

    def _draw_dashed(self, one: Series, pattern: Qt.PenStyle) -> None:
        """What the others are held against: quiet; a single value crosses the whole chart."""
        x, y, low, high, _ = _columns(one)
        pen = pg.mkPen(QColor(current_theme().quiet), width=1.6, style=pattern)
        item = pg.PlotDataItem(self.across(x), self.up(y), pen=pen, connect="finite", antialias=True)
        if len(x) == 1 and np.isfinite(self.up(y)).all():
            line = pg.InfiniteLine(float(self.up(y)[0]), angle=0, movable=False, pen=pen)
            line.setZValue(7)
            self._add(line)
        item.setZValue(7)  # before bars and clouds of points, behind lines
        self._add(item)
        if one.low:
            self._draw_band(x, low, high, QColor(current_theme().quiet))
        self._note(item, one, x, y)

    def _draw_points(self, one: Series, color: QColor, scale: ColorScale | None, symbol: str) -> None:
        x, y, low, high, shades = _columns(one)
        kept = _evenly(len(x))
        x, y = x[kept], y[kept]
        many = len(x) > _MANY_POINTS
        alpha = _POINT_ALPHA if many else 255
        at_x, at_y = self.across(x), self.up(y)
        good = np.isfinite(at_x) & np.isfinite(at_y)
        brush: object = pg.mkBrush(color.red(), color.green(), color.blue(), alpha)
        if scale is not None:  # points share few brushes: one each takes ten times as long to draw
            shared, which = np.unique(scale.colors(shades[kept][good]), axis=0, return_inverse=True)
            brushes = np.array([pg.mkBrush(*shade, alpha) for shade in shared.tolist()], dtype=object)
            brush = brushes[which.reshape(-1)] if len(brushes) else pg.mkBrush(None)
        item = pg.ScatterPlotItem(
            at_x[good], at_y[good], size=5 if many else 8, pen=None, brush=brush, symbol=symbol, antialias=True
        )
        item.setZValue(6)
        self._add(item)
        if one.low and len(kept) <= _MOST_ERRORS:
            self._draw_errors(x, y, low[kept], high[kept], color)
        self._note(item, one, x, y, kept)

    def _draw_bars(self, one: Series, color: QColor, number: int) -> None:
        """Beside those of the other series with bars; from zero, or from the chart's edge on a logarithmic axis."""
        chart = self.chart
        assert chart is not None
        count = sum(other.kind == BARS for other in chart.series)
        width = _BAR_ROOM / max(1, count)
        x, y, low, high, _ = _columns(one)
        x = x + (number - (count - 1) / 2) * width
        at_x, at_y = self.across(x), self.up(y)
        good = np.isfinite(at_x) & np.isfinite(at_y)
        bottom = self._whole()[1][0] if self.log_y else 0.0
        item = pg.BarGraphItem(
            x=at_x[good],
            y0=np.full(int(good.sum()), bottom),
            height=at_y[good] - bottom,
            width=width * 0.92,
            pen=None,
            brush=pg.mkBrush(color),
        )
        item.setZValue(4)
        self._add(item)
        if one.low:
            self._draw_errors(x, y, low, high, QColor(current_theme().text))
        sample = pg.PlotDataItem([], [], pen=pg.mkPen(color, width=7))
        self._note(sample, one, x, y)

    def _note(
        self, item: pg.GraphicsObject, one: Series, x: np.ndarray, y: np.ndarray, kept: np.ndarray | None = None
    ) -> None:
        """Its name in the legend, where there are several; and its points, to be pointed at."""
        self._spots.append((x, y))
        self._shown.append((one, np.arange(len(x)) if kept is None else kept))
        several = self.chart is not None and len(self.chart.series) > 1
        if several and one.name and len(self.legend.names) < _MOST_IN_LEGEND:
            self.legend.add(item, one.name[:_LONGEST_NAME])

    def _scale(self, chart: Chart) -> ColorScale | None:
        values = [value for one in chart.series if one.kind == POINTS for value in one.color]
        return seen_part(fitted(floats(values), signed=False)) if values else None

    def _seen(self) -> Line:
        chart = self.chart
        assert chart is not None
        x, y = [np.zeros(0)], [np.zeros(0)]
        for one in chart.series:
            columns = _columns(one)
            x.append(columns[0])
            y += columns[1:4]
            if one.kind == BARS:
                x += [columns[0] - 0.5, columns[0] + 0.5]
                y.append(np.zeros(0 if self.log_y else 1))
        if chart.categories:
            x.append(np.array([-0.5, len(chart.categories) - 0.5]))
        return np.concatenate(x), np.concatenate(y)

    def _tip(self, line: int, place: int) -> str:
        chart = self.chart
        assert chart is not None
        one, kept = self._shown[line]
        x, y, low, high, color = (column[kept[place]] for column in _columns(one))
        category = self._category(x)
        lines = [part[:_LONGEST_NAME] for part in (one.name, category) if part]
        if not category:
            lines.append(f"{chart.x_axis.label} {read_out(x, axis_kind(chart.x_axis))}")
        lines.append(f"{chart.y_axis.label} {read_out(y, axis_kind(chart.y_axis))}")
        if np.isfinite(low) and np.isfinite(high):
            kind = axis_kind(chart.y_axis)
            lines[-1] += f" ({read_out(low, kind)} to {read_out(high, kind)})"
        if np.isfinite(color):
            lines.append(f"{chart.color_label} {read_out(color, 'value')}".strip())
        return "\n".join(lines)

    def _category(self, x: float) -> str:
        names = self._names.names
        return names[int(x)] if np.isfinite(x) and x == int(x) and 0 <= x < len(names) else ""


def _columns(one: Series) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, y, low, high and color, as long as each other; NaN for what the series has not."""
    missing = np.full(len(one.x), np.nan)
    return (
        floats(one.x),
        floats(one.y),
        floats(one.low) if one.low else missing,
        floats(one.high) if one.high else missing,
        floats(one.color) if one.color else missing,
    )


def _evenly(count: int) -> np.ndarray:
    """Places of at most so many as are drawn."""
    if count <= _MOST_POINTS:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, _MOST_POINTS).astype(np.intp))
