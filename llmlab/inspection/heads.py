"""Head scores: a few numbers and a thumbnail per attention head, taken while its pattern passes by.

With A [T, T] a head's pattern (row: query i, column: key j), means over all queries that have a choice, i >= 1:

    entropy    sum_j -A_ij ln A_ij      in nats: 0 looks at one token, ln(i + 1) at all alike
    previous   A_i,i-1                  a previous-token head (Elhage et al. 2021, "A Mathematical Framework")
    first      A_i,0                    an attention sink (Xiao et al. 2024, "Efficient Streaming Language Models")
    distance   sum_j A_ij (i - j)       in tokens

and on N random tokens read twice in a row, after the beginning-of-sequence token where there is one (Olsson et al.
2022, "In-context Learning and Induction Heads"), means over the positions i of the second half, with j the same token's
position in the first:

    duplicate  A_i,j                    a duplicate-token head (Wang et al. 2022, "Interpretability in the Wild")
    induction  A_i,j+1                  an induction head: what followed the last time

Where rows sum to less than one (models with sinks) the missing part counts for nothing. Layers without a pattern,
and prompts of one token, which leave no choice, have NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.capture import Observer, run
from llmlab.core.errors import LabError

MOSAIC = 64  # cells along a thumbnail's side, at most
REPEATED = 50  # random tokens that are read twice; enough for a score, a tenth of the cost of a 512-token prompt

# ln(0) is minus infinity and 0 times that is not a number; and numbers below 1e-38 are slow.
_TINY = 1e-30


class HeadSummaries(Observer):
    """Entropy, previous-token, first-token and distance scores [L, H] and the mosaic [L, H, S, S] of one prompt.

    S = min(T, 64). Cell (a, b) of the mosaic is the largest weight from the queries a T // S up to (a + 1) T // S
    (not included) to such keys; of a prompt with at most 64 tokens it is the pattern itself.
    """

    def __init__(self, anatomy: Anatomy, time: int) -> None:
        """time: tokens of the prompt, T."""
        self._time = time
        self._side = min(time, MOSAIC)
        device = anatomy.unembedding.device
        size = (anatomy.n_layer, anatomy.n_head)
        self._sums = torch.zeros(4, *size, device=device)  # entropy, previous, first, distance
        self._positions = torch.arange(time, dtype=torch.float32, device=device)
        self._mosaic = torch.zeros(*size, self._side, self._side, device=device)
        self._missing = [layer for layer, block in enumerate(anatomy.blocks) if block.attention is None]

    def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
        """Adds some rows of a layer's patterns to its scores and its thumbnails."""
        rows = pattern[:, :, : first + pattern.shape[1]].float()  # [H, r, keys up to the last query]
        self._thumbnail(layer, first, rows)
        if first == 0:
            first, rows = 1, rows[:, 1:]
        if rows.shape[1]:
            self._score(layer, first, rows)

    def _score(self, layer: int, row: int, rows: Tensor) -> None:
        last, keys = row + rows.shape[1], rows.shape[2]
        distances = self._positions[row:last, None] - self._positions[:keys]  # [r, keys]
        logs = rows.clamp_min(_TINY).log_()
        self._sums[0, layer] -= logs.mul_(rows).sum((1, 2))
        self._sums[1, layer] += rows.diagonal(row - 1, 1, 2).sum(-1)
        self._sums[2, layer] += rows[:, :, 0].sum(-1)
        self._sums[3, layer] += rows.flatten(1) @ distances.flatten()

    def _thumbnail(self, layer: int, row: int, rows: Tensor) -> None:
        first_cell, cells = _largest(rows, 1, row, self._time, self._side)  # [H, a, keys]
        _, cells = _largest(cells, 2, 0, self._time, self._side)  # [H, a, b]
        place = self._mosaic[layer, :, first_cell : first_cell + cells.shape[1], : cells.shape[2]]
        torch.maximum(place, cells, out=place)

    def results(self) -> dict[str, Tensor]:
        """heads/{entropy|previous|first|distance} [L, H] and heads/mosaic [L, H, S, S], by their archive names."""
        means = self._sums / (self._time - 1 or torch.nan)
        means[:, self._missing] = torch.nan
        names = ("entropy", "previous", "first", "distance")
        found = {f"heads/{name}": mean for name, mean in zip(names, means, strict=True)}
        self._mosaic[self._missing] = torch.nan
        return found | {"heads/mosaic": self._mosaic}


