"""Learning rate & gradient norm: how large the steps are meant to be, and how large the gradients are."""

from __future__ import annotations

from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget

from llmlab_gui.charts.curve import CurveStyle, StyledPoints
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.charts.marks import ReferenceLine
from llmlab_gui.lab.lab import Lab
from llmlab_gui.train.chart_dock import ChartDock, ShownRun, legend
from llmlab_gui.widgets.theme import current_theme

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
        charts = [(self.rate_chart, 2), (self.norm_chart, 3)]
        title = "Learning rate && gradient norm"  # a single & would underline the next letter
        super().__init__(lab, "learning_rate", title, charts, smoothing=_SMOOTHING_STEPS, parent=parent)
        self.setAccessibleName("Learning rate & gradient norm")
        self.caption(_CAPTION, "optimisation")

    def fill(self, runs: list[ShownRun]) -> None:
        rates: dict[str, StyledPoints] = {}
        norms: dict[str, StyledPoints] = {}
        for run in runs:
            style = CurveStyle(run.color, "learning rate", run.name, width=1.5, z=-run.behind)
            rates[f"{run.id}/lr"] = (run.history.x(self.panel.x_axis), run.history.step_columns["lr"], style)
            norms |= self.steps_of(run, "grad_norm", "norm")
        self.rate_chart.show_curves(rates)
        self.norm_chart.show_curves(norms)
        row = self.lab.row(runs[0].id) if runs else None
        clip = row.info.settings.train.grad_clip if row is not None else 0.0
        # In the legend: on the line, the words would lie over the norms, which are about as large.
        self.norm_chart.set_reference_lines([ReferenceLine(clip)] * bool(clip))
        entry = CurveStyle(QColor(current_theme().quiet), f"clipped at {clip:g}", dotted=True)
        kinds = [curve.style for curve in self.norm_chart.curves().values()]
        self.norm_chart.set_legend([*legend(runs, kinds), *[entry] * bool(clip)])
