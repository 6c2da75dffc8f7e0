"""A GPT with the learner's functions in place of the lab's: the same modules and names, other arithmetic.

Functions, by name: softmax, attention, heads, layer_norm, feed_forward, block, gpt, initialise, loss, cross_entropy,
attend. What is missing is the lab's own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmlab.core.settings import ModelSettings
from llmlab.exercises.functions import Functions
from llmlab.gpt.cache import Cache, LayerCache
from llmlab.gpt.model import GPT, Block, CausalSelfAttention, FeedForward, Norm


def rebuilt(settings: ModelSettings, vocab_size: int, functions: Functions) -> GPT:
    """Draws its weights from torch's global generator, as GPT does."""
    made: type[_Gpt] = type("RebuiltGPT", (_Gpt,), {"functions": functions})
    model = made(settings, vocab_size)
    for own, other, names in (
        (Norm, _Norm, {"layer_norm"}),
        (CausalSelfAttention, _Attention, {"softmax", "attention", "heads", "attend"}),
        (FeedForward, _FeedForward, {"feed_forward"}),
        (Block, _Block, {"block"}),
    ):
        if names & functions.keys():
            kind = type(f"Rebuilt{own.__name__}", (other,), {"functions": functions})
            for module in model.modules():
                if type(module) is own:
                    module.__class__ = kind
    return model


class KeptCache(Cache):
    """The cache of one text whose layers keep what the learner's `attend` gives them to keep."""

    def __init__(self, n_layer: int) -> None:
        self.layers = [Kept() for _ in range(n_layer)]


class Kept(LayerCache):
    """What `attend` wants back."""

    def __init__(self) -> None:
        self.memo: Any = None


class _Gpt(GPT):
    functions: Functions

    def forward(self, ids: Tensor) -> Tensor:
        if (gpt := self.functions.get("gpt")) is None:
            return super().forward(ids)
        rows, positions = self.token_embedding.weight, self.position_embedding.weight
        return gpt(ids, rows, positions, list(self.blocks), self.final_norm)

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        cross_entropy = self.functions.get("cross_entropy", F.cross_entropy)
        found: Tensor
        if (loss := self.functions.get("loss")) is not None:
            found = loss(self.forward, torch.cat((ids, targets[:, -1:]), 1), cross_entropy)
        elif {"gpt", "cross_entropy"} & self.functions.keys():
            found = cross_entropy(self.forward(ids).flatten(0, 1), targets.flatten())
        else:
            found = super().loss(ids, targets)
        return found

    @torch.no_grad()
    def initialise(self) -> None:
        if (initialise := self.functions.get("initialise")) is None:
            super().initialise()
        else:
            initialise(dict(self.named_parameters()), self.settings.n_layer)


class _Norm(Norm):
    functions: Functions

    def forward(self, x: Tensor) -> Tensor:
        return self.functions["layer_norm"](x, self.weight, self.bias, self.EPS)


class _Attention(CausalSelfAttention):
    functions: Functions

    def forward(self, x: Tensor, past: LayerCache | None = None, first: list[Tensor] | None = None) -> Tensor:
        if past is not None and not isinstance(past, Kept):
            return super().forward(x, past, first)
        answers: Tensor
        if past is None and (heads := self.functions.get("heads")) is not None:
            answers = heads(x, self.qkv.weight, self.out.weight, self.n_head, self._one_head)
            return answers
        q, k, v = self.heads(self.qkv(x))
        if past is None:
            answers = self._one_head(q, k, v)
        else:
            answers, past.memo = self.functions["attend"](q, k, v, past.memo)
        return self.out(answers.transpose(1, 2).flatten(2))

    def _one_head(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        softmax = self.functions.get("softmax", _softmax)
        answers: Tensor
        if (attention := self.functions.get("attention")) is not None:
            answers = attention(q, k, v, softmax)
        elif softmax is _softmax:
            answers = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            later = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu(1)
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            answers = softmax(scores.masked_fill(later, -torch.inf)) @ v
        return answers


class _FeedForward(FeedForward):
    functions: Functions

    def forward(self, x: Tensor) -> Tensor:
        return self.functions["feed_forward"](x, self.up.weight, self.down.weight)


class _Block(Block):
    functions: Functions

    def forward(self, x: Tensor, past: LayerCache | None = None, first: list[Tensor] | None = None) -> Tensor:
        def attention(normal: Tensor) -> Tensor:
            return self.attention(normal, past, first)

        return self.functions["block"](x, self.attention_norm, attention, self.feed_forward_norm, self.feed_forward)


def _softmax(scores: Tensor) -> Tensor:
    return scores.softmax(-1)
