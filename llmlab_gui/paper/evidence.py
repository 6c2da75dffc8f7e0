"""The Evidence dock: one claim, what was found, and the charts and tables that the verdict rests on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QFont, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QSplitter,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from llmlab.core.charts import Chart
from llmlab.studies.records import Trial
from llmlab_gui.charts.picture import save_shown
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.learn.page_opener import PageOpener
from llmlab_gui.paper.check_runs import finished_trials, opens_in_panels
from llmlab_gui.paper.claim_chart import ClaimChart
from llmlab_gui.paper.claim_rows import NO_TEST, ClaimRow, check_options
from llmlab_gui.paper.notes import NotesBrowser
from llmlab_gui.paper.pages import claim_page
from llmlab_gui.paper.verdict_badge import Badge
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.buttons import chart_export_button, menu_button, toggle_button
from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.labels import EmptyState, QuietLabel
from llmlab_gui.widgets.saving import ask_where
from llmlab_gui.widgets.theme import theme_notifier

if TYPE_CHECKING:
    from llmlab_gui.lab.lab import Lab
    from llmlab_gui.paper.desk import PaperDesk

_CAPTION = "Solid lines: measured; dashed: baselines and bounds; bars and bands: intervals."
_NARROW = 760  # below this width the charts stand under the words
_TEXT_SHARE = 40  # per cent of the room
_LONGEST_TITLE, _LONGEST_CAPTION = 120, 600


class EvidenceDock(LabDock):
    """Drawn from verdict.json, and anew whenever the check has found more."""

    def __init__(self, lab: Lab, desk: PaperDesk, parent: QWidget | None = None) -> None:
        super().__init__(lab, "evidence", "Evidence", parent)
        self.desk = desk
        self._background = Background(self)
        self._opener = PageOpener(lab, lab.open_concept)
        self._drawn: ClaimRow | None = None
        self._shared = False  # words and chart have their shares of the room
        self.badge, self.title = Badge(), QLabel()
        self.title.setWordWrap(True)
        self.title.setAccessibleName("Claim")
        font = QFont(self.title.font())
        font.setWeight(QFont.Weight.DemiBold)
        self.title.setFont(font)
        self.words = NotesBrowser("What was found")
        self.words.anchorClicked.connect(lambda url: self._follow(url))
        self.chart = ClaimChart("Chart of the claim")
        self.charts = QComboBox()
        self.charts.setAccessibleName("Which chart")
        self.charts.setToolTip("Which chart of this claim")
        self.charts.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.log_x = toggle_button("log x", "Logarithmic horizontal axis")
        self.log_y = toggle_button("log y", "Logarithmic vertical axis; values at or below zero are left out")
        self.export_button = chart_export_button(self._choose_file)
        self.reading = QuietLabel()
        self.reading.setTextFormat(Qt.TextFormat.PlainText)
        self.reading.setAccessibleName("How to read the chart")
        self.nothing = EmptyState()
        self.models_button = menu_button("Open a model", "Let all panels show a model that was tested")
        self.runs_button = menu_button(
            "Open a run", "Make the last checkpoint of a finished run the model of all panels"
        )
        self.evolution_button = menu_button("Evolution", "See what a finished run's checkpoints look like inside")
        self._lay_out()
        self.caption(_CAPTION, "statistics-of-claims")
        self.charts.currentIndexChanged.connect(self._draw)
        for button in (self.log_x, self.log_y):
            button.clicked.connect(self._logs_chosen)
        self.desk.claim_changed.connect(self._refresh)
        self.desk.check_changed.connect(self._refresh)
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

    def export(self, path: Path) -> None:
        """Writes the chart that is shown to a .png, .svg or .csv file, in the background."""
        work = save_shown([self.chart], self.chart.table, path)
        self._background.run(work, lambda _: self.lab.said.emit(f"Saved {path}."), self.lab.error_raised.emit)

    def shutdown(self) -> None:
        self._background.shutdown()

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

    # Behind the scenes -----------------------------------------------------------------------------------------

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
        self.title.setText(row.claim.title)
        self.badge.say(row.state)
        self.words.show_page(claim_page(row), self.words.verticalScrollBar().value() if same else 0)
        self._offer_charts(keep=same)
        self._draw()

    def _charts(self) -> list[Chart]:
        verdict = self._drawn.verdict if self._drawn is not None else None
        return verdict.charts if verdict is not None else []

    def _offer_charts(self, *, keep: bool) -> None:
        charts = self._charts()
        chosen = self.charts.currentData() if keep else None
        names = [chart.name for chart in charts]
        self.charts.blockSignals(True)
        self.charts.clear()
        for number, chart in enumerate(charts, start=1):
            count = f"{number} of {len(charts)}: " if len(charts) > 1 else ""
            self.charts.addItem(f"{count}{chart.title[:_LONGEST_TITLE]}", chart.name)
        self.charts.setCurrentIndex(names.index(chosen) if chosen in names else 0 if names else -1)
        self.charts.blockSignals(False)

    def _draw(self) -> None:
        charts, place = self._charts(), self.charts.currentIndex()
        chart = charts[place] if 0 <= place < len(charts) else None
        self.chart.show_chart(chart)
        self.log_x.setChecked(self.chart.log_x)
        self.log_y.setChecked(self.chart.log_y)
        self.log_x.setEnabled(chart is not None and not chart.categories)
        self.charts.setToolTip(chart.title[:_LONGEST_TITLE] if chart is not None else "")
        self.reading.setText(_reading(chart) if chart is not None else "")
        self._pane.setCurrentWidget(self._chart_page if chart is not None else self.nothing)
        if chart is None and self._drawn is not None:
            self.nothing.say(*_no_chart(self._drawn))

    def _logs_chosen(self) -> None:
        self.chart.set_log(x=self.log_x.isChecked(), y=self.log_y.isChecked())

    def _offer_runs(self) -> None:
        """The finished runs, those of them that the panels can look into over time, and the models that were tested."""
        check = self.desk.check
        trials = finished_trials(check) if check is not None else []
        inside = [trial for trial in trials if check is not None and opens_in_panels(check.record, trial)]
        options = check_options(check)
        models = options.models if options is not None else []
        _fill(self.runs_button, [(trial.name, trial.run, partial(self.open_run, trial)) for trial in trials])
        _fill(self.evolution_button, [(trial.name, trial.run, partial(self.open_evolution, trial)) for trial in inside])
        _fill(self.models_button, [(name, name, partial(self.lab.inspection.open, name)) for name in models])

    def _follow(self, url: QUrl) -> None:
        self._opener.open(url, None, [])

    def _choose_file(self, kind: str) -> None:
        check = self.desk.check
        name = f"{check.id if check is not None else 'claim'}-{self.charts.currentData() or 'chart'}"
        path = ask_where(self, "Export", Path.home() / f"{name}.{kind}", kind.upper())
        if path is not None:
            self.export(path)

    def _restyle(self) -> None:
        self._drawn = None
        self._refresh()

    def _lay_out(self) -> None:
        head = QHBoxLayout()
        head.addWidget(self.badge, 0, Qt.AlignmentFlag.AlignTop)
        head.addWidget(self.title, 1)
        for button in (self.models_button, self.runs_button, self.evolution_button):
            head.addWidget(button, 0, Qt.AlignmentFlag.AlignTop)
        row = QWidget()
        controls = FlowRow(row)
        for widget in (self.charts, self.log_x, self.log_y):
            controls.addWidget(widget)
        controls.addStretch(1)
        controls.addWidget(self.export_button)
        self._chart_page = QWidget()
        column = QVBoxLayout(self._chart_page)
        column.setContentsMargins(6, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(row)
        column.addWidget(self.chart, 1)
        column.addWidget(self.reading)
        self._pane = QStackedWidget()
        self._pane.addWidget(self._chart_page)
        self._pane.addWidget(self.nothing)
        self._splitter = QSplitter(Qt.Orientation.Horizontal)
        self._splitter.addWidget(self.words)
        self._splitter.addWidget(self._pane)
        self._splitter.setStretchFactor(0, _TEXT_SHARE)
        self._splitter.setStretchFactor(1, 100 - _TEXT_SHARE)
        self._splitter.setChildrenCollapsible(False)
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.addLayout(head)
        layout.addWidget(self._splitter, 1)
        self.set_body(body)


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
