"""The patching sweep: one intervention at a time, everywhere; a grid of effects on a logit difference.

For every cell, (layer, position) at one point of the stream or (layer, head), the prompt is run with that one thing
zeroed, averaged, or patched from a source, and the target is read: d = logit(answer) - logit(against) at a position.
Causal tracing (Meng et al. 2022, "Locating and Editing Factual Associations in GPT", section 2.1) and the path to
the indirect object heads (Wang et al. 2022, "Interpretability in the Wild", section 3) are such grids. The archive
(kind `sweep`) holds

    sweep/logit_difference [L, T] or [L, H]   d with the change
    sweep/effect           the same shape; metadata `effect` says which of the two it is:
        normalised  (d - d_prompt) / (d_source - d_prompt): 0 as in the prompt, 1 as in the source it is patched from
                    (so with the corrupted text as prompt and the clean one as source: 0 corrupted, 1 clean)
        change      d - d_prompt, in logits: for ablations, and where prompt and source have equal d
    sweep/before, sweep/source [1]            d_prompt; d_source, where there is a source

metadata: `over`, `point`, `action`, and the target's `position`, `answer`, `answer_text`, `against`, `against_text`.

NaN stands where nothing can be changed: a position that is aligned with none of the source, a layer without heads.
Positions after the target's have no effect on it: exactly 0, without being run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.capture import Intervener, Point, run
from llmlab.core.errors import UsageError
from llmlab.core.progress import Progress, quiet
from llmlab.inspection.archive import write_archive
from llmlab.inspection.inspect import check_target, describe
from llmlab.inspection.intervening import EDITABLE, Intervention, Interventions, Recorder, require_intervention
from llmlab.inspection.interventions import Sourced, take_sources, taken
from llmlab.inspection.questions import position_of
from llmlab.inspection.readout import LogitTarget, read, target_of
from llmlab.models.model import OpenModel

OVER = ("layer,position", "layer,head")
ACTIONS = ("patch", "zero", "mean")
# What a batch of changed prompts may take at once, by the estimate of `row_bytes`.
_BUDGET = 256 * 1024 * 1024
_LARGEST_BATCH = 64
# Two logit differences closer than this are the same: rounding in fp32 is about 1e-5.
_SAME = 1e-4


@dataclass(frozen=True, kw_only=True)
class PatchingSweep(Sourced):
    """Which cells: `over` is one of OVER, `point` where positions are changed, `action` one of ACTIONS."""

    over: str = "layer,position"
    point: str = "pre_attn"
    action: str = "patch"


def patching_sweep(
    opened: OpenModel, question: PatchingSweep, out: Path, progress: Progress = quiet, *, budget: int = _BUDGET
) -> None:
    """Runs every cell and writes the grid. budget: bytes that a batch of changed prompts may take.

    UsageError when the question is wrong or there is nothing to patch from; LabError when a part is refused for
    this model; Cancelled when `progress` says so.
    """
    anatomy = opened.anatomy
    interventions = _changes(anatomy, question)
    check_target(opened, question)
    ids, source_ids = question.token_ids(opened), question.source_token_ids(opened)
    read_at = position_of(question.position, len(ids))
    progress("Unchanged pass", 0, 0)
    own = Recorder(taken(interventions, "mean"))
    target = target_of(opened, question, read(opened, ids, [own]).at(read_at), read_at)
    sources, source = take_sources(opened, question, interventions, own, source_ids, len(ids))

    heads = question.over == "layer,head"
    positions = sorted(sources.alignment) if question.action == "patch" else range(len(ids))
    columns = range(anatomy.n_head) if heads else [column for column in positions if column <= read_at]
    cells = [(change, column) for change in interventions for column in columns]
    shown = ids[: read_at + 1]  # a decoder predicts from what came before
    before = target.value(run(opened.model, anatomy, shown, last=True)[0, -1].cpu().double())
    grid = np.full((anatomy.n_layer, anatomy.n_head if heads else len(ids)), np.nan)
    if not heads:
        grid[:, [column for column in positions if column > read_at]] = before
    batch = min(max(budget // row_bytes(anatomy, len(shown)), 1), _LARGEST_BATCH)
    for first in range(0, len(cells), batch):
        progress("Changing one thing at a time", first, len(cells))
        some = cells[first : first + batch]
        rows = _Rows([Interventions([_at(change, column)], len(shown), sources) for change, column in some])
        logits = run(opened.model, anatomy, torch.tensor([shown] * len(some)), interventions=[rows], last=True)
        for (change, column), row in zip(some, logits[:, -1].cpu().double(), strict=True):
            grid[change.layer, column] = target.value(row)
    progress("Changing one thing at a time", len(cells), len(cells))

    tensors = {"sweep/logit_difference": grid, "sweep/before": np.array([before])}
    effect, kind = grid - before, "change"
    if source is not None and read_at in sources.alignment:
        there = target.value(source.at(sources.alignment[read_at]).cpu().double())
        tensors["sweep/source"] = np.array([there])
        if question.action == "patch" and abs(there - before) > _SAME:
            effect, kind = effect / (there - before), "normalised"
    tensors["sweep/effect"] = effect
    asked = {"over": question.over, "point": question.point, "action": question.action}
    metadata = describe(opened, "sweep", ids, question, effect=kind, **asked, **target.strings(opened))
    write_archive(out, tensors, replace(metadata, notes=[*metadata.notes, *_notes(question, kind, target)]))


def row_bytes(anatomy: Anatomy, time: int) -> int:
    """About what one prompt of a batch takes at the widest position of a layer, in bytes.

    A few copies of the stream, the feed-forward's neurons (4 C where they cannot be told) and, as in an eager
    implementation, two patterns of all heads.
    """
    neurons = [getattr(block.neurons, "in_features", 4 * anatomy.n_embd) for block in anatomy.blocks]
    numbers = time * (8 * anatomy.n_embd + 3 * max(neurons)) + 2 * anatomy.n_head * time**2 + anatomy.vocab_size
    return numbers * anatomy.unembedding.element_size()


def _changes(anatomy: Anatomy, question: PatchingSweep) -> list[Intervention]:
    """What is done in each layer, before positions or heads are filled in."""
    if question.over not in OVER:
        raise UsageError(f"A sweep over {question.over!r} is not known.", f"There are: {' and '.join(OVER)}.")
    if question.action not in ACTIONS:
        raise UsageError(f"A sweep cannot {question.action!r}.", f"It can {', '.join(ACTIONS)}.")
    if question.action == "patch" and not question.source and not question.source_ids:
        raise UsageError(
            "There is no source to patch from.", "", "Name another prompt as the source, or choose zero or mean."
        )
    if question.over == "layer,position":
        if question.point not in EDITABLE:
            raise UsageError(f"There is no sweep at {question.point!r}.", f"There are: {', '.join(EDITABLE)}.")
        interventions = [
            Intervention(question.action, "residual", layer, point=question.point)  # type: ignore[arg-type]
            for layer in range(anatomy.n_layer)
        ]
    else:
        interventions = [
            Intervention(question.action, "head", layer)  # type: ignore[arg-type]
            for layer, block in enumerate(anatomy.blocks)
            if block.projection is not None
        ]
    for intervention in interventions:
        require_intervention(anatomy, intervention)
    return interventions


def _at(change: Intervention, column: int) -> Intervention:
    """A layer's change in one cell: of the stream at a position, or of a head at all positions."""
    return replace(change, head=column) if change.part == "head" else replace(change, positions=(column,))


