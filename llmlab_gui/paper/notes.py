"""The Paper dock: which paper is read, and its notes: what it says, what is contested, what the lab cannot test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QUrl
from PySide6.QtGui import QImage, QShowEvent
from PySide6.QtWidgets import QWidget

from llmlab.data.papers import Paper
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.learn.page_opener import PageOpener
from llmlab_gui.pages.browser import PageBrowser
from llmlab_gui.pages.page import Page
from llmlab_gui.pages.papers import title_and_notes
from llmlab_gui.paper.pages import notes_page
from llmlab_gui.widgets.layouts import choice_box, column
from llmlab_gui.widgets.theme import theme_notifier

if TYPE_CHECKING:
    from llmlab_gui.lab.lab import Lab
    from llmlab_gui.paper.desk import PaperDesk

_CAPTION = "What the paper says and what is contested, in the lab's own words; the links lead to the paper itself."


class NotesBrowser(PageBrowser):
    """Notes have no figures."""

    def figure(self, name: str) -> QImage | None:
        return None


class PaperDock(LabDock):
    """Choosing a paper makes it the one that the docks beside this one are about."""

    def __init__(self, lab: Lab, desk: PaperDesk, parent: QWidget | None = None) -> None:
        super().__init__(lab, "paper", "Paper", parent)
        self.desk = desk
        self._drawn: Paper | None = None
        self._page: Page | None = None
        self._opener = PageOpener(lab, lab.open_concept)
        self.papers = choice_box("Which paper", tip="The papers whose claims the lab knows", least=16)
        self.browser = NotesBrowser("Notes on the paper")
        self.browser.anchorClicked.connect(self.open_link)
        self.set_body(column(self.papers, (self.browser, 1)))
        self.caption(_CAPTION, "experiments")
        self.papers.activated.connect(lambda place: self.desk.set_paper(self.papers.itemData(place)))
        self.desk.paper_changed.connect(self._refresh)
        theme_notifier.changed.connect(self._restyle)
        self._refresh()

    def open_link(self, url: QUrl) -> None:
        """The paper on the web, a concept page, a panel, another paper."""
        self._opener.open(url, self._page, [])

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.desk.need()
        self._refresh()

    # Behind the scenes -----------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        papers, paper = self.desk.papers, self.desk.paper
        names = [one.name for one in papers]
        if names != [self.papers.itemData(place) for place in range(self.papers.count())]:
            self.papers.clear()
            for one in papers:
                self.papers.addItem(f"{title_and_notes(one)[0]} ({one.year})", one.name)
        if paper is None:
            hint = "The folder resources/papers is missing from this installation."
            self.show_empty("There are no papers", hint) if self.desk.looked else self.show_empty("Reading…", "")
            return
        self.show_body()
        self.papers.setCurrentIndex(names.index(paper.name))
        if self.isVisible() and paper is not self._drawn:
            self._drawn = paper
            self._page = notes_page(paper)
            self.browser.show_page(self._page, 0)

    def _restyle(self) -> None:
        self._drawn = None
        self._refresh()
