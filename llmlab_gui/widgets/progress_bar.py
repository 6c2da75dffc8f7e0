"""A progress bar that shows plainly when nobody knows how far the work is."""

from __future__ import annotations

import time

from PySide6.QtGui import QPaintEvent
from PySide6.QtWidgets import QProgressBar, QStyle, QStyleOptionProgressBar, QStylePainter

from llmlab_gui.widgets.layouts import settling_timer

_BLOCK = 0.3  # of the width
_SECONDS = 1.6  # from one end to the other
_FRAME_MS = 40


class ProgressBar(QProgressBar):
    """In a range from 0 to 0 a block goes to and fro; the stripes of Fusion fill the bar, as if all were done."""

    def __init__(self, *, text: bool = False) -> None:
        super().__init__(textVisible=text)
        self._frame = settling_timer(self, _FRAME_MS, self.update)

    def paintEvent(self, event: QPaintEvent) -> None:
        if self.maximum() > self.minimum():
            super().paintEvent(event)
            return
        option = QStyleOptionProgressBar()
        self.initStyleOption(option)
        with (painter := QStylePainter(self)):
            painter.drawControl(QStyle.ControlElement.CE_ProgressBarGroove, option)
            option.maximum = option.progress = 1
            width = int(_BLOCK * self.width())
            there_and_back = time.monotonic() / _SECONDS % 2
            left = int(min(there_and_back, 2 - there_and_back) * (self.width() - width))
            option.rect.setRect(left, 0, width, self.height())
            painter.drawControl(QStyle.ControlElement.CE_ProgressBarContents, option)
        self._frame.start()
