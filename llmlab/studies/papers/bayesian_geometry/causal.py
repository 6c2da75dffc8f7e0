"""Is the axis of entropy used, or can it only be read? It is removed, beside random axes that move the stream as far.

An axis r in the z-scored stream of a layer, with m and s the mean and standard deviation of each column:

    z = (x - m) / s        x' = x - g (z . r) s r

at the scored places. g is 1 for the axis itself, and for a random one such that the mean of |x' - x|^2 is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import anatomy_of
from llmlab.anatomy.capture import Edit, Point, run
from llmlab.core.charts import BARS, POINTS, Axis, Chart, Series, Table
from llmlab.core.progress import Progress, quiet
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.synthetic.metrics import divergence, entropy
from llmlab.inspection.spectra import principal_components
from llmlab.studies.papers.agreement import by_seeds, seeds_sentence
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.corrected import agreed
from llmlab.studies.papers.bayesian_geometry.geometry import Samples, standard, take
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict
from llmlab.studies.papers.statistics import (
    bootstrap_interval,
    one_of_each,
    spearman,
    stratified_permutation_p,
    stratified_spearman,
)

Array = np.ndarray
_LEAST_SHOWN = 1e-9  # bits: an axis of logarithms has no place for nothing at all


@dataclass
class AxisEffects:
    """What removing one axis of a layer's stream does to the beliefs at the samples.

    layer: whose output is changed. rho: |Spearman| of the axis, PC1, with entropy; within: the same at a fixed place,
    p_within: by permuting entropy there, uncorrected, None where it varies nowhere. effect: mean KL(before || after) in
    bits; error: by how much the entropy error grows. random, random_error: the same for each random axis.
    """

    layer: int
    rho: float
    effect: float
    error: float
    random: list[float]
    random_error: list[float]
    within: float
    p_within: float | None

    @property
    def p(self) -> float:
        """The share of random axes that do as much, the axis itself counted among them."""
        return (1 + sum(one >= self.effect for one in self.random)) / (1 + len(self.random))


def axis_effects(
    model: nn.Module, samples: Samples, answers: tuple[int, int], seed: int = 0, progress: Progress = quiet
) -> AxisEffects:
    """Measure 6, on the stream that the last layer reads (of a single layer: that it writes).

    answers: first and last + 1 of the tokens that are a belief. All sequences are of one length. Errors as in `take`.
    """
    layer = max(0, anatomy_of(model).n_layer - 2)
    x = take(model, samples).residuals[layer]
    mean, spread = standard(x)
    z = (x - mean) / spread
    axis = principal_components(torch.from_numpy(z), 1).components[0].numpy()
    draws = np.random.default_rng(seed).normal(size=(bounds.RANDOM_AXES, x.shape[1]))
    axes = [axis, *(draws / np.linalg.norm(draws, axis=1, keepdims=True))]
    writes = [np.where(np.isinf(spread), 0, spread) * one for one in axes]
    moved = [np.linalg.norm(z @ one) * np.linalg.norm(write) for one, write in zip(axes, writes, strict=True)]
    before = beliefs(model, samples, answers, None)
    exact = np.abs(entropy(before) - samples.entropy).mean()
    effects, errors = [], []
    for done, (one, write, far) in enumerate(zip(axes, writes, moved, strict=True)):
        progress("Removing axes", done, len(axes))
        removal = Removal(layer, scored_places(samples), mean, one / spread, moved[0] / far * write)
        after = beliefs(model, samples, answers, removal)
        effects.append(float(divergence(before, after).mean()))
        errors.append(float(np.abs(entropy(after) - samples.entropy).mean() - exact))
    scores, h, strata = z @ axis, samples.entropy, samples.stratum
    some = one_of_each(samples.sequence, seed)
    return AxisEffects(
        layer,
        abs(spearman(scores, h)),
        effects[0],
        errors[0],
        effects[1:],
        errors[1:],
        within=abs(stratified_spearman(scores, h, strata)),
        p_within=stratified_permutation_p(scores[some], h[some], strata[some], seed=seed),
    )


class Removal(Edit):
    """x' = x - ((x - mean) . read) write at the scored places of a layer's output."""

    def __init__(self, layer: int, scored: Tensor, mean: Array, read: Array, write: Array) -> None:
        self._layer, self._scored = layer, scored
        self._mean, self._read, self._write = (torch.from_numpy(part).float() for part in (mean, read, write))

    def residual(self, layer: int, point: Point, x: Tensor) -> Tensor | None:
        """[B, T, C], changed at post_ffn of the layer alone."""
        if layer != self._layer or point != "post_ffn":
            return None
        along = (x - self._mean) @ self._read  # [B, T]
        return torch.where(self._scored[..., None], x - along[..., None] * self._write, x)


def scored_places(samples: Samples) -> Tensor:
    """Whether a sample is taken there: bool [S, T]."""
    scored = torch.zeros(len(samples.ids), len(samples.ids[0]), dtype=torch.bool)
    for sequence, places in enumerate(samples.places):
        scored[sequence, places] = True
    return scored


def beliefs(model: nn.Module, samples: Samples, answers: tuple[int, int], edit: Edit | None) -> Array:
    """A model's probabilities of the answers at all samples [N, C], in float64. All sequences are of one length."""
    logits = run(model, anatomy_of(model), torch.tensor(samples.ids), edits=[edit] if edit else [])
    found: Array = logits[scored_places(samples)][:, answers[0] : answers[1]].double().softmax(-1).numpy()
    return found


