"""Figures of an archive, as PNG and SVG, for a paper or a note. Drawn from the archive alone, without a window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmlab.inspection.archive import Archive, Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# More labels than this overlap on a page.
_MOST_LABELS, _LABELS_OF_A_SQUARE = 48, 16
_INCHES = 0.28  # of a labelled row
_SEQUENTIAL, _DIVERGING = "viridis", "RdBu_r"


def plot(archive: Archive, folder: Path) -> list[Path]:
    """Writes every figure that an archive has the numbers for, in both formats; returns the files."""
    about = archive.metadata
    if about.kind == "inspection":
        figures = _figures(archive)
    else:
        from llmlab.inspection.experiment_plots import experiment_figures  # draws with what is in here

        figures = experiment_figures(archive)
    title = " against ".join(_short(model) for model in (about.model, about.more.get("model_b", "")) if model)
    return [path for name, figure in figures for path in _save(title, name, figure, folder)]


def _short(reference: str) -> str:
    """A model's reference without the folders that it lies in, which would be wider than a figure."""
    return "+".join(Path(part).name or part for part in reference.split("+"))


def _save(title: str, name: str, figure: Figure, folder: Path) -> list[Path]:
    figure.suptitle(title, fontsize=8)
    written = []
    for ending in ("png", "svg"):
        path = folder / f"{name}.{ending}"
        figure.savefig(path, dpi=150, metadata={"Date": None} if ending == "svg" else None)
        written.append(path)
    return written


def _figures(archive: Archive) -> Iterator[tuple[str, Figure]]:
    for layer in range(_layers(archive)):
        pattern = archive[f"attention/{layer}"]
        yield f"attention-{layer}", _patterns(pattern, f"Layer {layer}: attention patterns", archive.metadata.tokens)
    if "heads/mosaic" in archive:
        yield "heads-mosaic", _mosaic(archive["heads/mosaic"])
    scores = [name for name in archive if name.startswith("heads/") and archive[name].ndim == 2]
    if scores:
        yield "heads-scores", _scores({name.removeprefix("heads/"): archive[name] for name in scores})
    if "contributions/norm/attn_out" in archive:
        yield "contributions-norms", _norms(archive)
    if "attribution/sum" in archive:
        yield "attribution", _attribution(archive)
    if "lens/probability" in archive:
        yield "lens", _lens(archive)


def _layers(archive: Archive) -> int:
    return sum(1 for name in archive if name.startswith("attention/") and name.removeprefix("attention/").isdigit())


def figure_of(width: float, height: float) -> Figure:
    """An empty figure of about this size in inches, within what a page and a screen can hold."""
    # The object itself, not pyplot: no global state, no window system, nothing to close.
    from matplotlib.figure import Figure

    return Figure(figsize=(min(max(width, 4.0), 24.0), min(max(height, 3.0), 24.0)), layout="constrained")


