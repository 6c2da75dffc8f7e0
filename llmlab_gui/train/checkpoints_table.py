"""The table of checkpoints: rows as the Checkpoints dock shows them, sortable; and the facts of one."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QResizeEvent
from PySide6.QtWidgets import QTextBrowser

from llmlab.core.files import read_json
from llmlab.store.checkpoints import MANIFEST_FILE, Checkpoint
from llmlab_gui.train.checkpoint_rows import CheckpointRow
from llmlab_gui.widgets.numbers import bytes_text, duration
from llmlab_gui.widgets.row_tables import Column, Index, RowsModel
from llmlab_gui.widgets.theme import current_theme, theme_notifier

STEP, LOSS, WHY, STATE, PINNED, SIZE, AGE = range(7)


def _number(row: CheckpointRow, value: Callable[[Checkpoint], float | None]) -> float:
    """To sort by: what is not known comes last."""
    found = value(row.checkpoint) if row.checkpoint is not None else None
    return float("inf") if found is None else float(found)


COLUMNS: tuple[Column[CheckpointRow], ...] = (
    Column("Step", lambda row: f"{row.step:,}", "Optimizer steps done", order=lambda row: row.step),
    Column(
        "Val loss",
        lambda row: _loss(row.checkpoint),
        "Validation loss at that step, nats per token",
        right=True,
        order=lambda row: _number(row, lambda saved: saved.val_loss),
    ),
    Column("Saved", lambda row: row.why if row.checkpoint is not None else "", "Why it was saved"),
    Column(
        "State",
        lambda row: state_words(row),
        "Sizes are compared with the manifest at once; Verify also compares every byte's hash",
    ),
    Column(
        "Pinned",
        lambda row: "pinned" if row.checkpoint is not None and row.pinned else "",
        "A pinned checkpoint stays when older ones are deleted to save space",
    ),
    Column(
        "Size",
        lambda row: bytes_text(row.checkpoint.bytes) if row.checkpoint is not None else "",
        "Bytes on disk",
        right=True,
        order=lambda row: _number(row, lambda saved: saved.bytes),
    ),
    Column(
        "Age",
        lambda row: age(row.checkpoint.time) if row.checkpoint is not None else "",
        "How long ago it was saved",
        right=True,
        order=lambda row: _number(row, lambda saved: -saved.time),
    ),
)


class CheckpointsModel(RowsModel[CheckpointRow]):
    """All checkpoints of a run."""

    columns = COLUMNS

    def key(self, row: CheckpointRow) -> str:
        return row.name

    def show(self, rows: Sequence[CheckpointRow]) -> None:
        """Replaces the rows; ages grow meanwhile."""
        super().show(rows)
        self.repaint_all()

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row, column = self.rows[index.row()], index.column()
        if role == Qt.ItemDataRole.ToolTipRole:
            return row.damage or (None if column != AGE or row.checkpoint is None else _when(row.checkpoint.time))
        if role == Qt.ItemDataRole.ForegroundRole and row.damage is not None:
            return QColor(current_theme().bad)
        if role == Qt.ItemDataRole.ForegroundRole and column == STATE and row.verified:
            return QColor(current_theme().good)
        return super().data(index, role)


def state_words(row: CheckpointRow) -> str:
    """How sound it is, in a word or two."""
    if row.damage is not None:
        return "damaged"
    return "verified" if row.verified else "whole"


def _loss(saved: Checkpoint | None) -> str:
    if saved is None:
        return ""
    return f"{saved.val_loss:.4f}" if saved.val_loss is not None else "–"


def age(saved: float) -> str:
    """`12 min`; a checkpoint from the future (a clock was set back) is `just now`."""
    seconds = time.time() - saved
    if seconds < 60:
        return "just now"
    return " ".join(duration(seconds).split(" ")[:2])


def _when(saved: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(saved))


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
