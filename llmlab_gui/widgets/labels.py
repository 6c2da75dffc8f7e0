"""Labels, buttons and empty states in the window's look."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias, TypeVar
from unicodedata import category

from PySide6.QtCore import QEvent, QPoint, QRect, QSize, Qt, SignalInstance
from PySide6.QtGui import QColor, QFocusEvent, QFont, QPalette, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QApplication, QFrame, QLabel, QPushButton, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from llmlab_gui.widgets.theme import current_theme, theme_notifier

W = TypeVar("W", bound=QWidget)
Slot: TypeAlias = Callable[..., object] | SignalInstance
_LONG_WORD = re.compile(r"\S{32,}")  # a narrow form has room for 40 signs


def labelled(widget: W, name: str = "", tip: str = "") -> W:
    """The widget with its name, for screen readers, and its tool tip, where they are given."""
    if name:
        widget.setAccessibleName(name)
    if tip:
        widget.setToolTip(tip)
    return widget


def label_of(text: str, field: QWidget) -> QLabel:
    """The name beside a field, which leads to it."""
    label = QLabel(text)
    label.setBuddy(field)
    return label


def breakable(text: str) -> str:
    """With places, unseen, where lines may break within a long name or path: it makes nothing wider then. Marks stay at
    their letter, as those of Thai, which has no spaces."""

    def apart(word: re.Match[str]) -> str:
        parts = (sign if category(sign)[0] in "MC" else f"\u200b{sign}" for sign in word[0])
        return "".join(parts).removeprefix("\u200b")

    return _LONG_WORD.sub(apart, text)


def demi_bold(widget: W, larger: float = 1.0) -> W:
    """The widget with its text in a heavier weight, so many times as large."""
    font = QFont(widget.font())
    if larger != 1.0:
        font.setPointSizeF(font.pointSizeF() * larger)
    font.setWeight(QFont.Weight.DemiBold)
    widget.setFont(font)
    return widget


def scrolled(widget: QWidget) -> QScrollArea:
    """A widget that is scrolled up and down where there is less room than it needs."""
    area = Scrolled()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(widget)
    return area


class Scrolled(QScrollArea):
    """Keeps what has the keyboard in sight when it becomes smaller, as where words about a field open under it.

    What was scrolled out of sight stays there. left_at: by workspace, where it was scrolled to when that was left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left_at: dict[str, int] = {}

    def resizeEvent(self, event: QResizeEvent) -> None:
        now, view, before = QApplication.focusWidget(), self.viewport(), QRect(QPoint(), event.oldSize())
        seen = (
            now is not None
            and view.isAncestorOf(now)
            and before.intersects(QRect(now.mapTo(view, QPoint()), now.size()))
        )
        super().resizeEvent(event)
        if now is not None and seen:
            self.ensureWidgetVisible(now)


class WholeLabel(QLabel):
    """Wrapped text that keeps the height it needs: where there is less, what holds it scrolls, and no line is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)

    def setText(self, text: str) -> None:
        super().setText(text)
        self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._fit()

    def _fit(self) -> None:
        if self.isVisible():  # else its width is not known yet
            self.setMinimumHeight(max(0, self.heightForWidth(self.width())))  # -1 without text


class EmptyState(QWidget):
    """A title, a hint, and at most one button, in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self._slot: Callable[[], object] | None = None
        self._title, self._hint, self._button = QLabel(), QuietLabel(), QPushButton()
        demi_bold(self._title, 1.15)
        for label in (self._title, self._hint):
            label.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            label.setWordWrap(True)
        self._button.clicked.connect(self._act)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(9, 0, 9, 0)  # a low panel has room for all of it
        layout.setSpacing(4)
        layout.addStretch(1)
        layout.addWidget(self._title)
        layout.addWidget(self._hint)
        layout.addWidget(self._button, 0, Qt.AlignmentFlag.AlignHCenter)
        layout.addStretch(2)

    @property
    def text(self) -> str:
        """What it says."""
        return f"{self._title.text()} {self._hint.text()}".strip().replace("\u200b", "")

    def say(self, title: str, hint: str, action_text: str = "", slot: Callable[[], object] | None = None) -> None:
        """Replaces all of it."""
        self._title.setText(breakable(title))
        self._hint.setText(breakable(hint))
        self._button.setText(action_text)
        self._button.setVisible(bool(action_text) and slot is not None)
        self._slot = slot

    def minimumSizeHint(self) -> QSize:
        """As high as its words are at its width; Qt takes wrapped ones for higher."""
        return QSize(super().minimumSizeHint().width(), self.heightForWidth(self.width()))

    def resizeEvent(self, event: QResizeEvent) -> None:
        if event.size().width() != event.oldSize().width():
            self.updateGeometry()

    def _act(self) -> None:
        if self._slot is not None:
            self._slot()


