"""From what was measured to verdicts: pure functions, with all bounds in `thresholds`. No torch.

Each claim is judged seed by seed; how many of them must agree is `llmlab.studies.papers.agreement.by_seeds`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import by_seeds, seeds_sentence
from llmlab.studies.papers.induction_heads import thresholds as bounds
from llmlab.studies.papers.induction_heads.curves import Window, fall_inside, half_way, rise_window
from llmlab.studies.papers.induction_heads.found import Found
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict
from llmlab.studies.papers.statistics import bootstrap_interval, mean_interval

BySeed = Mapping[int, Found]

# Two layers --------------------------------------------------------------------------------------------------------


def judge_layers(two: Found, one: Found) -> str:
    """One seed: two layers must have learned to copy with a head for it, and one layer must have neither."""
    if _learned(one):
        return NOT_SUPPORTED
    apart = one.loss[-1] >= one.by_counting and one.best[-1] < bounds.NO_HEAD
    return SUPPORTED if _learned(two) and two.best[-1] >= bounds.HEAD and apart else INCONCLUSIVE


def _learned(found: Found) -> bool:
    return found.loss[-1] <= bounds.LEARNED * found.ln_v


def layers_verdict(two: BySeed, one: BySeed, claim: str = "two-layers") -> Verdict:
    """The claim that it takes two layers, on seeds that trained both. ValueError without any."""
    seeds = _seeds(two.keys() & one.keys())
    outcomes = [judge_layers(two[seed], one[seed]) for seed in seeds]
    ends = np.array([[one[seed].loss[-1], two[seed].loss[-1]] for seed in seeds])
    heads = np.array([[one[seed].best[-1], two[seed].best[-1]] for seed in seeds])
    first = two[seeds[0]]
    return Verdict(
        claim=claim,
        verdict=by_seeds(outcomes),
        statistic=Statistic("loss of one layer less that of two", float((ends[:, 0] - ends[:, 1]).mean()), "nats"),
        interval=list(mean_interval(ends[:, 0] - ends[:, 1])) if len(ends) > 1 else None,
        threshold=(
            f"two layers: loss at most {bounds.LEARNED:g} ln V ({bounds.LEARNED * first.ln_v:.2f} nats) and a head "
            f"with an induction score of {bounds.HEAD:g}; one layer: loss above what counts and places give "
            f"({first.by_counting:.2f}) and no head above {bounds.NO_HEAD:g}. Not supported where one layer learns it"
        ),
        n=first.n,
        seeds=seeds,
        papers_criterion=PapersCriterion(
            None, "They name no bound: one layer never shows the change, models of two and more layers do."
        ),
        reason=(
            f"On {first.n} tokens of second readings two layers end at a loss of {ends[:, 1].mean():.3f} nats and one "
            f"layer at {ends[:, 0].mean():.2f} (means of seeds); knowing nothing costs ln V = {first.ln_v:.2f}, and "
            f"counts and places alone {first.by_counting:.2f}. The best head's induction score is "
            f"{heads[:, 1].mean():.2f} with two layers and {heads[:, 0].mean():.2f} with one. "
            f"{seeds_sentence(outcomes)}"
        ),
        evidence={"outcomes": outcomes},
    )


# Suddenness --------------------------------------------------------------------------------------------------------


def judge_change(found: Found) -> str:
    """One run of two layers: was the rise short, with most of the loss's fall in it and at the same time?"""
    window = _window(found)
    if window is None or found.best[-1] < bounds.HEAD or not _learned(found):
        return INCONCLUSIVE  # nothing formed, so nothing can have been sudden
    inside, lag = fall_inside(found.x, np.array(found.loss), window), abs(lag_of(found))
    if window.share <= bounds.WINDOW and inside >= bounds.FALL_INSIDE and lag <= bounds.LAG:
        return SUPPORTED
    apart = inside < bounds.FALL_OUTSIDE or lag > bounds.LAG_REFUTED
    return NOT_SUPPORTED if window.share >= bounds.EVEN or apart else INCONCLUSIVE


def lag_of(found: Found) -> float:
    """How much later the loss is half-way down than the score is half-way up, as a share of the latter's step."""
    score = half_way(found.x, found.best)
    return (half_way(found.x, np.array(found.loss)) - score) / score


