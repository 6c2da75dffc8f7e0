"""Does attention become sharper with depth, and is it more than a sink? Measurements on any model that can be watched.

At the last token of a text of T tokens a head's pattern a_1 .. a_T has the entropy -sum a_j log2 a_j, which uniform
attention makes log2 T bits: their ratio is 1 for a head that looks at all alike, 0 for one that looks at one token.
Taken for each head and then averaged (the mean of patterns would be flatter than any of them), in two ways:

    all         over all T tokens
    others      without the first token: a_2 .. a_T over their sum, against log2 (T - 1)

A head that rests on the first token, whatever the text, is sharp in the first way and not in the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from llmlab.errors import LabError
from llmlab.inspection.anatomy import anatomy_of, require
from llmlab.inspection.capture import Observer, run
from llmlab.papers.attention_sinks.untrained import untrained_like
from llmlab.papers.bayesian_geometry import thresholds as bounds
from llmlab.papers.bayesian_geometry.text_prompts import text_prompts
from llmlab.papers.statistics import bootstrap_interval
from llmlab.progress import Progress, quiet
from llmlab.sessions.model import OpenModel
from llmlab.sessions.open import open_model

Array = np.ndarray
ALL, OTHERS = WAYS = ("all", "others")
_TINY = 1e-300  # 0 log 0 is 0
_DIGITS = 5


@dataclass(frozen=True)
class Size:
    """texts: mixed ones that the model reads; pool: of each domain, to choose from. untrained: of these, read by each
    model with random weights, whose attention is nearly uniform in every text.
    """

    texts: int
    pool: int
    untrained: int


SIZES = {"minutes": Size(75, 20, 5), "hour": Size(150, 40, 10), "paper": Size(300, 80, 20)}


def measure_focusing(
    reference: str, outputs: Path, seed: int = 0, progress: Progress = quiet, size: str = "minutes"
) -> dict[str, Any]:
    """Opens a model and measures it: plain values, as `focusing_verdict` takes them. Errors as in `of_model`."""
    return of_model(open_model(reference, outputs, progress), SIZES[size], seed, progress)


def of_model(opened: OpenModel, size: Size, seed: int = 0, progress: Progress = quiet) -> dict[str, Any]:
    """Entropies by layer, and their fall from the first to the last layer, beside models with random weights.

    LabError where the model's attention cannot be watched, or its tokenizer reads no ordinary text.
    """
    texts = text_prompts(opened, size.texts, size.pool, seed, progress).mixed
    total = len(texts) + bounds.RANDOM_MODELS * size.untrained

    def told(before: int) -> Progress:
        return lambda what, done, _total: progress(what, before + done, total)

    entropies = last_token_entropies(opened.model, texts, told(0))  # [2, P, L]
    untrained = []
    for number in range(bounds.RANDOM_MODELS):
        model = untrained_like(opened.model, seed * bounds.RANDOM_MODELS + number)
        untrained.append(
            last_token_entropies(model, texts[: size.untrained], told(len(texts) + number * size.untrained))
        )
    found: dict[str, Any] = {}
    for way, name in enumerate(WAYS):
        fell = falls(entropies[way])
        ends = [bootstrap_interval(layer) for layer in entropies[way].T]
        found[name] = {
            "layers": _rounded(entropies[way].mean(0)),
            "low": [low for low, _ in ends],
            "high": [high for _, high in ends],
            "fall": float(fell.mean()),
            "interval": list(bootstrap_interval(fell)),
            "quarters": float(falls(entropies[way], quarters=True).mean()),
            "untrained": [float(falls(one[way]).mean()) for one in untrained],
            "untrained_layers": _rounded(np.mean([one[way].mean(0) for one in untrained], axis=0)),
        }
    about = {"model": opened.name, "reference": opened.reference, "seed": seed}
    return about | {"prompts": len(texts), "tokens": len(texts[0])} | found


def falls(entropies: Array, quarters: bool = False) -> Array:
    """The share by which entropy [P, L] falls from the first to the last layer, of each prompt [P].

    quarters: between the means of the first and the last quarter of the layers. 0 where the first has none to lose.
    """
    size = max(1, entropies.shape[1] // 4) if quarters else 1
    first, last = entropies[:, :size].mean(1), entropies[:, -size:].mean(1)
    return 1 - np.divide(last, first, out=np.ones_like(last), where=first > 0)


def last_token_entropies(model: nn.Module, prompts: Sequence[list[int]], progress: Progress = quiet) -> Array:
    """Mean over heads of the normalised entropy, with and without the first token, of every layer that has a pattern:
    [2, P, L]. LabError where attention cannot be watched, or fewer than two layers have any."""
    anatomy = anatomy_of(model)
    require(anatomy.refusals.attention, "Attention patterns")
    layers = [layer for layer, block in enumerate(anatomy.blocks) if block.attention is not None]
    if len(layers) < 2:
        raise LabError("Fewer than two of its layers have an attention pattern.", "Nothing can fall between them.")
    found = []
    for done, ids in enumerate(prompts):
        progress("Reading patterns", done, len(prompts))
        last = _LastRows(len(ids))
        run(model, anatomy, ids, [last], last=True)
        found.append([normalised_entropies(last.rows[layer]) for layer in layers])
    return np.array(found).transpose(2, 0, 1)


def normalised_entropies(rows: Array) -> tuple[float, float]:
    """Of patterns at the last token [H, T], T > 2: means over heads, with the first token and without it.

    Without it, heads that give the others nothing at all are left out; where all are, it is 0.
    """
    others = rows[:, 1:].sum(1)
    seen = others > 0
    without = rows[seen, 1:] / others[seen, None]
    return float(_ratio(rows).mean()), float(_ratio(without).mean()) if seen.any() else 0.0


def _ratio(rows: Array) -> Array:
    """Entropy of each row [N, T] over that of a uniform one."""
    ratio: Array = -(rows * np.log2(np.maximum(rows, _TINY))).sum(1) / np.log2(rows.shape[1])
    return ratio


class _LastRows(Observer):
    """The pattern at the last token, of every head, in float64."""

    def __init__(self, time: int) -> None:
        self._last = time - 1
        self.rows: dict[int, Array] = {}

    def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
        """Keeps the last row, [H, T]; rows of models with sinks sum to less than one and are scaled up."""
        if first + pattern.shape[1] > self._last:
            row = pattern[:, self._last - first].double().cpu()
            self.rows[layer] = (row / row.sum(-1, keepdim=True)).numpy()


def _rounded(x: Array) -> list[float]:
    numbers: list[float] = x.round(_DIGITS).tolist()
    return numbers
