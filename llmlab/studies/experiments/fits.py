"""Fits to a few measured losses: the minimum of a learning-rate sweep, a power law with its uncertainty. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

# A sweep is a parabola only near its minimum: points up to so many rates of the grid away from the lowest.
_NEIGHBOURS = 2
# Exponents that are tried. Published ones lie between 0.05 and 0.6; small models on little text reach 1.5.
_EXPONENTS = np.geomspace(0.005, 4.0, 600)
_SAMPLES = 2000  # of the bootstrap: the 5th and 95th percentile then vary by about 2 % of the range
_BAND = (5.0, 95.0)


@dataclass(frozen=True)
class Parabola:
    """y = y0 + curvature (ln x - ln x0)^2. used: indices of the points it was fitted to."""

    x0: float
    y0: float
    curvature: float
    used: tuple[int, ...]

    def __call__(self, x: Array) -> Array:
        return self.y0 + self.curvature * (np.log(x) - np.log(self.x0)) ** 2


def fit_minimum(x: Array, y: Array) -> Parabola | None:
    """Least squares through the lowest point and its neighbours in ln x; x ascending.

    None where that says nothing: fewer than three points, the lowest one at an end, or no minimum among them.
    """
    if len(x) < 3:
        return None
    lowest = int(np.argmin(y))
    if lowest in (0, len(x) - 1):
        return None
    first, last = max(0, lowest - _NEIGHBOURS), min(len(x), lowest + _NEIGHBOURS + 1)
    # The wall on the right is steeper than any parabola: a point far above the others would move the minimum.
    height = max(y[lowest - 1], y[lowest + 1]) - y[lowest]
    used = [i for i in range(first, last) if abs(i - lowest) <= 1 or y[i] - y[lowest] <= 4.5 * height]
    u = np.log(x[used])
    curvature, slope, constant = np.polyfit(u - u.mean(), y[used], 2)
    if curvature <= 0:
        return None
    bottom = -slope / (2 * curvature)
    if not u[0] - u.mean() <= bottom <= u[-1] - u.mean():
        return None
    x0 = float(np.exp(bottom + u.mean()))
    return Parabola(x0, float(constant - slope**2 / (4 * curvature)), float(curvature), tuple(used))


def minimum_range(x: Array, runs: list[Array], seed: int = 0) -> tuple[float, float] | None:
    """The 90 % range of the minimum when each point's runs are drawn anew; None with a single run a point.

    Draws from n runs scatter about their mean by sqrt((n - 1) / n) too little, which two runs make 0.7: what they
    deviate by is stretched by as much.
    """
    if min((len(values) for values in runs), default=0) < 2:
        return None
    random = np.random.default_rng(seed)
    minima = []
    for _ in range(_SAMPLES // 4):
        means = np.array([_mean_of_a_draw(values, random) for values in runs])
        fitted = fit_minimum(x, means)
        if fitted is not None:
            minima.append(fitted.x0)
    if len(minima) < _SAMPLES // 8:  # most draws have no minimum inside
        return None
    return _range(minima)


def _range(draws: Array | list[float]) -> tuple[float, float]:
    low, high = np.percentile(draws, _BAND)
    return float(low), float(high)


def _mean_of_a_draw(values: Array, random: np.random.Generator) -> float:
    count, mean = len(values), values.mean()
    return float(mean + (random.choice(values, count).mean() - mean) * np.sqrt(count / (count - 1)))


@dataclass(frozen=True)
class PowerLaw:
    """y = a x^-b + c, with c >= 0.

    noise: standard deviation of a run about it. samples: a, b, c and noise of fits to redrawn data, [S, 4].
    """

    a: float
    b: float
    c: float
    noise: float | None
    samples: Array

    def __call__(self, x: Array) -> Array:
        return self.a * np.asarray(x, dtype=float) ** -self.b + self.c

    def band(self, x: Array) -> tuple[Array, Array] | None:
        """90 % band of the fitted curve at `x`."""
        if not len(self.samples):
            return None
        a, b, c, _ = self.samples.T[:, :, None]
        low, high = np.percentile(a * np.asarray(x, dtype=float) ** -b + c, _BAND, axis=0)
        return low, high

    def forecast(self, x: float, seed: int = 0) -> tuple[float, float] | None:
        """90 % range of one new run at `x`: the curve's uncertainty and a run's own noise."""
        if not len(self.samples):
            return None
        a, b, c, noise = self.samples.T
        drawn = a * x**-b + c + np.random.default_rng(seed).normal(0, noise)
        return _range(drawn)

    def exponent_range(self) -> tuple[float, float] | None:
        """90 % range of b."""
        return _range(self.samples[:, 1]) if len(self.samples) else None


def fit_power_law(x: Array, y: Array, seed: int = 0) -> PowerLaw | None:
    """Least squares over all runs; a constant c only where there are at least four different x.

    The uncertainty is a parametric bootstrap: data are drawn about the fit with the noise of its residuals, and
    fitted again; how well so few residuals tell the noise is part of it. None with fewer than three different x, or
    when y does not fall with x.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    places = len(np.unique(x))
    if places < 3:
        return None
    with_constant = places >= 4
    a, b, c = (float(value[0]) for value in _best(x, y[None], with_constant))
    if not a > 0:
        return None
    free = len(x) - (3 if with_constant else 2)
    if free < 1:
        return PowerLaw(a, b, c, None, np.empty((0, 4)))
    fitted = a * x**-b + c
    noise = float(np.sqrt(((y - fitted) ** 2).sum() / free))
    random = np.random.default_rng(seed)
    noises = noise * np.sqrt(free / random.chisquare(free, _SAMPLES))
    drawn = fitted + random.normal(0, 1, (_SAMPLES, len(x))) * noises[:, None]
    samples = np.stack([*_best(x, drawn, with_constant), noises], axis=1)
    return PowerLaw(a, b, c, noise, samples[samples[:, 0] > 0])


def _best(x: Array, y: Array, with_constant: bool) -> tuple[Array, Array, Array]:
    """a, b, c, each [S], of the least squares fits to y [S, n]. For a given b the rest is linear: b is searched."""
    # x relative to its geometric mean, so that a x^-b stays of order one for every b.
    centre = np.exp(np.log(x).mean())
    errors = np.empty((len(_EXPONENTS), len(y)))
    solutions = np.empty((len(_EXPONENTS), len(y), 2))
    for i, b in enumerate(_EXPONENTS):
        power = (x / centre) ** -b
        solutions[i] = _linear(power, y, with_constant)
        fitted = solutions[i][:, :1] * power + solutions[i][:, 1:]
        errors[i] = ((y - fitted) ** 2).sum(axis=1)
    best = errors.argmin(axis=0)
    chosen = solutions[best, np.arange(len(y))]
    b = _EXPONENTS[best]
    return chosen[:, 0] * centre**b, b, chosen[:, 1]


def _linear(power: Array, y: Array, with_constant: bool) -> Array:
    """Least squares of y [S, n] on power [n]: factor and constant, [S, 2]; the constant is not below zero."""
    alone = (y @ power) / (power @ power)
    simple = np.stack([alone, np.zeros_like(alone)], axis=1)
    if not with_constant:
        return simple
    centred = power - power.mean()
    spread = centred @ centred
    if spread == 0:
        return simple
    factor = (y - y.mean(axis=1, keepdims=True)) @ centred / spread
    constant = y.mean(axis=1) - factor * power.mean()
    both = np.stack([factor, constant], axis=1)
    return np.where((constant < 0)[:, None], simple, both)
