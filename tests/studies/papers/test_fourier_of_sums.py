"""Frequencies that were planted in an embedding or in logits are found; random numbers have none."""

from __future__ import annotations

import numpy as np
import pytest

from llmlab.studies.papers.grokking.fourier import excluded, key_frequencies, power_shares, restricted, sum_waves

P = 23


def circles(frequencies: list[int], p: int = P, width: int = 12) -> np.ndarray:
    """An embedding whose numbers lie on a circle for each frequency, in a plane of its own."""
    angles = 2 * np.pi * np.outer(np.arange(p), frequencies) / p
    planes = np.linalg.qr(np.random.default_rng(0).normal(size=(width, width)))[0][: 2 * len(frequencies)]
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) @ planes


def clock(frequencies: list[int], p: int = P) -> np.ndarray:
    """Logits sum over k of cos(2 pi k (a + b - c) / p): the algorithm that Nanda et al. found."""
    a, b, c = np.indices((p, p, p))
    return sum(np.cos(2 * np.pi * k * (a + b - c) / p) for k in frequencies)


def right(logits: np.ndarray) -> float:
    a, b = np.indices(logits.shape[:2])
    return float((logits.argmax(-1) == (a + b) % len(logits)).mean())


def test_planted_circles_have_all_of_the_power_and_are_the_key_frequencies() -> None:
    shares = power_shares(circles([3, 7]) + 5.0)
    np.testing.assert_allclose(shares[[2, 6]], 0.5)
    np.testing.assert_allclose(np.delete(shares, [2, 6]), 0, atol=1e-12)
    assert sorted(key_frequencies(shares, 0.9)) == [3, 7]


def test_random_numbers_spread_over_nearly_all_frequencies() -> None:
    shares = power_shares(np.random.default_rng(1).normal(size=(P, 64)))
    assert shares.sum() == pytest.approx(1)
    assert shares.max() < 2.5 / len(shares)
    assert len(key_frequencies(shares, 0.9)) >= 8  # of 11


@pytest.mark.parametrize("p", [8, 9])
def test_power_is_that_of_the_projection_on_each_pair_of_waves(p: int) -> None:
    numbers = np.random.default_rng(2).normal(size=(p, 5))
    powers = []
    for k in range(1, p // 2 + 1):
        waves = [f(2 * np.pi * k * np.arange(p) / p) for f in (np.cos, np.sin)]
        powers.append(sum(((wave @ numbers) ** 2).sum() / (wave @ wave) for wave in waves if np.abs(wave).max() > 1e-9))
    np.testing.assert_allclose(power_shares(numbers), np.array(powers) / sum(powers))


def test_an_embedding_that_does_not_vary_has_no_frequency() -> None:
    assert not power_shares(np.ones((P, 4))).any()


def test_the_strongest_frequencies_come_first_and_no_more_than_are_needed() -> None:
    shares = np.array([0.1, 0.5, 0.0, 0.3, 0.1])
    assert key_frequencies(shares, 0.8) == [2, 4]
    assert key_frequencies(shares, 0.81) == [2, 4, 1]


def test_restricted_and_excluded_logits_are_the_whole_and_its_mean() -> None:
    logits = np.random.default_rng(3).normal(size=(P, P, P))
    both = restricted(logits, [2, 5]) + excluded(logits, [2, 5])
    np.testing.assert_allclose(both, logits + logits.mean((0, 1)), atol=1e-12)


def test_the_part_at_frequencies_is_the_least_squares_fit_of_their_waves() -> None:
    p = 7
    logits = np.random.default_rng(4).normal(size=(p, p, p))
    a, b = np.indices((p, p))
    angles = [2 * np.pi * k * (a + b).ravel() / p for k in (1, 3)]
    waves = np.stack([f(angle) for angle in angles for f in (np.cos, np.sin)], axis=1)
    fit = waves @ np.linalg.lstsq(waves, logits.reshape(p * p, p), rcond=None)[0]
    np.testing.assert_allclose(sum_waves(logits, [1, 3]).reshape(p * p, p), fit, atol=1e-12)


def test_a_clock_lives_on_its_frequencies_alone() -> None:
    noise = 0.01 * np.random.default_rng(5).normal(size=(P, P, P))
    logits = clock([2, 9]) + noise
    assert right(restricted(logits, [2, 9])) == 1
    assert right(excluded(logits, [2, 9])) < 0.2
    assert right(restricted(logits, [4, 5])) < 0.2


def test_what_is_memorised_is_left_when_waves_are_taken_out() -> None:
    table = np.zeros((P, P, P))
    a, b = np.indices((P, P))
    known = np.random.default_rng(6).random((P, P)) < 0.3
    table[a[known], b[known], ((a + b) % P)[known]] = 10
    left = excluded(table, [2, 9]).argmax(-1) == (a + b) % P
    assert left[known].all()
