"""What a model can do without: each block bypassed, and each head's answers set to zero, one at a time.

A bypassed block gives its input as its output. The changes are those of `llmlab.inspection.edits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from torch import nn

from llmlab.anatomy.anatomy import anatomy_of, require
from llmlab.core.charts import BARS, DASHED, POINTS, Axis, Chart, Series, Table
from llmlab.core.progress import Progress, quiet
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.synthetic.metrics import entropy
from llmlab.inspection.edits import Change, Changes
from llmlab.studies.papers.agreement import by_seeds, seeds_sentence
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.causal import beliefs
from llmlab.studies.papers.bayesian_geometry.geometry import Samples
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict
from llmlab.studies.papers.statistics import bootstrap_interval

Array = np.ndarray


@dataclass
class Ablation:
    """Entropy errors in bits on the same sequences: of the whole model, and without one part of it.

    error: of the whole model. layers [L] and heads [L, H]: without that part. low, high [L]: the interval of
    layers / error over sequences.
    """

    error: float
    layers: list[float]
    low: list[float]
    high: list[float]
    heads: list[list[float]]

    @property
    def factors(self) -> list[float]:
        """How many times the error is that of the whole model, by bypassed layer."""
        return [without / self.error for without in self.layers]

    @property
    def head_factors(self) -> list[list[float]]:
        """The same by layer and head."""
        return [[without / self.error for without in layer] for layer in self.heads]

    @property
    def least(self) -> int:
        """The layer that is missed least."""
        return int(np.argmin(self.layers))


def ablate(model: nn.Module, samples: Samples, answers: tuple[int, int], progress: Progress = quiet) -> Ablation:
    """Takes out every layer and every head. All sequences are of one length.

    answers: first and last + 1 of the tokens that are a belief. LabError where heads cannot be told apart.
    """
    anatomy = anatomy_of(model)
    require(anatomy.refusals.contributions, "Layers")
    require(anatomy.refusals.heads, "Heads")
    time, layers, heads = len(samples.ids[0]), range(anatomy.n_layer), range(anatomy.n_head)
    parts = len(layers) * (1 + len(heads))

    def sums(change: Change | None, done: int) -> Array:
        """Of each sequence, the sum of its samples' errors [S]."""
        progress("Taking out layers and heads", done, parts)
        found = beliefs(model, samples, answers, Changes([change], time) if change else None)
        return np.bincount(samples.sequence, np.abs(entropy(found) - samples.entropy), len(samples.ids))

    whole = sums(None, 0)
    bypassed = [sums(Change("zero", "layer", layer), layer) for layer in layers]
    intervals = [bootstrap_interval(np.stack([one, whole], 1), _ratio) for one in bypassed]
    count, begun = len(samples.entropy), len(layers)
    return Ablation(
        error=float(whole.sum() / count),
        layers=[float(one.sum() / count) for one in bypassed],
        low=[low for low, _ in intervals],
        high=[high for _, high in intervals],
        heads=[
            [
                float(sums(Change("zero", "head", layer, head), begun + layer * len(heads) + head).sum() / count)
                for head in heads
            ]
            for layer in layers
        ],
    )


def _ratio(drawn: Array, axis: int) -> Array:
    """Sums without a part over those of the whole model: [draws, S, 2] -> [draws]."""
    totals = drawn.sum(axis)
    ratios: Array = totals[:, 0] / totals[:, 1]
    return ratios


# Verdict -----------------------------------------------------------------------------------------------------------


def judge_layers(found: Ablation) -> str:
    """One trained model. Every layer must count; inconclusive where the whole model has not learned the task."""
    if found.error > bounds.ERROR_REFUTED:
        return INCONCLUSIVE
    if min(found.low) > bounds.BYPASS_FACTOR:
        return SUPPORTED
    return NOT_SUPPORTED if min(found.high) <= bounds.BYPASS_FACTOR else INCONCLUSIVE


