"""From an inspection's tensors to lines and maps of the residual stream. Knows no Qt but colours' places."""

from __future__ import annotations

import numpy as np

from llmlab.inspection.archive import Archive, Array
from llmlab_gui.charts.layer_chart import Line, numbered

# Quantities that a map can show: name in the archive (below contributions/), words, what it is.
QUANTITIES = (
    ("norm/post_ffn", "Stream after the layer", "L2 norm"),
    ("norm/post_attn", "Stream after attention", "L2 norm"),
    ("norm/attn_out", "Attention output", "L2 norm"),
    ("norm/mlp_out", "Feed-forward output", "L2 norm"),
    ("cosine/attention", "Stream before and after attention", "cosine"),
    ("cosine/feed_forward", "Stream before and after the feed-forward", "cosine"),
    ("cosine/block", "Stream before and after the layer", "cosine"),
)
# Two points of the stream a layer, then what is added; x counts layers that a vector has passed.
_ADDED = (("attn_out", "attention adds", 1, 0.5), ("mlp_out", "feed-forward adds", 2, 1.0))
_COSINES = (("attention", "attention", 1), ("feed_forward", "feed-forward", 2), ("block", "whole layer", 0))


class Columns:
    """Columns of an inspection's maps, [L] each: of a token, or the mean over all, which is found once."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._means: dict[str, Array] = {}

    def of(self, name: str, token: int | None) -> Array:
        """name: below contributions/. token: None for the mean of all tokens."""
        values = self._archive[f"contributions/{name}"]
        if token is not None:
            return np.asarray(values[:, token], np.float64)
        if name not in self._means:
            self._means[name] = values.mean(axis=1, dtype=np.float64)
        return self._means[name]


def norm_lines(columns: Columns, token: int, name: str, *, mean: bool) -> list[Line]:
    """Norms at a token, and their mean over tokens dotted. Stream: embedding at 0, each layer's halves after it."""
    lines = []
    for column, suffix in [(token, name), *([(None, "mean of tokens")] if mean else [])]:
        dotted = column is None
        legend = "mean of tokens" if dotted else f"stream at {name}"
        lines.append(Line(f"stream, {suffix}", *_stream(columns, column), color=0, dotted=dotted, legend=legend))
        for point, words, color, offset in _ADDED:
            values = columns.of(f"norm/{point}", column)
            x = np.arange(len(values)) + offset
            legend = "" if dotted else words
            lines.append(Line(f"{words}, {suffix}", x, values, color=color, dotted=dotted, legend=legend))
    return lines


def cosine_lines(columns: Columns, token: int, name: str, *, mean: bool) -> list[Line]:
    """Cosine of the stream before and after each part: 1 where it keeps its direction."""
    lines = []
    for column, suffix in [(token, name), *([(None, "mean of tokens")] if mean else [])]:
        for part, words, color in _COSINES:
            values = columns.of(f"cosine/{part}", column)
            first = "mean of tokens" if part == "attention" else ""
            legend = first if column is None else words
            lines.append(numbered(f"{words}, {suffix}", values, color=color, dotted=column is None, legend=legend))
    return lines


def virtual(archive: Archive) -> str:
    """The note that post_attn exists nowhere in the model (parallel blocks), "" where it does."""
    return next((note for note in archive.metadata.notes if "post_attn" in note and "virtual" in note), "")


def _stream(columns: Columns, token: int | None) -> tuple[Array, Array]:
    """x and norm at pre_attn of the first layer, and at post_attn and post_ffn of each."""
    first = columns.of("norm/pre_attn", token)[:1]
    halves = [columns.of(f"norm/{point}", token) for point in ("post_attn", "post_ffn")]
    values = np.concatenate([first, np.stack(halves, axis=1).reshape(-1)])
    return np.arange(len(values)) / 2, values
