"""Follows a page's links into the rest of the lab."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from PySide6.QtCore import QUrl

from llmlab.core.errors import LabError
from llmlab.core.paths import resources_dir
from llmlab.store.checkpoints import final_of, list_checkpoints
from llmlab_gui.lab.lab import Lab
from llmlab_gui.pages.links import DOCK, EXPERIMENT, FILE, FINETUNE, PAGE, PAPER, RUN, WEB, WORKSPACE, Link, read_link
from llmlab_gui.pages.page import Page, page_at
from llmlab_gui.pages.places import PAPER as PAPER_WORKSPACE
from llmlab_gui.widgets.saving import open_outside


class PageOpener:
    """Pages are shown by `go`; everything else is asked of the lab."""

    def __init__(self, lab: Lab, go: Callable[[str], None]) -> None:
        self._lab, self._go = lab, go

    def open(self, url: QUrl, page: Page | None, pages: list[Page]) -> None:
        """Follows a link of `page`, one of `pages`. What it cannot follow is said in the message bar."""
        text = url.toString(QUrl.ComponentFormattingOption.FullyEncoded)
        try:
            link = read_link(text)
        except LabError as error:
            self._lab.error_raised.emit(error)
            return
        run = (link.values.get("model") or link.values.get("base", "")).partition("@")[0]
        if run and self._lab.row_called(run) is None:
            about = self._lab.inspection.about if link.kind == WORKSPACE else None
            why = f"{about.name}, which is open, reads the prompt instead." if about else "This link looks at it."
            do = "Train it as its page says (first-gpt: First hour, page 1), or choose your own model in the toolbar."
            self._lab.error_raised.emit(LabError(f"There is no run {run} yet.", why, do))
            if about is None:
                return
            link = replace(link, values={key: value for key, value in link.values.items() if key != "model"})
        if link.workspace:
            self._lab.workspace_requested.emit(link.workspace)
        if link.kind == PAGE:
            self._go(link.target)
        elif link.kind == FILE:
            self._open_file(link.target, page, pages)
        elif link.kind == DOCK:
            self._lab.dock_requested.emit(link.target)
        elif link.kind == WORKSPACE:
            self._open_workspace(link)
        elif link.kind == RUN:
            self._lab.setup_requested.emit(dict(link.values))
        elif link.kind == FINETUNE:
            self._lab.finetune_requested.emit(dict(link.values))
        elif link.kind == EXPERIMENT:
            self._lab.experiment_requested.emit(link.values["kind"])
        elif link.kind == PAPER:
            self._lab.paper_requested.emit(link.target, link.values["claim"])
            if "model" in link.values:
                self._lab.workspace_requested.emit(PAPER_WORKSPACE)  # the page says how to go on: it stays in sight
                self._lab.check_requested.emit(link.target, link.values["claim"], link.values["model"])
        elif link.kind == WEB:
            open_outside(url, self._lab.error_raised)

    def _open_workspace(self, link: Link) -> None:
        self._lab.workspace_requested.emit(link.target)
        inspection = self._lab.inspection
        if "prompt" in link.values:
            inspection.set_prompt(link.values["prompt"], inspection.beginning, at_once=True)
        if "model" in link.values:
            inspection.open(self._there(link.values["model"]))

    def _there(self, model: str) -> str:
        """The newest checkpoint of a run that has no final one, in its place; and says so."""
        run, _, which = model.partition("@")
        row = self._lab.row_called(run)
        saved = list_checkpoints(row.run.checkpoints) if row is not None and which == "final" else []
        if row is None or not saved or final_of(saved) is not None:
            return model
        finished = row.status.state == "finished"
        why = "It was deleted, or never written." if finished else "The run has not reached its last step."
        what = f"{run} has no checkpoint @final."
        self._lab.error_raised.emit(LabError(what, why, f"Its newest one, @{saved[-1].step}, is opened instead."))
        return f"{run}@{saved[-1].step}"

    def _open_file(self, target: str, page: Page | None, pages: list[Page]) -> None:
        """A page by its file; another file of the lab's own in the system's program for it."""
        found = page_at(page, target, pages) if page is not None else None
        if found is not None:
            self._go(found.name)
            return
        path = (page.folder / target).resolve() if page is not None else None
        if path is None or not path.is_file() or not path.is_relative_to(resources_dir().resolve()):
            self._lab.error_raised.emit(LabError(f"{target} is not there.", "", "Choose a page from the list."))
            return
        open_outside(path, self._lab.error_raised)
