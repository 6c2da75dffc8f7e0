"""The thin row over a panel while something works for it: what it does, how far it is, and its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from PySide6.QtCore import QEvent, QObject, QPoint, Qt, SignalInstance
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QLabel, QPushButton, QWidget

from llmlab_gui.host.selection import Working
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import beside, settling_timer
from llmlab_gui.widgets.numbers import time_left_text
from llmlab_gui.widgets.one_line import OneLine
from llmlab_gui.widgets.progress_bar import ProgressBar

_WHOLE = 1000
# Work that is done sooner is not spoken of: the panels would only twitch.
_PATIENCE_MS = 300
_LEAST_BAR = 40  # pixels: less than Qt's own, for the words beside it say more


class Works(Protocol):
    """Whoever has something done: the inspection session, a panel that asks the model by itself, a LongWork."""

    @property
    def working(self) -> Working | None: ...
    @property
    def working_changed(self) -> SignalInstance: ...
    def cancel(self) -> None: ...


class ProgressStrip(QWidget):
    """Follows someone's work; hidden while there is none, and at first."""

    def __init__(
        self,
        session: Works,
        parent: QWidget | None = None,
        *,
        noun: str = "the inspection",
        words: Callable[[str], str] = lambda what: what,
        cancels: Callable[[], bool] = lambda: True,
    ) -> None:
        """noun: of what is done. words: what the panel says of what is being done; hidden where that is "".

        cancels: whether it can be ended here; not where another strip in sight ends it.
        """
        super().__init__(parent)
        self._session, self._words, self._cancels = session, words, cancels
        self._over: QWidget | None = None
        self._under: QWidget | None = None
        self.what, self.left = OneLine(elide=Qt.TextElideMode.ElideMiddle), QLabel()
        self.bar = labelled(ProgressBar(), f"Progress of {noun}")
        self.bar.setMaximumHeight(8)
        self.bar.setMinimumWidth(_LEAST_BAR)
        self.cancel_button = labelled(QPushButton("Cancel"), f"Cancel {noun}")
        self.cancel_button.clicked.connect(lambda: session.cancel())
        beside((self.what, 2), (self.bar, 1), self.left, self.cancel_button, into=self, margins=(6, 3, 6, 3))
        self._patience = settling_timer(self, _PATIENCE_MS, self._appear)
        session.working_changed.connect(self._draw)
        self.hide()
        self._draw()

    def lie_over(self, content: QWidget, under: QWidget | None = None) -> None:
        """Is drawn over the top of a widget from now on, which stays as it is while this comes and goes.

        under: a row of that widget, its tabs, that stays in sight.
        """
        self._over, self._under = content, under
        self.setParent(content)
        self.setAutoFillBackground(True)
        content.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if isinstance(event, QResizeEvent):
            self._place()
        return super().eventFilter(watched, event)

    def _place(self) -> None:
        if self._over is None:  # it has a place in a layout
            return
        top = self._under.mapTo(self._over, QPoint(0, self._under.height())).y() if self._under is not None else 0
        self.setGeometry(0, top, self._over.width(), self.sizeHint().height())

    def _appear(self) -> None:
        self._place()
        self.show()
        self.raise_()

    def _draw(self) -> None:
        working = self._session.working
        words = self._words(working.what) if working is not None else ""
        if working is None or not words:
            self._patience.stop()
            self.hide()
            return
        if self.isHidden() and not self._patience.isActive():
            self._patience.start()
        self.what.say(words)
        self.cancel_button.setVisible(self._cancels())
        self.bar.setRange(0, 0 if working.share is None else _WHOLE)
        if working.share is not None:
            self.bar.setValue(round(_WHOLE * working.share))
        self.left.setText("" if working.eta is None else f"{time_left_text(working.eta)} left")
