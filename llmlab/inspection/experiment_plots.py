"""Figures of interventions, sweeps, comparisons and evolutions, as PNG and SVG, drawn from the archive alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from llmlab.inspection.archive import Archive, Array
from llmlab.inspection.plots import figure_of, label_tokens
from llmlab.inspection.summary import HEAD_SCORES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SEQUENTIAL, _DIVERGING = "viridis", "RdBu_r"
_POINTS = ("pre_attn", "attn_out", "post_attn", "mlp_out", "post_ffn")


def experiment_figures(archive: Archive) -> Iterator[tuple[str, Figure]]:
    """Every figure that fits the archive's kind, with its name."""
    drawings = {
        "intervention": _intervention,
        "sweep": _sweep,
        "comparison": _comparison,
        "evolution": _evolution,
    }
    return drawings[archive.metadata.kind](archive)


def _intervention(archive: Archive) -> Iterator[tuple[str, Figure]]:
    yield "kl", _by_token(archive, archive["kl"], "KL(before || after), nats")
    if "change/post_ffn" in archive:
        yield "change", _grid(archive, archive["change/post_ffn"], "change of the stream, relative", tokens=True)


def _sweep(archive: Archive) -> Iterator[tuple[str, Figure]]:
    more = archive.metadata.more
    unit = "effect, 0 prompt, 1 source" if more["effect"] == "normalised" else "change of the logit difference"
    positions = more["over"] == "layer,position"
    where = more["point"] if positions else "heads"
    yield (
        "sweep",
        _grid(archive, archive["sweep/effect"], f"{more['action']} {where}\n{unit}", tokens=positions, signed=True),
    )


def _comparison(archive: Archive) -> Iterator[tuple[str, Figure]]:
    if "kl" in archive:
        yield "kl", _by_token(archive, archive["kl"], "KL(A || B), nats")
    for named, group in (("cosine", "cosine/residual"), ("cka", "cka")):
        lines = {point: archive[f"{group}/{point}"] for point in _POINTS if f"{group}/{point}" in archive}
        if lines:
            by_layer = {point: values.mean(1) if values.ndim > 1 else values for point, values in lines.items()}
            yield named, _lines(by_layer, list(range(len(by_layer["post_ffn"]))), "layer", named)
    layers = sorted(
        int(name.rpartition("/")[2])
        for name in archive
        if name.startswith("difference/attention/") and name[-1].isdigit()
    )
    if layers:
        largest = np.stack([np.abs(archive[f"difference/attention/{layer}"]).max((1, 2)) for layer in layers])
        yield "attention-difference", _grid(archive, largest, "largest |A - B| of a pattern", tokens=False)


def _evolution(archive: Archive) -> Iterator[tuple[str, Figure]]:
    steps = json.loads(archive.metadata.more["steps"])
    scores = {name: archive[f"heads/{name}"] for name in HEAD_SCORES if f"heads/{name}" in archive}
    if scores:
        largest = {name: np.fmax.reduce(values, axis=(1, 2)) for name, values in scores.items()}
        yield "heads-by-step", _lines(largest, steps, "step", "score of the strongest head")
    if "lens/target_probability" in archive and len(archive.metadata.tokens) > 1:
        probability = archive["lens/target_probability"][:, ::2, :-1].mean(2)  # [S, L + 1]: before each layer, final
        yield "lens-by-step", _steps_by_depth(probability, steps)


def _by_token(archive: Archive, values: Array, label: str) -> Figure:
    figure = figure_of(0.28 * min(len(values), 48) + 2, 3)
    axis = figure.subplots()
    axis.bar(range(len(values)), values)
    label_tokens(axis, archive.metadata.tokens)
    axis.set_ylabel(label)
    return figure


def _grid(archive: Archive, values: Array, label: str, *, tokens: bool, signed: bool = False) -> Figure:
    """values [L, T] or [L, H]; signed: colours centred at zero."""
    figure = figure_of(0.28 * min(values.shape[1], 48) + 2.5, 0.25 * min(len(values), 48) + 1.5)
    axis = figure.subplots()
    limit = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    colours = {"cmap": _DIVERGING, "vmin": -limit, "vmax": limit} if signed else {"cmap": _SEQUENTIAL}
    image = axis.imshow(values, aspect="auto", interpolation="nearest", **colours)
    if tokens:
        label_tokens(axis, archive.metadata.tokens)
    else:
        axis.set_xlabel("head")
        axis.locator_params(axis="x", integer=True)
    axis.set_ylabel("layer")
    axis.locator_params(axis="y", integer=True)
    figure.colorbar(image, label=label)
    return figure


def _lines(values: dict[str, Array], x: list[int], along: str, label: str) -> Figure:
    figure = figure_of(6.5, 4)
    axis = figure.subplots()
    for name, line in values.items():
        axis.plot(x, line, marker=".", label=name)
    axis.set_xlabel(along)
    axis.locator_params(axis="x", integer=True)
    axis.set_ylabel(label)
    axis.legend(frameon=False)
    return figure


def _steps_by_depth(probability: Array, steps: list[int]) -> Figure:
    """probability [S, L + 1]: how early, in training and in depth, the prompt's own tokens are expected."""
    figure = figure_of(0.4 * len(steps) + 2.5, 0.3 * probability.shape[1] + 1.5)
    axis = figure.subplots()
    image = axis.imshow(probability.T, origin="lower", vmin=0, aspect="auto", cmap=_SEQUENTIAL, interpolation="nearest")
    stride = -(-len(steps) // 24)
    axis.set_xticks(range(0, len(steps), stride), [str(step) for step in steps[::stride]], rotation=90, fontsize=7)
    axis.set_xlabel("step")
    axis.set_ylabel("layers read before the lens")
    figure.colorbar(image, label="p(next token of the prompt)")
    return figure
