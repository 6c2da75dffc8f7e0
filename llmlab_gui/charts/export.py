"""Charts as files: a picture at twice the screen's resolution, a drawing, or the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PySide6.QtCore import QBuffer, QByteArray, QIODevice, QRect, QRectF, QSize
from PySide6.QtGui import QImage, QImageWriter, QPainter
from PySide6.QtSvg import QSvgGenerator

from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.charts.picture import quoted
from llmlab_gui.widgets.saving import save

_SCALE = 2  # a chart for print or a slide, from a window on an ordinary screen


@dataclass(frozen=True)
class Table:
    """One curve's points, as they go into a CSV file."""

    run: str
    curve: str
    unit: str
    x: np.ndarray
    y: np.ndarray


def save_png(charts: Sequence[LineChart], path: Path) -> None:
    """The charts below one another. Raises LabError when the file cannot be written."""
    size = _size(charts)
    image = QImage(size * _SCALE, QImage.Format.Format_RGB32)
    painter = QPainter(image)
    painter.scale(_SCALE, _SCALE)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    _paint(charts, painter)
    painter.end()
    buffer = QBuffer()
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    QImageWriter(buffer, QByteArray(b"png")).write(image)
    save(path, bytes(buffer.data().data()))


def save_svg(charts: Sequence[LineChart], path: Path) -> None:
    """The charts below one another, as lines and text. Raises LabError when the file cannot be written."""
    size = _size(charts)
    generator = QSvgGenerator(QSvgGenerator.SvgVersion.Svg11)  # SVG Tiny cannot clip curves to their plot
    buffer = QBuffer()
    generator.setOutputDevice(buffer)
    generator.setSize(size)
    generator.setViewBox(QRect(0, 0, size.width(), size.height()))
    generator.setTitle(", ".join(chart.y_label for chart in charts))
    painter = QPainter(generator)
    _paint(charts, painter)
    painter.end()
    save(path, bytes(buffer.data().data()))


def tables(charts: Sequence[LineChart]) -> list[Table]:
    """All points of all curves, copied, so that they can be written while the run goes on."""
    found = []
    for chart in charts:
        for curve in chart.curves().values():
            style = curve.style
            found.append(Table(style.group, style.label, chart.y_unit, curve.x.copy(), curve.y.copy()))
    return found


def save_csv(found: Sequence[Table], x_name: str, path: Path) -> None:
    """One row a point: run, curve, unit, x, value, at full precision. Touches no Qt. Raises LabError as above."""
    parts = [f"run,curve,unit,{quoted(x_name)},value\n"]
    for table in found:
        front = ",".join(quoted(text) for text in (table.run, table.curve, table.unit))
        pairs = zip(table.x.tolist(), table.y.tolist(), strict=True)
        parts.append("".join(f"{front},{_number(a)},{_number(b)}\n" for a, b in pairs))
    save(path, "".join(parts).encode())


def _number(value: float) -> str:
    if value != value:
        return ""
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def _size(charts: Sequence[LineChart]) -> QSize:
    return QSize(max(chart.width() for chart in charts), sum(chart.height() for chart in charts))


def _paint(charts: Sequence[LineChart], painter: QPainter) -> None:
    top = 0
    for chart in charts:
        target = QRectF(0, top, chart.width(), chart.height())
        painter.fillRect(target, chart.backgroundBrush())
        chart.render(painter, target, chart.viewport().rect())
        top += chart.height()
