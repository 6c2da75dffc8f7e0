"""Axes that write counts, times and shares the way people do, on linear and on logarithmic scales."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QGuiApplication

from llmlab_gui.widgets.numbers import ticks
from llmlab_gui.widgets.theme import current_theme

# Distances between ticks that read well on a clock, in seconds.
_CLOCK = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)
# What a logarithmic scale of a minute and more is divided into: seconds, how many of each, and which have a text if
# there is room for several.
_DAY, _YEAR = 86_400.0, 365 * 86_400.0
_PARTS: list[tuple[float, int, tuple[int, ...]]] = [
    *((1.0, 9, (1, 2, 5)), (10.0, 5, (1, 3)), (60.0, 9, (1, 2, 5)), (600.0, 5, (1, 3)), (3600.0, 9, (1, 2, 5))),
    *((36_000.0, 2, (1,)), (_DAY, 9, (1, 2, 5)), (10 * _DAY, 9, (1, 2, 5)), (100 * _DAY, 3, (1,))),
]

# Pixels that one tick's text takes, with room beside it.
_LABEL_WIDTH, _LABEL_HEIGHT = 80, 40
_LEAST_LABELS = 3  # fewer do not say how an axis is scaled
_FEW_DECADES = 3.5  # between whose ends there may be more texts than one for each
_LOG_LABEL_WIDTH, _LOG_LABEL_HEIGHT = 46, 18  # of the shorter texts on a logarithmic scale: 0.002, 500k

# pyqtgraph's: between numbers and axis, and by how much a name lies outside of its axis.
_TEXT_OFFSET, _NUDGE = 5.0, 5.0
TOP = 6  # pixels above a plot
_AIR = 6.0  # between name and numbers
_STICK_OUT = 10.0  # by how much the first and last number of a bottom axis may: the plot has that much room beside it
_SLACK = 12.0  # how much too wide an axis may be: each change moves the curves
_LEAST_NAME = 8  # characters of a name's beginning that say something
_SMALLER = 0.9  # than the application's font

Ticks = list[tuple[float, list[float]]]


def chart_font() -> QFont:
    """Of numbers, names and legends of charts: it follows the application's."""
    font = QFont(QGuiApplication.font())
    if font.pointSizeF() > 0:
        font.setPointSizeF(_SMALLER * font.pointSizeF())
    else:
        font.setPixelSize(round(_SMALLER * font.pixelSize()))
    return font


def name_style(color: str) -> dict[str, str]:
    """How pyqtgraph is told to write an axis's name."""
    font = chart_font()
    size = f"{font.pointSizeF():g}pt" if font.pointSizeF() > 0 else f"{font.pixelSize()}px"
    return {"color": color, "font-size": size}


