"""The bar that says which number a colour is, as a part of a plot: it is exported with it."""

from __future__ import annotations

import pyqtgraph as pg
from PySide6.QtCore import QRectF
from PySide6.QtGui import QPainter
from PySide6.QtWidgets import QStyleOptionGraphicsItem, QWidget

from llmlab_gui.charts.color_scale import ColorScale
from llmlab_gui.charts.scale_bar import WIDTH, paint_scale

_TOP, _LEFT = 8.0, 8.0


class ScaleItem(pg.GraphicsWidget):
    """Takes room at the right of a plot while there is a scale to show."""

    def __init__(self, plot: pg.PlotItem) -> None:
        super().__init__()
        self._scale: ColorScale | None = None
        self._words = ""
        plot.layout.addItem(self, 2, 5)
        self.show_scale(None)

    def show_scale(self, scale: ColorScale | None, words: str = "") -> None:
        """words: what the colour says, under the bar."""
        self._scale, self._words = scale, words
        self.setFixedWidth(WIDTH + _LEFT if scale is not None else 0)
        self.setVisible(scale is not None)
        self.update()

    def paint(self, painter: QPainter, option: QStyleOptionGraphicsItem, widget: QWidget | None = None) -> None:
        if self._scale is not None:
            room = QRectF(self.rect()).adjusted(_LEFT, _TOP, 0, -_TOP)
            paint_scale(painter, room, self._scale, self._words, "value", log=False)
