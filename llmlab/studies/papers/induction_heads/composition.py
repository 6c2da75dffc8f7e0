"""Does a previous-token head feed the induction head? The verdict and its plots. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from llmlab.core.charts import BARS, POINTS, Chart, Series, Table
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import by_seeds, seeds_sentence
from llmlab.studies.papers.charting import level, numbered, range_band, table
from llmlab.studies.papers.induction_heads import thresholds as bounds
from llmlab.studies.papers.induction_heads.copying import BySeed
from llmlab.studies.papers.induction_heads.followed import Found
from llmlab.studies.papers.induction_heads.plan import COMPOSITION
from llmlab.studies.papers.induction_heads.thresholds import TEXTS
from llmlab.studies.papers.records import Verdict
from llmlab.studies.papers.statistics import median_interval


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
    seeds = sorted(two)
    outcomes = [judge_composition(two[seed]) for seed in seeds]
    found = [two[seed] for seed in seeds if len(two[seed].removed) > 1]
    taken = np.array([[one.taken(head) for head in one.by_previous] for one in found])  # [seeds, heads]
    first = taken[:, 0] if len(found) else np.array([])
    return TEXTS.verdict(
        COMPOSITION,
        by_seeds(outcomes),
        float(np.median(first)) if found else None,
        interval=median_interval(first),
        p=_first_by_chance(taken) if found else None,
        n=sum(len(one.removed) for one in found),
        seeds=seeds,
        reason=f"{_composition_words(found, taken)} {seeds_sentence(outcomes)}",
        charts=_charts([two[seed] for seed in seeds]),
        tables=[_table(two)] if any(one.removed for one in two.values()) else [],
        evidence={
            "outcomes": outcomes,
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


def _composition_words(found: Sequence[Found], taken: np.ndarray) -> str:
    if not found:
        return "No head was removed."
    others = taken[:, 1:].max(1)
    lost = np.array([one.by_previous[0].loss for one in found])
    spared = np.array([min(head.loss for head in one.by_previous[1:]) for one in found])
    return (
        f"Zeroing the head of the first layer that attends most to the token before takes {np.median(taken[:, 0]):.0%} "
        f"of the induction head's score, and the most harmful other head of that layer {np.median(others):.0%}; the "
        f"loss rises to {np.median(lost):.2f} nats without the former, and to {np.median(spared):.2f} without the most "
        f"harmless one (medians of seeds).{_shared_words(found)} p: that the best of them is the most harmful head in "
        "as many seeds by chance."
    )


def _shared_words(found: Sequence[Found]) -> str:
    """What one half of the heads takes, and the other: decides nothing, but says whether heads share the work."""
    shared = [one for one in found if len(one.together) > 1]
    if not shared:
        return ""
    most, least = (
        np.median([1 - getattr(one, name)[len(one.together) // 2 - 1] / one.best[-1] for one in shared])
        for name in ("together", "others_first")
    )
    return (
        f" Zeroed together, the half of the heads that attend most to the token before takes {most:.0%}, and the other "
        f"half {least:.0%}."
    )


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
