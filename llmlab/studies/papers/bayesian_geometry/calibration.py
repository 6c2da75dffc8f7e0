"""Does the transformer reach the exact posterior, and do models without attention fail? Verdicts and plots. No torch.

What is judged of models without attention is what the paper says: an MLP fails on both tasks, and a recurrent network
on the HMM. The MLP is the one that sees the whole prefix: the paper's own sees one token, so that it cannot be better
than the prior, whatever it is made of. That the LSTM matches in the bijection is in the paper's own table, and is shown
and not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmlab.core.charts import BARS, DASHED, POINTS, Axis, Chart, Series, Table
from llmlab.core.task_settings import BIJECTION, DUPLICATES, HMM, LSTM, MLP_POSITION, MLP_PREFIX, TRANSFORMER
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.synthetic.metrics import Calibration, calibration
from llmlab.data.synthetic.tasks import Task, TaskBatch, held_out
from llmlab.studies.papers.agreement import by_seeds, seeds_sentence
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.plan import ARCHITECTURE, CALIBRATION, RIVALS
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict
from llmlab.studies.papers.statistics import mean_interval, median_interval


def floors(task: Task, count: int) -> dict[str, Calibration]:
    """By name (`uniform`, `last 2`), the calibration of limited reasoners on the first `count` held-out sequences."""
    return floors_of(task, held_out(task, count))


def floors_of(task: Task, batches: list[TaskBatch]) -> dict[str, Calibration]:
    """The same on given sequences."""
    beliefs = [task.baselines(batch) for batch in batches]
    posterior = np.concatenate([batch.posterior for batch in batches])
    scored = np.concatenate([batch.scored for batch in batches])
    return {name: calibration(np.concatenate([one[name] for one in beliefs]), posterior, scored) for name in beliefs[0]}


_LEAST = 1e-4  # bits
TITLES = {BIJECTION: "Bijection, no key twice", DUPLICATES: "Bijection, keys repeat", HMM: "Hidden Markov model"}
KINDS = {
    TRANSFORMER: "transformer",
    LSTM: "LSTM",
    MLP_POSITION: "MLP that sees one token",
    MLP_PREFIX: "MLP on the prefix",
}


@dataclass(frozen=True)
class Calibrated:
    """A finished run's calibration, and that of reasoners that know less, by name (`uniform`, `last 2`)."""

    task: str
    kind: str
    seed: int
    model: Calibration
    floors: dict[str, Calibration]

    def is_transformer_on(self, task: str) -> bool:
        """Whether it is one of those that the claim is about."""
        return (self.task, self.kind) == (task, TRANSFORMER)


def calibration_charts(found: Sequence[Calibrated]) -> list[Chart]:
    """Entropy error by position, a chart a task: a line a seed, with what knowing less costs."""
    charts = []
    for task, title in TITLES.items():
        runs = [one for one in found if one.is_transformer_on(task)]
        if not runs:
            continue
        series = [_error_line(f"seed {one.seed}", one.model) for one in runs]
        series += [_error_line(_floor(name), floor, DASHED) for name, floor in runs[0].floors.items()]
        charts.append(
            Chart(
                f"calibration-{task}",
                title,
                Axis("prediction, by its position in the sequence"),
                Axis("entropy error", "bits", log=True),
                series,
                caption="How far the model's entropy is from the exact one, on average over sequences. Dashed: "
                "reasoners that know less.",
            )
        )
    return charts


def calibration_table(found: Sequence[Calibrated]) -> Table:
    """Every model, and what it is held against."""
    rows = []
    for task, title in TITLES.items():
        runs = [one for one in found if one.task == task]
        for one in runs:
            rows.append([title, f"{KINDS[one.kind]}, seed {one.seed}", *_errors(one.model)])
        for name, floor in runs[0].floors.items() if runs else ():
            rows.append([title, _floor(name), *_errors(floor)])
    columns = ["task", "model", "entropy error, bits", "KL, bits", "as the paper averages, bits"]
    return Table("Errors on held-out sequences", columns, rows)


def _error_line(name: str, found: Calibration, kind: str = "line") -> Series:
    # An axis of logarithms has no place for nothing, and no model comes as near as _LEAST.
    return Series(name, [float(place) for place in found.places], [max(error, _LEAST) for error in found.errors], kind)


