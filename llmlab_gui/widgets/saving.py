"""Files that someone saves from the window: what can be saved, in which formats; and what is opened outside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np
from PySide6.QtCore import QUrl, SignalInstance
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QFileDialog, QToolButton, QWidget

from llmlab.core.errors import LabError, explained
from llmlab.core.files import write_atomic
from llmlab.core.progress import Progress, quiet
from llmlab_gui.widgets.buttons import menu_button, tool_button
from llmlab_gui.widgets.question import ask

Cell: TypeAlias = str | int | float | np.integer | np.floating | None
Table: TypeAlias = tuple[Sequence[str], Sequence[Sequence[Cell]]]  # header and rows
_ROWS_A_LOOK = 1000  # a few milliseconds
# Formats by the suffixes of their files.
FORMATS = {
    "png": "Picture (PNG)",
    "svg": "Drawing (SVG)",
    "csv": "Table (CSV)",
    "md": "Text (Markdown)",
    "safetensors": "Tensors (safetensors)",
}
OF_A_CHART = ("png", "svg", "csv")
_TIP = "Save it to a file"


class LazyRows(Sequence[Sequence[Cell]]):
    """Rows that are made one by one when they are written: a million of them takes seconds."""

    def __init__(self, count: int, row: Callable[[int], Sequence[Cell]]) -> None:
        """row: the one at a place, from any thread."""
        self._count, self._row = count, row

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Sequence[Cell]: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Sequence[Cell]]: ...
    def __getitem__(self, place: int | slice) -> Sequence[Cell] | Sequence[Sequence[Cell]]:
        at = range(self._count)[place]
        return self._row(at) if isinstance(at, int) else [self._row(each) for each in at]


@dataclass(frozen=True)
class Export:
    """Something that a panel can save. write: to the file that was chosen. name: what that is called at first, without
    its suffix. formats: of FORMATS. what: names it beside others of the panel."""

    write: Callable[[Path], object]
    name: Callable[[], str]
    formats: Sequence[str] = ("csv",)
    what: str = ""

    def ask(self, parent: QWidget, suffix: str) -> None:
        """Saves it where someone chooses."""
        path = ask_where(parent, Path.home() / f"{self.name()}.{suffix}")
        if path is not None:
            self.write(path)

    def words(self, suffix: str) -> str:
        """In a menu."""
        name = FORMATS[suffix]
        return f"{self.what}: {name[0].lower()}{name[1:]}…" if self.what else f"{name}…"


def export_button(*exports: Export) -> QToolButton:
    """Offers them in its menu; what is one thing in one format is asked for at once."""
    offered = [(export, suffix) for export in exports for suffix in export.formats]
    if len(offered) == 1:
        button = tool_button("Export", f"{_TIP}: {FORMATS[offered[0][1]]}")
        button.clicked.connect(lambda: offered[0][0].ask(button, offered[0][1]))
        return button
    button = menu_button("Export", _TIP)
    for export, suffix in offered:
        button.menu().addAction(export.words(suffix), partial(export.ask, button, suffix))
    return button


def ask_where(parent: QWidget, suggested: Path) -> Path | None:
    """A file in the format of `suggested`; None when nothing was chosen."""
    suffix = suggested.suffix
    start = str(suggested)
    while True:
        formats = f"{FORMATS[suffix[1:]]} (*{suffix})"
        chosen, _ = QFileDialog.getSaveFileName(parent, "Export", start, formats)
        if not chosen:
            return None
        path = Path(chosen)
        if path.suffix.lower() == suffix.lower():
            return path
        # What follows a dot in a name of one's own ("lr 0.003") is no kind of file.
        path = path.with_name(path.name + suffix)
        if not path.exists() or _may_replace(parent, path):  # the dialog asked about the name without the suffix
            return path
        start = str(path)


def _may_replace(parent: QWidget, path: Path) -> bool:
    text, more = f"{path.name} exists already.", f"It is in {path.parent}. What is in it will be lost."
    return bool(ask(parent, "Replace", text, more, {"replace": "Replace"}, harmful="replace"))


def save(path: Path, data: bytes) -> None:
    """Replaces a file that someone chose. Touches no Qt. Raises LabError when it cannot be written."""
    with explained(f"{path} could not be written.", "Choose another folder."):
        write_atomic(path, data)


def csv_text(header: Sequence[str], rows: Sequence[Sequence[Cell]], progress: Progress = quiet) -> str:
    """A table as CSV; floats at full precision, what is not a number, or not there, left empty."""
    lines = [",".join(quoted(name) for name in header)]
    for number, row in enumerate(rows):
        if number % _ROWS_A_LOOK == 0:
            progress("Writing the numbers", number, len(rows))
        lines.append(",".join(_cell(cell) for cell in row))
    return "\n".join(lines) + "\n"


def save_csv(header: Sequence[str], rows: Sequence[Sequence[Cell]], path: Path, progress: Progress = quiet) -> None:
    """Touches no Qt. Raises LabError when the file cannot be written."""
    save(path, csv_text(header, rows, progress).encode())


def _cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return quoted(cell)
    if isinstance(cell, (int, np.integer)):
        return str(int(cell))
    if isinstance(cell, np.floating) and not isinstance(cell, float):
        return "" if np.isnan(cell) else np.format_float_positional(cell, unique=True, trim="0")
    return "" if cell != cell else repr(float(cell))


def quoted(text: str) -> str:
    """As a cell of a CSV file."""
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\n\r') else text


def open_outside(target: Path | QUrl, failed: SignalInstance) -> None:
    """Opens it in the program that the system has for it. failed: takes a LabError where there is none."""
    url = target if isinstance(target, QUrl) else QUrl.fromLocalFile(str(target))
    if not QDesktopServices.openUrl(url):
        where = url.toLocalFile() if url.isLocalFile() else url.toString()
        failed.emit(
            LabError("No program here opens this.", "The system names none for it.", f"Open it yourself: {where}")
        )
