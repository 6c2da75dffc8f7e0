"""A finished run's loss curve, read closely: trend, spikes, overfitting, the learning rate's marks, noise. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmlab.core.charts import Axis
from llmlab.core.errors import LabError
from llmlab.store.history import RunHistory, read_history
from llmlab.store.registry import resolve_run
from llmlab.studies.experiments.gathered import hardware
from llmlab.studies.experiments.outcomes import (
    STEP_AXIS,
    Chart,
    Curve,
    ExperimentResults,
    Finding,
    Mark,
    Point,
    Spike,
    TrialResult,
    in_bits,
)
from llmlab.studies.plans.records import ExperimentFolder, ExperimentRecord

Array = np.ndarray

# A spike stands so many robust standard deviations (1.4826 median absolute deviations) above the median around it,
# and is seen among at least so many steps to each side. Six: one in 10^9 for normal noise.
SPIKE_SIGMAS = 6.0
_SPIKE_SIDE = 25
_MOST_SPIKES = 20
# Overfitting begins at the lowest validation loss when it ends more than 1 % above it; fixed windows make it no noise.
_RISE = 0.01
# A jump of the learning rate is at least so much of the peak: a decay to zero halves again and again at its very end.
_JUMP = 0.1
_DRAWN = 2000  # points of a curve that a chart shows
_LOSS = Axis("loss", "nats per token")


def look_at_run(folder: ExperimentFolder, record: ExperimentRecord, *, look_closely: bool) -> ExperimentResults:
    """All that a run's events tell. look_closely: also the texts of spikes and the gradient noise, with its model."""
    run = resolve_run(record.subject, folder.outputs).run
    info, history = run.info(), read_history(run)
    if len(history.step_columns) < 2:
        raise LabError(f"{run.id} has no loss curve yet.", f"It has done {history.last_step} steps.", "Train it first.")
    loss = history.step_columns["loss"]
    spikes = find_spikes(history)
    findings, notes = _findings(history, spikes), list[str]()
    target = record.options.get("target")
    if isinstance(target, (int, float)):
        step, seconds = time_to(history, float(target)) or (None, 0.0)
        text = "not reached" if step is None else f"after {seconds:.1f} s of training"
        label = f"steps to a validation loss of {target:g}"
        findings.append(Finding("steps_to_target", label, step, unit="steps", text=text))
    if look_closely:
        from llmlab.studies.experiments.closely import gradient_noise, with_texts

        spikes, of_texts = with_texts(run, history, spikes, folder.outputs)
        noise, of_noise = gradient_noise(run, folder.outputs)
        findings += noise
        notes += of_texts + of_noise
    if run.events.stat().st_size and len(loss) < history.last_step:
        notes.append(f"{len(loss)} of {history.last_step} steps are in the events: the others were not written down.")
    status, charts = run.status(), _charts(history, spikes)
    scale = history.worker.bits_per_byte if history.worker is not None else None
    trial = TrialResult(
        name=run.id,
        run=run.id,
        group="",
        x=0.0,
        seed=info.settings.train.seed,
        state=status.state,
        steps=history.last_step,
        parameters=history.worker.parameters if history.worker else None,
        tokens=int(history.step_columns["tokens"][-1]),
        train_loss=history.evaluated[-1].train_loss if history.evaluated else None,
        val_loss=history.evaluated[-1].val_loss if history.evaluated else None,
        seconds=history.active_seconds,
    )
    return ExperimentResults(
        id=record.id,
        kind=record.kind,
        complete=True,
        trials=[trial],
        charts=charts,
        findings=findings,
        spikes=spikes,
        notes=notes,
        seconds=history.active_seconds,
        hardware=hardware([history]),
        versions={"llmlab": info.code_version} | info.versions,
        other_unit=[_scaled(charts[0], scale)] if scale is not None else [],
    )


def find_spikes(history: RunHistory, least: float = SPIKE_SIGMAS) -> list[Spike]:
    """The steps whose loss stands out from those around them, highest first; one for each burst of steps.

    least: robust standard deviations by which they do.
    """
    loss, step = history.step_columns["loss"], history.step_columns["step"]
    if len(loss) < 2 * _SPIKE_SIDE:  # too short to know what is usual
        return []
    middle, deviation = robust_trend(loss)
    height = (loss - middle) / deviation
    found: list[Spike] = []
    taken = np.zeros(len(loss), dtype=bool)
    for i in np.argsort(-height):
        if height[i] < least or len(found) == _MOST_SPIKES:
            break
        near = slice(max(0, i - 5), i + 6)  # a spike decays over some steps: those are the same one
        if not taken[near].any():
            columns = loss, middle, height, history.step_columns["grad_norm"], history.step_columns["lr"]
            at, expected, sigmas, grad_norm, rate = (float(column[i]) for column in columns)
            found.append(Spike(int(step[i]), at, expected, sigmas, grad_norm, rate))
        taken[near] = True
    return found


