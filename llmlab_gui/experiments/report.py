"""The Report dock: report.md of the current experiment with its figures, in the look of the Learn pages."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtWidgets import QWidget

from llmlab_gui.experiments.poller import ExperimentRow, Report
from llmlab_gui.experiments.report_dock import ReportDock

if TYPE_CHECKING:
    from llmlab.studies.experiments.outcomes import ExperimentResults
    from llmlab_gui.experiments.desk import ExperimentDesk
    from llmlab_gui.lab.lab import Lab

_CAPTION = "Written by the experiment from what its runs recorded."


class ExperimentReportDock(ReportDock):
    """Follows the experiment that its desk looks at."""

    def __init__(self, lab: Lab, desk: ExperimentDesk[ExperimentResults], parent: QWidget | None = None) -> None:
        super().__init__(lab, "experiment_report", "Report", parent)
        self.desk = desk
        self.caption(_CAPTION, "experiments")
        self.desk.outcome_changed.connect(self.refresh)
        self.desk.changed.connect(self.update_empty)
        self.refresh()

    def row(self) -> ExperimentRow | None:
        return self.desk.current()

    def report(self) -> Report | None:
        return self.desk.outcome.report

    def say_nothing(self) -> None:
        hint = "Set one up, or choose one in Experiments: its report appears here."
        plan_one = partial(self.lab.dock_requested.emit, "experiment")
        self.show_empty("No experiment is selected", hint, "Set one up", plan_one)
