"""One part in detail: a head's full pattern and the stages from queries and keys to it, or a layer's neurons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from llmlab.anatomy.anatomy import Anatomy, require
from llmlab.anatomy.attention_call import with_all_keys
from llmlab.anatomy.capture import Observer, run
from llmlab.core.errors import UsageError
from llmlab.core.progress import Progress
from llmlab.inspection.archive import ArchiveWriter, Slot, write_archive
from llmlab.inspection.attribution import NeuronsAt
from llmlab.inspection.inspect import as_array, check_target, describe
from llmlab.inspection.questions import Neurons, Pattern, Stages, position_of
from llmlab.inspection.readout import read, target_of
from llmlab.inspection.stages import StagesOf
from llmlab.models.model import OpenModel


def pattern(opened: OpenModel, question: Pattern, out: Path, progress: Progress) -> None:
    """Writes `pattern` [T, T], query by key."""
    require_head(opened.anatomy, question.layer, question.head)
    ids = question.token_ids(opened)
    slots: dict[str, Slot] = {"pattern": (np.float32, (len(ids), len(ids)))}
    progress("Reading the prompt", 0, 0)
    with ArchiveWriter(out, slots, describe(opened, "pattern", ids, question)) as writer:
        watcher = _OnePattern(question.layer, question.head, len(ids), writer)
        run(opened.model, opened.anatomy, ids, [watcher], last=True)


def stages(opened: OpenModel, question: Stages, out: Path, progress: Progress) -> None:
    """Writes what `llmlab.inspection.stages` describes. Metadata: scale, softcap ("" where none)."""
    require_head(opened.anatomy, question.layer, question.head)
    ids = question.token_ids(opened)
    progress("Reading the prompt", 0, 0)
    watcher = StagesOf(opened.anatomy, question.layer, question.head)
    run(opened.model, opened.anatomy, ids, [watcher], last=True)
    found = watcher.result()
    tensors = {name: as_array(tensor) for name, tensor in found.tensors().items()}
    more = {"scale": repr(found.scale), "softcap": "" if found.softcap is None else repr(found.softcap)}
    write_archive(out, tensors, describe(opened, "stages", ids, question, **more))


def neurons(opened: OpenModel, question: Neurons, out: Path, progress: Progress) -> None:
    """Writes what `llmlab.inspection.attribution.NeuronsAt.results` describes."""
    anatomy = opened.anatomy
    if not 0 <= question.layer < anatomy.n_layer:
        raise UsageError(f"There is no layer {question.layer}.", f"They run from 0 to {anatomy.n_layer - 1}.")
    ids = question.token_ids(opened)
    position = position_of(question.position, len(ids))
    check_target(opened, question)
    watcher = NeuronsAt(anatomy, question.layer, position)
    progress("Reading the prompt", 0, 0)
    readout = read(opened, ids, [watcher])
    target = target_of(opened, question, readout.at(position), position)
    tensors = watcher.results(target.answer, target.against, question.top)
    about = describe(opened, "neurons", ids, question, **target.strings(opened))
    write_archive(out, {name: as_array(tensor) for name, tensor in tensors.items()}, about)


def require_head(anatomy: Anatomy, layer: int, head: int) -> None:
    """UsageError for a head that is not there, or has no pattern; LabError where patterns cannot be trusted."""
    require(anatomy.refusals.attention, "Attention patterns")
    if not (0 <= layer < anatomy.n_layer and 0 <= head < anatomy.n_head):
        raise UsageError(
            f"There is no head {layer}.{head}.",
            f"The model has {anatomy.n_layer} layers of {anatomy.n_head} heads, both counted from 0.",
        )
    if anatomy.blocks[layer].attention is None:
        raise UsageError(f"Layer {layer} has no attention pattern.", "It mixes tokens in another way.")


class _OnePattern(Observer):
    def __init__(self, layer: int, head: int, time: int, writer: ArchiveWriter) -> None:
        self._layer, self._head, self._time, self._writer = layer, head, time, writer

    def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
        if layer == self._layer:
            rows = with_all_keys(pattern[self._head], self._time)
            self._writer.write("pattern", as_array(rows), first_row=first)
