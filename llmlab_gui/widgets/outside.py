"""Files, folders and web pages in the system's own programs."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QUrl, SignalInstance
from PySide6.QtGui import QDesktopServices

from llmlab.core.errors import LabError


def open_outside(target: Path | QUrl, failed: SignalInstance) -> None:
    """Opens it in the program that the system has for it. failed: takes a LabError where there is none."""
    url = target if isinstance(target, QUrl) else QUrl.fromLocalFile(str(target))
    if not QDesktopServices.openUrl(url):
        where = url.toLocalFile() if url.isLocalFile() else url.toString()
        failed.emit(
            LabError("No program here opens this.", "The system names none for it.", f"Open it yourself: {where}")
        )
