"""Do queries find the keys that matter, and more so from layer to layer?

What matters is defined on the bijection with repeated keys. At a scored position t a new key asks for its value, and
what can be known of it are the values that are taken: the relevant keys are those of the value tokens before t, each
value at its first occurrence. There it rules out one hypothesis; a repeat rules out nothing more. All other tokens that
t sees, itself among them, are the others. With a the attention of a head at t and R the relevant ones of t + 1 tokens:

    mass = sum of a over R / (|R| / (t + 1))        gap = mean over R of cos(q, k) - mean over the others of cos(q, k)

mass is 1 where attention does not tell them apart, and at most (t + 1) / |R|, on average 3.2 for 12 pairs of 8 values.
Positions before which nothing was shown are left out. Letters in shapes: S sequences, P positions of one, L layers, H
heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import require
from llmlab.anatomy.attention_call import AttentionCall, with_all_keys
from llmlab.anatomy.capture import Observer, run
from llmlab.anatomy.finding import anatomy_of
from llmlab.core.charts import DASHED, Chart, Series, Table
from llmlab.core.progress import Progress, quiet
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import agreed, of_seeds
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.geometry import Samples
from llmlab.studies.papers.bayesian_geometry.manifold import random_bound
from llmlab.studies.papers.bayesian_geometry.plan import ALIGNMENT
from llmlab.studies.papers.bayesian_geometry.thresholds import TEXTS
from llmlab.studies.papers.charting import interval_band, level, numbered, table
from llmlab.studies.papers.records import Verdict
from llmlab.studies.papers.statistics import median_of, rising_p, spearman

Array = np.ndarray


@dataclass
class Alignment:
    """What the queries of one model attend to.

    mass: of each sequence and layer [S, L], mean over its positions and the heads. heads: mass [L, H]. gap: [L]. most:
    the mass if all attention were on relevant keys, mean over positions. In sequences, positions are weighed alike.
    """

    mass: Array
    heads: Array
    gap: Array
    most: float

    @property
    def by_layer(self) -> Array:
        """Mass of each layer [L]."""
        return np.asarray(self.mass.mean(0))

    @property
    def rho(self) -> float:
        """Spearman of mass and layer."""
        return spearman(np.arange(self.mass.shape[1]), self.by_layer)

    @property
    def p(self) -> float:
        """Of so large a rho, over all orders of the layers; uncorrected."""
        return rising_p(self.by_layer)

    @property
    def rise(self) -> float:
        """From the first layer to the last, in uniform masses."""
        return float(self.by_layer[-1] - self.by_layer[0])


def relevant_keys(ids: list[int], positions: list[int]) -> Array:
    """Which tokens are relevant to the query at each position of `k v k v ... k`: bool [P, T]."""
    values = ids[1::2]
    first = [2 * pair + 1 for pair, value in enumerate(values) if value not in values[:pair]]
    relevant = np.zeros((len(positions), len(ids)), dtype=bool)
    for row, position in enumerate(positions):
        relevant[row, [at for at in first if at < position]] = True
    return relevant


def alignment(model: nn.Module, samples: Samples, progress: Progress = quiet) -> Alignment:
    """Measure 4, one watched pass a sequence. samples: of the bijection with repeats.

    LabError where the model's attention cannot be watched; ValueError where no sequence has a relevant key.
    """
    anatomy = anatomy_of(model)
    require(anatomy.refusals.attention, "Attention")
    watchers = []
    for done, (ids, positions) in enumerate(zip(samples.ids, samples.positions, strict=True)):
        progress("Following queries", done, len(samples.ids))
        asked = [position for position in positions if position > 0]
        if asked:
            watchers.append(_Watcher(asked, relevant_keys(ids, asked)))
            run(model, anatomy, ids, [watchers[-1]], last=True)
    if not watchers:
        raise ValueError("no sequence has a position with something before it")
    layers = sorted(watchers[0].mass)
    mass = np.array([[one.mass[layer].mean() for layer in layers] for one in watchers])  # [S, L]
    heads = np.array([np.mean([one.mass[layer].mean(1) for one in watchers], axis=0) for layer in layers])  # [L, H]
    gap = np.array([np.mean([one.gap[layer] for one in watchers]) for layer in layers])
    return Alignment(mass, heads, gap, float(np.mean([one.most for one in watchers])))


class _Watcher(Observer):
    """Mass and gap at some positions of one prompt, by layer. relevant: bool [P, T]."""

    def __init__(self, positions: list[int], relevant: Array) -> None:
        seen = np.arange(relevant.shape[1]) <= np.array(positions)[:, None]  # [P, T]
        self._positions = positions
        self._relevant = torch.from_numpy(relevant)
        self._other = torch.from_numpy(seen & ~relevant)
        self._uniform = torch.from_numpy(relevant.sum(1) / seen.sum(1))  # [P]
        self.most = float((1 / self._uniform).mean())
        self.mass: dict[int, Array] = {}  # [H, P]
        self.gap: dict[int, float] = {}

    def attention(self, layer: int, call: AttentionCall) -> None:
        last = max(self._positions) + 1
        rows = [with_all_keys(rows, call.key.shape[1]) for _, rows, _ in call.chunks()]
        pattern = torch.cat(rows, dim=1)[:, self._positions]  # [H, P, T]
        self.mass[layer] = ((pattern.double() * self._relevant).sum(-1) / self._uniform).numpy()
        group = call.query.shape[0] // call.key.shape[0]
        query = nn.functional.normalize(call.query[:, self._positions].double(), dim=-1)
        key = nn.functional.normalize(call.key[:, :last].double(), dim=-1).repeat_interleave(group, 0)
        cosine = query @ key.mT  # [H, P, last]
        near, far = (_mean(cosine, chosen[:, :last]) for chosen in (self._relevant, self._other))
        self.gap[layer] = float((near - far).mean())


def _mean(x: Tensor, chosen: Tensor) -> Tensor:
    """Mean of x [H, P, T] where chosen [P, T], over T: [H, P]."""
    return (x * chosen).sum(-1) / chosen.sum(-1)


# Verdict -----------------------------------------------------------------------------------------------------------


def judge_alignment(found: Alignment, p: float, random: Sequence[Alignment]) -> str:
    """One trained model. p: of its rho, corrected. random: models with random weights."""
    if found.rho <= 0:
        return NOT_SUPPORTED
    if len(random) < bounds.RANDOM_MODELS:
        return INCONCLUSIVE
    if found.rise <= random_bound([one.rise for one in random]):
        return NOT_SUPPORTED
    supported = (
        found.rho >= bounds.ALIGNMENT_RHO
        and p < bounds.ALIGNMENT_P
        and found.by_layer[-1] >= bounds.ALIGNMENT_FINAL
        and found.by_layer[-1] > random_bound([float(one.by_layer[-1]) for one in random])
    )
    return SUPPORTED if supported else INCONCLUSIVE


def alignment_verdict(
    trained: dict[int, Alignment], random: Sequence[Alignment], p: Mapping[int, tuple[float, ...] | None]
) -> Verdict:
    """The claim that queries find the relevant keys, more so from layer to layer. p: corrected, by seed."""
    tested = {seed: (p[seed] or (1.0,))[0] for seed in sorted(trained)}
    seeds, found = list(tested), [trained[seed] for seed in tested]
    outcomes = {seed: judge_alignment(trained[seed], value, random) for seed, value in tested.items()}
    return TEXTS.verdict(
        ALIGNMENT,
        of_seeds(outcomes),
        *median_of([one.rho for one in found]),
        said=_said(found, random),
        n=len(found[0].mass),
        p=agreed(list(tested.values())),
        charts=_charts(seeds, found, random),
        tables=[_table(seeds, found, list(tested.values()), list(outcomes.values()), random)],
    )


def _said(found: Sequence[Alignment], random: Sequence[Alignment]) -> Iterator[str]:
    mass = ", ".join(f"{value:.2f}" for value in np.median([one.by_layer for one in found], axis=0))
    yield TEXTS.say("alignment", n=len(found[0].mass), mass=mass, most=found[0].most)
    if len(random) < bounds.RANDOM_MODELS:
        yield TEXTS.say("too-few", count=len(random))
    else:
        rises = [round(one.rise, 2) + 0.0 for one in random]  # without the sign of what rounds to 0
        yield TEXTS.say("alignment-random", least=min(rises), most=max(rises))


def _charts(seeds: Sequence[int], found: Sequence[Alignment], random: Sequence[Alignment]) -> list[Chart]:
    layers = numbered(found[0].mass.shape[1])
    mass = [interval_band(f"seed {seed}", layers, one.mass) for seed, one in zip(seeds, found, strict=True)]
    gap = [Series(f"seed {seed}", layers, one.gap.tolist()) for seed, one in zip(seeds, found, strict=True)]
    mass += [level("uniform", 1.0, layers), level("all attention on relevant keys", found[0].most, layers)]
    if random:
        for series, means in ((mass, [one.by_layer for one in random]), (gap, [one.gap for one in random])):
            series.append(Series("random weights", layers, np.mean(means, axis=0).tolist(), DASHED))
    named = [str(layer) for layer in range(len(layers))]
    return [TEXTS.chart("alignment", mass, named), TEXTS.chart("alignment-cosine", gap, named)]


def _table(
    seeds: Sequence[int],
    found: Sequence[Alignment],
    p: Sequence[float],
    outcomes: Sequence[str],
    random: Sequence[Alignment],
) -> Table:
    models, chance = [*found, *random], ["-"] * len(random)
    best = [np.unravel_index(one.heads.argmax(), one.heads.shape) for one in models]
    columns = {
        "model": [f"seed {seed}" for seed in seeds] + [f"random weights {n}" for n in range(1, len(random) + 1)],
        "rho": [f"{one.rho:.2f}" for one in models],
        "p, corrected": [*(f"{value:.2g}" for value in p), *chance],
        "first layer": [f"{one.by_layer[0]:.2f}" for one in models],
        "last layer": [f"{one.by_layer[-1]:.2f}" for one in models],
        "largest of a head": [
            f"{one.heads[head]:.2f} (head {head[0]}.{head[1]})" for one, head in zip(models, best, strict=True)
        ],
        "cosine gap, last layer": [f"{one.gap[-1]:.3f}" for one in models],
        "outcome": [*outcomes, *chance],
    }
    return table("Mass on relevant keys over that of uniform attention", columns)
