"""A list of possible next tokens: each with a bar as long as its probability, clickable and usable by keys."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from unicodedata import category

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFontDatabase, QFontMetrics, QKeyEvent, QPainter, QStandardItem, QStandardItemModel
from PySide6.QtGui import Qt as rich
from PySide6.QtWidgets import QListView, QStyle, QStyledItemDelegate, QStyleOptionViewItem

from llmlab_gui.widgets.theme import current_theme, faded, theme_notifier

_TEXT = Qt.ItemDataRole.UserRole
_PROBABILITY = Qt.ItemDataRole.UserRole + 1
_CHOSEN = Qt.ItemDataRole.UserRole + 2
_BEFORE = Qt.ItemDataRole.UserRole + 3
_BESIDE = Qt.ItemDataRole.UserRole + 4

_SIGNS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍", "\u00a0": "⍽"}


def visible(text: str) -> str:
    """A token with its white space made visible: `·` a space, `⍽` one that joins, `⏎` a line break, `⇥` a tab.

    What has no shape of its own is its code: `\\u0000`, and a mark that is set on the letter before it, without one.
    """
    if not text:
        return "(nothing)"
    shapes = [sign.isprintable() and (at > 0 or category(sign) not in ("Mn", "Me")) for at, sign in enumerate(text)]
    signs = zip(text, shapes, strict=True)
    return "".join(_SIGNS.get(sign, sign if shape else f"\\u{ord(sign):04x}") for sign, shape in signs)


def plain_tip(text: str) -> str:
    """A tool tip that shows this text as it stands: a token `<b>` asks for no bold letters."""
    return f'<p style="white-space: pre-wrap">{escape(text)}</p>' if rich.mightBeRichText(text) else text


def percent(probability: float) -> str:
    """A probability with sensible digits."""
    if probability >= 0.0995:
        return f"{100 * probability:.0f} %"
    if probability >= 0.001:
        return f"{100 * probability:.1f} %"
    return "< 0.1 %"


def _share(probability: float, before: float | None) -> str:
    return percent(probability) if probability or before is None else "out"


def _second(share: float | None) -> str:
    """The second column's words behind those of the first, for screen readers."""
    return "" if share is None else f"  {_of_counts(share)}"


def _of_counts(share: float) -> str:
    return percent(share) if share else "0 %"


