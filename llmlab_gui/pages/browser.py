"""A text browser for pages: figures are never wider than the text, and come from nowhere but the page's own folder."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PySide6.QtCore import QBuffer, Qt, QTimer, QUrl, Signal
from PySide6.QtGui import QImage, QImageReader, QPixmap, QResizeEvent, QTextDocument
from PySide6.QtWidgets import QTextBrowser, QWidget

from llmlab_gui.pages.html import page_colors, page_html
from llmlab_gui.pages.page import Page
from llmlab_gui.widgets.theme import LIGHT, current_theme

_MARGIN = 14
_FIGURE_SHARE = 0.7  # of their own pixels: figures are drawn for print
_DRAWN_LARGER = 2  # than a drawing says: it stays sharp on dense screens
# While a panel is being dragged wider, figures are not scaled at every pixel.
_RESIZE_MS = 150


def drawing(path: Path) -> QImage:
    """An SVG file, written in the light theme's colours, in those of the theme in use; null where it is none."""
    ours, drawn = asdict(current_theme()), asdict(LIGHT)
    colors = {drawn[name]: ours[name] for name in ("surface", "text", "quiet", "grid", "edge", "accent")}
    text = re.sub("#[0-9a-f]{6}", lambda color: colors.get(color[0], color[0]), path.read_text(encoding="utf-8"))
    buffer = QBuffer()
    buffer.setData(text.encode())
    reader = QImageReader(buffer, b"svg")
    reader.setScaledSize(reader.size() * _DRAWN_LARGER)
    return reader.read()


class PageBrowser(QTextBrowser):
    """Shows a page in the theme's colours. Links are for others to follow (`anchorClicked`)."""

    width_changed = Signal()  # a while ago: figures may have another size now

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        """name: for screen readers."""
        super().__init__(parent)
        self.setOpenLinks(False)
        # Always there, so that figures do not become wider than the text when it appears.
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        self.setAccessibleName(name)
        self.document().setDocumentMargin(_MARGIN)
        self._resized = QTimer(self)
        self._resized.setSingleShot(True)
        self._resized.setInterval(_RESIZE_MS)
        self._resized.timeout.connect(self.width_changed)

    def show_page(self, page: Page, scroll: int) -> None:
        """Renders it anew, scrolled to that place."""
        self.setHtml(page_html(page, page_colors()))
        self.verticalScrollBar().setValue(scroll)

    def figure(self, name: str) -> QImage | None:
        """The figure that the page calls so; None where there is none."""
        raise NotImplementedError

    def loadResource(self, kind: int, name: QUrl | str) -> Any:
        if kind != QTextDocument.ResourceType.ImageResource.value:
            return None
        image = self.figure(name if isinstance(name, str) else name.toString())
        if image is None or image.isNull():
            return None
        ratio = self.devicePixelRatioF()
        room = max(120, self.viewport().width() - 2 * _MARGIN - 4)
        width = round(min(image.width() * _FIGURE_SHARE, room) * ratio)
        pixmap = QPixmap.fromImage(image.scaledToWidth(width, Qt.TransformationMode.SmoothTransformation))
        pixmap.setDevicePixelRatio(ratio)
        return pixmap

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self._resized.start()