def _patterns(pattern: Array, title: str, tokens: Sequence[str]) -> Figure:
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
        image = axis.imshow(pattern[head], vmin=0, vmax=1, cmap=_SEQUENTIAL, interpolation="nearest")
        axis.set_title(f"head {head}", fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
        if head + columns >= n_head:  # the lowest one of its column
            _label(axis.set_xticks, tokens, _LABELS_OF_A_SQUARE, rotation=90)
            axis.set_xlabel("key", fontsize=7)
        if head % columns == 0:
            _label(axis.set_yticks, tokens, _LABELS_OF_A_SQUARE)
            axis.set_ylabel("query", fontsize=7)
    figure.colorbar(image, ax=axes.tolist(), label=title, shrink=0.8)
    return figure


def _mosaic(mosaic: Array) -> Figure:
    """mosaic [L, H, S, S] -> all heads in one image, a layer a row."""
    n_layer, n_head, side, _ = mosaic.shape
    sheet = np.pad(mosaic, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    sheet = sheet.transpose(0, 2, 1, 3).reshape(n_layer * (side + 1), n_head * (side + 1))
    figure = figure_of(0.8 * n_head + 1, 0.8 * n_layer + 0.6)
    axis = figure.subplots()
    image = axis.imshow(sheet, vmin=0, vmax=1, cmap=_SEQUENTIAL, interpolation="nearest")
    axis.set_xticks(np.arange(n_head) * (side + 1) + side / 2, [str(head) for head in range(n_head)], fontsize=7)
    axis.set_yticks(np.arange(n_layer) * (side + 1) + side / 2, [str(layer) for layer in range(n_layer)], fontsize=7)
    axis.set_xlabel("head")
    axis.set_ylabel("layer")
    figure.colorbar(image, label="attention (largest in its cell)")
    return figure


def _scores(scores: dict[str, Array]) -> Figure:
    """scores, each [L, H]."""
    n_layer, n_head = next(iter(scores.values())).shape
    columns = min(len(scores), 3)
    rows = -(-len(scores) // columns)
    figure = figure_of((0.25 * n_head + 2) * columns, (0.25 * n_layer + 1.2) * rows)
    for axis, (name, values) in zip(
        figure.subplots(rows, columns, squeeze=False).ravel(), scores.items(), strict=False
    ):
        unit = {"entropy": "entropy (nats)", "distance": "distance (tokens)"}.get(name, name)
        figure.colorbar(axis.imshow(values, cmap=_SEQUENTIAL, aspect="auto"), ax=axis, label=unit)
        axis.set_xlabel("head")
        axis.set_ylabel("layer")
    return figure


def _norms(archive: Archive) -> Figure:
    figure = figure_of(6.5, 4)
    axis = figure.subplots()
    names = {"post_ffn": "residual stream", "attn_out": "attention adds", "mlp_out": "feed-forward adds"}
    for point, label in names.items():
        axis.plot(archive[f"contributions/norm/{point}"].mean(1), marker=".", label=label)
    axis.set_yscale("log")
    axis.set_xlabel("layer")
    axis.set_ylabel("L2 norm, mean over tokens")
    axis.legend(frameon=False)
    return figure


def _attribution(archive: Archive) -> Figure:
    parts = [("embedding", archive["attribution/embedding"]), ("bias", archive["attribution/bias"])]
    bars = [(name, float(values[0])) for name, values in parts]
    for layer in range(len(archive["attribution/attention"])):
        bars.append((f"attention {layer}", float(archive["attribution/attention"][layer])))
        bars.append((f"feed-forward {layer}", float(archive["attribution/feed_forward"][layer])))
    figure = figure_of(6, 0.2 * len(bars) + 1.2)
    axis = figure.subplots()
    values = np.array([value for _, value in bars])
    axis.barh(range(len(bars)), values, color=np.where(values >= 0, "#b2182b", "#2166ac").tolist())
    axis.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=6)
    axis.invert_yaxis()
    axis.axvline(0, color="black", linewidth=0.6)
    about = archive.metadata.more
    against = f" minus {about['against_text']!r}" if about.get("against_text") else ""
    total = float(archive["attribution/sum"][0])
    axis.set_xlabel(f"adds to the logit of {about.get('answer_text', '')!r}{against}; sum {total:.3f}")
    return figure


def _lens(archive: Archive) -> Figure:
    """The lens: probability of each row's own likeliest token."""
    probability = archive["lens/probability"][:, :, 0]
    rows, time = probability.shape
    figure = figure_of(_INCHES * min(time, _MOST_LABELS) + 2, _INCHES * min(rows, _MOST_LABELS) + 1.5)
    axis = figure.subplots()
    image = axis.imshow(probability, vmin=0, vmax=1, cmap=_SEQUENTIAL, aspect="auto", interpolation="nearest")
    label_tokens(axis, archive.metadata.tokens)
    names = [f"{'before' if row % 2 == 0 else 'after'} attention {row // 2}" for row in range(rows - 1)] + ["final"]
    step = -(-rows // _MOST_LABELS)
    axis.set_yticks(range(0, rows, step), names[::step], fontsize=6)
    figure.colorbar(image, label="probability of the likeliest token")
    return figure


def label_tokens(axis: Axes, tokens: Sequence[str]) -> None:
    """Tokens along the x axis, thinned where they would overlap."""
    _label(axis.set_xticks, tokens, _MOST_LABELS, rotation=90)


def _label(set_ticks: Callable[..., object], tokens: Sequence[str], most: int, **how: int) -> None:
    step = -(-len(tokens) // most)
    # A dollar sign would begin a formula, and a font may lack a sign: both would spoil the figure.
    shown = [token.replace("\n", "↵").replace("$", r"\$") for token in tokens[::step]]
    set_ticks(range(0, len(tokens), step), shown, fontsize=6, **how)
