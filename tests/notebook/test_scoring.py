"""Scores: cases computed by hand, and what makes them proper."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llmlab.notebook.predictions import parse_prediction
from llmlab.notebook.scoring import NotBefore, Score, brier, same_choice, score, tail_surprise


def scored(line: str, outcome: object, options: int = 0) -> Score:
    found = score(parse_prediction(line), outcome, options)
    assert found is not None
    return found


# Range 1.9 to 2.2: middle 2.05, half width 0.15. With 80 %, log2(1 / 0.2) = 2.321928 bits a half width; the interval
# score is 0.3 plus 10 for each unit outside.
@pytest.mark.parametrize(
    ("outcome", "right", "distance", "brier_score", "interval", "surprise"),
    [
        (2.05, True, 0.0, 0.04, 0.3, 0.0),
        (2.125, True, 0.5, 0.04, 0.3, 1.160964),
        (2.2, True, 1.0, 0.04, 0.3, 2.321928),
        (1.9, True, 1.0, 0.04, 0.3, 2.321928),
        (2.35, False, 2.0, 0.64, 1.8, 4.643856),
        (1.75, False, 2.0, 0.64, 1.8, 4.643856),
        (2.509, False, 3.06, 0.64, 3.39, 7.105100),
    ],
)
def test_a_range_is_scored_as_by_hand(
    outcome: float, right: bool, distance: float, brier_score: float, interval: float, surprise: float
) -> None:
    found = scored("val_loss=1.9..2.2@80%", outcome)
    assert found.right is right
    assert found.distance == pytest.approx(distance)
    assert found.error == pytest.approx(abs(outcome - 2.05))
    assert found.brier == pytest.approx(brier_score)
    assert found.interval == pytest.approx(interval)
    assert found.surprise == pytest.approx(surprise, abs=1e-6)


def test_distances_of_what_is_spread_over_magnitudes_are_between_logarithms() -> None:
    # 1e-4 to 1e-2: the middle is 1e-3, half a width one decade.
    found = scored("best_lr=1e-4..1e-2@90%", "1e-1")
    assert found.distance == pytest.approx(2.0)
    assert found.surprise == pytest.approx(2 * math.log2(10))
    assert scored("best_lr=1e-4..1e-2@90%", 1e-3).surprise == pytest.approx(0.0)
    assert scored("tokens_per_second=1000..4000@50%", 8000.0).distance == pytest.approx(2.0)  # middle 2000, factor 2


def test_a_number_alone_is_only_measured() -> None:
    assert scored("val_loss=2.0", 2.3) == Score(2.3, error=pytest.approx(0.3))


def test_a_range_without_a_confidence_has_no_probability() -> None:
    found = scored("val_loss=1.9..2.2", 2.35)
    assert (found.right, found.distance) == (False, pytest.approx(2.0))
    assert (found.brier, found.interval, found.surprise) == (None, None, None)


def test_a_choice_is_scored_as_by_hand() -> None:
    right = scored("best_lr=1e-3@60%", "0.001", 5)
    assert (right.right, right.brier) == (True, pytest.approx(0.16))
    assert right.surprise == pytest.approx(0.736966)  # log2(1 / 0.6)
    wrong = scored("best_lr=1e-3@60%", 0.003, 5)
    assert (wrong.right, wrong.brier) == (False, pytest.approx(0.36))
    assert wrong.surprise == pytest.approx(3.321928)  # 0.4 over four others: log2(1 / 0.1)
    assert scored("best_lr=1e-3@60%", 0.003).surprise == pytest.approx(1.321928)  # over one, where none are known
    assert scored("overfits=yes@75%", "no", 2).surprise == pytest.approx(2.0)


def test_the_probabilities_of_all_answers_to_a_choice_add_up_to_one() -> None:
    answers = ["1e-4", "1e-3", "1e-2", "1e-1"]
    bits = [scored("best_lr=1e-3@70%", answer, len(answers)).surprise or 0.0 for answer in answers]
    assert sum(2.0**-surprise for surprise in bits) == pytest.approx(1.0)


def test_a_sentence_is_judged() -> None:
    assert scored("text=It overfits@75%", "right").brier == pytest.approx(0.0625)
    assert scored("text=It overfits@75%", "wrong").surprise == pytest.approx(2.0)


def test_a_curve_is_compared_where_it_was_drawn() -> None:
    # Straight from 4 at step 0 to 2 at step 100: expected 3.5 at 25, 3 at 50. Step 200 lies beyond.
    line = "loss_curve=0:4,100:2+-0.25@70%"
    found = scored(line, [[25, 3.4], [50, 3.3], [200, 9.0]])
    assert found.error == pytest.approx(0.2)  # (0.1 + 0.3) / 2
    assert (found.right, found.distance) == (True, pytest.approx(0.8))
    assert found.surprise == pytest.approx(0.8 * math.log2(1 / 0.3))
    assert scored(line, [[25, 4.5]]).right is False
    assert score(parse_prediction(line), [[200, 9.0]]) is None
    bare = scored("loss_curve=0:4,100:2", [[25, 3.4], [50, 3.3]])
    assert (bare.error, bare.right, bare.surprise) == (pytest.approx(0.2), None, None)


def test_measurements_count_by_the_steps_around_them_and_evenly_spaced_ones_alike() -> None:
    line = "loss_curve=0:4,400:4"
    evenly = scored(line, [[0, 4.4], [100, 3.8], [200, 4.0], [300, 4.1]])
    assert evenly.error == pytest.approx((0.4 + 0.2 + 0.0 + 0.1) / 4)
    # 10 steps off by 1, 15 by 2, 45 by 3, 85 by 4, 150 by 5, 200 by 0: early ones close together weigh little.
    early = scored(line, [[0, 5], [10, 6], [30, 7], [100, 8], [200, 9], [400, 4]])
    assert early.error == pytest.approx((10 + 2 * 15 + 3 * 45 + 4 * 85 + 5 * 150) / 505)


def test_what_did_not_come_in_time_refutes_only_what_was_to_come_by_then() -> None:
    never = scored("steps_to_2.5=100..200@80%", NotBefore(300.0))
    assert (never.outcome, never.right, never.brier) == ("not within 300 steps", False, pytest.approx(0.64))
    assert never.surprise == scored("steps_to_2.5=100..200@80%", 300.0).surprise  # at least so much
    assert scored("steps_to_2.5=100..300@80%", NotBefore(300.0)).right is False  # it was not there at the last step
    assert score(parse_prediction("steps_to_2.5=100..400@80%"), NotBefore(300.0)) is None


@pytest.mark.parametrize("outcome", [None, math.nan, math.inf, "", "no number"])
def test_an_outcome_that_is_none_has_no_score(outcome: object) -> None:
    assert score(parse_prediction("val_loss=1..2@80%"), outcome) is None


def test_stating_what_one_believes_costs_least() -> None:
    stated = np.linspace(0.01, 0.99, 99)
    for truth in (0.1, 0.5, 0.83):
        expected = [truth * brier(c, True) + (1 - truth) * brier(c, False) for c in stated]
        assert stated[int(np.argmin(expected))] == pytest.approx(truth)


def test_the_range_that_holds_its_share_has_the_best_interval_score() -> None:
    outcomes = np.random.default_rng(0).normal(2.0, 0.1, 4000)
    halves = np.linspace(0.02, 0.4, 39)
    means = []
    for half in halves:
        scores = [scored(f"gap={2 - half}..{2 + half}@80%", float(x)).interval or 0.0 for x in outcomes[:400]]
        means.append(np.mean(scores))
    assert halves[int(np.argmin(means))] == pytest.approx(0.128, abs=0.02)  # 1.2816 sigma hold 80 %


def test_surprise_is_the_probability_of_a_tail() -> None:
    # Laplace's distribution with scale h / ln(1 / (1 - c)) puts c into the range, and 2^-surprise beyond a distance.
    confidence, half = 0.8, 0.15
    scale = half / math.log(1 / (1 - confidence))
    samples = np.random.default_rng(1).laplace(0.0, scale, 200_000)
    assert np.mean(np.abs(samples) <= half) == pytest.approx(confidence, abs=0.005)
    for distance in (0.5, 1.0, 2.0):
        beyond = np.mean(np.abs(samples) >= distance * half)
        assert 2.0 ** -tail_surprise(confidence, distance) == pytest.approx(beyond, abs=0.005)


def test_numbers_are_the_same_however_they_are_written() -> None:
    assert same_choice("1e-3", "0.001")
    assert same_choice(" Yes", "yes")
    assert not same_choice("1e-3", "3e-3")
    assert not same_choice("lora", "full")
