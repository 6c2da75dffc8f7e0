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

from llmlab.core.charts import (
    BARS,
    DASHED,
    FAINT,
    FIT,
    LINE,
    MEASURED,
    POINTS,
    Axis,
    Chart,
    NotedChart,
    Series,
    have_order,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stay apart for most colour-blind readers (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#666666")
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
MOST_LABELS = 48  # along an axis; more overlap on a page
INCHES = 0.28  # of a labelled row or column
_GREY, _DARK = "#888888", "#444444"
_DASHES = ("--", ":", "-.", (0, (1, 3)))
_BARS_WIDTH = 0.8  # of the room between two categories
_MOST_MARKERS = 60  # of a line
_FEW = 4  # measured curves that are told apart by hue
_FEW_TICKS = 8  # of a logarithmic axis that are named


def figure_of(width: float, height: float) -> Figure:
    """An empty figure of about this size in inches, within what a page and a screen can hold."""
    from matplotlib.figure import Figure

    return Figure((min(max(width, 4.0), 24.0), min(max(height, 3.0), 24.0)), dpi=150, layout="constrained")


def save_figure(figure: Figure, folder: Path, name: str, title: str = "") -> list[Path]:
    """Writes `name`.png and `name`.svg into `folder`, which exists. title: above all. Raises OSError."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    if title:
        figure.suptitle(plain(title), fontsize=8, color=COLOURS[-1])
    png, svg = (folder / f"{name}.{ending}" for ending in ("png", "svg"))
    # `Figure.savefig` draws everything twice, the first time only to lay it out.
    FigureCanvasAgg(figure).print_png(png)
    figure.set_layout_engine("none")  # the second file is laid out as the first
    with rc_context({"svg.hashsalt": ""}):  # ids that follow from what is drawn alone, and no date
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    return [png, svg]


def draw_charts(charts: Sequence[Chart], folder: Path, title: str = "") -> list[Path]:
    """Writes every chart into `folder`, in both formats; returns the PNG files. title: above each. Raises OSError."""
    if charts:
        folder.mkdir(exist_ok=True)
    return [save_figure(chart_figure(chart), folder, chart.name, title)[0] for chart in charts]


def chart_figure(chart: Chart) -> Figure:
    """A chart's lines, points, bars, fits, and the words in it."""
    figure = figure_of(max(6.8, INCHES * min(len(chart.categories), MOST_LABELS) + 2), 4.2)
    axes = figure.subplots()
    bars = [one for one in chart.series if one.kind == BARS]
    solid = bars + [one for one in chart.series if one.kind not in (DASHED, BARS, FIT)]  # points lie on bars
    colours = _colours(solid)
    for number, (series, colour) in enumerate(zip(solid, colours, strict=True)):
        if series.kind == BARS:
            _draw_bars(axes, series, colour, number, len(bars))
        elif series.kind == POINTS:
            _draw_points(figure, axes, chart, series, colour)
        else:
            _draw_line(axes, series, colour)
    fits = [one for one in chart.series if one.kind == FIT]
    for number, series in enumerate(fits):  # one a curve: in its colour
        _draw_fit(axes, series, colours[number % len(colours)] if len(fits) > 1 else _DARK)
    for number, series in enumerate(one for one in chart.series if one.kind == DASHED):
        dashes = _DASHES[number % len(_DASHES)]
        axes.plot(series.x, series.y, linestyle=dashes, color=_GREY, linewidth=1.2, label=series.name)
    _scale(axes, chart)
    _write_notes(axes, chart)
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


def _colours(series: Sequence[Series]) -> list[Any]:
    """One each; more than a few measured curves with an order have the colours of a scale."""
    measured = [one.name for one in series if one.kind == MEASURED]
    if len(measured) <= _FEW or not (have_order(measured) or len(measured) > len(COLOURS)):
        return [COLOURS[number % len(COLOURS)] for number in range(len(series))]
    import matplotlib

    scale = matplotlib.colormaps[SEQUENTIAL]
    return [scale(0.92 * number / (len(series) - 1)) for number in range(len(series))]


def _draw_line(axes: Axes, series: Series, colour: Any) -> None:
    few, size = len(series.x) <= _MOST_MARKERS, 3 if series.kind == LINE else 4
    style = {"color": colour, "linewidth": 1.4, "marker": "o" if few else "", "markersize": size, "label": series.name}
    if series.kind == FAINT:
        style |= {"alpha": 0.55} if few else {"color": "#b0b0b0", "linewidth": 0.8}
    axes.plot(series.x, series.y, **style)
    if series.low and series.kind == LINE:
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, linewidth=0)
    elif series.low:
        axes.errorbar(series.x, series.y, _reach(series), fmt="none", capsize=3, color=style["color"])


def _draw_points(figure: Figure, axes: Axes, chart: Chart, series: Series, colour: Any) -> None:
    own = {"c": series.color, "cmap": SEQUENTIAL} if series.color else {"color": colour}
    size = {"s": 25} if isinstance(chart, NotedChart) else {"s": 7, "alpha": 0.7}  # runs are few
    drawn = axes.scatter(series.x, series.y, linewidths=0, zorder=2, label=series.name, **size, **own)
    if series.low:
        axes.errorbar(series.x, series.y, _reach(series), fmt="none", capsize=3, color=colour)
    if series.color and chart.color_label:
        figure.colorbar(drawn, ax=axes, label=chart.color_label)


def _draw_bars(axes: Axes, series: Series, colour: Any, number: int, count: int) -> None:
    width = _BARS_WIDTH / count
    x = np.asarray(series.x) + (number - (count - 1) / 2) * width
    axes.bar(x, series.y, width, color=colour, label=series.name)
    if series.low:
        axes.vlines(x, series.low, series.high, colors="#333333", linewidth=0.9)


def _draw_fit(axes: Axes, series: Series, colour: Any) -> None:
    axes.plot(series.x, series.y, linestyle="--", linewidth=1.1, color=colour, label=series.name)
    if series.low:
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.12, label="90 % band")


