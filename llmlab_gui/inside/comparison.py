"""From the archive of a comparison to maps and lines. Knows no Qt."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from llmlab.core.signs import minus
from llmlab.inspection.archive import Archive, Array
from llmlab_gui.charts.heatmap import Heat
from llmlab_gui.charts.layer_chart import Line, numbered
from llmlab_gui.inside.ranked_tokens import Ranked
from llmlab_gui.widgets.alternatives import visible

# Hook points: name, words, and a tool tip with the name that TransformerLens has for it.
POINTS = (
    ("post_ffn", "stream after the layer", "post_ffn, in TransformerLens resid_post"),
    ("post_attn", "stream after attention", "post_attn, in TransformerLens resid_mid"),
    ("pre_attn", "stream before the layer", "pre_attn, in TransformerLens resid_pre"),
    ("attn_out", "attention output", "attn_out, in TransformerLens hook_attn_out"),
    ("mlp_out", "feed-forward output", "mlp_out, in TransformerLens hook_mlp_out"),
)


@dataclass(frozen=True)
class Names:
    """Short names of both models."""

    a: str
    b: str


def pattern_heat(archive: Archive, layer: int, head: int) -> Heat | None:
    """A - B of one head's pattern; None where both patterns are not there."""
    name = f"difference/attention/{layer}"
    if name not in archive or head >= archive.shape(name)[0]:
        return None
    tokens = [visible(token) for token in archive.metadata.tokens]
    return Heat(archive[name][head], tokens, tokens, "query", "key", signed=True)


def heads_heat(archive: Archive) -> Heat | None:
    """For every head, how much of its attention goes elsewhere: mean over queries of half the sum of |A - B|."""
    layers = _layers(archive, "difference/attention/")
    if not layers:
        return None
    heads = max(archive.shape(f"difference/attention/{layer}")[0] for layer in layers)
    values = np.full((max(layers) + 1, heads), np.nan)
    for layer in layers:
        difference = np.asarray(archive[f"difference/attention/{layer}"], np.float64)
        values[layer, : len(difference)] = np.abs(difference).sum(axis=-1).mean(axis=-1) / 2
    rows, columns = ([str(place) for place in range(size)] for size in values.shape)
    return Heat(values, rows, columns, "layer", "head", unit="share")


def stream_heat(archive: Archive, point: str) -> Heat | None:
    """1 - cosine of the two streams, layer by token: 0 where both point the same way."""
    name = f"cosine/residual/{point}"
    if name not in archive:
        return None
    values = 1.0 - np.asarray(archive[name], np.float64)
    tokens = [visible(token) for token in archive.metadata.tokens]
    rows = [str(layer) for layer in range(len(values))]
    return Heat(values, rows, tokens, "layer", "token", unit="1 − cosine")


def point_heat(archive: Archive, point: str, layer: int) -> Heat | None:
    """A - B of one point of one layer, token by channel."""
    name = f"difference/residual/{point}"
    if name not in archive or layer >= archive.shape(name)[0]:
        return None
    values = archive[name][layer]
    tokens = [visible(token) for token in archive.metadata.tokens]
    channels = [str(channel) for channel in range(values.shape[1])]
    return Heat(values, tokens, channels, "token", "channel", signed=True)


def layer_lines(archive: Archive) -> list[Line]:
    """Cosine (mean over tokens) and CKA of each point, by layer."""
    lines = []
    shown = [point for point in POINTS if point[0] in ("post_ffn", "attn_out", "mlp_out")]
    for color, (point, words, _) in enumerate(shown):
        for prefix, kind in (("cosine/residual", "mean cosine"), ("cka", "CKA")):
            name = f"{prefix}/{point}"
            if name in archive:
                values = np.asarray(archive[name], np.float64)
                values = values.mean(axis=1) if values.ndim == 2 else values
                lines.append(numbered(f"{kind}, {words}", values, color=color, dotted=prefix == "cka"))
    return lines


def kl_lines(archive: Archive) -> list[Line]:
    """KL(A || B) by position; none where the vocabularies differ."""
    if "kl" not in archive:
        return []
    return [numbered("KL(A ‖ B)", archive["kl"], markers=True, legend="")]


def top_columns(archive: Archive, names: Names, position: int) -> list[Ranked]:
    """The most likely next tokens of both at a position."""
    columns = []
    for color, (key, name) in enumerate((("a", names.a), ("b", names.b))):
        if f"{key}/ids" not in archive:
            continue
        texts = json.loads(archive.metadata.more.get("texts" if key == "a" else "texts_b", "{}"))
        ids, chances = archive[f"{key}/ids"][position].tolist(), archive[f"{key}/probability"][position].tolist()
        pairs = tuple((texts.get(str(id), f"[{id}]"), chance) for id, chance in zip(ids, chances, strict=True))
        columns.append(Ranked(f"{key.upper()}: {name}", pairs, color))
    return columns


def summary(archive: Archive, position: int) -> str:
    """What differs at a token, in a sentence."""
    parts = []
    if "kl" in archive:
        kl: Array = archive["kl"]
        here = f"{minus(f'{float(kl[position]):.4g}')} nats at token {position}"
        parts.append(f"KL(A ‖ B) {here}, {float(kl.mean()):.4g} on average.")
    if "cosine/residual/final" in archive:
        parts.append(
            f"Cosine of the last residuals {minus(format(float(archive['cosine/residual/final'][position]), '.4f'))}."
        )
    return " ".join([*parts, *archive.metadata.notes])


def _layers(archive: Archive, prefix: str) -> list[int]:
    return sorted(int(name.removeprefix(prefix)) for name in archive if name.removeprefix(prefix).isdecimal())
