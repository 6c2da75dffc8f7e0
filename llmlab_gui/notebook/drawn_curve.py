"""A chart to draw on: a curve over the steps, by hand with the mouse, before there is one."""

from __future__ import annotations

import math

import numpy as np
from PySide6.QtCore import QPointF, Qt, Signal
from PySide6.QtGui import QColor, QMouseEvent

from llmlab_gui.charts.curve import CurveStyle
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.widgets.theme import current_theme, theme_notifier

# Columns of the drawing: finer than a hand, and of the points that are kept of it, a curve through each third.
_COLUMNS = 96
_KEPT = 24
# Columns to each side over which a trembling hand is smoothed.
_SMOOTH = 2


class DrawnCurve(LineChart):
    """Draws with the left button; going over a part again replaces it. One value at each step, whatever the hand does.

    The axis of steps is logarithmic, since most happens at the beginning.
    """

    drawn = Signal()  # `points()` are other ones

    def __init__(self, steps: int, start_loss: float) -> None:
        """steps: where the run ends; start_loss: nats per token, a little below the chart's upper end."""
        super().__init__("loss", "nats per token")
        self._steps = max(2, steps)
        self._places = np.linspace(0.0, math.log10(self._steps), _COLUMNS)
        self._values = np.full(_COLUMNS, np.nan)
        self._last: tuple[int, float] | None = None  # of the stroke: column and value
        self._exact: list[list[float]] = []  # set from outside, not drawn
        self.setAccessibleName("Draw the validation loss that you expect")
        self.setToolTip("Draw your prediction with the mouse. Drawing over a part again replaces it.")
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.setMouseEnabled(x=False, y=False)
        self.set_x_axis("step", "count")
        self.set_log(x=True, y=False)
        self.set_follow(False)
        view = self.getPlotItem().getViewBox()
        view.setXRange(0.0, float(self._places[-1]), padding=0.02)
        view.setYRange(0.0, 1.1 * start_loss, padding=0.0)
        self.needs_redraw.connect(self.draw)
        theme_notifier.changed.connect(self._restyle)
        self._show()

    def points(self) -> list[list[float]]:
        """[step, loss] of what was drawn, steps ascending, smoothed; empty when nothing was."""
        if self._exact:
            return self._exact
        inside = np.flatnonzero(np.isfinite(self._values))
        if len(inside) < 2:
            return []
        first, last = int(inside[0]), int(inside[-1])
        columns = np.arange(first, last + 1)
        values = _smoothed(np.interp(columns, inside, self._values[inside]))
        kept = np.unique(np.linspace(0, len(columns) - 1, min(_KEPT, len(columns))).round().astype(int))
        steps = 10.0 ** self._places[columns[kept]]
        points: list[list[float]] = []
        for step, value in zip(np.rint(steps).tolist(), values[kept].tolist(), strict=True):
            if not points or step > points[-1][0]:  # the first columns lie within one step
                points.append([step, float(f"{value:.3g}")])
        return points if len(points) > 1 else []

    def set_points(self, points: list[list[float]]) -> None:
        """Shows a curve that was written instead of drawn."""
        self._values[:] = np.nan
        self._exact = points
        self._show()

    def clear_drawing(self) -> None:
        """Takes all of it away."""
        self.set_points([])
        self.drawn.emit()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            if self._exact:  # what was written becomes what the hand goes on with
                steps, losses = np.array(self._exact).T
                self._values = np.interp(10.0**self._places, steps, losses, left=np.nan, right=np.nan)
                self._exact = []
            self._last = None
            self._stroke(event.position())
        event.accept()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._stroke(event.position())
        event.accept()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton and self._last is not None:
            self._last = None
            self.drawn.emit()
        event.accept()

    def _stroke(self, position: QPointF) -> None:
        """Fills all columns from where the hand was to where it is, in a straight line."""
        view = self.getPlotItem().getViewBox()
        at = view.mapSceneToView(self.mapToScene(position.toPoint()))
        share = at.x() / float(self._places[-1])
        column = min(max(round(share * (_COLUMNS - 1)), 0), _COLUMNS - 1)
        low, high = view.viewRange()[1]
        value = min(max(at.y(), low), high)
        before = self._last or (column, value)
        columns = np.arange(min(before[0], column), max(before[0], column) + 1)
        ends = sorted((before, (column, value)))
        self._values[columns] = np.interp(columns, [end[0] for end in ends], [end[1] for end in ends])
        self._last = (column, value)
        self._show()

    def _show(self) -> None:
        points = np.array(self.points(), dtype=np.float64).reshape(-1, 2)
        style = CurveStyle(QColor(current_theme().accent), "expected", width=2.5)
        self.set_curve("drawn", np.maximum(points[:, 0], 1.0), points[:, 1], style)
        self.draw()

    def _restyle(self) -> None:
        self.apply_theme(current_theme())
        self._show()


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Means over a few neighbours; at the ends, over as many as there are to both sides."""
    smooth = values.copy()
    for place in range(len(values)):
        reach = min(_SMOOTH, place, len(values) - 1 - place)
        smooth[place] = values[place - reach : place + reach + 1].mean()
    return smooth
