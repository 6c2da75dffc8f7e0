"""Does a network add by a few frequencies, and does that show before test accuracy does? Verdicts and plots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from llmlab.core.charts import BARS, DASHED, Chart, Series, Table
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import of_seeds
from llmlab.studies.papers.charting import cell, numbered, table
from llmlab.studies.papers.grokking import thresholds as bounds
from llmlab.studies.papers.grokking.generalising import line, span, step_cell
from llmlab.studies.papers.grokking.plan import FOURIER, PROGRESS
from llmlab.studies.papers.grokking.thresholds import TEXTS
from llmlab.studies.papers.grokking.trajectory import AT_FIT, LAST, Trajectory
from llmlab.studies.papers.records import Verdict
from llmlab.studies.papers.statistics import mean_of, median_of

_LOWEST = 1e-6  # nats: an axis of logarithms has no place for nothing

# Fourier --------------------------------------------------------------------------------------------------------------


def judge_fourier(run: Trajectory) -> str:
    """One run at its last checkpoint; inconclusive where that does not generalise."""
    if run.held_accuracy[-1] < bounds.GENERALISED:
        return INCONCLUSIVE
    sparse = len(run.keys) <= bounds.OF_RANDOM * min(run.random_keys)
    kept = run.restricted_accuracy[-1] >= bounds.KEPT_ACCURACY
    if not sparse or run.excluded_accuracy[-1] >= bounds.KEPT_ACCURACY:
        return NOT_SUPPORTED
    return SUPPORTED if kept and run.excluded_accuracy[-1] <= bounds.LOST_ACCURACY else INCONCLUSIVE


def fourier_verdict(runs: Sequence[Trajectory], others: Sequence[Trajectory] = ()) -> Verdict:
    """The claim that a network that adds does so on a handful of frequencies. others: runs that are shown beside."""
    return TEXTS.verdict(
        FOURIER,
        of_seeds({run.seed: judge_fourier(run) for run in runs}),
        *mean_of([float(len(run.keys)) for run in runs]),
        said=_fourier_said(runs),
        n=len(runs),
        facts={
            "frequencies": runs[0].modulus // 2,
            "embeddings": len(runs[0].random_keys),
            "whole": float(np.mean([run.held_loss[-1] for run in runs])),
            "alone": float(np.mean([run.restricted_held_loss for run in runs])),
        },
        charts=[spectrum_chart(middle(runs))],
        tables=[fourier_table([*runs, *others])],
    )


def _fourier_said(runs: Sequence[Trajectory]) -> Iterator[str]:
    """How many frequencies, what is right on them; why that says little, and what says more; runs that end badly."""
    fits = [(run, run.fitted) for run in runs if run.fitted is not None]
    names = {"alone": "restricted_accuracy", "without": "excluded_accuracy", "all": "held_accuracy"}
    right = {name: np.mean([getattr(run, column)[-1] for run in runs]) for name, column in names.items()}
    at_fit = [run.key_count[place] for run, place in fits]
    yield TEXTS.say(
        "fourier",
        keys=span([len(run.keys) for run in runs], "d"),
        frequencies=runs[0].modulus // 2,
        then=f" {TEXTS.say('fourier-at-fit', keys=np.mean(at_fit))}" if fits else "",
        fewest=min(min(run.random_keys) for run in runs),
        **right,
    )
    if fits:
        first, last = np.mean([(run.waves[place], run.waves[-1]) for run, place in fits], axis=0)
        known = np.mean([run.restricted_accuracy[place] for run, place in fits])
        yield TEXTS.say("fourier-leak", right=known, first=first, last=last)
    if ended := [run for run in runs if run.generalised is not None and run.held_accuracy[-1] < bounds.GENERALISED]:
        seeds = ", ".join(str(run.seed) for run in ended)
        yield TEXTS.say("fourier-spike", seeds=seeds, known=span([run.train_accuracy[-1] for run in ended], ".0%"))


def spectrum_chart(run: Trajectory) -> Chart:
    """Which frequencies an embedding uses: at the end, when the training sums were just learned, and at random."""
    places = numbered(len(run.random_spectrum))
    bars = [Series("trained", places, run.spectra[LAST], BARS)]
    if AT_FIT in run.spectra:
        bars.append(Series("when the training sums were learned", places, run.spectra[AT_FIT], BARS))
    bars.append(Series("random weights", places, run.random_spectrum, BARS))
    return TEXTS.chart("fourier", bars, [str(k) for k in range(1, len(places) + 1)], seed=run.seed)


def fourier_table(runs: Sequence[Trajectory]) -> Table:
    """Key frequencies, and what is right with them alone and without them."""
    fits = [run.fitted for run in runs]
    columns = {
        "weight decay": [f"{run.weight_decay:g}" for run in runs],
        "seed": [str(run.seed) for run in runs],
        "key frequencies": [", ".join(map(str, sorted(run.keys))) for run in runs],
        "how many": [str(len(run.keys)) for run in runs],
        "at the fit": ["-" if at is None else str(run.key_count[at]) for run, at in zip(runs, fits, strict=True)],
        "fewest at random": [str(min(run.random_keys)) for run in runs],
        "held-out accuracy": [f"{run.held_accuracy[-1]:.1%}" for run in runs],
        "with these alone": [f"{run.restricted_accuracy[-1]:.1%}" for run in runs],
        "without them": [f"{run.excluded_accuracy[-1]:.1%}" for run in runs],
        "logits' variation on them, at the fit": [
            cell(None if at is None else run.waves[at], ".0%") for run, at in zip(runs, fits, strict=True)
        ],
        "at the end": [f"{run.waves[-1]:.0%}" for run in runs],
        "held-out loss, nats": [f"{run.held_loss[-1]:.3g}" for run in runs],
        "with these alone, nats": [f"{run.restricted_held_loss:.3g}" for run in runs],
    }
    return table("Key frequencies at the last checkpoint", columns)


# Progress -------------------------------------------------------------------------------------------------------------


def judge_progress(run: Trajectory) -> str:
    """One run; inconclusive where it has no jump, one of the losses says yes and the other no, or one goes the way
    that it would not go if the structure grew: the restricted loss up, or the excluded one down."""
    shares = [run.gone(run.restricted_loss), run.gone(run.excluded_loss)]
    known = [share for share in shares if share is not None]
    if len(known) < len(shares) or not run.grows:
        return INCONCLUSIVE
    if min(known) >= bounds.GONE_BEFORE:
        return SUPPORTED
    return NOT_SUPPORTED if max(known) <= bounds.GONE_TOGETHER else INCONCLUSIVE


def progress_verdict(runs: Sequence[Trajectory]) -> Verdict:
    """The claim that the structure grows before test accuracy shows it."""
    ways = {
        name: [share for run in runs if (share := run.gone(getattr(run, f"{name}_loss"))) is not None]
        for name in ("restricted", "excluded", "held")
    }
    medians = {name: np.median(shares) if shares else math.nan for name, shares in ways.items()}
    return TEXTS.verdict(
        PROGRESS,
        of_seeds({run.seed: judge_progress(run) for run in runs}),
        *median_of(ways["restricted"]),
        said=[TEXTS.say("progress", **medians) if ways["restricted"] else TEXTS.say("progress-no-jump")],
        n=len(runs),
        charts=[progress_chart(middle(runs))],
        tables=[progress_table(runs)],
    )


def progress_chart(run: Trajectory) -> Chart:
    """The two losses that show the structure, beside the plain ones."""
    lines = (
        ("training", run.train_loss),
        ("held out", run.held_loss),
        ("key frequencies alone, all sums", run.restricted_loss),
        ("without the key frequencies, training sums", run.excluded_loss),
    )
    series = [line(name, run, [max(value, _LOWEST) for value in values]) for name, values in lines]
    if run.onset is not None:
        step, values = float(run.steps[run.onset]), [max(x, _LOWEST) for _, line in lines for x in line]
        series.append(Series("before the jump", [step, step], [min(values), max(values)], DASHED))
    return TEXTS.chart("progress", series, seed=run.seed)


def progress_table(runs: Sequence[Trajectory]) -> Table:
    """How far each loss had gone before test accuracy jumped."""
    columns = {
        "seed": [str(run.seed) for run in runs],
        "fitted, step": [step_cell(run, run.fitted) for run in runs],
        "before the jump, step": [step_cell(run, run.onset) for run in runs],
        "generalised, step": [step_cell(run, run.generalised) for run in runs],
        "restricted loss": [cell(run.gone(run.restricted_loss), ".0%") for run in runs],
        "excluded loss": [cell(run.gone(run.excluded_loss), ".0%") for run in runs],
        "plain held-out loss": [cell(run.gone(run.held_loss), ".0%") for run in runs],
    }
    return table("Way that each loss had gone before the jump", columns)


def middle(runs: Sequence[Trajectory]) -> Trajectory:
    """The run that is shown alone: of those that generalise, at the last checkpoint too, the middle one by how long
    it took."""
    done = [run for run in runs if run.generalised is not None and run.held_accuracy[-1] >= bounds.GENERALISED]
    order = sorted(done, key=lambda run: (run.steps[run.generalised or 0], run.seed))
    return order[(len(order) - 1) // 2] if order else runs[0]
