"""Walks as questions to an open model, answered into an archive like all others: what the model host asks.

    walk        STAGE/VALUE, every value of each stage (`llmlab.walk.stage`); was/STAGE/VALUE before a change
    walk_back   the same, backwards

Metadata besides the usual: stages, JSON: the rest of each stage, in order; of walk_back sequences: how many training
sequences of the run can be walked.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

from torch import nn

from llmlab.core.progress import Progress
from llmlab.inspection.answers import Questions
from llmlab.inspection.archive import write_archive
from llmlab.inspection.inspect import describe
from llmlab.models.model import OpenModel
from llmlab.models.reference import Reference
from llmlab.walk.adamw import Trained, training_of
from llmlab.walk.backwards import WalkBack, of_corpus, walk_back
from llmlab.walk.forwards import Walk, walk
from llmlab.walk.stage import to_archive

# What a walk back has read of a model's run, as long as the model is open: another question does not read it again.
_TRAINED: WeakKeyDictionary[nn.Module, Trained] = WeakKeyDictionary()


def write_walk(opened: OpenModel, question: Walk, out: Path, progress: Progress) -> None:
    """Writes the walk forwards."""
    progress("Walking forwards", 0, 0)
    tensors, texts = to_archive(walk(opened, question))
    write_archive(out, tensors, describe(opened, "walk", question.token_ids(opened), question, stages=texts))


def write_walk_back(reference: Reference, opened: OpenModel, question: WalkBack, out: Path, progress: Progress) -> None:
    """Writes the walk backwards. reference: what the model was opened from."""
    if (trained := _TRAINED.get(opened.model)) is None:
        trained = _TRAINED[opened.model] = training_of(reference, progress)
    progress("Walking backwards", 0, 0)
    question, sequences = of_corpus(question, trained), str(len(trained.sequences))
    tensors, texts = to_archive(walk_back(opened, question, trained))
    ids = question.token_ids(opened)
    write_archive(out, tensors, describe(opened, "walk", ids, question, stages=texts, sequences=sequences))


def walks_of(reference: Reference) -> Questions:
    """The walks by the names of their questions. reference: of the model that is asked."""
    return {"walk": (Walk, write_walk), "walk_back": (WalkBack, partial(write_walk_back, reference))}
