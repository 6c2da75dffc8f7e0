"""How a norm grows with the layer: by a factor, by an amount, or as sums of independent parts would. No torch.

    exponential   ln n = a + b l
    linear        n = s (l + c),        ln n = ln s + ln(l + c)
    root          n = s sqrt(l + c),    ln n = ln s + ln(l + c) / 2:   n^2 grows by a constant amount

Each has two parameters and is fitted to ln n by least squares, so errors mean the same in all, relative ones, and
AIC = M ln(error) + 2k differs by M ln(error / error) alone: M layers, as many parameters in each. Curves may fall, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from llmlab.core.charts import DASHED, Chart, Series, Table
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import of_models
from llmlab.studies.papers.attention_sinks import thresholds as bounds
from llmlab.studies.papers.attention_sinks.plan import NORMS
from llmlab.studies.papers.attention_sinks.reading import Found, Reading, about, in_the_middle, listed
from llmlab.studies.papers.attention_sinks.thresholds import TEXTS
from llmlab.studies.papers.charting import interval_band, numbered
from llmlab.studies.papers.records import Verdict
from llmlab.studies.papers.statistics import bootstrap_interval

Array = np.ndarray
LINEAR, ROOT = "linear", "root"
# Where l + c reaches from the first layer, in multiples of the span: from a steep curve to one that is level.
_OFFSETS = np.geomspace(1e-4, 1e5, 4000)
_TINY = 1e-18  # of an error: below the rounding of what is measured


@dataclass(frozen=True)
class Growth:
    """The growth of ln n over the layers `at`.

    slope: a layer, with its interval [low, high] over prompts; intercept: of the line, at layer 0. r2: of the line.
    aic: how much more another curve's is than the exponential's, by name; negative where it fits better.
    """

    at: list[int]
    slope: float
    low: float
    high: float
    intercept: float
    r2: float
    aic: dict[str, float]

    @property
    def rival(self) -> str:
        """The other curve that fits best."""
        return min(self.aic, key=lambda name: self.aic[name])


def middle(depth: int) -> list[int]:
    """The positions 0 (before the first block) to `depth` without those near either end."""
    edge = max(1, -(-depth // bounds.EDGE))
    return list(range(edge, depth - edge + 1))


def growth(logs: Array, at: list[int]) -> Growth:
    """The curves through the mean over prompts of ln n [P, M] at the M >= 3 layers `at`."""
    x, y = np.array(at, dtype=float), logs.mean(0)
    across = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    slopes = logs @ across  # [P]: least squares is linear in what it is fitted to
    slope = float(y @ across)
    intercept = float(y.mean() - slope * x.mean())
    error = float(((y - intercept - slope * x) ** 2).sum())
    total = float(((y - y.mean()) ** 2).sum())
    low, high = bootstrap_interval(slopes)
    errors = {LINEAR: _error(x, y, 1.0), ROOT: _error(x, y, 0.5)}
    return Growth(
        at=at,
        slope=slope,
        low=low,
        high=high,
        intercept=intercept,
        r2=1 - error / total if total > _TINY else 0.0,
        aic={name: len(x) * float(np.log(max(one, _TINY) / max(error, _TINY))) for name, one in errors.items()},
    )


def _error(x: Array, y: Array, power: float) -> float:
    """The smallest sum of squares of y - ln s - power ln |x - end|, over s and over ends outside of the layers."""
    span = x[-1] - x[0]
    ends = np.concatenate([x[0] - span * _OFFSETS, x[-1] + span * _OFFSETS])
    left = y - power * np.log(np.abs(x - ends[:, None]))  # [ends, M]
    return float(((left - left.mean(1, keepdims=True)) ** 2).sum(1).min())


# Verdict --------------------------------------------------------------------------------------------------------------


def growth_of(text: Reading) -> Growth | None:
    """The growth over the middle layers; None where they are too few to tell curves apart."""
    at = middle(text.depth)
    return growth(np.array(text.norms)[:, at], at) if len(at) >= bounds.MIDDLE_POINTS else None


def judge_norms(found: Growth | None, untrained: Sequence[Growth | None] = ()) -> str:
    """One model: straight in logarithms, and steeper than any of its shape with random weights that is so, too."""
    if found is None:
        return INCONCLUSIVE
    rival = found.aic[found.rival]
    if found.low <= 0 or rival <= -bounds.CLEAR_AIC:
        return NOT_SUPPORTED
    if not _is_straight(found):
        return INCONCLUSIVE
    by_chance = max((one.slope for one in untrained if one is not None and _is_straight(one)), default=0.0)
    return SUPPORTED if found.low > by_chance else INCONCLUSIVE


def _is_straight(found: Growth) -> bool:
    """Whether the logarithm of the norm is a line, and no other curve comes near it."""
    return found.r2 >= bounds.STRAIGHT_R2 and found.aic[found.rival] >= bounds.CLEAR_AIC


def first_ratio(text: Reading) -> Array:
    """The first token's norm over the others' (geometric means over prompts), before the first block and after each."""
    return np.asarray(np.exp(np.array(text.first_norms).mean(0) - np.array(text.norms).mean(0)))


def norms_verdict(found: Sequence[Found], refused: dict[str, str]) -> Verdict:
    """The claim that the stream grows by a factor a layer. refused: why a model could not be asked."""
    read = [(one, one.text) for one in found if one.text is not None]
    if not read:
        return TEXTS.nothing_measured(NORMS, refused)
    curves = {one.name: growth_of(text) for one, text in read}
    chance = {one.name: [growth_of(other) for other in one.untrained] for one in found}
    outcomes = {name: judge_norms(curve, chance[name]) for name, curve in curves.items()}
    fitted = {name: curve for name, curve in curves.items() if curve is not None}
    shown, curve = in_the_middle(fitted.items(), lambda one: one.slope) if fitted else ("", None)
    rate = low = high = 0.0
    said = []
    if curve is not None:
        rate, low, high = (float(np.expm1(end)) for end in (curve.slope, curve.low, curve.high))
        said.append(TEXTS.say("norms", model=shown, **_facts(curve)))
        said += [TEXTS.say("norms-random", **_facts(fresh)) for fresh in chance[shown][:1] if fresh is not None]
    if short := [name for name, one in curves.items() if one is None]:
        said.append(TEXTS.say("norms-short", models=", ".join(short)))
    most = {one.name: float(first_ratio(text).max()) for one, text in read}
    return TEXTS.verdict(
        NORMS,
        of_models([*outcomes.items()], refused),
        None if curve is None else rate,
        None if curve is None else (low, high),
        said=[*said, TEXTS.say("norms-first-token", most=listed(most, "{:,.1f} times"))],
        after="n counts prompts.",
        n=next((len(text.norms) for one, text in read if one.name == shown), 0),
        charts=_charts(read, fitted),
        tables=[_table(read, curves, outcomes)],
        evidence={"outcomes": outcomes, "growth": {name: asdict(one) for name, one in fitted.items()}},
    )


def _facts(curve: Growth) -> dict[str, object]:
    rival = curve.aic[curve.rival]
    compared = "more" if rival >= 0 else "less"
    about = {"rate": np.expm1(curve.slope), "begin": curve.at[0], "end": curve.at[-1], "r2": curve.r2}
    return about | {"rival": curve.rival, "apart": abs(rival), "compared": compared}


def _charts(read: Sequence[tuple[Found, Reading]], curves: Mapping[str, Growth]) -> list[Chart]:
    """The norm of the stream by layer, and the first token's over the others'."""
    norms, dashed, firsts = [], [], []
    for one, text in read:
        layers, logs = numbered(text.depth + 1), np.array(text.norms)
        norms.append(interval_band(one.name, layers, logs, as_logs=True))
        firsts.append(interval_band(one.name, layers, np.array(text.first_norms) - logs, as_logs=True))
        if curve := curves.get(one.name):
            fit = np.exp(curve.intercept + curve.slope * np.array(curve.at)).tolist()
            dashed.append(Series(f"{one.name}, straight line", [*map(float, curve.at)], fit, DASHED))
        if one.untrained:
            chance = np.exp(np.mean([np.array(other.norms).mean(0) for other in one.untrained], axis=0)).tolist()
            dashed.append(Series(f"{one.name}, random weights", layers, chance, DASHED))
    return [TEXTS.chart("norms", [*norms, *dashed]), TEXTS.chart("first-token-norm", firsts)]


def _table(
    read: Sequence[tuple[Found, Reading]], curves: Mapping[str, Growth | None], outcomes: Mapping[str, str]
) -> Table:
    """What was judged, a row a model; under it one of the same shape with random weights."""
    columns = [*about(read), "growth a layer", "R² of the line", "AIC of a linear curve less the line's"]
    columns += ["AIC of a root curve less the line's", "first token's norm over the others', at most", "says"]
    rows = []
    for (one, text), *named in zip(read, *about(read).values(), strict=True):
        rows.append([*named, *_cells(curves[one.name], text), outcomes[one.name]])
        for other in one.untrained[:1]:
            rows.append(["the same with random weights", "", "", *_cells(growth_of(other), other), ""])
    return Table("Growth of the norm", columns, rows)


def _cells(curve: Growth | None, text: Reading) -> list[str]:
    line = ["-"] * 4
    if curve is not None:
        rate, low, high = (float(np.expm1(x)) for x in (curve.slope, curve.low, curve.high))
        line = [f"{rate:.2%} ({low:.2%} to {high:.2%})", f"{curve.r2:.3f}"]
        line += [f"{curve.aic[name]:+.1f}" for name in (LINEAR, ROOT)]
    return [*line, f"{first_ratio(text).max():,.1f}"]
