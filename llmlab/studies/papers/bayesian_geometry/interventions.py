"""What a model can do without: the axis of entropy, each layer, each head.

Is the axis used, or can it only be read? It is removed, beside random axes that move the stream as far.

An axis r in the z-scored stream of a layer, with m and s the mean and standard deviation of each column:

    z = (x - m) / s        x' = x - g (z . r) s r

at the scored positions. g is 1 for the axis itself, and for a random one such that the mean of |x' - x|^2 is the same.

Each block is bypassed, so that it gives its input as its output, and each head's output is set to zero, one at a time
(`llmlab.inspection.intervening`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import require
from llmlab.anatomy.capture import Intervener, Point, run
from llmlab.anatomy.finding import anatomy_of
from llmlab.core.charts import BARS, POINTS, Chart, Series, Table
from llmlab.core.progress import Progress, quiet
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.synthetic.metrics import divergence, entropy
from llmlab.inspection.intervening import Intervention, Interventions
from llmlab.inspection.spectra import principal_components
from llmlab.studies.papers import statistics
from llmlab.studies.papers.agreement import agreed, of_seeds
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.geometry import Samples, standard, take
from llmlab.studies.papers.bayesian_geometry.plan import CAUSAL, LAYERS
from llmlab.studies.papers.bayesian_geometry.thresholds import TEXTS
from llmlab.studies.papers.charting import level, numbered, table
from llmlab.studies.papers.records import PapersCriterion, Verdict

# Axis -----------------------------------------------------------------------------------------------------------------

Array = np.ndarray
_LEAST_SHOWN = 1e-9  # bits: an axis of logarithms has no place for nothing at all


@dataclass
class AxisEffects:
    """What removing one axis of a layer's stream does to the beliefs at the samples.

    layer: whose output is changed. rho: |Spearman| of the axis, PC1, with entropy; within: the same at a fixed
    position, p_within: by permuting entropy there, uncorrected, None where it varies nowhere. effect: mean KL(before ||
    after) in bits; error: by how much the entropy error grows. random: the effect of each random axis.
    """

    layer: int
    rho: float
    effect: float
    error: float
    random: list[float]
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
    after = []
    for done, (one, write, far) in enumerate(zip(axes, writes, moved, strict=True)):
        progress("Removing axes", done, len(axes))
        removal = Removal(layer, scored_positions(samples), mean, one / spread, moved[0] / far * write)
        after.append(beliefs(model, samples, answers, removal))
    effects = [float(divergence(before, one).mean()) for one in after]
    scores, h, strata = z @ axis, samples.entropy, samples.stratum
    some = statistics.one_of_each(samples.sequence, seed)
    return AxisEffects(
        layer,
        abs(statistics.spearman(scores, h)),
        effects[0],
        float(np.abs(entropy(after[0]) - samples.entropy).mean() - exact),
        effects[1:],
        within=abs(statistics.stratified_spearman(scores, h, strata)),
        p_within=statistics.stratified_permutation_p(scores[some], h[some], strata[some], seed=seed),
    )


class Removal(Intervener):
    """x' = x - ((x - mean) . read) write at the scored positions of a layer's output."""

    def __init__(self, layer: int, scored: Tensor, mean: Array, read: Array, write: Array) -> None:
        self._layer, self._scored = layer, scored
        self._mean, self._read, self._write = (torch.from_numpy(part).float() for part in (mean, read, write))

    def residual(self, layer: int, point: Point, x: Tensor) -> Tensor | None:
        """[B, T, C], changed at post_ffn of the layer alone."""
        if layer != self._layer or point != "post_ffn":
            return None
        along = (x - self._mean) @ self._read  # [B, T]
        return torch.where(self._scored[..., None], x - along[..., None] * self._write, x)


def scored_positions(samples: Samples) -> Tensor:
    """Whether a sample is taken there: bool [S, T]."""
    scored = torch.zeros(len(samples.ids), len(samples.ids[0]), dtype=torch.bool)
    for sequence, positions in enumerate(samples.positions):
        scored[sequence, positions] = True
    return scored


def beliefs(model: nn.Module, samples: Samples, answers: tuple[int, int], change: Intervener | None) -> Array:
    """A model's probabilities of the answers at all samples [N, C], in float64. All sequences are of one length."""
    logits = run(model, anatomy_of(model), torch.tensor(samples.ids), interventions=[change] if change else [])
    return logits[scored_positions(samples)][:, answers[0] : answers[1]].double().softmax(-1).numpy()