class NumberAxis(pg.AxisItem):
    """An axis of one kind of number; widgets/numbers.py names the kinds."""

    def __init__(self, orientation: str, kind: str = "value") -> None:
        super().__init__(orientation, maxTickLength=-5)
        self.kind = kind
        self._log_step: float | None = None  # distance of even ticks on a log scale that shows less than a decade
        self.enableAutoSIPrefix(False)
        # Minor ticks have no numbers: on a log scale there would be too many.
        self.setStyle(maxTextLevel=0, autoReduceTextSpace=False, autoExpandTextSpace=False)
        self.setTickFont(chart_font())

    def updateAutoSIPrefix(self) -> None:
        """There is none; pyqtgraph would write the name anew."""

    def boundingRect(self) -> QRectF:
        rect: QRectF = super().boundingRect()  # numbers outside of it are left out
        return rect.adjusted(-_STICK_OUT, 0, _STICK_OUT, 0) if self.orientation == "bottom" else rect

    def follow_font(self) -> None:
        """Takes the application's font, if that is another now."""
        if self.style["tickFont"] != chart_font():
            self.setTickFont(chart_font())

    def needed_width(self) -> float:
        """Pixels that numbers and name of a left axis take, for the range that it has."""
        metrics = QFontMetricsF(chart_font())
        low, high = self.range
        texts: list[str] = []
        for spacing, values in self.tickValues(low, high, max(self.size().height(), 1.0))[:1]:
            texts = self.tickStrings([value for value in values if low <= value <= high], 1.0, spacing)
        widest = max((metrics.horizontalAdvance(text) for text in texts), default=0.0)
        name = self.label.boundingRect().height() - _NUDGE if self.label.isVisible() else 0.0
        return math.ceil(widest + _TEXT_OFFSET + _AIR + name)

    def set_room(self, width: float) -> None:
        """Makes a left axis at least so wide, and not much wider."""
        now = self.fixedWidth or 0.0
        if not now - _SLACK <= width <= now:
            self.setWidth(width)

    def fitting_name(self, names: Sequence[str]) -> str:
        """The first of a left axis's names that its height has room for, or the last one's beginning; else nothing."""
        metrics, room = QFontMetricsF(chart_font()), self.size().height()
        beginning = metrics.elidedText(names[-1], Qt.TextElideMode.ElideRight, room)
        short = beginning if len(beginning) > _LEAST_NAME else ""
        return next((name for name in names if metrics.horizontalAdvance(name) <= room), short)

    def write_name(self, name: str, color: str) -> None:
        """Names the axis, in its middle; "" for nothing."""
        self.setLabel(escape(name), **name_style(color))
        self.showLabel(bool(name))
        self.resizeEvent(None)  # or it stands where the name before it had its middle

    def set_kind(self, kind: str) -> None:
        """What its numbers are from now on."""
        self.kind = kind
        self.picture = None
        self.update()

    def tickSpacing(self, minVal: float, maxVal: float, size: float) -> list[tuple[float, float]]:
        """Labelled ticks as close as their texts allow, and a finer level between them."""
        labels = max(2.0, size / (_LABEL_WIDTH if self.orientation == "bottom" else _LABEL_HEIGHT))
        wanted = (maxVal - minVal) / labels
        if wanted <= 0:
            return [(1.0, 0.0)]
        clock = self.kind == "seconds" and wanted > 1
        # From a minute on, no fractions of a second are written: finer ticks would read alike.
        whole = clock or self.kind == "count" or (self.kind == "seconds" and maxVal >= 60)
        least = 1.0 if whole else 0.0
        if clock:
            steps = [*map(float, _CLOCK), 86_400.0 * math.ceil(wanted / 86_400)]
            few = (step for step in steps if step >= wanted)
            fitting = (step for step in few if step >= self._room_for(step, minVal, maxVal, size))
            step = next(fitting, steps[-1])
        else:
            step = max(round_step(wanted), least)
            if self.kind == "seconds":
                step = round_step(max(step, self._room_for(step, minVal, maxVal, size)))
        # A small chart has few: finer ones where they would be too few, as long as their texts do not touch.
        while True:
            finer = max((float(one) for one in _CLOCK if one < step), default=0.0) if clock else round_step(0.4 * step)
            # A text that would stick out is not written, except for a little of those below a plot.
            text = self._room_for(finer or step, minVal, maxVal, size)
            out = 0.0 if self.orientation == "bottom" else text / 2
            enough = math.floor((maxVal - out) / step) - math.ceil((minVal + out) / step) >= _LEAST_LABELS - 1
            if enough or finer < max(least, text):
                break
            step = finer
        return [(step, 0.0), *([(step / 5, 0.0)] if step / 5 >= least and not clock else [])]

    def _room_for(self, step: float, low: float, high: float, size: float) -> float:
        """What the text of the largest number takes along the axis, in its units; of times the widest text, since
        a round one is shorter than others."""
        values = [max(abs(low), abs(high))]
        if self.kind == "seconds":
            values += (np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step).tolist()
        return max(map(self._text_size, ticks(values, step, self.kind))) * (high - low) / size

    def _text_size(self, text: str) -> float:
        """Pixels along the axis that a number takes, with room beside it."""
        metrics = QFontMetricsF(chart_font())
        return metrics.horizontalAdvance(text) + _AIR if self.orientation == "bottom" else metrics.height()

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        if self.logMode:
            return ticks([10.0**value for value in values], self._log_step, self.kind)
        return ticks([value * scale for value in values], spacing * scale, self.kind)

    def logTickValues(self, minVal: float, maxVal: float, size: float, stdTicks: object) -> Ticks:
        """Values are log10. Decades where there are several, 1-2-5 where there are few, else even steps."""
        minVal, maxVal = max(minVal, -300.0), min(maxVal, 300.0)  # float64's own range, whatever was zoomed to
        if minVal >= maxVal:
            return []
        decades = np.arange(math.floor(minVal), math.ceil(maxVal) + 1)
        span = maxVal - minVal
        self._log_step = None
        if span < 0.9:
            low, high = 10.0**minVal, 10.0**maxVal
            if low >= high:  # so near one another that both are the same number
                return []
            least = 1.0 if self.kind == "count" or (self.kind == "seconds" and high >= 60) else 0.0
            step = max(round_step((high - low) / max(2.0, size / _LABEL_WIDTH)), least)
            while True:
                values = np.arange(max(math.ceil(low / step), 1), math.floor(high / step) + 1) * step
                text = max(map(self._text_size, ticks([*values.tolist(), high], step, self.kind)))
                shown = _apart(np.log10(values), text * span / size)
                finer = round_step(0.4 * step)
                if len(shown) >= _LEAST_LABELS or finer < least or len(values) > size / text:
                    break
                step = finer
            self._log_step = step
            return [(step, shown)]
        if self.kind == "seconds":
            shown, minor, label = self._clock_marks(minVal, maxVal, size)
        else:
            shown, minor, label = self._decade_marks(decades, minVal, maxVal, size)
        if len(shown) < _LEAST_LABELS:  # others between them, where there is room
            for value in _within(np.sort(minor)[::-1], minVal, maxVal):
                if all(abs(value - other) * size >= label * span for other in shown):
                    shown.append(value)
        minor = minor[~np.isin(minor.round(9), np.round(shown, 9))]
        return [(1.0, sorted(shown)), (0.1, _within(minor, minVal, maxVal))]

    def _decade_marks(
        self, decades: np.ndarray, low: float, high: float, size: float
    ) -> tuple[list[float], np.ndarray, float]:
        """Places with a text (1-2-5, or powers of ten), all places, and the pixels that one more text would need."""
        span = high - low
        label = float(_LOG_LABEL_WIDTH if self.orientation == "bottom" else _LOG_LABEL_HEIGHT)
        labelled = (1.0,) if span > _FEW_DECADES or math.log10(2) * size / span < label else (1.0, 2.0, 5.0)
        every = max(math.ceil(span / 8) if span > 12 else 1, math.ceil(label * span / max(size, 1.0)))
        if every > 1:
            inside = decades[(decades >= low) & (decades <= high)]
            thinned = inside[inside % every == 0]
            decades = thinned if len(thinned) else inside[:1]
        major = (decades[:, None] + np.log10(labelled)[None, :]).ravel()
        minor = (decades[:, None] + np.log10(np.arange(1, 10))[None, :]).ravel() if span <= 12 else np.empty(0)
        return _within(major, low, high), minor, label if every == 1 else math.inf

    def _clock_marks(self, low: float, high: float, size: float) -> tuple[list[float], np.ndarray, float]:
        """The same for times: 10 s, 1 min, 10 min, 1 h, not the powers of ten of a second."""
        powers = (10.0 ** np.arange(min(math.floor(low), 0), math.ceil(high) + 1)).tolist()
        parts = [*((power, 9, (1, 2, 5)) for power in powers if power < 0.5), *_PARTS]
        parts += [(power * _YEAR, 9, (1, 2, 5)) for power in powers if power > 0.5]
        minor = np.log10([unit * count for unit, most, _ in parts for count in range(1, most + 1)])
        label = max(map(self._text_size, self.tickStrings(_within(minor, low, high), 1.0, 1.0)))
        for most in (3, 1) if high - low <= _FEW_DECADES else (1,):
            values = _within(np.log10([unit * one for unit, _, ones in parts for one in ones[:most]]), low, high)
            shown = _apart(np.array(values), label * (high - low) / max(size, 1.0))
            if len(shown) == len(values):
                break
        return shown, minor, label


