"""What else is charted over a run's steps: learning rate and gradient norm; speed, share of the machine, and memory."""

from __future__ import annotations

import numpy as np
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget

from llmlab_gui.charts.curve import CurveStyle, StyledPoints
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.charts.marks import ReferenceLine
from llmlab_gui.lab.lab import Lab
from llmlab_gui.train.chart_dock import ChartDock, ShownRun, legend, pauses
from llmlab_gui.widgets.theme import current_theme

_SMOOTHING_STEPS = 20
_CAPTION_OF_RATES = (
    "The learning rate of each step: warm-up, then the schedule. The length of the gradient before clipping: spikes "
    "warn of instability. Dotted vertical lines: pauses and restarts."
)


class LearningRateDock(ChartDock):
    """Two charts over one x axis."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        self.rate_chart = LineChart("learning rate", short_name="rate")
        self.norm_chart = LineChart("gradient norm", "L2", short_name="norm")
        charts = [(self.rate_chart, 2), (self.norm_chart, 3)]
        title = "Learning rate && gradient norm"  # a single & would underline the next letter
        super().__init__(lab, "learning_rate", title, charts, smoothing=_SMOOTHING_STEPS, parent=parent)
        self.setAccessibleName("Learning rate & gradient norm")
        self.caption(_CAPTION_OF_RATES, "optimisation")

    def fill(self, runs: list[ShownRun]) -> None:
        rates: dict[str, StyledPoints] = {}
        norms: dict[str, StyledPoints] = {}
        for run in runs:
            style = CurveStyle(run.color, "learning rate", run.name, width=1.5, z=-run.behind, edge=run.edge)
            rates[f"{run.id}/lr"] = (run.history.x(self.panel.x_axis), run.history.step_columns["lr"], style)
            norms |= self.steps_of(run, "grad_norm", "norm")
        self.rate_chart.show_curves(rates)
        self.norm_chart.show_curves(norms)
        spans = pauses(runs[0], self.panel.x_axis) if runs else []
        for chart in (self.rate_chart, self.norm_chart):
            chart.set_spans(spans)
        row = self.lab.row(runs[0].id) if runs else None
        clip = row.info.settings.train.grad_clip if row is not None else 0.0
        # In the legend: on the line, the words would lie over the norms, which are about as large.
        self.norm_chart.set_reference_lines([ReferenceLine(clip)] * bool(clip))
        entry = CurveStyle(QColor(current_theme().quiet), f"clipped at {clip:g}", dotted=True)
        kinds = [curve.style for curve in self.norm_chart.curves().values()]
        self.norm_chart.set_legend([*legend(runs, kinds), *[entry] * bool(clip)])


_CAPTION_OF_SPEEDS = (
    "Tokens trained on per second; MFU, the share of the fastest matrix products measured on this machine; memory. "
    "For several processes: the tokens of all, the memory of the first and, dotted, the share of the time that goes to "
    "communication. Shaded: the run was paused or interrupted."
)
_PEAKS_TIP = (
    "Each run's peak was measured at its own precision and number of threads,\n"
    "so their MFU cannot be compared: compare speeds instead."
)
_MIB = 2.0**20


class ThroughputDock(ChartDock):
    """Three charts over one x axis."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        self.speed_chart = LineChart("speed", "tokens/s", "large", from_zero=True)
        self.mfu_chart = LineChart("MFU", "%", "percent", from_zero=True)
        self.memory_chart = LineChart("memory", "MiB", "large", from_zero=True)
        # Each chart's column, and what one of its units is of the chart's.
        self._columns = (
            (self.speed_chart, "tokens_per_second", 1.0),
            (self.mfu_chart, "mfu", 100.0),
            (self.memory_chart, "memory_bytes", 1 / _MIB),
        )
        charts = [(self.speed_chart, 4), (self.mfu_chart, 3), (self.memory_chart, 4)]
        super().__init__(lab, "throughput", "Throughput", charts, parent=parent)
        self.caption(_CAPTION_OF_SPEEDS, "optimisation")

    def fill(self, runs: list[ShownRun]) -> None:
        axis = self.panel.x_axis
        spans = pauses(runs[0], axis) if runs else []
        for chart, column, factor in self._columns:
            curves: dict[str, StyledPoints] = {}
            for run in runs:
                x, y = run.history.x(axis), run.history.step_columns[column] * factor
                if axis == "elapsed":
                    x, y = broken(x, y, [span.low for span in pauses(run, axis)])
                style = CurveStyle(run.color, chart.y_label, run.name, width=1.5, z=-run.behind, edge=run.edge)
                curves[run.id] = (x, y, style)
            chart.show_curves(curves | (self._waiting(runs, axis) if chart is self.mfu_chart else {}))
            chart.set_spans(spans)
        self.speed_chart.set_legend(legend(runs, []) if len(runs) > 1 else [])  # a third of the width has no room
        shared = _shared_words(runs[0], runs) if runs and runs[0].history.shares else ""
        peaks = _peak_words(runs)
        self.panel.set_note(" · ".join(filter(None, (shared, peaks))), _PEAKS_TIP if peaks else "")

    def _waiting(self, runs: list[ShownRun], axis: str) -> dict[str, StyledPoints]:
        """How long the slowest of several processes waits."""
        curves = {}
        for run in runs:
            if shares := run.history.shares:
                x = run.history.x(axis, np.array([share.step for share in shares], dtype=np.float64))
                style = CurveStyle(run.color, "waiting", run.name, dotted=True, z=-run.behind, minor=True)
                curves[f"{run.id} waiting"] = (x, np.array([100 * share.waiting for share in shares]), style)
        return curves


def _peak_words(runs: list[ShownRun]) -> str:
    """Where runs are shown whose shares are of different peaks: these."""
    began = [run.history.worker for run in runs]
    peaks = {f"{one.peak_flops / 1e12:.3g} ({one.precision})" for one in began if one is not None and one.peak_flops}
    return f"MFU of {', '.join(sorted(peaks))} TFLOP/s" if len(peaks) > 1 else ""


def _shared_words(run: ShownRun, others: list[ShownRun]) -> str:
    """How the processes of a run share the work, and what that gains beside a shown run of one such process."""
    words, mine = run.history.shares[-1].words, run.history.worker
    for other in others:
        one = other.history.worker
        if other is run or mine is None or one is None or (one.processes, one.threads) != (1, mine.threads):
            continue
        if one.settings | {"distributed": {}} == mine.settings | {"distributed": {}}:
            speeds = [np.median(each.history.step_columns["tokens_per_second"]) for each in (run, other)]
            times = float(speeds[0] / speeds[1])
            gained = f"{times:.2f} times as fast as {other.name}"
            return f"{words}; {gained}, {times / mine.processes:.0%} of {mine.processes}"
    return words


def broken(x: np.ndarray, y: np.ndarray, places: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """The curve with a gap after each place, where nothing was trained."""
    at = np.searchsorted(x, places, side="right")
    return np.insert(x, at, places), np.insert(y, at, np.nan)
