"""One head in detail: its full pattern, and the stages from queries and keys to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from llmlab.anatomy.anatomy import Anatomy, require
from llmlab.anatomy.capture import Observer, run
from llmlab.core.errors import UsageError
from llmlab.core.progress import Progress
from llmlab.inspection.answers import require_room
from llmlab.inspection.archive import ArchiveWriter, Slot, write_archive
from llmlab.inspection.inspect import archive_bytes, as_array, describe
from llmlab.inspection.questions import Pattern, Stages, from_values
from llmlab.inspection.stages import StagesOf
from llmlab.models.model import OpenModel


def answer_pattern(opened: OpenModel, values: Mapping[str, Any], out: Path, progress: Progress) -> None:
    """Answers a `Pattern` question: `pattern` [T, T], query by key."""
    question = from_values(Pattern, values)
    _check(opened.anatomy, question.layer, question.head)
    ids = question.token_ids(opened)
    slots: dict[str, Slot] = {"pattern": (np.float32, (len(ids), len(ids)))}
    require_room(out, archive_bytes(slots))
    progress("Reading the prompt", 0, 0)
    with ArchiveWriter(out, slots, describe(opened, "pattern", ids, question)) as writer:
        watcher = _OnePattern(question.layer, question.head, writer)
        run(opened.model, opened.anatomy, ids, [watcher], last=True)


def answer_stages(opened: OpenModel, values: Mapping[str, Any], out: Path, progress: Progress) -> None:
    """Answers a `Stages` question: see `llmlab.inspection.stages`. Metadata: scale, softcap ("" where none)."""
    question = from_values(Stages, values)
    _check(opened.anatomy, question.layer, question.head)
    ids = question.token_ids(opened)
    progress("Reading the prompt", 0, 0)
    watcher = StagesOf(opened.anatomy, question.layer, question.head)
    run(opened.model, opened.anatomy, ids, [watcher], last=True)
    stages = watcher.result()
    tensors = {name: as_array(tensor) for name, tensor in stages.tensors().items()}
    require_room(out, sum(tensor.nbytes for tensor in tensors.values()))
    more = {"scale": repr(stages.scale), "softcap": "" if stages.softcap is None else repr(stages.softcap)}
    write_archive(out, tensors, describe(opened, "stages", ids, question, **more))


def _check(anatomy: Anatomy, layer: int, head: int) -> None:
    """UsageError for a head that is not there, LabError where its pattern cannot be trusted."""
    require(anatomy.refusals.attention, "Attention patterns")
    if not (0 <= layer < anatomy.n_layer and 0 <= head < anatomy.n_head):
        raise UsageError(
            f"There is no head {layer}.{head}.",
            f"The model has {anatomy.n_layer} layers of {anatomy.n_head} heads, both counted from 0.",
        )
    if anatomy.blocks[layer].attention is None:
        raise UsageError(f"Layer {layer} has no attention pattern.", "It mixes tokens in another way.")


class _OnePattern(Observer):
    def __init__(self, layer: int, head: int, writer: ArchiveWriter) -> None:
        self._layer, self._head, self._writer = layer, head, writer

    def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
        if layer == self._layer:
            self._writer.write("pattern", as_array(pattern[self._head]), first_row=first)
