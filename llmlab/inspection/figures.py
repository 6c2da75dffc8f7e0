"""Figures of an archive, as PNG and SVG, for a paper or a note. Drawn from the archive alone, without a window."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmlab.core.charts import BARS, LINE, Axis, Chart, Series
from llmlab.core.figures import INCHES, MOST_LABELS, chart_figure, draw_grid, figure_of, label_ticks, plain, save_figure
from llmlab.inspection.archive import Archive, Array
from llmlab.inspection.summary import HEAD_SCORES, POINTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS_OF_A_SQUARE = 16  # tokens beside one head's pattern; more overlap
_MOST_STEPS = 24  # labelled
_LAYER = Axis("layer")

Named = Iterator[tuple[str, "Figure"]]


def plot(archive: Archive, folder: Path) -> list[Path]:
    """Writes every figure that an archive has the numbers for, in both formats; returns the files."""
    about = archive.metadata
    drawings = {
        "inspection": _inspection,
        "intervention": _intervention,
        "sweep": _sweep,
        "comparison": _comparison,
        "evolution": _evolution,
    }
    title = " against ".join(_short(model) for model in (about.model, about.more.get("model_b", "")) if model)
    figures = drawings[about.kind](archive)
    return [path for name, figure in figures for path in save_figure(figure, folder, name, title)]


def _short(reference: str) -> str:
    """A model's reference without the folders that it lies in, which would be wider than a figure."""
    return "+".join(Path(part).name or part for part in reference.split("+"))


# One prompt --------------------------------------------------------------------------------------------------------


def _inspection(archive: Archive) -> Named:
    tokens = archive.metadata.tokens
    for layer in _layers(archive, "attention/"):
        yield f"attention-{layer}", _patterns(archive[f"attention/{layer}"], layer, tokens)
    if "heads/mosaic" in archive:
        yield "heads-mosaic", _mosaic(archive["heads/mosaic"])
    scores = {
        name.removeprefix("heads/"): archive[name]
        for name in archive
        if name.startswith("heads/") and archive[name].ndim == 2
    }
    if scores:
        yield "heads-scores", _scores(scores)
    if "contributions/norm/attn_out" in archive:
        names = {"post_ffn": "residual stream", "attn_out": "attention adds", "mlp_out": "feed-forward adds"}
        norms = {label: archive[f"contributions/norm/{point}"].mean(1) for point, label in names.items()}
        yield "contributions-norms", _lines(norms, _LAYER, Axis("L2 norm, mean over tokens", log=True))
    if "attribution/sum" in archive:
        yield "attribution", _attribution(archive)
    if "lens/probability" in archive:
        yield "lens", _lens(archive["lens/probability"][:, :, 0], tokens)


def _layers(archive: Archive, prefix: str) -> list[int]:
    ends = (name.removeprefix(prefix) for name in archive if name.startswith(prefix))
    return sorted(int(end) for end in ends if end.isdigit())


