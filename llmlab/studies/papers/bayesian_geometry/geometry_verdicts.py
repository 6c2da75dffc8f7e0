"""From the geometry of trained models and of models with random weights to verdicts on manifold and keys.

Seeds are judged as in `verdicts`, p-values are corrected as in `corrected`. Models of the HMM are shown beside those of
the bijection with repeated keys: the bounds were set for the latter, which are judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import by_seeds, seeds_sentence
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.corrected import agreed
from llmlab.studies.papers.bayesian_geometry.geometry import Keys, Manifold, ModelGeometry, Population
from llmlab.studies.papers.bayesian_geometry.geometry_shown import (
    hmm_chart,
    keys_chart,
    keys_tables,
    manifold_charts,
    manifold_tables,
)
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict
from llmlab.studies.papers.statistics import CONFIDENCE, bootstrap_interval, mean_interval

# Manifold ----------------------------------------------------------------------------------------------------------


def random_bound(values: Sequence[float]) -> float:
    """The percentile of models with random weights that a trained one must exceed; infinite with too few of them."""
    if len(values) < bounds.RANDOM_MODELS:
        return math.inf
    return float(np.percentile(values, bounds.RANDOM_PERCENTILE, method="higher"))


def manifold_tests(trained: Mapping[int, ModelGeometry]) -> dict[int, tuple[float, float] | None]:
    """The p of rho and of rho within strata of each seed, uncorrected; None where entropy varies within no stratum."""
    last = {seed: one.values[-1] for seed, one in trained.items()}
    return {
        seed: None if one.p is None or one.p_within is None else (one.p, one.p_within) for seed, one in last.items()
    }


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
    found: Population,
    p: Mapping[int, tuple[float, ...] | None],
    hmm: Population | None = None,
    claim: str = "manifold",
) -> Verdict:
    """The claim that the last layer's values lie along one axis that is entropy.

    p: of `manifold_tests`, corrected. hmm: models of the HMM, shown beside. ValueError without any trained model.
    """
    if not found.trained:
        raise ValueError("there is no model to judge")
    seeds = sorted(found.trained)
    last = [found.trained[seed].values[-1] for seed in seeds]
    controls = [one.values[-1] for one in found.random]
    outcomes = [judge_manifold(one, p[seed], controls) for seed, one in zip(seeds, last, strict=True)]
    within = [one.within for one in last if one.within is not None]
    return Verdict(
        claim=claim,
        verdict=by_seeds(outcomes),
        statistic=Statistic("|Spearman(PC1, H)| within positions", float(np.median(within)) if within else None),
        interval=list(bootstrap_interval(np.array(within), np.median)) if len(within) > 1 else None,
        p=agreed([max(both) for seed in seeds if (both := p[seed]) is not None]),
        threshold=(
            f"PC1 at least {bounds.PC1_SHARE:.0%} of the variance and above random weights, |rho| at least "
            f"{bounds.RHO:g}, R^2 gain at least {bounds.R2_GAIN:g}, |rho| within positions at least "
            f"{bounds.RHO_WITHIN:g}, both p below {bounds.P_SUPPORTED:g}. Not supported where p within positions is "
            f"above {bounds.P_NOTHING:g} or random weights do as well"
        ),
        n=len(found.samples.entropy),
        seeds=seeds,
        papers_criterion=_papers_manifold(last, controls),
        reason=" ".join([_manifold_words(last, controls), *_hmm_words(hmm), seeds_sentence(outcomes)]),
        charts=[*manifold_charts(found), *([hmm_chart(hmm)] if hmm else [])],
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
        return f"{said} Entropy equals position in this task, so nothing can be told apart."
    said += f" At a fixed position |rho| is {np.median(within):.2f}."
    if len(random) < bounds.RANDOM_MODELS:
        return f"{said} Only {len(random)} models with random weights were measured; {bounds.RANDOM_MODELS} are needed."
    top = random_bound([one.within or 0.0 for one in random])
    return f"{said} Of {len(random)} models with random weights the best reach {top:.2f} there."


def _hmm_words(hmm: Population | None) -> list[str]:
    if hmm is None:
        return []
    pc1, rho, within = (
        float(np.median([getattr(one.values[-1], name) or 0.0 for one in hmm.trained.values()]))
        for name in ("pc1", "rho", "within")
    )
    said = (
        f"Beside it, in the HMM PC1 has {pc1:.0%} of the variance and |rho| {rho:.2f}, at a fixed position {within:.2f}"
    )
    if not hmm.random:
        return [f"{said}."]
    top = max(one.values[-1].within or 0.0 for one in hmm.random)
    return [f"{said} (random weights at most {top:.2f})."]


def _papers_manifold(last: Sequence[Manifold], random: Sequence[Manifold]) -> PapersCriterion:
    passing = sum(one.pc1 > bounds.PC1_SHARE for one in last)
    chance = sum(one.pc1 > bounds.PC1_SHARE for one in random)
    return PapersCriterion(
        passing > len(last) / 2,
        f"PC1 above {bounds.PC1_SHARE:.0%}: {passing} of {len(last)} trained models, and {chance} of {len(random)} "
        "with random weights. The criterion does not ask whether that component is entropy, or position.",
    )


# Keys --------------------------------------------------------------------------------------------------------------


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
        return self.low >= min(self.gaussian, self.random if self.random is not None else self.gaussian)


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


def keys_verdict(found: Population, hmm: Population | None = None, claim: str = "keys") -> Verdict:
    """The claim that keys are nearer to orthogonal than chance. hmm: models of the HMM, shown beside.

    ValueError without any trained model.
    """
    if not found.trained:
        raise ValueError("there is no model to judge")
    seeds = sorted(found.trained)
    trained = {seed: found.trained[seed].keys for seed in seeds}
    controls = [one.keys for one in found.random]
    layers = {seed: key_layers(trained[seed], controls) for seed in seeds}
    outcomes = {seed: judge_keys(layers[seed]) for seed in seeds}
    means = np.array([[layer.cosine for layer in layers[seed]] for seed in seeds])  # [seeds, L]
    first = trained[seeds[0]]
    chance = np.array([one.cosine.mean(0) for one in controls])  # [models, L]
    charts = [keys_chart(layers, controls, "keys", "Keys of one sequence, keys repeat")]
    if hmm is not None:
        others = [one.keys for one in hmm.random]
        shown = {seed: key_layers(one.keys, others) for seed, one in hmm.trained.items()}
        charts.append(keys_chart(shown, others, "keys-hmm", "Keys of one sequence, HMM"))
    return Verdict(
        claim=claim,
        verdict=by_seeds(list(outcomes.values())),
        statistic=Statistic("mean |cos| of keys, all layers", float(means.mean())),
        interval=list(mean_interval(means.mean(1))) if len(seeds) > 1 else None,
        threshold=(
            f"in at least {bounds.KEY_LAYERS:.0%} of layers the {CONFIDENCE:.0%} interval lies below Gaussian vectors "
            f"({first.gaussian:.3f}) and below every model with random weights. Not supported where it lies above one "
            "of them in more than half"
        ),
        n=len(first.cosine),
        seeds=seeds,
        papers_criterion=_papers_keys(means, chance, first.gaussian),
        reason=" ".join([_keys_words(means, chance, first.gaussian), seeds_sentence(list(outcomes.values()))]),
        charts=charts,
        tables=keys_tables(layers, outcomes, trained, hmm),
    )


def _keys_words(means: np.ndarray, chance: np.ndarray, gaussian: float) -> str:
    layers = ", ".join(f"{value:.2f}" for value in means.mean(0))
    said = f"Mean |cos| between a sequence's scored keys, by layer: {layers}; Gaussian vectors have {gaussian:.3f}."
    if len(chance) < bounds.RANDOM_MODELS:
        return f"{said} Only {len(chance)} models with random weights were measured; {bounds.RANDOM_MODELS} are needed."
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
