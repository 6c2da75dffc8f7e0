"""The walk backwards: the loss of one sequence, its gradient through one layer's stages, and one weight's AdamW step.

The sequence is the prompt, or one that the run trains on next: each of its tokens but the last predicts the next
one. Dropout is off, so that the numbers are those of the walk forwards.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.modules import is_conv1d
from llmlab.core.errors import LabError, UsageError
from llmlab.core.memory import require_memory
from llmlab.core.settings import Sampling
from llmlab.inspection.questions import Prompt, position_of
from llmlab.models.model import OpenModel
from llmlab.walk.adamw import Trained, forward_logits, step_stages
from llmlab.walk.changes import Changes
from llmlab.walk.focus import Focus
from llmlab.walk.forwards import check
from llmlab.walk.gradients import Back, gradient_stages
from llmlab.walk.parts import layer_parts
from llmlab.walk.stage import Stage
from llmlab.walk.watched import Hooks, watch

_WEIGHT = re.compile(r"(?P<name>[\w.]+)\[(?P<row>\d+)\s*,\s*(?P<column>\d+)\]")
# Weights, their gradients, two moments of each, and a second copy of the model that takes the step.
_COPIES = 5
_FLOAT = 4  # bytes


@dataclass(frozen=True, kw_only=True)
class WalkBack(Prompt):
    """What is walked. weight: one of a linear layer's, NAME[row,column]; "" for the largest gradient of the layer's up.

    next: the text of another sequence, whose loss is measured too. sequence: not the prompt but one of the training
    sequences of the run's next step, from 0; those of the step after it follow. -1: the prompt.
    """

    layer: int = 0
    head: int = 0
    position: int = -1
    weight: str = ""
    next: str = ""
    sequence: int = -1


def of_corpus(asked: WalkBack, trained: Trained) -> WalkBack:
    """With the ids of the training sequence that is asked for, if one is. UsageError where there is none."""
    if asked.sequence < 0:
        return asked
    count = len(trained.sequences)
    if not count:
        raise UsageError(
            "There is no training sequence to walk back from.",
            "The model is not a checkpoint of a run from scratch whose text is here.",
            "Walk back from a prompt.",
        )
    if asked.sequence >= count:
        raise UsageError(f"There is no training sequence {asked.sequence}.", f"There are {count}, from 0.")
    return replace(asked, ids=tuple(trained.sequences[asked.sequence]), beginning=False)


def walk_back(opened: OpenModel, asked: WalkBack, trained: Trained) -> list[Stage]:
    """The stages in their order; the model is left as it was. Errors as `llmlab.walk.forwards.walk`."""
    check(opened, asked.layer, asked.head)
    asked = of_corpus(asked, trained)
    ids = asked.token_ids(opened)
    if len(ids) < 2:
        raise UsageError("The sequence is too short.", "A loss takes a token and the one that follows it.")
    model, anatomy = opened.model, opened.anatomy
    if not all(parameter.is_floating_point() for parameter in model.parameters()):
        raise LabError(
            f"{opened.name} cannot be walked backwards.", "Its weights are quantized, and none of them moves."
        )
    require_memory(_COPIES * _FLOAT * opened.parameters, f"The backward pass of {opened.name}")
    inputs, targets = ids[:-1], ids[1:]
    position = position_of(asked.position, len(inputs))
    seen = watch(opened, inputs, asked.layer, asked.head, position)
    text = opened.tokenizer.decode(inputs)
    key = int(seen.heads.pattern[position].argmax())
    focus = Focus(
        opened, seen, text, tuple(inputs), asked.layer, asked.head, position, key, Changes(), Sampling(), 0, 0
    )
    module, index = _weight(opened, anatomy, asked)
    with _learning(model), Hooks(_with_gradient) as kept:
        for watched in {*focus.parts.watched(), anatomy.embedding, anatomy.final_norm, module} - {None}:
            assert watched is not None
            kept.watch(watched)
        for block in anatomy.blocks:
            kept.watch(block.block)
        logits = forward_logits(model, inputs)
        logits.retain_grad()
        loss = F.cross_entropy(logits.float(), torch.tensor(targets, device=logits.device))
        loss.backward()
        weight = _parameter(module)
        assert weight.grad is not None
        if index is None:
            index = divmod(int(weight.grad.abs().argmax()), weight.shape[1])
        back = Back(focus, tuple(targets), float(loss.detach()), logits, kept.inputs, kept.outputs, module, index)
        following = opened.tokenizer.encode(asked.next) if asked.next else _next_sequence(asked, trained)
        following = following[: anatomy.context + 1]
        stages = list(gradient_stages(back))
        stages += step_stages(back, trained, _name(model, weight), following)
    return stages


def _weight(opened: OpenModel, anatomy: Anatomy, asked: WalkBack) -> tuple[nn.Module, tuple[int, int] | None]:
    """The linear layer, and the index in its matrix as it is stored; None for the largest gradient."""
    if not asked.weight:
        parts = layer_parts(anatomy, asked.layer)
        return parts.up or parts.out, None
    match = _WEIGHT.fullmatch(asked.weight.strip())
    modules = dict(opened.model.named_modules())
    module = modules.get(match["name"].removesuffix(".weight")) if match else None
    if match is None or module is None or not (type(module) is nn.Linear or is_conv1d(module)):
        example = _name(opened.model, _parameter(layer_parts(anatomy, asked.layer).out))
        raise UsageError(f"{asked.weight!r} is not a weight of a linear layer.", f"One is {example}[0,0].")
    index, shape = (int(match["row"]), int(match["column"])), _parameter(module).shape
    if index[0] >= shape[0] or index[1] >= shape[1]:
        raise UsageError(f"{match['name']} has no entry {list(index)}.", f"Its shape is {list(shape)}.")
    return module, index


def _parameter(module: nn.Module) -> nn.Parameter:
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    return weight


def _name(model: nn.Module, weight: Tensor) -> str:
    return next(name for name, parameter in model.named_parameters() if parameter is weight)


@contextlib.contextmanager
def _learning(model: nn.Module) -> Iterator[None]:
    """While it lasts, every weight gets a gradient; afterwards all is as it was."""
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _, _ in before:
            parameter.requires_grad_(True)
            parameter.grad = None
        with torch.enable_grad():
            yield
    finally:
        for parameter, learned, gradient in before:
            parameter.requires_grad_(learned)
            parameter.grad = gradient


def _with_gradient(x: Tensor) -> Tensor | None:
    """A tensor with its place in the graph, where its gradient will be; None for one outside of it."""
    if not x.requires_grad:
        return None
    x.retain_grad()
    return x


def _next_sequence(asked: WalkBack, trained: Trained) -> list[int]:
    """The training sequence behind the one that is walked; of a prompt, the run's next; [] where none is known."""
    at = max(asked.sequence, -1) + 1
    return list(trained.sequences[at % len(trained.sequences)]) if trained.sequences else []
