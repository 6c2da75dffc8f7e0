"""Tokens that are painted below one another or line by line, and scrolled: one is pointed at, one is chosen."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QEvent, QPointF, Qt, Signal
from PySide6.QtGui import QKeyEvent, QMouseEvent
from PySide6.QtWidgets import QAbstractScrollArea

from llmlab_gui.widgets.theme import theme_notifier


class TokenArea(QAbstractScrollArea):
    """pointed(i): the mouse is over token i, -1 for none. clicked(i): it was chosen by mouse or arrow keys.

    Subclasses say where a token is, how many there are, and how far each key goes.
    """

    pointed = Signal(int)
    clicked = Signal(int)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.viewport().setMouseTracking(True)
        self.chosen = -1
        self.under = -1  # the token under the mouse, here or in another panel
        theme_notifier.changed.connect(self.viewport().update)

    def count(self) -> int:
        """How many there are."""
        raise NotImplementedError

    def token_at(self, point: QPointF) -> int:
        """The token there, in the viewport; -1 for none."""
        raise NotImplementedError

    def steps(self) -> Mapping[Qt.Key, int]:
        """How far a key goes from the chosen token."""
        raise NotImplementedError

    def point_at(self, token: int) -> None:
        """Marks the token that is pointed at in any panel."""
        if token != self.under:
            self.under = token
            self.viewport().update()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self._point(self.token_at(event.position()))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        token = self.token_at(event.position())
        if event.button() == Qt.MouseButton.LeftButton and token >= 0:
            self.clicked.emit(token)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        step = self.steps().get(Qt.Key(event.key()))
        if step is None or not self.count():
            super().keyPressEvent(event)
        else:
            self.clicked.emit(min(max(self.chosen + step, 0), self.count() - 1))

    def viewportEvent(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Leave:
            self._point(-1)
        return super().viewportEvent(event)

    def scroll_over(self, height: float, line: float) -> None:
        """Everything is so high, in lines of such a height."""
        bar = self.verticalScrollBar()
        bar.setRange(0, max(0, int(height - self.viewport().height())))
        bar.setSingleStep(int(line))
        bar.setPageStep(self.viewport().height())
        self.viewport().update()

    def _point(self, token: int) -> None:
        if token != self.under:
            self.point_at(token)
            self.pointed.emit(token)
