"""Any widgets as a file or on the clipboard: a picture at twice the screen's resolution, or a drawing.

Under a title, charts take a shape of their own, 16:9, whatever their dock's is; other widgets are drawn as they stand.
The points of curves are a table, copied while a run goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeGuard

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QBuffer, QByteArray, QCoreApplication, QIODevice, QPoint, QRect, QRectF, QSize, Qt
from PySide6.QtGui import (
    QColor,
    QFont,
    QFontMetrics,
    QGuiApplication,
    QImage,
    QImageWriter,
    QPainter,
    QPicture,
    QResizeEvent,
)
from PySide6.QtSvg import QSvgGenerator
from PySide6.QtWidgets import QGraphicsItem, QGraphicsView, QWidget

from llmlab_gui.charts.cell_map import PICTURED
from llmlab_gui.charts.figure_chart import FigureChart
from llmlab_gui.charts.line_chart import LineChart, align
from llmlab_gui.widgets.labels import breakable
from llmlab_gui.widgets.saving import Table, quoted, save, save_csv
from llmlab_gui.widgets.theme import current_theme

_SCALE = 2  # for print or a slide, from a window on an ordinary screen
_FIGURE = QSize(800, 450)  # of charts: 1600 x 900 pixels in a picture
_TITLE_AIR = 8  # pixels around the title


def image_of(widgets: Sequence[QWidget], title: str = "", note: str = "") -> QImage:
    """The widgets below one another, on the panels' ground. title: above them; else the first one's name.

    note: what a reader of charts has to know, under their title.
    """
    title = breakable(title or widgets[0].accessibleName())
    image = QImage(_size(widgets, title) * _SCALE, QImage.Format.Format_RGB32)
    image.fill(QColor(current_theme().surface))
    image.setDevicePixelRatio(_SCALE)
    with QPainter(image) as painter:
        _paint(widgets, painter, title, note)
    return image


def copy_picture(widgets: Sequence[QWidget], title: str = "") -> None:
    """To the clipboard."""
    QGuiApplication.clipboard().setImage(image_of(widgets, title))


def save_picture(widgets: Sequence[QWidget], path: Path, title: str = "", note: str = "") -> Callable[[], None]:
    """Paints a .png or .svg now; calling what is returned writes the file, in any thread. It raises LabError."""
    buffer = QBuffer()
    if path.suffix.lower() == ".svg":
        words = breakable(title or widgets[0].accessibleName())
        size = _size(widgets, words)
        generator = QSvgGenerator(QSvgGenerator.SvgVersion.Svg11)  # SVG Tiny cannot clip
        generator.setOutputDevice(buffer)
        generator.setSize(size)
        generator.setResolution(QPicture().logicalDpiX())  # axes are replayed, and shrink to the ratio of the two
        generator.setViewBox(QRect(0, 0, size.width(), size.height()))
        generator.setTitle(title or path.stem)
        with QPainter(generator) as painter:
            painter.fillRect(QRect(QPoint(0, 0), size), QColor(current_theme().surface))
            _paint(widgets, painter, words, note)
        # A machine without the font falls back to serifs.
        drawing = re.sub(rb'font-family="([^"]+)"', rb'font-family="\1, sans-serif"', buffer.data().data())
        return partial(save, path, drawing)
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    QImageWriter(buffer, QByteArray(b"png")).write(image_of(widgets, title, note))
    return partial(save, path, bytes(buffer.data().data()))


def save_shown(
    widgets: Sequence[QWidget], table: Callable[[], Table], path: Path, title: str = ""
) -> Callable[[], None]:
    """What is shown as .png or .svg, or its numbers as .csv: calling what is returned writes it, as above."""
    return partial(save_csv, *table(), path) if path.suffix.lower() == ".csv" else save_picture(widgets, path, title)


def save_curves(
    charts: Sequence[LineChart], x_name: str, path: Path, title: str = "", note: str = ""
) -> Callable[[], None]:
    """Charts as .png or .svg, or the points of their curves as .csv."""
    if path.suffix.lower() == ".csv":
        return partial(save_points, points(charts), x_name, path)
    return save_picture(charts, path, title, note)


def _are_charts(widgets: Sequence[QWidget]) -> TypeGuard[Sequence[LineChart | FigureChart]]:
    return all(isinstance(widget, (LineChart, FigureChart)) for widget in widgets)


def _size(widgets: Sequence[QWidget], words: str) -> QSize:
    if _are_charts(widgets):
        return _FIGURE
    width = max(widget.width() for widget in widgets)
    return QSize(width, sum(widget.height() for widget in widgets) + _title_height(words, width))


def _title_font() -> QFont:
    font = QFont(QGuiApplication.font())
    font.setBold(True)
    return font


def _title_height(words: str, width: int) -> int:
    """Of as many lines as it takes."""
    room = QRect(0, 0, width - 2 * _TITLE_AIR, _FIGURE.height())
    return QFontMetrics(_title_font()).boundingRect(room, Qt.TextFlag.TextWordWrap, words).height() + 2 * _TITLE_AIR


def _paint(widgets: Sequence[QWidget], painter: QPainter, title: str, note: str) -> None:
    width = _size(widgets, title).width()
    top = _title_height(title, width)
    painter.setFont(_title_font())
    painter.setPen(QColor(current_theme().text))
    place = QRect(_TITLE_AIR, 0, width - 2 * _TITLE_AIR, top)
    painter.drawText(place, Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextWordWrap, title)
    if not _are_charts(widgets):
        _paint_below(widgets, painter, top)
        return
    if note:
        painter.setFont(QGuiApplication.font())
        place = QRect(_TITLE_AIR, top - _TITLE_AIR // 2, place.width(), _FIGURE.height())
        place = painter.boundingRect(place, Qt.TextFlag.TextWordWrap, note)
        painter.drawText(place, Qt.TextFlag.TextWordWrap, note)
        top = place.bottom() + _TITLE_AIR
    with _of_height(widgets, _FIGURE.height() - top):
        _paint_below(widgets, painter, top)


@contextmanager
def _of_height(charts: Sequence[LineChart | FigureChart], height: int) -> Iterator[None]:
    """The charts laid out for a figure in which they share that height as they do now; then as they were."""
    sizes = [chart.size() for chart in charts]
    whole = max(1, sum(size.height() for size in sizes))
    try:
        for chart, size in zip(charts, sizes, strict=True):
            chart.setUpdatesEnabled(False)  # nobody sees it
            _resize(chart, QSize(_FIGURE.width(), height * size.height() // whole))
        lines = [chart for chart in charts if isinstance(chart, LineChart)]
        align(lines)
        for chart in lines:
            _lay_out(chart)
        yield
    finally:
        for chart, size in zip(charts, sizes, strict=True):
            _resize(chart, size)
            chart.setUpdatesEnabled(True)


def _resize(chart: LineChart | FigureChart, size: QSize) -> None:
    before = chart.size()
    chart.resize(size)
    QCoreApplication.sendEvent(chart, QResizeEvent(size, before))  # Qt itself tells a hidden one later
    _lay_out(chart)


def _lay_out(chart: LineChart | FigureChart) -> None:
    for _ in range(2):  # names and numbers that fit change how much room there is
        chart.lay_out()
        chart.getPlotItem().layout.activate()


def _paint_below(widgets: Sequence[QWidget], painter: QPainter, top: int) -> None:
    for widget in widgets:
        if isinstance(widget, QGraphicsView):  # its `render` is another one, and leaves the ground out
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            target = QRectF(0, top, widget.width(), widget.height())
            painter.fillRect(target, widget.backgroundBrush())
            with _uncached(widget):
                widget.render(painter, target, widget.rect())
        else:
            widget.setProperty(PICTURED, True)
            widget.render(painter, QPoint(0, top))
            widget.setProperty(PICTURED, False)
        top += widget.height()


@contextmanager
def _uncached(view: QGraphicsView) -> Iterator[None]:
    """What is kept as pixels for the screen, axes and symbols, drawn as lines and text."""
    cached = [(item, item.cacheMode()) for item in view.items() if item.cacheMode() != QGraphicsItem.CacheMode.NoCache]
    symbols = [item for item in view.items() if isinstance(item, pg.ScatterPlotItem)]
    for item, _ in cached:
        item.setCacheMode(QGraphicsItem.CacheMode.NoCache)
    for item in symbols:
        item.setExportMode(True)
    try:
        yield
    finally:
        for item, mode in cached:
            item.setCacheMode(mode)
        for item in symbols:
            item.setExportMode(False)


@dataclass(frozen=True)
class Points:
    """One curve's points, as they go into a CSV file."""

    run: str
    curve: str
    unit: str
    x: np.ndarray
    y: np.ndarray


def points(charts: Sequence[LineChart]) -> list[Points]:
    """All points of all curves, copied, so that they can be written while the run goes on."""
    found = []
    for chart in charts:
        for curve in chart.curves().values():
            style = curve.style
            found.append(Points(style.group, style.label, chart.y_unit, curve.x.copy(), curve.y.copy()))
    return found


def save_points(found: Sequence[Points], x_name: str, path: Path) -> None:
    """One row a point: run, curve, unit, x, value, at full precision. Touches no Qt. Raises LabError."""
    parts = [f"run,curve,unit,{quoted(x_name)},value\n"]
    for one in found:
        front = ",".join(quoted(text) for text in (one.run, one.curve, one.unit))
        pairs = zip(one.x.tolist(), one.y.tolist(), strict=True)
        parts.append("".join(f"{front},{_number(a)},{_number(b)}\n" for a, b in pairs))
    save(path, "".join(parts).encode())


def _number(value: float) -> str:
    if value != value:
        return ""
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
