"""Effects of interventions on a model's predictions: ablation and activation patching.

Two forward passes over one prompt, without and with the changes of `llmlab.inspection.intervening`, and one over the
source where values are patched from. The archive (kind `intervention`) holds, K tokens kept at each of T positions:

    before/ids, after/ids [T, K] int32; before/probability, after/probability [T, K]    most likely next tokens
    before/logits, after/logits [2]   logits of the answer and of what it is held against (NaN where nothing is)
    target/before, target/after [1]   logit(answer) - logit(against); the answer's logit where against is nothing
    target/source [1]                 the same in the source, at the aligned position, where there is a source
    kl [T]                            KL(before || after) in nats
    change/post_ffn [L, T]            ||x' - x|| / ||x|| of the stream after every block: where the change went

metadata: `position`, `answer`, `answer_text`, `against`, `against_text` ("" for none), `changes` (JSON list),
`texts` (JSON object: token id -> text, of the most likely tokens).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llmlab.anatomy.capture import Observer, Point
from llmlab.core.errors import UsageError
from llmlab.core.progress import Progress, quiet
from llmlab.inspection.archive import Array, write_archive
from llmlab.inspection.inspect import check_target, describe
from llmlab.inspection.intervening import (
    Action,
    Intervention,
    Interventions,
    Recorder,
    Slot,
    Sources,
    align,
    parse_intervention,
    require_intervention,
)
from llmlab.inspection.questions import Prompt, Target, position_of
from llmlab.inspection.readout import Readout, divergence, predictions, read, target_of, text_of
from llmlab.models.model import OpenModel

# The stream after every block is kept for `change/post_ffn` while it is no larger than this (30 layers of n_embd
# 576 take 69 kB a token).
_STREAM_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Sourced(Target):
    """A question that may take values from elsewhere.

    source, source_ids: the prompt that is patched from; ids win. align: see `llmlab.inspection.intervening.align`.
    reference: a text whose positions are averaged for mean-ablation; "" is the prompt itself.
    """

    source: str = ""
    source_ids: tuple[int, ...] = ()
    align: str = ""
    reference: str = ""

    def source_token_ids(self, opened: OpenModel) -> list[int] | None:
        """What the source pass reads; None when there is no source."""
        if not self.source and not self.source_ids:
            return None
        return Prompt(text=self.source, ids=self.source_ids, beginning=self.beginning).token_ids(opened)

    def reference_token_ids(self, opened: OpenModel) -> list[int]:
        if not self.reference:
            return self.token_ids(opened)
        return Prompt(text=self.reference, beginning=self.beginning).token_ids(opened)


@dataclass(frozen=True, kw_only=True)
class Intervene(Sourced):
    """Changes, as `llmlab.inspection.intervening` writes them, and what is kept of the predictions."""

    edits: tuple[str, ...]
    top: int = 5


def intervene(opened: OpenModel, question: Intervene, out: Path, progress: Progress = quiet) -> None:
    """Runs the prompt with and without the changes and writes what they did.

    UsageError when there are no changes, one is wrong, or a source is missing or not aligned; LabError when a part
    is refused for this model.
    """
    anatomy = opened.anatomy
    interventions = [parse_intervention(edit) for edit in question.edits]
    if not interventions:
        raise UsageError("There is nothing to change.", "", "Name at least one intervention: zero head:3.2")
    for intervention in interventions:
        require_intervention(anatomy, intervention)
    check_target(opened, question)
    ids = question.token_ids(opened)
    source_ids = question.source_token_ids(opened)
    progress("Unchanged pass", 0, 3)
    position = position_of(question.position, len(ids))
    means = taken(interventions, "mean")
    keep = anatomy.n_layer * len(ids) * anatomy.n_embd * anatomy.unembedding.element_size() <= _STREAM_BYTES
    outputs = [(layer, "post_ffn") for layer in range(anatomy.n_layer)] if keep else []
    own = Recorder([*(() if question.reference else means), *outputs])
    before = read(opened, ids, [own])
    progress("Reading the source", 1, 3)
    sources, source = take_sources(opened, question, interventions, own, source_ids, len(ids))
    progress("Changed pass", 2, 3)
    moved = _Moved(own) if keep else None
    after = read(opened, ids, [moved] if moved else [], [Interventions(interventions, len(ids), sources)])
    progress("Comparing", 3, 3)
    tensors = _tensors(before, after, question.top)
    target = target_of(opened, question, before.at(position), position)
    for name, readout in (("before", before), ("after", after)):
        logits = readout.at(position)
        tensors[f"{name}/logits"] = target.logits(logits)
        tensors[f"target/{name}"] = np.array([target.value(logits)], dtype=np.float32)
    if source is not None and position in sources.alignment:
        logits = source.at(sources.alignment[position])
        tensors["target/source"] = np.array([target.value(logits)], dtype=np.float32)
    if moved:
        tensors["change/post_ffn"] = moved.rows()
    most_likely = np.unique([tensors["before/ids"], tensors["after/ids"]]).tolist()
    more = target.strings(opened) | {
        "changes": json.dumps([str(intervention) for intervention in interventions]),
        "texts": json.dumps({str(id): text_of(opened.tokenizer, id) for id in most_likely}, ensure_ascii=False),
    }
    metadata = describe(opened, "intervention", ids, question, **more)
    write_archive(out, tensors, replace(metadata, notes=[*metadata.notes, *_notes(interventions)]))


# The passes ------------------------------------------------------------------------------------------------------


def take_sources(
    opened: OpenModel,
    question: Sourced,
    interventions: Sequence[Intervention],
    own: Recorder,
    source_ids: Sequence[int] | None,
    time: int,
) -> tuple[Sources, Readout | None]:
    """Values for means and patches, and what the source predicts. own: has the means if there is no reference text.

    UsageError when a patch has no source.
    """
    means, patches = taken(interventions, "mean"), taken(interventions, "patch")
    averaged = own
    if question.reference and means:
        averaged = Recorder(means)
        read(opened, question.reference_token_ids(opened), [averaged])
    if source_ids is None:
        if patches:
            raise UsageError("There is no source to patch from.", "", "Name another prompt as the source.")
        return Sources(averaged.values), None
    alignment = align(question.align, time, len(source_ids))
    patched = Recorder(patches)
    source = read(opened, source_ids, [patched])
    return Sources(averaged.values, patched.values, alignment), source


def taken(interventions: Sequence[Intervention], action: Action) -> list[Slot]:
    """What the changes of one kind need of another pass."""
    return [slot for intervention in interventions if intervention.action == action for slot in intervention.takes]


class _Moved(Observer):
    """How far the stream after each block is from what it was, relative to its length."""

    def __init__(self, before: Recorder) -> None:
        self._before = before
        self._rows: dict[int, Tensor] = {}

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        if point == "post_ffn":
            old = self._before.values[layer, point].float()
            distance, length = (x.float() - old).norm(dim=-1), old.norm(dim=-1)
            self._rows[layer] = distance / length.clamp_min(torch.finfo(length.dtype).tiny)

    def rows(self) -> Array:
        """[L, T]."""
        return torch.stack([self._rows[layer] for layer in sorted(self._rows)]).cpu().numpy()


def _tensors(before: Readout, after: Readout, top: int) -> dict[str, Array]:
    tensors: dict[str, Array] = {"kl": divergence(before, after).cpu().numpy()}
    for name, readout in (("before", before), ("after", after)):
        tensors |= {f"{name}/{part}": values for part, values in predictions(readout, top).items()}
    return tensors


def _notes(interventions: Sequence[Intervention]) -> list[str]:
    if any(intervention.part == "attention" and intervention.action == "zero" for intervention in interventions):
        return ["Zeroed attention loses its output bias too; all heads zeroed keep it."]
    return []
