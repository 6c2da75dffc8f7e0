"""The table of checkpoints: rows as the Checkpoints dock shows them, sortable by what they mean."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor

from llmlab.store.checkpoints import Checkpoint
from llmlab_gui.train.checkpoint_rows import CheckpointRow
from llmlab_gui.widgets.numbers import bytes_text, duration
from llmlab_gui.widgets.row_tables import Column, Index, RowsModel
from llmlab_gui.widgets.theme import current_theme

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
        "A pinned checkpoint is never deleted by the keep rule",
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
