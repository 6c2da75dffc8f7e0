"""What has the keyboard, whatever kind of widget that is: a ring around it, and Enter presses it where it is a button.

Most styles show the keyboard on some kinds only, and Qt lets Enter press the buttons of dialogs alone.
"""

from __future__ import annotations

from typing import cast

import shiboken6
from PySide6.QtCore import QEvent, QObject, QPoint, QRect, QRectF, Qt
from PySide6.QtGui import QColor, QKeyEvent, QPainter, QPaintEvent, QPen, QWindow
from PySide6.QtWidgets import (
    QAbstractScrollArea,
    QApplication,
    QCheckBox,
    QLabel,
    QPushButton,
    QRadioButton,
    QSlider,
    QToolButton,
    QWidget,
)

from llmlab_gui.widgets.theme import current_theme

_WIDTH = 2.0
# What has nothing to spare within its own edges: the ring lies around it, by so many pixels.
_FILLED = (QCheckBox, QLabel, QRadioButton, QSlider)
_ROOM = 3


class FocusRing(QObject):
    """Follows the keyboard through an application. Shown where keys brought it; the mouse shows where it is itself.

    Enter does there what the space bar does.
    """

    def __init__(self, app: QApplication) -> None:
        super().__init__(app)
        self._ring: _Ring | None = None
        self._by_keys = False  # the last thing that was pressed was a key
        app.focusChanged.connect(self._move)
        app.focusWindowChanged.connect(self._listen)
        self._listen(app.focusWindow())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.ShortcutOverride:  # of a shortcut no other event tells
            self._by_keys = True
        elif event.type() == QEvent.Type.KeyPress:
            self._by_keys = True
            # Where it arrives, not where it ends: a field's Enter may have led to a button by then.
            return isinstance(watched, QWindow) and _press(cast("QKeyEvent", event))
        elif event.type() in (QEvent.Type.MouseButtonPress, QEvent.Type.TouchBegin):
            self._by_keys = False
        return False

    def _listen(self, window: QWindow | None) -> None:
        """To the window itself: few events pass there, and all that a person presses."""
        if window is not None:
            window.installEventFilter(self)  # no second one where there is one already

    def _move(self, _before: QWidget | None, now: QWidget | None) -> None:
        if now is not None:
            now.window().installEventFilter(self)  # where what asks for shortcuts ends, as keys do
        if self._ring is not None and shiboken6.isValid(self._ring):
            self._ring.leave()
        # A window has it itself while its parts are exchanged.
        self._ring = _Ring(now) if now is not None and not now.isWindow() and self._by_keys else None


def _press(event: QKeyEvent) -> bool:
    """Whether the key is Enter on a button; presses it then."""
    button = QApplication.focusWidget()
    if (
        event.key() not in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        or event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        or not isinstance(button, (QPushButton, QToolButton))
        or QApplication.activePopupWidget() is not None
    ):
        return False
    for kind in (QEvent.Type.KeyPress, QEvent.Type.KeyRelease):
        if shiboken6.isValid(button) and not event.isAutoRepeat():
            QApplication.sendEvent(button, QKeyEvent(kind, Qt.Key.Key_Space, Qt.KeyboardModifier.NoModifier, " "))
    return True


class _Ring(QWidget):
    """Lies over a widget, or around it, lets the mouse through, and goes with it."""

    def __init__(self, widget: QWidget) -> None:
        way = _way_out(widget) if isinstance(widget, _FILLED) else [widget]
        super().__init__(way[-1])
        self._widget, self._way = widget, way
        self.setObjectName("focusRing")
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        for each in way:
            each.installEventFilter(self)
        self._place()
        self.show()
        self.raise_()

    def leave(self) -> None:
        """Goes away at once, and follows nothing any more: its widget may have been deleted."""
        self.hide()
        self.deleteLater()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() in (QEvent.Type.Resize, QEvent.Type.Move) and not self.isHidden():
            self._place()
        return False

    def _place(self) -> None:
        host, room = self._way[-1], _ROOM if len(self._way) > 1 else 0
        self.setGeometry(_area(self._widget, host).adjusted(-room, -room, room, room).intersected(host.rect()))

    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        with QPainter(self) as painter:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            # The line within tells it from what has the accent colour itself.
            for inset, width, color in ((_WIDTH / 2, _WIDTH, theme.accent), (_WIDTH + 0.5, 1.0, theme.surface)):
                painter.setPen(QPen(QColor(color), width))
                painter.drawRoundedRect(QRectF(self.rect()).adjusted(inset, inset, -inset, -inset), 3.0, 3.0)


def _way_out(widget: QWidget) -> list[QWidget]:
    """From a widget to the nearest that has room around it; no further than to what scrolls."""
    way, room = [widget], _ROOM
    while (parent := way[-1].parentWidget()) is not None and not way[-1].isWindow():
        way.append(parent)
        has_room = parent.rect().contains(_area(widget, parent).adjusted(-room, -room, room, room))
        if has_room or isinstance(parent.parentWidget(), QAbstractScrollArea):
            break
    return way


def _area(widget: QWidget, within: QWidget) -> QRect:
    return QRect(widget.mapTo(within, QPoint(0, 0)), widget.size())