# Verdict -----------------------------------------------------------------------------------------------------------


def judge_axis(found: AxisEffects) -> str:
    """One trained model: inconclusive where the axis is not one of entropy, or of nothing but the place."""
    if found.rho < bounds.RHO or found.p_within is None or found.p_within > bounds.P_NOTHING:
        return INCONCLUSIVE
    return SUPPORTED if found.effect > np.percentile(found.random, bounds.AXIS_PERCENTILE) else NOT_SUPPORTED


def causal_verdict(
    trained: Mapping[int, AxisEffects],
    n: int,
    p: Mapping[int, tuple[float, ...] | None],
    claim: str = "causal",
) -> Verdict:
    """The claim that the axis of entropy is used. n: samples. p: corrected. ValueError without any model."""
    if not trained:
        raise ValueError("there is no model to judge")
    seeds = sorted(trained)
    found = [trained[seed] for seed in seeds]
    outcomes = [judge_axis(one) for one in found]
    ratios = np.array([one.effect / max(float(np.median(one.random)), 1e-12) for one in found])
    return Verdict(
        claim=claim,
        verdict=by_seeds(outcomes),
        statistic=Statistic("effect of the entropy axis over that of the median random axis", float(np.median(ratios))),
        interval=list(bootstrap_interval(ratios, np.median)) if len(ratios) > 1 else None,
        p=agreed([(p[seed] or (1.0,))[0] for seed in seeds]),
        threshold=(
            f"above {bounds.AXIS_PERCENTILE:g} % of {bounds.RANDOM_AXES} random axes that move the stream as far; not "
            f"supported, readout only, where it is not. The axis must follow entropy: |rho| at least {bounds.RHO:g}, "
            f"and p at most {bounds.P_NOTHING:g} at a fixed position"
        ),
        n=n,
        seeds=seeds,
        papers_criterion=PapersCriterion(None, "They name no bound; paper III itself calls the axis a readout."),
        reason=" ".join([_words(found), seeds_sentence(outcomes)]),
        charts=[_chart(seeds, found)],
        tables=[_table(seeds, found, outcomes)],
    )


def _chart(seeds: Sequence[int], found: Sequence[AxisEffects]) -> Chart:
    places = [float(place) for place in range(len(seeds))]
    x = [place for place, one in zip(places, found, strict=True) for _ in one.random]
    return Chart(
        "causal",
        "Removing the axis of entropy",
        Axis("trained from seed"),
        Axis("KL of beliefs before and after", "bits", log=True),
        [
            Series("the axis of entropy", places, [max(one.effect, _LEAST_SHOWN) for one in found], BARS),
            Series("random axes", x, [max(effect, _LEAST_SHOWN) for one in found for effect in one.random], POINTS),
        ],
        categories=[str(seed) for seed in seeds],
        caption="Every axis moves the stream as far. The claim is a bar above nearly all points.",
    )


def _table(seeds: Sequence[int], found: Sequence[AxisEffects], outcomes: Sequence[str]) -> Table:
    columns = [
        "model",
        "layer",
        "|rho|",
        "at a fixed position",
        "effect, bits",
        "random axes, median",
        "largest",
        "error added, bits",
        "outcome",
    ]
    rows = []
    for seed, one, outcome in zip(seeds, found, outcomes, strict=True):
        effects = [f"{value:.4f}" for value in (one.effect, float(np.median(one.random)), max(one.random), one.error)]
        rows.append([f"seed {seed}", str(one.layer), f"{one.rho:.2f}", f"{one.within:.2f}", *effects, outcome])
    return Table("Removing the first component of the stream, beside random axes", columns, rows)


def _words(found: Sequence[AxisEffects]) -> str:
    effect, error, rho, within = (
        float(np.median([getattr(one, name) for one in found])) for name in ("effect", "error", "rho", "within")
    )
    random = float(np.median([np.median(one.random) for one in found]))
    return (
        f"Removing the first component of the stream before the last layer (|rho| {rho:.2f} with entropy, "
        f"{within:.2f} at a fixed position) moves "
        f"beliefs by {effect:.4f} bits and adds {error:.4f} bits to the entropy error; random axes move them by "
        f"{random:.4f} (medians of seeds)."
    )
