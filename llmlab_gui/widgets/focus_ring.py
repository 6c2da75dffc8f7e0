"""A ring around what has the keyboard, whatever kind of widget that is: most styles show it on some kinds only."""

from __future__ import annotations

import shiboken6
from PySide6.QtCore import QEvent, QObject, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen, QWindow
from PySide6.QtWidgets import QApplication, QCheckBox, QRadioButton, QSlider, QWidget

from llmlab_gui.widgets.theme import current_theme

_WIDTH = 2.0
# What has nothing to spare within its own edges: the ring lies around it, by so many pixels.
_FILLED = (QCheckBox, QRadioButton, QSlider)
_ROOM = 3


class FocusRing(QObject):
    """Follows the keyboard through an application. Shown where keys brought it; the mouse shows where it is itself."""

    def __init__(self, app: QApplication) -> None:
        super().__init__(app)
        self._ring: _Ring | None = None
        self._by_keys = False  # the last thing that was pressed was a key
        app.focusChanged.connect(self._move)
        app.focusWindowChanged.connect(self._listen)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.KeyPress:
            self._by_keys = True
        elif event.type() in (QEvent.Type.MouseButtonPress, QEvent.Type.TouchBegin):
            self._by_keys = False
        return False

    def _listen(self, window: QWindow | None) -> None:
        """To the window itself: few events pass there, and all that a person presses."""
        if window is not None:
            window.installEventFilter(self)  # no second one where there is one already

    def _move(self, _before: QWidget | None, now: QWidget | None) -> None:
        if self._ring is not None and shiboken6.isValid(self._ring):
            self._ring.leave()
        self._ring = _Ring(now) if now is not None and self._by_keys else None


class _Ring(QWidget):
    """Lies over a widget, lets the mouse through, and goes with it."""

    def __init__(self, widget: QWidget) -> None:
        around = widget.parentWidget() if isinstance(widget, _FILLED) else None
        super().__init__(around or widget)
        self._widget, self._is_around = widget, around is not None
        self.setObjectName("focusRing")
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        widget.installEventFilter(self)
        self._place()
        self.show()
        self.raise_()

    def leave(self) -> None:
        """Goes away at once."""
        self.hide()
        self.deleteLater()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() in (QEvent.Type.Resize, QEvent.Type.Move):
            self._place()
        return False

    def _place(self) -> None:
        widget, room = self._widget, _ROOM
        self.setGeometry(widget.geometry().adjusted(-room, -room, room, room) if self._is_around else widget.rect())

    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        # The line within tells it from what has the accent colour itself.
        for inset, width, color in ((_WIDTH / 2, _WIDTH, theme.accent), (_WIDTH + 0.5, 1.0, theme.surface)):
            painter.setPen(QPen(QColor(color), width))
            painter.drawRoundedRect(QRectF(self.rect()).adjusted(inset, inset, -inset, -inset), 3.0, 3.0)
