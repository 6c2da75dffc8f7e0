"""Stages of one weight's AdamW step: gradient, clipping, two means and their corrections, decay, schedule, result."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmlab.anatomy.modules import is_conv1d
from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, quiet
from llmlab.core.run_settings import TrainSettings
from llmlab.core.settings import PretrainSettings, PretrainTrainSettings
from llmlab.gpt.model import GPT
from llmlab.models.reference import Reference, SavedRun
from llmlab.store.checkpoints import select
from llmlab.training import loop
from llmlab.training.batches import read_at, sequences_of
from llmlab.training.muon import Muon
from llmlab.training.optimizer import is_muons, make_optimizer, make_pretraining_optimizer, set_learning_rates
from llmlab.training.schedule import learning_rate
from llmlab.training.state import load_state
from llmlab.walk.code import code_of
from llmlab.walk.focus import value
from llmlab.walk.gradients import Back
from llmlab.walk.stage import Stage, Value
from llmlab.walk.sums import bracketed, number, total

# torch's own arithmetic of a step, and what its lines hold; which numbers of a step may be off by, in fp32.
_TORCHS = getattr(import_module(torch.optim.Adam.__module__), "_single_tensor_adam", None)
_LINES = {
    "first_mean": ("exp_avg.lerp_(", "exp_avg.mul_("),
    "second_mean": ("addcmul_(grad, grad", "exp_avg_sq.mul_("),
    "adamw": ("param.addcdiv_(exp_avg, denom, value", "param.addcdiv_("),
}
_ROUNDING = 1e-5
_FUSED = "The line is torch's plain form of it, which training runs fused into one kernel."


@dataclass(frozen=True)
class Trained:
    """How the model is trained, as far as a run says so. moments: what its optimizer kept of each weight, by name.

    sequences: the training sequences of the run's next step, then those of the one after, ids [T + 1] each. said: where
    all this is from, a sentence.
    """

    settings: TrainSettings = field(default_factory=PretrainTrainSettings)
    step: int = 0
    moments: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    sequences: Sequence[Sequence[int]] = ()
    said: str = "No run's optimizer is known: a first step with the default settings, both means from zero."


def training_of(reference: Reference, progress: Progress = quiet) -> Trained:
    """Of a run's checkpoint its own settings and means; of anything else a first step with the defaults."""
    if not isinstance(reference, SavedRun) or reference.run.fine_tunes or reference.run.on_task:
        return Trained()
    settings = reference.run.info().settings_as(PretrainSettings)
    checkpoint = select(reference.run.checkpoints, reference.which)
    state = load_state(checkpoint.path)
    said = f"Settings and means of {reference.run.id} at step {checkpoint.step:,}."
    if state.origin.precision != "fp32":
        said += f" The run multiplies in {state.origin.precision}, this walk in fp32."
    if state.weights:
        said += " The model shown is the average of its weights, the means are of those that train."
    try:
        sequences = _next_sequences(settings, checkpoint.step, state.origin.data_key, progress)
    except (LabError, OSError):  # the text is not here any more
        sequences = []
    return Trained(settings.train, checkpoint.step, state.optimizer, sequences, said)


def _next_sequences(settings: PretrainSettings, step: int, data_key: str, progress: Progress) -> list[list[int]]:
    """As `llmlab.training.loop` reads them; none where the text is another now."""
    data, sequences = sequences_of(settings, progress)
    if data.key != data_key:
        return []
    pairs = (read_at(settings, sequences, at) for at in (step + 1, step + 2))
    return [[*ids, targets[-1]] for x, y in pairs for ids, targets in zip(x.tolist(), y.tolist(), strict=True)]


