"""The numbers of the Adapter panel: an archive of what fine-tuning changed, as a map, bars, a table and sentences."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmlab.core.signs import count_text
from llmlab.inspection.archive import Archive
from llmlab_gui.charts.bars import Bar, BarGroup, Bars, Series
from llmlab_gui.charts.heatmap import Heat
from llmlab_gui.widgets.saving import Cell

# Words in the names of modules, in families' own spelling.
_FLOW = (
    ("embed", "wte", "wpe"),
    ("qkv", "c_attn", "query_key_value"),
    ("q_proj",),
    ("k_proj",),
    ("v_proj",),
    ("o_proj", "attention.out", "attn.c_proj", "attn.out_proj", "attention.dense"),
    ("gate",),
    ("up", "c_fc", "fc1", "fc_in", "h_to_4h"),
    ("down", "mlp.c_proj", "fc2", "fc_out", "4h_to_h"),
)
_OUTSIDE = "–"  # the row of matrices that belong to no layer
# More bars than these have no names below them: only the longest are drawn.
_MOST_BARS = 64


@dataclass(frozen=True)
class View:
    """column: of the archive."""

    title: str
    column: str
    caption: str


VIEWS = (
    View("Norm", "norm", "How far each matrix moved: the length of (alpha / rank) B A, or of W − W₀."),
    View("Share of the weight", "relative", "How far each matrix moved, in lengths of the matrix before."),
    View(
        "Effective rank",
        "effective_rank",
        "Effective number of directions: exp of the entropy of the singular values (Roy & Vetterli 2007).",
    ),
)


@dataclass(frozen=True)
class AdapterTable:
    """Of N matrices. place [L, M]: which one is at a layer and module, -1 for none."""

    modules: Sequence[str]
    columns: dict[str, npt.NDArray[np.float64]]
    rank: npt.NDArray[np.int64]
    singular: npt.NDArray[np.float64]
    layers: Sequence[str]
    parts: Sequence[str]
    place: npt.NDArray[np.int64]
    about: dict[str, str]
    notes: Sequence[str]

    def heat(self, view: View) -> Heat:
        """One number of each matrix, layer by module; none where no matrix was changed."""
        values = self.columns[view.column]
        found = np.where(self.place < 0, np.nan, values[np.maximum(self.place, 0)])
        return Heat(found, self.layers, short_names(self.parts), "layer", "module")

    def bars(self, row: int, column: int) -> Bars:
        """Its singular values, largest first."""
        matrix = int(self.place[row, column])
        if matrix < 0:
            return Bars()
        values = self.singular[matrix]
        values = values[np.isfinite(values)][:_MOST_BARS]
        groups = tuple(
            BarGroup(str(number + 1), (Bar(float(value), 0, f"singular value {number + 1}: {value:.6g}"),))
            for number, value in enumerate(values)
        )
        return Bars(groups, (Series(f"singular values of {self.modules[matrix]}", 0),), "singular value")

    def largest(self) -> tuple[int, int] | None:
        """Layer and module of the matrix that moved most."""
        if not len(self.modules):
            return None
        matrix = int(np.argmax(self.columns["norm"]))
        row, column = np.argwhere(self.place == matrix)[0]
        return int(row), int(column)

    def words(self, row: int, column: int) -> str:
        """One cell, exactly."""
        matrix = int(self.place[row, column])
        if matrix < 0:
            return f"layer {self.layers[row]}, {self.parts[column]}: not changed"
        norm, relative, effective = (float(self.columns[view.column][matrix]) for view in VIEWS)
        share = "" if math.isnan(relative) else f" = {relative:.4g} of the weight's"
        directions = "" if math.isnan(effective) else f", effective rank {effective:.3g} of {self.rank[matrix]}"
        return f"{self.modules[matrix]}: norm {norm:.5g}{share}{directions}"

    def totals(self) -> str:
        """All matrices together, in a line, and what a reader must know."""
        norm, relative, trained = (self.about.get(name, "") for name in ("norm", "total_relative", "trained"))
        parts = [f"{len(self.modules)} matrices", f"norm {float(norm):.4g} together"]
        if relative:
            parts.append(f"{float(relative):.3g} times that of the weights before")
        parts.append(f"{count_text(int(trained))} trained parameters")
        on = f"{self.about.get('method', '')} on {self.about['base']}: " if self.about.get("base") else ""
        return " ".join([f"{on}{', '.join(parts)}.", *self.notes])

    def rows(self) -> tuple[Sequence[str], Sequence[Sequence[Cell]]]:
        """Every matrix with all its numbers, as CSV has it."""
        most = self.singular.shape[1]
        header = ["module", "rank", *self.columns, *(f"singular {number + 1}" for number in range(most))]
        rows: list[list[Cell]] = [
            [
                name,
                int(rank),
                *(float(column[place]) for column in self.columns.values()),
                *self.singular[place].tolist(),
            ]
            for place, (name, rank) in enumerate(zip(self.modules, self.rank, strict=True))
        ]
        return header, rows


def read_table(archive: Archive) -> AdapterTable:
    """From an archive of the kind `change`."""
    more = archive.metadata.more
    modules, names = json.loads(more["modules"]), json.loads(more["parts"])
    layer = [int(number) for number in archive["layer"]]
    layers, parts = sorted(set(layer)), sorted(dict.fromkeys(names), key=_flow)
    place = np.full((len(layers), len(parts)), -1, np.int64)
    for matrix, (number, name) in enumerate(zip(layer, names, strict=True)):
        place[layers.index(number), parts.index(name)] = matrix
    return AdapterTable(
        modules,
        {view.column: np.asarray(archive[view.column], np.float64) for view in VIEWS},
        np.asarray(archive["rank"], np.int64),
        np.asarray(archive["singular"], np.float64),
        [_OUTSIDE if number < 0 else str(number) for number in layers],
        parts,
        place,
        dict(more),
        archive.metadata.notes,
    )


def _flow(part: str) -> tuple[int, str]:
    """Sorts the modules of a layer in the order in which a token meets them."""
    found = (place for place, words in enumerate(_FLOW) if any(word in part for word in words))
    return next(found, len(_FLOW)), part


def short_names(parts: Sequence[str]) -> list[str]:
    """Without what stands before the last point, where that tells them apart."""
    last = [part.rpartition(".")[2] for part in parts]
    return [short if last.count(short) == 1 else part for short, part in zip(last, parts, strict=True)]
