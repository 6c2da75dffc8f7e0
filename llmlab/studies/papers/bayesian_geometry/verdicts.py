"""From errors to a verdict on calibration: pure functions of numbers, with all bounds in `thresholds`. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.synthetic.metrics import Calibration
from llmlab.studies.papers.agreement import by_seeds, seeds_sentence
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict
from llmlab.studies.papers.statistics import mean_interval


@dataclass(frozen=True)
class HmmRun:
    """A model's calibration on the HMM, and by name (`last 2`) that of filters that see the last observations only."""

    model: Calibration
    floors: dict[str, Calibration]

    def window(self, w: int) -> float:
        """The entropy error of a filter that sees the last w observations."""
        return self.floors[f"last {w}"].entropy_error


def judge_bijection(found: Calibration) -> str:
    """One seed of the bijection."""
    if found.entropy_error <= bounds.BIJECTION_ERROR and found.kl <= bounds.BIJECTION_KL:
        return SUPPORTED
    return NOT_SUPPORTED if found.entropy_error > bounds.ERROR_REFUTED else INCONCLUSIVE


def judge_hmm(found: HmmRun) -> str:
    """One seed of the HMM."""
    error = found.model.entropy_error
    if error > min(bounds.ERROR_REFUTED, found.window(bounds.HMM_REFUTED_WINDOW)):
        return NOT_SUPPORTED
    return SUPPORTED if error < found.window(bounds.HMM_SUPPORTED_WINDOW) else INCONCLUSIVE


def calibration_verdict(
    bijection: dict[int, Calibration], hmm: dict[int, HmmRun], claim: str = "calibration"
) -> Verdict:
    """The claim that a transformer reaches the exact posterior, by seed; it needs both tasks to be supported.

    A seed is supported when each of its tasks is, not supported when one of them is. One task alone can refute the
    claim, and support nothing. ValueError without any run.
    """
    seeds = sorted(bijection.keys() | hmm.keys())
    if not seeds:
        raise ValueError("there is no run to judge")
    outcomes = [_both(bijection.get(seed), hmm.get(seed)) for seed in seeds]
    errors = np.array([bijection[seed].entropy_error for seed in seeds if seed in bijection])
    hmm_errors = np.array([hmm[seed].model.entropy_error for seed in seeds if seed in hmm])
    main = errors if len(errors) else hmm_errors
    task = "bijection" if len(errors) else "HMM"
    return Verdict(
        claim=claim,
        verdict=by_seeds(outcomes),
        statistic=Statistic(f"entropy error, {task}", float(main.mean()), "bits"),
        interval=list(mean_interval(main)) if len(main) > 1 else None,
        threshold=(
            f"bijection: error and KL at most {bounds.BIJECTION_ERROR:g} bits; HMM: error below a filter that sees the "
            f"last {bounds.HMM_SUPPORTED_WINDOW} observations. Not supported above {bounds.ERROR_REFUTED:g} bits, or "
            f"above the filter of {bounds.HMM_REFUTED_WINDOW}"
        ),
        n=sum(one.count for one in bijection.values()) + sum(one.model.count for one in hmm.values()),
        seeds=seeds,
        papers_criterion=_papers_calibration(list(bijection.values()), list(hmm.values())),
        reason=" ".join([_calibration_words(errors, hmm_errors, list(hmm.values())), seeds_sentence(outcomes)]),
        evidence={"outcomes": outcomes},
    )


def _both(bijection: Calibration | None, hmm: HmmRun | None) -> str:
    outcomes = []
    if bijection is not None:
        outcomes.append(judge_bijection(bijection))
    if hmm is not None:
        outcomes.append(judge_hmm(hmm))
    if NOT_SUPPORTED in outcomes:
        return NOT_SUPPORTED
    return SUPPORTED if outcomes == [SUPPORTED, SUPPORTED] else INCONCLUSIVE


def _calibration_words(errors: np.ndarray, hmm_errors: np.ndarray, hmm: list[HmmRun]) -> str:
    said = []
    if len(errors):
        said.append(f"In the bijection the entropy is off by {errors.mean():.4f} bits on average over seeds.")
    if len(hmm_errors):
        three, two = bounds.HMM_SUPPORTED_WINDOW, bounds.HMM_REFUTED_WINDOW
        lines = {w: np.mean([run.window(w) for run in hmm]) for w in (three, two)}
        said.append(
            f"In the HMM by {hmm_errors.mean():.4f}; filters that see the last {three} and {two} observations are off "
            f"by {lines[three]:.4f} and {lines[two]:.4f}."
        )
    if not len(errors) or not len(hmm_errors):
        said.append("Only one of the two tasks was run, and support needs both.")
    return " ".join(said)


def _papers_calibration(bijection: list[Calibration], hmm: list[HmmRun]) -> PapersCriterion:
    """Their pass mark on the bijection; for the HMM they name none, so their last reported error stands in."""
    words, passes = [], []
    if bijection:
        error = float(np.mean([one.paper_error for one in bijection]))
        passes.append(error < bounds.BIJECTION_ERROR)
        words.append(
            f"Averaged over samples first, as their code does, the bijection's error is {error:.4f} bits; "
            f"that code passes below {bounds.BIJECTION_ERROR:g}, and they report {bounds.PAPER_BIJECTION_ERROR:g} "
            "(version 3) for 20 values."
        )
    if hmm:
        error = float(np.mean([one.model.paper_error for one in hmm]))
        passes.append(error <= bounds.PAPER_HMM_ERROR)
        words.append(f"The HMM's is {error:.4f}; they report {bounds.PAPER_HMM_ERROR:g} (version 3) for 5 states.")
    words.append("Errors of opposite sign cancel in such a mean, and every position weighs alike in it.")
    return PapersCriterion(all(passes), " ".join(words))
