"""Any widgets as a file or on the clipboard: a picture at twice the screen's resolution, or a drawing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from PySide6.QtCore import QBuffer, QByteArray, QIODevice, QPoint, QRect, QRectF, QSize
from PySide6.QtGui import QColor, QGuiApplication, QImage, QImageWriter, QPainter
from PySide6.QtSvg import QSvgGenerator
from PySide6.QtWidgets import QGraphicsView, QWidget

from llmlab_gui.widgets.saving import Table, save, save_csv
from llmlab_gui.widgets.theme import current_theme

_SCALE = 2  # for print or a slide, from a window on an ordinary screen


def image_of(widgets: Sequence[QWidget]) -> QImage:
    """The widgets below one another, on the panels' ground."""
    image = QImage(_size(widgets) * _SCALE, QImage.Format.Format_RGB32)
    image.fill(QColor(current_theme().surface))
    image.setDevicePixelRatio(_SCALE)
    painter = QPainter(image)
    _paint(widgets, painter)
    painter.end()
    return image


def copy_picture(widgets: Sequence[QWidget]) -> None:
    """To the clipboard."""
    QGuiApplication.clipboard().setImage(image_of(widgets))


def save_picture(widgets: Sequence[QWidget], path: Path) -> Callable[[], None]:
    """Paints a .png or .svg now; calling what is returned writes the file, in any thread. It raises LabError."""
    buffer = QBuffer()
    if path.suffix.lower() == ".svg":
        size = _size(widgets)
        generator = QSvgGenerator(QSvgGenerator.SvgVersion.Svg11)  # SVG Tiny cannot clip
        generator.setOutputDevice(buffer)
        generator.setSize(size)
        generator.setViewBox(QRect(0, 0, size.width(), size.height()))
        generator.setTitle(path.stem)
        painter = QPainter(generator)
        painter.fillRect(QRect(QPoint(0, 0), size), QColor(current_theme().surface))
        _paint(widgets, painter)
        painter.end()
    else:
        buffer.open(QIODevice.OpenModeFlag.WriteOnly)
        QImageWriter(buffer, QByteArray(b"png")).write(image_of(widgets))
    return partial(save, path, bytes(buffer.data().data()))


def save_shown(widgets: Sequence[QWidget], table: Callable[[], Table], path: Path) -> Callable[[], None]:
    """What is shown as .png or .svg, or its numbers as .csv: calling what is returned writes it, as above."""
    return partial(save_csv, *table(), path) if path.suffix.lower() == ".csv" else save_picture(widgets, path)


def _size(widgets: Sequence[QWidget]) -> QSize:
    return QSize(max(widget.width() for widget in widgets), sum(widget.height() for widget in widgets))


def _paint(widgets: Sequence[QWidget], painter: QPainter) -> None:
    top = 0
    for widget in widgets:
        if isinstance(widget, QGraphicsView):  # its `render` is another one, and leaves the ground out
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            target = QRectF(0, top, widget.width(), widget.height())
            painter.fillRect(target, widget.backgroundBrush())
            widget.render(painter, target, widget.viewport().rect())
        else:
            widget.render(painter, QPoint(0, top))
        top += widget.height()
