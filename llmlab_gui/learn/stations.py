"""Stations of the paths in the Learn dock: what was done of them, and the line under a page that leads on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QPushButton, QTextBrowser, QWidget

from llmlab.core.errors import LabError
from llmlab.learning.progress import BEGUN, MARKED, OPENED, READ, RESTORED, PathState, Standing, StationLog, untouched
from llmlab_gui.pages.page import PATHS, Page
from llmlab_gui.pages.paths import explain_page, is_explanation, page_of_paths, path_of_page, path_page, with_station
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.labels import PrimaryButton, QuietLabel
from llmlab_gui.widgets.layouts import beside
from llmlab_gui.widgets.question import ask

_ONE_ROW = 80  # characters: words and buttons beside each other
_STAYS = "No station of this path will count as done. Your explanations and answers stay."
_ANEW = {"anew": "Begin anew"}
_NEARLY = 8  # pixels: what is missing from the end of a page that was read


class Stations(QObject):
    """What was done, read and written in the background; `changed` when it is another than before."""

    changed = Signal()

    def __init__(self, outputs: Path, failed: Callable[[LabError], None], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.standing: Standing = untouched()
        self._log, self._failed = StationLog(outputs), failed
        self._background = Background(self)

    def refresh(self, write: Callable[[], object] = lambda: None) -> None:
        """Looks how it stands, after something was written."""

        def work() -> Standing:
            write()
            return self._log.standing()

        self._background.run(work, self._take, self._failed)

    def drawn(self, page: Page, pages: Sequence[Page]) -> Page:
        """A page with what was done of the paths, or with what it asks as a station."""
        if page.group == PATHS:
            return page_of_paths(page.name, self.standing, pages)
        state = path_of_page(page.name, self.standing)
        return with_station(page, state.path) if state is not None else page

    def read(self, page: str) -> None:
        """A page was read to its end."""
        state = path_of_page(page, self.standing)
        place = state.path.place(page) if state is not None else None
        if state is not None and place is not None and not state.stations[place].read:
            self.refresh(partial(self._log.add, READ, pages=[page]))

    def mark(self, path: str, pages: Sequence[str], *, done: bool) -> None:
        """By hand."""
        self.refresh(partial(self._log.add, MARKED if done else OPENED, path, pages))

    def open_again(self, path: str, pages: Sequence[str], restored: Sequence[str]) -> None:
        """Because an explanation lacks what they explain. restored: those of which that was said by mistake."""

        def write() -> None:
            for what, which in ((OPENED, pages), (RESTORED, restored)):
                if which:
                    self._log.add(what, path, which)

        self.refresh(write)

    def begin_anew(self, path: str) -> None:
        """Nothing of the path is done any more; what was written stays."""
        self.refresh(partial(self._log.add, BEGUN, path))

    def _take(self, standing: Standing) -> None:
        if standing != self.standing:
            self.standing = standing
            self.changed.emit()


class StationFoot(QWidget):
    """One line under a page of a path: where it stands, whether it is done, and what comes next."""

    go = Signal(str)  # a page

    def __init__(self, stations: Stations) -> None:
        super().__init__()
        self._stations = stations
        self._page = self._next = ""
        self.words = QuietLabel()
        self.mark_button, self.next_button = QPushButton(), PrimaryButton("")
        self._row = QBoxLayout(QBoxLayout.Direction.LeftToRight, self)
        self._row.setContentsMargins(0, 4, 0, 0)
        self._row.addWidget(self.words, 1)
        self._row.addLayout(beside(self.mark_button, self.next_button))
        self.words.linkActivated.connect(lambda link: self.go.emit(link.removeprefix("concept:")))
        self.mark_button.clicked.connect(self._mark)
        self.next_button.clicked.connect(lambda: self.go.emit(self._next))
        stations.changed.connect(lambda: self.show_page(self._page))
        self.hide()

    def show_page(self, page: str) -> None:
        """What is to be said under a page: nothing where it is on no path."""
        self._page = page
        state = path_of_page(page, self._stations.standing)
        self.setVisible(state is not None and not is_explanation(page))
        if state is None:
            return
        place = state.path.place(page)
        if place is None:
            self.words.setText(f"{state.done} of {state.of} stations done")
            self._lead(state, -1, "Continue" if state.done else "Begin")
            self._offer("Begin anew" if state.done else "", _STAYS)
            return
        how = state.stations[place]
        link = f'<a href="concept:{path_page(state.path.name)}">{state.path.title}</a>'
        self.words.setText(f"{link}, station {place + 1} of {state.of}: {how.words or 'open'}")
        self._lead(state, place, "Next station")
        self._offer("Open it again" if how.done else "Mark as done", "You can also mark a station as done yourself")

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Where they have no room beside each other, the buttons are under the words."""
        super().resizeEvent(event)
        narrow = event.size().width() < self.fontMetrics().averageCharWidth() * _ONE_ROW
        directions = QBoxLayout.Direction
        self._row.setDirection(directions.TopToBottom if narrow else directions.LeftToRight)

    def _lead(self, state: PathState, place: int, words: str) -> None:
        following = state.next(place)
        self._next = following.page if following is not None else explain_page(state.path.name)
        self.next_button.setText(f"{words} ›" if following is not None else "Explain it back ›")
        tip = following.asks if following is not None else "Write the whole from memory"
        self.next_button.setToolTip(tip)
        self.next_button.setAccessibleDescription(tip)

    def _offer(self, words: str, tip: str) -> None:
        self.mark_button.setText(words)
        self.mark_button.setToolTip(tip)
        self.mark_button.setVisible(bool(words))

    def _mark(self) -> None:
        state = path_of_page(self._page, self._stations.standing)
        if state is None:
            return
        place = state.path.place(self._page)
        if place is None:
            if ask(self, "Begin anew", f"Open all stations of “{state.path.title}” again?", _STAYS, _ANEW):
                self._stations.begin_anew(state.path.name)
        else:
            self._stations.mark(state.path.name, [self._page], done=not state.stations[place].done)


class ReadToEnd(QObject):
    """Notices when a page was in sight from its top to its end, without a part that was jumped over."""

    read = Signal(str)  # the name of the page

    def __init__(self, browser: QTextBrowser) -> None:
        super().__init__(browser)
        self._browser = browser
        self._page = ""
        self._seen: dict[str, float] = {}  # by page, as a share of its height
        bar = browser.verticalScrollBar()
        bar.valueChanged.connect(self._look)
        bar.rangeChanged.connect(self._look)

    def begin(self, page: str) -> None:
        """A page is shown: one that was read before can be read again."""
        if self._seen.get(page, 0.0) >= 1:
            del self._seen[page]

    def watch(self, page: str) -> None:
        """The page that has been drawn; "" while one is being drawn."""
        self._page = page
        self._look()

    def _look(self) -> None:
        bar, height = self._browser.verticalScrollBar(), self._browser.document().size().height()
        if not self._page or not self._browser.isVisible() or height <= 0:
            return
        seen = self._seen.get(self._page, 0.0)
        top, bottom = bar.value() / height, (bar.value() + self._browser.viewport().height() + _NEARLY) / height
        if not top <= seen or bottom <= seen:
            return
        self._seen[self._page] = bottom
        if seen < 1 <= bottom:
            self.read.emit(self._page)
