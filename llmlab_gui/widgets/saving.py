"""Files that someone saves from the window: where, and what is said when they cannot be written."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PySide6.QtWidgets import QFileDialog, QWidget

from llmlab.core.errors import LabError
from llmlab.core.files import write_atomic


def ask_where(parent: QWidget, title: str, suggested: str | Path, words: str) -> Path | None:
    """A file of the kind of `suggested`, which `words` name; None when nothing was chosen."""
    suffix = Path(suggested).suffix
    chosen, _ = QFileDialog.getSaveFileName(parent, title, str(suggested), f"{words} (*{suffix})")
    return Path(chosen).with_suffix(suffix) if chosen else None


def save(path: Path, data: bytes) -> None:
    """Replaces a file that someone chose. Touches no Qt. Raises LabError when it cannot be written."""
    try:
        write_atomic(path, data)
    except OSError as error:
        raise LabError(f"{path.name} could not be written.", str(error), "Choose another folder.") from error


def save_rows(rows: Iterable[Sequence[object]], path: Path) -> None:
    """A table as CSV, its header first. Raises LabError when it cannot be written."""
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    save(path, out.getvalue().encode())
