"""Measures and judges the claims about induction heads on the runs of a check.

Heads are scored as everywhere in the lab (`llmlab.inspection.heads`): induction and previous-token scores on random
tokens that are read twice in a row. Removing a head is the lab's intervention `zero head:LAYER.HEAD`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from llmlab.anatomy.capture import run
from llmlab.anatomy.finding import anatomy_of
from llmlab.core.progress import Progress, quiet
from llmlab.core.records import from_plain
from llmlab.core.task_settings import TaskSettings
from llmlab.data.synthetic.known_tasks import task_of
from llmlab.data.synthetic.tasks import Layout, Task, TaskBatch, held_out
from llmlab.inspection.heads import REPEATED, HeadSummaries, RepeatScores, repeated_tokens
from llmlab.inspection.intervening import Intervention, Interventions
from llmlab.models.scratch import open_task
from llmlab.models.task_models import make_model
from llmlab.store.checkpoints import list_checkpoints
from llmlab.store.run_folder import RunFolder
from llmlab.studies.papers.induction_heads.composition import composition_verdict
from llmlab.studies.papers.induction_heads.copying import BySeed, change_verdict, layers_verdict
from llmlab.studies.papers.induction_heads.followed import Found, Removed
from llmlab.studies.papers.induction_heads.plan import CHANGE, COMPOSITION, LAYERS, ONE, SEQUENCES, TWO
from llmlab.studies.papers.interface import Check
from llmlab.studies.papers.records import Verdict
from llmlab.studies.plans.records import Trial


def measure(check: Check, trial: Trial, run: RunFolder) -> dict[str, Any]:
    """Loss and scores at every checkpoint, and the last one's without each head of the layers before the best."""
    return asdict(follow(run, check.progress))


def early(check: Check) -> list[Verdict]:
    """All of them: what takes long was measured run by run."""
    two, one = _by_seed(check, TWO), _by_seed(check, ONE)
    verdicts = []
    if LAYERS in check.claims and two.keys() & one.keys():
        verdicts.append(layers_verdict(two, one))
    if CHANGE in check.claims and two:
        verdicts.append(change_verdict(two))
    if COMPOSITION in check.claims and two:
        verdicts.append(composition_verdict(two))
    return verdicts


def late(check: Check) -> Iterator[Verdict]:
    """Nothing is left."""
    yield from ()


def follow(run: RunFolder, progress: Progress = quiet) -> Found:
    """What is to be known of a run on repeated tokens. LabError where a checkpoint is damaged."""
    settings = run.info().settings_as(TaskSettings)
    task = task_of(settings.data)
    batches = held_out(task, SEQUENCES)
    torch.manual_seed(settings.train.seed)  # as the run begins
    model = make_model(settings.model, task.layout).eval()
    steps, losses, scores = [0], [second_reading_loss(model, task.layout, batches)], [_scores(model, task)]
    checkpoints = list_checkpoints(run.checkpoints)
    for done, checkpoint in enumerate(checkpoints):
        progress(f"Reading {run.id}", done, len(checkpoints))
        model, _ = open_task(run, checkpoint)
        steps.append(checkpoint.step)
        losses.append(second_reading_loss(model, task.layout, batches))
        scores.append(_scores(model, task))
    found = Found(
        steps=steps,
        loss=losses,
        induction=[one.induction.tolist() for one in scores],
        previous=[one.previous.tolist() for one in scores],
        floors=_baselines(task, batches),
        n=int(sum(batch.scored.sum() for batch in batches)),
    )
    _remove_heads(model, task, batches, scores[-1], found)
    return found


def _remove_heads(model: nn.Module, task: Task, batches: list[TaskBatch], before: HeadScores, found: Found) -> None:
    """Zeroes the heads of the layers before that of the best induction head, one at a time and together."""
    best = np.unravel_index(int(before.induction.argmax()), before.induction.shape)

    def left(*zeroed: Head) -> float:
        return float(head_scores(model, task.layout.vocab_size, zeroed).induction[best])

    for head in np.ndindex(int(best[0]), before.induction.shape[1]):
        one = (head[0], head[1])
        loss = second_reading_loss(model, task.layout, batches, [one])
        found.removed.append(Removed(*one, previous=float(before.previous[one]), induction=left(one), loss=loss))
    order = [(head.layer, head.head) for head in found.by_previous]
    found.together = [left(*order[:count]) for count in range(1, len(order) + 1)]
    found.others_first = [left(*order[::-1][:count]) for count in range(1, len(order) + 1)]


def _scores(model: nn.Module, task: Task) -> HeadScores:
    return head_scores(model, task.layout.vocab_size)


def _baselines(task: Task, batches: list[TaskBatch]) -> dict[str, float]:
    """What those pay who know less, nats."""
    paid: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        for name, belief in task.baselines(batch).items():
            paid.setdefault(name, []).append(-np.log((belief * batch.target).sum(-1)[batch.scored]))
    return {name: float(np.concatenate(parts).mean()) for name, parts in paid.items()}


def _by_seed(check: Check, group: str) -> BySeed:
    return {one.trial.seed: from_plain(Found, one.values) for one in check.measured(group)}


# Heads ----------------------------------------------------------------------------------------------------------------

Array = np.ndarray
Head: TypeAlias = tuple[int, int]  # its layer, and its position there
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
        logits = run(model, anatomy, ids, interventions=_zero(zeroed, ids.shape[1]))[
            :, list(layout.positions)
        ]  # [B, P, V]
        came = torch.from_numpy(batch.target.argmax(-1))
        lost = -logits.double().log_softmax(-1).gather(-1, came[..., None])[..., 0]
        total += float(lost[torch.from_numpy(batch.scored)].sum())
        count += int(batch.scored.sum())
    return total / count


def _zero(heads: Sequence[Head], time: int) -> list[Interventions]:
    zeroed = [Intervention("zero", "head", layer, head=head) for layer, head in heads]
    return [Interventions(zeroed, time)] if heads else []
