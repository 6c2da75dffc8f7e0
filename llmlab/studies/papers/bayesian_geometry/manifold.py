"""From the geometry of trained models and of models with random weights to verdicts on manifold and keys.

p-values are corrected as in `agreement.corrected`. Models of the HMM are shown beside those of the bijection with
repeated keys: the bounds were set for the latter, which are judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmlab.core.charts import DASHED, POINTS, Chart, Series, Table
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import agreed, of_seeds
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.geometry import Keys, Manifold, ModelGeometry, Population
from llmlab.studies.papers.bayesian_geometry.plan import KEYS, MANIFOLD
from llmlab.studies.papers.bayesian_geometry.thresholds import TEXTS
from llmlab.studies.papers.charting import cell, interval_band, level, numbered, table
from llmlab.studies.papers.records import PapersCriterion, Verdict
from llmlab.studies.papers.statistics import CONFIDENCE, bootstrap_interval, mean_interval, median_of

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
    last = {seed: one.values[-1] for seed, one in sorted(found.trained.items())}
    controls = [one.values[-1] for one in found.random]
    outcomes = {seed: judge_manifold(one, p[seed], controls) for seed, one in last.items()}
    return TEXTS.verdict(
        MANIFOLD,
        of_seeds(outcomes),
        *median_of([one.within for one in last.values() if one.within is not None]),
        said=_manifold_said(list(last.values()), controls, hmm),
        n=len(found.samples.entropy),
        p=agreed([max(both) for seed in last if (both := p[seed]) is not None]),
        criterion=_papers_manifold(list(last.values()), controls),
        charts=[_scatter(found), _within(found), *([_scatter(hmm, ", HMM", "-hmm")] if hmm else [])],
        tables=manifold_tables(found, p, outcomes, hmm),
    )


def _manifold_said(last: Sequence[Manifold], random: Sequence[Manifold], hmm: Population | None) -> Iterator[str]:
    yield TEXTS.say("manifold", **_medians(last, "pc1", "rho", "gain"))
    within = [one.within for one in last if one.within is not None]
    if not within:
        yield TEXTS.say("manifold-untestable")
    else:
        yield TEXTS.say("manifold-within", within=np.median(within))
        if len(random) < bounds.RANDOM_MODELS:
            yield TEXTS.say("too-few", count=len(random))
        else:
            top = random_bound([one.within or 0.0 for one in random])
            yield TEXTS.say("manifold-random", count=len(random), top=top)
    if hmm is not None:
        middle = _medians([one.values[-1] for one in hmm.trained.values()], "pc1", "rho", "within")
        said = [TEXTS.say("manifold-hmm", **middle)]
        if hmm.random:
            said.append(TEXTS.say("manifold-hmm-random", top=max(one.values[-1].within or 0.0 for one in hmm.random)))
        yield f"{' '.join(said)}."


def _medians(found: Sequence[Manifold], *names: str) -> dict[str, float]:
    return {name: float(np.median([getattr(one, name) or 0.0 for one in found])) for name in names}


def _papers_manifold(last: Sequence[Manifold], random: Sequence[Manifold]) -> PapersCriterion:
    passing, chance = (sum(one.pc1 > bounds.PC1_SHARE for one in models) for models in (last, random))
    counts = {"passing": passing, "trained": len(last), "chance": chance, "random": len(random)}
    return PapersCriterion(passing > len(last) / 2, TEXTS.say("manifold-paper", **counts))


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
        "R² of position": [f"{one.r2_strata:.3f}" for _, one in rows],
        "R² gain": [f"{one.gain:.3f}" for _, one in rows],
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
    trained = {seed: one.keys for seed, one in sorted(found.trained.items())}
    controls = [one.keys for one in found.random]
    layers = {seed: key_layers(one, controls) for seed, one in trained.items()}
    outcomes = {seed: judge_keys(one) for seed, one in layers.items()}
    means = np.array([one.cosine.mean(0) for one in trained.values()])  # [seeds, L]
    chance = np.array([one.cosine.mean(0) for one in controls])  # [models, L]
    first = next(iter(trained.values()))
    return TEXTS.verdict(
        KEYS,
        of_seeds(outcomes),
        float(means.mean()),
        mean_interval(means.mean(1)),
        said=_keys_said(means, chance, first.gaussian),
        n=len(first.cosine),
        facts={"confidence": CONFIDENCE, "gaussian": first.gaussian},
        criterion=_papers_keys(means, chance, first.gaussian),
        charts=[_keys_chart(found, "keys repeat"), *([_keys_chart(hmm, "HMM", "-hmm")] if hmm else [])],
        tables=_keys_tables(layers, list(outcomes.values()), trained, hmm),
    )


def _keys_said(means: np.ndarray, chance: np.ndarray, gaussian: float) -> Iterator[str]:
    yield TEXTS.say("keys", layers=", ".join(f"{value:.2f}" for value in means.mean(0)), gaussian=gaussian)
    if len(chance) < bounds.RANDOM_MODELS:
        yield TEXTS.say("too-few", count=len(chance))
    else:
        yield TEXTS.say("keys-random", layers=", ".join(f"{value:.2f}" for value in chance.mean(0)))


def _papers_keys(means: np.ndarray, chance: np.ndarray, gaussian: float) -> PapersCriterion:
    passing, lucky = (
        int(((values < bounds.PAPER_KEY_COSINE).mean(1) >= bounds.KEY_LAYERS).sum()) if len(values) else 0
        for values in (means, chance)
    )
    noise = "passes, too" if gaussian < bounds.PAPER_KEY_COSINE else "just fails"
    counts = {"passing": passing, "trained": len(means), "chance": lucky, "random": len(chance)}
    return PapersCriterion(passing > len(means) / 2, TEXTS.say("keys-paper", gaussian=gaussian, noise=noise, **counts))


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
