"""Files that someone saves from the window, and what is opened outside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np
from PySide6.QtCore import QUrl, SignalInstance
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QFileDialog, QWidget

from llmlab.core.errors import LabError
from llmlab.core.files import write_atomic
from llmlab.core.progress import Progress, quiet
from llmlab_gui.widgets.question import ask

Cell: TypeAlias = str | int | float | np.integer | np.floating | None
Table: TypeAlias = tuple[Sequence[str], Sequence[Sequence[Cell]]]  # header and rows
_ROWS_A_LOOK = 1000  # a few milliseconds


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


def ask_where(parent: QWidget, title: str, suggested: str | Path, words: str) -> Path | None:
    """A file of the kind of `suggested`, which `words` name; None when nothing was chosen."""
    suffix = Path(suggested).suffix
    start = str(suggested)
    while True:
        chosen, _ = QFileDialog.getSaveFileName(parent, title, start, f"{words} (*{suffix})")
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
    try:
        write_atomic(path, data)
    except OSError as error:
        raise LabError(f"{path.name} could not be written.", str(error), "Choose another folder.") from error


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
