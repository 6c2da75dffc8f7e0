"""The Check report dock: report.md of the check that is looked at: all its verdicts, figures, and how to repeat it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QWidget

from llmlab_gui.experiments.poller import ExperimentRow, Report
from llmlab_gui.experiments.report_dock import ReportDock

if TYPE_CHECKING:
    from llmlab_gui.lab.lab import Lab
    from llmlab_gui.paper.desk import PaperDesk

_CAPTION = "Written by the check from what it measured; every number in it is also in verdict.json."


class CheckReportDock(ReportDock):
    """Follows the check that the workspace Paper is about."""

    def __init__(self, lab: Lab, desk: PaperDesk, parent: QWidget | None = None) -> None:
        super().__init__(lab, "check_report", "Check report", parent)
        self.desk = desk
        self.caption(_CAPTION, "statistics-of-claims")
        self.desk.check_changed.connect(self.refresh)
        self.refresh()

    def row(self) -> ExperimentRow | None:
        return self.desk.check

    def report(self) -> Report | None:
        return self.desk.report

    def say_nothing(self) -> None:
        hint = "Run or choose one in Check: its report is shown here."
        self.show_empty("No check is selected", hint, "Set one up", partial(self.lab.dock_requested.emit, "check"))

    def showEvent(self, event: QShowEvent) -> None:
        self.desk.need()
        super().showEvent(event)
