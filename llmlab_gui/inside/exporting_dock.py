"""A panel whose content can be saved to a file or copied: as a picture, a drawing, numbers, or tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QToolButton, QWidget

from llmlab.core.errors import LabError, explained
from llmlab.core.progress import Progress
from llmlab.inspection.archive import Archive, ArchiveWriter
from llmlab_gui.charts.picture import copy_picture, save_picture
from llmlab_gui.host.long_work import LongWork
from llmlab_gui.host.progress_strip import ProgressStrip
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.buttons import menu_button
from llmlab_gui.widgets.saving import OF_A_CHART, Export, Table, csv_text, export_button, save_csv

_FORMATS = (*OF_A_CHART, "safetensors")


class ExportingDock(LabDock):
    """Subclasses write `pictures()`, `table()` and `tensors()`, and put the two buttons somewhere."""

    def __init__(self, lab: Lab, dock_id: str, title: str, parent: QWidget | None = None) -> None:
        super().__init__(lab, dock_id, title, parent)
        self.session = lab.inspection
        self.exports = LongWork(self)
        self._exports_strip = ProgressStrip(self.exports, noun="the export")
        self.export_button = export_button(Export(self.export, lambda: self.export_name, _FORMATS))
        self.export_button.menu().aboutToShow.connect(self._update_formats)
        self.copy_button = self._copy_button()

    def pictures(self) -> Sequence[QWidget]:
        """The widgets that a picture or drawing consists of, below one another."""
        return ()

    def table(self) -> Table | None:
        """Header and rows of what is shown, at full precision; None when there is nothing."""
        return None

    def tensors(self) -> tuple[Archive, Sequence[str]] | None:
        """An archive, and the names in it that the panel shows (a name that ends with "/" means all below it)."""
        return None

    @property
    def export_name(self) -> str:
        """What a file is called at first: the model and the panel."""
        name = self.session.about.name if self.session.about is not None else "model"
        safe = re.sub(r"[^\w.]+", "-", name.replace(",", ""))  # first-gpt, step 1,000
        return f"{safe}-{self.objectName().removeprefix('dock.')}"

    @property
    def picture_title(self) -> str:
        """What stands above a picture."""
        about = self.session.about
        return f"{self.windowTitle()}: {about.name}" if about is not None else self.windowTitle()

    def export(self, path: Path) -> None:
        """Writes what is shown to a .png, .svg, .csv or .safetensors file; the lab hears how it ended."""
        try:
            work = self._export_work(path)
        except LabError as error:
            self.lab.error_raised.emit(error)
            return
        self.exports.run(
            f"Saving {path.name}", work, lambda _: self.lab.said.emit(f"Saved {path}."), self.lab.error_raised.emit
        )

    def copy_picture(self) -> None:
        """The picture to the clipboard."""
        if self.pictures():
            copy_picture(self.pictures(), self.picture_title)
            self.lab.said.emit("The picture was copied.")

    def copy_table(self) -> None:
        """The numbers to the clipboard, as CSV."""
        table = self.table()
        if table is not None:
            self.exports.run(
                "Copying the numbers", partial(csv_text, *table), self._copy_text, self.lab.error_raised.emit
            )

    def _copy_text(self, text: str) -> None:
        QGuiApplication.clipboard().setText(text)
        self.lab.said.emit("The numbers were copied.")

    def _export_work(self, path: Path) -> Callable[[Progress], None]:
        """What is left to do off the window's thread: pictures can only be painted on it."""
        nothing = LabError(f"{self.windowTitle()} has nothing to save as {path.suffix[1:].upper()}.")
        if path.suffix.lower() in (".png", ".svg"):
            pictures = list(self.pictures())
            if not pictures:
                raise nothing
            save = save_picture(pictures, path, self.picture_title)
            return lambda _: save()
        if path.suffix.lower() == ".safetensors":
            tensors = self.tensors()
            if tensors is None:
                raise nothing
            archive, names = tensors
            return lambda _: _save_part(archive, names, path)
        table = self.table()
        if table is None:
            raise nothing
        header, rows = table
        return lambda progress: save_csv(header, rows, path, progress)

    def _update_formats(self) -> None:
        """Only what there is something of can be chosen."""
        picture, tensors = bool(self.pictures()), self.tensors() is not None
        for action, suffix in zip(self.export_button.menu().actions(), _FORMATS, strict=True):
            action.setEnabled(tensors if suffix == "safetensors" else picture or suffix == "csv")

    def _copy_button(self) -> QToolButton:
        button = menu_button("Copy", "Copy what is shown to the clipboard")
        button.menu().addAction("Picture", self.copy_picture)
        button.menu().addAction("Table (CSV)", self.copy_table)
        return button


def _save_part(archive: Archive, wanted: Iterable[str], path: Path) -> None:
    """Writes the wanted tensors with the archive's metadata. LabError when there is none, or no room."""
    names = _names_of(archive, wanted)
    if not names:
        raise LabError("There are no tensors to save.", "What is shown is not in the archive.")
    with explained(f"{path} could not be written.", "Choose another folder."):
        shapes = {name: (archive[name].dtype, archive.shape(name)) for name in names}
        with ArchiveWriter(path, shapes, archive.metadata) as writer:
            for name in names:
                writer.write(name, archive[name])


def _names_of(archive: Archive, wanted: Iterable[str]) -> list[str]:
    """Names in the archive: those wanted, and all below those that end with "/"."""
    chosen = list(wanted)
    return [name for name in archive if any(name == w or (w.endswith("/") and name.startswith(w)) for w in chosen)]
