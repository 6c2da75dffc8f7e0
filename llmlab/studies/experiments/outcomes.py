"""What came out of an experiment: results.json, typed and ready to draw. No torch.

The window, the figures and the report all read this file, so they show the same numbers.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

from llmlab.core.charts import FAINT, FIT, MEASURED, POINTS, Axis, Note, NotedChart, Series
from llmlab.core.files import write_json
from llmlab.core.records import formerly, read_record, to_plain
from llmlab.data.example_preview import BatchText
from llmlab.store.events import BITS, NATS
from llmlab.studies.plans.records import ExperimentFolder, ExperimentRecord

STEP_AXIS = Axis("step", "steps")
LOSS_AXIS = Axis("validation loss", NATS)
_MOST_LABELS = 12  # of a curve's points in a figure


@dataclass(frozen=True)
class TrialResult:
    """One run, from its own events. state: as TrialStatus. Losses in nats per token, of the last evaluation.

    diverged_at: the step at which the rule found it diverged. tokens: read in training. seconds: of training.
    """

    name: str
    run: str
    group: str
    x: float
    seed: int
    state: str
    steps: int = 0
    parameters: int | None = None
    tokens: int | None = None
    start_loss: float | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    best_val_loss: float | None = None
    best_step: int | None = None
    diverged_at: int | None = None
    seconds: float = 0.0
    score: float | None = None  # share of items answered rightly after fine-tuning
    note: str = ""


@dataclass(frozen=True)
class Point:
    """A point of a curve: the mean of `runs` runs. low, high: one standard error to each side, where runs > 1."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    runs: int = 1
    label: str = ""


@dataclass(frozen=True)
class Curve:
    """Measured points that belong together, in order. line: whether they are joined. faint: background."""

    name: str
    points: list[Point]
    line: bool = True
    faint: bool = False

    def drawn(self) -> Series:
        """For `llmlab.core.figures`."""
        x, y = [point.x for point in self.points], [point.y for point in self.points]
        kind = FAINT if self.faint else MEASURED if self.line else POINTS
        ranges = [(point.low, point.high) for point in self.points]
        if all(None in ends for ends in ranges):
            return Series(self.name, x, y, kind)
        low, high = ([math.nan if end is None else end for end in ends] for ends in zip(*ranges, strict=True))
        return Series(self.name, x, y, kind, low, high)


@dataclass(frozen=True)
class Fit:
    """A fitted function: its parameters, and what to draw. low, high: a 90 % band, empty where there is none."""

    name: str
    formula: str
    parameters: dict[str, float]
    x: list[float]
    y: list[float]
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def drawn(self) -> Series:
        """For `llmlab.core.figures`."""
        return Series(f"{self.name}: {self.formula}", self.x, self.y, FIT, self.low, self.high)


@dataclass(frozen=True)
class Mark:
    """A value on the x axis that the chart names."""

    x: float
    label: str


@dataclass(frozen=True)
class Chart:
    """One figure. name: of its files."""

    name: str
    title: str
    x_axis: Axis
    y_axis: Axis
    curves: list[Curve]
    fits: list[Fit] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)

    def drawn(self, start: float | None) -> NotedChart:
        """For `llmlab.core.figures`. start: the highest loss of a run before training.

        Curves of runs that diverged would squeeze all others: losses far above the start are out of sight.
        """
        series = [curve.drawn() for curve in self.curves] + [fit.drawn() for fit in self.fits]
        notes = [Note(mark.x, mark.label) for mark in self.marks]
        for curve in self.curves:
            few = curve.points if len(curve.points) <= _MOST_LABELS else []
            notes += [Note(p.x, p.label, p.y) for p in few if p.label and not p.label.startswith("step")]
        losses = [point.y for curve in self.curves for point in curve.points if math.isfinite(point.y)]
        limited = self.y_axis.unit == NATS and not self.y_axis.log and "loss" in self.y_axis.label
        far = limited and start is not None and max(losses, default=0.0) > 1.15 * start
        top = 1.1 * start if far and start is not None else None
        return NotedChart(self.name, self.title, self.x_axis, self.y_axis, series, notes=notes, top=top)


@dataclass(frozen=True)
class Finding:
    """A number that came out; name: what a prediction calls it. text: what it means.

    low, high: its 90 % range where a fit gives one; of a mean over seeds one standard error to each side. choice: the
    answer where it is a name and no number ("best_arm").
    """

    name: str
    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    text: str = ""
    choice: str = ""


