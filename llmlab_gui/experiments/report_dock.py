"""A report.md, rendered with its figures, kept up to date, and saved: of an experiment, or of a check of a paper."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from PySide6.QtCore import QUrl
from PySide6.QtGui import QImage, QShowEvent
from PySide6.QtWidgets import QWidget

from llmlab.core.files import write_atomic
from llmlab.studies.experiments.outcomes import ExperimentResults
from llmlab_gui.experiments.desk import ExperimentDesk
from llmlab_gui.experiments.poller import ExperimentRow, Report
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.pages.browser import TOP, PageBrowser, Place, chart
from llmlab_gui.pages.page import Page
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.labels import QuietLabel, labelled
from llmlab_gui.widgets.layouts import beside, column
from llmlab_gui.widgets.saving import Export, export_button, open_outside
from llmlab_gui.widgets.theme import theme_notifier

Nothing: TypeAlias = tuple[str, str, str, str]  # a title, a hint, a button, and the dock that it opens


class ReportBrowser(PageBrowser):
    """Shows a report; its figures are handed over as bytes, and it reaches for no others."""

    def __init__(self, background: Background) -> None:
        super().__init__("Report", background)
        self._images: dict[str, QImage] = {}

    def show_report(self, title: str, report: Report, place: Place) -> None:
        """Renders it anew in the theme's colours, scrolled to that place."""
        self._images = {name: QImage.fromData(data) for name, data in report.images.items()}
        self.show_page(Page("report", title, report.text), place)

    def figure(self, name: str) -> QImage | None:
        image = self._images.get(name)
        return None if image is None else chart(image)


class ReportDock(LabDock):
    """Kept up to date while a worker writes it. Whoever makes it calls `refresh` when there may be another report."""

    def __init__(
        self,
        lab: Lab,
        dock_id: str,
        title: str,
        look: Callable[[], tuple[ExperimentRow | None, Report | None]],
        nothing: Callable[[], Nothing],
        parent: QWidget | None = None,
    ) -> None:
        """look: the experiment or check looked at, and its report. nothing: what is said while there is none."""
        super().__init__(lab, dock_id, title, parent)
        self._look, self._nothing = look, nothing
        self._drawn: Report | None = None
        self._drawn_of = ""  # whose it is
        self.browser = ReportBrowser(self._background)
        self.browser.anchorClicked.connect(self.open_link)
        self.where = labelled(QuietLabel(), "Report of")
        self.export_button = export_button(Export(self.save, self._export_name, ("md",)))
        self.folder_button = push_button(
            "Open its folder", self.open_folder, tip="report.md, the numbers as JSON, and the figures"
        )
        top = beside(self.where, self.export_button, self.folder_button, grows=self.where)
        self.set_body(column(top, (self.browser, 1)))
        self.browser.stale.connect(self._restyle)
        theme_notifier.changed.connect(self._restyle)

    # What can be done ------------------------------------------------------------------------------------------

    def open_link(self, url: QUrl) -> None:
        """A concept page, a panel, a run, or the web."""
        parts = urlsplit(url.toString(QUrl.ComponentFormattingOption.FullyEncoded))
        if parts.scheme == "concept":
            self.lab.concept_requested.emit(parts.path)
        elif parts.scheme == "dock":
            self.lab.dock_requested.emit(parts.path)
        elif parts.scheme in ("http", "https"):
            open_outside(url, self.lab.error_raised)
        elif parts.scheme == "run" and (run := self.lab.row_called(parts.path)) is not None:
            self.lab.set_current(run.id)
        elif parts.scheme == "" and (row := self._look()[0]) is not None:
            path = (row.folder.path / parts.path).resolve()
            if path.is_relative_to(row.folder.outputs.resolve()) and path.exists():
                open_outside(path, self.lab.error_raised)

    def open_folder(self) -> None:
        """The folder that the report is in, in the system's file manager."""
        row, _ = self._look()
        if row is not None:
            open_outside(row.folder.path, self.lab.error_raised)

    def save(self, path: Path) -> None:
        """Writes the report as Markdown, and its figures where it looks for them; in the background."""
        _, report = self._look()
        if report is None:
            return

        def work() -> None:
            for name, data in report.images.items():
                figure = path.parent / name
                figure.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(figure, data)
            write_atomic(path, report.text.encode())

        self.write_file(work, path)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.refresh()

    def refresh(self) -> None:
        """Shows what there is; the page itself only when it is another, and somebody looks."""
        self.update_empty()
        row, report = self._look()
        if row is None or report is None:
            self._drawn = None
        elif report is not self._drawn and self.isVisible():
            place = self.browser.place() if row.id == self._drawn_of else TOP
            self._drawn, self._drawn_of = report, row.id
            self.browser.show_report(row.id, report, place)

    def update_empty(self) -> None:
        """Says what there is a report of, or why there is none."""
        row, report = self._look()
        self.where.setText(f"{row.record.title}: {row.id}" if row is not None else "")
        if row is None:
            title, hint, action, dock = self._nothing()
            self.show_empty(title, hint, action, partial(self.lab.dock_requested.emit, dock))
        elif report is None:
            self.show_empty("No report yet", "It is written at the end, or when it is stopped before.")
        else:
            self.show_body()

    def _restyle(self) -> None:
        self._drawn = None
        self.refresh()

    def _export_name(self) -> str:
        row, _ = self._look()
        return row.id if row is not None else "report"


def experiment_report(lab: Lab, desk: ExperimentDesk[ExperimentResults], parent: QWidget | None = None) -> ReportDock:
    """The Report dock: of the experiment that its desk looks at."""
    hint = "Set one up, or choose one in Experiments: its report appears here."
    nothing = ("No experiment is selected", hint, "Set one up", "experiment")
    dock = ReportDock(
        lab, "experiment_report", "Report", lambda: (desk.current(), desk.outcome.report), lambda: nothing, parent
    )
    dock.caption("Written by the experiment from what its runs recorded.", "experiments")
    desk.outcome_changed.connect(dock.refresh)
    desk.changed.connect(dock.update_empty)
    dock.refresh()
    return dock
