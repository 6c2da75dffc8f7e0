"""The Learn dock: all pages in their groups, with our own code in them and links into the rest of the lab."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from PySide6.QtCore import Qt, QTimer, QUrl
from PySide6.QtGui import QImage, QKeySequence, QResizeEvent, QShortcut, QShowEvent, QTextCursor
from PySide6.QtWidgets import QBoxLayout, QLabel, QLineEdit, QSplitter, QTextEdit, QVBoxLayout, QWidget

from llmlab.core.errors import LabError
from llmlab.core.paths import resources_dir
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.learn.explain import ExplainIt
from llmlab_gui.learn.page_list import PageList, fill_combo
from llmlab_gui.learn.page_opener import PageOpener
from llmlab_gui.learn.stations import ReadToEnd, StationFoot, Stations
from llmlab_gui.learn.yours import Yours, with_yours, yours
from llmlab_gui.pages.browser import TOP, PageBrowser, Place, chart, drawing, pattern_of
from llmlab_gui.pages.library import load_all
from llmlab_gui.pages.page import CONCEPTS, FIRST_HOUR, PATHS, READINGS, REVEAL, Page, without_outcomes
from llmlab_gui.pages.paths import is_explanation, path_of_page
from llmlab_gui.pages.places import with_panels
from llmlab_gui.pages.search import counts_of, words_of
from llmlab_gui.practice.page_questions import PageQuestions, with_questions
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.buttons import flat_button
from llmlab_gui.widgets.labels import ProblemLabel, labelled
from llmlab_gui.widgets.layouts import beside, column
from llmlab_gui.widgets.one_line import ChoiceBox
from llmlab_gui.widgets.theme import current_theme, faded, theme_notifier

# Below this width the list of pages would take the room of the text: a combo box replaces it.
_NARROW = 620
_MARKED_MATCHES = 500
_LEAST_WIDTH, _ONE_ROW = 40, 56  # characters: with the buttons in two rows, and in one
_OF_RUNS = (FIRST_HOUR, CONCEPTS, READINGS)  # groups with pages that runs are started from


@dataclass(frozen=True)
class LastPage:
    """Where the reader was at an earlier start."""

    name: str


class _LearnBrowser(PageBrowser):
    """Figures lie beside the page; only those that come with the lab are shown."""

    def __init__(self, background: Background) -> None:
        super().__init__("Page", background)
        self._page: Page | None = None

    def show_page(self, page: Page, place: Place = TOP) -> None:
        self._page = page
        super().show_page(page, place)

    def figure(self, name: str) -> QImage | None:
        if self._page is None:
            return None
        path = (self._page.folder / name).resolve()
        if not path.is_relative_to(resources_dir().resolve()) or not path.is_file():
            return None
        if path.suffix == ".svg":
            return drawing(path)
        image = QImage(str(path))
        return image if path.parent.name == "screenshots" else chart(image)


class LearnDock(LabDock):
    """A small browser: pages on the left, back and forward, search over all pages."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "learn", "Learn", parent)
        self._pages: list[Page] = []
        self._page: Page | None = None
        self._first = ""  # the page to begin with, where there is one
        self._hides = False  # whether they are hidden on the page that is shown
        self._revealed: dict[str, set[int]] = {}  # of which questions of a page it is seen what came
        self._yours: dict[str, Yours] = {}  # what the reader's own runs show, by page
        self._stale = False  # it was drawn in the colours of another theme
        self._past: list[tuple[str, Place]] = []  # page and place on it
        self._future: list[tuple[str, Place]] = []
        self._led = ""  # the page that the search led to

        self.back_button = flat_button("◀", "Back (Alt+Left)", self.back)
        self.forward_button = flat_button("▶", "Forward (Alt+Right)", self.forward)
        self.previous_button = flat_button("‹ Previous", "Previous page", lambda: self._turn(-1))
        self.next_button = flat_button("Next ›", "Next page", lambda: self._turn(1))
        self.combo = labelled(ChoiceBox(), "Pages")
        self.combo.setSizeAdjustPolicy(ChoiceBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.combo.setMinimumContentsLength(8)
        self.search = labelled(QLineEdit(placeholderText="Search all pages"), "Search all pages")
        self.search.setClearButtonEnabled(True)
        self.search.setMinimumWidth(70)
        self.list = PageList()
        self.browser = _LearnBrowser(self._background)
        self.nothing = QLabel(wordWrap=True)
        self.nothing.hide()
        self.outcome = ProblemLabel()  # what became of a prediction, for whoever reads on meanwhile

        self._top = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._top.addLayout(beside(self.back_button, self.forward_button, self.combo, grows=self.combo), 1)
        self._top.addLayout(beside(self.search, self.previous_button, self.next_button, grows=self.search), 1)
        self._splitter = QSplitter(Qt.Orientation.Horizontal)
        self._splitter.addWidget(self.list)
        self.questions = PageQuestions(lab)
        self.browser.set_guest(self.questions)
        self.stations = Stations(lab.outputs, lab.error_raised.emit, self)
        self.foot = StationFoot(self.stations)
        self.explain = ExplainIt(lab.outputs, self.stations, lab.error_raised.emit)
        self.explain.hide()  # in the browser's place, on the last page of a path
        self._splitter.addWidget(column((self.browser, 1), (self.explain, 1), self.foot))
        self._splitter.setStretchFactor(1, 1)
        self._splitter.setSizes([220, 600])
        self._splitter.setChildrenCollapsible(False)
        body = QWidget(minimumWidth=self.fontMetrics().averageCharWidth() * _LEAST_WIDTH)
        layout = QVBoxLayout(body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self._top)
        layout.addWidget(self.nothing)
        layout.addWidget(self.outcome)
        layout.addWidget(self._splitter, 1)
        self.set_body(body)

        self.list.chosen.connect(self.go)
        self.combo.activated.connect(lambda place: self.go(self.combo.itemData(place)))
        self.search.textChanged.connect(self._filter)
        self.search.returnPressed.connect(self.find_next)
        self._opener = PageOpener(lab, self.go)
        self.browser.anchorClicked.connect(self.open_link)
        self.browser.stale.connect(self._draw_anew)
        self._read_to_end = ReadToEnd(self.browser)
        self._read_to_end.read.connect(self.stations.read)
        self.questions.asker.kept.connect(lambda _: self.stations.refresh())
        self.stations.changed.connect(self._standing_changed)
        self.foot.go.connect(self._lead_to)
        self.explain.go.connect(self._lead_to)
        for key, slot in (
            (QKeySequence.StandardKey.Back, self.back),
            (QKeySequence.StandardKey.Forward, self.forward),
            (QKeySequence.StandardKey.Find, self._focus_search),
        ):
            shortcut = QShortcut(key, body)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(slot)
        self._coming = QTimer(self, singleShot=True, interval=0)
        self._coming.timeout.connect(self._shown)
        self.visibilityChanged.connect(self._come_to_sight)  # its tab was chosen
        lab.concept_requested.connect(self.go)  # the window brings the dock to the front
        lab.notebook.said.connect(self._tell_outcome)
        lab.run_ended.connect(self._look_at_runs)
        self.questions.asker.kept.connect(lambda _: self._look_at_runs())
        theme_notifier.changed.connect(self._restyle)

    @property
    def page_name(self) -> str:
        """The page that is shown, "" before the first."""
        return self._page.name if self._page else ""

    def main_part(self) -> QWidget | None:
        """The page, to read on; Ctrl+F goes to the search."""
        return self.browser if self.browser.isVisible() else super().main_part()

    def go(self, name: str) -> None:
        """Shows a page, or with `glossary#token` that term on it; the page before can be gone back to."""
        self._load()
        name, _, term = name.partition("#")
        if name != self.page_name:
            self.outcome.say("")
            if self._page is not None:
                self._past.append(self._place())
                self._future.clear()
            self._show(name)
        if term:
            self.browser.scrollToAnchor(term)

    def _lead_to(self, name: str) -> None:
        """Shows a page that is read next: the keys scroll it."""
        self.go(name)
        self.take_keyboard()

    def back(self) -> None:
        """The page that was shown before."""
        if self._past:
            self._future.append(self._place())
            self._show(*self._past.pop())

    def forward(self) -> None:
        """The page that was gone back from."""
        if self._future:
            self._past.append(self._place())
            self._show(*self._future.pop())

    def find_next(self) -> None:
        """The next place on this page with a word of the search, from the start again after the last."""
        words = words_of(self.search.text())
        if words and not self.browser.find(pattern_of(*words)):
            self.browser.moveCursor(QTextCursor.MoveOperation.Start)
            self.browser.find(pattern_of(*words))

    def search_for(self, wanted: str) -> None:
        """Searches all pages, as if it had been typed."""
        self._load()
        self.search.setText(wanted)

    def open_link(self, url: QUrl) -> None:
        """Follows a link of the page that is shown."""
        if url.scheme() == REVEAL[:-1] and self._page is not None:
            self._revealed.setdefault(self._page.name, set()).add(int(url.path()))
            self._render()
            return
        self._opener.open(url, self._page, self._pages)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._come_to_sight(True)

    def _come_to_sight(self, visible: bool) -> None:
        """While docks are being arranged, each is shown for a moment: only what stays in sight is worth a page."""
        if visible:
            self._coming.start()

    def _shown(self) -> None:
        if not self.isVisible() or self.visibleRegion().isEmpty():
            return
        self._load()
        if self._page is None and self._pages:
            names = [page.name for page in self._pages]
            self._show(self._first if self._first in names else names[0])
        elif self._stale:
            self._render()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        narrow = event.size().width() < _NARROW
        self.list.setVisible(not narrow)
        self.combo.setVisible(narrow)
        self.previous_button.setText("‹" if narrow else "‹ Previous")
        self.next_button.setText("›" if narrow else "Next ›")
        directions = QBoxLayout.Direction
        low = event.size().width() < self.fontMetrics().averageCharWidth() * _ONE_ROW
        self._top.setDirection(directions.TopToBottom if low else directions.LeftToRight)

    def _load(self) -> None:
        """Reads the pages when they are first needed: the window opens without them."""
        if self._pages:
            return
        self._pages = load_all()
        self.stations.refresh()
        self.list.fill(self._pages, self.page_name)
        fill_combo(self.combo, self._pages)
        if not self._pages:
            self.show_empty("There are no pages", "The folder resources is missing from this installation.")

    def _filter(self) -> None:
        """The pages that have all words; the words themselves are marked on the page that is shown."""
        words = words_of(self.search.text())
        counts = counts_of(self._pages, words) if words else {}
        self.nothing.setText(f"No page has “{' '.join(words)}”.")
        self.nothing.setVisible(bool(words and self._pages and not counts))
        by_name = {page.name: page for page in self._pages}
        found = [by_name[name] for name in counts]
        self.list.fill(found or self._pages, self.page_name, counts)
        if found and self.page_name not in counts:
            self.outcome.say("")
            (self._show if self.page_name == self._led else self.go)(found[0].name)  # one step for Back a search
            self._led = found[0].name
        elif words and self._hides:
            self._render()  # what is searched is not hidden
        self._led = self._led if words else ""
        self._mark_matches()

    def _mark_matches(self) -> None:
        marks: list[QTextEdit.ExtraSelection] = []
        color = faded(current_theme().warning, 0.4)
        words, cursor = words_of(self.search.text()), QTextCursor(self.browser.document())
        while words and len(marks) < _MARKED_MATCHES:
            cursor = self.browser.document().find(pattern_of(*words), cursor)
            if cursor.isNull():
                break
            mark = QTextEdit.ExtraSelection()
            mark.cursor = cursor
            mark.format.setBackground(color)
            marks.append(mark)
        self.browser.setExtraSelections(marks)

    def _turn(self, distance: int) -> None:
        names = [page.name for page in self._pages]
        place = names.index(self.page_name) + distance if self.page_name in names else 0
        if 0 <= place < len(names):
            self.go(names[place])

    def _place(self) -> tuple[str, Place]:
        return self.page_name, self.browser.place()

    def _show(self, name: str, place: Place = TOP) -> None:
        page = next((page for page in self._pages if page.name == name), None)
        if page is None:
            self.lab.error_raised.emit(
                LabError(f"There is no page {name!r}.", "This installation lacks it.", "Choose one from the list.")
            )
            return
        self._page = page
        self._read_to_end.begin(name)
        self._render(place)
        self._look_at_runs()
        explains = path_of_page(name, self.stations.standing) if is_explanation(name) else None
        self.browser.setVisible(explains is None)
        self.explain.setVisible(explains is not None)
        if explains is not None:
            self.explain.show_path(explains.path, {page.name: page.title for page in self._pages})
        self.foot.show_page(name)
        names = [page.name for page in self._pages]
        self.previous_button.setEnabled(name != names[0])
        self.next_button.setEnabled(name != names[-1])
        self.back_button.setEnabled(bool(self._past))
        self.forward_button.setEnabled(bool(self._future))
        self.combo.setCurrentIndex(self.combo.findData(name))
        self.list.mark(name)

    def _render(self, place: Place | None = None) -> None:
        """place: on another page; the same as before on this one."""
        assert self._page is not None
        place = place or self.browser.place()
        self._stale = False
        page = with_questions(self.stations.drawn(with_panels(self._page), self._pages))
        page = with_yours(page, self._yours.get(self._page.name, Yours()))
        self._hides = page.group in (CONCEPTS, FIRST_HOUR) and not self.search.text().strip()
        self.questions.show_page(page)
        shown = self._revealed.get(page.name, ())
        self._read_to_end.watch("")
        self.browser.show_page(without_outcomes(page, shown) if self._hides else page, place)
        self._read_to_end.watch(page.name)
        self._mark_matches()

    def _standing_changed(self) -> None:
        """What was done is told on the pages of paths."""
        if self._page is not None and self._page.group == PATHS:
            self._render()

    def _tell_outcome(self, said: str) -> None:
        """Over pages of groups that runs are started from; the others are about something else."""
        if self._page is not None and self._page.group in _OF_RUNS:
            self.outcome.say(said, wrong=False)

    def _look_at_runs(self, _ended: str = "") -> None:
        """What the reader's runs show on this page, as they stand now."""
        page = self._page
        if page is None or page.group != FIRST_HOUR:
            return

        def tell(mine: Yours) -> None:
            if mine != self._yours.get(page.name, Yours()):
                self._yours[page.name] = mine
                if self._page is page:
                    self._render()

        self._background.run(partial(yours, page.name, self.lab.outputs), tell, self.lab.error_raised.emit)

    def _draw_anew(self) -> None:
        if self._page is not None:
            self._render()

    def _restyle(self) -> None:
        self._stale = self._page is not None
        self._shown()

    def remember(self, settings: WindowSettings) -> None:
        super().remember(settings)
        last = settings.choices("learn/page", LastPage)
        self._first = last.name if last is not None else ""

    def keep(self) -> None:
        if self._settings is not None and self._page is not None:
            self._settings.save_choices("learn/page", LastPage(self._page.name))

    def shutdown(self) -> None:
        self.explain.save()
        self.questions.asker.shutdown()
        super().shutdown()

    def _focus_search(self) -> None:
        self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.search.selectAll()