def step_stages(back: Back, trained: Trained, name: str, following: Sequence[int]) -> Iterator[Stage]:
    """One optimizer step of a copy of the model on this sequence's gradient, told for the weight `name` at its index.

    A weight that Muon moves has no AdamW step: its own is told without a formula.
    """
    model = back.focus.opened.model
    settings = trained.settings
    stepped = copy.deepcopy(model)
    if isinstance(stepped, GPT) and isinstance(settings, PretrainTrainSettings):
        optimizer: Any = make_pretraining_optimizer(stepped, settings)
    else:
        optimizer = make_optimizer(stepped, settings)
    for ours, theirs in zip(stepped.parameters(), model.parameters(), strict=True):
        ours.grad = None if theirs.grad is None else theirs.grad.clone()
    parameters = dict(stepped.named_parameters())
    for key, values in trained.moments.items():
        if key in parameters:
            optimizer.state[parameters[key]] = {each: tensor.clone() for each, tensor in values.items()}
    set_learning_rates(optimizer, trained.step, settings)
    weight = parameters[name]
    group = next(group for group in optimizer.param_groups if any(one is weight for one in group["params"]))
    norm = float(torch.nn.utils.clip_grad_norm_(stepped.parameters(), settings.grad_clip or math.inf))
    yield _weight_gradient(back)
    yield _clipping(back, settings, norm, weight)
    before = float(weight.detach()[back.index])
    if is_muons(group):
        optimizer.step()
        yield _muon(back, name, before, float(weight.detach()[back.index]))
        yield _what_it_did(back, model, stepped, following)
        return
    state = optimizer.state.get(weight, {})
    old = [float(state[key][back.index]) if key in state else 0.0 for key in ("exp_avg", "exp_avg_sq")]
    count = int(float(state["step"])) + 1 if "step" in state else 1
    gradient = float(weight.grad[back.index]) if weight.grad is not None else 0.0
    optimizer.step()
    after, new = weight.detach()[back.index], optimizer.state[weight]
    seen = [float(new[key][back.index]) for key in ("exp_avg", "exp_avg_sq")]
    yield from _adamw(back, trained, group, name, gradient, old, count, before, seen, after)
    yield _what_it_did(back, model, stepped, following)


def _weight_gradient(back: Back) -> Stage:
    """dL/dW[i, j] as a sum over positions."""
    module, focus = back.module, back.focus
    weight: Any = module.weight
    row, column = back.index
    out, into = (column, row) if is_conv1d(module) else (row, column)
    given, got = back.given(module), back.inputs.get(module)
    x = None if got is None else got.detach().float().cpu()
    seen = weight.grad[back.index].detach().float().cpu()
    if given is None or x is None:
        return back.stage("weight_gradient", "", [], None, seen, weight="Gradient of one weight")
    x = x[0] if x.dim() > 2 else x
    theirs, ours = given[:, out], x[:, into]
    terms = theirs * ours
    shown = [f"{bracketed(a)}·{bracketed(b)}" for a, b in zip(theirs.tolist(), ours.tolist(), strict=True)]
    return back.stage(
        "weight_gradient",
        total(shown, float(seen)),
        [value("share of each position", ("position",), terms, focus.token_labels)],
        terms.sum(),
        seen,
        code_of(loop.Loop.optimizer_step, ".backward()"),
        weight=f"Gradient of weight [{row}, {column}]",
    )


def _clipping(back: Back, settings: TrainSettings, norm: float, weight: Tensor) -> Stage:
    original: Any = back.module.weight
    whole = torch.stack(
        [p.grad.float().norm() for p in back.focus.opened.model.parameters() if p.grad is not None]
    ).norm()
    g, limit = float(original.grad[back.index]), settings.grad_clip
    factor = min(1.0, limit / (norm + 1e-6)) if limit else 1.0  # torch.nn.utils.clip_grad_norm_ adds 1e-6
    assert weight.grad is not None
    clipped = weight.grad[back.index].float()
    numbers = f"length of all gradients {number(float(whole))}, limit {number(limit) if limit else 'none'}: "
    numbers += f"g = {bracketed(g)} · {number(factor)} = {number(float(clipped))}"
    return back.stage(
        "clipping",
        numbers,
        [_before_after("g", g, float(clipped))],
        torch.tensor(g * factor),
        clipped.cpu(),
        code_of(loop.Loop.optimizer_step, "clip_grad_norm_("),
    )


def _before_after(letter: str, before: float, after: float) -> Value:
    return value(f"{letter} before, after", ("step",), torch.tensor([before, after]), ("before", "after"))


