"""From the geometry of trained models and of models with random weights to verdicts on manifold and keys.

p-values are corrected as in `agreement.corrected`. Models of the HMM are shown beside those of the bijection with
repeated keys: the bounds were set for the latter, which are judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmlab.core.charts import DASHED, POINTS, Chart, Series, Table
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import agreed, by_seeds, seeds_sentence
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.geometry import Keys, Manifold, ModelGeometry, Population
from llmlab.studies.papers.bayesian_geometry.plan import KEYS, MANIFOLD
from llmlab.studies.papers.bayesian_geometry.thresholds import TEXTS
from llmlab.studies.papers.charting import cell, interval_band, level, numbered, table
from llmlab.studies.papers.records import PapersCriterion, Verdict
from llmlab.studies.papers.statistics import CONFIDENCE, bootstrap_interval, mean_interval, median_interval

# Manifold -------------------------------------------------------------------------------------------------------------


def random_bound(values: Sequence[float]) -> float:
    """The percentile of models with random weights that a trained one must exceed; infinite with too few of them."""
    if len(values) < bounds.RANDOM_MODELS:
        return math.inf
    return float(np.percentile(values, bounds.RANDOM_PERCENTILE, method="higher"))


def manifold_tests(trained: Mapping[int, ModelGeometry]) -> dict[int, tuple[float, float] | None]:
    """The p of rho and of rho within strata of each seed, uncorrected; None where entropy varies within no stratum."""
    last = {seed: one.values[-1] for seed, one in trained.items()}
    return {seed: (one.p, one.p_within) if one.p and one.p_within else None for seed, one in last.items()}


def judge_manifold(found: Manifold, p: tuple[float, ...] | None, random: Sequence[Manifold]) -> str:
    """One trained model's last layer of values. p: of rho and of rho within strata, corrected; None: not testable."""
    if p is None or found.within is None:
        return INCONCLUSIVE
    if p[1] > bounds.P_NOTHING:
        return NOT_SUPPORTED
    if len(random) < bounds.RANDOM_MODELS:
        return INCONCLUSIVE
    if found.within <= random_bound([one.within or 0.0 for one in random]):
        return NOT_SUPPORTED
    supported = (
        found.pc1 >= bounds.PC1_SHARE
        and found.pc1 > random_bound([one.pc1 for one in random])
        and found.rho >= bounds.RHO
        and found.gain >= bounds.R2_GAIN
        and found.within >= bounds.RHO_WITHIN
        and max(p) < bounds.P_SUPPORTED
    )
    return SUPPORTED if supported else INCONCLUSIVE


def manifold_verdict(
    found: Population, p: Mapping[int, tuple[float, ...] | None], hmm: Population | None = None
) -> Verdict:
    """The claim that the last layer's values lie along one axis that is entropy.

    p: of `manifold_tests`, corrected. hmm: models of the HMM, shown beside.
    """
    seeds = sorted(found.trained)
    last = [found.trained[seed].values[-1] for seed in seeds]
    controls = [one.values[-1] for one in found.random]
    outcomes = [judge_manifold(one, p[seed], controls) for seed, one in zip(seeds, last, strict=True)]
    within = [one.within for one in last if one.within is not None]
    return TEXTS.verdict(
        MANIFOLD,
        by_seeds(outcomes),
        float(np.median(within)) if within else None,
        interval=median_interval(within),
        p=agreed([max(both) for seed in seeds if (both := p[seed]) is not None]),
        n=len(found.samples.entropy),
        seeds=seeds,
        criterion=_papers_manifold(last, controls),
        reason=" ".join([_manifold_words(last, controls), *_hmm_words(hmm), seeds_sentence(outcomes)]),
        charts=[_scatter(found), _within(found), *([_scatter(hmm, ", HMM", "-hmm")] if hmm else [])],
        tables=manifold_tables(found, p, dict(zip(seeds, outcomes, strict=True)), hmm),
    )


