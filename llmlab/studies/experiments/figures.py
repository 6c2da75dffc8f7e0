"""An experiment's charts as PNG and SVG, drawn from its results alone, without a window."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmlab.core.figures import COLOURS, axis_text, figure_of, save_figure
from llmlab.store.events import NATS
from llmlab.studies.experiments.outcomes import Chart, Curve, ExperimentResults, Fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SEQUENCE = 4  # more curves than this are a series, and are coloured along a scale


def draw_figures(results: ExperimentResults, folder: Path) -> list[Path]:
    """Writes every chart that has a point into `folder`, in both formats; returns the PNG files. Raises OSError."""
    drawn = [chart for chart in results.charts if any(curve.points for curve in chart.curves)]
    if drawn:
        folder.mkdir(exist_ok=True)
    return [_draw(chart, results, folder) for chart in drawn]


def _draw(chart: Chart, results: ExperimentResults, folder: Path) -> Path:
    figure = figure_of(6.8, 4.4)
    axis = figure.subplots()
    for number, curve in enumerate(chart.curves):
        _curve(axis, curve, _colour(chart, number))
    for number, fit in enumerate(chart.fits):
        own = len(chart.fits) > 1  # one fit a curve: in its colour
        _fit(axis, fit, _colour(chart, number) if own else "#444444")
    _scale(axis, chart, results)
    _marks(axis, chart)
    axis.set_title(chart.title, fontsize=10)
    axis.set_xlabel(axis_text(chart.x_axis))
    axis.set_ylabel(axis_text(chart.y_axis))
    axis.grid(alpha=0.25, linewidth=0.6)
    if len(chart.curves) > 1 or chart.fits:
        axis.legend(frameon=False, fontsize=7, ncols=1 + len(chart.curves) // 9)
    return save_figure(figure, folder, chart.name, results.id)[0]


def _colour(chart: Chart, number: int) -> str | tuple[float, ...]:
    count = len(chart.curves)
    if chart.name == "over-steps" and count > _SEQUENCE:
        import matplotlib

        return tuple(matplotlib.colormaps["viridis"](0.92 * number / (count - 1)))
    return COLOURS[number % len(COLOURS)]


def _curve(axis: Axes, curve: Curve, colour: str | tuple[float, ...]) -> None:
    x, y = [point.x for point in curve.points], [point.y for point in curve.points]
    many = len(x) > 60
    marker = "" if many and curve.line else "o"
    style = {"color": "#b0b0b0", "linewidth": 0.8} if curve.faint and many else {"color": colour, "linewidth": 1.4}
    if curve.faint and not many:
        style |= {"alpha": 0.55}
    axis.plot(x, y, marker=marker, markersize=4, linestyle="-" if curve.line else "none", label=curve.name, **style)
    ranged = [point for point in curve.points if point.low is not None and point.high is not None]
    if ranged:
        below = [point.y - (point.low or 0.0) for point in ranged]
        above = [(point.high or 0.0) - point.y for point in ranged]
        at = [point.x for point in ranged]
        axis.errorbar(at, [point.y for point in ranged], [below, above], fmt="none", capsize=3, color=style["color"])
    if 0 < len(curve.points) <= 12:
        for point in curve.points:
            if point.label and not point.label.startswith("step"):
                axis.annotate(point.label, (point.x, point.y), textcoords="offset points", xytext=(4, 4), fontsize=7)


def _fit(axis: Axes, fit: Fit, colour: str | tuple[float, ...]) -> None:
    line = axis.plot(fit.x, fit.y, linestyle="--", linewidth=1.1, color=colour, label=f"{fit.name}: {fit.formula}")
    if fit.low and fit.high:
        axis.fill_between(fit.x, fit.low, fit.high, color=line[0].get_color(), alpha=0.12, label="90 % band")


def _scale(axis: Axes, chart: Chart, results: ExperimentResults) -> None:
    if chart.x_axis.log and all(point.x > 0 for curve in chart.curves for point in curve.points):
        axis.set_xscale("log")
        measured = {point.x for curve in chart.curves for point in curve.points}
        ticks = sorted(measured | {mark.x for mark in chart.marks})
        if len(ticks) <= 8:  # the values themselves say more than powers of ten
            axis.set_xticks(ticks, [*map(_short, ticks)], fontsize=7, rotation=20 if len(ticks) > 5 else 0)
            axis.minorticks_off()
    if chart.y_axis.log:
        axis.set_yscale("log")
        return
    # Curves of runs that diverged would squeeze all others: what knowing nothing costs is high enough.
    nats = chart.y_axis.unit == NATS  # as the runs' numbers are
    starts = [trial.start_loss for trial in results.arms if nats and trial.start_loss is not None]
    values = [point.y for curve in chart.curves for point in curve.points if math.isfinite(point.y)]
    if starts and values and max(values) > 1.15 * max(starts) and "loss" in chart.y_axis.label:
        axis.set_ylim(min(values) - 0.05 * (max(starts) - min(values)), 1.1 * max(starts))


def _marks(axis: Axes, chart: Chart) -> None:
    drawn = [point.x for curve in chart.curves for point in curve.points]
    right = max(drawn) if drawn else None
    for mark in chart.marks:
        axis.axvline(mark.x, color="#888888", linewidth=0.8, linestyle=":")
        side = "right" if right is not None and mark.x >= np.mean([min(drawn), right]) else "left"
        style: dict[str, Any] = {"fontsize": 6.5, "rotation": 90, "ha": side, "va": "top", "color": "#555555"}
        axis.annotate(mark.label, (mark.x, 0.98), xycoords=("data", "axes fraction"), **style)


def _short(value: float) -> str:
    """3e-04 as 3e-4, 30000 as 30k."""
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    if value >= 1e4:
        return f"{value / 1e3:.3g}k"
    if value >= 0.01:
        return f"{value:.4g}"
    mantissa, _, exponent = f"{value:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"