class AlternativeList(QListView):
    """Shows (text, probability) pairs, most likely first. `picked(text)`: one was clicked, or Enter pressed on it."""

    picked = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.setModel(QStandardItemModel(self))
        self.setItemDelegate(_BarDelegate(self))
        self.setEditTriggers(QListView.EditTrigger.NoEditTriggers)
        self.setUniformItemSizes(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMouseTracking(True)
        self.clicked.connect(self._pick)
        theme_notifier.changed.connect(self.viewport().update)

    def show_pairs(
        self,
        pairs: Sequence[tuple[str, float]],
        chosen: str | None = None,
        before: Sequence[float] = (),
        beside: Sequence[float] = (),
    ) -> None:
        """Replaces the list. chosen: the token that was drawn, marked. What the pairs leave is one last row.

        before: the probabilities before a setting changed them, outlined; 0 after it was ruled out. beside: those of
        another distribution, outlined and a second column.
        """
        model = self._items()
        model.clear()
        for place, (text, probability) in enumerate(pairs):
            old = before[place] if before else None
            other = beside[place] if beside else None
            item = QStandardItem(f"{visible(text)}  {_share(probability, old)}{_second(other)}")
            item.setData(text, _TEXT)
            item.setData(probability, _PROBABILITY)
            item.setData(text == chosen, _CHOSEN)
            note = " (this one was drawn)" if text == chosen else ""
            was = "" if old is None else f", {100 * old:.3g} % before"
            tip = f"{visible(text)}: {100 * probability:.3g} %{was}{note}. Click to continue with it."
            item.setToolTip(plain_tip(tip))
            item.setData(old, _BEFORE)
            item.setData(other, _BESIDE)
            model.appendRow(item)
        rest = 1.0 - sum(probability for _, probability in pairs)
        if pairs and rest >= 0.0005:  # below half a tenth of a percent it is rounding
            other = max(0.0, 1.0 - sum(beside)) if beside else None
            item = QStandardItem(f"all others  {percent(rest)}{_second(other)}")
            item.setData(rest, _PROBABILITY)
            item.setData(other, _BESIDE)
            item.setFlags(Qt.ItemFlag.ItemIsEnabled)
            model.appendRow(item)

    def pairs(self) -> list[tuple[str, float]]:
        """What is shown, without the row of all others."""
        model = self._items()
        items = [model.item(row) for row in range(model.rowCount())]
        return [(item.data(_TEXT), item.data(_PROBABILITY)) for item in items if item.data(_TEXT) is not None]

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Enter picks the current row (not every platform's style sends `activated` for it)."""
        picks = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space)
        # Ctrl+Enter is left to the dock: it generates.
        if picks and self.currentIndex().isValid() and not event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self._pick(self.currentIndex())
        else:
            super().keyPressEvent(event)

    def sizeHint(self) -> QSize:
        return QSize(240, 220)

    def _items(self) -> QStandardItemModel:
        model = self.model()
        assert isinstance(model, QStandardItemModel)
        return model

    def _pick(self, index: QModelIndex) -> None:
        text = index.data(_TEXT)
        if text is not None:
            self.picked.emit(text)


class _BarDelegate(QStyledItemDelegate):
    """A row: the token, a bar on a common scale from 0 to 100 %, the percentage."""

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        theme = current_theme()
        area = QRectF(option.rect)
        state = option.state
        painter.save()
        if state & (QStyle.StateFlag.State_Selected | QStyle.StateFlag.State_MouseOver):
            painter.fillRect(area, faded(theme.accent, 0.16))
        text, probability = index.data(_TEXT), float(index.data(_PROBABILITY) or 0.0)
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont) if text is not None else painter.font()
        font.setPointSizeF(option.font.pointSizeF())
        font.setBold(bool(index.data(_CHOSEN)))
        painter.setFont(font)
        metrics = QFontMetrics(font)
        label_width = max(76.0, area.width() * 0.34)
        number_width = float(metrics.horizontalAdvance("< 0.1 %")) + 8
        label = visible(text) if text is not None else "all others"
        painter.setPen(QColor(theme.text if text is not None else theme.quiet))
        label_area = QRectF(area.left() + 8, area.top(), label_width - 12, area.height())
        middle = Qt.AlignmentFlag.AlignVCenter
        elided = metrics.elidedText(label, Qt.TextElideMode.ElideMiddle, int(label_area.width()))
        painter.drawText(label_area, middle | Qt.AlignmentFlag.AlignLeft, elided)
        track = QRectF(area.left() + label_width, area.top() + 5, 0, area.height() - 10)
        beside = index.data(_BESIDE)
        track.setRight(area.right() - (1 if beside is None else 2) * number_width - 6)
        painter.fillRect(track, QColor(theme.grid))
        bar = QRectF(track)
        bar.setWidth(max(1.5, track.width() * min(1.0, probability)))
        painter.fillRect(bar, QColor(theme.accent if text is not None else theme.quiet))
        before = index.data(_BEFORE)
        if (outlined := before if beside is None else beside) is not None:
            outline = QRectF(track)
            outline.setWidth(max(1.5, track.width() * min(1.0, float(outlined))))
            painter.setPen(QColor(theme.text))
            painter.drawRect(outline.adjusted(0.5, 0.5, -0.5, -0.5))
        number_area = QRectF(track.right(), area.top(), number_width, area.height())
        painter.setPen(QColor(theme.text))
        painter.drawText(number_area, middle | Qt.AlignmentFlag.AlignRight, _share(probability, before))
        if beside is not None:
            painter.setPen(QColor(theme.quiet))
            number_area.translate(number_width, 0)
            painter.drawText(number_area, middle | Qt.AlignmentFlag.AlignRight, _of_counts(beside))
        painter.restore()

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        return QSize(160, QFontMetrics(option.font).height() + 8)
