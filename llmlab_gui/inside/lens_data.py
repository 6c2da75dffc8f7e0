"""From an inspection's tensors to the lens table: what each cell says, and what it is coloured by. Knows no Qt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from llmlab.core.signs import minus
from llmlab.data.token_bytes import character_part
from llmlab.inspection.archive import Array
from llmlab_gui.charts.color_scale import ColorScale, one_sided
from llmlab_gui.charts.grid_cells import Grid
from llmlab_gui.inside.film import Inspected
from llmlab_gui.widgets.alternatives import visible

PROBABILITY, RANK, ENTROPY, KL = "probability", "rank", "entropy", "kl"
UNITS = {
    PROBABILITY: "probability of the top token",
    RANK: "rank of the correct token",
    ENTROPY: "entropy of the prediction in nats",
    KL: "KL divergence of the final prediction from this one, in nats",
}
TextOf = Callable[[int], str]


@dataclass(frozen=True)
class LensRow:
    """One row of the table. place: row in the archive; x: layers that the stream has passed, for charts."""

    place: int
    label: str
    x: float


def is_read(archive: Inspected, row: int) -> bool:
    """Whether this row of a lens is there: of a long prompt they come in parts."""
    return bool(archive["lens/ids"][row, 0, 0] >= 0)


def rows_read(archive: Inspected) -> int:
    """How many rows of a lens are there."""
    return int(np.count_nonzero(archive["lens/ids"][:, 0, 0] >= 0))


def lens_rows(archive: Inspected, *, halves: bool) -> list[LensRow]:
    """Rows from the embedding to the last residual; halves: also after each layer's attention."""
    count = archive.shape("lens/entropy")[0]
    rows = [LensRow(0, "embedding", 0.0)]
    for place in range(1, count - 1):
        layer, half = divmod(place, 2)
        if half and halves:
            rows.append(LensRow(place, f"{layer} attention", layer + 0.5))
        elif not half:
            rows.append(LensRow(place, f"after {layer - 1}", float(layer)))
    return [*rows, LensRow(count - 1, "final", (count - 1) / 2)]


def lens_values(archive: Inspected, rows: list[LensRow], by: str) -> tuple[Array, ColorScale]:
    """What colours the cells, [rows, T], and its scale. Where there is no such number (the right token): NaN."""
    places = [row.place for row in rows]
    if by == PROBABILITY:
        return np.asarray(archive["lens/probability"][places, :, 0]), one_sided(0.0, 1.0)
    if by == RANK:
        ranks = np.log10(_ranks(archive["lens/rank"][places]))
        return ranks, _backwards(one_sided(0.0, max(1.0, float(np.nanmax(ranks, initial=0.0)))))
    values = np.asarray(archive[f"lens/{by}"][places], np.float64)
    return values, _backwards(one_sided(0.0, max(1e-6, float(np.nanmax(values, initial=0.0)))))


def lens_grid(archive: Inspected, by: str, text_of: TextOf, *, halves: bool) -> Grid:
    """The table, ready to be painted."""
    rows = lens_rows(archive, halves=halves)
    values, scale = lens_values(archive, rows, by)
    ids = archive["lens/ids"]
    return Grid(
        values,
        tuple(row.label for row in rows),
        tuple(visible(token) for token in archive.metadata.tokens),
        scale,
        lambda row, column: lens_tip(archive, rows[row], column, text_of),
        lambda row, column: visible(text_of(token)) if (token := int(ids[rows[row].place, column, 0])) >= 0 else "",
        unit=UNITS[by],
        kind="count" if by == RANK else "value",
        log=by == RANK,
    )


def lens_tip(archive: Inspected, row: LensRow, column: int, text_of: TextOf) -> str:
    """Everything about one cell, with exact numbers."""
    tokens = archive.metadata.tokens
    part = character_part(tokens, column)
    cell = f"{row.label}, at token {column} “{visible(tokens[column])}”{', ' if part else ''}{part}"
    if not is_read(archive, row.place):
        return f"{cell}: not read"
    ids = archive["lens/ids"][row.place, column].tolist()
    probabilities = archive["lens/probability"][row.place, column].tolist()
    lines = [cell]
    for id, probability in zip(ids, probabilities, strict=True):
        lines.append(f"  {100 * probability:8.4g} %  {visible(text_of(id))}")
    rank = int(archive["lens/rank"][row.place, column])
    chance = float(archive["lens/target_probability"][row.place, column])
    lines.append(f"correct token “{target_text(archive, column, text_of)}”: rank {rank:,}, {100 * chance:.4g} %")
    entropy, kl = (float(archive[f"lens/{name}"][row.place, column]) for name in ("entropy", "kl"))
    lines.append(f"entropy {entropy:.4g} nats, KL to the final prediction {minus(f'{kl:.4g}')} nats")
    return "\n".join(lines)


def target_text(archive: Inspected, column: int, text_of: TextOf) -> str:
    """The correct token at a position: the prompt's next one; at the end, what the model itself expects."""
    tokens = archive.metadata.tokens
    if column + 1 < len(tokens):
        return visible(tokens[column + 1])
    return visible(text_of(int(archive["lens/ids"][-1, column, 0])))


def rank_line(archive: Inspected, column: int) -> tuple[Array, Array]:
    """x and rank of the right token, from 1, at every point of the stream."""
    ranks = _ranks(archive["lens/rank"][:, column])
    return np.arange(len(ranks)) / 2, ranks


def _ranks(ranks: Array) -> Array:
    """Ranks from 1; NaN where there is none yet."""
    return np.where(ranks > 0, ranks, np.nan)


def _backwards(scale: ColorScale) -> ColorScale:
    """Light is where the model is sure, whatever the number."""
    return replace(scale, table=scale.table[::-1].copy())
