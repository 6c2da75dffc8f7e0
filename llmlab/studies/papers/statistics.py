"""What the verdicts on papers rest on: intervals, permutation tests, held-out regression. numpy only.

Samples of one sequence resemble one another. So folds keep a sequence together, a bootstrap draws a number a
sequence, and a permutation test takes one sample of each: `groups` says which samples belong together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray

# The smallest p is then 1/1001, which stays under 0.01 after Holm's correction for up to nine tests.
PERMUTATIONS = 1000
# The ends of a 95 % interval then vary by about 3 % of its width (Efron & Tibshirani 1993, chapter 19).
BOOTSTRAPS = 2000
CONFIDENCE = 0.95

_FOLDS = 5
# Up to so many numbers all their orders are tried: 8! is 40,320.
_ALL_ORDERS = 8
_AT_ONCE = 100  # permutations that are held in memory
# Ridge penalties that are tried, in multiples of the number of rows, on standardised columns.
_PENALTIES = np.geomspace(1e-6, 1e2, 17)
# Student's t, 97.5 %, for 1 to 20 degrees of freedom (any table, as NIST/SEMATECH, section 1.3.6.7.2). With more it is
# smaller by 6 % at most, so the last one errs on the wide side.
_T_QUANTILES = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
# Two sums of the same numbers in another order differ by rounding; a permutation that ties counts as a tie.
_TIE = 1e-9


def ranks(x: Array) -> Array:
    """Ranks from 0, ties sharing the mean of theirs."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    return (last - (counts - 1) / 2)[inverse]


def spearman(x: Array, y: Array) -> float:
    """Spearman's rank correlation, ties averaged; 0 where either is constant, since nothing is ordered then."""
    return stratified_spearman(x, y, np.zeros(len(x), dtype=int))


def stratified_spearman(x: Array, y: Array, strata: Array) -> float:
    """Rank correlation within strata: ranks are taken and centred in each, then correlated over all samples.

    What the stratum alone explains is gone; strata in which x or y is constant say nothing and are left out. 0 where
    none is left.
    """
    return _correlation(*_within(x, y, strata))


def correlation_within(x: Array, y: Array, strata: Array) -> float:
    """Pearson's correlation of x and y less their means in each stratum; 0 where one of them is constant."""
    return _correlation(_centred(x, strata), _centred(y, strata))


def stratified_permutation_p(
    x: Array, y: Array, strata: Array, permutations: int = PERMUTATIONS, seed: int = 0
) -> float | None:
    """How often y, shuffled within strata, correlates within them as strongly as it does: (1 + k) / (1 + permutations).

    Two-sided, on |stratified_spearman|. Samples must be exchangeable within a stratum: one of each sequence (see
    `one_of_each`). None where y is constant in every stratum: there is nothing to shuffle. 1 where x is constant in
    those in which y varies: it says nothing of y, whatever the order.
    """
    if not _centred_ranks(y, strata).any():
        return None
    return _permutation_p(*_within(x, y, strata), strata, permutations, seed)


def overall_permutation_p(
    x: Array, y: Array, strata: Array, permutations: int = PERMUTATIONS, seed: int = 0
) -> float | None:
    """The same for |spearman| over all samples: is it more than what the strata alone would give?"""
    if not _centred_ranks(y, strata).any():
        return None
    everything = np.zeros(len(x), dtype=int)
    return _permutation_p(_centred_ranks(x, everything), _centred_ranks(y, everything), strata, permutations, seed)


def rising_p(y: Array) -> float:
    """How many orders of y [N] rise with the place as much as it does, by Spearman, itself among them: one-sided.

    Exact, over all N! orders, for up to 8 numbers; for more (1 + k) / (1 + PERMUTATIONS) of random ones.
    """
    places = _centred_ranks(np.arange(len(y)), np.zeros(len(y)))
    x = _centred_ranks(y, np.zeros(len(y)))
    tie = _TIE * max(float(places @ places), 1.0)
    if len(y) <= _ALL_ORDERS:
        orders = np.array(list(itertools.permutations(range(len(y)))))
        return float((x[orders] @ places >= x @ places - tie).mean())
    shuffled = np.random.default_rng(0).permuted(np.tile(x, (PERMUTATIONS, 1)), axis=1)
    return float(1 + (shuffled @ places >= x @ places - tie).sum()) / (1 + PERMUTATIONS)


