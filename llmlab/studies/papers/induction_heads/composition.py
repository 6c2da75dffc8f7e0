"""Does a previous-token head feed the induction head? The verdict and its plots. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from llmlab.core.charts import BARS, LINE, POINTS, Axis, Chart, Series, Table
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import by_seeds, seeds_sentence
from llmlab.studies.papers.induction_heads import thresholds as bounds
from llmlab.studies.papers.induction_heads.copying import LOSS_AXIS, BySeed, level, seeds_of
from llmlab.studies.papers.induction_heads.followed import Found
from llmlab.studies.papers.induction_heads.plan import COMPOSITION
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict
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
    """The claim that a previous-token head feeds the induction head. ValueError without any run."""
    seeds = seeds_of(two)
    outcomes = [judge_composition(two[seed]) for seed in seeds]
    found = [two[seed] for seed in seeds if len(two[seed].removed) > 1]
    taken = np.array([[one.taken(head) for head in one.by_previous] for one in found])  # [seeds, heads]
    first = taken[:, 0] if len(found) else np.array([])
    return Verdict(
        claim=COMPOSITION,
        verdict=by_seeds(outcomes),
        statistic=Statistic(
            "induction score that goes with the best previous-token head", float(np.median(first)) if found else None
        ),
        interval=median_interval(first),
        p=_first_by_chance(taken) if found else None,
        threshold=(
            f"it takes at least {bounds.TAKEN:g} of the induction head's score, and every other head of its layer at "
            f"most {bounds.SPARED:g}. Not supported where it takes no more than that itself"
        ),
        n=sum(len(one.removed) for one in found),
        seeds=seeds,
        papers_criterion=PapersCriterion(
            None, "They name no bound; for small models without feed-forward they remove heads one by one, too."
        ),
        reason=f"{_composition_words(found, taken)} {seeds_sentence(outcomes)}",
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
    gone = np.array(
        [
            [1 - left[len(left) // 2 - 1] / float(one.best[-1]) for left in (one.together, one.others_first)]
            for one in found
            if len(one.together) > 1
        ]
    )
    if not len(gone):
        return ""
    most, least = np.median(gone, axis=0)
    return (
        f" Zeroed together, the half of the heads that attend most to the token before takes {most:.0%}, and the other "
        f"half {least:.0%}."
    )


def show_composition(verdict: Verdict, two: BySeed) -> Verdict:
    """What every head does, and what is left without each head of the first layer."""
    verdict.charts = [_heads([found for _, found in sorted(two.items())])]
    found = [one for _, one in sorted(two.items()) if one.removed]
    heads = min((len(one.removed) for one in found), default=0)
    if not heads:
        return verdict
    names = ["the most", "second", "third", "fourth", *(f"{place}th" for place in range(5, heads + 1))][:heads]
    score = np.array([[head.induction for head in one.by_previous[:heads]] for one in found])
    loss = np.array([[head.loss for head in one.by_previous[:heads]] for one in found])
    intact = level("no head removed", float(np.median([one.best[-1] for one in found])), heads - 1)
    nothing = level("ln V: knowing nothing", found[0].ln_v, heads - 1)
    verdict.charts += [
        _bars("ablation-score", "Induction score without one head", Axis("induction score"), names, score, intact),
        _bars("ablation-loss", "Loss without one head", LOSS_AXIS, names, loss, nothing),
    ]
    together = [one for one in found if len(one.together) == heads]
    if together:
        verdict.charts.append(_together(together, heads))
    verdict.tables = [_removals(two)]
    return verdict


def _heads(found: Sequence[Found]) -> Chart:
    """All heads of the last checkpoints, by what they do."""
    previous, induction = (np.array([getattr(one, name)[-1] for one in found]) for name in ("previous", "induction"))
    return Chart(
        "heads-by-layer",
        "What each head does",
        Axis("previous-token score"),
        Axis("induction score"),
        [
            Series(f"layer {layer}", previous[:, layer].ravel().tolist(), induction[:, layer].ravel().tolist(), POINTS)
            for layer in range(previous.shape[1])
        ],
        caption="Every head of every seed after training. Right: it attends to the token before. Up: to what came "
        "after the same token the last time.",
    )


def _bars(name: str, title: str, y_axis: Axis, names: list[str], values: np.ndarray, level: Series) -> Chart:
    """values: [seeds, heads]."""
    bars = Series(
        "one head zeroed",
        _numbers(range(values.shape[1])),
        np.median(values, axis=0).tolist(),
        BARS,
        values.min(0).tolist(),
        values.max(0).tolist(),
    )
    return Chart(
        name,
        title,
        Axis("head of the first layer, by how much it attends to the token before"),
        y_axis,
        [bars, level],
        names,
        caption="Medians of seeds, from the least to the largest. Each head is zeroed alone.",
    )


def _together(found: Sequence[Found], heads: int) -> Chart:
    """Whether heads stand in for one another."""
    lines = []
    for name in ("together", "others_first"):
        left = np.array([[one.best[-1], *getattr(one, name)] for one in found])  # [seeds, heads + 1]
        title = "most previous first" if name == "together" else "least previous first"
        middle, low, high = np.median(left, axis=0), left.min(0), left.max(0)
        lines.append(Series(title, _numbers(range(heads + 1)), middle.tolist(), LINE, low.tolist(), high.tolist()))
    return Chart(
        "ablation-together",
        "Induction score without several heads",
        Axis("heads of the first layer that are zeroed at once"),
        Axis("induction score"),
        lines,
        caption="Medians of seeds, from the least to the largest. Where one head takes little and several take all, "
        "they stand in for one another.",
    )


def _removals(two: BySeed) -> Table:
    rows = []
    for seed, found in sorted(two.items()):
        for head in found.by_previous:
            rows.append(
                [
                    str(seed),
                    f"{head.layer}.{head.head}",
                    f"{head.previous:.2f}",
                    f"{head.induction:.2f} of {found.best[-1]:.2f}",
                    f"{head.loss:.2f} from {found.loss[-1]:.2f}",
                ]
            )
    return Table(
        "Heads zeroed, one at a time", ["seed", "head", "previous-token score", "induction score", "loss, nats"], rows
    )


def _numbers(values: Iterable[int]) -> list[float]:
    return [float(value) for value in values]
