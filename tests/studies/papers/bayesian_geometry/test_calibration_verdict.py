"""The verdict on calibration turns exactly at its thresholds, and only when enough seeds agree."""

from __future__ import annotations

import pytest

from llmlab.core.task_settings import BIJECTION, HMM, TRANSFORMER
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.synthetic.metrics import Calibration
from llmlab.studies.papers.agreement import by_seeds, seeds_sentence
from llmlab.studies.papers.bayesian_geometry.calibration import Calibrated, calibration_verdict, judge_calibration

# Measured on the HMM of 5 states over 20 observations: filters of the last 1 to 4.
FLOORS = {f"last {w}": Calibration(error, 0, 0, 1) for w, error in ((1, 0.162), (2, 0.0485), (3, 0.0151), (4, 0.005))}


def bijection(error: float, kl: float = 0.0, papers: float = 0.0, seed: int = 1) -> Calibrated:
    return Calibrated(BIJECTION, TRANSFORMER, seed, Calibration(error, kl, papers, 100), {})


def hmm(error: float, seed: int = 1) -> Calibrated:
    return Calibrated(HMM, TRANSFORMER, seed, Calibration(error, 0.0, error / 2, 100), FLOORS)


@pytest.mark.parametrize(
    ("error", "kl", "outcome"),
    [
        (0.01, 0.01, SUPPORTED),
        (0.0101, 0.001, INCONCLUSIVE),
        (0.001, 0.0101, INCONCLUSIVE),
        (0.1, 0.001, INCONCLUSIVE),
        (0.1001, 0.001, NOT_SUPPORTED),
    ],
)
def test_a_bijection_turns_at_its_bounds(error: float, kl: float, outcome: str) -> None:
    assert judge_calibration(bijection(error, kl)) == outcome


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (0.0150, SUPPORTED),
        (0.0151, INCONCLUSIVE),
        (0.0485, INCONCLUSIVE),
        (0.0486, NOT_SUPPORTED),
        (0.2, NOT_SUPPORTED),
    ],
)
def test_an_hmm_turns_at_the_filters_of_three_and_two(error: float, outcome: str) -> None:
    assert judge_calibration(hmm(error)) == outcome


def test_above_a_tenth_of_a_bit_no_filter_helps() -> None:
    poor = Calibrated(HMM, TRANSFORMER, 1, Calibration(0.11, 0, 0, 1), FLOORS | {"last 2": Calibration(0.15, 0, 0, 1)})
    assert judge_calibration(poor) == NOT_SUPPORTED


@pytest.mark.parametrize(
    ("outcomes", "word"),
    [
        ([SUPPORTED] * 4 + [NOT_SUPPORTED], SUPPORTED),
        ([SUPPORTED] * 3 + [INCONCLUSIVE] * 2, INCONCLUSIVE),
        ([SUPPORTED] * 3, INCONCLUSIVE),
        ([NOT_SUPPORTED] * 4 + [INCONCLUSIVE], NOT_SUPPORTED),
        ([SUPPORTED] * 4 + [NOT_SUPPORTED] * 2, INCONCLUSIVE),
        ([], INCONCLUSIVE),
    ],
)
def test_four_seeds_and_four_in_five_must_agree(outcomes: list[str], word: str) -> None:
    assert by_seeds(outcomes) == word


def test_seeds_are_counted_in_words_that_fit_their_number() -> None:
    assert seeds_sentence([SUPPORTED]).startswith("Of 1 seed: 1 supported; a verdict needs 4. Too few seeds")
    assert (
        seeds_sentence([SUPPORTED] * 5 + [NOT_SUPPORTED])
        == "Of 6 seeds: 5 supported, 1 not supported; a verdict needs 5."
    )


def test_both_tasks_support_and_either_refutes() -> None:
    seeds = range(5)
    good, bad = ([bijection(error, seed=seed) for seed in seeds] for error in (0.005, 0.3))
    filtered = [hmm(0.01, seed) for seed in seeds]
    assert calibration_verdict([*good, *filtered]).verdict == SUPPORTED
    assert calibration_verdict([*good, *(hmm(0.06, seed) for seed in seeds)]).verdict == NOT_SUPPORTED
    assert calibration_verdict(bad).verdict == NOT_SUPPORTED
    alone = calibration_verdict(good)
    assert alone.verdict == INCONCLUSIVE
    assert "support needs both" in alone.reason


def test_the_papers_own_mark_can_pass_where_ours_does_not() -> None:
    found = calibration_verdict([bijection(0.2, papers=0.002, seed=seed) for seed in range(5)])
    assert found.verdict == NOT_SUPPORTED
    assert found.papers_criterion.passes is True
    assert "0.0020" in found.papers_criterion.words


def test_the_numbers_of_a_verdict_are_those_of_its_runs() -> None:
    found = calibration_verdict([bijection(0.02), bijection(0.04, seed=2), hmm(0.01, seed=2)])
    assert (found.statistic.value, found.n, found.seeds) == (pytest.approx(0.03), 300, [1, 2])
    assert found.interval is not None
    assert found.interval == pytest.approx([0.03 - 12.706 * 0.01, 0.03 + 12.706 * 0.01])
