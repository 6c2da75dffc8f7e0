"""Charts as files: a picture at twice the screen's resolution, a drawing, or the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PySide6.QtCore import QRect, QRectF, QSize
from PySide6.QtGui import QImage, QPainter
from PySide6.QtSvg import QSvgGenerator

from llmlab.errors import LabError
from llmlab_gui.charts.line_chart import LineChart

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
    if not image.save(str(path), "PNG"):
        raise LabError(f"{path.name} could not be written.", f"Folder: {path.parent}", "Choose another folder.")


def save_svg(charts: Sequence[LineChart], path: Path) -> None:
    """The charts below one another, as lines and text. Raises LabError when the file cannot be written."""
    size = _size(charts)
    generator = QSvgGenerator(QSvgGenerator.SvgVersion.Svg11)  # SVG Tiny cannot clip curves to their plot
    generator.setFileName(str(path))
    generator.setSize(size)
    generator.setViewBox(QRect(0, 0, size.width(), size.height()))
    generator.setTitle(", ".join(chart.y_label for chart in charts))
    painter = QPainter()
    if not painter.begin(generator):
        raise LabError(f"{path.name} could not be written.", f"Folder: {path.parent}", "Choose another folder.")
    _paint(charts, painter)
    painter.end()


def tables(charts: Sequence[LineChart]) -> list[Table]:
    """All points of all curves, copied, so that they can be written while the run goes on."""
    found = []
    for chart in charts:
        for curve in chart.curves().values():
            style = curve.style
            found.append(Table(style.group, style.label, chart.y_unit, curve.x.copy(), curve.y.copy()))
    return found


def save_csv(found: Sequence[Table], x_name: str, path: Path) -> None:
    """One row a point: run, curve, unit, x, value, at full precision. No Qt; OSError when it cannot be written."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"run,curve,unit,{_quoted(x_name)},value\n")
        for table in found:
            front = ",".join(_quoted(text) for text in (table.run, table.curve, table.unit))
            for begin in range(0, len(table.x), 10_000):
                x, y = (column[begin : begin + 10_000].tolist() for column in (table.x, table.y))
                file.write("".join(f"{front},{_number(a)},{_number(b)}\n" for a, b in zip(x, y, strict=True)))


def _number(value: float) -> str:
    if value != value:
        return ""
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\n\r') else text


def _size(charts: Sequence[LineChart]) -> QSize:
    return QSize(max(chart.width() for chart in charts), sum(chart.height() for chart in charts))


def _paint(charts: Sequence[LineChart], painter: QPainter) -> None:
    top = 0
    for chart in charts:
        target = QRectF(0, top, chart.width(), chart.height())
        painter.fillRect(target, chart.backgroundBrush())
        chart.render(painter, target, chart.viewport().rect())
        top += chart.height()