def _largest(x: Tensor, dim: int, first: int, time: int, side: int) -> tuple[int, Tensor]:
    """x, whose `dim` are the tokens from `first` on -> the first cell that they touch, the largest of each cell."""
    count, width = x.shape[dim], -(-time // side)  # tokens of x, and of the widest cell
    begin = (first * side + side - 1) // time
    if time % side or first % width or count % width:  # cells of different widths, or cut off
        cells = range(begin, ((first + count - 1) * side + side - 1) // time + 1)
        starts = torch.tensor([max(cell * time // side - first, 0) for cell in cells], device=x.device)
        ends = torch.tensor([min((cell + 1) * time // side - first, count) for cell in cells], device=x.device)
        steps = torch.arange(width, device=x.device)
        tokens = torch.minimum(starts[:, None] + steps, ends[:, None] - 1)  # a shorter cell reads its last token again
        x = x.index_select(dim, tokens.flatten())
    return begin, x.unflatten(dim, (-1, width)).amax(dim + 1)


# Repeated random tokens ------------------------------------------------------------------------------------------


def repeated_tokens(vocab: int, length: int, seed: int, beginning: int | None = None) -> list[int]:
    """`length` different random tokens below `vocab`, twice in a row, after the beginning-of-sequence token if given.

    Different, so that each token of the second half has one earlier position. LabError when the vocabulary is too
    small.
    """
    ids = torch.randperm(vocab, generator=torch.Generator().manual_seed(seed)).tolist()
    half = [id for id in ids if id != beginning][:length]
    if len(half) < length:
        raise LabError(f"{length} different tokens cannot be drawn.", f"The vocabulary has {len(half)}.", "Take fewer.")
    return ([] if beginning is None else [beginning]) + half * 2


class RepeatScores(Observer):
    """Duplicate-token and induction scores [L, H] of a pass over `repeated_tokens`."""

    def __init__(self, anatomy: Anatomy, length: int, offset: int) -> None:
        """length: N, tokens of one half. offset: tokens before the first half."""
        self._length = length
        self._second = offset + length
        device = anatomy.unembedding.device
        self._sums = torch.zeros(2, anatomy.n_layer, anatomy.n_head, device=device)
        self._missing = [layer for layer, block in enumerate(anatomy.blocks) if block.attention is None]

    def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
        start = max(self._second - first, 0)
        rows = pattern[:, start:].float()  # queries of the second half
        back = first + start - self._length  # position in the first half of the first of these
        for score in range(2):
            self._sums[score, layer] += rows.diagonal(back + score, 1, 2).sum(-1)

    def results(self) -> dict[str, Tensor]:
        """heads/{duplicate|induction} [L, H]."""
        means = self._sums / self._length
        means[:, self._missing] = torch.nan
        return {"heads/duplicate": means[0], "heads/induction": means[1]}


def repeat_scores(
    model: nn.Module,
    anatomy: Anatomy,
    *,
    vocab: int,
    beginning: int | None = None,
    length: int = REPEATED,
    seed: int = 0,
) -> tuple[dict[str, Tensor], str]:
    """One pass over random tokens read twice -> heads/{duplicate|induction} [L, H], a sentence saying how.

    vocab: tokens that the tokenizer knows. beginning: put before them, for models trained with one. The length
    shrinks to what the vocabulary and the context allow; LabError when not even two tokens fit.
    """
    offset = 0 if beginning is None else 1
    length = min(length, vocab - offset, (anatomy.context - offset) // 2)
    if length < 2:
        raise LabError("There is no room for repeated tokens.", f"The model reads {anatomy.context} tokens at most.")
    scores = RepeatScores(anatomy, length, offset)
    run(model, anatomy, repeated_tokens(vocab, length, seed, beginning), [scores], last=True)
    begun = f" other than the beginning-of-sequence token (id {beginning}), which is read before them" if offset else ""
    how = (
        f"Duplicate-token and induction scores are measured on {length} random tokens that are read twice: "
        f"the first of torch.randperm({vocab}) with seed {seed}{begun}."
    )
    return scores.results(), how
