"""Does the transformer reach the exact posterior, and do models without attention fail? Verdicts and plots. No torch.

What is judged of models without attention is what the paper says: an MLP fails on both tasks, and a recurrent network
on the HMM. The MLP is the one that sees the whole prefix: the paper's own sees one token, so that it cannot be better
than the prior, whatever it is made of. That the LSTM matches in the bijection is in the paper's own table, and is shown
and not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmlab.core.charts import BARS, DASHED, POINTS, Chart, Series, Table
from llmlab.core.task_settings import BIJECTION, DUPLICATES, HMM, LSTM, MLP_POSITION, MLP_PREFIX, TRANSFORMER
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.synthetic.metrics import Calibration, calibration
from llmlab.data.synthetic.tasks import Task, held_out
from llmlab.studies.papers.agreement import of_seeds
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.plan import ARCHITECTURE, CALIBRATION, RIVALS
from llmlab.studies.papers.bayesian_geometry.thresholds import TEXTS
from llmlab.studies.papers.charting import level, numbered, table
from llmlab.studies.papers.records import PapersCriterion, Verdict
from llmlab.studies.papers.statistics import mean_of, median_of


def baselines(task: Task, count: int) -> dict[str, Calibration]:
    """By name (`uniform`, `last 2`), the calibration of limited reasoners on the first `count` held-out sequences."""
    batches = held_out(task, count)
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
    baselines: dict[str, Calibration]

    @property
    def error(self) -> float:
        """Of its entropy, bits."""
        return self.model.entropy_error

    def filter(self, w: int) -> float:
        """The entropy error of a filter that sees the last w observations of the HMM."""
        return self.baselines[f"last {w}"].entropy_error


def transformers(found: Sequence[Calibrated], task: str) -> list[Calibrated]:
    return [one for one in found if (one.task, one.kind) == (task, TRANSFORMER)]


# Calibration ----------------------------------------------------------------------------------------------------------


def judge_calibration(found: Calibrated) -> str:
    """One seed of the bijection or the HMM."""
    if found.task == BIJECTION:
        refuted = found.error > bounds.ERROR_REFUTED
        supported = found.error <= bounds.BIJECTION_ERROR and found.model.kl <= bounds.BIJECTION_KL
    else:
        refuted = found.error > min(bounds.ERROR_REFUTED, found.filter(bounds.HMM_REFUTED_WINDOW))
        supported = found.error < found.filter(bounds.HMM_SUPPORTED_WINDOW)
    return NOT_SUPPORTED if refuted else SUPPORTED if supported else INCONCLUSIVE


def calibration_verdict(found: Sequence[Calibrated]) -> Verdict:
    """The claim that a transformer reaches the exact posterior, by seed; it needs both tasks to be supported.

    A seed is supported when each of its tasks is, not supported when one of them is. One task alone can refute the
    claim, and support nothing. found: all runs, those beside the claim are shown.
    """
    bijection, hmm = transformers(found, BIJECTION), transformers(found, HMM)
    judged: dict[int, list[str]] = {}
    for one in (*bijection, *hmm):
        judged.setdefault(one.seed, []).append(judge_calibration(one))
    outcomes = {seed: _both(words) for seed, words in sorted(judged.items())}
    return TEXTS.verdict(
        CALIBRATION,
        of_seeds(outcomes),
        *mean_of([one.error for one in bijection or hmm]),
        said=_calibration_said(bijection, hmm),
        n=sum(one.model.count for one in (*bijection, *hmm)),
        facts={"task": "bijection" if bijection else "HMM"},
        criterion=_papers_calibration(bijection, hmm),
        charts=_calibration_charts(found),
        tables=[_calibration_table(found)],
        evidence={"outcomes": list(outcomes.values())},
    )


def _both(outcomes: list[str]) -> str:
    if NOT_SUPPORTED in outcomes:
        return NOT_SUPPORTED
    return SUPPORTED if outcomes == [SUPPORTED, SUPPORTED] else INCONCLUSIVE


def _calibration_said(bijection: Sequence[Calibrated], hmm: Sequence[Calibrated]) -> Iterator[str]:
    if bijection:
        yield TEXTS.say("calibration-bijection", error=np.mean([one.error for one in bijection]))
    if hmm:
        windows = bounds.HMM_SUPPORTED_WINDOW, bounds.HMM_REFUTED_WINDOW
        errors = np.mean([(one.error, *map(one.filter, windows)) for one in hmm], axis=0)
        yield TEXTS.say("calibration-hmm", **dict(zip(("error", "far", "near"), errors, strict=True)))
    if not bijection or not hmm:
        yield TEXTS.say("calibration-one-task")


def _papers_calibration(bijection: Sequence[Calibrated], hmm: Sequence[Calibrated]) -> PapersCriterion:
    """Their pass mark on the bijection; for the HMM they name none, so their last reported error stands in."""
    words, passes = [], []
    if bijection:
        error = float(np.mean([one.model.paper_error for one in bijection]))
        passes.append(error < bounds.BIJECTION_ERROR)
        words.append(TEXTS.say("calibration-paper-bijection", error=error))
    if hmm:
        error = float(np.mean([one.model.paper_error for one in hmm]))
        passes.append(error <= bounds.PAPER_HMM_ERROR)
        words.append(TEXTS.say("calibration-paper-hmm", error=error))
    return PapersCriterion(all(passes), " ".join([*words, TEXTS.say("calibration-paper-mean")]))


def _calibration_charts(found: Sequence[Calibrated]) -> list[Chart]:
    """Entropy error by position, a chart a task: a line a seed, with what knowing less costs."""
    charts = []
    for task, title in TITLES.items():
        if runs := transformers(found, task):
            series = [_error_line(f"seed {one.seed}", one.model) for one in runs]
            series += [_error_line(_baseline(name), one, DASHED) for name, one in runs[0].baselines.items()]
            charts.append(TEXTS.chart("calibration", series, end=f"-{task}", task=title))
    return charts


def _calibration_table(found: Sequence[Calibrated]) -> Table:
    """Every model, and what it is held against."""
    rows = []
    for task, title in TITLES.items():
        runs = [one for one in found if one.task == task]
        rows += [(title, f"{KINDS[one.kind]}, seed {one.seed}", one.model) for one in runs]
        rows += [(title, _baseline(name), one) for name, one in (runs[0].baselines.items() if runs else ())]
    columns = {
        "task": [title for title, _, _ in rows],
        "model": [name for _, name, _ in rows],
        "entropy error, bits": [f"{one.entropy_error:.4f}" for _, _, one in rows],
        "KL, bits": [f"{one.kl:.4f}" for _, _, one in rows],
        "as the paper averages, bits": [f"{one.paper_error:.4f}" for _, _, one in rows],
    }
    return table("Errors on held-out sequences", columns)


def _error_line(name: str, found: Calibration, kind: str = "line") -> Series:
    # An axis of logarithms has no place for nothing, and no model comes as near as _LEAST.
    return Series(name, [float(place) for place in found.places], [max(error, _LEAST) for error in found.errors], kind)


def _baseline(name: str) -> str:
    return "knowing nothing" if name == "uniform" else f"filter, {name} observations"


# Architecture ---------------------------------------------------------------------------------------------------------


def judge_architecture(transformer: Sequence[Calibrated], rivals: Sequence[Calibrated]) -> str:
    """One seed. transformer: its runs, one a task; rivals: those of RIVALS that were trained on these tasks.

    One that is missing, since its run failed, can refute nothing, and leaves nothing supported.
    """
    pairs = _pairs(transformer, rivals)
    if not pairs or max(error for _, error in pairs) > bounds.ERROR_REFUTED:
        return INCONCLUSIVE
    if any(one.error <= bounds.TIMES_ALIKE * error or judge_calibration(one) == SUPPORTED for one, error in pairs):
        return NOT_SUPPORTED
    worse = all(one.error >= bounds.TIMES_WORSE * error for one, error in pairs)
    trained = {(one.task, one.kind) for one, _ in pairs}
    whole = all((task, kind) in trained for task in {one.task for one, _ in pairs} for kind in RIVALS[task])
    return SUPPORTED if worse and whole else INCONCLUSIVE


def architecture_verdict(found: Sequence[Calibrated]) -> Verdict:
    """The claim that models without attention fail."""
    seeds = compared(found)
    trained = {seed: [one for one in found if one.seed == seed and one.task in RIVALS] for seed in seeds}
    attention = {seed: [one for one in runs if one.kind == TRANSFORMER] for seed, runs in trained.items()}
    rivals = {seed: [one for one in runs if one.kind in RIVALS[one.task]] for seed, runs in trained.items()}
    outcomes = {seed: judge_architecture(attention[seed], rivals[seed]) for seed in seeds}
    pairs = {seed: _pairs(attention[seed], rivals[seed]) for seed in seeds}
    return TEXTS.verdict(
        ARCHITECTURE,
        of_seeds(outcomes),
        *median_of([min(one.error / error for one, error in pairs[seed]) for seed in seeds]),
        said=_architecture_said(found),
        n=sum(one.model.count for runs in rivals.values() for one in runs),
        criterion=_papers_architecture(found),
        charts=[chart for task in RIVALS if (chart := _architecture_chart(found, task)) is not None],
        tables=[_architecture_table(pairs, outcomes)],
    )


def compared(found: Sequence[Calibrated]) -> list[int]:
    """Seeds from which a transformer and one of its rivals learned the same task."""
    attention = {(one.task, one.seed) for one in found if one.kind == TRANSFORMER}
    rivals = {(one.task, one.seed) for one in found if one.kind in RIVALS.get(one.task, ())}
    return sorted({seed for _, seed in attention & rivals})


def _pairs(transformer: Sequence[Calibrated], rivals: Sequence[Calibrated]) -> list[tuple[Calibrated, float]]:
    """Rivals, each with the transformer's error on its task."""
    errors = {one.task: one.error for one in transformer}
    return [(one, errors[one.task]) for one in rivals if one.task in errors]


