"""A text browser for pages: figures and formulas are never wider than the text.

Figures come from nowhere but the page's own folder. A widget can have a place in the page: it stands where the page
says `![...](ask:)`, and scrolls with the text.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
from PySide6.QtCore import (
    QBuffer,
    QEvent,
    QMimeData,
    QObject,
    QPoint,
    QRegularExpression,
    QSize,
    Qt,
    QTimer,
    QUrl,
    Signal,
)
from PySide6.QtGui import QFontInfo, QImage, QImageReader, QKeyEvent, QPixmap, QResizeEvent, QTextCursor, QTextDocument
from PySide6.QtWidgets import QApplication, QTextBrowser, QTextEdit, QWidget

from llmlab_gui.pages.formulas import SIZE, draw, drawing_of, formulas_of, not_tried
from llmlab_gui.pages.html import FORMULA, JOINER, UNSEEN, page_colors, page_html
from llmlab_gui.pages.page import Page, figures_of
from llmlab_gui.pages.search import BEGINNING
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.theme import LIGHT, current_theme

_MARGIN = 14
_FIGURE_SHARE = 0.7  # of their own pixels: figures are drawn for print
# Of a drawing's own size: what it is drawn in, sharp on dense screens, and what it is shown in where there is room.
_DRAWN_LARGER, _SHOWN_LARGER = 3, 1.2
_COLORED = 64  # by which the channels of a colour differ at least, of 255, and those of a grey less
_FORMULA_LARGER = 1.25  # than the font of the text: the small letters of formulas are smaller
_QUOTE = 3 + 20  # pixels that the box of a formula takes from its width: its edge, and what is left free beside it
_PICTURE = "\ufffc"  # stands for one in the text of a document
# While a panel is being dragged wider, figures are not scaled at every pixel.
_RESIZE_MS = 150
_OF_A_WIDTH = ("\n| ---", "\n```", "\n@code ")
GUEST = "ask:"  # the image in whose place the guest stands


class Place(NamedTuple):
    """What is seen first of a page: a block by its number, and the share of its height that is above."""

    block: int
    above: float


TOP = Place(0, 0.0)
_PRESSES = (QEvent.Type.MouseButtonPress, QEvent.Type.MouseMove, QEvent.Type.MouseButtonRelease)


def drawing(path: Path) -> QImage:
    """An SVG file, written in the light theme's colours, in those of the theme in use; null where it is none."""
    image = _painted(path.read_text(encoding="utf-8"), _DRAWN_LARGER)
    image.setDevicePixelRatio(_DRAWN_LARGER * _FIGURE_SHARE / _SHOWN_LARGER)
    return image


def chart(image: QImage) -> QImage:
    """A chart that was drawn on white, for the theme in use: on a dark one light and dark change places, hues stay."""
    theme = current_theme()
    if theme is LIGHT:
        return image
    turned = image.convertToFormat(QImage.Format.Format_RGBA8888)
    colors = np.frombuffer(turned.bits(), np.uint8).reshape(turned.height(), turned.width(), 4)
    channels = [colors[..., channel].astype(np.int16) for channel in range(3)]
    high, low = np.maximum.reduce(channels), np.minimum.reduce(channels)
    lighter = 255 - high - low
    # Light colours stay as they are, so that no curve is lost on the dark ground.
    lighter = np.where(lighter < 0, lighter * np.maximum(0, _COLORED - high + low) // _COLORED, lighter)
    grounds, inks = ([int(color[at : at + 2], 16) for at in (1, 3, 5)] for color in (theme.surface, theme.text))
    for channel, (values, ground, ink) in enumerate(zip(channels, grounds, inks, strict=True)):
        colors[..., channel] = np.linspace(ground, ink, 256).astype(np.uint8)[values + lighter]
    return turned


def pattern_of(*words: str) -> QRegularExpression:
    """What finds these words, or beginnings of words, in a page: small or large, whatever in them is not seen."""
    found = "|".join(QRegularExpression.escape(word).replace("-", f"-{JOINER}?") for word in words)
    options = QRegularExpression.PatternOption
    kinds = options.CaseInsensitiveOption | options.UseUnicodePropertiesOption
    return QRegularExpression(f"{BEGINNING}(?:{found})", kinds)


def _painted(svg: str, larger: float, widest: int | None = None) -> QImage:
    """widest: pixels that it is no wider than."""
    ours, drawn = asdict(current_theme()), asdict(LIGHT)
    named = ("surface", "text", "quiet", "grid", "edge", "accent", "good", "warning", "bad")
    colors = {drawn[name]: ours[name] for name in named} | dict(zip(LIGHT.series, current_theme().series, strict=True))
    text = re.sub("#[0-9a-f]{6}", lambda color: colors.get(color[0], color[0]), svg)
    buffer = QBuffer()
    buffer.setData(text.encode())
    reader = QImageReader(buffer, b"svg")
    size = reader.size() * larger
    if widest is not None and size.width() > widest:
        size = size.scaled(QSize(widest, size.height()), Qt.AspectRatioMode.KeepAspectRatio)
    reader.setScaledSize(size)
    return reader.read()


def _is_enter(event: QEvent) -> bool:
    if not isinstance(event, QKeyEvent) or event.type() != QEvent.Type.KeyPress:
        return False
    return event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)


