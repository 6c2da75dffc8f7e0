"""Charts and grids of numbers as PNG and SVG: the one place where matplotlib draws, without a window.

matplotlib is imported when something is drawn. `Figure` itself is used and not pyplot: no global state, no window
system, nothing to close.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmlab.core.charts import BARS, DASHED, LINE, POINTS, Axis, Chart, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stay apart for most colour-blind readers (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#666666")
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
MOST_LABELS = 48  # along an axis; more overlap on a page
INCHES = 0.28  # of a labelled row or column
_GREY = "#888888"
_DASHES = ("--", ":", "-.", (0, (1, 3)))
_BARS_WIDTH = 0.8  # of the room between two categories
_MOST_MARKERS = 60  # of a line


def figure_of(width: float, height: float) -> Figure:
    """An empty figure of about this size in inches, within what a page and a screen can hold."""
    from matplotlib.figure import Figure

    return Figure(figsize=(min(max(width, 4.0), 24.0), min(max(height, 3.0), 24.0)), layout="constrained")


def save_figure(figure: Figure, folder: Path, name: str, title: str = "") -> list[Path]:
    """Writes `name`.png and `name`.svg into `folder`, which exists. title: above all. Raises OSError."""
    if title:
        figure.suptitle(plain(title), fontsize=8, color=COLOURS[-1])
    paths = [folder / f"{name}.{ending}" for ending in ("png", "svg")]
    for path in paths:
        # Without a date, the same numbers give the same file.
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def draw_charts(charts: Sequence[Chart], folder: Path) -> None:
    """Writes every chart into `folder`, in both formats. Raises OSError."""
    if charts:
        folder.mkdir(exist_ok=True)
    for chart in charts:
        save_figure(chart_figure(chart), folder, chart.name)


def chart_figure(chart: Chart) -> Figure:
    """A chart's lines, points, and bars."""
    from matplotlib.ticker import MaxNLocator

    figure = figure_of(max(6.8, INCHES * min(len(chart.categories), MOST_LABELS) + 2), 4.2)
    axes = figure.subplots()
    bars = [one for one in chart.series if one.kind == BARS]
    solid = bars + [one for one in chart.series if one.kind not in (DASHED, BARS)]  # points lie on bars
    for number, series in enumerate(solid):
        colour = COLOURS[number % len(COLOURS)]
        if series.kind == BARS:
            _draw_bars(axes, series, colour, number, len(bars))
        else:
            _draw(figure, axes, chart, series, colour)
    for number, series in enumerate(one for one in chart.series if one.kind == DASHED):
        dashes = _DASHES[number % len(_DASHES)]
        axes.plot(series.x, series.y, linestyle=dashes, color=_GREY, linewidth=1.2, label=series.name)
    if chart.categories:
        label_ticks(axes.set_xticks, chart.categories, rotation=_turn(chart.categories))
    elif not chart.x_axis.log and all(float(x).is_integer() for one in chart.series for x in one.x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # layers and steps have no halves
    if chart.x_axis.log:
        axes.set_xscale("log")
    if chart.y_axis.log:
        axes.set_yscale("log")
    axes.set_title(chart.title, fontsize=10)
    axes.set_xlabel(axis_text(chart.x_axis))
    axes.set_ylabel(axis_text(chart.y_axis))
    axes.grid(alpha=0.25, linewidth=0.6, axis="y" if chart.categories else "both")
    if len(chart.series) > 1:
        axes.legend(frameon=False, fontsize=7, ncols=1 + len(chart.series) // 9)
    return figure


def axis_text(axis: Axis) -> str:
    """An axis's name, with the unit where the name does not say it already ("step", "steps")."""
    return f"{axis.label} ({axis.unit})" if axis.unit and axis.unit != axis.label + "s" else axis.label


def plain(text: str) -> str:
    """A text of a figure in which a dollar sign begins no formula."""
    return text.replace("$", r"\$")


def draw_grid(axes: Axes, values: npt.NDArray[Any], label: str = "", *, signed: bool = False, **how: Any) -> Any:
    """values [rows, columns], one cell each; signed: colours centred at zero. Returns the image.

    label: of the scale of colours beside it; without one there is none. how: of `imshow`.
    """
    limit = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    own = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit} if signed else {"cmap": SEQUENTIAL}
    image = axes.imshow(values, **({"interpolation": "nearest", "aspect": "auto"} | own | how))
    if label:
        axes.figure.colorbar(image, ax=axes, label=label)
    return image


def label_ticks(
    set_ticks: Callable[..., object], names: Sequence[str], most: int = MOST_LABELS, *, rotation: int = 0
) -> None:
    """The names of 0, 1, 2, ... along an axis, only every second, third, ... of more than `most`."""
    step = max(1, -(-len(names) // most))
    texts = [plain(name).replace("\n", "↵") for name in names[::step]]
    aligned = {"ha": "right", "rotation_mode": "anchor"} if 0 < rotation < 90 else {}
    set_ticks(range(0, len(names), step), texts, fontsize=6 if rotation == 90 else 8, rotation=rotation, **aligned)


def _turn(names: Sequence[str]) -> int:
    """Degrees by which names are turned so that they fit beside each other."""
    if len(names) > 20:
        return 90
    return 30 if max(map(len, names)) * len(names) > 80 else 0


def _draw(figure: Figure, axes: Axes, chart: Chart, series: Series, colour: str) -> None:
    if series.kind == LINE:
        marker = "o" if len(series.x) <= _MOST_MARKERS else ""
        axes.plot(series.x, series.y, marker=marker, markersize=3, color=colour, linewidth=1.4, label=series.name)
        if series.low:
            axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, linewidth=0)
    elif series.kind == POINTS:
        own = {"c": series.color, "cmap": SEQUENTIAL} if series.color else {"color": colour}
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
