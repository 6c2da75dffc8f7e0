"""Which of several charts is drawn, on which axes, and its export: of an experiment's results, or of a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QWidget

from llmlab_gui.charts.figure_chart import FigureChart
from llmlab_gui.charts.picture import save_shown
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.widgets.buttons import toggle_button
from llmlab_gui.widgets.layouts import choice_box, column, flow
from llmlab_gui.widgets.saving import OF_A_CHART, Export, Table, export_button


class FigurePane(QWidget):
    """`wanted` when another chart was chosen: whoever has the charts then draws it, and calls `drawn`."""

    wanted = Signal()

    def __init__(
        self,
        dock: LabDock,
        chart: FigureChart,
        table: Callable[[], Table],
        *parts: QWidget,
        controls: Sequence[QWidget] = (),
    ) -> None:
        """dock: writes files. table: the chart as numbers. parts: below the choice; the first takes the free room.

        controls: the dock's own, beside those of the axes.
        """
        super().__init__()
        self._dock, self._chart, self._table = dock, chart, table
        self.study = ""  # begins the names and the titles of exported files
        self.charts = choice_box("Which chart", tip="Which chart of the results")
        self.charts.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.log_x = toggle_button("log x", "Logarithmic horizontal axis")
        self.log_y = toggle_button("log y", "Logarithmic vertical axis; values at or below zero are left out")
        export = export_button(Export(self.export, lambda: f"{self.study}-{self.charts.currentData()}", OF_A_CHART))
        column(
            flow(self.charts, self.log_x, self.log_y, *controls, right=(export,)), (parts[0], 1), *parts[1:], into=self
        )
        self.charts.currentIndexChanged.connect(self.wanted)
        for button in (self.log_x, self.log_y):
            button.clicked.connect(lambda: chart.set_log(x=self.log_x.isChecked(), y=self.log_y.isChecked()))

    def offer(self, charts: Sequence[tuple[str, str]], *, keep: bool) -> None:
        """Names and titles. keep: what is chosen stays chosen, if it is among them."""
        if not keep or list(charts) != self.charts.entries():
            self.charts.fill(charts, self.charts.currentData() if keep else None)

    def drawn(self) -> None:
        """The chart has its own axes now."""
        self.log_x.setChecked(self._chart.log_x)
        self.log_y.setChecked(self._chart.log_y)

    def export(self, path: Path) -> None:
        """Writes the chart that is shown to a .png, .svg or .csv file, in the background."""
        title = f"{self.study}: {self._chart.accessibleDescription()}"
        self._dock.write_file(save_shown([self._chart], self._table, path, title), path)
