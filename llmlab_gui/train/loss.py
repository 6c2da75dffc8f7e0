"""Loss: training loss as it is and smoothed, both splits as evaluated, and lines that say what a value means."""

from __future__ import annotations

import numpy as np
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget

from llmlab.core.signs import minus
from llmlab.store.events import NATS, Finished
from llmlab.store.history import RunHistory
from llmlab_gui.charts.curve import CurveStyle, StyledPoints
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.charts.marks import ReferenceLine
from llmlab_gui.lab.lab import Lab
from llmlab_gui.train.batch_text import BatchView
from llmlab_gui.train.chart_dock import ChartDock, ShownRun, legend, pauses
from llmlab_gui.train.loss_unit import NO_BYTES, LossUnit
from llmlab_gui.widgets.theme import current_theme, mix

# Enough to see the trend of a run of a thousand steps, little enough to follow its bends.
_SMOOTHING_STEPS = 20
# Pixels of the chart, in which curves can be read under one row of the legend: a lower panel scrolls.
_LEAST_HEIGHT = 150
_GAP_TIP = (
    "Validation loss minus training loss at the last evaluation, in {}:\n"
    "above 0, the model fits better what it was trained on."
)
_CAPTION = (
    "It starts near the uniform loss, ln V. Training loss of each step; both splits measured on fixed sequences: "
    "the tinted gap between them is overfitting. Dotted vertical lines: pauses and restarts."
)


class LossDock(ChartDock):
    """The chart that a learner watches most."""

    edge = 2.0

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        self.chart = LineChart("loss", NATS)
        self.chart.setMinimumHeight(_LEAST_HEIGHT)
        self.unit, self.batch = LossUnit(self.chart, self._unit_chosen), BatchView(lab)
        super().__init__(
            lab,
            "loss",
            "Loss",
            [(self.chart, 1)],
            smoothing=_SMOOTHING_STEPS,
            controls=[self.unit.button, self.batch.button],
            aside=self.batch,
            parent=parent,
        )
        self.caption(_CAPTION, "loss-curves")
        self.chart.chosen.connect(lambda x: self.batch.show_at(x, self.panel.x_axis))

    def fill(self, runs: list[ShownRun]) -> None:
        curves: dict[str, StyledPoints] = {}
        self.unit.settle(run.history.worker for run in runs)
        scales = {run.id: self.unit.scale(run.history.worker) for run in runs}
        for run in runs:
            scale = scales[run.id]
            if scale is not None:
                curves |= self._curves_of(run, scale)
        self.chart.show_curves(curves)
        current = runs[0] if runs else None
        self.batch.show_run(current)
        scale = scales[current.id] if current else None
        self.chart.set_reference_lines(reference_lines(current.history, scale) if current and scale else [])
        self.chart.set_spans(pauses(current, self.panel.x_axis) if current else [])
        band = (f"{current.id}/val", f"{current.id}/evaluated") if current else None
        self.chart.set_band(band, current.color if current else None)
        kinds = [curve.style for key, curve in self.chart.curves().items() if len(curve.x)]
        missing = {run.id: NO_BYTES for run in runs if scales[run.id] is None and run.history.worker is not None}
        self.chart.set_legend(legend(runs, kinds, missing))
        notes = [gap_note(current.history, scale) if current and scale else "", self.unit.note]
        self.panel.set_note(" · ".join(filter(None, notes)), _GAP_TIP.format(self.chart.y_unit) if notes[0] else "")

    def _unit_chosen(self) -> None:
        self.panel.set_follow(True)
        self.panel.mark_dirty()

    def _curves_of(self, run: ShownRun, scale: float) -> dict[str, StyledPoints]:
        history, axis = run.history, self.panel.x_axis
        curves = self.steps_of(run, "loss", "train", "train, ")
        evaluations = history.evaluations
        shade = mix(run.color, current_theme().text, 0.45)  # darker where text is dark
        for key, column, style in (
            (
                "evaluated",
                "train_loss",
                CurveStyle(shade, "train, evaluated", run.name, dotted=True, markers="s", z=4 - run.behind, minor=True),
            ),
            (
                "val",
                "val_loss",
                CurveStyle(shade, "validation", run.name, width=1.5, markers="o", z=5 - run.behind, edge=run.edge),
            ),
        ):
            finite = np.isfinite(evaluations[column])
            at = history.x(axis, evaluations["step"][finite])
            curves[f"{run.id}/{key}"] = (at, evaluations[column][finite], style)
        best = _best(history)
        for key, label, marker, place in (
            ("best", "best validation", "star", best),
            ("final", "final validation", "d", _final(history)),
        ):
            if place is not None and (key == "best" or place != best):
                mark = CurveStyle(
                    QColor(current_theme().good),
                    label,
                    run.name,
                    width=1.5,
                    markers=marker,
                    marker_size=13,
                    z=6 - run.behind,
                    minor=True,
                )
                curves[f"{run.id}/{key}"] = (history.x(axis, np.array([place[0]])), np.array([place[1]]), mark)
        return {key: (x, y if scale == 1 else y * scale, style) for key, (x, y, style) in curves.items()}


def reference_lines(history: RunHistory, scale: float = 1.0) -> list[ReferenceLine]:
    """What a loss means: guessing blindly, knowing only how frequent tokens are, and (generated text) the least.

    scale: of the chart's unit, one where it is nats per token.
    """
    started = history.started
    if started is None or not started.reached_training:
        return []
    meanings = (
        (started.uniform_loss, "uniform {:.2f}: all {:,.0f} tokens equally likely"),
        (started.unigram_loss, "unigram {:.2f}: only how frequent each token is"),
        (started.floor_loss, "floor {:.2f}: the entropy of the text itself"),
    )
    return [
        ReferenceLine(value * scale, text.format(value * scale, np.exp(value)))
        for value, text in meanings
        if value is not None and np.isfinite(value)
    ]


def gap_note(history: RunHistory, scale: float = 1.0) -> str:
    """Validation minus training loss at the newest evaluation, in words; empty before the first."""
    if not len(history.evaluations):
        return ""
    gap = scale * float(history.evaluations["val_loss"][-1] - history.evaluations["train_loss"][-1])
    return f"validation − train: {minus(f'{gap:+.3f}')}" if np.isfinite(gap) else ""


def _best(history: RunHistory) -> tuple[float, float] | None:
    losses = history.evaluations["val_loss"]
    if len(losses) < 2 or not np.isfinite(losses).any():
        return None
    index = int(np.nanargmin(losses))
    return float(history.evaluations["step"][index]), float(losses[index])


def _final(history: RunHistory) -> tuple[float, float] | None:
    """Where the checkpoint `final` stands, once the run is finished."""
    ended = history.ended
    if not isinstance(ended, Finished) or ended.val_loss is None or not np.isfinite(ended.val_loss):
        return None
    return float(ended.step), ended.val_loss
