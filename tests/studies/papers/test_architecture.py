"""Models without attention are held against the transformer of their task and seed; the verdict turns at its bounds."""

from __future__ import annotations

import pytest

from llmlab.core.task_settings import BIJECTION, HMM, LSTM, MLP_POSITION, MLP_PREFIX, TRANSFORMER
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.synthetic.metrics import Calibration
from llmlab.studies.papers.bayesian_geometry.calibration import (
    Calibrated,
    architecture_verdict,
    compared,
    judge_architecture,
)

# Filters of the HMM that see the last two and three observations are off by so much.
FLOORS = {"uniform": 0.8, "last 2": 0.054, "last 3": 0.0168}


def run(kind: str, error: float, task: str = BIJECTION, seed: int = 1, kl: float = 0.02) -> Calibrated:
    return Calibrated(
        task,
        kind,
        seed,
        Calibration(error, kl, error / 2, 100, [1], [error], [kl], [1.0], [1.0], [100]),
        {name: Calibration(value, value, value, 100) for name, value in FLOORS.items()},
    )


@pytest.mark.parametrize(
    ("transformer", "rival", "outcome"),
    [
        (0.02, 0.2, SUPPORTED),
        (0.02, 0.1999, INCONCLUSIVE),
        (0.02, 0.0401, INCONCLUSIVE),
        (0.02, 0.04, NOT_SUPPORTED),
        (0.02, 0.01, NOT_SUPPORTED),
        (0.1, 1.0, SUPPORTED),
        (0.1001, 1.1, INCONCLUSIVE),  # the transformer has not learned it either
    ],
)
def test_a_rival_is_tenfold_worse_or_as_good(transformer: float, rival: float, outcome: str) -> None:
    assert judge_architecture([run(TRANSFORMER, transformer)], [run(MLP_PREFIX, rival)]) == outcome


def test_a_rival_that_is_calibrated_refutes_however_much_better_the_transformer_is() -> None:
    assert judge_architecture([run(TRANSFORMER, 0.0005)], [run(MLP_PREFIX, 0.009, kl=0.009)]) == NOT_SUPPORTED
    assert judge_architecture([run(TRANSFORMER, 0.0005)], [run(MLP_PREFIX, 0.009, kl=0.011)]) == SUPPORTED
    hmm = [run(TRANSFORMER, 0.0005, HMM)]
    assert judge_architecture(hmm, [run(LSTM, 0.0167, HMM)]) == NOT_SUPPORTED
    failing = run(MLP_PREFIX, 0.35, HMM)
    assert judge_architecture(hmm, [run(LSTM, 0.0169, HMM), failing]) == SUPPORTED
    assert judge_architecture(hmm, [run(LSTM, 0.0169, HMM)]) == INCONCLUSIVE  # the other's run failed


def test_one_rival_in_one_task_is_enough_to_refute() -> None:
    transformer = [run(TRANSFORMER, 0.02), run(TRANSFORMER, 0.03, HMM)]
    failing = [run(MLP_PREFIX, 0.4), run(LSTM, 0.4, HMM)]
    assert judge_architecture(transformer, [*failing, run(MLP_PREFIX, 0.35, HMM)]) == SUPPORTED
    assert judge_architecture(transformer, [*failing, run(MLP_PREFIX, 0.06, HMM)]) == NOT_SUPPORTED
    assert judge_architecture(transformer, []) == INCONCLUSIVE


def test_the_lstm_in_the_bijection_and_the_mlp_without_context_are_shown_and_not_judged() -> None:
    found = [
        one
        for seed in range(1, 5)
        for one in (
            run(TRANSFORMER, 0.02, seed=seed),
            run(MLP_PREFIX, 0.5, seed=seed),
            run(LSTM, 0.02, seed=seed),
            run(MLP_POSITION, 0.8, seed=seed),
        )
    ]
    verdict = architecture_verdict(found)
    assert (verdict.verdict, verdict.seeds, verdict.statistic.value) == (SUPPORTED, [1, 2, 3, 4], pytest.approx(25))
    assert verdict.papers_criterion.passes is None  # they name no bound
    assert "off by 0.8000 bits here, 40 times" in verdict.papers_criterion.words
    assert "LSTM 0.0200" in verdict.reason
    assert "nothing is said of recurrent networks" in verdict.reason
    (chart,) = verdict.charts
    assert chart.categories == ["transformer", "LSTM", "MLP that sees one token", "MLP on the prefix"]
    assert chart.series[0].y == [0.02, 0.02, 0.8, 0.5]
    assert sorted(chart.series[1].x) == [float(place) for place in range(4) for _ in range(4)]
    assert architecture_verdict([one for one in found if one.seed < 4]).verdict == INCONCLUSIVE
    as_good = [run(MLP_PREFIX, 0.02, seed=one.seed) if one.kind == MLP_PREFIX else one for one in found]
    assert architecture_verdict(as_good).verdict == NOT_SUPPORTED


def test_a_seed_is_compared_where_both_learned_the_same_task() -> None:
    found = [run(TRANSFORMER, 0.02), run(MLP_PREFIX, 0.5, seed=2), run(MLP_PREFIX, 0.5, HMM), run(LSTM, 0.3)]
    assert compared(found) == []
    assert compared([*found, run(TRANSFORMER, 0.02, seed=2)]) == [2]
