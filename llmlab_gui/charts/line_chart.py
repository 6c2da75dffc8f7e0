"""Curves over a run's steps: several runs overlaid, live, with reference lines, log axes and a cross-hair."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyqtgraph as pg
from pyqtgraph.GraphicsScene.mouseEvents import MouseClickEvent
from PySide6.QtCore import QEvent, QPointF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFocusEvent, QFontMetricsF, QKeyEvent, QMouseEvent, QResizeEvent

from llmlab_gui.charts.axes import TOP, NumberAxis, bare_plot, chart_font, name_style, style_plot
from llmlab_gui.charts.cross_hair import CrossHair
from llmlab_gui.charts.curve import Curve, CurveStyle, StyledPoints, drawn
from llmlab_gui.charts.legend import Legend
from llmlab_gui.charts.line_keys import LineKeys
from llmlab_gui.charts.marks import Marks, ReferenceLine, Span
from llmlab_gui.widgets.theme import Theme, current_theme, faded

# Room around the curves, as a share of what they take: above and below, and to the right for what comes next.
_MARGIN_Y, _MARGIN_X = 0.07, 0.03
_RIGHT_EDGE = 12  # pixels of a plot beside its curves
_LEAST_PLOT = 64.0  # pixels of height, within the axes
_FILLED = 0.8  # of the view: with less, it is fitted anew


class LineChart(pg.PlotWidget):
    """A plot of curves by key. Points are set whenever they change and drawn by `draw()`, once a redraw.

    View: `follow` keeps everything in sight; panning or zooming freezes the view (`frozen`), `set_follow(True)`
    follows again. All methods take values as they are; logarithms are the chart's own affair.
    """

    frozen = Signal()
    whole_wanted = Signal()  # by double click or key
    pointed = Signal(float)  # x under the mouse, or that keys have come to; NaN when it left
    chosen = Signal(float)  # x that was clicked, or Enter was pressed at
    needs_redraw = Signal()

    def __init__(
        self, y_label: str, y_unit: str = "", y_kind: str = "value", *, from_zero: bool = False, short_name: str = ""
    ) -> None:
        """from_zero: the view that follows begins at zero, for what is read as a share of a whole.

        short_name: of y, where a low chart has no room for all of its label.
        """
        self._axis_x, self._axis_y = NumberAxis("bottom", "count"), NumberAxis("left", y_kind)
        super().__init__(enableMenu=False, axisItems={"bottom": self._axis_x, "left": self._axis_y})
        self.y_label, self.y_unit, self.y_kind = y_label, y_unit, y_kind
        self._short_name = short_name or y_label
        self._from_zero = from_zero
        self.x_label, self.x_kind = "step", "count"
        self.log_x = self.log_y = False
        self.follow = self._refit = True
        self._fits_y = False  # to what is in sight, also where the view does not follow
        self.ceiling: float | None = None  # the view that follows shows nothing above it
        self._curves: dict[str, Curve] = {}
        self._band: pg.FillBetweenItem | None = None
        self._entries: list[CurveStyle] = []  # of the legend
        self._names_x = True
        self._shown_name: str | None = None  # of y: as much of it as fits
        self._least_left = 0.0
        plot = self.getPlotItem()
        self.marks = Marks(plot)
        self._view = bare_plot(self, y_label)
        self._view.disableAutoRange()
        self._view.sigRangeChangedManually.connect(self._moved_by_hand)
        self.legend = Legend(plot)
        self.cross_hair = CrossHair(self)
        self._keys = LineKeys(self)
        self.scene().sigMouseClicked.connect(self._clicked)
        self._mouse = pg.SignalProxy(self.scene().sigMouseMoved, rateLimit=60, slot=self._mouse_moved)
        self.apply_theme(current_theme())

    # What is shown ---------------------------------------------------------------------------------------------

    def set_curve(self, key: str, x: np.ndarray, y: np.ndarray, style: CurveStyle) -> None:
        """The points of a curve, float64, x ascending; drawn at the next `draw()`."""
        curve = self._curves.get(key)
        if curve is None:
            curve = self._curves[key] = Curve(style, self._theme_background)
            self.getPlotItem().addItem(curve.item, ignoreBounds=True)
        elif curve.style != style:
            curve.set_style(style, self._theme_background)  # markers stay what they were
        curve.set_points(x, y)

    def show_curves(self, curves: Mapping[str, StyledPoints]) -> None:
        """Sets these, and removes every other curve."""
        for key, points in curves.items():
            self.set_curve(key, *points)
        self.keep_only(curves)

    def keep_only(self, keys: Collection[str]) -> None:
        """Removes every other curve."""
        for key in self._curves.keys() - set(keys):
            curve = self._curves.pop(key)
            self.getPlotItem().removeItem(curve.item)

    def curves(self) -> dict[str, Curve]:
        """All curves by key, with all their points."""
        return dict(self._curves)

    def set_band(self, keys: tuple[str, str] | None, color: QColor | None = None) -> None:
        """Tints what lies between two curves; None for nothing."""
        plot = self.getPlotItem()
        if keys is None or keys[0] not in self._curves or keys[1] not in self._curves:
            if self._band is not None:
                plot.removeItem(self._band)
                self._band = None
            return
        first, second = (self._curves[key].line for key in keys)
        tint = faded(color or self._theme_background, 0.14)
        if self._band is None:
            self._band = pg.FillBetweenItem(first, second)
            self._band.setZValue(-10)
            plot.addItem(self._band, ignoreBounds=True)
        elif self._band.curves != [first, second]:
            self._band.setCurves(first, second)
        self._band.setBrush(pg.mkBrush(tint))

    def set_reference_lines(self, lines: Sequence[ReferenceLine]) -> None:
        """Replaces the quiet horizontal lines."""
        self.marks.set_lines(lines)

    def set_spans(self, spans: Sequence[Span]) -> None:
        """Replaces the shaded stretches (pauses)."""
        self.marks.set_spans(spans)

    def set_legend(self, entries: Sequence[CurveStyle]) -> None:
        """One entry a style: its label beside a piece of its line. The first come first where room is short."""
        if list(entries) == self._entries:
            return
        self._entries = list(entries)
        self.legend.clear()
        for style in self._entries:
            sample = Curve(style, self._theme_background)
            sample.set_points(np.zeros(1), np.zeros(1))
            sample.draw(-1.0, 1.0, 1, log_x=False, log_y=False)
            self.legend.add(sample.item, style.label)
        self.needs_redraw.emit()

    # The axes --------------------------------------------------------------------------------------------------

    def set_x_axis(self, label: str, kind: str) -> None:
        """What x is: its name, and the kind of its numbers (`count` or `seconds`)."""
        self.x_label, self.x_kind = label, kind
        self.cross_hair.point_at(math.nan)
        self._axis_x.set_kind(kind)
        self._name_axes(self._shown_name)

    def name_y(self, label: str, unit: str = "") -> None:
        """What the curves are from now on."""
        if (label, unit) == (self.y_label, self.y_unit):  # axes are slow to draw anew
            return
        self.y_label, self.y_unit, self._short_name = label, unit, label
        self.updateGeometry()
        self.setAccessibleName(label)
        self._name_axes()

    def set_log(self, *, x: bool, y: bool) -> None:
        """Logarithmic axes; what is not above zero is left out there."""
        self.log_x, self.log_y = x, y
        self.cross_hair.point_at(math.nan)
        self._axis_x.setLogMode(x=x)
        self._axis_y.setLogMode(y=y)
        self.marks.set_log(x=x, y=y)
        self.set_follow(True)
        self.draw()  # the view still shows the other scale's numbers

    def set_follow(self, follow: bool) -> None:
        """Whether the view keeps everything in sight; True fits it anew."""
        self.follow = self._refit = follow
        self._fits_y = False
        self.needs_redraw.emit()

    def show_whole(self) -> None:
        """Follows again, and so does what shares its x."""
        self.set_follow(True)
        self.whole_wanted.emit()

    def look_at(self, low: float, high: float) -> None:
        """Shows these x, in the plot's own coordinates, as high as their curves are; lets go of following."""
        self.frozen.emit()
        self.set_x_range(low, high)
        self._fits_y = self._refit = True
        self.draw()

    def set_x_range(self, low: float, high: float) -> None:
        """The visible x, in the plot's own coordinates; freezes the view."""
        self.follow = False
        self._view.setXRange(low, high, padding=0)
        self.needs_redraw.emit()

    def draw(self) -> None:
        """Draws all curves as they are now, and moves the view when it follows."""
        self._lay_out()
        if self.follow:
            low, high = self.whole_x()
            room = (high - low) * _MARGIN_X
            if markers := [curve.style.marker_size for curve in self._curves.values() if curve.style.markers]:
                low -= (high - low) * (max(markers) / 2 + 1) / max(1.0, self._view.width())  # half, and of its pen
            self._fit(0, low, high, low, high + room)
        (low, high), _ = self._view.viewRange()
        if self.log_x:  # 10**300 is as good as infinity, and does not overflow
            low, high = 10.0 ** max(low, -300), 10.0 ** min(high, 300)
        pixels = max(200, int(self._view.width() * self.devicePixelRatioF()))
        extents = [curve.draw(low, high, pixels, self.log_x, self.log_y) for curve in self._curves.values()]
        if self.follow or self._fits_y:
            self._fit(1, *self._whole_y(extents))
            self._refit = False
        self.marks.make_way([(curve.x, curve.y) for curve in self._curves.values() if len(curve.x)])
        self._set_room(max(self._least_left, self._axis_y.needed_width()))

    def lay_out(self) -> None:
        """Fits everything to a size that it has just been given."""
        self.draw()

    def _fit(self, axis: int, low: float, high: float, view_low: float, view_high: float) -> None:
        """Shows `view_low` to `view_high`, unless low to high is in sight and fills most of what is shown.

        A new range costs far more than new points: both axes and the grid are drawn anew.
        """
        now_low, now_high = self._view.viewRange()[axis]
        fills = (high - low) > _FILLED * (now_high - now_low)
        if not self._refit and now_low <= low and high <= now_high and fills:
            return
        if axis == 0:
            self._view.setXRange(view_low, view_high, padding=0)
        else:
            self._view.setYRange(view_low, view_high, padding=0)

    def whole_x(self) -> tuple[float, float]:
        """Where the curves begin and end, in the plot's own coordinates."""
        ends = []
        for curve in self._curves.values():
            x = curve.x
            if self.log_x:
                x = x[int(np.searchsorted(x, 0.0, side="right")) :]
            if len(x):
                ends += [float(x[0]), float(x[-1])]
        low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
        if self.log_x:
            low, high = math.log10(low or 1.0), math.log10(high or 1.0)
        else:
            low = min(low, 0.0)
        return (low, high) if high > low else (low, low + 1.0)

    def _whole_y(self, extents: list[tuple[float, float]]) -> tuple[float, float, float, float]:
        """From where to where must be in sight, and the view that shows it with some room."""
        values = [value for pair in extents for value in pair]
        marks = self.marks.heights() if self.follow else []  # a closer look is at the curves
        values = [value for value in [*values, *marks] if math.isfinite(value)]
        if self._from_zero and not self.log_y:
            high = max([*values, 0.0]) or 1.0
            return 0.0, high, 0.0, high * (1 + _MARGIN_Y)
        if self.ceiling is not None:
            top = float(drawn(np.array([self.ceiling]), self.log_y)[0])
            values = [min(value, top) for value in values]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        span = high - low or abs(high) or 1.0
        over, top = _MARGIN_Y, high
        if words := self.marks.words_height:  # pixels of the view, above a line
            below = max(1.0, self._view.height() - words)
            over = min(max(over, (1 + _MARGIN_Y) * words / below), 1.0)
            uppermost = max((height for height in marks if height <= high), default=low)
            now_low, now_high = self._view.viewRange()[1]
            top = max(high, uppermost + (words - 1) * (now_high - now_low) / max(1.0, self._view.height()))
        return low, top, low - _MARGIN_Y * span, high + over * span

    def _moved_by_hand(self) -> None:
        self.follow = self._fits_y = False
        self.frozen.emit()
        self.needs_redraw.emit()

    def sizeHint(self) -> QSize:
        """Small: docks share out the room, and charts take what they get."""
        return QSize(320, 150)

    def minimumSizeHint(self) -> QSize:
        """Its curves can be read, beside the whole name of their axis."""
        name = QFontMetricsF(chart_font()).horizontalAdvance(self._short_name)
        legend = self.legend.minimumHeight() if self.legend.isVisible() else 0.0
        return QSize(160, math.ceil(TOP + legend + max(_LEAST_PLOT, name) + self._axis_x.minimumHeight()))

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """A double click follows again."""
        super().mouseDoubleClickEvent(event)
        self.show_whole()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if not self._keys.press(event):
            super().keyPressEvent(event)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self._keys.leave()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if hasattr(self, "_view"):  # PlotWidget's constructor resizes too
            self._refit = self.follow
            self._lay_out()  # at once: the curves may wait for their turn
            self.needs_redraw.emit()

    # The mouse -------------------------------------------------------------------------------------------------

    def _mouse_moved(self, arguments: tuple[QPointF]) -> None:
        position = arguments[0]
        if not self._view.sceneBoundingRect().contains(position):
            self.pointed.emit(math.nan)
            return
        self.pointed.emit(self._x_at(position))

    def _clicked(self, event: MouseClickEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton and self._view.sceneBoundingRect().contains(event.scenePos()):
            self.chosen.emit(self._x_at(event.scenePos()))

    def _x_at(self, position: QPointF) -> float:
        x = float(self._view.mapSceneToView(position).x())
        return 10.0 ** min(x, 300.0) if self.log_x else x

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self.pointed.emit(math.nan)

    # Looks -----------------------------------------------------------------------------------------------------

    def apply_theme(self, theme: Theme) -> None:
        """Takes the theme's colours; curves get theirs with their next `set_curve`."""
        self._theme_background = QColor(theme.surface)
        self._text = QColor(theme.text)
        axes = (self._axis_x, self._axis_y)
        style_plot(self, axes)
        for axis in axes:
            # Grid and numbers change seldom, and are three quarters of a redraw when they are not kept as a picture.
            axis.setCacheMode(pg.QtWidgets.QGraphicsItem.CacheMode.DeviceCoordinateCache)
        for curve in self._curves.values():
            curve.set_style(curve.style, self._theme_background)
        entries, self._entries = self._entries, []
        self.set_legend(entries)
        self.cross_hair.apply_theme(theme)
        self.marks.set_color(QColor(theme.quiet))
        self._name_axes(self._shown_name)
        self.needs_redraw.emit()

    def show_x_name(self, shown: bool) -> None:
        """Whether x has its name and numbers; the upper ones of stacked charts need neither."""
        self._names_x = shown
        self._axis_x.setStyle(showValues=shown)
        self._name_axes(self._shown_name)
        self.updateGeometry()

    def _set_room(self, width: float) -> None:
        """Of the left axis; the legend fits what is left, for what it wrote beyond that nobody would wipe out."""
        self._axis_y.set_room(width)
        self.getPlotItem().layout.activate()
        self._lay_out()

    def _lay_out(self) -> None:
        """The legend and the name of y, for the size that there is."""
        if self.legend.arrange(self.width() - self._axis_y.width() - _RIGHT_EDGE, self.height()):
            self.getPlotItem().layout.activate()
            self.updateGeometry()
            self._refit = self.follow  # what stands over the uppermost line has room again
        self._fit_name()

    def _fit_name(self) -> None:
        """The name of y as far as there is room for it; nothing where it would be cut off, or lie over another's."""
        unit = f" ({self.y_unit})" if self.y_unit else ""
        name = self._axis_y.fitting_name([self.y_label + unit, self._short_name + unit, self.y_label, self._short_name])
        if name != self._shown_name:
            self._name_axes(name)

    def _name_axes(self, y_name: str | None = None) -> None:
        """y_name: in place of all that is to be said; "" for nothing."""
        plot, style = self.getPlotItem(), name_style(self._text.name())
        unit = f" ({self.y_unit})" if self.y_unit else ""
        self._shown_name = self.y_label + unit if y_name is None else y_name
        self._axis_y.write_name(self._shown_name, self._text.name())
        if self._names_x:
            plot.setLabel("bottom", self.x_label, **style)
        plot.showLabel("bottom", self._names_x)


def align(charts: Sequence[LineChart]) -> None:
    """Makes the left axes of charts above one another equal: they share their x axis."""
    widest = max((chart._axis_y.needed_width() for chart in charts), default=0.0)
    for chart in charts:
        chart._least_left = widest
        chart._set_room(widest)
