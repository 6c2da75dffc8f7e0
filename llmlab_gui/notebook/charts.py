"""The charts of the notebook: a prediction over its result, calibration, and scores over time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtGui import QColor, QWheelEvent

from llmlab.notebook.calibration import WINDOW, Calibration
from llmlab.notebook.entries import Line
from llmlab.notebook.quantities import CHOICE, CURVE, NUMBER, RUN, STEPS_TO, TEXT
from llmlab.notebook.scoring import as_number
from llmlab_gui.charts.curve import CurveStyle
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.charts.marks import ReferenceLine, Span
from llmlab_gui.widgets.theme import current_theme, theme_notifier

# Predictions that have a height in the chart of the loss, and those that have a place on its axis of steps.
_LOSSES = ("val_loss", "best_val_loss", "train_loss", "best_loss")
_STEPS = ("best_step",)
_BEST = ("best", "best_lr", "best_rank")  # have a place on the axis of an experiment, if that is what it varies
_DENSITY_POINTS = 241
# The tails that are shown: so many half widths beyond the middle, or as far as the outcome.
_TAILS = 3.0
_LABEL_ROOM = 15.0  # percent below an interval that its label takes


def belongs_to_loss(line: Line) -> bool:
    """Whether a prediction is drawn over a curve of the loss; a choice and a sentence are shown beside it."""
    kind, name = line.locked.prediction.kind, line.locked.prediction.quantity
    if line.entry.subject != RUN:
        return bool(line.entry.curve) and (kind in (CHOICE, TEXT) or name in _LOSSES or name in _BEST)
    return kind in (CURVE, CHOICE, TEXT) or name in (*_LOSSES, *_STEPS) or name.startswith(STEPS_TO)


class NotebookChart(LineChart):
    """A chart that draws itself whenever it has to, in the theme's colours."""

    def __init__(self, y_label: str, y_unit: str = "", *, from_zero: bool = False) -> None:
        super().__init__(y_label, y_unit, from_zero=from_zero)
        self.needs_redraw.connect(self.draw)
        self.pointed.connect(self.cross_hair.point_at)
        theme_notifier.changed.connect(self._restyle)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Scrolls what it lies in, which it is as wide as; zooms a chart that has the keyboard."""
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()

    def fill(self) -> None:
        """Sets the curves anew."""

    def _restyle(self) -> None:
        self.apply_theme(current_theme())
        self.fill()
        self.draw()


class ResultChart(NotebookChart):
    """Validation loss over the steps, with what was predicted of it."""

    def __init__(self) -> None:
        super().__init__("loss", "nats per token")
        self.setAccessibleName("Prediction over result")
        self._line: Line | None = None
        self._actual: list[list[float]] = []

    def show_line(self, line: Line, actual: Sequence[Sequence[float]]) -> None:
        """A prediction. actual: [step, validation loss] so far."""
        self._line, self._actual = line, [list(point) for point in actual]
        self.fill()
        self._see()

    def _see(self) -> None:
        """All of it; a range alone is shown with as much room above and below."""
        prediction = self._line.locked.prediction if self._line is not None else None
        alone = prediction is not None and prediction.is_range and not self._actual
        self.set_follow(not alone)
        if alone and prediction is not None and prediction.quantity in _LOSSES:
            low, high = prediction.low or 0.0, prediction.high or 0.0
            self.set_x_range(0.0, 1.03 * max(1.0, float(self._line.entry.steps if self._line is not None else 1)))
            self.getPlotItem().getViewBox().setYRange(2 * low - high, 2 * high - low, padding=0.0)

    def fill(self) -> None:
        if self._line is None:
            return
        theme, line = current_theme(), self._line
        log = line.entry.x_log and all(point[0] > 0 for point in self._actual)
        if log != self.log_x:
            self.set_log(x=log, y=False)
        self.set_x_axis(line.entry.x_axis or "step", "value" if line.entry.x_axis else "count")
        accent = QColor(theme.accent)
        actual = np.array(self._actual, dtype=np.float64).reshape(-1, 2)
        became = CurveStyle(QColor(theme.text), "validation loss", width=1.5, markers="o", z=3)
        curves = {"actual": (actual[:, 0], actual[:, 1], became)}
        prediction = line.locked.prediction
        end = max(float(line.entry.steps), float(actual[-1, 0]) if len(actual) else 1.0)
        edge = CurveStyle(accent, "predicted range", dotted=True, z=1)
        legend = [became]
        spans: list[Span] = []
        if prediction.kind == CURVE:
            points = np.array(prediction.points, dtype=np.float64)
            drawn = CurveStyle(accent, "predicted curve", width=2.5, z=2)
            curves["drawn"], legend = (points[:, 0], points[:, 1], drawn), [became, drawn]
            if prediction.tolerance is not None:
                for key, shift in (("low", -prediction.tolerance), ("high", prediction.tolerance)):
                    curves[key] = (points[:, 0], points[:, 1] + shift, edge)
        elif prediction.low is not None and prediction.high is not None:
            if prediction.quantity in _LOSSES:
                begin = float(actual[0, 0]) if line.entry.x_axis and len(actual) else 0.0
                for key, value in (("low", prediction.low), ("high", prediction.high)):
                    curves[key] = (np.array([begin, end]), np.array([value, value]), edge)
                legend = [became, edge]
            else:
                spans = [Span(prediction.low, prediction.high)]
        elif prediction.quantity in _BEST and (at := as_number(prediction.choice)) is not None and self._has(at):
            spans = [Span(at, at)]
        if spans:
            legend = [*legend, CurveStyle(QColor(theme.quiet), "predicted", dotted=True)]
        outcome = self._outcome(line)
        if outcome is not None:
            right = line.score is not None and line.score.right and not line.altered
            style = CurveStyle(
                QColor(theme.good if right else theme.bad), "outcome", markers="star", marker_size=14, z=5
            )
            curves["outcome"] = (np.array([outcome[0]]), np.array([outcome[1]]), style)
            legend = [*legend, style]
        self.show_curves(curves)
        self.set_band(("low", "high"), accent)
        self.set_spans(spans)
        self.set_legend(legend)

    def _outcome(self, line: Line) -> tuple[float, float] | None:
        """Where the outcome lies: [step, loss]."""
        name = line.locked.prediction.quantity
        value = None if line.score is None or not self._actual else as_number(line.score.outcome)
        if value is None:
            return None
        if name in _BEST:
            return next((point for point in self._points() if math.isclose(point[0], value, rel_tol=1e-6)), None)
        if name in ("best_val_loss", "best_loss"):
            return min(self._actual, key=lambda point: abs(point[1] - value))[0], value
        if name in _LOSSES:
            return self._actual[-1][0], value
        if line.locked.prediction.kind == CURVE:
            return None
        steps, losses = np.array(self._actual).T
        return value, float(np.interp(value, steps, losses))

    def _points(self) -> list[tuple[float, float]]:
        return [(point[0], point[1]) for point in self._actual]

    def _has(self, x: float) -> bool:
        """Whether the axis is that of the values that were tried: a rank is none on an axis of parameters."""
        return any(math.isclose(point[0], x, rel_tol=1e-6) for point in self._actual)


class StatedChart(NotebookChart):
    """What a range stated: the density of which the surprise is a tail, the range, and what came."""

    def __init__(self) -> None:
        super().__init__("stated density")
        self.setAccessibleName("Prediction and outcome")
        self._line: Line | None = None
        self.set_follow(False)

    def show_line(self, line: Line) -> None:
        """A prediction of a number."""
        self._line = line
        self.fill()
        self.draw()

    def fill(self) -> None:
        line = self._line
        if line is None or line.locked.prediction.kind != NUMBER:
            return
        theme, prediction = current_theme(), line.locked.prediction
        about, low, high = prediction.about, prediction.low or 0.0, prediction.high or 0.0
        outcome = line.score.outcome if line.score is not None else None
        came = outcome if isinstance(outcome, (int, float)) else None
        log = about.log and low > 0 and (came is None or came > 0)
        self.set_log(x=log, y=False)
        self.set_follow(False)
        self.set_x_axis(f"{about.title}{f' ({about.unit})' if about.unit else ''}", "value")
        x, y = _density(low, high, prediction.confidence, came, log)
        stated = CurveStyle(QColor(theme.accent), "stated", width=2.0, z=2)
        curves, legend = {"stated": (x, y, stated)}, [stated]
        top = float(y.max()) if len(y) else 1.0
        if came is not None:
            right = line.score is not None and line.score.right and not line.altered
            style = CurveStyle(QColor(theme.good if right else theme.bad), "outcome", width=2.0, z=3)
            curves["outcome"] = (np.array([came, came]), np.array([0.0, top]), style)
            legend.append(style)
        self.show_curves(curves)
        self.set_spans([Span(low, high)] if high > low else [])
        self.set_legend(legend)
        view = self.getPlotItem().getViewBox()
        ends = (math.log10(x[0]), math.log10(x[-1])) if log else (float(x[0]), float(x[-1]))
        view.setXRange(*ends, padding=0.02)
        view.setYRange(0.0, 1.1 * top, padding=0.0)


class CalibrationChart(NotebookChart):
    """Stated confidence against what came true, with Wilson's intervals."""

    def __init__(self) -> None:
        super().__init__("came true", "%")
        self.setAccessibleName("Calibration: stated confidence against the share that came true")
        self.set_x_axis("stated confidence (%)", "value")
        self.set_follow(False)
        view = self.getPlotItem().getViewBox()
        view.setXRange(0.0, 100.0, padding=0.02)
        view.setYRange(0.0, 100.0, padding=0.04)
        self._found: Calibration | None = None
        self._bars = pg.ErrorBarItem(beam=2.0)
        self._bars.setZValue(1)
        self.getPlotItem().addItem(self._bars, ignoreBounds=True)
        self._counts: list[pg.TextItem] = []

    def show_calibration(self, found: Calibration) -> None:
        """All bins that hold something."""
        self._found = found
        self.fill()
        self.draw()

    def fill(self) -> None:
        if self._found is None:
            return
        theme, bins = current_theme(), self._found.bins
        stated = np.array([100 * each.confidence for each in bins])
        share = np.array([100 * each.frequency for each in bins])
        low, high = (np.array([100 * getattr(each, end) for each in bins]) for end in ("low", "high"))
        ideal = CurveStyle(QColor(theme.quiet), "well calibrated", dotted=True)
        came = CurveStyle(
            QColor(theme.accent), "yours (true/scored), with 95 % intervals", width=1.5, markers="o", marker_size=9, z=2
        )
        ends = np.array([0.0, 100.0])
        self.set_curve("ideal", ends, ends, ideal)
        self.set_curve("yours", stated, share, came)
        self.set_curve("lowest", stated, low, CurveStyle(QColor(theme.accent), "lowest", alpha=0))
        self.set_curve("highest", stated, high, CurveStyle(QColor(theme.accent), "highest", alpha=0))
        self._bars.setData(x=stated, y=share, top=high - share, bottom=share - low, pen=pg.mkPen(QColor(theme.accent)))
        for item in self._counts:
            self.getPlotItem().removeItem(item)
        self._counts = []
        for each, x, bottom, top in zip(bins, stated.tolist(), low.tolist(), high.tolist(), strict=True):
            above = bottom < _LABEL_ROOM  # else below its interval, where its neighbour's has no curve
            item = pg.TextItem(f"{each.right}/{each.count}", QColor(theme.quiet), anchor=(0.5, 1 if above else 0))
            item.setPos(x, top if above else bottom)
            self.getPlotItem().addItem(item, ignoreBounds=True)
            self._counts.append(item)
        self.set_legend([ideal, came])


