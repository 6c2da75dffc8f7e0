"""Growth by a factor, by an amount and as a root are told apart, and judged at the bounds."""

from __future__ import annotations

import numpy as np
import pytest

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.attention_sinks import thresholds as bounds
from llmlab.studies.papers.attention_sinks.norms import Growth, growth, growth_of, judge_norms, middle, norms_verdict
from llmlab.studies.papers.attention_sinks.reading import Found, Reading

AT = list(range(3, 28))
LAYERS = np.array(AT, dtype=float)
CURVES = {
    "exponential": 2.0 * np.exp(0.045 * LAYERS),
    "linear": 3.0 + 2.0 * LAYERS,
    "root": np.sqrt(1.0 + 4.0 * LAYERS),
}


def noisy(curve: np.ndarray, noise: float = 0.01, prompts: int = 12) -> np.ndarray:
    """ln of a curve on some prompts, each with a scale and an error of its own [P, M]."""
    random = np.random.default_rng(0)
    return np.log(curve) + random.normal(0, 0.2, (prompts, 1)) + random.normal(0, noise, (prompts, len(curve)))


def reading(logs: np.ndarray) -> Reading:
    """A model of which only norms are of interest. logs [P, depth + 1]."""
    depth, nothing = logs.shape[1] - 1, [[0.1]] * len(logs)
    rows = logs.tolist()
    return Reading(64, depth, [0], nothing, nothing, nothing, rows, (logs + 2).tolist(), ["one"] * len(logs))


@pytest.mark.parametrize(("name", "curve"), CURVES.items())
def test_the_curve_that_made_the_norms_is_found(name: str, curve: np.ndarray) -> None:
    found = growth(noisy(curve), AT)
    if name == "exponential":
        assert min(found.aic.values()) > bounds.CLEAR_AIC
        assert judge_norms(found) == SUPPORTED
    else:
        assert found.rival == name
        assert found.aic[name] < -bounds.CLEAR_AIC
        assert judge_norms(found) == NOT_SUPPORTED


def test_the_slope_is_the_growth_and_its_interval_holds_it() -> None:
    exact = growth(np.log(CURVES["exponential"])[None], AT)
    assert (exact.slope, exact.intercept, exact.r2) == pytest.approx((0.045, np.log(2.0), 1.0), abs=1e-9)
    found = growth(noisy(CURVES["exponential"]), AT)
    assert found.low < 0.045 < found.high
    assert found.high - found.low < 0.002
    line = np.polyfit(LAYERS, noisy(CURVES["exponential"]).mean(0), 1)
    assert (found.slope, found.intercept) == pytest.approx(tuple(line), abs=1e-9)


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_a_curve_of_the_family_has_no_error_left(power: float) -> None:
    name = {1.0: "linear", 0.5: "root"}[power]
    rising = growth(power * np.log(LAYERS + 5.0)[None], AT)
    assert rising.aic[name] < -100
    falling = growth(power * np.log(40.0 - LAYERS)[None], AT)
    assert falling.aic[name] < -100
    assert falling.slope < 0


def test_norms_that_stay_or_fall_are_no_growth() -> None:
    assert judge_norms(growth(noisy(np.ones(len(AT))), AT)) == NOT_SUPPORTED
    assert judge_norms(growth(noisy(np.exp(-0.05 * LAYERS)), AT)) == NOT_SUPPORTED


def test_the_bounds_are_where_they_are_said_to_be() -> None:
    straight = Growth(AT, 0.05, 0.04, 0.06, 0.0, bounds.STRAIGHT_R2, {"linear": 9.0, "root": bounds.CLEAR_AIC})
    change = straight.__dict__
    assert judge_norms(straight) == SUPPORTED
    assert judge_norms(Growth(**change | {"r2": bounds.STRAIGHT_R2 - 0.01})) == INCONCLUSIVE
    assert judge_norms(Growth(**change | {"low": 0.0})) == NOT_SUPPORTED
    assert judge_norms(Growth(**change | {"aic": {"linear": 9.0, "root": bounds.CLEAR_AIC - 0.1}})) == INCONCLUSIVE
    assert judge_norms(Growth(**change | {"aic": {"linear": -bounds.CLEAR_AIC, "root": 9.0}})) == NOT_SUPPORTED
    assert judge_norms(None) == INCONCLUSIVE
    # Random weights may give a straight line, too: the slope must lie above theirs.
    assert judge_norms(straight, [straight, None]) == INCONCLUSIVE
    flatter = Growth(**change | {"slope": straight.low / 2})
    assert judge_norms(straight, [flatter]) == SUPPORTED
    curved = Growth(**change | {"r2": bounds.STRAIGHT_R2 - 0.01})
    assert judge_norms(straight, [curved]) == SUPPORTED


def test_an_eighth_of_the_layers_is_left_out_at_either_end() -> None:
    assert middle(30) == list(range(4, 27))
    assert middle(8) == list(range(1, 8))
    assert middle(2) == [1]


def test_few_layers_say_nothing() -> None:
    assert growth_of(reading(np.zeros((3, 7)))) is None
    assert growth_of(reading(np.zeros((3, 9)))) is not None


def test_the_verdict_is_that_of_the_models_and_shows_their_lines() -> None:
    deep = Found("deep", 10, reading(noisy(2.0 * np.exp(0.045 * np.arange(31)))))
    found = norms_verdict([deep], {})
    assert found.verdict == SUPPORTED
    growth = 100 * (np.exp(0.045) - 1)
    assert (found.statistic.value, found.statistic.unit) == (pytest.approx(growth, rel=0.02), "%")
    assert found.interval is not None
    assert found.interval[0] < growth < found.interval[1]
    assert "7.4 times (deep)" in found.reason  # e^2
    assert [series.kind for series in found.charts[0].series] == ["line", "dashed"]
    assert "With random weights" not in found.reason
    random = reading(noisy(np.sqrt(1.0 + 4.0 * np.arange(31))))
    beside = norms_verdict([Found("deep", 10, deep.text, (random,))], {})
    assert "With random weights it grows by" in beside.reason
    assert "the best other curve is root" in beside.reason
    assert [row[0] for row in beside.tables[0].rows] == ["deep", "the same with random weights"]
    assert [series.kind for series in beside.charts[0].series] == ["line", "dashed", "dashed"]
    shallow = Found("shallow", 10, reading(np.zeros((3, 3))))
    both = norms_verdict([deep, shallow], {})
    assert both.verdict == INCONCLUSIVE
    assert "Too few layers to tell curves apart: shallow" in both.reason
