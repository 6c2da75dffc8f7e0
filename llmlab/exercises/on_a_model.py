"""The learner's pieces on a model, beside the lab's own: their logit lens, and their LoRA layers."""

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
from llmlab.inspection.intervening import Recorder
from llmlab.inspection.lens import Lens
from llmlab.models.adapter_file import Factors, other_form, read_factors
from llmlab.models.model import OpenModel
from llmlab.models.reference import Reference
from llmlab.models.source import FineTunedRun, source_of

# Probabilities that the learner's function returns at once: 256 MB.
_MOST = 64 * 1024 * 1024


@dataclass(frozen=True)
class LensRow:
    """After one layer, at the last position: the most likely token and its probability, by both. apart: the largest
    difference of the probabilities of ours, over all positions and the tokens that ours names."""

    layer: int
    yours: int
    your_probability: float
    ours: int
    our_probability: float
    apart: float


@torch.no_grad()
def lens_beside_ours(opened: OpenModel, ids: Sequence[int], logit_lens: Callable[..., Tensor]) -> list[LensRow]:
    """Runs both on one pass. UsageError for a prompt that is too long; LabError for a model whose logits are more than
    a product, and as `load_functions`."""
    anatomy, vocab = opened.anatomy, opened.vocab_size
    if anatomy.unembedding_bias is not None or anatomy.logit_softcap is not None:
        why = "Its logits are not a plain product: a bias or a softcap follows."
        raise LabError(
            f"Your logit lens cannot read {opened.name}.", why, "Choose a GPT of your own, or Llama, or Qwen."
        )
    if anatomy.n_layer * len(ids) * vocab > _MOST:
        most = _MOST // (anatomy.n_layer * vocab)
        raise UsageError(
            f"The prompt has {len(ids):,} tokens.", f"Yours reads at most {most:,} of this model's at once."
        )
    streams, lens = (
        Recorder([(layer, "post_ffn") for layer in range(anatomy.n_layer)]),
        Lens(anatomy, ids, vocab_size=vocab),
    )
    run(opened.model, anatomy, ids, [streams, lens])
    after = torch.stack([streams.values[layer, "post_ffn"].float() for layer in range(anatomy.n_layer)])  # [L, T, C]
    unembedding = anatomy.unembedding[:vocab].float() * anatomy.logit_scale
    found = logit_lens(after, anatomy.norm.apply, unembedding)
    require_shape(found, (anatomy.n_layer, len(ids), vocab), "logit-lens")
    found = found.float()
    require_finite(float(found.sum()), "logit-lens")
    ours = lens.results()
    rows = []
    for layer in range(anatomy.n_layer):
        at = 2 * (layer + 1)  # of the rows of the lab's lens, which also reads the stream after attention
        named, probability = ours["lens/ids"][at].long(), ours["lens/probability"][at]  # [T, K]
        apart = float((found[layer].gather(1, named) - probability).abs().max())
        best = int(found[layer, -1].argmax())
        rows.append(
            LensRow(layer, best, float(found[layer, -1, best]), int(named[-1, 0]), float(probability[-1, 0]), apart)
        )
    return rows


# LoRA ----------------------------------------------------------------------------------------------------------------

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
    base: OpenModel, fine_tuned: OpenModel, adapters: Sequence[Factors], ids: Sequence[int], yours: Functions
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
