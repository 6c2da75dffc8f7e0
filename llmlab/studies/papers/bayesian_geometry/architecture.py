"""Is attention needed? Errors of models without it, held against the transformer's on the same task and seed. No torch.

What is judged is what the paper says: an MLP fails on both tasks, and a recurrent network on the HMM. The MLP is the
one that sees the whole prefix: the paper's own sees one token, so that it cannot be better than the prior, whatever it
is made of. That the LSTM matches in the bijection is in the paper's own table, and is shown, not judged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmlab.core.charts import BARS, DASHED, POINTS, Axis, Chart, Series, Table
from llmlab.core.task_settings import BIJECTION, HMM, LSTM, MLP_POSITION, TRANSFORMER
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import by_seeds, seeds_sentence
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.calibration_shown import KINDS, TITLES, Calibrated
from llmlab.studies.papers.bayesian_geometry.plan import RIVALS
from llmlab.studies.papers.bayesian_geometry.verdicts import HmmRun, judge_bijection, judge_hmm
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict
from llmlab.studies.papers.statistics import bootstrap_interval


def judge_architecture(transformer: Sequence[Calibrated], rivals: Sequence[Calibrated]) -> str:
    """One seed. transformer: its runs, one a task; rivals: those of RIVALS that were trained on these tasks.

    One that is missing, since its run failed, can refute nothing, and leaves nothing supported.
    """
    with_attention = {one.task: one.model.entropy_error for one in transformer}
    pairs = [(one, with_attention[one.task]) for one in rivals if one.task in with_attention]
    if not pairs or max(error for _, error in pairs) > bounds.ERROR_REFUTED:
        return INCONCLUSIVE
    if any(one.model.entropy_error <= bounds.TIMES_ALIKE * error or _calibrated(one) for one, error in pairs):
        return NOT_SUPPORTED
    worse = all(one.model.entropy_error >= bounds.TIMES_WORSE * error for one, error in pairs)
    trained = {(one.task, one.kind) for one, _ in pairs}
    whole = all((task, kind) in trained for task in {one.task for one, _ in pairs} for kind in RIVALS[task])
    return SUPPORTED if worse and whole else INCONCLUSIVE


def _calibrated(one: Calibrated) -> bool:
    """By the bounds of the claim on calibration."""
    found = judge_bijection(one.model) if one.task == BIJECTION else judge_hmm(HmmRun(one.model, one.floors))
    return found == SUPPORTED


def architecture_verdict(found: Sequence[Calibrated], claim: str = "architecture") -> Verdict:
    """The claim that models without attention fail. ValueError where no transformer has a rival."""
    rivals = [one for one in found if one.kind in RIVALS.get(one.task, ())]
    attention = [one for one in found if one.kind == TRANSFORMER and one.task in RIVALS]
    seeds = compared(found)
    if not seeds:
        raise ValueError("there is nothing to compare")
    outcomes = [judge_architecture(_of(attention, seed), _of(rivals, seed)) for seed in seeds]
    times = np.array([_least_times(_of(attention, seed), _of(rivals, seed)) for seed in seeds])
    return Verdict(
        claim=claim,
        verdict=by_seeds(outcomes),
        statistic=Statistic(
            "error of the best model without attention over the transformer's", float(np.median(times))
        ),
        interval=list(bootstrap_interval(times, np.median)) if len(times) > 1 else None,
        threshold=(
            f"each is at least {bounds.TIMES_WORSE:g} times as far off as the transformer: the MLP on the prefix, and "
            f"in the HMM the LSTM, too. Not supported where one is off by at most {bounds.TIMES_ALIKE:g} times as "
            "much, or calibrated by the bounds of `calibration`; inconclusive where the transformer is off by more "
            f"than {bounds.ERROR_REFUTED:g} bits"
        ),
        n=sum(one.model.count for one in rivals if one.seed in seeds),
        seeds=seeds,
        papers_criterion=_papers(found),
        reason=" ".join([_words(found), seeds_sentence(outcomes)]),
        charts=[chart for task in RIVALS if (chart := _chart(found, task)) is not None],
        tables=[_table(seeds, outcomes, attention, rivals)],
    )


def compared(found: Sequence[Calibrated]) -> list[int]:
    """Seeds from which a transformer and one of its rivals learned the same task."""
    attention = {(one.task, one.seed) for one in found if one.kind == TRANSFORMER}
    rivals = {(one.task, one.seed) for one in found if one.kind in RIVALS.get(one.task, ())}
    return sorted({seed for _, seed in attention & rivals})


def _of(found: Sequence[Calibrated], seed: int) -> list[Calibrated]:
    return [one for one in found if one.seed == seed]


def _least_times(transformer: Sequence[Calibrated], rivals: Sequence[Calibrated]) -> float:
    """The smallest ratio of errors of one seed."""
    errors = {one.task: one.model.entropy_error for one in transformer}
    return min(one.model.entropy_error / errors[one.task] for one in rivals if one.task in errors)


def _median(found: Sequence[Calibrated], task: str, kind: str) -> float | None:
    errors = [one.model.entropy_error for one in found if (one.task, one.kind) == (task, kind)]
    return float(np.median(errors)) if errors else None


def _words(found: Sequence[Calibrated]) -> str:
    said = []
    for task in RIVALS:
        errors = {kind: error for kind in KINDS if (error := _median(found, task, kind)) is not None}
        if len(errors) > 1:
            each = ", ".join(f"{KINDS[kind]} {error:.4f}" for kind, error in errors.items())
            said.append(f"{TITLES[task]}, entropy error in bits (medians of seeds): {each}.")
    if _median(found, HMM, LSTM) is None:
        said.append("On the HMM no LSTM was measured, so nothing is said of recurrent networks.")
    if _median(found, BIJECTION, LSTM) is not None:
        said.append("The LSTM in the bijection is not judged: the paper reports itself that it matches there.")
    return " ".join(said)


def _papers(found: Sequence[Calibrated]) -> PapersCriterion:
    """No bound is named; what their control does here is said: an MLP without context beside the transformer."""
    error, ours = _median(found, BIJECTION, MLP_POSITION), _median(found, BIJECTION, TRANSFORMER)
    if error is None or ours is None:
        return PapersCriterion(None, "They name no bound, and their control, an MLP that sees one token, was not run.")
    prior = next(one.floors["uniform"].entropy_error for one in found if one.task == BIJECTION)
    return PapersCriterion(
        None,
        f"They name no bound. Their control, an MLP that sees one token, is off by {error:.4f} bits here, "
        f"{error / ours:.0f} times as much as the transformer; knowing nothing costs {prior:.4f}. It has no evidence "
        "to reason from, so it says nothing about attention.",
    )


def _chart(found: Sequence[Calibrated], task: str) -> Chart | None:
    kinds = [kind for kind in KINDS if _median(found, task, kind) is not None]
    if len(kinds) < 2:
        return None
    x = [float(place) for place in range(len(kinds))]
    here = [one for one in found if one.task == task]
    series = [Series("median of seeds", x, [_median(here, task, kind) or 0.0 for kind in kinds], BARS)]
    series.append(
        Series(
            "a seed each",
            [float(kinds.index(one.kind)) for one in here],
            [one.model.entropy_error for one in here],
            POINTS,
        )
    )
    nothing = here[0].floors["uniform"].entropy_error
    series.append(Series("knowing nothing", x, [nothing] * len(x), DASHED))
    return Chart(
        f"architecture-{task}",
        TITLES[task],
        Axis("what learned it"),
        Axis("entropy error", "bits", log=True),
        series,
        categories=[KINDS[kind] for kind in kinds],
        caption="All were trained on the same sequences for as many steps. The claim is that only the transformer is "
        "near the exact posterior.",
    )


def _table(
    seeds: Sequence[int], outcomes: Sequence[str], attention: Sequence[Calibrated], rivals: Sequence[Calibrated]
) -> Table:
    rows = []
    for seed, outcome in zip(seeds, outcomes, strict=True):
        errors = {one.task: one.model.entropy_error for one in _of(attention, seed)}
        for one in _of(rivals, seed):
            if one.task in errors:
                error, ours = one.model.entropy_error, errors[one.task]
                numbers = [f"{error:.4f}", f"{ours:.4f}", f"{error / ours:.2f}"]
                rows.append([f"seed {seed}", TITLES[one.task], KINDS[one.kind], *numbers, outcome])
    columns = ["", "task", "without attention", "its error, bits", "the transformer's", "times", "outcome of the seed"]
    return Table("Models that see the same evidence, without attention", columns, rows)
