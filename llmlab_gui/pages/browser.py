"""A text browser for pages: figures are never wider than the text, and come from nowhere but the page's own folder.

A widget can have a place in the page: it stands where the page says `![...](ask:)`, and scrolls with the text.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PySide6.QtCore import QBuffer, QEvent, QObject, QPoint, Qt, QTimer, QUrl, Signal
from PySide6.QtGui import QImage, QImageReader, QPixmap, QResizeEvent, QTextCursor, QTextDocument
from PySide6.QtWidgets import QApplication, QTextBrowser, QWidget

from llmlab_gui.pages.html import page_colors, page_html
from llmlab_gui.pages.page import Page
from llmlab_gui.widgets.theme import LIGHT, current_theme

_MARGIN = 14
_FIGURE_SHARE = 0.7  # of their own pixels: figures are drawn for print
# Of a drawing's own size: what it is drawn in, sharp on dense screens, and what it is shown in where there is room.
_DRAWN_LARGER, _SHOWN_LARGER = 3, 1.2
_NARROW = 560  # pixels of the view, below which wide tables are turned
# While a panel is being dragged wider, figures are not scaled at every pixel.
_RESIZE_MS = 150
GUEST = "ask:"  # the image in whose place the guest stands
_PRESSES = (QEvent.Type.MouseButtonPress, QEvent.Type.MouseMove, QEvent.Type.MouseButtonRelease)


def drawing(path: Path) -> QImage:
    """An SVG file, written in the light theme's colours, in those of the theme in use; null where it is none."""
    ours, drawn = asdict(current_theme()), asdict(LIGHT)
    named = ("surface", "text", "quiet", "grid", "edge", "accent", "good", "warning", "bad")
    colors = {drawn[name]: ours[name] for name in named} | dict(zip(LIGHT.series, current_theme().series, strict=True))
    text = re.sub("#[0-9a-f]{6}", lambda color: colors.get(color[0], color[0]), path.read_text(encoding="utf-8"))
    buffer = QBuffer()
    buffer.setData(text.encode())
    reader = QImageReader(buffer, b"svg")
    reader.setScaledSize(reader.size() * _DRAWN_LARGER)
    image = reader.read()
    image.setDevicePixelRatio(_DRAWN_LARGER * _FIGURE_SHARE / _SHOWN_LARGER)
    return image


