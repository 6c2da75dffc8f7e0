"""The GPT, built wrongly: each fault is a variant beside the part of `llmlab.gpt.model` that it stands for.

A part keeps its weights and their names, and only its class changes: so a checkpoint opens as the model that it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmlab.core.mystery_settings import MysterySettings
from llmlab.gpt.cache import LayerCache
from llmlab.gpt.model import GPT, Block, CausalSelfAttention, Norm
from llmlab.mysteries.faults import fault_of


def rebuild(settings: MysterySettings, model: GPT) -> None:
    """Breaks a fresh model as the seal says, if its fault is one of the model's. LabError for a damaged seal."""
    change = _CHANGES.get(fault_of(settings.mystery.token).name)
    if change is not None:
        _become(model, Rebuilt)
        change(model)


class Rebuilt(GPT):
    """When it is looked into, the identities of its panels are measured, as those of a stranger's model are."""

    rebuilt = True


class Unmasked(CausalSelfAttention):
    """Attention that sees later positions."""

    looks_ahead = True

    def forward(self, x: Tensor, past: LayerCache | None = None, first: list[Tensor] | None = None) -> Tensor:
        """As the original, but for the mask."""
        batch, time, n_embd = x.shape
        q, k, v = self.heads(self.qkv(x), None if past is None else past.positions, first)
        if past is not None:
            k, v = past.extended(k, v)
        drop = self.dropout if self.training else 0.0
        mask = None if past is None else past.mask
        y = F.scaled_dot_product_attention(q, k, v, mask, drop, False, scale=self.scale)
        y = y.transpose(1, 2).reshape(batch, time, n_embd)
        return F.dropout(self.out(y), self.dropout, self.training)


class NoResidual(Block):
    """A block whose attention replaces the stream instead of adding to it."""

    def forward(self, x: Tensor, past: LayerCache | None = None, first: list[Tensor] | None = None) -> Tensor:
        """As the original, without `x +`."""
        x = self.attention(self.attention_norm(x), past, first)
        x = x + self.feed_forward(self.feed_forward_norm(x))
        return x


class NoNorm(Norm):
    """A norm that only scales."""

    def forward(self, x: Tensor) -> Tensor:
        """As the original, without bringing x to a standard size."""
        return x * self.weight


class NotShifted(Rebuilt):
    """Each position is asked for the token that it reads."""

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The targets are the inputs."""
        return super().loss(ids, ids)


class ShiftedTwice(Rebuilt):
    """Each position is asked for the token after the next one."""

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The targets come one later already, and are shifted again."""
        return super().loss(ids[:, :-1], targets[:, 1:])


def unmask(model: GPT) -> None:
    """No block has a causal mask."""
    for block in _blocks(model):
        _become(block.attention, Unmasked)


def unscale(model: GPT) -> None:
    """Scores are not divided by the root of a head's width."""
    for block in _blocks(model):
        block.attention.scale = 1.0


def cut_residual(model: GPT) -> None:
    """The middle block's attention lost its residual connection."""
    _become(_middle(model), NoResidual)


def drop_norm(model: GPT) -> None:
    """The norm before the unembedding is missing."""
    _become(model.final_norm, NoNorm)


def freeze(model: GPT) -> None:
    """The middle block does not learn."""
    _middle(model).requires_grad_(False)


def untie(model: GPT) -> None:
    """The head begins as a copy of the token embedding, and each learns for itself."""
    model.head = nn.Linear(model.settings.n_embd, model.token_embedding.num_embeddings, bias=False)
    model.head.weight = nn.Parameter(copy.deepcopy(model.token_embedding.weight.detach()))
    model.settings = replace(model.settings, untied_head=True)


@torch.no_grad()
def enlarge(model: GPT) -> None:
    """Matrices begin ten times too large."""
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.mul_(10)


_CHANGES: dict[str, Callable[[GPT], None]] = {
    "no-mask": unmask,
    "no-scale": unscale,
    "not-shifted": lambda model: _become(model, NotShifted),
    "shifted-twice": lambda model: _become(model, ShiftedTwice),
    "no-residual": cut_residual,
    "no-norm": drop_norm,
    "frozen": freeze,
    "untied": untie,
    "large-init": enlarge,
}


def _become(part: nn.Module, kind: type[nn.Module]) -> None:
    part.__class__ = kind


def _blocks(model: GPT) -> list[Block]:
    return [block for block in model.blocks if isinstance(block, Block)]


def _middle(model: GPT) -> Block:
    return _blocks(model)[len(model.blocks) // 2]