def judge_axis(found: AxisEffects) -> str:
    """One trained model: inconclusive where the axis is not one of entropy, or of nothing but the position."""
    if found.rho < bounds.RHO or found.p_within is None or found.p_within > bounds.P_NOTHING:
        return INCONCLUSIVE
    return SUPPORTED if found.effect > np.percentile(found.random, bounds.AXIS_PERCENTILE) else NOT_SUPPORTED


def causal_verdict(trained: Mapping[int, AxisEffects], n: int, p: Mapping[int, tuple[float, ...] | None]) -> Verdict:
    """The claim that the axis of entropy is used. n: samples. p: corrected."""
    seeds = sorted(trained)
    found = [trained[seed] for seed in seeds]
    outcomes = {seed: judge_axis(trained[seed]) for seed in seeds}
    names = ("effect", "error", "rho", "within")
    medians = {name: float(np.median([getattr(one, name) for one in found])) for name in names}
    random = float(np.median([np.median(one.random) for one in found]))
    return TEXTS.verdict(
        CAUSAL,
        of_seeds(outcomes),
        *statistics.median_of([one.effect / max(float(np.median(one.random)), 1e-12) for one in found]),
        said=[TEXTS.say("causal", random=random, **medians)],
        n=n,
        p=agreed([(p[seed] or (1.0,))[0] for seed in seeds]),
        charts=[_axis_chart(seeds, found)],
        tables=[_axis_table(seeds, found, list(outcomes.values()))],
    )


def _axis_chart(seeds: Sequence[int], found: Sequence[AxisEffects]) -> Chart:
    x = numbered(len(seeds))
    random = [(place, max(effect, _LEAST_SHOWN)) for place, one in zip(x, found, strict=True) for effect in one.random]
    series = [
        Series("the axis of entropy", x, [max(one.effect, _LEAST_SHOWN) for one in found], BARS),
        Series("random axes", [place for place, _ in random], [effect for _, effect in random], POINTS),
    ]
    return TEXTS.chart("causal", series, [str(seed) for seed in seeds])


def _axis_table(seeds: Sequence[int], found: Sequence[AxisEffects], outcomes: Sequence[str]) -> Table:
    columns = {
        "model": [f"seed {seed}" for seed in seeds],
        "layer": [str(one.layer) for one in found],
        "|rho|": [f"{one.rho:.2f}" for one in found],
        "at a fixed position": [f"{one.within:.2f}" for one in found],
        "effect, bits": [f"{one.effect:.4f}" for one in found],
        "random axes, median": [f"{np.median(one.random):.4f}" for one in found],
        "largest": [f"{max(one.random):.4f}" for one in found],
        "error added, bits": [f"{one.error:.4f}" for one in found],
        "outcome": outcomes,
    }
    return table("Removing the first component of the stream, beside random axes", columns)


# Layers and heads -----------------------------------------------------------------------------------------------------


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


def ablate(model: nn.Module, samples: Samples, answers: tuple[int, int], progress: Progress = quiet) -> Ablation:
    """Takes out every layer and every head. All sequences are of one length.

    answers: first and last + 1 of the tokens that are a belief. LabError where heads cannot be told apart.
    """
    anatomy = anatomy_of(model)
    require(anatomy.refusals.contributions, "Layers")
    require(anatomy.refusals.heads, "Heads")
    time, layers, heads = len(samples.ids[0]), range(anatomy.n_layer), range(anatomy.n_head)
    parts = len(layers) * (1 + len(heads))

    def sums(change: Intervention | None, done: int) -> Array:
        """Of each sequence, the sum of its samples' errors [S]."""
        progress("Taking out layers and heads", done, parts)
        found = beliefs(model, samples, answers, Interventions([change], time) if change else None)
        return np.bincount(samples.sequence, np.abs(entropy(found) - samples.entropy), len(samples.ids))

    whole = sums(None, 0)
    bypassed = [sums(Intervention("zero", "layer", layer), layer) for layer in layers]
    intervals = [statistics.bootstrap_interval(np.stack([one, whole], 1), _ratio) for one in bypassed]
    count, begun = len(samples.entropy), len(layers)
    return Ablation(
        error=float(whole.sum() / count),
        layers=[float(one.sum() / count) for one in bypassed],
        low=[low for low, _ in intervals],
        high=[high for _, high in intervals],
        heads=[
            [
                float(sums(Intervention("zero", "head", layer, head), begun + layer * len(heads) + head).sum() / count)
                for head in heads
            ]
            for layer in layers
        ],
    )


