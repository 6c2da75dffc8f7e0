"""Files that someone saves from the window: where, and what is said when they cannot be written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PySide6.QtWidgets import QFileDialog, QWidget

from llmlab.core.errors import LabError
from llmlab.core.files import write_atomic
from llmlab_gui.widgets.question import ask

Cell: TypeAlias = str | int | float | np.integer | np.floating | None
Table: TypeAlias = tuple[Sequence[str], Sequence[Sequence[Cell]]]  # header and rows


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


def csv_text(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table as CSV; floats at full precision, what is not a number, or not there, left empty."""
    lines = [",".join(quoted(name) for name in header)]
    lines += [",".join(_cell(cell) for cell in row) for row in rows]
    return "\n".join(lines) + "\n"


def save_csv(header: Sequence[str], rows: Sequence[Sequence[Cell]], path: Path) -> None:
    """Touches no Qt. Raises LabError when the file cannot be written."""
    save(path, csv_text(header, rows).encode())


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
