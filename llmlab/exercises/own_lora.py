"""A fine-tuned model whose adapters the learner's functions compute, beside the same model as the lab merges it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llmlab.anatomy.capture import run
from llmlab.anatomy.modules import linear_numbers
from llmlab.core.errors import LabError, UsageError
from llmlab.core.progress import Progress
from llmlab.exercises.functions import Functions, require_finite, require_shape
from llmlab.models.adapter_file import Factors, other_form, read_factors
from llmlab.models.model import OpenModel
from llmlab.models.reference import Reference
from llmlab.models.source import FineTunedRun, source_of

_SHOWN = 5


@dataclass(frozen=True)
class LoraOutcome:
    """Of the last position. rows: ids of the most likely tokens, and their probabilities by your layers, by ours, and
    by the base without an adapter. apart: the largest difference of a probability, over all tokens and positions;
    merged: of a weight of your `merged` matrices."""

    rows: list[tuple[int, float, float, float]]
    apart: float
    merged: float
    layers: int


def open_both(reference: Reference, progress: Progress) -> tuple[OpenModel, OpenModel, list[Factors]]:
    """The base, the fine-tuned model, and the adapters between them. UsageError where there is no such pair."""
    source = source_of(reference)
    if not isinstance(source, FineTunedRun) or source.method == "full":
        do = "Fine-tune one: llmlab-run finetune --model RUN@final --name taught"
        raise UsageError(f"{reference} has no adapter.", "Yours computes those of a run that fine-tunes with LoRA.", do)
    return source.base.open(progress), source.open(progress), read_factors(source.checkpoint.path)


@torch.no_grad()
def lora_beside_ours(
    base: OpenModel,
    fine_tuned: OpenModel,
    adapters: Sequence[Factors],
    ids: Sequence[int],
    yours: Functions,
) -> LoraOutcome:
    """Runs the three on a prompt. LabError as `load_functions`."""
    modules, merged = dict(base.model.named_modules()), 0.0
    with ExitStack() as hooks:
        for pair in adapters:
            named = pair if pair.module in modules else other_form(pair)
            if named is None or named.module not in modules:
                raise LabError(f"The base has no layer {pair.module}.", "Its adapter was made for another model.")
            module, alpha = modules[named.module], pair.scale * pair.rank
            layer = linear_numbers(module)
            weight, a, b = layer.weight.float(), torch.tensor(pair.a), torch.tensor(pair.b)
            one = yours["merged"](weight, a, b, alpha)
            require_shape(one, tuple(weight.shape), "lora")
            merged = max(merged, float((one - (weight + pair.scale * b @ a)).abs().max()))
            hook = partial(_in_its_place, partial(_called, yours["lora"], weight, a, b, alpha), layer.bias)
            hooks.callback(module.register_forward_hook(hook).remove)
        mine = _probabilities(base, ids)
    ours, plain = _probabilities(fine_tuned, ids), _probabilities(base, ids)
    best = ours[-1].topk(_SHOWN).indices.tolist()
    rows = [(id, float(mine[-1, id]), float(ours[-1, id]), float(plain[-1, id])) for id in best]
    apart = float((mine - ours).abs().max())
    require_finite(apart + merged, "lora")
    return LoraOutcome(rows, apart, merged, len(adapters))


def _in_its_place(lora: Callable[..., Tensor], bias: Tensor | None, _: nn.Module, args: Any, given: Tensor) -> Tensor:
    made = lora(args[0].float())
    require_shape(made, tuple(given.shape), "lora")
    return (made if bias is None else made + bias.float()).to(given)


def _called(lora: Callable[..., Tensor], weight: Tensor, a: Tensor, b: Tensor, alpha: float, x: Tensor) -> Tensor:
    return lora(x, weight, a, b, alpha)


def _probabilities(opened: OpenModel, ids: Sequence[int]) -> Tensor:
    """[T, V]."""
    return run(opened.model, opened.anatomy, ids)[0, :, : opened.vocab_size].float().softmax(-1)
