"""Gives each part of the window the style sheet of the theme: what is in sight at once, the rest after it is drawn.

The window itself has only what no part can say, and keeps it: with another one, Qt would style its thousands of
widgets, most of them out of sight, before it draws one.
"""

from __future__ import annotations

from PySide6.QtCore import QChildEvent, QEvent, QObject, Qt, QTimer
from PySide6.QtWidgets import QMainWindow, QWidget

from llmlab_gui.widgets.theme import current_theme, style_sheet, theme_notifier

_SEPARATORS = "QMainWindow::separator:hover { background: palette(highlight); }"  # between docks: they can be moved


class PartStyles(QObject):
    """Parts are the window's direct children: bars, docks, dialogs, what lies over the docks."""

    def __init__(self, window: QMainWindow) -> None:
        super().__init__(window)
        self._window = window
        self._sheet = ""
        self._next = QTimer(self, interval=0)
        self._next.timeout.connect(self._style_next)
        window.installEventFilter(self)
        theme_notifier.changed.connect(self._follow)
        window.setStyleSheet(_SEPARATORS)
        self.style_all()

    def style_all(self) -> None:
        """Every part at once, before it is seen."""
        self._sheet = style_sheet(current_theme())
        for part in self._parts():
            self._style(part)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """A part that is new, a dialog say; or one that comes into sight before its turn."""
        if watched is self._window:
            if event.type() == QEvent.Type.ChildPolished and isinstance(event, QChildEvent):
                part = event.child()
                if isinstance(part, QWidget) and not part.styleSheet():
                    self._style(part)
        elif event.type() == QEvent.Type.Show and isinstance(watched, QWidget):
            self._style(watched)
        return False

    def _parts(self) -> list[QWidget]:
        return self._window.findChildren(QWidget, options=Qt.FindChildOption.FindDirectChildrenOnly)

    def _follow(self) -> None:
        """The theme is another one."""
        self._sheet = style_sheet(current_theme())
        self._window.style().polish(self._window)  # else separators keep the accent of before
        for part in self._parts():
            if part.isVisible():
                self._style(part)
            else:
                part.installEventFilter(self)
        self._next.start()

    def _style_next(self) -> None:
        late = next((part for part in self._parts() if part.styleSheet() != self._sheet), None)
        if late is not None:
            self._style(late)
        else:
            self._next.stop()

    def _style(self, part: QWidget) -> None:
        part.removeEventFilter(self)
        if part.styleSheet() != self._sheet:
            part.setStyleSheet(self._sheet)
