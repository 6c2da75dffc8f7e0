"""Generated text in which every token can be pointed at, and is tinted by its probability under the model."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from PySide6.QtCore import QEvent, QMimeData, QPoint, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QKeyEvent,
    QLinearGradient,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QTextCharFormat,
    QTextCursor,
)
from PySide6.QtWidgets import QTextEdit, QWidget

from llmlab.models.replies import WrittenToken
from llmlab_gui.widgets.theme import current_theme, mix, theme_notifier

# Okabe and Ito's orange: told from text and background by every kind of colour vision.
_TINT = "#e69f00"
# A token of one in a thousand has the full tint; the scale is logarithmic, since surprise is.
_FULL_TINT_DECADES = 3.0
_AT_END = 4  # pixels from the end that are as good as there
# Signs at which QTextDocument begins a paragraph or a frame.
_BLOCK_ENDS = "\u2029\ufdd0\ufdd1"


def tint(probability: float) -> QColor:
    """The background of a token of that probability: none when it was certain, orange when it was a surprise."""
    theme = current_theme()
    decades = -math.log10(max(probability, 1e-9))
    share = min(1.0, max(0.0, decades) / _FULL_TINT_DECADES)
    # Full orange would drown light text on dark ground: half of it keeps the contrast above 4.5.
    share *= 0.5 if QColor(theme.surface).lightnessF() < 0.5 else 0.85
    return mix(theme.surface, _TINT, share)


class TokenView(QTextEdit):
    """The prompt, quiet, and the tokens after it.

    pointed(i): the mouse is over token i (-1: over none). chosen(i): it was clicked, or reached by arrow keys.
    Copying gives the text itself, without the signs that make line breaks and spaces visible.
    """

    pointed = Signal(int)
    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setReadOnly(True)
        self.setAcceptRichText(False)
        self.setUndoRedoEnabled(False)
        self.setMouseTracking(True)
        self.viewport().setMouseTracking(True)
        self.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.prompt = ""
        self.tokens: list[WrittenToken] = []
        self._starts: list[int] = []  # document position of each token
        self._raw: list[str] = []  # for each position of the document, the text that it stands for
        self._show_spaces = False
        self._pointed = self.current = -1  # tokens: under the pointer, and the chosen one
        self._at_end = True  # stays there as the text grows, and as Qt lays out more of a long one
        bar = self.verticalScrollBar()
        bar.valueChanged.connect(self._moved)
        bar.rangeChanged.connect(self._stay_at_end)
        theme_notifier.changed.connect(self._redraw)

    def text_before(self, index: int) -> str:
        """Prompt and tokens up to token `index`, without it."""
        return self.prompt + "".join(token.text for token in self.tokens[:index])

    def text(self) -> str:
        """Prompt and all tokens."""
        return self.text_before(len(self.tokens))

    def begin(self, prompt: str) -> None:
        """Empties the view and shows a new prompt; of a long one its end, where the tokens will come."""
        self.prompt, self.tokens = prompt, []
        self._pointed = self.current = -1
        self._redraw()
        self._at_end = True
        self._stay_at_end()

    def append_tokens(self, tokens: Sequence[WrittenToken]) -> None:
        """Adds tokens at the end; the view stays at the bottom if it was there."""
        cursor = QTextCursor(self.document())
        cursor.beginEditBlock()
        cursor.movePosition(QTextCursor.MoveOperation.End)
        self.tokens += tokens
        for token in tokens:
            self._insert_token(cursor, token)
        cursor.endEditBlock()

    def set_show_spaces(self, show: bool) -> None:
        """Spaces drawn as `·` and tabs as `⇥`; line breaks always have their sign."""
        self._show_spaces = show
        self._redraw()

    def choose(self, index: int) -> None:
        """Marks a token and says so; -1 for none."""
        if not -1 <= index < len(self.tokens):
            return
        self.current = index
        self._mark()
        if index >= 0:
            cursor = QTextCursor(self.document())
            cursor.setPosition(self._starts[index])
            self.setTextCursor(cursor)
            self.ensureCursorVisible()
        self.chosen.emit(index)

    def token_at(self, point: QPoint) -> int:
        """The token under a point of the viewport, -1 for none."""
        inside = QPointF(point.x() + self.horizontalScrollBar().value(), point.y() + self.verticalScrollBar().value())
        if self.document().documentLayout().hitTest(inside, Qt.HitTestAccuracy.ExactHit) < 0:
            return -1
        cursor = self.cursorForPosition(point)
        position = cursor.position() - (1 if self.cursorRect(cursor).left() > point.x() else 0)
        return self._token_of(position)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        super().mouseMoveEvent(event)
        self._point(self.token_at(event.position().toPoint()))

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self._point(-1)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        super().mouseReleaseEvent(event)
        if not self.textCursor().hasSelection():
            self.choose(self.token_at(event.position().toPoint()))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        steps = {Qt.Key.Key_Right: 1, Qt.Key.Key_Left: -1}
        last = len(self.tokens) - 1
        if event.key() in steps and not event.modifiers() & Qt.KeyboardModifier.ShiftModifier and last >= 0:
            start = self.current if self.current >= 0 else (-1 if event.key() == Qt.Key.Key_Right else last + 1)
            self.choose(min(max(start + steps[Qt.Key(event.key())], 0), last))
        elif event.key() == Qt.Key.Key_Home and last >= 0:
            self.choose(0)
        elif event.key() == Qt.Key.Key_End and last >= 0:
            self.choose(last)
        else:
            super().keyPressEvent(event)

    def createMimeDataFromSelection(self) -> QMimeData:
        cursor = self.textCursor()
        # One of Qt's own: the clipboard may outlive Python, and to delete an object made in Python it then takes none.
        mime = super().createMimeDataFromSelection()
        mime.text()  # what is selected is filled in when first asked for
        mime.clear()
        mime.setText("".join(self._raw[cursor.selectionStart() : cursor.selectionEnd()]))
        return mime

    def _moved(self, value: int) -> None:
        self._at_end = value >= self.verticalScrollBar().maximum() - _AT_END

    def _stay_at_end(self) -> None:
        if self._at_end:
            self.verticalScrollBar().setValue(self.verticalScrollBar().maximum())

    def _redraw(self) -> None:
        bar, at_end = self.verticalScrollBar(), self._at_end
        before = bar.value()
        self.clear()
        self._starts, self._raw = [], []
        self.setExtraSelections([])
        cursor = QTextCursor(self.document())
        cursor.beginEditBlock()
        quiet = QTextCharFormat()
        quiet.setForeground(QColor(current_theme().quiet))
        cursor.insertText(self._take(self.prompt, marked=False), quiet)
        for token in self.tokens:
            self._insert_token(cursor, token)
        cursor.endEditBlock()
        self._mark()
        if not at_end:
            self.document().size()  # Qt lays out all of it
            bar.setValue(before)
        self._at_end = at_end

    def _insert_token(self, cursor: QTextCursor, token: WrittenToken) -> None:
        style = QTextCharFormat()
        style.setForeground(QColor(current_theme().text))
        style.setBackground(tint(token.probability))
        self._starts.append(cursor.position())
        cursor.insertText(self._take(token.text, marked=True), style)

    def _take(self, text: str, *, marked: bool) -> str:
        """What is drawn for `text`; `_raw` grows by one entry for each UTF-16 unit of it, as the document counts.

        marked: white space gets its sign.
        """
        shown = []
        for sign in text:
            if sign == "\n":
                shown.append("⏎\n" if marked else "\n")
                self._raw += ["", "\n"] if marked else ["\n"]
            elif sign in _BLOCK_ENDS or (ord(sign) < 32 and sign != "\t"):
                # Drawn as its picture: the document would make a new paragraph of it, or nothing.
                shown.append(chr(0x2400 + ord(sign)) if ord(sign) < 32 else "\ufffd")
                self._raw.append(sign)
            elif sign in " \t" and marked and self._show_spaces:
                shown.append("·" if sign == " " else "⇥")
                self._raw.append(sign)
            else:
                shown.append(sign)
                self._raw += [sign, ""] if ord(sign) > 0xFFFF else [sign]
        return "".join(shown)

    def _token_of(self, position: int) -> int:
        index = bisect.bisect_right(self._starts, position) - 1
        return index if index >= 0 and position < len(self._raw) else -1

    def _point(self, index: int) -> None:
        if index != self._pointed:
            self._pointed = index
            self._mark()
            self.pointed.emit(index)

    def _mark(self) -> None:
        """Outlines by colour and underline: the chosen token, and the one under the mouse."""
        theme = current_theme()
        marks = []
        for index in {self.current, self._pointed} - {-1}:
            mark = QTextEdit.ExtraSelection()
            cursor = QTextCursor(self.document())
            cursor.setPosition(self._starts[index])
            end = self._starts[index + 1] if index + 1 < len(self._starts) else len(self._raw)
            cursor.setPosition(end, QTextCursor.MoveMode.KeepAnchor)
            mark.cursor = cursor
            style = QTextCharFormat()
            style.setUnderlineStyle(QTextCharFormat.UnderlineStyle.SingleUnderline)
            style.setUnderlineColor(QColor(theme.accent))
            if index == self.current:
                style.setBackground(QColor(theme.accent))
                style.setForeground(QColor(theme.surface))
            mark.format = style
            marks.append(mark)
        self.setExtraSelections(marks)


class TintLegend(QWidget):
    """The scale of the tint: from certain to one in a thousand."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Legend: the more orange a token, the lower its probability")
        self.setToolTip("Background of each token: its probability when it was sampled.")
        theme_notifier.changed.connect(self.update)

    def sizeHint(self) -> QSize:
        metrics = self.fontMetrics()
        return QSize(4 * (metrics.horizontalAdvance("< 0.1 %") + 14), metrics.height() + 6)

    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        with QPainter(self) as painter:
            painter.setPen(QColor(theme.quiet))
            metrics = self.fontMetrics()
            left = 0.0
            cell_width = min(metrics.horizontalAdvance("< 0.1 %") + 14, self.width() / 4)
            height = metrics.height() + 4
            for probability, label in ((1.0, "100 %"), (0.1, "10 %"), (0.01, "1 %"), (0.001, "< 0.1 %")):
                cell = QRectF(left, 1, cell_width, height)
                shade = QLinearGradient(cell.topLeft(), cell.topRight())
                shade.setColorAt(0, tint(min(1.0, probability * 3)))
                shade.setColorAt(1, tint(probability / 3))
                painter.fillRect(cell, shade)
                painter.setPen(QColor(theme.text))
                painter.drawText(cell, Qt.AlignmentFlag.AlignCenter, label)
                left += cell_width
            words, room = "how likely each was", QRectF(left + 8, 1, self.width() - left - 8, height)
            if metrics.horizontalAdvance(words) <= room.width():
                painter.setPen(QColor(theme.quiet))
                painter.drawText(room, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, words)
