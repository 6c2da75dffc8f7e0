"""The facts of one checkpoint, from its manifest."""

from __future__ import annotations

import html
import time
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QResizeEvent
from PySide6.QtWidgets import QTextBrowser

from llmlab.core.files import read_json
from llmlab.store.checkpoints import MANIFEST_FILE
from llmlab_gui.train.checkpoint_rows import CheckpointRow
from llmlab_gui.train.checkpoints_table import state_words
from llmlab_gui.widgets.numbers import bytes_text
from llmlab_gui.widgets.theme import current_theme, theme_notifier

_TWO_COLUMNS = 45  # characters: the longest name, and a date with its time


class CheckpointDetails(QTextBrowser):
    """A small page of facts; selectable, so that a hash can be copied."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: tuple[CheckpointRow | None, int] = (None, 0)
        self._narrow = False  # too narrow for a column of names beside that of values
        self.setAccessibleName("Facts of the chosen checkpoint")
        self.setOpenLinks(False)
        self.setLineWrapMode(QTextBrowser.LineWrapMode.WidgetWidth)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        theme_notifier.changed.connect(self._draw)
        self._draw()

    def show_row(self, row: CheckpointRow | None, chosen: int) -> None:
        """The facts of `row`; without one, how many are chosen."""
        if (row, chosen) != self._shown:
            self._shown = (row, chosen)
            self._draw()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Beside a table two columns have no room, and dates would be broken: each fact is a line there."""
        super().resizeEvent(event)
        narrow = self.width() < _TWO_COLUMNS * self.fontMetrics().averageCharWidth()
        if narrow != self._narrow:
            self._narrow = narrow
            self._draw()

    def _draw(self) -> None:
        row, chosen = self._shown
        quiet = QColor(current_theme().quiet).name()
        if row is None:
            words = f"{chosen} checkpoints are chosen." if chosen else "Select a checkpoint to see its contents."
            self.setHtml(f'<p style="color:{quiet}">{words}</p>')
            return
        found = [(html.escape(name), html.escape(value)) for name, value in facts(row)]
        if self._narrow:
            self.setHtml(
                "".join(f'<div><span style="color:{quiet}">{name}</span> {value}</div>' for name, value in found)
            )
            return
        lines = "".join(
            f'<tr><td style="color:{quiet};padding-right:14px">{name}</td><td>{value}</td></tr>'
            for name, value in found
        )
        self.setHtml(f"<table>{lines}</table>")


def facts(row: CheckpointRow) -> list[tuple[str, str]]:
    """Name and value of everything worth knowing, the manifest's own words included."""
    found = [("Folder", row.name), ("State", row.damage or state_words(row))]
    saved = row.checkpoint
    if saved is None:
        return found
    found.append(("Saved", f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(saved.time))}; {row.why}"))
    if saved.val_loss is not None:
        found.append(("Validation loss", f"{saved.val_loss:.5f} nats per token"))
    for key, value in saved.about.items():
        if not isinstance(value, (dict, list)):
            found.append((key.replace("_", " ").capitalize(), _words(value)))
    files: Any = (read_json(saved.path / MANIFEST_FILE) or {}).get("files", {})
    for name, entry in files.items():
        found.append((str(name), f"{bytes_text(float(entry['bytes']))}, sha256 {str(entry['sha256'])[:16]}…"))
    return found


def _words(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    return f"{value:,}" if isinstance(value, int) else str(value)[:300]
