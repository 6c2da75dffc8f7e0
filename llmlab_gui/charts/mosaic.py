"""All attention heads at once: a thumbnail each, layers below one another, painted as one image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import (
    QColor,
    QFontMetricsF,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
)

from llmlab_gui.charts.cell_map import NONE, PAD, CellMap, Indices, indexed, picture_of
from llmlab_gui.charts.color_scale import ColorScale, Values, from_ground
from llmlab_gui.charts.side_labels import spaced
from llmlab_gui.widgets.theme import current_theme, faded

# Decades of a logarithmic scale: a thumbnail of 64 tokens has a hundredth everywhere.
_DECADES = 3.0
_GAP = 2  # pixels between thumbnails
_LEAST, _MOST = 7, 120  # pixels of a thumbnail's side
_DIMMED = 0.82  # of the panel's colour over heads that are filtered out


class Mosaic(CellMap):
    """Its cells are heads, each at (layer, head)."""

    def __init__(self) -> None:
        super().__init__("All attention heads, layer by layer")
        self.describe: Callable[[int, int], str] = lambda layer, head: f"Layer {layer}, head {head}"
        self._thumbs: Values | None = None
        self._dimmed: npt.NDArray[np.bool_] | None = None
        self._image: QImage | None = None
        self._side = _LEAST
        self._corner = QPointF()

    def show_heads(self, thumbs: Values) -> None:
        """[L, H, S, S]: from 0 to 1; NaN where a layer has no pattern."""
        self._thumbs = np.asarray(thumbs)
        if self._dimmed is not None and self._dimmed.shape != self._thumbs.shape[:2]:
            self._dimmed = None
        self.under = NONE
        self._place()
        self.forget_picture()

    def forget_picture(self) -> None:
        self._image = None
        self.update()

    def dim(self, dimmed: npt.NDArray[np.bool_] | None) -> None:
        """[L, H]: the heads to fade; None for none."""
        self._dimmed = dimmed
        self.update()

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and heads."""
        return (0, 0) if self._thumbs is None else (self._thumbs.shape[0], self._thumbs.shape[1])

    def scale(self) -> ColorScale:
        """The colours in use."""
        scale = from_ground(1.0)
        return ColorScale(-_DECADES, 0.0, scale.table) if self.log else scale

    def rect_of(self, layer: int, head: int) -> QRectF:
        """Where a head's thumbnail is."""
        step = self._side + _GAP
        return QRectF(self._corner.x() + head * step, self._corner.y() + layer * step, self._side, self._side)

    def cell_at(self, point: QPointF) -> tuple[int, int]:
        step = self._side + _GAP
        head, layer = int((point.x() - self._corner.x()) // step), int((point.y() - self._corner.y()) // step)
        layers, heads = self.shape
        return (layer, head) if 0 <= layer < layers and 0 <= head < heads else (-1, -1)

    def sizeHint(self) -> QSize:
        return QSize(260, 320)

    def minimumSizeHint(self) -> QSize:
        layers, heads = self.shape
        step = _LEAST + _GAP
        return QSize(int(self._left() + heads * step + PAD), int(self._top() + layers * step + self._line() + PAD))

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._place()
        self._image = None

    # Painting ----------------------------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        with QPainter(self) as painter:
            painter.fillRect(QRectF(0, 0, self.width(), self.height()), QColor(theme.surface))
            if self._thumbs is not None and self._thumbs.size:
                if self._image is None:
                    self._image = self._compose()
                painter.drawImage(self._corner, self._image)
                self._paint_dimmed(painter)
                self._paint_labels(painter)
                self._paint_marks(painter)
                self._paint_line(painter)

    def _compose(self) -> QImage:
        """One image of all thumbnails, a pixel of it a pixel of the screen."""
        assert self._thumbs is not None
        theme, ratio = current_theme(), self.devicePixelRatioF()
        side, gap = round(self._side * ratio), round(_GAP * ratio)
        cells = indexed(resized(self._thumbs, side), self.scale(), log=self.log)
        image = picture_of(grid(cells, gap), self.scale(), theme.grid)
        image.setDevicePixelRatio(ratio)
        return image

    def _paint_dimmed(self, painter: QPainter) -> None:
        if self._dimmed is None:
            return
        veil = faded(current_theme().surface, _DIMMED)
        for layer, head in zip(*np.nonzero(self._dimmed), strict=True):
            painter.fillRect(self.rect_of(int(layer), int(head)), veil)

    def _paint_labels(self, painter: QPainter) -> None:
        theme, metrics = current_theme(), QFontMetricsF(self.font())
        layers, heads = self.shape
        step = self._side + _GAP
        pointed = self.under if self.under[0] >= 0 else self.chosen
        line = self._line()
        right, center = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, Qt.AlignmentFlag.AlignCenter
        painter.setPen(QColor(theme.quiet))
        painter.drawText(QRectF(0, 0, self._corner.x() - PAD, line), right, "layer")
        painter.drawText(QRectF(self._corner.x(), 0, heads * step, line), Qt.AlignmentFlag.AlignLeft, "head")
        for layer in spaced(range(layers), step, line * 0.95, {pointed[0]}):
            painter.setPen(QColor(theme.accent if layer == pointed[0] else theme.text))
            place = QRectF(0, self.rect_of(layer, 0).center().y() - line / 2, self._corner.x() - PAD, line)
            painter.drawText(place, right, str(layer))
        for head in spaced(range(heads), step, metrics.horizontalAdvance("00") + 4, {pointed[1]}):
            painter.setPen(QColor(theme.accent if head == pointed[1] else theme.text))
            place = QRectF(self.rect_of(0, head).center().x() - 20, line, 40, line)
            painter.drawText(place, center, str(head))

    def _paint_marks(self, painter: QPainter) -> None:
        theme = current_theme()
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for cell, color, width in ((self.under, theme.text, 1.0), (self.chosen, theme.accent, 2.5)):
            if cell[0] >= 0 and cell[0] < self.shape[0] and cell[1] < self.shape[1]:
                painter.setPen(QPen(QColor(color), width))
                painter.drawRect(self.rect_of(*cell).adjusted(-1, -1, 1, 1))

    def _paint_line(self, painter: QPainter) -> None:
        """The head under the mouse in words, else the chosen one."""
        cell = self.under if self.under[0] >= 0 else self.chosen
        if cell[0] >= 0:
            self.paint_line(painter, self.describe(*cell), current_theme().text, self._line())

    # Mouse and keys ----------------------------------------------------------------------------------------------

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self.point(self.cell_at(event.position()))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        cell = self.cell_at(event.position())
        if event.button() == Qt.MouseButton.LeftButton and cell[0] >= 0:
            self.clicked.emit(*cell)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        cell = self.reached(event.key(), self.shape)
        if cell is None:
            super().keyPressEvent(event)
        else:
            self.clicked.emit(*cell)

    # Places ------------------------------------------------------------------------------------------------------

    def _line(self) -> float:
        return QFontMetricsF(self.font()).height() + 2

    def _left(self) -> float:
        return QFontMetricsF(self.font()).horizontalAdvance("layer") + 2 * PAD

    def _top(self) -> float:
        return 2 * self._line()

    def _place(self) -> None:
        layers, heads = self.shape
        if not layers or not heads:
            return
        self._corner = QPointF(round(self._left()), round(self._top()))
        across = (self.width() - self._corner.x() - PAD) / heads
        down = (self.height() - self._corner.y() - self._line() - PAD) / layers
        side = int(min(max(min(across, down) - _GAP, _LEAST), _MOST))
        if side != self._side:
            self._side, self._image = side, None
        self.updateGeometry()


def resized(thumbs: Values, side: int) -> Values:
    """[L, H, S, S] as [L, H, side, side]: each pixel the largest of what it covers."""
    size = thumbs.shape[-1]
    if side >= size:
        places = np.arange(side) * size // side
        return thumbs[..., places, :][..., places]
    starts = np.arange(side) * size // side
    return np.fmax.reduceat(np.fmax.reduceat(thumbs, starts, axis=-2), starts, axis=-1)


def grid(cells: Indices, gap: int) -> Indices:
    """[L, H, s, s] as one image, 255 between the thumbnails and around none of them."""
    layers, heads, side, _ = cells.shape
    wide = np.full((layers, side + gap, heads, side + gap), 255, np.uint8)
    wide[:, :side, :, :side] = cells.transpose(0, 2, 1, 3)
    whole = wide.reshape(layers * (side + gap), heads * (side + gap))
    return np.ascontiguousarray(whole[: whole.shape[0] - gap, : whole.shape[1] - gap])
