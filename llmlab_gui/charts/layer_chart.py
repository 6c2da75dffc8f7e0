"""Lines over layers, tokens or steps: a few of them, drawn when they change, in the theme's colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PySide6.QtGui import QColor

from llmlab_gui.charts.curve import CurveStyle
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.widgets.layouts import settling_timer
from llmlab_gui.widgets.saving import Table
from llmlab_gui.widgets.theme import Theme, current_theme, theme_notifier


@dataclass(frozen=True)
class Line:
    """x and y [N], x ascending. color: a place among the theme's series, -1 for its text. dotted: a mean, a bound.

    legend: what stands over the chart, the label if None, nothing if "".
    """

    label: str
    x: npt.NDArray[np.floating]
    y: npt.NDArray[np.floating]
    color: int = 0
    dotted: bool = False
    markers: bool = False
    legend: str | None = None


def numbered(label: str, values: npt.ArrayLike, *, color: int = 0, **looks: Any) -> Line:
    """values [N] at 0, 1, 2 ...: of layers, or of tokens."""
    y = np.asarray(values, np.float64)
    return Line(label, np.arange(len(y), dtype=np.float64), y, color, **looks)


class LayerChart(LineChart):
    """A LineChart that draws itself. Hovering reads all lines at the nearest place."""

    def __init__(self, y_label: str, y_unit: str = "", *, x_label: str = "layer") -> None:
        self.lines: list[Line] = []  # what is shown
        super().__init__(y_label, y_unit)
        self.needs_redraw.connect(settling_timer(self, 0, self.draw).start)
        self.set_x_axis(x_label, "count")
        self.pointed.connect(self.cross_hair.point_at)
        theme_notifier.changed.connect(self._retheme)

    def table(self) -> Table:
        """All points: line, x, y."""
        rows = [(line.label, float(x), y) for line in self.lines for x, y in zip(line.x, line.y, strict=True)]
        return ("line", self.x_label, self.y_label), rows

    def show_lines(self, lines: Sequence[Line], *, x: str = "", y: str = "", unit: str = "") -> None:
        """Replaces all lines and shows the whole of them. x, y, unit: of the axes, where they change."""
        if x and x != self.x_label:
            self.set_x_axis(x, "count")
        if y:
            self.name_y(y, unit)
        self.lines = [replace(line, markers=line.markers or len(line.x) == 1) for line in lines]  # a point is no line
        theme = current_theme()
        for number, line in enumerate(self.lines):
            key = f"{number}{'m' if line.markers else ''}"  # a curve has markers for life
            self.set_curve(key, np.asarray(line.x, np.float64), np.asarray(line.y, np.float64), _style(line, theme))
        self.keep_only({f"{number}{'m' if line.markers else ''}" for number, line in enumerate(self.lines)})
        named = [(line, line.label if line.legend is None else line.legend) for line in self.lines]
        self.set_legend([replace(_style(line, theme), label=words) for line, words in named if words])
        self.set_follow(True)

    def _retheme(self) -> None:
        theme = current_theme()
        self.apply_theme(theme)
        self.show_lines(self.lines)


def _style(line: Line, theme: Theme) -> CurveStyle:
    color = QColor(theme.text if line.color < 0 else theme.series[line.color % len(theme.series)])
    markers = "o" if line.markers else None
    return CurveStyle(
        color, line.label, width=1.0 if line.dotted else 1.8, dotted=line.dotted, markers=markers, marker_size=6
    )
