"""Runs that were followed, as charts and tables. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmlab.core.charts import BARS, DASHED, Axis, Chart, Series, Table
from llmlab.studies.papers.grokking.trajectory import AT_FIT, LAST, Trajectory

_STEPS = Axis("step", log=True)
_LOWEST = 1e-6  # nats: an axis of logarithms has no place for nothing


def accuracy_chart(with_decay: Sequence[Trajectory]) -> Chart:
    """Held-out accuracy of every seed, and that on the training sums."""
    runs = [_line(f"held out, seed {run.seed}", run, run.held_accuracy) for run in with_decay]
    known = [_line(f"training sums, seed {run.seed}", run, run.train_accuracy, DASHED) for run in with_decay[:1]]
    return Chart(
        "grokking",
        f"Modular addition, weight decay {with_decay[0].weight_decay:g}",
        _STEPS,
        Axis("accuracy"),
        [*runs, *known, _chance(with_decay[0])],
        caption="The training sums are known long before the others are right: the gap between the dashed line and the "
        "others is the delay. Steps are on a logarithmic axis.",
    )


def decay_chart(groups: Sequence[Sequence[Trajectory]]) -> Chart:
    """Held-out accuracy by weight decay: mean over seeds, with the lowest and highest."""
    series = []
    for runs in groups:
        count = min(len(run.steps) for run in runs)
        values = np.array([run.held_accuracy[:count] for run in runs])
        name = f"weight decay {runs[0].weight_decay:g}"
        low, high = values.min(0).tolist(), values.max(0).tolist()
        steps = [float(step) for step in runs[0].steps[:count]]
        series.append(Series(name, steps, values.mean(0).tolist(), low=low, high=high))
    return Chart(
        "weight-decay",
        "Held-out accuracy with and without weight decay",
        _STEPS,
        Axis("held-out accuracy"),
        [*series, _chance(max((run for runs in groups for run in runs), key=lambda run: run.steps[-1]))],
        caption="Lines are means over seeds, bands go from the lowest seed to the highest.",
    )


def spectrum_chart(run: Trajectory) -> Chart:
    """Which frequencies an embedding uses: at the end, when the training sums were just learned, and at random."""
    places = [float(place) for place in range(len(run.random_spectrum))]
    bars = [Series("trained", places, run.spectra[LAST], BARS)]
    if AT_FIT in run.spectra:
        bars.append(Series("when the training sums were learned", places, run.spectra[AT_FIT], BARS))
    bars.append(Series("random weights", places, run.random_spectrum, BARS))
    return Chart(
        "fourier",
        f"Frequencies of the embedding of numbers, seed {run.seed}",
        Axis("frequency: turns as a number goes from 0 to p"),
        Axis("share of power"),
        bars,
        categories=[str(k) for k in range(1, len(places) + 1)],
        caption="A network that adds by turning puts its numbers on circles of a few frequencies; random numbers use "
        "all alike.",
    )


def progress_chart(run: Trajectory) -> Chart:
    """The two losses that show the structure, beside the plain ones."""
    lines = (
        ("training", run.train_loss),
        ("held out", run.held_loss),
        ("key frequencies alone, all sums", run.restricted_loss),
        ("without the key frequencies, training sums", run.excluded_loss),
    )
    series = [_line(name, run, [max(value, _LOWEST) for value in values]) for name, values in lines]
    if run.onset is not None:
        step, values = float(run.steps[run.onset]), [max(x, _LOWEST) for _, line in lines for x in line]
        series.append(Series("before the jump", [step, step], [min(values), max(values)], DASHED))
    return Chart(
        "progress",
        f"What changes while test accuracy does not, seed {run.seed}",
        _STEPS,
        Axis("loss", "nats", log=True),
        series,
        caption="Left of the dashed line held-out accuracy stays within the first tenth of its way. A loss that moves "
        "there shows the structure before accuracy does.",
    )


def steps_table(runs: Sequence[Trajectory]) -> Table:
    """When each run fitted and generalised, and how it ended."""
    rows = []
    for run in runs:
        times = "-" if run.late_times is None else f"{run.late_times:.3g}"
        ends = [f"{values[-1]:.1%}" for values in (run.train_accuracy, run.held_accuracy)]
        last = f"{run.steps[-1]:,}"
        rows.append(
            [_decay(run), str(run.seed), _step(run, run.fitted), _step(run, run.generalised), times, last, *ends]
        )
    columns = ["weight decay", "seed", "fitted, step", "generalised, step", "times as late, at least", "last step"]
    return Table("When sums were learned", [*columns, "training accuracy at the end", "held-out"], rows)


def fourier_table(runs: Sequence[Trajectory]) -> Table:
    """Key frequencies, and what is right with them alone and without them."""
    rows = [
        [
            _decay(run),
            str(run.seed),
            ", ".join(map(str, sorted(run.keys))),
            str(len(run.keys)),
            "-" if run.fitted is None else str(run.key_count[run.fitted]),
            str(min(run.random_keys)),
            *(f"{x[-1]:.1%}" for x in (run.held_accuracy, run.restricted_accuracy, run.excluded_accuracy)),
            "-" if run.fitted is None else f"{run.waves[run.fitted]:.0%}",
            f"{run.waves[-1]:.0%}",
            *(f"{x:.3g}" for x in (run.held_loss[-1], run.restricted_held_loss)),
        ]
        for run in runs
    ]
    columns = ["weight decay", "seed", "key frequencies", "how many", "at the fit", "fewest at random"]
    columns += ["held-out accuracy", "with these alone", "without them"]
    columns += ["logits' variation on them, at the fit", "at the end"]
    columns += ["held-out loss, nats", "with these alone, nats"]
    return Table("Key frequencies at the last checkpoint", columns, rows)


def progress_table(runs: Sequence[Trajectory]) -> Table:
    """How far each loss had gone before test accuracy jumped."""
    rows = [
        [
            str(run.seed),
            *(_step(run, place) for place in (run.fitted, run.onset, run.generalised)),
            *(_share(run.gone(loss)) for loss in (run.restricted_loss, run.excluded_loss, run.held_loss)),
        ]
        for run in runs
    ]
    columns = ["seed", "fitted, step", "before the jump, step", "generalised, step"]
    return Table(
        "Way that each loss had gone before the jump",
        [*columns, "restricted loss", "excluded loss", "plain held-out loss"],
        rows,
    )


def _line(name: str, run: Trajectory, values: Sequence[float], kind: str = "line") -> Series:
    return Series(name, [float(step) for step in run.steps], list(values), kind)


def _chance(run: Trajectory) -> Series:
    ends = [float(run.steps[0]), float(run.steps[-1])]
    return Series("guessing", ends, [1 / run.modulus] * 2, DASHED)


def _decay(run: Trajectory) -> str:
    return f"{run.weight_decay:g}"


def _step(run: Trajectory, place: int | None) -> str:
    return "never" if place is None else f"{run.steps[place]:,}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
