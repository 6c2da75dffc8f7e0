"""Summaries of interventions and sweeps for summary.json and the terminal. Numbers come from the archive alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llmlab.inspection.archive import Archive, Array
from llmlab.inspection.summary import HEAD_SCORES, POINTS, HeadScore, Likely, Summary, beginning, strongest

_LISTED = 5


@dataclass(frozen=True)
class Aim:
    """The logit, or the difference of two, that an intervention is about; at a position of the prompt."""

    position: int
    answer: str
    against: str  # "" for none
    before: float
    source: float | None  # in the source, where there is one


@dataclass(frozen=True)
class InterventionSummary(Summary):
    """The gist of an archive of kind `intervention`."""

    changes: list[str]
    aim: Aim
    after: float  # the aim's logit with the changes
    kl: float  # at the aim's position, nats
    kl_mean: float
    next_before: list[Likely]  # at the aim's position
    next_after: list[Likely]


@dataclass(frozen=True)
class CellEffect:
    """One cell of a sweep. index: a position or a head; token: that position's, "" for a head."""

    layer: int
    index: int
    token: str
    effect: float
    logit_difference: float


@dataclass(frozen=True)
class SweepSummary(Summary):
    """The gist of an archive of kind `sweep`: its strongest cells."""

    over: str
    point: str  # "" where heads are changed
    action: str
    effect: str  # normalised or change
    aim: Aim
    strongest: list[CellEffect]


@dataclass(frozen=True)
class Disagreement:
    """A position where two models expect different tokens most."""

    position: int
    token: str
    a: Likely
    b: Likely


@dataclass(frozen=True)
class ComparisonSummary(Summary):
    """The gist of an archive of kind `comparison`. By layer, means over tokens where there are tokens."""

    model_b: str
    weights_sha256_b: str
    identical: bool  # every difference is exactly zero
    predicted: bool  # whether the next tokens of both are known, so that `disagreements` means something
    largest: dict[str, float]  # largest |A - B| of every tensor
    cosine: dict[str, list[float | None]] = field(default_factory=dict)
    cka: dict[str, list[float | None]] = field(default_factory=dict)
    kl: list[float] = field(default_factory=list)  # by position, nats
    disagreements: list[Disagreement] = field(default_factory=list)


@dataclass(frozen=True)
class EvolutionSummary(Summary):
    """The gist of an archive of kind `evolution`, a value a step."""

    steps: list[int]
    val_loss: list[float | None]
    heads: dict[str, list[HeadScore | None]] = field(default_factory=dict)  # the strongest head of every step, by score
    target_probability: list[float] = field(default_factory=list)  # of the prompt's own tokens, mean
    attribution: list[float] = field(default_factory=list)  # the logit attributed


def summarise_intervention(archive: Archive) -> InterventionSummary:
    more = archive.metadata.more
    aim = _aim(archive, "target")
    texts = json.loads(more["texts"])
    return InterventionSummary(
        **beginning(archive),
        changes=json.loads(more["changes"]),
        aim=aim,
        after=float(archive["target/after"][0]),
        kl=float(archive["kl"][aim.position]),
        kl_mean=float(archive["kl"].mean()),
        next_before=_likely(archive, "before", aim.position, texts),
        next_after=_likely(archive, "after", aim.position, texts),
    )


def summarise_sweep(archive: Archive) -> SweepSummary:
    more, tokens = archive.metadata.more, archive.metadata.tokens
    positions = more["over"] == "layer,position"
    effect, difference = archive["sweep/effect"], archive["sweep/logit_difference"]
    order = np.argsort(-np.nan_to_num(np.abs(effect), nan=-1.0), axis=None, kind="stable")[: 2 * _LISTED]
    places = [(int(layer), int(index)) for layer, index in zip(*np.unravel_index(order, effect.shape), strict=True)]
    return SweepSummary(
        **beginning(archive),
        over=more["over"],
        point=more["point"] if positions else "",
        action=more["action"],
        effect=more["effect"],
        aim=_aim(archive, "sweep"),
        strongest=[
            CellEffect(*place, tokens[place[1]] if positions else "", float(effect[place]), float(difference[place]))
            for place in places
            if not math.isnan(effect[place])
        ],
    )


def summarise_comparison(archive: Archive) -> ComparisonSummary:
    more = archive.metadata.more
    differences = [name for name in archive if name.startswith("difference/")]
    largest = {name.removeprefix("difference/"): _largest(archive[name]) for name in differences}
    cosines = {point: archive[f"cosine/residual/{point}"] for point in POINTS if f"cosine/residual/{point}" in archive}
    return ComparisonSummary(
        **beginning(archive),
        model_b=more["model_b"],
        weights_sha256_b=more["weights_sha256_b"],
        identical=bool(differences) and not any(largest.values()) and not ("kl" in archive and archive["kl"].any()),
        predicted="a/ids" in archive,
        largest=largest,
        cosine={point: _plain(values.mean(1)) for point, values in cosines.items()},
        cka={point: _plain(archive[f"cka/{point}"]) for point in POINTS if f"cka/{point}" in archive},
        kl=archive["kl"].tolist() if "kl" in archive else [],
        disagreements=list(_disagreements(archive)) if "a/ids" in archive else [],
    )


def summarise_evolution(archive: Archive) -> EvolutionSummary:
    more = archive.metadata.more
    steps = json.loads(more["steps"])
    known = archive["lens/target_probability"][:, -1, :-1] if "lens/target_probability" in archive else None
    return EvolutionSummary(
        **beginning(archive),
        steps=steps,
        val_loss=json.loads(more["val_loss"]),
        heads={
            # None where no head has a score: a prompt of one token, or a checkpoint that diverged.
            score: [next(iter(strongest(values)), None) for values in archive[f"heads/{score}"]]
            for score in HEAD_SCORES
            if f"heads/{score}" in archive
        },
        target_probability=known.mean(1).tolist() if known is not None and known.size else [],
        attribution=archive["attribution/logit"][:, 0].tolist() if "attribution/logit" in archive else [],
    )


def _aim(archive: Archive, group: str) -> Aim:
    more = archive.metadata.more
    source = float(archive[f"{group}/source"][0]) if f"{group}/source" in archive else None
    before = float(archive[f"{group}/before"][0])
    return Aim(int(more["position"]), more["answer_text"], more["against_text"], before, source)


def _likely(archive: Archive, group: str, position: int, texts: dict[str, str]) -> list[Likely]:
    ids, probabilities = archive[f"{group}/ids"][position], archive[f"{group}/probability"][position]
    return [Likely(texts[str(id)], float(p)) for id, p in zip(ids.tolist(), probabilities, strict=True)]


def _disagreements(archive: Archive) -> Sequence[Disagreement]:
    more, tokens = archive.metadata.more, archive.metadata.tokens
    texts = {"a": json.loads(more["texts"]), "b": json.loads(more["texts_b"])}
    found = []
    for position, token in enumerate(tokens):
        a, b = (_likely(archive, group, position, texts[group])[0] for group in "ab")
        if a.text != b.text:
            found.append(Disagreement(position, token, a, b))
    return found


def _largest(values: Array) -> float:
    """The largest |value|, a layer or head at a time: the tensor may be larger than memory."""
    parts = values if values.ndim > 2 else [values]
    return max((float(np.abs(part).max(initial=0.0)) for part in parts), default=0.0)


def _plain(values: Array) -> list[float | None]:
    """For JSON, which knows no NaN."""
    return [None if math.isnan(value) else value for value in values.tolist()]