def _medians(found: Sequence[Calibrated], task: str) -> dict[str, float]:
    """By kind, of those that learned the task."""
    errors = {kind: [one.error for one in found if (one.task, one.kind) == (task, kind)] for kind in KINDS}
    return {kind: float(np.median(of_kind)) for kind, of_kind in errors.items() if of_kind}


def _architecture_said(found: Sequence[Calibrated]) -> Iterator[str]:
    for task in RIVALS:
        medians = _medians(found, task)
        if len(medians) > 1:
            each = ", ".join(f"{KINDS[kind]} {error:.4f}" for kind, error in medians.items())
            yield TEXTS.say("architecture", task=TITLES[task], each=each)
    if LSTM not in _medians(found, HMM):
        yield TEXTS.say("architecture-no-lstm")
    if LSTM in _medians(found, BIJECTION):
        yield TEXTS.say("architecture-lstm")


def _papers_architecture(found: Sequence[Calibrated]) -> PapersCriterion:
    """No bound is named; what their control does here is said: an MLP without context beside the transformer."""
    medians = _medians(found, BIJECTION)
    if not {MLP_POSITION, TRANSFORMER} <= medians.keys():
        return PapersCriterion(None, TEXTS.say("architecture-paper-not-run"))
    error, prior = medians[MLP_POSITION], next(one.baselines["uniform"] for one in found if one.task == BIJECTION)
    facts = {"error": error, "times": error / medians[TRANSFORMER], "prior": prior.entropy_error}
    return PapersCriterion(None, TEXTS.say("architecture-paper", **facts))