def _floor(name: str) -> str:
    return "knowing nothing" if name == "uniform" else f"filter, {name} observations"


def _errors(found: Calibration) -> list[str]:
    return [f"{found.entropy_error:.4f}", f"{found.kl:.4f}", f"{found.paper_error:.4f}"]


# Calibration ----------------------------------------------------------------------------------------------------------


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


def calibration_verdict(bijection: dict[int, Calibration], hmm: dict[int, HmmRun]) -> Verdict:
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
        claim=CALIBRATION,
        verdict=by_seeds(outcomes),
        statistic=Statistic(f"entropy error, {task}", float(main.mean()), "bits"),
        interval=mean_interval(main),
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


# Architecture ---------------------------------------------------------------------------------------------------------


def judge_architecture(transformer: Sequence[Calibrated], rivals: Sequence[Calibrated]) -> str:
    """One seed. transformer: its runs, one a task; rivals: those of RIVALS that were trained on these tasks.

    One that is missing, since its run failed, can refute nothing, and leaves nothing supported.
    """
    with_attention = {one.task: one.model.entropy_error for one in transformer}
    pairs = [(one, with_attention[one.task]) for one in rivals if one.task in with_attention]
    if not pairs or max(error for _, error in pairs) > bounds.ERROR_REFUTED:
        return INCONCLUSIVE
    if any(one.model.entropy_error <= bounds.TIMES_ALIKE * error or _is_calibrated(one) for one, error in pairs):
        return NOT_SUPPORTED
    worse = all(one.model.entropy_error >= bounds.TIMES_WORSE * error for one, error in pairs)
    trained = {(one.task, one.kind) for one, _ in pairs}
    whole = all((task, kind) in trained for task in {one.task for one, _ in pairs} for kind in RIVALS[task])
    return SUPPORTED if worse and whole else INCONCLUSIVE


def _is_calibrated(one: Calibrated) -> bool:
    """By the bounds of the claim on calibration."""
    found = judge_bijection(one.model) if one.task == BIJECTION else judge_hmm(HmmRun(one.model, one.floors))
    return found == SUPPORTED


def architecture_verdict(found: Sequence[Calibrated]) -> Verdict:
    """The claim that models without attention fail. ValueError where no transformer has a rival."""
    rivals = [one for one in found if one.kind in RIVALS.get(one.task, ())]
    attention = [one for one in found if one.kind == TRANSFORMER and one.task in RIVALS]
    seeds = compared(found)
    if not seeds:
        raise ValueError("there is nothing to compare")
    outcomes = [judge_architecture(_of(attention, seed), _of(rivals, seed)) for seed in seeds]
    times = np.array([_least_times(_of(attention, seed), _of(rivals, seed)) for seed in seeds])
    return Verdict(
        claim=ARCHITECTURE,
        verdict=by_seeds(outcomes),
        statistic=Statistic(
            "error of the best model without attention over the transformer's", float(np.median(times))
        ),
        interval=median_interval(times),
        threshold=(
            f"each is at least {bounds.TIMES_WORSE:g} times as far off as the transformer: the MLP on the prefix, and "
            f"in the HMM the LSTM, too. Not supported where one is off by at most {bounds.TIMES_ALIKE:g} times as "
            "much, or calibrated by the bounds of `calibration`; inconclusive where the transformer is off by more "
            f"than {bounds.ERROR_REFUTED:g} bits"
        ),
        n=sum(one.model.count for one in rivals if one.seed in seeds),
        seeds=seeds,
        papers_criterion=_papers_architecture(found),
        reason=" ".join([_architecture_words(found), seeds_sentence(outcomes)]),
        charts=[chart for task in RIVALS if (chart := _architecture_chart(found, task)) is not None],
        tables=[_architecture_table(seeds, outcomes, attention, rivals)],
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


def _architecture_words(found: Sequence[Calibrated]) -> str:
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


def _papers_architecture(found: Sequence[Calibrated]) -> PapersCriterion:
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


def _architecture_chart(found: Sequence[Calibrated], task: str) -> Chart | None:
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


def _architecture_table(
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