class _Rows(Intervener):
    """Row i of the batch is the prompt with cell i changed."""

    def __init__(self, changes: Sequence[Interventions]) -> None:
        self._changes = changes

    def residual(self, layer: int, point: Point, x: Tensor) -> Tensor | None:
        """[B, T, C], changed in the rows whose cell is here."""
        return _put_rows(x, [one.residual(layer, point, x[row : row + 1]) for row, one in enumerate(self._changes)])

    def heads(self, layer: int, z: Tensor) -> Tensor | None:
        """[B, T, H, D], changed in the rows whose cell is here."""
        return _put_rows(z, [one.heads(layer, z[row : row + 1]) for row, one in enumerate(self._changes)])


def _put_rows(x: Tensor, rows: Sequence[Tensor | None]) -> Tensor | None:
    """x [B, ...] with the rows [1, ...] that there are in their places."""
    changed = {row: new[0] for row, new in enumerate(rows) if new is not None}
    if not changed:
        return None
    x = x.clone()
    for row, new in changed.items():
        x[row] = new
    return x


def _notes(question: PatchingSweep, kind: str, target: LogitTarget) -> list[str]:
    notes = []
    if question.action == "patch" and kind == "change":
        notes.append("Prompt and source have the same logit difference, so effects are not normalised.")
    if target.against is None:
        notes.append(
            "No counterfactual token is given: the target is the answer's own logit, in which other tokens share."
        )
    return notes