@dataclass(frozen=True)
class Spike:
    """A step whose loss stands out. expected: the median around it. sigmas: robust standard deviations above it."""

    step: int
    loss: float
    expected: float
    sigmas: float
    grad_norm: float
    lr: float
    batch: list[BatchText] = field(default_factory=list)


@dataclass(frozen=True)
class ExperimentResults:
    """All of it. complete: every trial has ended, and was measured where its kind asks for it.

    charts: the first is the main one; the findings are in their units. other_unit: those of them that show losses once
    more, in bits per byte where they are in nats per token, or the other way round where the runs cut their text into
    different tokens; empty where a run does not say how long its tokens are. seconds: of training, all runs together.
    hardware, versions: as the runs recorded
    them; processor, cores and system are those of the machine that wrote the results.
    """

    id: str
    kind: str
    complete: bool
    trials: list[TrialResult] = field(metadata=formerly("arms"))
    charts: list[Chart]
    findings: list[Finding]
    spikes: list[Spike] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    hardware: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    other_unit: list[Chart] = field(default_factory=list)

    def drawn(self) -> list[NotedChart]:
        """Its charts that have a point, for `llmlab.core.figures`."""
        start = max((trial.start_loss for trial in self.trials if trial.start_loss is not None), default=None)
        return [chart.drawn(start) for chart in self.charts if any(curve.points for curve in chart.curves)]

    def value(self, name: str) -> float | None:
        """What was found for a quantity of the kind, for scoring a prediction; None when it was not found."""
        return next((finding.value for finding in self.findings if finding.name == name), None)


@dataclass(frozen=True)
class Forecast:
    """What a fit to the trials before it predicts for a trial: written before its run begins, and never again.

    written: Unix seconds. low, high: 90 % range of one new run. a, b, c: of a x^-b + c. trials: those it was fitted to.
    """

    trial: str = field(metadata=formerly("arm"))
    x: float
    value: float
    low: float | None
    high: float | None
    a: float
    b: float
    c: float
    trials: list[str] = field(metadata=formerly("arms"))
    written: float


def in_bits(axis: Axis) -> Axis:
    """The axis of the same losses in bits per byte; any other axis as it is, that of a general text's loss included."""
    is_loss = axis.unit == NATS and not axis.label.endswith("on general text")
    return dataclasses.replace(axis, unit=BITS) if is_loss else axis


def read_forecast(folder: ExperimentFolder) -> Forecast | None:
    """forecast.json; None when there is none, or it is damaged."""
    return read_record(Forecast, folder.forecast_json)


def read_results(folder: ExperimentFolder) -> ExperimentResults | None:
    """results.json; None when there is none yet, or it is damaged."""
    return read_record(ExperimentResults, folder.results_json)


def write_results(folder: ExperimentFolder, results: ExperimentResults) -> None:
    """Replaces results.json. Raises OSError."""
    write_json(folder.results_json, to_plain(dataclasses.asdict(results)))


# Measured on checkpoints ----------------------------------------------------------------------------------------------

MEASURED_KINDS = ("forgetting", "lora-rank")  # whose runs are measured
# Of general text, on which forgetting is measured: about 6,000 predictions, the same ones every time, so that their
# noise cancels.
SEQUENCES, LENGTH = 48, 128
BASE = "base"  # the measurement of what all runs began from


@dataclass(frozen=True)
class Measurement:
    """Of a trial. general: [step, loss on general text]. effective_rank: mean over the adapted matrices at the end."""

    text: str = ""  # what the general text is
    tokens: int = 0
    general: list[list[float]] = field(default_factory=list)
    effective_rank: float | None = None
    change_norm: float | None = None  # of all adapters together
    note: str = ""  # why something could not be measured


def read_measurement(folder: ExperimentFolder, name: str) -> Measurement | None:
    """The measurement of a trial or of BASE; None when there is none yet."""
    return read_record(Measurement, folder.measurements / f"{name}.json")


def awaits_measurement(folder: ExperimentFolder, record: ExperimentRecord, name: str) -> bool:
    """Whether a finished trial has yet to be measured: what its experiment asks for is not known before."""
    return record.kind in MEASURED_KINDS and read_measurement(folder, name) is None
