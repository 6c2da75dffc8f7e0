"""Walks as questions to an open model, answered into an archive like all others: what the model host asks.

    walk        STAGE/VALUE, every value of each stage (`llmlab.walk.stage`); was/STAGE/VALUE before a change

Metadata besides the usual: stages, JSON: the rest of each stage, in order.
"""

from __future__ import annotations

from pathlib import Path

from llmlab.core.progress import Progress
from llmlab.inspection.archive import write_archive
from llmlab.inspection.inspect import describe
from llmlab.models.model import OpenModel
from llmlab.walk.forwards import Walk, walk
from llmlab.walk.stage import to_archive


def write_walk(opened: OpenModel, question: Walk, out: Path, progress: Progress) -> None:
    """Writes the walk forwards."""
    progress("Walking through the model", 0, 0)
    tensors, texts = to_archive(walk(opened, question))
    write_archive(out, tensors, describe(opened, "walk", question.token_ids(opened), question, stages=texts))


WALKS = {"walk": (Walk, write_walk)}