class PageBrowser(QTextBrowser):
    """Shows a page in the theme's colours. Links are for others to follow (`anchorClicked`)."""

    width_changed = Signal()  # a while ago: figures may have another size now

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        """name: for screen readers."""
        super().__init__(parent)
        self.setOpenLinks(False)
        # Always there, so that figures do not become wider than the text when it appears.
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        # Everything wraps; Qt's columns of a wide table can still be a pixel or two wider than the page.
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName(name)
        self.document().setDocumentMargin(_MARGIN)
        self._resized = QTimer(self)
        self._resized.setSingleShot(True)
        self._resized.setInterval(_RESIZE_MS)
        self._resized.timeout.connect(self.width_changed)
        self._guest: QWidget | None = None
        self._guest_at = -1  # in the document; -1 where the page has no place for it

    def set_guest(self, guest: QWidget) -> None:
        """The widget that pages with `![...](ask:)` have in that place, as wide as the text and as high as it needs."""
        self._guest = guest
        guest.setParent(self.viewport())
        guest.setCursor(Qt.CursorShape.ArrowCursor)
        guest.hide()
        guest.installEventFilter(self)
        self.document().documentLayout().documentSizeChanged.connect(self._place_guest)
        self.verticalScrollBar().valueChanged.connect(self._place_guest)
        QApplication.instance().focusChanged.connect(self._follow_keyboard)  # type: ignore[union-attr]

    def show_page(self, page: Page, scroll: int) -> None:
        """Renders it anew, scrolled to that place."""
        self._guest_at = -1
        self.setHtml(page_html(page, page_colors(), narrow=self.viewport().width() < _NARROW))
        self._guest_at = self._find_guest()
        self._fit_guest()
        self.verticalScrollBar().setValue(scroll)

    def ensureWidgetVisible(self, widget: QWidget) -> None:
        """Scrolls until a part of the guest is in sight, its upper edge first."""
        self._fit_guest()
        bar, top = self.verticalScrollBar(), widget.mapTo(self.viewport(), QPoint()).y()
        below = top + widget.height() + _MARGIN - self.viewport().height()
        bar.setValue(bar.value() + (min(max(below, 0), top) if top >= 0 else top - _MARGIN))

    def figure(self, name: str) -> QImage | None:
        """The figure that the page calls so; None where there is none."""
        raise NotImplementedError

    def loadResource(self, kind: int, name: QUrl | str) -> Any:
        if kind != QTextDocument.ResourceType.ImageResource.value:
            return None
        file = name if isinstance(name, str) else name.toString()
        if file == GUEST:
            nothing = QPixmap(1, 1)
            nothing.fill(Qt.GlobalColor.transparent)
            return nothing
        image = self.figure(file)
        if image is None or image.isNull():
            return None
        ratio = self.devicePixelRatioF()
        width = round(min(image.deviceIndependentSize().width() * _FIGURE_SHARE, self._room()) * ratio)
        pixmap = QPixmap.fromImage(image.scaledToWidth(width, Qt.TransformationMode.SmoothTransformation))
        pixmap.setDevicePixelRatio(ratio)
        return pixmap

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self._resized.start()
        self._fit_guest()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """The guest gets the height that it asks for, and a click into it marks no text of the page."""
        if watched is self._guest:
            if event.type() == QEvent.Type.LayoutRequest:
                self._fit_guest()
            elif event.type() in _PRESSES:
                return True
        return super().eventFilter(watched, event)

    def _room(self) -> int:
        """Pixels that a figure can have."""
        return max(120, self.viewport().width() - 2 * _MARGIN - 4)

    def _find_guest(self) -> int:
        block = self.document().begin()
        while block.isValid():
            parts = block.begin()
            while not parts.atEnd():
                part = parts.fragment()
                if part.charFormat().isImageFormat() and part.charFormat().toImageFormat().name() == GUEST:
                    return part.position()
                parts += 1
            block = block.next()
        return -1

    def _fit_guest(self) -> None:
        """Its width is the text's; its height is kept free in the page."""
        guest = self._guest
        if guest is None:
            return
        guest.setVisible(self._guest_at >= 0)
        layout = guest.layout()
        if self._guest_at < 0 or layout is None:
            return
        width = self._room()
        guest.resize(width, guest.height())
        layout.activate()
        height = max(layout.totalHeightForWidth(width), layout.totalMinimumSize().height())
        cursor = QTextCursor(self.document())
        cursor.setPosition(self._guest_at)
        cursor.setPosition(self._guest_at + 1, QTextCursor.MoveMode.KeepAnchor)
        kept = cursor.charFormat().toImageFormat()
        if (kept.width(), kept.height()) != (width, height):
            kept.setWidth(width)
            kept.setHeight(height)
            cursor.setCharFormat(kept)
        guest.resize(width, height)
        self._place_guest()

    def _place_guest(self) -> None:
        if self._guest is not None and self._guest_at >= 0:
            cursor = QTextCursor(self.document())
            cursor.setPosition(self._guest_at)
            self._guest.move(self.cursorRect(cursor).topLeft())

    def _follow_keyboard(self, _: QWidget | None, now: QWidget | None) -> None:
        """The whole guest comes to sight where there is room for it, else what has the keyboard."""
        if now is not None and self._guest is not None and self._guest.isAncestorOf(now):
            self._fit_guest()
            whole = self._guest.height() + _MARGIN <= self.viewport().height()
            self.ensureWidgetVisible(self._guest if whole else now)
