"""The Report dock: report.md of the current experiment with its figures, in the look of the Learn pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices, QImage, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from llmlab.files import write_atomic
from llmlab_gui.background import Background
from llmlab_gui.concepts import Page
from llmlab_gui.docks.base import LabDock, QuietLabel
from llmlab_gui.experiments.poller import Report
from llmlab_gui.page_browser import PageBrowser
from llmlab_gui.saving import ask_where
from llmlab_gui.theme import theme_notifier

if TYPE_CHECKING:
    from llmlab_gui.lab import Lab

_CAPTION = "Written by the experiment from what its runs recorded; nothing in it comes from elsewhere."


class ReportBrowser(PageBrowser):
    """Shows a report; its figures are handed over as bytes, and it reaches for no others."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Report", parent)
        self._images: dict[str, QImage] = {}

    def show_report(self, title: str, report: Report) -> None:
        """Renders it anew in the theme's colours; where it was scrolled to stays."""
        self._images = {name: QImage.fromData(data) for name, data in report.images.items()}
        self.show_page(Page("report", title, report.text), self.verticalScrollBar().value())

    def figure(self, name: str) -> QImage | None:
        return self._images.get(name)


class ExperimentReportDock(LabDock):
    """Kept up to date while the experiment writes it."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "experiment_report", "Report", parent)
        self.desk = lab.experiments
        self._background = Background(self)
        self._drawn: Report | None = None
        self.browser = ReportBrowser()
        self.browser.anchorClicked.connect(self.open_link)
        self.where = QuietLabel()
        self.save_button = QPushButton("Save as…")
        self.save_button.setToolTip("Save the report as Markdown, with its figures beside it")
        self.folder_button = QPushButton("Open its folder")
        self.folder_button.setToolTip("The experiment's folder: report.md, results.json, figures")
        top = QHBoxLayout()
        top.addWidget(self.where, 1)
        top.addWidget(self.save_button)
        top.addWidget(self.folder_button)
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(top)
        layout.addWidget(self.browser, 1)
        self.set_body(body)
        self.caption(_CAPTION, "experiments")
        self.browser.width_changed.connect(self._restyle)
        self.save_button.clicked.connect(self._ask_where)
        self.folder_button.clicked.connect(self.open_folder)
        self.desk.outcome_changed.connect(self._refresh)
        self.desk.changed.connect(self._update_empty)
        theme_notifier.changed.connect(self._restyle)
        self._refresh()

    def open_link(self, url: QUrl) -> None:
        """A concept page, a panel, a run, or the web."""
        parts = urlsplit(url.toString(QUrl.ComponentFormattingOption.FullyEncoded))
        if parts.scheme == "concept":
            self.lab.open_concept(parts.path)
        elif parts.scheme == "dock":
            self.lab.dock_requested.emit(parts.path)
        elif parts.scheme in ("http", "https"):
            QDesktopServices.openUrl(url)
        elif parts.scheme == "run" and self.lab.row(parts.path) is not None:
            self.lab.set_current(parts.path)
        elif parts.scheme == "" and (row := self.desk.current()) is not None:
            path = (row.folder.path / parts.path).resolve()
            if path.is_relative_to(row.folder.outputs.resolve()) and path.exists():
                QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))

    def open_folder(self) -> None:
        """The experiment's folder in the system's file manager."""
        row = self.desk.current()
        if row is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(row.folder.path)))

    def save(self, path: Path) -> None:
        """Writes the report as Markdown, and its figures where it looks for them; in the background."""
        report = self.desk.outcome.report
        if report is None:
            return

        def work() -> None:
            for name, data in report.images.items():
                figure = path.parent / name
                figure.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(figure, data)
            write_atomic(path, report.text.encode())

        self._background.run(work, lambda _: self.lab.said.emit(f"Saved {path}."), self.lab.error_raised.emit)

    def shutdown(self) -> None:
        self._background.shutdown()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._refresh()

    # Behind the scenes -----------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        self._update_empty()
        report = self.desk.outcome.report
        if report is None:
            self._drawn = None
        elif report is not self._drawn and self.isVisible():
            self._drawn = report
            self.browser.show_report(self.desk.outcome.id, report)

    def _restyle(self) -> None:
        self._drawn = None
        self._refresh()

    def _update_empty(self) -> None:
        row, report = self.desk.current(), self.desk.outcome.report
        self.where.setText(f"{row.record.title}: {row.id}" if row is not None else "")
        if row is None:
            hint = "Plan one, or choose one in Experiments: its report is shown here."
            self.show_empty("No experiment is shown", hint, "Plan one", self._plan_one)
        elif report is None:
            hint = "It is written when the last run has ended, or when the experiment is stopped."
            self.show_empty("No report yet", hint)
        else:
            self.show_body()

    def _plan_one(self) -> None:
        self.lab.dock_requested.emit("experiment")

    def _ask_where(self) -> None:
        row = self.desk.current()
        if row is None:
            return
        path = ask_where(self, "Save the report", Path.home() / f"{row.id}.md", "Markdown")
        if path is not None:
            self.save(path)
