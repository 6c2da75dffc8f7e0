"""Dims what belongs to something else than what is chosen, and says to what."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QFrame, QLabel, QPushButton, QWidget

from llmlab_gui.widgets.layouts import beside
from llmlab_gui.widgets.theme import current_theme, faded, theme_notifier

# Of the ground's colour over the content: text keeps a contrast of 4.5, and nobody takes it for what is current.
SHADE = 0.38


class Veil(QWidget):
    """Lies over a widget; the mouse goes through to what is under it. Lifted at first.

    The widget must not place its children itself, as a splitter does.
    """

    def __init__(self, content: QWidget) -> None:
        super().__init__(content)
        self._content = content
        self.words = ""  # what the content is about; "" while it is current
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._sign = QFrame(content, frameShape=QFrame.Shape.StyledPanel)
        self._sign.setAutoFillBackground(True)
        self._label, self._button = QLabel(textFormat=Qt.TextFormat.PlainText), QPushButton()
        self._button.clicked.connect(self._act)
        self._slot: Callable[[], object] | None = None
        beside(self._label, self._button, into=self._sign, margins=(8, 3, 8, 3))
        content.installEventFilter(self)
        theme_notifier.changed.connect(self.update)
        self.say("")

    def say(self, words: str, action_text: str = "", slot: Callable[[], object] | None = None) -> None:
        """Dims the content and says what it is about; "" lifts the veil. slot: what the button beside it does."""
        self._slot = slot
        self._button.setText(action_text)
        self._button.setVisible(slot is not None)
        self.words = words
        for part in (self, self._sign):
            part.setVisible(bool(words))
            part.raise_()
        if words:
            self._place()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Resize and not self.isHidden():
            self._place()
        return super().eventFilter(watched, event)

    def paintEvent(self, event: QPaintEvent) -> None:
        with QPainter(self) as painter:
            painter.fillRect(self.rect(), faded(current_theme().surface, SHADE))

    def _place(self) -> None:
        """All over the content; the words in its middle, as many as have room."""
        content = self._content
        self.setGeometry(content.rect())
        self._label.setText("")
        room = content.width() - self._sign.sizeHint().width()
        self._label.setText(self._label.fontMetrics().elidedText(self.words, Qt.TextElideMode.ElideMiddle, room))
        self._label.setToolTip(self.words)
        size = self._sign.sizeHint().boundedTo(content.size())
        self._sign.resize(size)
        self._sign.move((content.width() - size.width()) // 2, (content.height() - size.height()) // 2)

    def _act(self) -> None:
        if self._slot is not None:
            self._slot()
