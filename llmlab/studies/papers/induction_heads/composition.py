"""Does a previous-token head feed the induction head? The verdict and its plots. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from llmlab.core.charts import BARS, POINTS, Chart, Series, Table
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import of_seeds
from llmlab.studies.papers.charting import level, numbered, range_band, table
from llmlab.studies.papers.induction_heads import thresholds as bounds
from llmlab.studies.papers.induction_heads.copying import BySeed
from llmlab.studies.papers.induction_heads.followed import Found
from llmlab.studies.papers.induction_heads.plan import COMPOSITION
from llmlab.studies.papers.induction_heads.thresholds import TEXTS
from llmlab.studies.papers.records import Verdict
from llmlab.studies.papers.statistics import median_of


def judge_composition(found: Found) -> str:
    """One run of two layers: does the best previous-token head take the induction head with it, and no other?"""
    if found.best[-1] < bounds.HEAD or len(found.removed) < 2:
        return INCONCLUSIVE  # there is no induction head to take away, or nothing to compare with
    first, *others = (found.taken(head) for head in found.by_previous)
    if first <= bounds.SPARED:
        return NOT_SUPPORTED
    return SUPPORTED if first >= bounds.TAKEN and max(others) <= bounds.SPARED else INCONCLUSIVE


def composition_verdict(two: BySeed) -> Verdict:
    """The claim that a previous-token head feeds the induction head."""
    outcomes = {seed: judge_composition(one) for seed, one in sorted(two.items())}
    found = [two[seed] for seed in outcomes if len(two[seed].removed) > 1]
    taken = np.array([[one.taken(head) for head in one.by_previous] for one in found])  # [seeds, heads]
    return TEXTS.verdict(
        COMPOSITION,
        of_seeds(outcomes),
        *median_of(taken[:, 0] if len(found) else []),
        said=_said(found, taken),
        n=sum(len(one.removed) for one in found),
        p=_first_by_chance(taken) if found else None,
        charts=_charts([two[seed] for seed in outcomes]),
        tables=[_table(two)] if any(one.removed for one in two.values()) else [],
        evidence={
            "outcomes": list(outcomes.values()),
            "previous": [[head.previous for head in one.by_previous] for one in found],
            "taken": taken.tolist(),
        },
    )


def _first_by_chance(taken: np.ndarray) -> float:
    """How likely the first of H heads takes the most in as many seeds or more, were each as likely to. [seeds, H]."""
    seeds, heads = taken.shape
    times = int((taken.argmax(1) == 0).sum())
    chances = (math.comb(seeds, k) * (1 / heads) ** k * (1 - 1 / heads) ** (seeds - k) for k in range(times, seeds + 1))
    return min(1.0, sum(chances))


def _said(found: Sequence[Found], taken: np.ndarray) -> Iterator[str]:
    """What zeroing a head takes; and what one half of them takes, and the other, which says whether they share."""
    if not found:
        yield TEXTS.say("composition-none")
        return
    yield TEXTS.say(
        "composition",
        first=np.median(taken[:, 0]),
        others=np.median(taken[:, 1:].max(1)),
        lost=np.median([one.by_previous[0].loss for one in found]),
        spared=np.median([min(head.loss for head in one.by_previous[1:]) for one in found]),
    )
    if shared := [one for one in found if len(one.together) > 1]:
        most, least = (
            np.median([1 - getattr(one, name)[len(one.together) // 2 - 1] / one.best[-1] for one in shared])
            for name in ("together", "others_first")
        )
        yield TEXTS.say("composition-halves", most=most, least=least)
    yield TEXTS.say("composition-p")


def _charts(every: Sequence[Found]) -> list[Chart]:
    """What every head does, and what is left without each head of the first layer."""
    found = [one for one in every if one.removed]
    if not found:
        return [_heads(every)]
    heads = min(len(one.removed) for one in found)
    names = ["the most", "second", "third", "fourth", *(f"{rank}th" for rank in range(5, heads + 1))][:heads]
    scores, losses = (
        np.array([[getattr(head, name) for head in one.by_previous[:heads]] for one in found])
        for name in ("induction", "loss")
    )
    ends = [0.0, heads - 1.0]
    intact = level("no head removed", float(np.median([one.best[-1] for one in found])), ends)
    nothing = level("ln V: knowing nothing", found[0].ln_v, ends)
    charts = [
        _heads(every),
        _bars("ablation-score", names, scores, intact),
        _bars("ablation-loss", names, losses, nothing),
    ]
    together = [one for one in found if len(one.together) == heads]
    return [*charts, _together(together)] if together else charts


def _heads(found: Sequence[Found]) -> Chart:
    """All heads of the last checkpoints, by what they do."""
    previous, induction = (np.array([getattr(one, name)[-1] for one in found]) for name in ("previous", "induction"))
    layers = [
        Series(f"layer {layer}", previous[:, layer].ravel().tolist(), induction[:, layer].ravel().tolist(), POINTS)
        for layer in range(previous.shape[1])
    ]
    return TEXTS.chart("heads-by-layer", layers)


def _bars(name: str, names: list[str], values: np.ndarray, level: Series) -> Chart:
    """values: [seeds, heads]."""
    return TEXTS.chart(name, [range_band("one head zeroed", numbered(len(names)), values, BARS), level], names)


def _together(found: Sequence[Found]) -> Chart:
    """Whether heads stand in for one another."""
    lines = []
    for name, title in (("together", "most previous first"), ("others_first", "least previous first")):
        left = np.array([[one.best[-1], *getattr(one, name)] for one in found])  # [seeds, heads + 1]
        lines.append(range_band(title, numbered(left.shape[1]), left))
    return TEXTS.chart("ablation-together", lines)


def _table(two: BySeed) -> Table:
    rows = [(seed, found, head) for seed, found in sorted(two.items()) for head in found.by_previous]
    columns = {
        "seed": [str(seed) for seed, _, _ in rows],
        "head": [f"{head.layer}.{head.head}" for _, _, head in rows],
        "previous-token score": [f"{head.previous:.2f}" for _, _, head in rows],
        "induction score": [f"{head.induction:.2f} of {found.best[-1]:.2f}" for _, found, head in rows],
        "loss, nats": [f"{head.loss:.2f} from {found.loss[-1]:.2f}" for _, found, head in rows],
    }
    return table("Heads zeroed, one at a time", columns)
