"""What the window has beside its docks: the welcome, the progress of a look and the tour, which lie over them, and
messages, which have a row of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject
from PySide6.QtWidgets import QApplication

from llmlab_gui.host.long_work import LongWork
from llmlab_gui.host.progress_strip import ProgressStrip
from llmlab_gui.pages.places import TRAIN
from llmlab_gui.window.message_bar import MessageBar
from llmlab_gui.window.tour import Tour, stops
from llmlab_gui.window.welcome import WelcomePanel

if TYPE_CHECKING:
    from llmlab_gui.window.main_window import MainWindow


class Covers(QObject):
    """Puts them in their places, again whenever the window has another size or its docks were placed."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        self.messages = MessageBar(window)
        self.looking = LongWork(self)
        self.looking_strip = ProgressStrip(self.looking, window, noun="the search")
        self.looking_strip.setAutoFillBackground(True)
        self.welcome = WelcomePanel(window)
        self.welcome.hide()
        self.tour: Tour | None = None
        self._welcomed = False  # waved away, or no longer needed
        lab = window.lab
        lab.error_raised.connect(self.messages.show_error)
        lab.error_over.connect(self.messages.withdraw)
        self.messages.dismissed.connect(lab.inspection.choice.read)
        self.messages.changed.connect(self.place)
        self.welcome.tour_wanted.connect(self.start_tour)
        lab.runs_changed.connect(self._runs_changed)
        lab.current_changed.connect(self._runs_changed)

    def place(self) -> None:
        """Messages under the status bar, the welcome over all docks, and what is being looked for at their top."""
        window, width = self._window, self._window.width()
        height = 0 if self.messages.isHidden() else self.messages.heightForWidth(width)
        window.setContentsMargins(0, 0, 0, height)
        layout = window.layout()
        assert layout is not None
        layout.activate()
        self.messages.setGeometry(0, window.height() - height, width, height)
        top = window.train_bar.geometry().bottom() + 1
        self.welcome.setGeometry(0, top, width, window.status.geometry().top() - top)
        self.looking_strip.setGeometry(0, top, width, self.looking_strip.sizeHint().height())

    def docks_placed(self) -> None:
        """Docks were raised above the welcome."""
        if not self.welcome.isHidden():
            self._raise_welcome()
        self.place()

    def wave_welcome(self) -> None:
        """Something else is wanted than the welcome: it does not come back."""
        self._welcomed = True
        self._show_welcome(False)

    def start_tour(self) -> None:
        """From the first stop."""
        if self.tour is not None:
            return
        window = self._window
        window.use_workspace(TRAIN)
        window.workspaces.lend()  # so that what it shows is there
        QApplication.processEvents()  # so that every part has its place before it is outlined
        self.tour = Tour(window, stops(window.docks, window.train_bar))
        self.tour.ended.connect(self._tour_ended)
        self.tour.start()

    def end_tour(self) -> None:
        """Something else is wanted than the tour."""
        if self.tour is not None:
            self.tour.end()

    def _runs_changed(self) -> None:
        lab = self._window.lab
        if lab.runs():
            self.wave_welcome()
        elif lab.looked and not self._welcomed:
            self._show_welcome(True)

    def _show_welcome(self, shown: bool) -> None:
        if shown == self.welcome.isVisibleTo(self._window):
            return
        self.welcome.setVisible(shown)
        if shown:
            self._raise_welcome()

    def _raise_welcome(self) -> None:
        self.place()
        self.welcome.raise_()
        self.welcome.train_button.setFocus()

    def _tour_ended(self) -> None:
        self.tour = None
        self._window.settings.tour_seen = True
        self._window.workspaces.take_back()
        self._window.placed()
