"""Summaries of inspections for summary.json and the terminal. Numbers come from the archive alone."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from llmlab.core.records import to_plain
from llmlab.inspection.archive import Archive, Array

HEAD_SCORES = ("previous", "first", "induction", "duplicate")
# Points of the residual stream, in the order of the computation.
POINTS = ("pre_attn", "attn_out", "post_attn", "mlp_out", "post_ffn")
_LISTED = 5


@dataclass(frozen=True)
class HeadScore:
    """One head and how strongly it does what the score is about."""

    layer: int
    head: int
    score: float


@dataclass(frozen=True)
class Attended:
    """How much attention a head of a layer gives to the token `key`."""

    layer: int
    head: int
    key: int
    weight: float


@dataclass(frozen=True)
class Bar:
    """One bar of a direct logit attribution."""

    name: str
    value: float


@dataclass(frozen=True)
class Likely:
    """A token that a model expects, with its probability."""

    text: str
    probability: float


@dataclass(frozen=True)
class Summary:
    """What every summary begins with. tensors: shapes by name."""

    kind: str
    model: str
    weights_sha256: str
    tokens: list[str]
    bytes: int
    tensors: dict[str, list[int]]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which knows no NaN and no infinity: None stands for them."""
        return to_plain(asdict(self))


def beginning(archive: Archive) -> dict[str, Any]:
    """The values of what every summary begins with."""
    about = archive.metadata
    return {
        "kind": about.kind,
        "model": about.model,
        "weights_sha256": about.weights_sha256,
        "tokens": about.tokens,
        "bytes": archive.path.stat().st_size,
        "tensors": {name: list(archive.shape(name)) for name in archive},
        "notes": about.notes,
    }


@dataclass(frozen=True)
class InspectionSummary(Summary):
    """The gist of an archive of kind `inspection`; parts that it lacks are empty.

    step: of a run's training. position: of the token that was asked about. next: after it. attends: its largest
    attention weights, to any token but the first. heads: the strongest ones by score.
    answer, against: the tokens whose logits are explained. attribution: the largest bars by size, then the sum of all.
    norms: mean over tokens, by layer. settled: first row of the lens from which on the last position's top token stays
    the same.
    """

    family: str
    n_layer: int
    step: int | None
    position: int
    next: list[Likely]
    attends: list[Attended]
    heads: dict[str, list[HeadScore]]
    answer: str
    against: str
    attribution: list[Bar]
    norms: dict[str, list[float]]
    settled: int | None


def summarise(archive: Archive) -> InspectionSummary:
    about = archive.metadata
    return InspectionSummary(
        **beginning(archive),
        family=about.more.get("family", ""),
        n_layer=int(about.more.get("n_layer", 0)),
        step=int(about.more["step"]) if about.more.get("step") else None,
        position=_position(archive),
        next=[Likely(str(token), float(p)) for token, p in json.loads(about.more.get("next", "[]"))],
        attends=_attended(archive),
        heads={name: strongest(archive[f"heads/{name}"]) for name in HEAD_SCORES if f"heads/{name}" in archive},
        answer=about.more.get("answer_text", ""),
        against=about.more.get("against_text", ""),
        attribution=_bars(archive),
        norms={
            name.removeprefix("contributions/norm/"): archive[name].mean(1).round(4).tolist()
            for name in archive
            if name.startswith("contributions/norm/")
        },
        settled=_settled(archive),
    )


def _position(archive: Archive) -> int:
    return int(archive.metadata.more.get("position", len(archive.metadata.tokens) - 1))


def _attended(archive: Archive) -> list[Attended]:
    """Without the first token, which gets most of the attention in many models, whatever it says (Xiao et al. 2023)."""
    query = _position(archive)
    found = []
    for layer in sorted(int(match[1]) for name in archive if (match := re.fullmatch(r"attention/(\d+)", name))):
        weights = np.nan_to_num(archive[f"attention/{layer}"][:, query])  # [H, T]
        weights[:, 0] = 0
        for place in np.argsort(-weights, axis=None, kind="stable")[:_LISTED]:
            head, key = (int(index) for index in np.unravel_index(place, weights.shape))
            found.append(Attended(layer, head, key, float(weights[head, key])))
    return sorted((one for one in found if one.weight > 0), key=lambda one: -one.weight)[:_LISTED]


def _settled(archive: Archive) -> int | None:
    if "lens/ids" not in archive:
        return None
    top = archive["lens/ids"][:, -1, 0]
    others = np.flatnonzero(top != top[-1])
    return int(others[-1]) + 1 if len(others) else 0


def strongest(scores: Array) -> list[HeadScore]:
    """scores [L, H] -> the highest ones, of equal ones the first; layers without heads have NaN and are left out."""
    order = np.argsort(np.where(np.isnan(scores), np.inf, -scores), axis=None, kind="stable")[:_LISTED]
    order = order[: np.count_nonzero(~np.isnan(scores))]
    places = zip(*np.unravel_index(order, scores.shape), strict=True)
    return [HeadScore(int(layer), int(head), float(scores[layer, head])) for layer, head in places]


def _bars(archive: Archive) -> list[Bar]:
    if "attribution/sum" not in archive:
        return []
    bars = [
        Bar("embedding", float(archive["attribution/embedding"][0])),
        Bar("bias", float(archive["attribution/bias"][0])),
    ]
    for part in ("attention", "feed_forward"):
        bars += [Bar(f"{part} {layer}", float(value)) for layer, value in enumerate(archive[f"attribution/{part}"])]
    largest = sorted(bars, key=lambda bar: -abs(bar.value))[:_LISTED]
    return [*largest, Bar("sum", float(archive["attribution/sum"][0]))]
