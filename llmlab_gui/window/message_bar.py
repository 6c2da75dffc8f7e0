"""The message bar: errors, one at a time, until they are dismissed."""

from __future__ import annotations

from html import escape

from PySide6.QtCore import QEvent, QObject, QSize, Qt, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QLabel, QToolButton, QWidget

from llmlab.core.errors import LabError
from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.icons import icon
from llmlab_gui.widgets.layouts import beside
from llmlab_gui.widgets.theme import current_theme, mix, theme_notifier

# Older ones are let go: nobody reads back further.
_MOST = 20
_PADDING = 5


class MessageBar(QWidget):
    """What happened, why, and what to do. The newest is shown; dismissing it, by a click, shows the one before.

    Whoever owns it gives it room, and again whenever `changed` says so.
    """

    log_wanted = Signal(object)  # the LabError that is shown
    dismissed = Signal(object)  # the LabError that was waved away
    changed = Signal()  # what it says, and with it whether it is shown and how high it is

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._messages: list[LabError] = []
        self._sign = QLabel()
        self.text = QLabel(wordWrap=True, textFormat=Qt.TextFormat.RichText)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.text.setAccessibleName("Message")
        self.text.installEventFilter(self)
        self.setToolTip("Click to dismiss (Esc)")
        self._count = QLabel()
        self.log_button = push_button("Show log", self._want_log)
        self.log_button.setFlat(True)
        self.close_button = QToolButton(autoRaise=True)
        self.close_button.setIconSize(QSize(14, 14))
        self.close_button.setAccessibleName("Dismiss the message")
        self.close_button.setToolTip("Dismiss (Esc)")
        parts = (self._sign, (self.text, 1), self._count, self.log_button, self.close_button)
        beside(*parts, into=self, margins=(10, _PADDING, 6, _PADDING))
        self.close_button.clicked.connect(self.dismiss)
        theme_notifier.changed.connect(self._restyle)
        self._restyle()
        self.hide()

    @property
    def messages(self) -> list[LabError]:
        """Oldest first; the last one is shown."""
        return list(self._messages)

    def show_error(self, error: LabError) -> None:
        """Adds a message, or brings the same one to the front."""
        said = error.as_dict()
        self._messages = [other for other in self._messages if other.as_dict() != said][-_MOST + 1 :]
        self._messages.append(error)
        self._draw()

    def withdraw(self, error: LabError) -> None:
        """Takes back what no longer holds."""
        self._messages = [other for other in self._messages if other is not error]
        self._draw()

    def dismiss(self) -> None:
        """Waves the shown message away."""
        if self._messages:
            self.dismissed.emit(self._messages.pop())
        self._draw()

    def _want_log(self) -> None:
        if self._messages:
            self.log_wanted.emit(self._messages[-1])

    def mousePressEvent(self, event: QMouseEvent) -> None:
        event.accept()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self.dismiss()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """A click on the text; one that ends a selection leaves it to be copied."""
        released = event.type() == QEvent.Type.MouseButtonRelease
        if released and isinstance(event, QMouseEvent) and not self.text.hasSelectedText():
            self.mouseReleaseEvent(event)
            return True
        return super().eventFilter(watched, event)

    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        with QPainter(self) as painter:
            painter.fillRect(self.rect(), mix(theme.surface, theme.bad, 0.12))
            painter.fillRect(0, 0, 4, self.height(), QColor(theme.bad))

    def _draw(self) -> None:
        if self._messages:
            error = self._messages[-1]
            rest = " ".join(escape(part) for part in (error.why, error.do) if part)
            self.text.setText(f"<b>{escape(error.what)}</b> {rest}")
            others = len(self._messages) - 1
            self._count.setText(f"{others} more" if others else "")
        self.setVisible(bool(self._messages))
        self.changed.emit()

    def _restyle(self) -> None:
        self._sign.setPixmap(icon("warning", current_theme().bad).pixmap(20, 20))
        self.close_button.setIcon(icon("close"))
        self.update()
