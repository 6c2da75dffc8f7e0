"""Does it take two layers to copy, and is it learned at once? Verdicts and their plots. No torch.

Each claim is judged seed by seed (llmlab.studies.papers.agreement).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from llmlab.core.charts import Chart, Series, Table
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import of_seeds
from llmlab.studies.papers.charting import level, range_band, table
from llmlab.studies.papers.induction_heads import thresholds as bounds
from llmlab.studies.papers.induction_heads.followed import Found, Window, fall_inside, half_way, rise_window
from llmlab.studies.papers.induction_heads.plan import CHANGE, LAYERS
from llmlab.studies.papers.induction_heads.thresholds import TEXTS
from llmlab.studies.papers.records import Verdict
from llmlab.studies.papers.statistics import mean_of, median_of

BySeed = Mapping[int, Found]

# Two layers -----------------------------------------------------------------------------------------------------------


def judge_layers(two: Found, one: Found) -> str:
    """One seed: two layers must have learned to copy with a head for it, and one layer must have neither."""
    if _learned(one):
        return NOT_SUPPORTED
    apart = one.loss[-1] >= one.by_counting and one.best[-1] < bounds.NO_HEAD
    return SUPPORTED if _learned(two) and two.best[-1] >= bounds.HEAD and apart else INCONCLUSIVE


def _learned(found: Found) -> bool:
    return found.loss[-1] <= bounds.LEARNED * found.ln_v


def layers_verdict(two: BySeed, one: BySeed) -> Verdict:
    """The claim that it takes two layers, on seeds that trained both."""
    outcomes = {seed: judge_layers(two[seed], one[seed]) for seed in sorted(two.keys() & one.keys())}
    ends = np.array([[one[seed].loss[-1], two[seed].loss[-1]] for seed in outcomes])
    heads = np.array([[one[seed].best[-1], two[seed].best[-1]] for seed in outcomes])
    first = two[min(outcomes)]
    means = dict(zip(("one", "two", "one_head", "two_head"), (*ends.mean(0), *heads.mean(0)), strict=True))
    facts = {"learned": bounds.LEARNED * first.ln_v, "by_counting": first.by_counting}
    return TEXTS.verdict(
        LAYERS,
        of_seeds(outcomes),
        *mean_of(ends[:, 0] - ends[:, 1]),
        said=[TEXTS.say("layers", n=first.n, ln_v=first.ln_v, by_counting=first.by_counting, **means)],
        n=first.n,
        facts=facts,
        charts=_layers_charts(two, one),
        tables=[_layers_table(two, one)],
        evidence={"outcomes": list(outcomes.values())},
    )


def _layers_charts(two: BySeed, one: BySeed) -> list[Chart]:
    """Loss and best induction score along training, of both kinds of model."""
    first, groups = two[min(two)], {"two layers": two.values(), "one layer": one.values()}
    whole = [0.0, max(float(found.steps[-1]) for group in groups.values() for found in group)]
    losses = [_band(name, [(found.x, np.array(found.loss)) for found in group]) for name, group in groups.items()]
    scores = [_band(name, [(found.x, found.best) for found in group]) for name, group in groups.items()]
    losses.append(level("ln V: knowing nothing", first.ln_v, whole))
    losses.append(level("counts and positions", first.by_counting, whole))
    heads = [*scores, level("an induction head", bounds.HEAD, whole)]
    return [TEXTS.chart("loss-by-step", losses), TEXTS.chart("induction-by-step", heads)]


def _layers_table(two: BySeed, one: BySeed) -> Table:
    groups = {"two layers": two, "one layer": one}
    rows = {f"{name}, seed {seed}": group[seed] for name, group in groups.items() for seed in sorted(group)}
    columns = {
        "model": list(rows),
        "loss, nats": [f"{found.loss[-1]:.3f}" for found in rows.values()],
        "best induction score": [f"{found.best[-1]:.2f}" for found in rows.values()],
    }
    return table("After training", columns)


# Suddenness -----------------------------------------------------------------------------------------------------------


def judge_change(found: Found) -> str:
    """One run of two layers: was the rise short, with most of the loss's fall in it and at the same time?"""
    window = _window(found)
    if window is None or found.best[-1] < bounds.HEAD or not _learned(found):
        return INCONCLUSIVE  # nothing formed, so nothing can have been sudden
    inside, lag = _inside(found, window), abs(lag_of(found))
    if window.share <= bounds.WINDOW and inside >= bounds.FALL_INSIDE and lag <= bounds.LAG:
        return SUPPORTED
    apart = inside < bounds.FALL_OUTSIDE or lag > bounds.LAG_REFUTED
    return NOT_SUPPORTED if window.share >= bounds.EVEN or apart else INCONCLUSIVE


