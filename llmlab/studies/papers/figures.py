"""A verdict's charts as PNG and SVG, without a window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmlab.core.charts import BARS, DASHED, LINE, POINTS, Chart, Series
from llmlab.inspection.plots import figure_of
from llmlab.studies.experiments.records import Axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stay apart for most colour-blind readers (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#666666")
_GREY = "#888888"
_DASHES = ("--", ":", "-.", (0, (1, 3)))
_BARS_WIDTH = 0.8  # of the room between two categories


def draw_charts(charts: Sequence[Chart], folder: Path) -> None:
    """Writes every chart into `folder`, in both formats. Raises OSError."""
    if charts:
        folder.mkdir(exist_ok=True)
    for chart in charts:
        figure = _figure(chart)
        for ending in ("png", "svg"):
            # Without a date, the same numbers give the same file.
            metadata = {"Date": None} if ending == "svg" else None
            figure.savefig(folder / f"{chart.name}.{ending}", dpi=130, metadata=metadata)


def _figure(chart: Chart) -> Figure:
    from matplotlib.ticker import MaxNLocator

    figure = figure_of(6.8, 4.2)
    axes = figure.subplots()
    bars = [one for one in chart.series if one.kind == BARS]
    solid = bars + [one for one in chart.series if one.kind not in (DASHED, BARS)]  # points lie on bars
    for number, series in enumerate(solid):
        colour = _COLOURS[number % len(_COLOURS)]
        if series.kind == BARS:
            _draw_bars(axes, series, colour, number, len(bars))
        else:
            _draw(figure, axes, chart, series, colour)
    for number, series in enumerate(one for one in chart.series if one.kind == DASHED):
        dashes = _DASHES[number % len(_DASHES)]
        axes.plot(series.x, series.y, linestyle=dashes, color=_GREY, linewidth=1.2, label=series.name)
    if chart.categories:
        places = range(len(chart.categories))
        turned = 30 if max(map(len, chart.categories)) * len(chart.categories) > 80 else 0
        axes.set_xticks(places, chart.categories, rotation=turned, ha="right" if turned else "center", fontsize=8)
    elif not chart.x_axis.log and all(float(x).is_integer() for one in chart.series for x in one.x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # layers and steps have no halves
    if chart.x_axis.log:
        axes.set_xscale("log")
    if chart.y_axis.log:
        axes.set_yscale("log")
    axes.set_title(chart.title, fontsize=10)
    axes.set_xlabel(_label(chart.x_axis))
    axes.set_ylabel(_label(chart.y_axis))
    axes.grid(alpha=0.25, linewidth=0.6, axis="y" if chart.categories else "both")
    if len(chart.series) > 1:
        axes.legend(frameon=False, fontsize=7, ncols=1 + len(chart.series) // 9)
    return figure


def _draw(figure: Figure, axes: Axes, chart: Chart, series: Series, colour: str) -> None:
    if series.kind == LINE:
        axes.plot(series.x, series.y, marker="o", markersize=3, color=colour, linewidth=1.4, label=series.name)
        if series.low:
            axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, linewidth=0)
    elif series.kind == POINTS:
        own = {"c": series.color, "cmap": "viridis"} if series.color else {"color": colour}
        drawn = axes.scatter(series.x, series.y, s=7, alpha=0.7, linewidths=0, zorder=2, label=series.name, **own)
        if series.low:
            axes.vlines(series.x, series.low, series.high, colors=colour, linewidth=0.9)
        if series.color and chart.color_label:
            figure.colorbar(drawn, ax=axes, label=chart.color_label)


def _draw_bars(axes: Axes, series: Series, colour: str, number: int, count: int) -> None:
    width = _BARS_WIDTH / count
    x = np.asarray(series.x) + (number - (count - 1) / 2) * width
    axes.bar(x, series.y, width, color=colour, label=series.name)
    if series.low:
        axes.vlines(x, series.low, series.high, colors="#333333", linewidth=0.9)


def _label(axis: Axis) -> str:
    return f"{axis.label} ({axis.unit})" if axis.unit else axis.label