def bare_plot(widget: pg.PlotWidget, name: str) -> pg.ViewBox:
    """Takes away the button that pyqtgraph adds to a plot; its view."""
    widget.setAccessibleName(name)
    plot = widget.getPlotItem()
    plot.hideButtons()
    for side in ("top", "right"):  # they are hidden, and would be written anew with each range
        plot.getAxis(side).unlinkFromView()
    plot.setContentsMargins(0, TOP, 10, 0)
    return plot.getViewBox()


def style_plot(widget: pg.PlotWidget, axes: Iterable[NumberAxis]) -> None:
    """The theme's colours; pyqtgraph knows no palette."""
    theme = current_theme()
    widget.setBackground(QColor(theme.surface))
    for axis in axes:
        axis.setPen(pg.mkPen(QColor(theme.quiet)))
        axis.setTextPen(pg.mkPen(QColor(theme.text)))
        axis.setTickPen(pg.mkPen(QColor(theme.grid)))
        axis.setGrid(255)
        axis.setZValue(-1000)  # the grid lies behind the curves
        axis.follow_font()


def round_step(wanted: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `wanted`."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= wanted * (1 - 1e-9))


def _apart(values: np.ndarray, least: float) -> list[float]:
    """Those of ascending values that are at least so far above the one before."""
    kept: list[float] = []
    for value in values.tolist():
        if not kept or value - kept[-1] >= least:
            kept.append(value)
    return kept


def _within(values: np.ndarray, low: float, high: float) -> list[float]:
    return values[(values >= low) & (values <= high)].tolist()
