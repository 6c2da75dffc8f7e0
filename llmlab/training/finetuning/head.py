"""Logits where a token is trained on, and nowhere else.

A row of a chat is mostly question, and its logits are [tokens, vocabulary]: for SmolLM2's 49,152 tokens 0.2 MB each,
and as much again for the softmax and for the gradient. The last linear layer of a model is handed only the positions
[N, C] that predict a trained token. Losses and gradients are those of all logits, up to rounding.

Which layer that is says transformers; that the rest of the model does not mind is tried on a few tokens (`find_head`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmlab.anatomy.modules import base_model
from llmlab.gpt.head import capped, next_token_loss


@dataclass(frozen=True)
class Head:
    """The layer that turns the residual stream into logits.

    softcap: None where the model does more to its logits than `llmlab.gpt.head` can. 0 or more: all that it does, so
    that not even the logits of the trained positions are needed at once.
    """

    layer: nn.Module
    softcap: float | None

    def loss_sum(self, logits: Callable[[], Tensor], places: Tensor, wanted: Tensor) -> Tensor:
        """The summed cross-entropy, nats, at places [B, T], N of them true, against wanted [N].

        logits: runs the model, whose answer [B, T, V] comes as [1, N, V] here.
        """
        if self.softcap is None:
            return F.cross_entropy(self._logits(logits, places).float(), wanted, reduction="sum")
        stream = self._inputs(logits, places)
        mean = next_token_loss(stream, self.layer.get_parameter("weight"), wanted, self.softcap)
        return mean * len(wanted) if len(wanted) else stream.sum()

    def _logits(self, logits: Callable[[], Tensor], places: Tensor) -> Tensor:
        """[N, V]."""

        def choose(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return given[0][places][None], *given[1:]

        with self.layer.register_forward_pre_hook(choose):
            return logits()[0]

    def _inputs(self, logits: Callable[[], Tensor], places: Tensor) -> Tensor:
        """[N, C]: what the layer is given, which itself computes nothing."""
        kept = []

        def keep(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            kept.append(given[0][places])
            return given[0][:1, :0], *given[1:]

        with self.layer.register_forward_pre_hook(keep):
            logits()
        return kept[0]


@torch.no_grad()
def find_head(model: nn.Module, logits: Callable[[Tensor], Tensor]) -> Head | None:
    """The head of a model of transformers, which is put into eval mode; None where it cannot be told apart.

    logits: ids [B, T] -> [B, T, V].
    """
    plain: Any = base_model(model)
    layer = plain.get_output_embeddings()
    if layer is None:
        return None
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor):
        return None
    ids = torch.arange(6, device=weight.device).view(2, 3)
    places = ids % 2 == 1  # one of the first row, two of the second
    softcap = getattr(plain.config.get_text_config(), "final_logit_softcapping", None) or 0.0
    head = Head(layer, None)
    try:
        model.eval()
        whole = logits(ids)[places]
        if type(layer) is nn.Linear and layer.bias is None:
            stream = head._inputs(lambda: logits(ids), places)
            exact = weight.dtype == stream.dtype == torch.float32
            if exact and _same(capped(F.linear(stream, weight), softcap), whole):
                return Head(layer, softcap)
        return head if _same(head._logits(lambda: logits(ids), places), whole) else None
    except Exception:  # a model may do anything with logits of another shape than it expects
        return None


def _same(found: Tensor, expected: Tensor) -> bool:
    """Up to rounding, which is far less than the root of the smallest step of their type."""
    if found.shape != expected.shape:
        return False
    bound = torch.finfo(expected.dtype).eps ** 0.5 * expected.abs().max()
    return bool((found - expected).abs().max() <= bound)