def _manifold_words(last: Sequence[Manifold], random: Sequence[Manifold]) -> str:
    pc1, rho, gain = (float(np.median([getattr(one, name) for one in last])) for name in ("pc1", "rho", "gain"))
    said = (
        f"In the last layer's values PC1 has {pc1:.0%} of the variance and |rho| {rho:.2f} with entropy (medians of "
        f"seeds); they add {gain:.3f} to the R^2 of position alone."
    )
    within = [one.within for one in last if one.within is not None]
    if not within:
        return f"{said} Entropy equals position in this task, so the two cannot be told apart."
    said += f" At a fixed position |rho| is {np.median(within):.2f}."
    if len(random) < bounds.RANDOM_MODELS:
        return f"{said} {too_few(len(random))}"
    top = random_bound([one.within or 0.0 for one in random])
    return f"{said} Of {len(random)} models with random weights the best reach {top:.2f} there."


def too_few(count: int) -> str:
    """Why nothing can be held against models with random weights."""
    return f"Only {count} models with random weights were measured; {bounds.RANDOM_MODELS} are needed."


def _hmm_words(hmm: Population | None) -> list[str]:
    if hmm is None:
        return []
    last = [one.values[-1] for one in hmm.trained.values()]
    pc1, rho, within = (np.median([getattr(one, name) or 0.0 for one in last]) for name in ("pc1", "rho", "within"))
    top = max((one.values[-1].within or 0.0 for one in hmm.random), default=None)
    return [
        f"Beside it, in the HMM PC1 has {pc1:.0%} of the variance and |rho| {rho:.2f}, at a fixed position {within:.2f}"
        + ("." if top is None else f" (random weights at most {top:.2f}).")
    ]


def _papers_manifold(last: Sequence[Manifold], random: Sequence[Manifold]) -> PapersCriterion:
    passing, chance = (sum(one.pc1 > bounds.PC1_SHARE for one in models) for models in (last, random))
    return PapersCriterion(
        passing > len(last) / 2,
        f"PC1 above {bounds.PC1_SHARE:.0%}: {passing} of {len(last)} trained models, and {chance} of {len(random)} "
        "with random weights. The criterion does not ask whether that component is entropy, or position.",
    )


_SHOWN = 1000  # samples of a scatter plot: more cannot be told apart
Cells = Sequence[tuple[str, Manifold]]


def manifold_tables(
    found: Population, p: Mapping[int, tuple[float, ...] | None], outcomes: Mapping[int, str], hmm: Population | None
) -> list[Table]:
    """Values and stream of the last layer; the same values in the HMM, where its models were measured."""
    chance = ["-"] * len(found.random)
    tested = [cell(max(both) if (both := p[seed]) else None, ".2g") for seed in sorted(found.trained)]
    values = _columns(_last(found)) | {
        "p, corrected": [*tested, *chance],
        "outcome": [*(outcomes[seed] for seed in sorted(found.trained)), *chance],
    }
    stream = [(f"seed {seed}", one.residuals[-1]) for seed, one in sorted(found.trained.items())]
    tables = [
        table("Values of the last layer, keys repeat", values),
        table("Stream after the last layer, keys repeat", _columns(stream)),
    ]
    if hmm is not None:
        tables.append(table("Values of the last layer, HMM (beside the verdict)", _columns(_last(hmm))))
    return tables


def _last(found: Population) -> Cells:
    return [(name, one.values[-1]) for name, one in _named(found)]


def _named(found: Population) -> list[tuple[str, ModelGeometry]]:
    trained = [(f"seed {seed}", one) for seed, one in sorted(found.trained.items())]
    return trained + [(f"random weights {number}", one) for number, one in enumerate(found.random, 1)]


def _columns(rows: Cells) -> dict[str, list[str]]:
    return {
        "model": [name for name, _ in rows],
        "PC1": [f"{one.pc1:.0%}" for _, one in rows],
        "PC1+2": [f"{one.pc12:.0%}" for _, one in rows],
        "directions": [f"{one.participation:.1f}" for _, one in rows],
        "|rho|": [f"{one.rho:.2f}" for _, one in rows],
        "within positions": [cell(one.within, ".2f") for _, one in rows],
        "R^2 of position": [f"{one.r2_strata:.3f}" for _, one in rows],
        "R^2 gain": [f"{one.gain:.3f}" for _, one in rows],
    }


