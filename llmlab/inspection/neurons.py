"""Logit attribution to the neurons of one feed-forward."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmlab.core.errors import UsageError
from llmlab.core.progress import Progress
from llmlab.inspection.archive import write_archive
from llmlab.inspection.attribution import NeuronsAt
from llmlab.inspection.inspect import as_array, check_target, describe
from llmlab.inspection.questions import Neurons, from_values, position_of
from llmlab.inspection.readout import read
from llmlab.inspection.target import target_of
from llmlab.models.model import OpenModel


def answer_neurons(opened: OpenModel, values: Mapping[str, Any], out: Path, progress: Progress) -> None:
    """Answers a `Neurons` question: see `llmlab.inspection.attribution.NeuronsAt.results`."""
    question = from_values(Neurons, values)
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