def lag_of(found: Found) -> float:
    """How much later the loss is half-way down than the score is half-way up, as a share of the latter's step."""
    score = half_way(found.x, found.best)
    return (half_way(found.x, np.array(found.loss)) - score) / score


def change_verdict(two: BySeed) -> Verdict:
    """The claim that induction heads and copying appear together, in a short time."""
    outcomes = {seed: judge_change(found) for seed, found in sorted(two.items())}
    windows = [(two[seed], window) for seed in outcomes if (window := _window(two[seed])) is not None]
    falls = {seed: found for seed in outcomes if (found := two[seed]).loss[-1] < found.loss[0] and _window(found)}
    return TEXTS.verdict(
        CHANGE,
        of_seeds(outcomes),
        *median_of([window.share for _, window in windows]),
        said=[_change_said(windows)],
        n=sum(len(found.steps) for found in two.values()),
        charts=[_change_chart([*falls.values()])] if falls else [],
        tables=[_change_table(falls)] if falls else [],
        evidence={
            "outcomes": list(outcomes.values()),
            "window": [[window.begin, window.end] for _, window in windows],
            "of_all_steps": [(window.end - window.begin) / found.steps[-1] for found, window in windows],
            "fall_inside": [_inside(found, window) for found, window in windows],
            "lag": [lag_of(found) for found, _ in windows],
        },
    )


def _window(found: Found) -> Window | None:
    return rise_window(found.x, found.best, bounds.RISE_SHARE)


def _inside(found: Found, window: Window) -> float:
    return fall_inside(found.x, np.array(found.loss), window)


def _change_said(windows: Sequence[tuple[Found, Window]]) -> str:
    if not windows:
        return TEXTS.say("change-none")
    changes = [(window.begin, window.end, _inside(found, window), lag_of(found)) for found, window in windows]
    begin, end, inside, lag = np.median(changes, axis=0)
    when = "after" if lag >= 0 else "before"
    return TEXTS.say("change", begin=begin, end=end, inside=inside, lag=abs(lag), when=when)


def _change_chart(found: Sequence[Found]) -> Chart:
    """Score and loss of each run on one axis."""
    times = [one.x / half_way(one.x, one.best) for one in found]
    scores, losses = ([_done(getattr(one, name)) for one in found] for name in ("best", "loss"))
    risen = _band("induction score, risen", [*zip(times, scores, strict=True)])
    return TEXTS.chart("change-together", [risen, _band("loss, fallen", [*zip(times, losses, strict=True)])])


def _change_table(found: BySeed) -> Table:
    """When each run changed."""
    windows = [(one, window) for one in found.values() if (window := _window(one)) is not None]
    columns = {
        "seed": [str(seed) for seed in found],
        "steps of the rise": [f"{window.begin:.0f} to {window.end:.0f}" for _, window in windows],
        "of training until then": [f"{window.share:.2f}" for _, window in windows],
        "fall of the loss in it": [f"{_inside(one, window):.2f}" for one, window in windows],
        "loss's lag": [f"{lag_of(one):+.2f}" for one, _ in windows],
    }
    return table("The change, seed by seed", columns)


# Both -----------------------------------------------------------------------------------------------------------------


def _band(name: str, curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> Series:
    """Curves (x, y) [N] as their median with the least and the largest, on the x of the first that all have."""
    end = min(x[-1] for x, _ in curves)
    x = curves[0][0][curves[0][0] <= end]
    return range_band(name, x.tolist(), np.array([np.interp(x, *curve) for curve in curves]))


def _done(y: Sequence[float]) -> np.ndarray:
    """y [N] as the share of its whole change that has come."""
    return (np.asarray(y) - y[0]) / (y[-1] - y[0])
