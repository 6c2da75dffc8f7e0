"""The Notebook dock: predictions, outcomes, surprises, and the learner's calibration."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PySide6.QtCore import Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QCheckBox, QLineEdit, QListWidget, QListWidgetItem, QTabWidget, QWidget

from llmlab.core.errors import LabError
from llmlab.notebook.calibration import calibration
from llmlab.notebook.entries import OPEN, Line, statements
from llmlab.notebook.markdown import save_markdown
from llmlab.notebook.quantities import RUN
from llmlab.notebook.words import SURPRISING, outcome_sentence, surprise_text
from llmlab.store.events import Evaluated
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.charts.marks import ReferenceLine
from llmlab_gui.charts.picture import save_curves
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.notebook.charts import CalibrationChart, ScoreChart
from llmlab_gui.notebook.detail import NotebookDetail
from llmlab_gui.notebook.table import COLUMNS, MADE, SHOWN, NotebookFilter, NotebookModel
from llmlab_gui.widgets.labels import QuietLabel, labelled, scrolled
from llmlab_gui.widgets.layouts import column, flow, split
from llmlab_gui.widgets.one_line import ChoiceBox
from llmlab_gui.widgets.row_tables import KEY_ROLE, DatedNames, rows_table
from llmlab_gui.widgets.saving import OF_A_CHART, Export, export_button

RESULT, CALIBRATION, SURPRISES, LIST = range(4)
_CAPTIONS = (
    ("Your prediction over the outcome: the tinted range, or the curve that you drew.", "predicting"),
    ("Of what you state with 80 % confidence, four in five should come true.", "predicting"),
    ("The greatest surprises first: they teach most.", "predicting"),
    (
        "Your predictions for runs, experiments and checks, and their outcomes. Enter shows one over its result.",
        "predicting",
    ),
)
# In a lower place table and chart would have no room below each other: the table is then one more page.
_ROOM_FOR_BOTH = 470


class NotebookDock(LabDock):
    """A table of predictions above one of three views; beside them where the dock is low."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "notebook", "Notebook", parent)
        self.book = lab.notebook
        self._looked = False
        self.model = NotebookModel(self)
        self.proxy = NotebookFilter(self.model, self)
        self.table = rows_table(self.proxy, "Predictions", COLUMNS, sort=(MADE, Qt.SortOrder.DescendingOrder))
        self.table.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # a prediction ends with its range
        self.table.setItemDelegateForColumn(0, DatedNames(self.table))
        self.filter, self.shown = labelled(QLineEdit(placeholderText="Filter"), "Filter the predictions"), ChoiceBox()
        self.ask = labelled(QCheckBox("Ask before every run"), tip="Before a run starts, ask for your prediction")
        self.detail = NotebookDetail()
        self.calibration, self.verdict = CalibrationChart(), QuietLabel()
        self.brier = ScoreChart("Brier score", ReferenceLine(0.25, "0.25: always saying 50 %"))
        self.surprises = labelled(QListWidget(), "Surprises, the greatest first")
        self.tabs = QTabWidget(documentMode=True)
        self._build()
        self._connect()
        self.ask.setChecked(self.book.asks)
        self._fill()
        self.book.refresh()

    # What it shows -----------------------------------------------------------------------------------------------

    def chosen(self) -> Line | None:
        """The prediction that the lower part is about."""
        rows = self.table.selectionModel().selectedRows()
        return self.model.rows[self.proxy.mapToSource(rows[0]).row()] if rows else None

    def choose(self, entry_id: str, place: int | None = None) -> None:
        """Selects a prediction; the first of its entry when no place is named."""
        for row in range(self.proxy.rowCount()):
            found, at = self.proxy.index(row, 0).data(KEY_ROLE)
            if found == entry_id and place in (None, at):
                self.table.selectRow(row)
                self.table.scrollTo(self.proxy.index(row, 0))
                return

    @property
    def page(self) -> int:
        """Which view is in front: RESULT, CALIBRATION, SURPRISES or LIST."""
        return self._pages.index(self.tabs.currentWidget()) if self.tabs.count() else RESULT

    def show_page(self, page: int) -> None:
        """Brings a view to the front."""
        self.tabs.setCurrentIndex(max(0, self.tabs.indexOf(self._pages[page])))

    def charts(self) -> list[LineChart]:
        """What an export writes: the charts in sight."""
        if self.page == CALIBRATION:
            return [self.calibration, self.brier]
        chart = self.detail.chart()
        return [chart] if chart is not None and self.page == RESULT else []

    def export(self, path: Path) -> None:
        """All predictions, as Markdown."""
        self.write_file(partial(save_markdown, list(self.book.entries), path), path)

    def export_table(self, path: Path) -> None:
        """The table as it is shown, as CSV."""
        self.write_table(self.model, path, self.proxy)

    def export_charts(self, path: Path) -> None:
        """The charts in sight, to a .png, .svg or .csv file. The lab hears that there are none."""
        if charts := self.charts():
            self.write_file(save_curves(charts, charts[0].x_label, path), path)
        else:
            hint = "Choose a prediction of a loss, or Calibration."
            self.lab.error_raised.emit(LabError("There is no chart to save.", "", hint))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        low = self.height() < _ROOM_FOR_BOTH
        if low == (self.tabs.indexOf(self.table) >= 0):
            return
        if low:
            self.tabs.insertTab(0, self.table, "Predictions")
            self.tabs.setCurrentIndex(0)
        else:
            self.tabs.removeTab(self.tabs.indexOf(self.table))
            self._splitter.insertWidget(0, self.table)
            self.table.show()

    # Building ----------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.filter.setClearButtonEnabled(True)
        self.filter.setMinimumWidth(120)
        self.shown.setAccessibleName("Which predictions")
        self.shown.fill(SHOWN)
        exports = export_button(
            Export(self.export, lambda: "notebook", ("md",), "All predictions"),
            Export(self.export_table, lambda: "predictions", ("csv",), "Predictions in the table"),
            Export(self.export_charts, lambda: "notebook-charts", OF_A_CHART, "Charts in sight"),
        )
        tools = flow(self.filter, self.shown, self.ask, right=(exports,))
        both = split((self.calibration, 3), (self.brier, 2))
        calibration_page = column((both, 1), self.verdict)
        self.surprises.setWordWrap(True)
        self.surprises.setAlternatingRowColors(True)
        self.surprises.setSpacing(3)
        self._pages: list[QWidget] = [scrolled(self.detail), scrolled(calibration_page), self.surprises, self.table]
        for page, title in zip(self._pages, ("Result", "Calibration", "Surprises"), strict=False):
            self.tabs.addTab(page, title)
        self._splitter = split((self.table, 2), (self.tabs, 3))
        self.set_body(column(tools, (self._splitter, 1)))
        self.caption(*_CAPTIONS[RESULT])

    def _connect(self) -> None:
        self.filter.textChanged.connect(self.proxy.setFilterFixedString)
        self.shown.currentIndexChanged.connect(lambda: self.proxy.set_state(self.shown.currentData()))
        self.ask.toggled.connect(self.book.set_asks)
        self.book.asking_changed.connect(self.ask.setChecked)
        self.book.changed.connect(self._fill)
        self.lab.queue.changed.connect(self._queue_changed)
        self.table.selectionModel().selectionChanged.connect(lambda *_: self._show_chosen())
        self.detail.learned.connect(self.book.learn)
        self.detail.judged.connect(self.book.judge)
        self.detail.score_wanted.connect(self.book.score)
        self.tabs.currentChanged.connect(lambda _: self.caption(*_CAPTIONS[self.page]))
        self.table.activated.connect(lambda _: self.show_page(RESULT))
        self.surprises.itemActivated.connect(self._open_surprise)
        self.surprises.itemClicked.connect(self._open_surprise)
        self.lab.events_arrived.connect(self._events_arrived)

    # Filling -----------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        entries = self.book.entries
        if not self.book.is_read:
            self.show_empty("Reading the notebook", "What was predicted appears here as soon as it is read.")
            return
        if not entries:
            hint = (
                "Before a run starts, you are asked for your prediction. Write a range and how sure you are: "
                "afterwards it is compared with the outcome."
            )
            if queued := sum(len(item.predictions) for item in self.lab.queue.state.items):
                waits = f"{queued} predictions wait" if queued > 1 else "1 prediction waits"
                hint = f"{waits} with the queue, and appear{'' if queued > 1 else 's'} here when the run starts. {hint}"
            self.show_empty("No predictions yet", hint, "Set up a run", lambda: self._open_setup())
            return
        chosen = self.chosen()
        self.show_body()
        self.model.show([line for entry in entries for line in entry.lines()])
        if chosen is not None:
            self.choose(chosen.entry.id, chosen.place)
        if self.chosen() is None:
            self.table.selectRow(0)
        self._show_chosen()
        found = calibration(statements(entries))
        self.calibration.show_calibration(found)
        self.brier.show_means([moment.brier for moment in found.over_time])
        self.verdict.setText(found.verdict)
        self._fill_surprises()

    def _queue_changed(self) -> None:
        if not self.book.entries:
            self._fill()

    def _open_setup(self) -> None:
        self.book.set_asks(True)
        self.lab.dock_requested.emit("setup")

    def _fill_surprises(self) -> None:
        lines = [line for line in self.model.rows if (line.surprise or 0.0) >= SURPRISING]
        self.surprises.clear()
        for line in sorted(lines, key=lambda line: -(line.surprise or 0.0)):
            words = f"{surprise_text(line.surprise)} · {line.entry.about}\n{outcome_sentence(line)}"
            words += f"\nLearned: {line.entry.learned}" if line.entry.learned else ""
            item = QListWidgetItem(words)
            item.setData(Qt.ItemDataRole.UserRole, (line.entry.id, line.place))
            self.surprises.addItem(item)
        if not lines:
            item = QListWidgetItem("No surprises yet: every outcome had a probability of at least one in four.")
            item.setFlags(Qt.ItemFlag.NoItemFlags)
            self.surprises.addItem(item)

    def _show_chosen(self) -> None:
        line = self.chosen()
        if line is None:
            return
        row = self.lab.row(line.entry.full_name) if line.entry.subject == RUN else None
        stopped = row is not None and row.status.state in ("stopped", "failed", "interrupted")
        self.detail.show_line(line, self._actual(line), stopped=stopped)

    def _actual(self, line: Line) -> list[list[float]]:
        """[step, validation loss] of the run: as it was scored, or as far as it is, when the charts show it."""
        entry = line.entry
        if entry.state != OPEN or entry.subject != RUN or entry.full_name not in self.lab.shown_runs():
            return entry.curve
        evaluations = self.lab.history(entry.full_name).evaluations
        finite = np.isfinite(evaluations["val_loss"])
        pairs = zip(evaluations["step"][finite].tolist(), evaluations["val_loss"][finite].tolist(), strict=True)
        return [[step, loss] for step, loss in pairs]

    def _events_arrived(self, run_id: str, events: list[object]) -> None:
        line = self.detail.line
        if (
            line is not None
            and line.entry.full_name == run_id
            and any(isinstance(event, Evaluated) for event in events)
        ):
            self._show_chosen()

    def _open_surprise(self, item: QListWidgetItem) -> None:
        if item.data(Qt.ItemDataRole.UserRole) is None:
            return
        entry_id, place = item.data(Qt.ItemDataRole.UserRole)
        self.shown.setCurrentIndex(0)
        self.filter.clear()
        self.choose(entry_id, place)
        self.show_page(RESULT)