class PageBrowser(QTextBrowser):
    """Shows a page in the theme's colours. Links are for others to follow (`anchorClicked`)."""

    stale = Signal()  # figures may have another size now, or formulas be drawn: to be shown anew

    def __init__(self, name: str, background: Background) -> None:
        """name: for screen readers. background: draws formulas, and is ended by whoever made it."""
        super().__init__()
        self._background = background
        self._text = ""
        self._kept: Place | None = None  # while its width changes
        self.setOpenLinks(False)
        # Always there, so that figures do not become wider than the text when it appears.
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        # Everything wraps; Qt's columns of a wide table can still be a pixel or two wider than the page.
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName(name)
        self.document().setDocumentMargin(_MARGIN)
        self._resized = QTimer(self, singleShot=True, interval=_RESIZE_MS)
        self._resized.timeout.connect(self._fit)
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

    def show_page(self, page: Page, place: Place = TOP) -> None:
        """Renders it anew, scrolled to that place."""
        self._text, self._kept = page.text, None
        self._guest_at = -1
        self.setHtml(page_html(page, page_colors(), room=self._room()))
        self._guest_at = self._find_guest()
        self._fit_guest()
        self._go_to(place)
        if sources := not_tried(page.text):
            self._background.run(
                partial(draw, sources, self._background.check), lambda _: self.stale.emit(), lambda _: None
            )

    def place(self) -> Place:
        """What is seen first: found again whatever the width of the page, and as long as its blocks are the same."""
        top = self.verticalScrollBar().value()
        if self._kept is not None or not top:
            return self._kept or TOP
        block = self.cursorForPosition(QPoint()).block()
        rect = self.document().documentLayout().blockBoundingRect(block)
        return Place(block.blockNumber(), max(0.0, top - rect.top()) / max(rect.height(), 1.0))

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
        address = name if isinstance(name, str) else name.toString(QUrl.ComponentFormattingOption.FullyEncoded)
        if address == GUEST:
            nothing = QPixmap(1, 1)
            nothing.fill(Qt.GlobalColor.transparent)
            return nothing
        ratio = self.devicePixelRatioF()
        if address.startswith(FORMULA):
            larger = QFontInfo(self.font()).pixelSize() * _FORMULA_LARGER / SIZE
            svg = drawing_of(unquote(address.removeprefix(FORMULA)))
            formula = QPixmap.fromImage(_painted(svg, larger * ratio, round((self._room() - _QUOTE) * ratio)))
            formula.setDevicePixelRatio(ratio)
            return formula
        image = self.figure(unquote(address))
        if image is None or image.isNull():
            return None
        width = round(min(image.deviceIndependentSize().width() * _FIGURE_SHARE, self._room()) * ratio)
        pixmap = QPixmap.fromImage(image.scaledToWidth(width, Qt.TransformationMode.SmoothTransformation))
        pixmap.setDevicePixelRatio(ratio)
        return pixmap

    def createMimeDataFromSelection(self) -> QMimeData:
        """What is copied: of a formula its source, instead of its picture; of a command what can be run."""
        selected = self.textCursor().selection()
        copied = QMimeData()
        copied.setText(re.sub(f"[{_PICTURE}{JOINER}]", "", selected.toPlainText()))
        copied.setHtml(re.sub(f'<img src="{FORMULA}[^>]*>|{JOINER}', "", selected.toHtml()).replace(UNSEEN, ""))
        return copied

    def resizeEvent(self, event: QResizeEvent) -> None:
        wider = event.size().width() != event.oldSize().width()
        if wider:
            self._kept = self.place()
            self._resized.start()
        super().resizeEvent(event)
        self._fit_guest()
        if wider:
            self._go_to(self._kept or TOP)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """The guest gets the height that it asks for. A click into it marks no text, and Enter follows no link."""
        if watched is self._guest:
            if event.type() == QEvent.Type.LayoutRequest:
                self._fit_guest()
            elif event.type() in _PRESSES or _is_enter(event):
                return True
        return super().eventFilter(watched, event)

    def _go_to(self, place: Place) -> None:
        rect = self.document().documentLayout().blockBoundingRect(self.document().findBlockByNumber(place.block))
        self.verticalScrollBar().setValue(0 if place == TOP else round(rect.top() + place.above * rect.height()))

    def _room(self) -> int:
        """Pixels that a figure can have."""
        return max(120, self.viewport().width() - 2 * _MARGIN - 4)

    def focusNextPrevChild(self, forward: bool) -> bool:
        """Tab goes from link to link, but within the guest from one of its controls to the next."""
        if self._guest is not None and self._guest.isAncestorOf(QApplication.focusWidget() or self):
            return QTextEdit.focusNextPrevChild(self, forward)  # as where there are no links
        return super().focusNextPrevChild(forward)

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

    def _fit(self) -> None:
        """Figures and formulas have the new width, tables turn, and code has other letters."""
        if figures_of(self._text) or formulas_of(self._text) or any(mark in self._text for mark in _OF_A_WIDTH):
            self.stale.emit()
        self._kept = None
