"""A short tour: one part of the window after the other, outlined, with a few words beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from PySide6.QtCore import QEvent, QObject, QPoint, QRect, Qt, Signal
from PySide6.QtGui import QColor, QHideEvent, QKeyEvent, QPainter, QPaintEvent, QPen, QShowEvent
from PySide6.QtWidgets import QApplication, QFrame, QLabel, QPushButton, QWidget

from llmlab.core.config import read_toml
from llmlab.core.paths import resources_dir
from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.labels import PrimaryButton, demi_bold
from llmlab_gui.widgets.layouts import beside, column, settling_timer
from llmlab_gui.widgets.tab_order import move_on
from llmlab_gui.widgets.theme import current_theme

_CARD_WIDTH = 330
_GAP = 14
_PLACED = (QEvent.Type.Resize, QEvent.Type.Move, QEvent.Type.Show, QEvent.Type.Hide)
_KEYS = (QEvent.Type.ShortcutOverride, QEvent.Type.KeyPress)


@dataclass(frozen=True)
class Stop:
    """target: the part that is shown, brought into sight by calling it."""

    target: Callable[[], QWidget]
    title: str
    words: str


class _Card(QFrame):
    def focusNextPrevChild(self, forward: bool) -> bool:
        """Tab stays on it; F6 goes to the panels."""
        return move_on(self, forward=forward)


class Tour(QWidget):
    """An overlay that lets the mouse through everywhere but on its card. `ended` when it is over or skipped.

    Escape ends it wherever the keyboard is, and so does whatever takes the part that it shows out of sight.
    """

    ended = Signal()

    def __init__(self, window: QWidget, stops: Sequence[Stop]) -> None:
        super().__init__(window)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAccessibleName("Tour")
        self._window, self._stops, self._place = window, list(stops), 0
        self._target: QWidget | None = None
        self._again = settling_timer(self, 0, self._follow)  # once the docks have their places
        self.card = _Card(window)
        self.card.setObjectName("tour")  # the style sheet of the window has its ground and edge
        self.card.setFixedWidth(_CARD_WIDTH)
        self.title, self.words, self._count = QLabel(), QLabel(), QLabel()
        demi_bold(self.title)
        for label in (self.title, self.words):
            label.setWordWrap(True)
        self.back_button, self.next_button = QPushButton("Back"), PrimaryButton("Next")
        self.skip_button = push_button("Skip the tour", self.end)
        self.skip_button.setFlat(True)
        row = beside(self.skip_button, 1, self._count, self.back_button, self.next_button)
        column(self.title, self.words, row, into=self.card, margins=(14, 12, 14, 12))
        self.back_button.clicked.connect(lambda: self._go(self._place - 1))
        self.next_button.clicked.connect(lambda: self._go(self._place + 1))

    def start(self) -> None:
        """Shows the first stop."""
        self.setGeometry(self._window.rect())
        self.show()
        self.raise_()
        self.card.show()
        self._go(0)

    def end(self) -> None:
        """Goes away."""
        self.hide()
        self.card.hide()
        self.card.deleteLater()
        self.deleteLater()
        self.ended.emit()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        _app().installEventFilter(self)

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        _app().removeEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        kind = event.type()
        if kind in _PLACED and watched in (self._window, self._target):
            self._again.start()
        elif kind in _KEYS and cast("QKeyEvent", event).key() == Qt.Key.Key_Escape and not _above():
            if kind == QEvent.Type.ShortcutOverride:
                event.accept()  # it is no shortcut of a dock's then, but comes as a key
            else:
                self.end()
            return True
        return False

    def paintEvent(self, event: QPaintEvent) -> None:
        if self._target is None:
            return
        with QPainter(self) as painter:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(QPen(QColor(current_theme().accent), 3))
            painter.drawRoundedRect(self._outline(), 6, 6)

    def _go(self, place: int) -> None:
        if place >= len(self._stops):
            self.end()
            return
        self._place = max(0, place)
        stop = self._stops[self._place]
        self._target = stop.target()
        self._again.stop()
        self.title.setText(stop.title)
        self.words.setText(stop.words)
        self._count.setText(f"{self._place + 1} of {len(self._stops)}")
        self.back_button.setEnabled(self._place > 0)
        self.next_button.setText("Done" if self._place == len(self._stops) - 1 else "Next")
        self.card.adjustSize()
        self._settle()
        self.next_button.setFocus()
        self._again.start()

    def _follow(self) -> None:
        """The window has another size, or its parts have other places."""
        if self._target is None or not self._target.isVisible() or self._target.visibleRegion().isEmpty():
            self.end()
        else:
            self._settle()

    def _settle(self) -> None:
        self.setGeometry(self._window.rect())
        self.card.move(self._beside(self._outline()))
        self.raise_()
        self.card.raise_()
        self.update()

    def _outline(self) -> QRect:
        assert self._target is not None
        corner = self._target.mapTo(self._window, QPoint(0, 0))
        return QRect(corner, self._target.size()).adjusted(2, 2, -2, -2)

    def _beside(self, rect: QRect) -> QPoint:
        """Right of it, else left, else below, else in its middle; always inside the window."""
        width, height = self.card.width(), self.card.height()
        room = self._window.rect()
        if rect.right() + _GAP + width < room.right():
            point = QPoint(rect.right() + _GAP, rect.top())
        elif rect.left() - _GAP - width > 0:
            point = QPoint(rect.left() - _GAP - width, rect.top())
        elif rect.bottom() + _GAP + height < room.bottom():
            point = QPoint(rect.center().x() - width // 2, rect.bottom() + _GAP)
        else:
            point = QPoint(rect.center().x() - width // 2, rect.center().y() - height // 2)
        x = min(max(_GAP, point.x()), room.width() - width - _GAP)
        y = min(max(_GAP, point.y()), room.height() - height - _GAP)
        return QPoint(x, y)


def _app() -> QApplication:
    return cast("QApplication", QApplication.instance())


def _above() -> bool:
    """Whether a menu or a dialog is open, which Escape closes first."""
    return QApplication.activePopupWidget() is not None or QApplication.activeModalWidget() is not None


def stops(docks: Mapping[str, QWidget], toolbar: QWidget) -> list[Stop]:
    """The way through the window. docks: by id. toolbar: what trains."""

    def show(dock_id: str | None) -> QWidget:
        if dock_id is None:
            return toolbar
        docks[dock_id].show()
        docks[dock_id].raise_()
        return docks[dock_id]

    told = read_toml(resources_dir() / "window" / "tour.toml")["stops"]
    return [Stop(partial(show, one.get("panel")), one["title"], one["words"]) for one in told]
