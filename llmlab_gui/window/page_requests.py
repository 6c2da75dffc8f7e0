"""What a page of Learn asks of the window: a workspace, with the page still in sight; and how the first hour begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject

from llmlab_gui.pages.page import FIRST_PAGE
from llmlab_gui.pages.places import LEARN

if TYPE_CHECKING:
    from llmlab_gui.window.main_window import MainWindow


class PageRequests(QObject):
    """Listens to the window's lab, and to its welcome."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        window.lab.workspace_requested.connect(self.arrange)
        window.covers.welcome.hour_wanted.connect(self.begin_first_hour)

    def arrange(self, workspace: str) -> None:
        """The workspace that a page asked for. The page itself stays in front: it says what to look at."""
        self._window.use_workspace(workspace)
        self._window.show_dock("learn")

    def begin_first_hour(self) -> None:
        """The guided way through the lab, page by page."""
        self._window.use_workspace(LEARN)
        self._window.lab.concept_requested.emit(FIRST_PAGE)
