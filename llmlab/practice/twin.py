"""A twin: a GPT small enough to train while someone waits, on bytes of the same text, with a run's own rates.

It answers what would happen if one setting were another one, in seconds, and by doing it. It is no model of the run
itself: it is two layers of width 64, so its losses are not the run's, and the difference between two twins is what a
question is about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any

from llmlab.core.settings import ModelSettings, PretrainTrainSettings
from llmlab.core.signs import minus
from llmlab.practice.kinds import Found, NothingToAsk, kind, ordered
from llmlab.practice.question import TRAINING
from llmlab.practice.subject import Subject

if TYPE_CHECKING:
    from torch import Tensor

STEPS, LAYERS, WIDTH, HEADS, CONTEXT, BATCH = 200, 2, 64, 4, 32, 12
_WORDS = f"{TRAINING} to compare ({LAYERS} layers, {STEPS} steps each)"
_BYTES = 256
_HELD_OUT = 64  # sequences whose loss is taken at the end


def twin_settings(subject: Subject) -> tuple[ModelSettings, PretrainTrainSettings]:
    """The twin's shape, and how it is trained: the run's rates, warm-up at most a tenth of its steps."""
    model = ModelSettings(n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH, block_size=CONTEXT, position="rotary")
    train = subject.settings.train
    warm_up = min(train.warmup_steps, STEPS // 10)
    return model, replace(train, steps=STEPS, warmup_steps=warm_up, optimizer="adamw", weight_decay=0.1)


def twin_losses(subject: Subject, model_changes: Mapping[str, Any], **changes: Any) -> tuple[float, float]:
    """The losses of a twin as it is, which is trained once for each seed, and of one that is changed."""
    fresh = subject.seed not in subject.twins
    steps = (1 + fresh) * STEPS
    if fresh:
        subject.twins[subject.seed] = twin_loss(subject, of=steps)
    changed = twin_loss(subject, model_changes, done=fresh * STEPS, of=steps, **changes)
    return subject.twins[subject.seed], changed


def twin_loss(
    subject: Subject, model_changes: Mapping[str, Any] | None = None, *, done: int = 0, of: int = 0, **changes: Any
) -> float:
    """The loss of a twin on text held out, in nats per byte, after STEPS steps; infinite when it diverged.

    model_changes: of ModelSettings; changes: of the training settings, and `batch`, sequences in a batch. done, of:
    steps that were trained before it, and in all, as progress tells them.
    """
    import torch

    from llmlab.gpt.model import GPT
    from llmlab.training.optimizer import make_optimizer, set_learning_rates

    model_settings, train = twin_settings(subject)
    batch_size = changes.pop("batch", BATCH)
    model_settings, train = replace(model_settings, **(model_changes or {})), replace(train, **changes)
    data = torch.frombuffer(bytearray(subject.text.encode()), dtype=torch.uint8).long()
    held = len(data) // 10
    draws = torch.Generator().manual_seed(subject.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(subject.seed)
        model = GPT(model_settings, _BYTES)
    optimizer = make_optimizer(model, train)
    for step in range(train.steps):
        subject.progress(_WORDS, done + step, of or train.steps)
        ids, targets = _drawn(data[:-held], batch_size, model_settings.block_size, draws)
        set_learning_rates(optimizer, step, train)
        loss = model.loss(ids, targets)
        optimizer.zero_grad()
        loss.backward()
        if train.grad_clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), train.grad_clip)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        ids, targets = _drawn(data[-held:], _HELD_OUT, model_settings.block_size, torch.Generator().manual_seed(0))
        loss = model.loss(ids, targets)
    return float(loss) if bool(loss.isfinite()) else float("inf")


def _drawn(data: Tensor, count: int, time: int, draws: Any) -> tuple[Tensor, Tensor]:
    """Sequences and what follows each of their tokens, [count, time] each."""
    import torch

    starts = torch.randint(len(data) - time - 1, (count,), generator=draws)
    rows = torch.stack([data[start : start + time + 1] for start in starts])
    return rows[:, :-1], rows[:, 1:]


# What is asked of it --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What is changed in a twin: settings of its model, its learning rate by a factor, or its batch."""

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1.0
    batch: int = BATCH


_CHANGES = ("lower by more than 0.05", "within 0.05 of it", "higher by 0.05 to 0.5", "higher by more than 0.5")
CHANGES = (
    Change("ten-times-the-rate", rate=10.0),
    Change("a-tenth-of-the-rate", rate=0.1),
    Change("one-layer-less", {"n_layer": 1}),
    Change("a-quarter-of-the-batch", batch=BATCH // 4),
    Change("one-head", {"n_head": 1}),
    Change("sees-four-tokens", {"block_size": 4}),
)


def _trained(subject: Subject, change: Change) -> Found:
    """What becomes of a twin's loss when one setting of its training is another."""
    train = subject.settings.train
    rates = {
        "learning_rate": change.rate * train.learning_rate,
        "min_learning_rate": change.rate * train.min_learning_rate,
    }
    plain, changed = twin_losses(subject, change.model, batch=change.batch, **rates)
    if not math.isfinite(plain):
        raise NothingToAsk("The twin diverges at this learning rate.")
    twin = (
        f"A small model ({LAYERS} layers, d_model = {WIDTH}, bytes of the text of {subject.name}) is trained for "
        f"{STEPS} steps with the learning rate of {subject.name}, {train.learning_rate:g}, and ends at a loss of "
        f"{plain:.2f} nats."
    )
    rise, trained = changed - plain, f"Trained: it diverged; {plain:.3f} without the change."
    if math.isfinite(changed):
        trained = f"Trained, both: {plain:.3f} and {changed:.3f}, {minus(f'{rise:+.3f}')}."
    place = 0 if rise < -0.05 else 1 if rise < 0.05 else 2 if rise < 0.5 else 3
    return ordered(place, _CHANGES, twin=twin, trained=trained, batch=BATCH, quarter=BATCH // 4)


def _add(change: Change) -> None:
    @kind(change.name)
    def trained(subject: Subject, random: Random) -> Found:
        return _trained(subject, change)


for _change in CHANGES:
    _add(_change)