def _scatter(found: Population, task: str = "", end: str = "") -> Chart:
    """The samples of one model."""
    seed = sorted(found.trained, key=lambda one: found.trained[one].values[-1].rho)[len(found.trained) // 2]
    samples, scores = found.samples, found.trained[seed].values[-1].scores
    x, y = scores[:_SHOWN].round(4).tolist(), samples.entropy[:_SHOWN].round(4).tolist()
    colors = samples.stratum[:_SHOWN].astype(float).tolist()
    points = Series(f"samples of seed {seed}", x, y, POINTS, color=colors)
    return TEXTS.chart("manifold", [points], end=end, task=task)


def _within(found: Population) -> Chart:
    """The rank correlation within positions by layer."""
    trained = {seed: [layer.within or 0.0 for layer in one.values] for seed, one in sorted(found.trained.items())}
    layers = numbered(len(next(iter(trained.values()))))
    series = [Series(f"seed {seed}", layers, within) for seed, within in trained.items()]
    if found.random:
        best = np.max([[layer.within or 0.0 for layer in one.values] for one in found.random], axis=0).tolist()
        series.append(Series(f"best of {len(found.random)} with random weights", layers, best, DASHED))
    series.append(level("bound", bounds.RHO_WITHIN, layers))
    return TEXTS.chart("manifold-within", series, [str(layer) for layer in range(len(layers))])


# Keys -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeyLayer:
    """One layer of one model: mean |cos| with its interval over sequences, and what it is held against."""

    cosine: float
    low: float
    high: float
    gaussian: float
    random: float | None  # the smallest of the models with random weights; None with too few of them

    @property
    def nearer(self) -> bool:
        """Nearer to orthogonal than Gaussian vectors and every model with random weights."""
        return self.random is not None and self.high < min(self.gaussian, self.random)

    @property
    def farther(self) -> bool:
        """Not nearer than one of them: the whole interval is above it."""
        return self.low >= (self.gaussian if self.random is None else min(self.gaussian, self.random))


def key_layers(found: Keys, random: Sequence[Keys]) -> list[KeyLayer]:
    """The layers of one trained model."""
    enough = len(random) >= bounds.RANDOM_MODELS
    layers = []
    for layer, cosines in enumerate(found.cosine.T):
        low, high = bootstrap_interval(cosines)
        least = min(float(one.cosine[:, layer].mean()) for one in random) if enough else None
        layers.append(KeyLayer(float(cosines.mean()), low, high, found.gaussian, least))
    return layers


def judge_keys(layers: Sequence[KeyLayer]) -> str:
    """One trained model."""
    if sum(layer.nearer for layer in layers) >= bounds.KEY_LAYERS * len(layers):
        return SUPPORTED
    refuted = sum(layer.farther for layer in layers) > (1 - bounds.KEY_LAYERS) * len(layers)
    return NOT_SUPPORTED if refuted else INCONCLUSIVE


def keys_verdict(found: Population, hmm: Population | None = None) -> Verdict:
    """The claim that keys are nearer to orthogonal than chance. hmm: models of the HMM, shown beside."""
    seeds = sorted(found.trained)
    trained = {seed: found.trained[seed].keys for seed in seeds}
    controls = [one.keys for one in found.random]
    layers = {seed: key_layers(trained[seed], controls) for seed in seeds}
    outcomes = [judge_keys(layers[seed]) for seed in seeds]
    means = np.array([trained[seed].cosine.mean(0) for seed in seeds])  # [seeds, L]
    chance = np.array([one.cosine.mean(0) for one in controls])  # [models, L]
    gaussian = trained[seeds[0]].gaussian
    charts = [_keys_chart(found, "keys repeat")]
    return TEXTS.verdict(
        KEYS,
        by_seeds(outcomes),
        float(means.mean()),
        interval=mean_interval(means.mean(1)),
        n=len(trained[seeds[0]].cosine),
        seeds=seeds,
        facts={"confidence": CONFIDENCE, "gaussian": gaussian},
        criterion=_papers_keys(means, chance, gaussian),
        reason=" ".join([_keys_words(means, chance, gaussian), seeds_sentence(outcomes)]),
        charts=charts + ([_keys_chart(hmm, "HMM", "-hmm")] if hmm else []),
        tables=_keys_tables(layers, outcomes, trained, hmm),
    )


def _keys_words(means: np.ndarray, chance: np.ndarray, gaussian: float) -> str:
    layers = ", ".join(f"{value:.2f}" for value in means.mean(0))
    said = f"Mean |cos| between a sequence's scored keys, by layer: {layers}; Gaussian vectors have {gaussian:.3f}."
    if len(chance) < bounds.RANDOM_MODELS:
        return f"{said} {too_few(len(chance))}"
    return f"{said} With random weights: {', '.join(f'{value:.2f}' for value in chance.mean(0))}."


def _papers_keys(means: np.ndarray, chance: np.ndarray, gaussian: float) -> PapersCriterion:
    def passing(values: np.ndarray) -> int:
        return int(((values < bounds.PAPER_KEY_COSINE).mean(1) >= bounds.KEY_LAYERS).sum()) if len(values) else 0

    trained = passing(means)
    return PapersCriterion(
        trained > len(means) / 2,
        f"|cos| below {bounds.PAPER_KEY_COSINE:g} in half of the layers: {trained} of {len(means)} trained models, and "
        f"{passing(chance)} of {len(chance)} with random weights. Gaussian vectors of this width have {gaussian:.3f}, "
        f"so noise {'passes, too' if gaussian < bounds.PAPER_KEY_COSINE else 'just fails'}.",
    )


def _keys_chart(found: Population, task: str, end: str = "") -> Chart:
    """Mean |cos| by layer with what it is held against."""
    keys = {seed: one.keys for seed, one in sorted(found.trained.items())}
    first = next(iter(keys.values()))
    x = numbered(first.cosine.shape[1])
    series = [interval_band(f"seed {seed}", x, one.cosine) for seed, one in keys.items()]
    series.append(level("Gaussian vectors", first.gaussian, x))
    if found.random:
        means = np.array([one.keys.cosine.mean(0) for one in found.random])
        series.append(Series(f"mean of {len(means)} with random weights", x, means.mean(0).tolist(), DASHED))
        series.append(Series("nearest of them", x, means.min(0).tolist(), DASHED))
    return TEXTS.chart("keys", series, [str(layer) for layer in range(len(x))], end=end, task=task)


def _keys_tables(
    layers: Mapping[int, Sequence[KeyLayer]],
    outcomes: Sequence[str],
    trained: Mapping[int, Keys],
    hmm: Population | None,
) -> list[Table]:
    """By seed and layer, and the columns of W_K; the same keys in the HMM, where its models were measured."""
    seeds = [f"seed {seed}" for seed in trained]
    cells = [[f"{one.cosine:.3f} ({one.low:.3f} to {one.high:.3f})" for one in own] for own in layers.values()]
    tables = [table("Mean |cos| of keys, keys repeat", _by_layer(seeds, cells) | {"outcome": outcomes})]
    if first := next((one for one in trained.values() if one.weights), None):
        weights = [one.weights for one in trained.values()] + [[first.weights_gaussian] * len(first.weights)]
        columns = _by_layer([*seeds, "Gaussian vectors"], [[f"{value:.3f}" for value in row] for row in weights])
        tables.append(table("Mean |cos| of the columns of W_K", columns))
    if hmm is not None:
        named = _named(hmm)
        means = [one.keys.cosine.mean(0).tolist() for _, one in named]
        rows = [[f"{value:.3f}" for value in row] for row in [*means, [named[0][1].keys.gaussian] * len(means[0])]]
        columns = _by_layer([*(name for name, _ in named), "Gaussian vectors"], rows)
        tables.append(table("Mean |cos| of keys, HMM (beside the verdict)", columns))
    return tables


def _by_layer(models: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Sequence[str]]:
    """Columns of rows [models][layers]."""
    columns = {f"layer {layer}": cells for layer, cells in enumerate(zip(*rows, strict=True))}
    return {"model": models} | columns
