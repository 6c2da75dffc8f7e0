"""What is read off a model of repeated tokens: the loss of the second reading, and what each head does.

Heads are scored as everywhere in the lab (`llmlab.inspection.heads`): induction and previous-token scores on random
tokens that are read twice in a row. Removing a head is the lab's intervention `zero head:LAYER.HEAD`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

from llmlab.anatomy.anatomy import anatomy_of
from llmlab.anatomy.capture import run
from llmlab.data.synthetic.tasks import Layout, TaskBatch
from llmlab.inspection.edits import Change, Changes
from llmlab.inspection.heads import REPEATED, HeadSummaries, RepeatScores, repeated_tokens

Array = np.ndarray
Head: TypeAlias = tuple[int, int]  # its layer, and its place there

# Prompts over which scores are averaged: those of one prompt differ from seed to seed by a hundredth or two.
PROMPTS = 4


@dataclass(frozen=True)
class HeadScores:
    """Mean attention of tokens of the second half to what followed them the first time, of all to the token before.

    Both [L, H], from 0 to 1.
    """

    induction: Array
    previous: Array


def head_scores(model: nn.Module, vocabulary: int, zeroed: Sequence[Head] = ()) -> HeadScores:
    """Of every head, while some of them are zeroed."""
    anatomy = anatomy_of(model)
    length = min(REPEATED, vocabulary, anatomy.context // 2)
    found = []
    for seed in range(PROMPTS):
        repeats, summaries = RepeatScores(anatomy, length, 0), HeadSummaries(anatomy, 2 * length)
        ids = repeated_tokens(vocabulary, length, seed)
        run(model, anatomy, ids, [repeats, summaries], _zero(zeroed, 2 * length), last=True)
        found.append((repeats.results()["heads/induction"], summaries.results()["heads/previous"]))
    induction, previous = (torch.stack(part).mean(0).double().numpy() for part in zip(*found, strict=True))
    return HeadScores(induction, previous)


def second_reading_loss(
    model: nn.Module, layout: Layout, batches: Sequence[TaskBatch], zeroed: Sequence[Head] = ()
) -> float:
    """Mean -ln p of what followed, in nats, where it can be known."""
    anatomy, total, count = anatomy_of(model), 0.0, 0
    for batch in batches:
        ids = torch.from_numpy(batch.ids)
        logits = run(model, anatomy, ids, edits=_zero(zeroed, ids.shape[1]))[:, list(layout.places)]  # [B, P, V]
        came = torch.from_numpy(batch.target.argmax(-1))
        lost = -logits.double().log_softmax(-1).gather(-1, came[..., None])[..., 0]
        total += float(lost[torch.from_numpy(batch.scored)].sum())
        count += int(batch.scored.sum())
    return total / count


def _zero(heads: Sequence[Head], time: int) -> list[Changes]:
    return [Changes([Change("zero", "head", layer, head=head) for layer, head in heads], time)] if heads else []
