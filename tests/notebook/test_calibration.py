"""Calibration: Wilson's intervals, bins, and what is said about them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlab.notebook.calibration import LEAST, WINDOW, Statement, calibration, wilson
from llmlab.notebook.scoring import brier


def statement(confidence: float, right: bool, time: float = 0.0) -> Statement:
    return Statement(time, confidence, right, brier(confidence, right), 1.0)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # 81 of 263: Newcombe 1998 (Statistics in Medicine 17:857-872), table I, 0.2553 to 0.3662; 15 of 148: 0.0624 to
    # 0.1605; 0 of 20: 0 to 0.1611; 1 of 29: 0.0061 to 0.1718.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_as_published(right: int, count: int, low: float, high: float) -> None:
    assert wilson(right, count) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(right=st.integers(0, 50), more=st.integers(0, 50))
def test_wilsons_ends_solve_its_equation(right: int, more: int) -> None:
    count = right + more
    low, high = wilson(right, count)
    assert 0 <= low <= high <= 1
    for end in (low, high):
        if count and 1e-6 < end < 1 - 1e-6:  # |share - p| = z sqrt(p (1 - p) / n), where p is an end
            distance = abs(right / count - end)
            assert distance == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / count), abs=1e-9)


def test_nothing_stated_is_said() -> None:
    empty = calibration([])
    assert (empty.count, empty.bins, empty.over_time) == (0, (), ())
    assert "No prediction" in empty.verdict
    assert wilson(0, 0) == (0.0, 1.0)


def test_every_statement_is_in_one_bin() -> None:
    given_ = [statement(percent / 100, percent % 3 == 0) for percent in range(1, 100)]
    found = calibration(given_)
    assert sum(each.count for each in found.bins) == found.count == 99
    assert sum(each.right for each in found.bins) == found.right == 33
    assert [each.confidence for each in found.bins] == sorted(each.confidence for each in found.bins)


def test_tens_of_per_cent_have_bins_of_their_own() -> None:
    found = calibration([statement(c, True) for c in (0.6, 0.7, 0.8, 0.9, 0.9)])
    assert [(each.confidence, each.count) for each in found.bins] == [
        (pytest.approx(0.6), 1),
        (pytest.approx(0.7), 1),
        (pytest.approx(0.8), 1),
        (pytest.approx(0.9), 2),
    ]


def test_the_verdict_needs_evidence() -> None:
    few = calibration([statement(0.8, place < 2) for place in range(3)])
    assert few.verdict.endswith(f" A verdict needs at least {LEAST}.")
    enough = calibration([statement(0.8, place < 8) for place in range(LEAST)])
    assert enough.verdict.endswith(f" That fits the {LEAST} statements so far.")
    sure = calibration([statement(0.9, place < 30) for place in range(60)])
    assert "Too sure" in sure.verdict
    modest = calibration([statement(0.6, place < 58) for place in range(60)])
    assert "Not sure enough" in modest.verdict
    assert "48 of 60" in calibration([statement(0.8, place < 48) for place in range(60)]).verdict


def test_over_time_the_newest_count() -> None:
    wrong_then_right = [statement(0.8, place >= WINDOW, time=float(place)) for place in range(2 * WINDOW)]
    found = calibration(list(reversed(wrong_then_right)))
    assert len(found.over_time) == 2 * WINDOW
    assert found.over_time[0].brier == pytest.approx(0.64)
    assert found.over_time[WINDOW - 1].frequency == 0.0
    assert found.over_time[-1].frequency == 1.0
    assert found.over_time[-1].brier == pytest.approx(0.04)
    assert [moment.time for moment in found.over_time] == sorted(moment.time for moment in found.over_time)