def _patterns(pattern: Array, layer: int, tokens: Sequence[str]) -> Figure:
    """pattern [H, T, T]: one square a head, all on the same scale from 0 to 1; tokens at the outer ones."""
    n_head = len(pattern)
    columns = min(n_head, 6)
    rows = -(-n_head // columns)
    figure = figure_of(2.2 * columns, 2.3 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for head, axis in enumerate(axes):
        if head >= n_head:
            axis.set_axis_off()
            continue
        image = draw_grid(axis, pattern[head], vmin=0, vmax=1, aspect="equal")
        axis.set_title(f"head {head}", fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
        if head + columns >= n_head:  # the lowest one of its column
            label_ticks(axis.set_xticks, tokens, _LABELS_OF_A_SQUARE, rotation=90)
            axis.set_xlabel("key", fontsize=7)
        if head % columns == 0:
            label_ticks(axis.set_yticks, tokens, _LABELS_OF_A_SQUARE)
            axis.set_ylabel("query", fontsize=7)
    figure.colorbar(image, ax=axes.tolist(), label=f"Layer {layer}: attention patterns", shrink=0.8)
    return figure


def _mosaic(mosaic: Array) -> Figure:
    """mosaic [L, H, S, S] -> all heads in one image, a layer a row."""
    n_layer, n_head, side, _ = mosaic.shape
    sheet = np.pad(mosaic, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    sheet = sheet.transpose(0, 2, 1, 3).reshape(n_layer * (side + 1), n_head * (side + 1))
    figure = figure_of(0.8 * n_head + 1, 0.8 * n_layer + 0.6)
    axis = figure.subplots()
    draw_grid(axis, sheet, "attention (largest in its cell)", vmin=0, vmax=1, aspect="equal")
    for set_ticks, count in ((axis.set_xticks, n_head), (axis.set_yticks, n_layer)):
        set_ticks(np.arange(count) * (side + 1) + side / 2, [str(number) for number in range(count)], fontsize=7)
    axis.set_xlabel("head")
    axis.set_ylabel("layer")
    return figure


def _scores(scores: Mapping[str, Array]) -> Figure:
    """scores, each [L, H]."""
    n_layer, n_head = next(iter(scores.values())).shape
    columns = min(len(scores), 3)
    rows = -(-len(scores) // columns)
    figure = figure_of((0.25 * n_head + 2) * columns, (0.25 * n_layer + 1.2) * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, values) in zip(axes, scores.items(), strict=False):
        draw_grid(axis, values, {"entropy": "entropy (nats)", "distance": "distance (tokens)"}.get(name, name))
        _count_heads(axis)
    return figure


def _count_heads(axis: Axes) -> None:
    axis.set_xlabel("head")
    axis.set_ylabel("layer")
    axis.locator_params(integer=True)


def _attribution(archive: Archive) -> Figure:
    bars = [(name, archive[f"attribution/{name}"][0]) for name in ("embedding", "bias")]
    added = zip(archive["attribution/attention"], archive["attribution/feed_forward"], strict=True)
    for layer, (attention, feed_forward) in enumerate(added):
        bars += [(f"attention {layer}", attention), (f"feed-forward {layer}", feed_forward)]
    figure = figure_of(6, 0.2 * len(bars) + 1.2)
    axis = figure.subplots()
    values = np.array([value for _, value in bars], np.float64)
    axis.barh(range(len(bars)), values, color=np.where(values >= 0, "#b2182b", "#2166ac").tolist())
    axis.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=6)
    axis.invert_yaxis()
    axis.axvline(0, color="black", linewidth=0.6)
    about = archive.metadata.more
    against = f" minus {about['against_text']!r}" if about.get("against_text") else ""
    total = float(archive["attribution/sum"][0])
    axis.set_xlabel(plain(f"adds to the logit of {about.get('answer_text', '')!r}{against}; sum {total:.3f}"))
    return figure


def _lens(probability: Array, tokens: Sequence[str]) -> Figure:
    """probability [2 L + 1, T] of each row's own most likely token."""
    rows, time = probability.shape
    figure = figure_of(INCHES * min(time, MOST_LABELS) + 2, INCHES * min(rows, MOST_LABELS) + 1.5)
    axis = figure.subplots()
    draw_grid(axis, probability, "probability of the most likely token", vmin=0, vmax=1)
    label_ticks(axis.set_xticks, tokens, rotation=90)
    names = [f"{'before' if row % 2 == 0 else 'after'} attention {row // 2}" for row in range(rows - 1)] + ["final"]
    label_ticks(axis.set_yticks, names)
    return figure


# Interventions, sweeps, comparisons and evolutions -----------------------------------------------------------------


def _intervention(archive: Archive) -> Named:
    yield "kl", _by_token(archive, archive["kl"], "KL(before || after), nats")
    if "change/post_ffn" in archive:
        yield "change", _by_layer(archive["change/post_ffn"], "change of the stream, relative", archive.metadata.tokens)


def _sweep(archive: Archive) -> Named:
    more = archive.metadata.more
    unit = "effect, 0 prompt, 1 source" if more["effect"] == "normalised" else "change of the logit difference"
    positions = more["over"] == "layer,position"
    label = f"{more['action']} {more['point'] if positions else 'heads'}\n{unit}"
    tokens = archive.metadata.tokens if positions else ()
    yield "sweep", _by_layer(archive["sweep/effect"], label, tokens, signed=True)


def _comparison(archive: Archive) -> Named:
    if "kl" in archive:
        yield "kl", _by_token(archive, archive["kl"], "KL(A || B), nats")
    for named, group in (("cosine", "cosine/residual"), ("cka", "cka")):
        lines = {point: archive[f"{group}/{point}"] for point in POINTS if f"{group}/{point}" in archive}
        if lines:
            by_layer = {point: values.mean(1) if values.ndim > 1 else values for point, values in lines.items()}
            yield named, _lines(by_layer, _LAYER, Axis(named))
    if layers := _layers(archive, "difference/attention/"):
        largest = np.stack([np.abs(archive[f"difference/attention/{layer}"]).max((1, 2)) for layer in layers])
        yield "attention-difference", _by_layer(largest, "largest |A - B| of a pattern")


def _evolution(archive: Archive) -> Named:
    steps = json.loads(archive.metadata.more["steps"])
    scores = {name: archive[f"heads/{name}"] for name in HEAD_SCORES if f"heads/{name}" in archive}
    if scores:
        largest = {name: np.fmax.reduce(values, axis=(1, 2)) for name, values in scores.items()}
        yield "heads-by-step", _lines(largest, Axis("step"), Axis("score of the strongest head"), steps)
    if "lens/target_probability" in archive and len(archive.metadata.tokens) > 1:
        probability = archive["lens/target_probability"][:, ::2, :-1].mean(2)  # [S, L + 1]: before each layer, final
        yield "lens-by-step", _steps_by_depth(probability, steps)


def _by_token(archive: Archive, values: Array, label: str) -> Figure:
    """values [T]."""
    bars = Series(label, [float(place) for place in range(len(values))], values.tolist(), BARS)
    return chart_figure(Chart("", "", Axis("token"), Axis(label), [bars], list(archive.metadata.tokens)))


def _lines(values: Mapping[str, Array], x_axis: Axis, y_axis: Axis, x: Sequence[float] | None = None) -> Figure:
    """values: each a line over `x`, which counts from 0 if it is not given."""
    lines = [
        Series(name, [float(at) for at in (range(len(line)) if x is None else x)], line.tolist(), LINE)
        for name, line in values.items()
    ]
    return chart_figure(Chart("", lines[0].name if len(lines) == 1 else "", x_axis, y_axis, lines))


def _by_layer(values: Array, label: str, tokens: Sequence[str] = (), *, signed: bool = False) -> Figure:
    """values [L, T], or [L, H] where there are no tokens; signed: colours centred at zero."""
    columns, rows = min(values.shape[1], MOST_LABELS), min(len(values), MOST_LABELS)
    figure = figure_of(INCHES * columns + 2.5, 0.25 * rows + 1.5)
    axis = figure.subplots()
    draw_grid(axis, values, label, signed=signed)
    _count_heads(axis)
    if tokens:
        axis.set_xlabel("")
        label_ticks(axis.set_xticks, tokens, rotation=90)
    return figure


def _steps_by_depth(probability: Array, steps: Sequence[int]) -> Figure:
    """probability [S, L + 1]: how early, in training and in depth, the prompt's own tokens are expected."""
    figure = figure_of(0.4 * len(steps) + 2.5, 0.3 * probability.shape[1] + 1.5)
    axis = figure.subplots()
    draw_grid(axis, probability.T, "p(next token of the prompt)", origin="lower", vmin=0)
    label_ticks(axis.set_xticks, [str(step) for step in steps], _MOST_STEPS, rotation=90)
    axis.set_xlabel("step")
    axis.set_ylabel("layers read before the lens")
    return figure
