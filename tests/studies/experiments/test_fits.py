"""Fits on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from llmlab.studies.experiments import fits
from llmlab.studies.experiments.fits import fit_minimum, fit_power_law, minimum_range

RATES = np.array([1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2])
SIZES = np.repeat([1e4, 2e4, 4e4, 8e4, 1.6e5], 3)


def test_the_bottom_of_a_parabola_is_found_exactly() -> None:
    y = 2.1 + 0.07 * (np.log(RATES) - np.log(1.7e-3)) ** 2
    minimum = fit_minimum(RATES, y)
    assert minimum is not None
    assert minimum.x0 == pytest.approx(1.7e-3)
    assert minimum.y0 == pytest.approx(2.1)
    assert minimum.curvature == pytest.approx(0.07)


def test_a_steep_wall_on_the_right_does_not_move_the_bottom() -> None:
    y = 2.1 + 0.07 * (np.log(RATES) - np.log(1e-3)) ** 2
    y[-2:] += [3.0, 9.0]
    minimum = fit_minimum(RATES, y)
    assert minimum is not None
    assert minimum.x0 == pytest.approx(1e-3, rel=1e-6)
    assert max(minimum.used) < 4


@pytest.mark.parametrize("y", [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, 2.0]])
def test_a_basin_whose_bottom_is_not_inside_is_not_fitted(y: list[float]) -> None:
    assert fit_minimum(RATES[: len(y)], np.array(y)) is None


def test_the_range_of_the_bottom_holds_it_and_needs_seeds() -> None:
    random = np.random.default_rng(0)
    means = 2 + 0.07 * (np.log(RATES) - np.log(2e-3)) ** 2
    runs = [mean + random.normal(0, 0.01, 4) for mean in means]
    low, high = minimum_range(RATES, runs) or (0.0, 0.0)
    assert low < 2e-3 < high < 2 * low
    assert minimum_range(RATES, [run[:1] for run in runs]) is None


@pytest.mark.slow
def test_the_range_of_the_bottom_holds_it_about_as_often_as_it_says_with_two_seeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fits, "_SAMPLES", 400)  # as below
    random, held = np.random.default_rng(0), 0
    means = 2 + 0.1 * (np.log(RATES) - np.log(2e-3)) ** 2
    for trial in range(60):
        low, high = minimum_range(RATES, [mean + random.normal(0, 0.02, 2) for mean in means], trial) or (0.0, 0.0)
        held += low <= 2e-3 <= high
    assert held >= 0.75 * 60  # 90 % is meant; drawn without a correction, two seeds give two in three


def test_a_power_law_with_a_constant_is_recovered() -> None:
    law = fit_power_law(SIZES, 30 * SIZES**-0.35 + 1.5)
    assert law is not None
    assert law.b == pytest.approx(0.35, abs=0.003)
    assert law.c == pytest.approx(1.5, abs=0.01)
    assert float(law(np.array(3.2e5))) == pytest.approx(30 * 3.2e5**-0.35 + 1.5, abs=1e-3)


def test_three_sizes_are_fitted_without_a_constant() -> None:
    x = np.array([1e3, 1e4, 1e5])
    law = fit_power_law(x, 12 * x**-0.2)
    assert law is not None
    assert (law.c, law.b) == (0.0, pytest.approx(0.2, abs=0.002))
    assert law.a == pytest.approx(12, rel=0.02)


def test_the_constant_is_never_below_zero() -> None:
    x = np.array([1e3, 3e3, 1e4, 3e4])
    law = fit_power_law(x, 5 - 0.4 * np.log10(x) ** 1.5)  # falls faster than any power law with a constant
    assert law is not None
    assert law.c >= 0


def test_two_sizes_and_a_loss_that_rises_give_no_law() -> None:
    assert fit_power_law(np.array([1.0, 2.0]), np.array([2.0, 1.0])) is None
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert fit_power_law(x, x) is None


@pytest.mark.slow
def test_the_forecast_covers_a_new_run_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "_SAMPLES", 200)  # a percentile of the bootstrap is then known well enough
    random = np.random.default_rng(5)

    def truth(x: np.ndarray) -> np.ndarray:
        return 30 * x**-0.35 + 1.5

    covered = 0
    for seed in range(24):
        law = fit_power_law(SIZES, truth(SIZES) + random.normal(0, 0.01, len(SIZES)), seed)
        assert law is not None
        low, high = law.forecast(3.2e5, seed) or (0.0, 0.0)
        covered += low <= truth(np.array(3.2e5)) + random.normal(0, 0.01) <= high
    assert 18 <= covered <= 24  # 90 % of 24 is 21.6; fewer than 18 has a chance of 1 in 100