def robust_trend(loss: Array) -> tuple[Array, Array]:
    """What the steps around each one lead to expect, and the robust standard deviation about it; both [step].

    Expected is the mean of the medians of the steps before and after: exact on a straight line, so a steep fall is
    no spike. Beyond its ends the curve is continued by turning it about them.
    """
    side = _SPIKE_SIDE
    windows = _windows(np.pad(loss, side, mode="reflect", reflect_type="odd"))
    middle = (_medians(windows[:, :side]) + _medians(windows[:, side + 1 :])) / 2
    around = _windows(np.pad(np.abs(loss - middle), side, mode="reflect"))
    # Two smooth curves can agree by chance: no less noise than differences of neighbours show, or than a digit.
    steps = np.abs(np.diff(loss, prepend=loss[0]))
    between = _medians(_windows(np.pad(steps, side, mode="reflect"))) / np.sqrt(2)
    return middle, 1.4826 * np.maximum.reduce([_medians(around), between, np.full(len(loss), 1e-3)])


def _medians(windows: Array) -> Array:
    """Of each row, an odd number of steps. np.median takes four times as long, which a window of charts waits for."""
    return np.partition(windows, windows.shape[1] // 2, axis=1)[:, windows.shape[1] // 2]


def _windows(padded: Array) -> Array:
    """[step, 2 * _SPIKE_SIDE + 1]: the steps around each one."""
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * _SPIKE_SIDE + 1)


def smooth(values: Array, half_life: float) -> Array:
    """Exponential moving average over both sides, which lags neither way: weights halve every `half_life` steps."""
    return (_averaged(values, half_life) + _averaged(values[::-1], half_life)[::-1]) / 2


def _averaged(values: Array, half_life: float) -> Array:
    """Over what came before and the step itself, without the pull of a start at zero."""
    keep = 0.5 ** (1 / half_life)
    mean, weight, averaged = 0.0, 0.0, np.empty(len(values))
    for i, value in enumerate(values):
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        averaged[i] = mean / weight
    return averaged


def overfitting_onset(history: RunHistory) -> int | None:
    """The step of the lowest validation loss, where it ends more than 1 % above while the training loss went on
    falling; None where it does not."""
    rows = [row for row in history.evaluated if np.isfinite(row.val_loss) and np.isfinite(row.train_loss)]
    if len(rows) < 3:
        return None
    lowest = min(rows, key=lambda row: row.val_loss)
    last = rows[-1]
    turned = last.val_loss > (1 + _RISE) * lowest.val_loss and last.train_loss < lowest.train_loss
    return lowest.step if turned else None


@dataclass(frozen=True)
class RateEvents:
    """Where the learning rate changes its course. decay_end: where it reaches its lowest, before the end."""

    warmup_end: int | None
    decay_start: int | None
    decay_end: int | None
    jumps: tuple[int, ...]  # steps at which it changes at once by more than a factor of two and a tenth of the peak


def rate_events(history: RunHistory) -> RateEvents:
    """Read from the `lr` of the steps alone."""
    lr, step = history.step_columns["lr"], history.step_columns["step"].astype(int)
    peak = lr.max()
    if not peak > 0:
        return RateEvents(None, None, None, ())
    at_peak = np.flatnonzero(lr >= peak * (1 - 1e-9))
    first, last = at_peak[0], at_peak[-1]
    low = np.flatnonzero(lr[last:] <= lr[last:].min() * (1 + 1e-9)) + last
    ratio = lr[1:] / np.maximum(lr[:-1], 1e-30)
    far = np.abs(np.diff(lr)) > _JUMP * peak
    jumps = np.flatnonzero(far & ((ratio > 2) | (ratio < 0.5))) + 1
    jumps = jumps[jumps > first]  # the first steps of a warm-up double by themselves
    return RateEvents(
        int(step[first]) if first > 0 else None,
        int(step[last]) if last + 1 < len(lr) else None,
        int(step[low[0]]) if last + 1 < len(lr) and low[0] + 1 < len(lr) else None,
        tuple(int(step[i]) for i in jumps),
    )


def time_to(history: RunHistory, target: float) -> tuple[int, float] | None:
    """Step and seconds of training at which the validation loss first is at most `target`, between evaluations."""
    steps, seconds = history.step_columns["step"], history.step_columns["active_seconds"]
    before = None
    for row in history.evaluated:
        if row.val_loss <= target:
            at = float(row.step)
            if before is not None and before.val_loss > row.val_loss:
                done = (before.val_loss - target) / (before.val_loss - row.val_loss)
                at = before.step + (row.step - before.step) * done
            return round(at), float(np.interp(at, steps, seconds))
        before = row
    return None