def _adamw(
    back: Back,
    trained: Trained,
    group: Mapping[str, Any],
    name: str,
    g: float,
    old: Sequence[float],
    count: int,
    before: float,
    seen: Sequence[float],
    after: Tensor,
) -> Iterator[Stage]:
    beta1, beta2 = group["betas"]
    lr, decay, eps = float(group["lr"]), float(group["weight_decay"]), float(group["eps"])
    settings = trained.settings
    yield back.stage(
        "schedule",
        f"warm-up {settings.warmup_steps:,} of {settings.steps:,} steps, peak {number(settings.learning_rate)}, "
        f"end {number(settings.min_learning_rate)}: lr = {number(lr)}",
        [],
        torch.tensor(learning_rate(trained.step, settings) * group.get("rate_share", 1.0), dtype=torch.float64),
        torch.tensor(lr, dtype=torch.float64),
        code_of(learning_rate, "math.cos"),
        step=trained.step,
        schedule=settings.schedule,
        said=trained.said,
    )
    means = [beta1 * old[0] + (1 - beta1) * g, beta2 * old[1] + (1 - beta2) * g * g]
    rows = (("first_mean", "m", beta1, g, bracketed(g)), ("second_mean", "v", beta2, g * g, number(g * g)))
    for at, (stage, letter, beta, given, term) in enumerate(rows):
        yield back.stage(
            stage,
            f"{number(beta)}·{bracketed(old[at])} + {number(1 - beta)}·{term} = {number(means[at])}",
            [_before_after(letter, old[at], seen[at])],
            torch.tensor(means[at], dtype=torch.float64),
            torch.tensor(seen[at], dtype=torch.float64),
            code_of(_TORCHS, *_LINES[stage]),
            _ROUNDING * (abs(old[at]) + abs(given)),
            _FUSED,
        )
    corrected = [seen[0] / (1 - beta1**count), seen[1] / (1 - beta2**count)]
    update = lr * corrected[0] / (math.sqrt(corrected[1]) + eps)
    result = before * (1 - lr * decay) - update
    grain = float(torch.finfo(after.dtype).eps) * abs(before)
    yield back.stage(
        "adamw",
        f"m′ = {number(corrected[0])}, v′ = {number(corrected[1])}: "
        f"{bracketed(before)} · (1 − {number(lr)}·{number(decay)}) "
        f"− {number(lr)} · {bracketed(corrected[0])} / (√{number(corrected[1])} + {number(eps)}) = {result:.9g}, "
        f"a change of {number(result - before)}; torch's is {number(float(after) - before)}",
        [_before_after("w", before, float(after))],
        torch.tensor(result, dtype=torch.float64),
        after.detach().double().cpu(),
        code_of(_TORCHS, *_LINES["adamw"]),
        2 * grain + _ROUNDING * abs(update),
        f"Recomputed in float64. A weight of this size is stored to {number(grain)}, so its change is known to that. "
        f"{_FUSED}",
        count=count,
        weight=_place(name, back),
    )


def _place(name: str, back: Back) -> str:
    return f"{name}[{', '.join(map(str, back.index))}]"


def _muon(back: Back, name: str, before: float, after: float) -> Stage:
    numbers = f"w = {before:.7g} → {after:.7g}, a change of {number(after - before)}"
    code = code_of(Muon.step, "orthogonalised(")
    return back.stage("muon", numbers, [_before_after("w", before, after)], code=code, weight=_place(name, back))


@torch.no_grad()
def _what_it_did(back: Back, model: nn.Module, stepped: nn.Module, following: Sequence[int]) -> Stage:
    """The losses of this sequence and of the next, before the step and after it."""
    sequences = [("this sequence", (*back.focus.ids, back.targets[-1]))]
    if len(following) > 1:
        sequences.append(("the next sequence", tuple(following)))
    losses, labels = [], []
    for label, ids in sequences:
        for when, one in (("before", model), ("after", stepped)):
            losses.append(loss_of(one, ids))
            labels.append(f"{label}, {when}")
    moved = [
        float((theirs.grad * (ours - theirs)).sum())
        for ours, theirs in zip(stepped.parameters(), model.parameters(), strict=True)
        if theirs.grad is not None
    ]
    numbers = f"this sequence {number(losses[0])} → {number(losses[1])}; its gradient had promised {number(sum(moved))}"
    if len(losses) > 2:
        numbers += f"; the next sequence {number(losses[2])} → {number(losses[3])}"
    return back.stage(
        "step",
        numbers,
        [value("loss", ("sequence",), torch.tensor(losses), labels)],
        torch.tensor(back.loss),
        torch.tensor(losses[0]),
        code_of(loop.Loop.optimizer_step, "self.scaler.step("),
    )


def forward_logits(model: nn.Module, ids: Sequence[int]) -> Tensor:
    """ids [T] -> logits [T, V], padding of the vocabulary included, as training has it."""
    batch = torch.tensor([list(ids)], device=next(model.parameters()).device)
    logits: Tensor = model(batch) if isinstance(model, GPT) else model(input_ids=batch, use_cache=False).logits
    return logits[0]


def loss_of(model: nn.Module, ids: Sequence[int]) -> float:
    """Mean of -ln p of each token but the first, in nats."""
    logits = forward_logits(model, ids[:-1])
    return float(F.cross_entropy(logits.float(), torch.tensor(list(ids[1:]), device=logits.device)))
