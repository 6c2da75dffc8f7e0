"""The Evidence dock: one claim, what was found, and the charts and tables that the verdict rests on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QResizeEvent, QShowEvent
from PySide6.QtWidgets import QLabel, QStackedWidget, QToolButton, QWidget

from llmlab.core.charts import Chart
from llmlab.core.task_settings import TRANSFORMER
from llmlab.studies.plans.records import ExperimentRecord, Trial
from llmlab_gui.experiments.figure_pane import FigurePane
from llmlab_gui.experiments.poller import ExperimentRow
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.learn.page_opener import PageOpener
from llmlab_gui.pages.browser import TOP
from llmlab_gui.paper.claim_chart import ClaimChart
from llmlab_gui.paper.claim_rows import NO_TEST, ClaimRow, check_options
from llmlab_gui.paper.claims import Badge
from llmlab_gui.paper.desk import PaperDesk
from llmlab_gui.paper.notes import NotesBrowser
from llmlab_gui.paper.pages import claim_page
from llmlab_gui.widgets.buttons import menu_button
from llmlab_gui.widgets.labels import EmptyState, QuietLabel, demi_bold
from llmlab_gui.widgets.layouts import beside, column, split
from llmlab_gui.widgets.theme import theme_notifier

_CAPTION = "Solid lines: measured; dashed: baselines and bounds; bars and bands: intervals."
_NARROW = 760  # below this width the charts stand under the words
_TEXT_SHARE = 40  # per cent of the room
_LONGEST_TITLE, _LONGEST_CAPTION = 120, 600


class EvidenceDock(LabDock):
    """Drawn from verdict.json, and anew whenever the check has found more."""

    def __init__(self, lab: Lab, desk: PaperDesk, parent: QWidget | None = None) -> None:
        super().__init__(lab, "evidence", "Evidence", parent)
        self.desk = desk
        self._opener = PageOpener(lab, lab.concept_requested.emit)
        self._drawn: ClaimRow | None = None
        self._shared = False  # words and chart have their shares of the room
        self.badge, self.title = Badge(), QLabel()
        self.title.setWordWrap(True)
        self.title.setAccessibleName("Claim")
        demi_bold(self.title)
        self.words = NotesBrowser("What was found", self._background)
        self.words.stale.connect(self._restyle)
        self.words.anchorClicked.connect(lambda url: self._follow(url))
        self.chart = ClaimChart("Chart of the claim")
        self.reading = QuietLabel()
        self.reading.setTextFormat(Qt.TextFormat.PlainText)
        self.reading.setAccessibleName("How to read the chart")
        self.pane, self.nothing = FigurePane(self, self.chart, self.chart.table, self.chart, self.reading), EmptyState()
        self.models_button = menu_button("Open a model", "Show a tested model in all panels")
        self.runs_button = menu_button(
            "Open a run", "Make the last checkpoint of a finished run the model of all panels"
        )
        self.evolution_button = menu_button("Evolution", "See what a finished run's checkpoints look like inside")
        self._lay_out()
        self.caption(_CAPTION, "statistics-of-claims")
        self.pane.wanted.connect(self._draw)
        self.desk.claim_changed.connect(self._refresh)
        self.desk.check_changed.connect(self._refresh)
        self.desk.check_began.connect(self.raise_)  # before a page that is read in the same place
        theme_notifier.changed.connect(self._restyle)
        self._refresh()

    def open_run(self, trial: Trial) -> None:
        """Makes a run's last checkpoint the active model, and the run the one that the other docks are about."""
        check = self.desk.check
        if check is None:
            return
        run = check.folder.run_of(trial, check.record.track)
        if self.lab.row(run.full_name) is not None:
            self.lab.set_current(run.full_name)
        self.lab.inspection.open(f"{run.full_name}@final")
        self.lab.said.emit(f"{run.id} is opened: the panels of Look inside show it.")

    def open_evolution(self, trial: Trial) -> None:
        """The same, with Evolution in front."""
        self.open_run(trial)
        self.lab.dock_requested.emit("evolution")

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.desk.need()
        self._refresh()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        wanted = Qt.Orientation.Horizontal if event.size().width() >= _NARROW else Qt.Orientation.Vertical
        if wanted != self._splitter.orientation() or not self._shared:
            self._shared = True
            self._splitter.setOrientation(wanted)
            length = event.size().width() if wanted == Qt.Orientation.Horizontal else event.size().height()
            self._splitter.setSizes([length * share // 100 for share in (_TEXT_SHARE, 100 - _TEXT_SHARE)])

    def _refresh(self) -> None:
        row = self.desk.claim
        if row is None:
            self._drawn = None
            self.show_empty(
                "No claim is chosen", "Choose a paper, then one of its claims: this shows what is known about it."
            )
            return
        self.show_body()
        self._offer_runs()
        if not self.isVisible() or row == self._drawn:
            return
        same = self._drawn is not None and self._drawn.claim == row.claim
        self._drawn = row
        self.title.setText(row.claim.title or row.claim.id)
        self.badge.say(row.state)
        self.words.show_page(claim_page(row), self.words.place() if same else TOP)
        self._offer_charts(keep=same)
        self._draw()

    def _charts(self) -> list[Chart]:
        verdict = self._drawn.verdict if self._drawn is not None else None
        return verdict.charts if verdict is not None else []

    def _offer_charts(self, *, keep: bool) -> None:
        charts = self._charts()
        titles = [chart.title[:_LONGEST_TITLE] for chart in charts]
        if len(charts) > 1:
            titles = [f"{number} of {len(charts)}: {title}" for number, title in enumerate(titles, start=1)]
        self.pane.offer([(chart.name, title) for chart, title in zip(charts, titles, strict=True)], keep=keep)
        self.pane.study = self.desk.check.id if self.desk.check is not None else "claim"

    def _draw(self) -> None:
        charts, place = self._charts(), self.pane.charts.currentIndex()
        chart = charts[place] if 0 <= place < len(charts) else None
        self.chart.show_chart(chart)
        self.pane.drawn()
        self.pane.log_x.setEnabled(chart is not None and not chart.categories)
        self.pane.charts.setToolTip(chart.title[:_LONGEST_TITLE] if chart is not None else "")
        self.reading.setText(_reading(chart) if chart is not None else "")
        self._pages.setCurrentWidget(self.pane if chart is not None else self.nothing)
        if chart is None and self._drawn is not None:
            self.nothing.say(*_no_chart(self._drawn))

    def _offer_runs(self) -> None:
        """The finished runs, those of them that the panels can look into over time, and the models that were tested."""
        check = self.desk.check
        trials = _finished_trials(check) if check is not None else []
        inside = [trial for trial in trials if check is not None and _opens_in_panels(check.record, trial)]
        options = check_options(check)
        models = options.models if options is not None else []
        _fill(self.runs_button, [(trial.name, trial.run, partial(self.open_run, trial)) for trial in trials])
        _fill(self.evolution_button, [(trial.name, trial.run, partial(self.open_evolution, trial)) for trial in inside])
        _fill(self.models_button, [(name, name, partial(self.lab.inspection.open, name)) for name in models])

    def _follow(self, url: QUrl) -> None:
        self._opener.open(url, None, [])

    def _restyle(self) -> None:
        self._drawn = None
        self._refresh()

    def _lay_out(self) -> None:
        buttons = (self.models_button, self.runs_button, self.evolution_button)
        head = beside(self.badge, self.title, *buttons, grows=self.title)
        for widget in (self.badge, *buttons):
            head.setAlignment(widget, Qt.AlignmentFlag.AlignTop)
        self.pane.setContentsMargins(6, 0, 0, 0)
        self._pages = QStackedWidget()
        self._pages.addWidget(self.pane)
        self._pages.addWidget(self.nothing)
        self._splitter = split((self.words, _TEXT_SHARE), (self._pages, 100 - _TEXT_SHARE), across=True)
        self.set_body(column(head, (self._splitter, 1), spacing=6))


def _fill(button: QToolButton, entries: list[tuple[str, str, Callable[[], object]]]) -> None:
    """The button's menu, from words, what they stand for, and what choosing them does; gone while there is nothing.

    Checks of one paper name their runs alike, so the words alone do not tell them apart.
    """
    menu = button.menu()
    if [(action.text(), action.data()) for action in menu.actions()] != [(text, key) for text, key, _ in entries]:
        menu.clear()
        for text, key, slot in entries:
            action = menu.addAction(text)
            action.setData(key)
            action.triggered.connect(lambda _=False, slot=slot: slot())
    button.setVisible(bool(entries))


def _no_chart(row: ClaimRow) -> tuple[str, str]:
    """Why there is none, and what is there instead."""
    if row.verdict is not None:
        return "This verdict has no chart", "Its reasons are given in words."
    if row.state == NO_TEST:
        return "Nothing to draw", "The lab does not test this claim."
    return "No chart yet", "Its charts appear here during a check."


def _reading(chart: Chart) -> str:
    """The chart's caption, and what its colours say."""
    color = f" Colour: {chart.color_label}." if chart.color_label else ""
    return f"{chart.caption[:_LONGEST_CAPTION]}{color}".strip()


def _finished_trials(row: ExperimentRow) -> list[Trial]:
    """Its runs that have come to their end, in the plan's order."""
    states = row.status.trials
    return [trial for trial in row.record.trials if trial.name in states and states[trial.name].state == "finished"]


def _opens_in_panels(record: ExperimentRecord, trial: Trial) -> bool:
    """Whether a run's model has layers and heads that the panels can look into."""
    base = record.base.get("model", {})
    kind = base.get("kind", TRANSFORMER) if isinstance(base, dict) else TRANSFORMER
    return bool(trial.settings.get("model.kind", kind) == TRANSFORMER)
