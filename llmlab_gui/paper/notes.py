"""The Paper dock: which paper is read, and its notes: what it says, what is contested, what the lab cannot test."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import QEvent, QUrl
from PySide6.QtGui import QImage, QShowEvent
from PySide6.QtWidgets import QWidget

from llmlab.data.papers import Paper
from llmlab.studies.papers.own import OwnPaper, find_own_paper
from llmlab.studies.papers.own_answers import new_paper
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.learn.page_opener import PageOpener
from llmlab_gui.pages.browser import TOP, PageBrowser
from llmlab_gui.pages.page import Page
from llmlab_gui.pages.papers import title_and_notes
from llmlab_gui.paper.desk import PaperDesk
from llmlab_gui.paper.pages import notes_page, own_page
from llmlab_gui.paper.questions import PaperQuestions
from llmlab_gui.widgets.buttons import menu_button
from llmlab_gui.widgets.layouts import beside, choice_box, column
from llmlab_gui.widgets.question import LineQuestion
from llmlab_gui.widgets.saving import open_outside
from llmlab_gui.widgets.theme import theme_notifier

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
        self._drawn: Paper | OwnPaper | None = None
        self._page: Page | None = None
        self._opener = PageOpener(lab, lab.concept_requested.emit)
        self.papers = choice_box("Which paper", tip="The papers whose claims the lab knows", least=8)
        self.browser = NotesBrowser("Notes on the paper", self._background)
        self.browser.anchorClicked.connect(self.open_link)
        self.browser.stale.connect(self._restyle)
        self.own_button = menu_button(
            "Your papers", "Write notes and claims on a paper that you read, question by question"
        )
        menu = self.own_button.menu()
        self.new_action = menu.addAction("New paper…", self.begin_paper)
        self.ask_action = menu.addAction("Answer its questions…", self.ask_questions)
        self.folder_action = menu.addAction("Open its folder", self._open_folder)
        self.set_body(column(beside(self.papers, self.own_button, grows=self.papers), (self.browser, 1)))
        self.caption(_CAPTION, "experiments")
        self.papers.activated.connect(lambda place: self.desk.set_paper(self.papers.itemData(place)))
        self.desk.paper_changed.connect(self._refresh)
        theme_notifier.changed.connect(self._restyle)
        self._refresh()

    def open_link(self, url: QUrl) -> None:
        """The paper on the web, a concept page, a panel, another paper."""
        self._opener.open(url, self._page, [])

    def begin_paper(self) -> None:
        """Asks for a name, makes the folder, and asks the questions."""
        made: list[str] = []

        def make(name: str) -> None:
            new_paper(name, self.lab.outputs)
            made.append(name)

        question = LineQuestion(self, "New paper", "A short name of the paper, also for its folder:", "", make)
        question.exec()
        question.deleteLater()
        if made:
            self._ask_of(made[0])

    def ask_questions(self) -> None:
        """Goes on with the questions of the paper that is read, from its files as they are now."""
        if self.desk.paper is not None:
            self._ask_of(self.desk.paper.name)

    def _ask_of(self, name: str) -> None:
        found = partial(find_own_paper, name, self.lab.outputs)
        self._background.run(found, self._ask, self.lab.error_raised.emit)

    def _ask(self, own: OwnPaper | None) -> None:
        if own is not None:
            dialog = PaperQuestions(own, self)
            dialog.exec()
            dialog.deleteLater()
            self.desk.reread(own.paper.name)

    def _open_folder(self) -> None:
        own = self._own()
        if own is not None:
            open_outside(own.folder, self.lab.error_raised)

    def _own(self) -> OwnPaper | None:
        paper = self.desk.paper
        return self.desk.own.get(paper.name) if paper is not None else None

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._read()
        self._refresh()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.ActivationChange and self.isVisible() and self.isActiveWindow():
            self._read()  # whoever comes back from an editor

    def _read(self) -> None:
        self.desk.reread() if self.desk.looked else self.desk.need()

    def _refresh(self) -> None:
        papers, paper = self.desk.papers, self.desk.paper
        names = [one.name for one in papers]
        offered = [(one.name, self._offer(one)) for one in papers]
        if offered != self.papers.entries():
            self.papers.fill(offered)
        own = self._own()
        self.ask_action.setEnabled(own is not None)
        self.folder_action.setEnabled(own is not None)
        if paper is None:
            hint = "The folder resources/papers is missing from this installation."
            self.show_empty("There are no papers", hint) if self.desk.looked else self.show_empty("Reading…", "")
            return
        self.show_body()
        self.papers.setCurrentIndex(names.index(paper.name))
        if self.isVisible() and (own or paper) != self._drawn:
            self._drawn, before = own or paper, self._page
            self._page = notes_page(paper) if own is None else own_page(own)
            same = before is not None and before.name == self._page.name
            self.browser.show_page(self._page, self.browser.place() if same else TOP)

    def _offer(self, paper: Paper) -> str:
        own = self.desk.own.get(paper.name)
        return f"{title_and_notes(paper)[0]} ({paper.year})" if own is None else f"Yours: {paper.title}"

    def _restyle(self) -> None:
        self._drawn = None
        self._refresh()