class PrimaryButton(QPushButton):
    """The one button of a place that it is all about, in the accent colour."""

    def __init__(self, text: str, slot: Slot | None = None, tip: str = "") -> None:
        super().__init__(text)
        labelled(self, tip=tip)
        if slot is not None:
            self.clicked.connect(slot)
        self.setProperty("primary", True)
        demi_bold(self)


class _ThemeLabel(QLabel):
    """Wrapped text in one of the theme's colours. Subclasses write `_restyle`."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.setWordWrap(True)
        theme_notifier.changed.connect(self._restyle)
        self._restyle()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.StyleChange:  # another style sheet brings the palette of before it back
            self._restyle()

    def _restyle(self) -> None:
        raise NotImplementedError


# Before an English sentence that may begin with a word from a text of another direction.
_FROM_LEFT = "\u200e"


class ProblemLabel(_ThemeLabel):
    """What is wrong, in the theme's colour for it, or what is to be done first; gone while there is neither."""

    _wrong = True

    def __init__(self) -> None:
        super().__init__()
        self.hide()

    def say(self, text: str, *, wrong: bool = True) -> None:
        """Shows it; nothing with an empty text. Not `wrong`: in the colour of text."""
        self._wrong = wrong
        self._restyle()
        self.setText(f"{_FROM_LEFT}{breakable(text)}")
        self.setVisible(bool(text))

    def text(self) -> str:
        """As it was said."""
        return super().text().replace("\u200b", "").removeprefix(_FROM_LEFT)

    def _restyle(self) -> None:
        palette = QPalette(self.palette())
        theme = current_theme()
        palette.setColor(QPalette.ColorRole.WindowText, QColor(theme.bad if self._wrong else theme.text))
        self.setPalette(palette)


class QuietLabel(_ThemeLabel):
    """Text in the quiet colour of the theme, wrapped, with links that can be reached by keyboard; Tab passes others."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.setText(text)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)

    def setText(self, text: str) -> None:
        has_links, at_link = "<a " in text, self.hasFocus() and self.hasSelectedText()
        super().setText(text)
        kinds = Qt.TextInteractionFlag
        links = kinds.LinksAccessibleByMouse | kinds.LinksAccessibleByKeyboard
        self.setTextInteractionFlags(links if has_links else kinds.NoTextInteraction)
        if has_links and at_link:
            self._go_to_link(forward=True)

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        if event.reason() in (Qt.FocusReason.TabFocusReason, Qt.FocusReason.BacktabFocusReason):
            self._go_to_link(forward=event.reason() == Qt.FocusReason.TabFocusReason)

    def focusNextPrevChild(self, forward: bool) -> bool:
        if not forward and self.hasSelectedText() and self.selectionStart() == 0:
            return QWidget.focusNextPrevChild(self, forward)  # QLabel does not go back from a link at its very start
        return super().focusNextPrevChild(forward)

    def _go_to_link(self, *, forward: bool) -> None:
        """The first, or else the last."""
        self.setSelection(0, 0)
        self.focusNextPrevChild(forward)

    def _restyle(self) -> None:
        palette = QPalette(self.palette())
        theme = current_theme()
        palette.setColor(QPalette.ColorRole.WindowText, QColor(theme.quiet))
        palette.setColor(QPalette.ColorRole.Link, QColor(theme.accent))
        self.setPalette(palette)
        text = self.text()
        if "<a " in text:  # a link has the colour of when its text was set
            self.clear()
            self.setText(text)
