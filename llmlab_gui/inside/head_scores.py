"""What each head does, in numbers: a table to sort, and which heads to fade."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QObject, Qt

from llmlab.core.signs import minus
from llmlab.inspection.archive import Archive
from llmlab_gui.charts.color_scale import Values
from llmlab_gui.widgets.row_tables import Column, RowsModel


@dataclass(frozen=True)
class Score:
    """key: its name in the archive, below `heads/`. words: how it is defined. unit: of the number, "" for a share."""

    key: str
    title: str
    words: str
    unit: str = ""


# Defined in llmlab.inspection.heads.
SCORES = (
    Score(
        "induction",
        "Induction",
        "Weight on the token that followed the same token last time, on repeated random tokens",
    ),
    Score("previous", "Previous", "Weight on the token just before, in this prompt"),
    Score("first", "First", "Weight on the first token of this prompt, the attention sink of idle heads"),
    Score("duplicate", "Duplicate", "Weight on the same token earlier, on repeated random tokens"),
    Score("entropy", "Entropy", "Entropy of the weights in this prompt: 0 means a single token", "nats"),
    Score("distance", "Distance", "Mean distance to what it attends to in this prompt", "tokens"),
)


class HeadScores(RowsModel[tuple[int, int]]):
    """A row a head: its name (layer.head), then its scores."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.scores: list[Score] = []
        self._values: dict[str, Values] = {}
        self._shape = (0, 0)

    def show_archive(self, archive: Archive) -> None:
        """The scores of an inspection; those that it lacks have no column."""
        self.beginResetModel()
        self.scores = [score for score in SCORES if f"heads/{score.key}" in archive]
        self._values = {score.key: np.array(archive[f"heads/{score.key}"]) for score in self.scores}
        shape = next(iter(self._values.values())).shape if self._values else (0, 0)
        self._shape = (shape[0], shape[1])
        self.rows = list(np.ndindex(self._shape))
        self.columns = [self._names(), *map(self._column, self.scores)]
        self.endResetModel()

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role == Qt.ItemDataRole.InitialSortOrderRole and section:
            return Qt.SortOrder.DescendingOrder  # the first click brings the head that does most of it to the top
        return super().headerData(section, orientation, role)

    def value(self, key: str, layer: int, head: int) -> float:
        """One score; NaN when it is not known."""
        values = self._values.get(key)
        return float("nan") if values is None else float(values[layer, head])

    def best(self, key: str) -> tuple[int, int] | None:
        """The head with most of a score; None where no head's is known."""
        known = [(self.value(key, *head), head) for head in self.rows if np.isfinite(self.value(key, *head))]
        return max(known, key=lambda one: one[0])[1] if known else None

    def words(self, layer: int, head: int) -> str:
        """A head and its scores in a line."""
        parts = []
        for score in self.scores:
            value = self.value(score.key, layer, head)
            if np.isfinite(value):
                parts.append(f"{score.title.lower()} {_short(value)} {score.unit}".rstrip())
        return " · ".join([f"Layer {layer}, head {head}", *parts])

    def column_of(self, key: str) -> int:
        """A score's column, 0 when it is not known."""
        return next((place for place, score in enumerate(self.scores, start=1) if score.key == key), 0)

    def row_of(self, layer: int, head: int) -> int:
        """Its row."""
        return layer * self._shape[1] + head

    def head_of(self, row: int) -> tuple[int, int]:
        """Layer and head of a row."""
        return divmod(row, max(1, self._shape[1]))

    def below(self, key: str, least: float) -> npt.NDArray[np.bool_] | None:
        """[L, H]: which heads are below `least` in a score; None when the score is not known."""
        values = self._values.get(key)
        return None if values is None else ~(values >= least)

    def _names(self) -> Column[tuple[int, int]]:
        def order(head: tuple[int, int]) -> int:
            return self.row_of(*head)

        return Column("Head", lambda head: f"{head[0]}.{head[1]}", "Layer and head", right=True, order=order)

    def _column(self, score: Score) -> Column[tuple[int, int]]:
        def text(head: tuple[int, int]) -> str:
            value = self.value(score.key, *head)
            return _short(value) if np.isfinite(value) else "–"

        def order(head: tuple[int, int]) -> float:
            value = self.value(score.key, *head)
            return value if np.isfinite(value) else -np.inf

        unit = f", in {score.unit}" if score.unit else ""
        return Column(score.title, text, f"{score.words}{unit}", right=True, order=order)


def _short(value: float) -> str:
    return minus(f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}")