def _findings(history: RunHistory, spikes: Sequence[Spike]) -> list[Finding]:
    onset, events = overfitting_onset(history), rate_events(history)
    kept_low = "" if onset is not None else "it does not: the validation loss does not turn up by 1 %"
    loss = history.step_columns["loss"]
    tail = loss[-max(2, len(loss) // 5) :]
    noise = float(1.4826 * np.median(np.abs(np.diff(tail) - np.median(np.diff(tail)))) / np.sqrt(2))
    findings = [
        Finding("spikes", f"spikes of {SPIKE_SIGMAS:g} robust standard deviations and more", len(spikes)),
        Finding("overfitting_step", "step at which overfitting begins", onset, unit="steps", text=kept_low),
        Finding("step_noise", "scatter of a step's loss, last fifth of the run", noise, unit="nats per token"),
    ]
    if history.evaluated:
        last = history.evaluated[-1]
        gap = last.val_loss - last.train_loss
        findings.append(Finding("gap", "validation minus training loss at the end", gap, unit="nats per token"))
    smoothed = smooth(loss, max(1.0, len(loss) / 100))
    fall = loss[0] - smoothed[-1]
    if fall > 0:
        reached = np.flatnonzero(smoothed <= loss[0] - 0.9 * fall)
        at = int(history.step_columns["step"][reached[0]])
        findings.append(Finding("most_of_the_fall", "step at which 90 % of the fall was done", at, unit="steps"))
    for name, label, value in (
        ("warmup_end", "first step at the highest learning rate", events.warmup_end),
        ("decay_start", "last step at the highest learning rate", events.decay_start),
        ("decay_end", "lowest learning rate reached", events.decay_end),
    ):
        if value is not None:
            findings.append(Finding(name, label, value, unit="steps"))
    if events.jumps:
        findings.append(Finding("rate_jumps", "jumps of the learning rate", len(events.jumps)))
    return findings


def _charts(history: RunHistory, spikes: Sequence[Spike]) -> list[Chart]:
    step, loss = history.step_columns["step"], history.step_columns["loss"]
    events, onset = rate_events(history), overfitting_onset(history)
    rows = [row for row in history.evaluated if np.isfinite(row.val_loss)]
    curves = [
        Curve("loss of a step", _points(step, loss), faint=True),
        Curve("smoothed", _points(step, smooth(loss, max(1.0, len(loss) / 100)))),
        Curve("training loss, measured", [Point(row.step, row.train_loss) for row in rows]),
        Curve("validation loss", [Point(row.step, row.val_loss) for row in rows]),
        Curve("spikes", [Point(s.step, s.loss) for s in sorted(spikes, key=lambda s: s.step)], line=False),
    ]
    marks = [] if onset is None else [Mark(onset, "overfitting begins")]
    if events.warmup_end is not None:
        marks.append(Mark(events.warmup_end, "warm-up ends"))
    if events.decay_start is not None and events.decay_start != events.warmup_end:
        marks.append(Mark(events.decay_start, "decay begins"))
    marks += [Mark(at, "rate jumps") for at in events.jumps]
    of_rate = [mark for mark in marks if mark.label != "overfitting begins"]
    rate = [Curve("learning rate", _points(step, history.step_columns["lr"]))]
    norm = smooth(history.step_columns["grad_norm"], len(loss) / 50 + 1)
    noise = [
        Curve("scatter of the loss", _points(step, robust_trend(loss)[1])),
        Curve("gradient norm, smoothed", _points(step, norm)),
    ]
    title, noise_axis = "Scatter of a step's loss and norm of the gradient", Axis("nats per token, and norm", log=True)
    return [
        Chart("loss", "Loss", STEP_AXIS, _LOSS, [curve for curve in curves if curve.points], marks=marks),
        Chart("learning-rate", "Learning rate", STEP_AXIS, Axis("learning rate"), rate, marks=of_rate),
        Chart("noise", title, STEP_AXIS, noise_axis, noise),
    ]


def _scaled(chart: Chart, scale: float) -> Chart:
    """A chart of losses in bits per byte."""
    curves = [replace(one, points=[replace(point, y=scale * point.y) for point in one.points]) for one in chart.curves]
    return replace(chart, y_axis=in_bits(chart.y_axis), curves=curves)


def _points(x: Array, y: Array) -> list[Point]:
    """At most `_DRAWN` points: of each stretch its lowest and its highest, so that no spike goes missing."""
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) > _DRAWN:
        parts = np.array_split(np.arange(len(x)), _DRAWN // 2)
        kept = sorted({int(part[pick]) for part in parts for pick in (np.argmin(y[part]), np.argmax(y[part]))})
        x, y = x[kept], y[kept]
    return [Point(float(at), float(value)) for at, value in zip(x, y, strict=True)]