def layers_verdict(trained: dict[int, Ablation], n: int, claim: str = "layers") -> Verdict:
    """The claim that no layer can be bypassed. n: samples. ValueError without any model."""
    if not trained:
        raise ValueError("there is no model to judge")
    seeds = sorted(trained)
    found = [trained[seed] for seed in seeds]
    outcomes = [judge_layers(one) for one in found]
    least = np.array([min(one.factors) for one in found])
    every = sum(factor > bounds.BYPASS_FACTOR for one in found for factor in one.factors)
    count = sum(len(one.layers) for one in found)
    return Verdict(
        claim=claim,
        verdict=by_seeds(outcomes),
        statistic=Statistic("error without the layer that is missed least, over the error", float(np.median(least))),
        interval=list(bootstrap_interval(least, np.median)) if len(least) > 1 else None,
        threshold=(
            f"without any one layer the entropy error is more than {bounds.BYPASS_FACTOR:g} times as large, its "
            "interval over sequences above that. Not supported where the interval of one layer lies below; "
            f"inconclusive where the whole model is off by more than {bounds.ERROR_REFUTED:g} bits"
        ),
        n=n,
        seeds=seeds,
        papers_criterion=PapersCriterion(
            every == count,
            f"More than {bounds.BYPASS_FACTOR:g} times the error: {every} of {count} bypassed layers.",
        ),
        reason=" ".join([_words(found, n), seeds_sentence(outcomes)]),
        charts=_charts(seeds, found),
        tables=[_table(seeds, found, outcomes)],
    )


def _words(found: Sequence[Ablation], n: int) -> str:
    factors = np.median([one.factors for one in found], axis=0)
    heads = np.median([one.head_factors for one in found], axis=0)
    layer, head = np.unravel_index(heads.argmin(), heads.shape)
    error = np.median([one.error for one in found])
    return (
        f"Bypassing a layer multiplies the entropy error of {error:.4f} bits on {n} samples, layer by layer, by "
        f"{', '.join(f'{value:.1f}' for value in factors)} (medians of seeds). Of {heads.size} heads, set to "
        f"zero one at a time, {int((heads > bounds.BYPASS_FACTOR).sum())} raise it as much; head {layer}.{head} is "
        f"missed least ({heads.min():.1f} times)."
    )


def _charts(seeds: Sequence[int], found: Sequence[Ablation]) -> list[Chart]:
    layers = [f"layer {layer}" for layer in range(len(found[0].layers))]
    heads = [f"{layer}.{head}" for layer, row in enumerate(found[0].heads) for head in range(len(row))]
    return [
        _bars("layers", "Bypassing a layer", layers, seeds, [one.factors for one in found]),
        _bars("heads", "Setting a head to zero", heads, seeds, [list(chain(*one.head_factors)) for one in found]),
    ]


def _bars(name: str, title: str, parts: list[str], seeds: Sequence[int], factors: list[list[float]]) -> Chart:
    x = [float(place) for place in range(len(parts))]
    series = [Series("median of seeds", x, np.median(factors, axis=0).tolist(), BARS)]
    series += [Series(f"seed {seed}", x, own, POINTS) for seed, own in zip(seeds, factors, strict=True)]
    series.append(Series("the paper's bound", x, [bounds.BYPASS_FACTOR] * len(x), DASHED))
    series.append(Series("the whole model", x, [1.0] * len(x), DASHED))
    return Chart(
        name,
        title,
        Axis("part taken out"),
        Axis("entropy error over that of the whole model", log=True),
        series,
        categories=parts,
        caption="How many times as large the entropy error is without one part. At 1 the part is not missed.",
    )


def _table(seeds: Sequence[int], found: Sequence[Ablation], outcomes: Sequence[str]) -> Table:
    columns = ["model", "error, bits", *(f"without layer {layer}" for layer in range(len(found[0].layers))), "outcome"]
    rows = []
    for seed, one, outcome in zip(seeds, found, outcomes, strict=True):
        cells = [
            f"x {factor:.1f} ({low:.1f} to {high:.1f})"
            for factor, low, high in zip(one.factors, one.low, one.high, strict=True)
        ]
        rows.append([f"seed {seed}", f"{one.error:.4f}", *cells, outcome])
    return Table("Entropy error without a layer, with its interval over sequences", columns, rows)
