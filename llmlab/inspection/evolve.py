"""Evolution: one question asked of all of a run's checkpoints in turn.

Every checkpoint is opened, inspected and closed before the next one, so one is in memory at a time. The archive
(kind `evolution`) holds every tensor of an inspection (see `llmlab.inspection.answers`) with a leading axis of
steps: `heads/induction` [S, L, H], `lens/rank` [S, 2 L + 1, T], `attention/{layer}` [S, H, T, T] and so on.

metadata: `steps` (JSON list, ascending), `references`, `weights` (digests) and `val_loss` (null where it was not
measured), in the same order; `model` is the run, `weights_sha256` the last step's.
"""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llmlab.core.errors import LabError, UsageError
from llmlab.core.memory import NoMemory
from llmlab.core.progress import Progress, quiet
from llmlab.inspection.answers import answer_question
from llmlab.inspection.archive import Archive, ArchiveWriter, Slot, read_archive
from llmlab.inspection.inspect import READING
from llmlab.inspection.questions import Inspect, from_values, to_values
from llmlab.store.checkpoints import Checkpoint, list_checkpoints, unreadable
from llmlab.store.registry import resolve_run, short_name

_HEADS_AND_LENS = ("heads", "lens")


@dataclass(frozen=True, kw_only=True)
class Evolve(Inspect):
    """What is asked of every checkpoint. every: of the checkpoints in order, each N-th; the last one always."""

    what: tuple[str, ...] = _HEADS_AND_LENS
    every: int = 1


def evolve(run: str, outputs: Path, values: Mapping[str, Any], out: Path, progress: Progress = quiet) -> None:
    """Asks a run's checkpoints and writes their answers side by side. run: id or folder; values: of `Evolve`.

    A checkpoint that is damaged, or went away meanwhile, is left out with a note. LabError when none can be read;
    UsageError when the question is wrong; Cancelled when `progress` says so, with nothing left behind.
    """
    question = from_values(Evolve, values)
    if question.every < 1:
        raise UsageError(f"Each {question.every}th checkpoint cannot be taken.", "", "Take every 1st, 2nd, ...")
    reference = resolve_run(run, outputs)
    if reference.which is not None:
        raise UsageError(
            f"{run} is one checkpoint.",
            "An evolution follows a whole run.",
            f"Name the run: {short_name(reference.run, outputs)}",
        )
    folder = reference.run.checkpoints
    # Counted back from the last, which is what the others lead to; oldest first.
    chosen = list_checkpoints(folder)[::-1][:: question.every][::-1]
    if not chosen:
        raise LabError(f"{reference.run.id} has no checkpoints yet.", "", "They appear while it trains.")
    notes = [f"{name} is left out: its manifest is missing or damaged." for name in unreadable(folder)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-evolve-", dir=out.parent) as temporary:
        answers = _ask(run, outputs, chosen, question, Path(temporary), notes, progress)
        if not answers:
            raise LabError(f"No checkpoint of {reference.run.id} could be read.", " ".join(notes))
        _write(out, short_name(reference.run, outputs), answers, question, notes, progress)


@dataclass(frozen=True)
class _Answer:
    """One checkpoint's inspection on disk."""

    checkpoint: Checkpoint
    archive: Archive


def _ask(
    run: str,
    outputs: Path,
    chosen: list[Checkpoint],
    question: Evolve,
    folder: Path,
    notes: list[str],
    progress: Progress,
) -> list[_Answer]:
    """Inspects every checkpoint, the last one first: its most likely token is the answer that all are asked about."""
    asked = {name: value for name, value in to_values(question).items() if name != "every"}
    asked.setdefault("what", list(question.what))
    answers: list[_Answer] = []
    told = _Told(progress, len(chosen))
    for done, checkpoint in enumerate(reversed(chosen)):
        path = folder / f"{checkpoint.step}.safetensors"
        told.begin(done)
        try:
            answerable = _inspect(f"{run}@{checkpoint.step}", outputs, asked, path, told)
        except (UsageError, NoMemory):
            raise
        except (LabError, OSError) as error:  # a run that trains deletes checkpoints while they are read
            notes.append(f"Step {checkpoint.step} is left out: {error}")
            continue
        answers.append(_Answer(checkpoint, read_archive(path)))
        if not question.answer and len(answers) == 1 and "attribution" in question.what:
            asked["answer"] = _answer_for_all(answers[0], answerable, notes)
    return answers[::-1]


class _Told:
    """The progress of all checkpoints together, which never goes back."""

    def __init__(self, progress: Progress, count: int) -> None:
        self._progress, self._count = progress, count
        self._base, self._share = 0, 0.0

    def begin(self, done: int) -> None:
        self._base, self._share = done, 0.0

    def __call__(self, what: str, done: float, total: float) -> None:
        if total and what.startswith(READING):  # opening and the lens are told in other units
            self._share = max(self._share, min(done / total, 1.0))
        self._progress(f"Reading {self._count} checkpoints", self._base + self._share, self._count)


def _inspect(reference: str, outputs: Path, asked: Mapping[str, Any], path: Path, progress: Progress) -> bool:
    """Opens one checkpoint, inspects it and lets it go -> whether the text of its answer is that one token."""
    from llmlab.models.source import open_model

    opened = open_model(reference, outputs, progress)
    answer_question(opened, "inspect", asked, path, progress)
    about = read_archive(path).metadata.more
    try:
        answerable = opened.tokenizer.encode(about["answer_text"]) == [int(about["answer"])]
    except LabError:  # bytes that are no character, in a vocabulary of characters
        answerable = False
    del opened
    gc.collect()  # modules hold themselves in circles through their hooks
    return answerable


def _answer_for_all(last: _Answer, answerable: bool, notes: list[str]) -> str:
    """The last checkpoint's most likely token: bars of one token are not comparable with those of another."""
    text = last.archive.metadata.more["answer_text"]
    if not answerable:
        notes.append(
            "Each step is asked about its own most likely token, so attributions of two steps are not comparable."
        )
        return ""
    notes.append(f"All steps are asked about {text!r}, the most likely token of step {last.checkpoint.step:,}.")
    return text


def _write(out: Path, run: str, answers: list[_Answer], question: Evolve, notes: list[str], progress: Progress) -> None:
    """Puts the answers side by side, a tensor of a step at a time."""
    last = answers[-1].archive
    slots: dict[str, Slot] = {}
    for name in last:
        shapes = {answer.archive.shape(name) if name in answer.archive else None for answer in answers}
        if shapes == {last.shape(name)}:
            slots[name] = (last[name].dtype, (len(answers), *last.shape(name)))
    about = last.metadata
    more = about.more | {
        "steps": json.dumps([answer.checkpoint.step for answer in answers]),
        "references": json.dumps([answer.archive.metadata.model for answer in answers]),
        "weights": json.dumps([answer.archive.metadata.weights_sha256 for answer in answers]),
        "val_loss": json.dumps([answer.checkpoint.val_loss for answer in answers]),
    }
    metadata = replace(
        about,
        kind="evolution",
        model=run,
        notes=list(dict.fromkeys([*about.notes, *notes])),
        question=to_values(question),
        more=more,
    )
    with ArchiveWriter(out, slots, metadata) as writer:
        for step, answer in enumerate(answers):
            progress("Putting them side by side", step, len(answers))
            for name in slots:
                writer.write(name, np.asarray(answer.archive[name]), step)
