"""Gives each part of the window the style sheet of the theme: what is in sight at once, the rest after it is drawn.

The window itself has none: Qt would style its thousands of widgets, most of them out of sight, before it draws one.
"""

from __future__ import annotations

from PySide6.QtCore import QChildEvent, QEvent, QObject, Qt, QTimer
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QMainWindow, QProxyStyle, QStyle, QStyleOption, QTabBar, QWidget

from llmlab_gui.widgets.theme import current_theme, style_sheet, theme_notifier


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
        separators = _Separators("Fusion")
        separators.setParent(self)
        window.setStyle(separators)
        self.style_all()

    def style_all(self) -> None:
        """Every part at once, before it is seen."""
        self._sheet = style_sheet(current_theme())
        for part in self._parts():
            self._style(part)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """A part that is new, a dialog say; or one that comes into sight before its turn."""
        # By the event first: a window that goes away sends others when this has no attributes left.
        if event.type() == QEvent.Type.ChildPolished and isinstance(event, QChildEvent):
            part = event.child()
            if watched is self._window and isinstance(part, QWidget) and not part.styleSheet():
                self._style(part)
        elif event.type() == QEvent.Type.Show and watched is not self._window and isinstance(watched, QWidget):
            self._style(watched)
        return False

    def _parts(self) -> list[QWidget]:
        return self._window.findChildren(QWidget, options=Qt.FindChildOption.FindDirectChildrenOnly)

    def _follow(self) -> None:
        """The theme is another one."""
        self._sheet = style_sheet(current_theme())
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
        if isinstance(part, QTabBar):  # of docks: what has no room is scrolled to, and no name is cut
            part.setElideMode(Qt.TextElideMode.ElideNone)


class _Separators(QProxyStyle):
    """Of the window alone, not of what is in it: lines between docks have the accent where they can be moved."""

    def drawPrimitive(
        self, element: QStyle.PrimitiveElement, option: QStyleOption, painter: QPainter, widget: QWidget | None = None
    ) -> None:
        handle = element == QStyle.PrimitiveElement.PE_IndicatorDockWidgetResizeHandle
        if handle and option.state & QStyle.StateFlag.State_MouseOver:
            painter.fillRect(option.rect, QColor(current_theme().accent))
        else:
            super().drawPrimitive(element, option, painter, widget)