def _architecture_chart(found: Sequence[Calibrated], task: str) -> Chart | None:
    medians = _medians(found, task)
    if len(medians) < 2:
        return None
    kinds, x = list(medians), numbered(len(medians))
    here = [one for one in found if one.task == task]
    each = [float(kinds.index(one.kind)) for one in here]
    series = [
        Series("median of seeds", x, list(medians.values()), BARS),
        Series("a seed each", each, [one.error for one in here], POINTS),
        level("knowing nothing", here[0].baselines["uniform"].entropy_error, x),
    ]
    names = [KINDS[kind] for kind in kinds]
    return TEXTS.chart("architecture", series, names, end=f"-{task}", task=TITLES[task])


def _architecture_table(pairs: Mapping[int, Sequence[tuple[Calibrated, float]]], outcomes: Mapping[int, str]) -> Table:
    rows = [(one, error, outcomes[seed]) for seed, runs in pairs.items() for one, error in runs]
    columns = {
        "": [f"seed {one.seed}" for one, _, _ in rows],
        "task": [TITLES[one.task] for one, _, _ in rows],
        "without attention": [KINDS[one.kind] for one, _, _ in rows],
        "its error, bits": [f"{one.error:.4f}" for one, _, _ in rows],
        "the transformer's": [f"{error:.4f}" for _, error, _ in rows],
        "times": [f"{one.error / error:.2f}" for one, error, _ in rows],
        "outcome of the seed": [outcome for _, _, outcome in rows],
    }
    return table("Models that see the same evidence, without attention", columns)