def change_verdict(two: BySeed, claim: str = "phase-change") -> Verdict:
    """The claim that induction heads and copying appear together, in a short time. ValueError without any run."""
    seeds = _seeds(two)
    outcomes = [judge_change(two[seed]) for seed in seeds]
    windows = [(two[seed], window) for seed in seeds if (window := _window(two[seed])) is not None]
    shares = np.array([window.share for _, window in windows])
    return Verdict(
        claim=claim,
        verdict=by_seeds(outcomes),
        statistic=Statistic(
            "length of the rise, of the training up to its end", float(np.median(shares)) if len(shares) else None
        ),
        interval=_interval(shares),
        threshold=(
            f"the shortest window with {bounds.RISE_SHARE:.0%} of the rise of the induction score is at most "
            f"{bounds.WINDOW:g} of the training up to its end, at least {bounds.FALL_INSIDE:g} of the loss's fall lies "
            f"in it, and their half-way steps differ by at most {bounds.LAG:g} of the score's. Not supported at "
            f"{bounds.EVEN:g} (an even rise has {bounds.RISE_SHARE:g}), below {bounds.FALL_OUTSIDE:g} of the fall, or "
            f"above a lag of {bounds.LAG_REFUTED:g}"
        ),
        n=sum(len(two[seed].steps) for seed in seeds),
        seeds=seeds,
        papers_criterion=PapersCriterion(
            None,
            "They name no bound; their window, 2.5 to 5 billion tokens, is half of the training up to its end.",
        ),
        reason=f"{_change_words(windows)} {seeds_sentence(outcomes)}",
        evidence={
            "outcomes": outcomes,
            "window": [[window.begin, window.end] for _, window in windows],
            "of_all_steps": [(window.end - window.begin) / found.steps[-1] for found, window in windows],
            "fall_inside": [fall_inside(found.x, np.array(found.loss), window) for found, window in windows],
            "lag": [lag_of(found) for found, _ in windows],
        },
    )


def _window(found: Found) -> Window | None:
    return rise_window(found.x, found.best, bounds.RISE_SHARE)


def _change_words(windows: Sequence[tuple[Found, Window]]) -> str:
    if not windows:
        return "In no run did an induction score rise."
    begin, end, inside, lag = np.median(
        [
            (window.begin, window.end, fall_inside(found.x, np.array(found.loss), window), lag_of(found))
            for found, window in windows
        ],
        axis=0,
    )
    return (
        f"{bounds.RISE_SHARE:.0%} of the rise of the best head's induction score lie between steps {begin:.0f} and "
        f"{end:.0f}, with {inside:.0%} of the fall of the loss; the loss is half-way down {abs(lag):.0%} of the steps "
        f"{'after' if lag >= 0 else 'before'} the score is half-way up (medians of seeds). Both are read between "
        "checkpoints on straight lines."
    )


# Composition -------------------------------------------------------------------------------------------------------


def judge_composition(found: Found) -> str:
    """One run of two layers: does the best previous-token head take the induction head with it, and no other?"""
    if found.best[-1] < bounds.HEAD or len(found.removed) < 2:
        return INCONCLUSIVE  # there is no induction head to take away, or nothing to compare with
    first, *others = (found.taken(head) for head in found.by_previous)
    if first <= bounds.SPARED:
        return NOT_SUPPORTED
    return SUPPORTED if first >= bounds.TAKEN and max(others) <= bounds.SPARED else INCONCLUSIVE


def composition_verdict(two: BySeed, claim: str = "composition") -> Verdict:
    """The claim that a previous-token head feeds the induction head. ValueError without any run."""
    seeds = _seeds(two)
    outcomes = [judge_composition(two[seed]) for seed in seeds]
    found = [two[seed] for seed in seeds if len(two[seed].removed) > 1]
    taken = np.array([[one.taken(head) for head in one.by_previous] for one in found])  # [seeds, heads]
    first = taken[:, 0] if len(found) else np.array([])
    return Verdict(
        claim=claim,
        verdict=by_seeds(outcomes),
        statistic=Statistic(
            "induction score that goes with the best previous-token head", float(np.median(first)) if found else None
        ),
        interval=_interval(first),
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


def _seeds(seeds: Iterable[int]) -> list[int]:
    if not (found := sorted(seeds)):
        raise ValueError("there is no run to judge")
    return found


def _interval(x: np.ndarray) -> list[float] | None:
    """Of the median over seeds; None for fewer than two."""
    return list(bootstrap_interval(x, np.median)) if len(x) > 1 else None