def _ratio(drawn: Array, axis: int) -> Array:
    """Sums without a part over those of the whole model: [draws, S, 2] -> [draws]."""
    totals = drawn.sum(axis)
    return totals[:, 0] / totals[:, 1]


def judge_layers(found: Ablation) -> str:
    """One trained model. Every layer must count; inconclusive where the whole model has not learned the task."""
    if found.error > bounds.ERROR_REFUTED:
        return INCONCLUSIVE
    if min(found.low) > bounds.BYPASS_FACTOR:
        return SUPPORTED
    return NOT_SUPPORTED if min(found.high) <= bounds.BYPASS_FACTOR else INCONCLUSIVE


def layers_verdict(trained: dict[int, Ablation], n: int) -> Verdict:
    """The claim that no layer can be bypassed. n: samples."""
    seeds = sorted(trained)
    found = [trained[seed] for seed in seeds]
    outcomes = {seed: judge_layers(trained[seed]) for seed in seeds}
    factors = [factor for one in found for factor in one.factors]
    every = sum(factor > bounds.BYPASS_FACTOR for factor in factors)
    return TEXTS.verdict(
        LAYERS,
        of_seeds(outcomes),
        *statistics.median_of([min(one.factors) for one in found]),
        said=[_layers_said(found, n)],
        n=n,
        criterion=PapersCriterion(every == len(factors), TEXTS.say("layers-paper", every=every, count=len(factors))),
        charts=_layers_charts(seeds, found),
        tables=[_layers_table(seeds, found, list(outcomes.values()))],
    )


def _layers_said(found: Sequence[Ablation], n: int) -> str:
    factors = np.median([one.factors for one in found], axis=0)
    heads = np.median([one.head_factors for one in found], axis=0)
    layer, head = np.unravel_index(heads.argmin(), heads.shape)
    return TEXTS.say(
        "layers",
        error=np.median([one.error for one in found]),
        n=n,
        factors=", ".join(f"{value:.1f}" for value in factors),
        heads=heads.size,
        needed=int((heads > bounds.BYPASS_FACTOR).sum()),
        layer=layer,
        head=head,
        least=heads.min(),
    )


def _layers_charts(seeds: Sequence[int], found: Sequence[Ablation]) -> list[Chart]:
    layers = [f"layer {layer}" for layer in range(len(found[0].layers))]
    heads = [f"{layer}.{head}" for layer, row in enumerate(found[0].heads) for head in range(len(row))]
    return [
        _bars("layers", layers, seeds, [one.factors for one in found]),
        _bars("heads", heads, seeds, [list(chain(*one.head_factors)) for one in found]),
    ]


def _bars(name: str, parts: list[str], seeds: Sequence[int], factors: list[list[float]]) -> Chart:
    x = numbered(len(parts))
    series = [Series("median of seeds", x, np.median(factors, axis=0).tolist(), BARS)]
    series += [Series(f"seed {seed}", x, own, POINTS) for seed, own in zip(seeds, factors, strict=True)]
    series += [level("the paper's bound", bounds.BYPASS_FACTOR, x), level("the whole model", 1.0, x)]
    return TEXTS.chart(name, series, parts)


def _layers_table(seeds: Sequence[int], found: Sequence[Ablation], outcomes: Sequence[str]) -> Table:
    without = {
        f"without layer {layer}": [
            f"x {one.factors[layer]:.1f} ({one.low[layer]:.1f} to {one.high[layer]:.1f})" for one in found
        ]
        for layer in range(len(found[0].layers))
    }
    models = {"model": [f"seed {seed}" for seed in seeds], "error, bits": [f"{one.error:.4f}" for one in found]}
    title = "Entropy error without a layer, with its interval over sequences"
    return table(title, models | without | {"outcome": outcomes})
