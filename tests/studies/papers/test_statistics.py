"""The statistics against brute force, hand-worked cases and known answers."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from llmlab.studies.papers.statistics import (
    bootstrap_interval,
    holm,
    mean_interval,
    one_of_each,
    overall_permutation_p,
    participation_ratio,
    r2_beyond_strata,
    random_cosine,
    ranks,
    rising_p,
    spearman,
    stratified_permutation_p,
    stratified_spearman,
)

NOTHING = np.zeros(6, dtype=int)


def test_ranks_share_the_mean_of_ties() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]


def test_spearman_is_one_for_any_rising_curve_and_by_hand_otherwise() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert spearman(x, np.exp(x)) == pytest.approx(1)
    assert spearman(x, -(x**3)) == pytest.approx(-1)
    # d = (0, -1, 1, -1, 1): 1 - 6 * 4 / (5 * 24)
    assert spearman(x, np.array([10.0, 30.0, 20.0, 50.0, 40.0])) == pytest.approx(0.8)
    assert spearman(x, np.ones(5)) == 0


def test_within_strata_only_what_the_stratum_does_not_explain_counts() -> None:
    strata = np.repeat(np.arange(20), 10)
    random = np.random.default_rng(0)
    x, y = strata + 0.1 * random.random(200), strata + 0.1 * random.random(200)
    assert spearman(x, y) > 0.98
    assert abs(stratified_spearman(x, y, strata)) < 0.2
    assert stratified_spearman(x, strata.astype(float), strata) == 0


def test_a_stratum_in_which_nothing_varies_takes_nothing_away() -> None:
    x, y, strata = np.arange(6.0), np.array([0.0, 1, 2, 7, 7, 7]), np.array([0, 0, 0, 1, 1, 1])
    assert stratified_spearman(x, y, strata) == pytest.approx(1)


def test_the_permutation_p_is_that_of_all_permutations() -> None:
    x, y = np.arange(6.0), np.array([0.0, 2.0, 1.0, 4.0, 3.0, 5.0])
    observed = abs(spearman(x, y))
    exact = np.mean([abs(spearman(x, y[list(order)])) >= observed - 1e-9 for order in permutations(range(6))])
    assert stratified_permutation_p(x, y, NOTHING, permutations=5000) == pytest.approx(exact, abs=0.008)


def test_the_permutation_p_is_uniform_where_there_is_nothing_and_least_where_there_is_much() -> None:
    random = np.random.default_rng(1)
    strata = np.repeat([0, 1, 2], 20)
    none = [stratified_permutation_p(random.random(60), random.random(60), strata, 99, seed) for seed in range(200)]
    assert np.mean(np.array(none, dtype=float) <= 0.05) == pytest.approx(0.05, abs=0.04)
    x = random.random(60)
    assert stratified_permutation_p(x, x + 0.1 * random.random(60), strata, 99) == 0.01


def test_position_alone_has_nothing_to_shuffle() -> None:
    strata = np.repeat([0, 1, 2], 2)
    assert stratified_permutation_p(np.arange(6.0), strata * 1.0, strata) is None


def test_one_of_each_group_is_taken() -> None:
    groups = np.array([2, 0, 0, 1, 2, 2])
    assert sorted(groups[one_of_each(groups)].tolist()) == [0, 1, 2]
    assert {tuple(one_of_each(groups, seed)) for seed in range(30)} != {tuple(one_of_each(groups, 0))}


def test_holm_by_hand() -> None:
    # Sorted .01 .03 .04: 3 * .01, 2 * .03, and .04 may not fall below .06.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    x = np.random.default_rng(2).normal(5, 2, 400)
    low, high = bootstrap_interval(x)
    assert (high - low) / 2 == pytest.approx(1.96 * x.std() / 20, rel=0.1)
    assert low < x.mean() < high


def test_participation_ratio_counts_directions() -> None:
    axes = np.concatenate([np.eye(7), -np.eye(7)])
    assert participation_ratio(axes) == pytest.approx(7)
    assert participation_ratio(axes[[0, 7]]) == pytest.approx(1)
    assert participation_ratio(np.ones((5, 3))) == 0


@pytest.mark.parametrize(("dimensions", "floor"), [(32, 0.141), (64, 0.0997), (896, 0.0267)])
def test_gaussian_vectors_have_the_cosine_of_the_floor(dimensions: int, floor: float) -> None:
    assert random_cosine(dimensions) == pytest.approx(floor, rel=0.003)
    x = np.random.default_rng(4).normal(size=(300, dimensions))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosines = np.abs(x @ x.T)[np.triu_indices(300, 1)]
    assert cosines.mean() == pytest.approx(floor, rel=0.02)


def heldout_r2(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    """Without strata."""
    return r2_beyond_strata(x, y, np.zeros(len(y), dtype=int), groups)[1]


def test_ridge_finds_a_planted_line_and_nothing_in_noise() -> None:
    random = np.random.default_rng(5)
    x = random.normal(size=(600, 30))
    y = x[:, 3] - 2 * x[:, 7] + random.normal(size=600)  # 5 of 6 parts of its variance
    groups = np.arange(600) // 6
    assert heldout_r2(x, y, groups) == pytest.approx(5 / 6, abs=0.04)
    assert heldout_r2(random.normal(size=(600, 30)), y, groups) < 0.02


def test_a_group_is_never_fitted_and_predicted() -> None:
    random = np.random.default_rng(6)
    groups = np.repeat(np.arange(60), 10)
    x = random.normal(size=(60, 40))[groups] + 0.01 * random.normal(size=(600, 40))  # a fingerprint of each group
    y = random.normal(size=60)[groups]  # which tells nothing about another group
    assert heldout_r2(x, y, groups) < 0.1


def test_what_position_explains_is_no_gain() -> None:
    random = np.random.default_rng(7)
    position = np.tile(np.arange(10), 80)
    groups = np.repeat(np.arange(80), 10)
    x = np.eye(10)[position] @ random.normal(size=(10, 24)) + 0.1 * random.normal(size=(800, 24))
    y = np.log2(20.0 - position)
    assert heldout_r2(x, y, groups) > 0.95
    alone, together = r2_beyond_strata(x, y, position, groups)
    assert alone == pytest.approx(1)
    assert together == pytest.approx(alone, abs=1e-6)
    extra = random.normal(size=800)
    alone, together = r2_beyond_strata(np.column_stack([x, extra]), y + extra, position, groups)
    assert together > 0.99
    assert together - alone > 0.5


def test_a_rise_is_compared_with_all_orders() -> None:
    for y in ([0.1, 0.2, 0.3, 0.5], [0.3, 0.1, 0.2, 0.9], [1.0, 1.0, 0.5, 2.0], [4.0, 3.0, 2.0, 1.0]):
        found = [spearman(np.arange(4), np.array(order)) for order in permutations(y)]
        expected = np.mean([one >= spearman(np.arange(4), np.array(y)) - 1e-9 for one in found])
        assert rising_p(np.array(y)) == pytest.approx(expected)
    assert rising_p(np.arange(6)) == pytest.approx(1 / 720)
    assert rising_p(np.ones(5)) == 1
    assert rising_p(np.arange(20)) == 1 / 1001
    assert rising_p(-np.arange(20)) == 1


def test_p_of_unrelated_numbers_is_uniform_and_that_of_a_constant_is_one() -> None:
    random, strata = np.random.default_rng(0), np.repeat(np.arange(4), 10)
    y = random.normal(size=40)
    for test in (stratified_permutation_p, overall_permutation_p):
        # Both depend on the stratum, and on nothing else that they share.
        p = np.array(
            [
                test(strata + random.normal(size=40), strata + random.normal(size=40), strata, 99, seed)
                for seed in range(300)
            ]
        )
        for level in (0.05, 0.2, 0.5, 0.8):
            spread = np.sqrt(level * (1 - level) / len(p))
            assert abs((p <= level).mean() - level) < 4 * spread
        assert test(np.full(40, 3.0), y, strata, 99) == 1  # the place alone, say: nothing is left within it
    assert stratified_permutation_p(strata * 1.0, y, strata, 99) == 1


def test_the_interval_of_a_mean_of_five_seeds_covers_it_in_95_of_100_cases() -> None:
    random = np.random.default_rng(3)
    covered = [low <= 0.0 <= high for low, high in map(mean_interval, random.normal(size=(4000, 5)))]
    assert abs(np.mean(covered) - 0.95) < 0.012  # 3.5 standard errors of 4000 draws
    low, high = mean_interval(np.array([1.0, 2.0, 3.0]))
    assert (low, high) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