def _permutation_p(x: Array, y: Array, strata: Array, permutations: int, seed: int) -> float:
    _, place = np.unique(strata, return_inverse=True)
    order = np.argsort(place, kind="stable")
    x, y, place = x[order], y[order], place[order]
    random = np.random.default_rng(seed)
    products = np.empty(permutations)
    for first in range(0, permutations, _AT_ONCE):
        last = min(first + _AT_ONCE, permutations)
        # Sorted by stratum, and at random within it.
        shuffled = y[np.argsort(place + random.random((last - first, len(y))), axis=1)]
        products[first:last] = shuffled @ x
    tie = _TIE * math.sqrt(float(x @ x) * float(y @ y))
    reached = int((np.abs(products) >= abs(float(x @ y)) - tie).sum())
    return (1 + reached) / (1 + permutations)


def _within(x: Array, y: Array, strata: Array) -> tuple[Array, Array]:
    """Ranks centred in each stratum, all 0 in those where x or y is constant."""
    x, y = _centred_ranks(x, strata), _centred_ranks(y, strata)
    for stratum in np.unique(strata):
        places = strata == stratum
        if not (x[places].any() and y[places].any()):
            x[places] = y[places] = 0
    return x, y


def _centred_ranks(x: Array, strata: Array) -> Array:
    return _centred(x, strata, ranks)


def _centred(x: Array, strata: Array, of: Callable[[Array], Array] = np.asarray) -> Array:
    """`of` each stratum's values, less their mean."""
    centred = np.zeros(len(x))
    for stratum in np.unique(strata):
        places = strata == stratum
        within = of(np.asarray(x)[places])
        centred[places] = within - within.mean()
    return centred


def _correlation(x: Array, y: Array) -> float:
    """Pearson's, of centred numbers; 0 where either is constant."""
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else 0.0


def one_of_each(groups: Array, seed: int = 0) -> Array:
    """The place of one sample of each group, drawn at random: samples that are independent of one another."""
    order = np.random.default_rng(seed).permutation(len(groups))
    _, first = np.unique(np.asarray(groups)[order], return_index=True)
    return np.sort(order[first])


def holm(p: Sequence[float]) -> list[float]:
    """p-values after Holm's correction (1979), in the given order: the chance of any false one stays as named."""
    order = np.argsort(p, kind="stable")
    corrected = [0.0] * len(p)
    highest = 0.0
    for done, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - done) * p[place]))
        corrected[place] = highest
    return corrected


def bootstrap_interval(
    x: Array, statistic: Callable[..., Array] = np.mean, draws: int = BOOTSTRAPS
) -> tuple[float, float]:
    """95 % percentile interval (Efron 1979) of a statistic of independent numbers x [N], one a sequence or a seed.

    statistic: as numpy's own, with `axis`.
    """
    x = np.asarray(x)
    drawn = x[np.random.default_rng(0).integers(len(x), size=(draws, len(x)))]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(statistic(drawn, axis=1), [tail, 100 - tail])
    return float(low), float(high)


def median_interval(x: Sequence[float] | Array) -> tuple[float, float] | None:
    """95 % interval of the median of independent numbers, one a seed or a model, as a verdict has it. None for one."""
    return bootstrap_interval(np.asarray(x), np.median) if len(x) > 1 else None


def mean_interval(x: Sequence[float] | Array) -> tuple[float, float] | None:
    """95 % interval of the mean of a few independent numbers, one a seed: Student's t (1908). None for fewer than two.

    A bootstrap of five numbers covers the mean in 80 % of cases only, since it knows too little of their spread.
    """
    if len(x) < 2:
        return None
    x = np.asarray(x, dtype=float)
    times = _T_QUANTILES[min(len(x) - 2, len(_T_QUANTILES) - 1)]
    mean, reach = float(x.mean()), times * float(x.std(ddof=1)) / math.sqrt(len(x))
    return mean - reach, mean + reach


def median_of(x: Sequence[float] | Array) -> tuple[float | None, tuple[float, float] | None]:
    """The median of independent numbers, one a seed or a model, with its interval; None where there are none."""
    return (float(np.median(x)) if len(x) else None), median_interval(x)


