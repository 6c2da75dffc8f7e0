"""The wheel scrolls. What it happens to pass over on the way keeps its value."""

from __future__ import annotations

from typing import cast

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QWheelEvent, QWindow
from PySide6.QtWidgets import QAbstractSpinBox, QApplication, QComboBox, QSlider, QWidget

_HOLDS_A_VALUE = (QAbstractSpinBox, QComboBox, QSlider)


class WheelGuard(QObject):
    """Fields of numbers and sliders of an application take the wheel only while they have the keyboard.

    Boxes never do: the window itself may have given it to one, as to the first of a form.
    """

    def __init__(self, app: QApplication) -> None:
        super().__init__(app)
        app.focusChanged.connect(self._listen)
        self._listen()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() != QEvent.Type.Wheel:
            return False
        if isinstance(watched, QWindow):  # the wheel passes here first
            self._guard(QApplication.widgetAt(cast("QWheelEvent", event).globalPosition().toPoint()))
        elif isinstance(watched, QComboBox) or (isinstance(watched, QWidget) and not _in_use(watched)):
            event.ignore()
            return True
        return False

    def _listen(self) -> None:
        """To all windows themselves, also those that never had the keyboard: few events pass there."""
        for window in QApplication.topLevelWindows():
            window.installEventFilter(self)  # no second one where there is one already

    def _guard(self, widget: QWidget | None) -> None:
        """What is under the mouse, whose line may be a widget of its own."""
        while widget is not None and not widget.isWindow():
            if isinstance(widget, _HOLDS_A_VALUE):
                if widget.focusPolicy() == Qt.FocusPolicy.WheelFocus:
                    widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                widget.installEventFilter(self)
            widget = widget.parentWidget()


def _in_use(widget: QWidget) -> bool:
    focused = QApplication.focusWidget()
    return focused is not None and (focused is widget or widget.isAncestorOf(focused))
