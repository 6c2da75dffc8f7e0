"""Learning rate & gradient norm: how large the steps are meant to be, and how large the gradients are."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from llmlab_gui.charts.curve import CurveStyle
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.charts.marks import ReferenceLine
from llmlab_gui.lab.lab import Lab
from llmlab_gui.train.chart_dock import ChartDock, ShownRun, legend
from llmlab_gui.train.smoothed_column import SmoothedColumn

_SMOOTHING_STEPS = 20
_CAPTION = (
    "Above, the learning rate of each step: warm-up, then the schedule. Below, the length of the gradient before "
    "clipping: spikes warn of instability."
)


class LearningRateDock(ChartDock):
    """Two charts over one x axis."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        self.rate_chart = LineChart("learning rate", short_name="rate")
        self.norm_chart = LineChart("gradient norm", "L2", short_name="norm")
        self._smoothed: dict[str, SmoothedColumn] = {}
        charts = [(self.rate_chart, 2), (self.norm_chart, 3)]
        title = "Learning rate && gradient norm"  # a single & would underline the next letter
        super().__init__(lab, "learning_rate", title, charts, smoothing=_SMOOTHING_STEPS, parent=parent)
        self.setAccessibleName("Learning rate & gradient norm")
        self.caption(_CAPTION, "optimisation")

    def fill(self, runs: list[ShownRun]) -> None:
        rates: set[str] = set()
        norms: set[str] = set()
        for run in runs:
            x = run.history.x(self.panel.x_axis)
            style = CurveStyle(run.color, "learning rate", run.name, width=1.5, z=-run.behind)
            self.rate_chart.set_curve(f"{run.id}/lr", x, run.history.step_columns["lr"], style)
            rates.add(f"{run.id}/lr")
            norms |= self._fill_norms(run)
        self.rate_chart.keep_only(rates)
        self.norm_chart.keep_only(norms)
        self._smoothed = {run.id: self._smoothed[run.id] for run in runs if run.id in self._smoothed}
        self.norm_chart.set_reference_lines(self._clip_line(runs))
        kinds = [curve.style for curve in self.norm_chart.curves().values()]
        self.norm_chart.set_legend(legend(runs, kinds))

    def _fill_norms(self, run: ShownRun) -> set[str]:
        memory = self.panel.memory
        x = run.history.x(self.panel.x_axis)
        raw = CurveStyle(
            run.color, "each step", run.name, alpha=80 if memory else 255, z=1 - run.behind, minor=memory > 0
        )
        self.norm_chart.set_curve(f"{run.id}/norm", x, run.history.step_columns["grad_norm"], raw)
        if not memory:
            return {f"{run.id}/norm"}
        smoothed = self._smoothed.get(run.id)
        if smoothed is None or smoothed.history is not run.history:
            smoothed = self._smoothed[run.id] = SmoothedColumn(run.history, "grad_norm")
        style = CurveStyle(run.color, "smoothed", run.name, width=2.0, z=3 - run.behind)
        self.norm_chart.set_curve(f"{run.id}/smoothed", x, smoothed.values(memory), style)
        return {f"{run.id}/norm", f"{run.id}/smoothed"}

    def _clip_line(self, runs: list[ShownRun]) -> list[ReferenceLine]:
        row = self.lab.row(runs[0].id) if runs else None
        clip = row.info.settings.train.grad_clip if row is not None and row.info is not None else 0.0
        return [ReferenceLine(clip, f"clipped to {clip:g}")] if clip else []