def mean_of(x: Sequence[float] | Array) -> tuple[float, tuple[float, float] | None]:
    """The mean of a few independent numbers, one a seed, with its interval."""
    return float(np.mean(x)), mean_interval(x)


def participation_ratio(x: Array) -> float:
    """How many directions carry the variance of samples x [N, C]: d where all d are alike, 1 where one has it all.

    (tr C)^2 / |C|_F^2 of their covariance C, which is (sum v)^2 / sum v^2 of its eigenvalues. The Gram matrix of the
    smaller side has the same eigenvalues but for zeros, so neither an eigenvector nor a limit of the width is needed.
    """
    centred = x.astype(float) - x.mean(0, dtype=float)
    gram = centred.T @ centred if len(x) >= x.shape[1] else centred @ centred.T
    squares = float((gram**2).sum())
    return float(np.trace(gram)) ** 2 / squares if squares > 0 else 0.0


def random_cosine(dimensions: int) -> float:
    """Mean |cos| of two independent Gaussian vectors, sqrt(2 / (pi d)); the exact one is larger by about 1 / (4 d)."""
    return math.sqrt(2 / (math.pi * dimensions))


# Held-out regression -----------------------------------------------------------------------------------------------


def r2_beyond_strata(x: Array, y: Array, strata: Array, groups: Array, seed: int = 0) -> tuple[float, float]:
    """Held-out R² of y [N] from its stratum alone, and from stratum and x [N, C]: the difference is what x adds.

    Strata are combinations of what could explain y without the model (position, length, examples). Their means over
    the fitted groups are the most that such a label can say; a ridge regression gets what is left of y and of x.
    Five folds of whole groups; the penalty is that of the smallest leave-one-out error within the fitted part.
    Negative where it predicts worse than the mean of the fitted part; 0 where y is constant.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    error = np.zeros(3)  # of the mean, of the strata, of strata and x
    for held_names in np.array_split(names, min(_FOLDS, len(names))):
        held = np.isin(groups, held_names)
        fitted = ~held
        if not fitted.any() or not held.any():
            continue
        columns = np.column_stack([y, x])
        base = _stratum_means(columns[fitted], strata[fitted], strata)
        left = columns - base
        _, stratum, counts = np.unique(strata[fitted], return_inverse=True, return_counts=True)
        predicted = base[held, 0] + _ridge(left[fitted, 1:], left[fitted, 0], left[held, 1:], 1 / counts[stratum])
        guesses = np.full(held.sum(), y[fitted].mean()), base[held, 0], predicted
        error += [float(((y[held] - guess) ** 2).sum()) for guess in guesses]
    if error[0] <= 0:
        return 0.0, 0.0
    return float(1 - error[1] / error[0]), float(1 - error[2] / error[0])


def _stratum_means(fitted: Array, fitted_strata: Array, strata: Array) -> Array:
    """The mean row of each sample's stratum; of all rows for a stratum that was not fitted."""
    means = np.tile(fitted.mean(0), (len(strata), 1))
    for stratum in np.unique(fitted_strata):
        means[strata == stratum] = fitted[fitted_strata == stratum].mean(0)
    return means


def _ridge(x: Array, y: Array, new: Array, own: Array) -> Array:
    """Predictions for `new` by ridge on standardised columns, its penalty by leave-one-out errors in closed form.

    own: a row's share in the mean that was taken from it; part of its leverage, without which as many columns as rows
    would seem to predict without error.
    """
    mean, scale = x.mean(0), x.std(0)
    scale[scale < _TIE] = np.inf  # a constant column says nothing
    u, s, vt = np.linalg.svd((x - mean) / scale, full_matrices=False)
    centre = y.mean()
    along = u.T @ (y - centre)
    best, weights = math.inf, np.zeros(x.shape[1])
    for penalty in _PENALTIES * len(x):
        shrunk = s**2 / (s**2 + penalty)
        leverage = (u**2 @ shrunk) + own
        loo = (y - centre - u @ (shrunk * along)) / np.maximum(1 - leverage, _TIE)
        if (score := float((loo**2).mean())) < best:
            best, weights = score, vt.T @ (s / (s**2 + penalty) * along)
    return centre + ((new - mean) / scale) @ weights