class ScoreChart(NotebookChart):
    """The mean of the last scores, as it went."""

    def __init__(self, name: str, mark: ReferenceLine) -> None:
        """name: of the score. mark: a score to compare them with."""
        super().__init__(f"{name}, last {WINDOW}", from_zero=True)
        self.setAccessibleName(f"{name} over time")
        self.set_x_axis("scored predictions", "count")
        self._key, self._mark, self._means = name.partition(" ")[0].lower(), mark, np.zeros(0)

    def show_means(self, means: Sequence[float]) -> None:
        """One point a statement: the mean of the last `WINDOW` of them."""
        self._means = np.array(means, dtype=float)
        self.fill()
        self.set_follow(True)

    def fill(self) -> None:
        x = np.arange(1.0, len(self._means) + 1)
        style = CurveStyle(QColor(current_theme().accent), f"mean of the last {WINDOW}", width=2.0, markers="o")
        self.set_curve(self._key, x, self._means, style)
        self.set_reference_lines([self._mark])


def _density(
    low: float, high: float, confidence: float | None, came: float | None, log: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Laplace's density whose central interval is the stated one, over the axis (or its logarithm); flat in the range
    where no confidence was stated."""
    to, back = (math.log, np.exp) if log else (float, np.asarray)
    ends = (to(low), to(high))
    middle = (ends[0] + ends[1]) / 2
    half = (ends[1] - ends[0]) / 2 or abs(middle) / 20 or 1.0
    reach = max(_TAILS * half, 1.1 * abs(to(came) - middle) if came is not None else 0.0)
    # An odd number of points, so that one of them is the middle, where the peak is.
    places = np.linspace(middle - reach, middle + reach, _DENSITY_POINTS)
    if confidence is None:
        inside = np.abs(places - middle) <= half
        return np.asarray(back(places)), np.where(inside, 1 / (2 * half), 0.0)
    scale = half / -math.log(1 - confidence)
    return np.asarray(back(places)), np.exp(-np.abs(places - middle) / scale) / (2 * scale)