def _reach(series: Series) -> npt.NDArray[Any]:
    """How far the interval goes from each y, down and up [2, N]."""
    return np.array([np.subtract(series.y, series.low), np.subtract(series.high, series.y)])


def _scale(axes: Axes, chart: Chart) -> None:
    """Scales of both axes, with the names of categories, whole numbers where all x are, or the few x of a log axis."""
    from matplotlib.ticker import MaxNLocator

    notes, top = (chart.notes, chart.top) if isinstance(chart, NotedChart) else ([], None)
    x = [at for one in chart.series for at in one.x]
    if chart.categories:
        label_ticks(axes.set_xticks, chart.categories, rotation=_turn(chart.categories))
    elif not chart.x_axis.log and all(float(at).is_integer() for at in x):
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))  # layers have no halves
    if chart.x_axis.log and min(x, default=1.0) > 0:
        axes.set_xscale("log")
        named = {at for one in chart.series if one.kind not in (DASHED, FIT) for at in one.x}
        ticks = sorted(named | {note.x for note in notes if note.y is None})
        if len(ticks) <= _FEW_TICKS:  # the values themselves say more than powers of ten
            texts = [_tick(value, powers=ticks[0] < 1e-3) for value in ticks]
            axes.set_xticks(ticks, texts, fontsize=7, rotation=20 if len(ticks) > 5 else 0)
            axes.minorticks_off()
    if chart.y_axis.log:
        axes.set_yscale("log")
    if top is not None:
        low = min(y for one in chart.series for y in one.y if np.isfinite(y))
        axes.set_ylim(low - 0.05 * (top - low), top)


def _write_notes(axes: Axes, chart: Chart) -> None:
    x = [at for one in chart.series for at in one.x]
    for note in chart.notes if isinstance(chart, NotedChart) else []:
        style: dict[str, Any] = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 7}
        where = note.x, note.y if note.y is not None else 0.98
        if note.y is None:
            axes.axvline(note.x, color=_GREY, linewidth=0.8, linestyle=":")
            side = "right" if x and note.x >= (min(x) + max(x)) / 2 else "left"
            style = {"fontsize": 6.5, "rotation": 90, "ha": side, "va": "top", "color": "#555555"}
            style["xycoords"] = ("data", "axes fraction")
        axes.annotate(plain(note.label), where, **style)


def _tick(value: float, *, powers: bool) -> str:
    """30000 as 30k, 0.003 as it is or, beside a much smaller one, as 3e-3."""
    if powers:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if value >= 1e4:
        return f"{value / 1e6:.3g}M" if value >= 1e6 else f"{value / 1e3:.3g}k"
    return f"{value:.4g}"
