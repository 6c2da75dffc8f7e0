"""Where the parts of a model are: its blocks, what each adds to the residual stream, and how the stream becomes logits.

Every decoder keeps one vector a token, the residual stream, and each block adds to it twice. Families differ in
where those additions can be read. The differences are data here, not branches elsewhere:

    sequential     x + attention(norm(x)), then + feed_forward(norm(.))      GPT-2, Llama, Qwen, the lab's own GPT
    parallel       x + attention(norm(x)) + feed_forward(norm'(x))           GPT-J, Phi, Cohere: no real post_attn
    sandwich       x + norm(attention(norm(x))), likewise feed-forward       Gemma 2 and 3, OLMo2, GLM4
    scaled         x + m * attention(norm(x))                                Granite
    residual inside  the module adds the stream by itself                    BLOOM: its inner linear layer is read
    hybrid         some layers have no attention pattern                     Qwen3-Next

`llmlab.anatomy.finding` finds them in an open model.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from llmlab.core.errors import LabError


@dataclass(frozen=True)
class HookPoint:
    """Where a contribution can be read: the output of `module` (the first one of a tuple), times `scale`."""

    module: nn.Module
    scale: float = 1.0


@dataclass(frozen=True)
class FinalNorm:
    """The norm before the unembedding, as numbers: what a frozen scale and a lens need.

    layernorm:  (x - mean(x)) / scale(x) * weight + bias,  scale = sqrt(var(x) + eps)
    rmsnorm:     x / scale(x) * weight (+ bias),           scale = sqrt(mean(x^2) + eps)

    weight: the effective one, so 1 + w where a family stores w (Gemma).
    """

    kind: str
    weight: Tensor  # [C]
    bias: Tensor | None  # [C]
    eps: float

    def centred(self, x: Tensor) -> Tensor:
        """[..., C] without its mean where the norm takes it away; linear, so it holds for each part of a sum."""
        return x - x.mean(-1, keepdim=True) if self.kind == "layernorm" else x

    def scale(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., 1]: what the norm divides by."""
        return (self.centred(x).square().mean(-1, keepdim=True) + self.eps).sqrt()

    def apply(self, x: Tensor) -> Tensor:
        """The whole norm: [..., C] -> [..., C]."""
        y = self.centred(x) / self.scale(x) * self.weight
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True)
class BlockAnatomy:
    """One block. `pre_attn` is its input, `post_ffn` its output."""

    block: nn.Module
    attn: HookPoint  # attn_out: what attention adds to the stream
    mlp: HookPoint  # mlp_out: what the feed-forward adds
    attention: nn.Module | None  # the module whose pattern is taken; None in layers without one
    projection: nn.Module | None  # attention's output projection; its input is all heads side by side [T, H * D]
    mid: nn.Module | None = None  # the module whose input is post_attn; None where that exists nowhere (parallel)
    post_attn_norm: nn.Module | None = None  # a norm between the projection and the stream
    neurons: nn.Module | None = None  # last linear layer of the feed-forward: its input are the neurons [T, hidden]
    window: int | None = None  # how many tokens a sliding layer sees, its own included
    gated: bool = False  # head outputs A V go through a gate before the projection (Qwen3-Next)

    @property
    def parallel(self) -> bool:
        """Whether attention and feed-forward read the same input: post_attn is virtual, pre_attn + attn_out."""
        return self.mid is None


@dataclass(frozen=True)
class Refusals:
    """Why a panel cannot be trusted for this model, a sentence each; None where it can."""

    attention: str | None = None  # patterns
    contributions: str | None = None  # attn_out and mlp_out, and all that is made of them
    heads: str | None = None  # per-head outputs
    attribution: str | None = None  # the way from the stream to the logits


@dataclass(frozen=True)
class Anatomy:
    """A whole model. logits = softcap(logit_scale * (final_norm(stream) @ unembedding^T + unembedding_bias))."""

    family: str
    blocks: tuple[BlockAnatomy, ...]
    embedding: nn.Module
    final_norm: nn.Module
    norm: FinalNorm
    unembedding: Tensor  # [V, C]
    n_head: int
    n_kv_head: int
    head_dim: int
    context: int  # the longest prompt
    unembedding_bias: Tensor | None = None  # [V]
    logit_scale: float = 1.0
    logit_softcap: float | None = None
    sinks: bool = False  # rows of a pattern may sum to less than one
    attention_path: str = "eager"  # how patterns are had; see llmlab.anatomy.capture
    refusals: Refusals = field(default_factory=Refusals)

    @property
    def n_layer(self) -> int:
        return len(self.blocks)

    @property
    def n_embd(self) -> int:
        """Components of the residual stream (d_model)."""
        return self.unembedding.shape[1]

    @property
    def id_limit(self) -> int:
        """Ids that the model can read: 0 up to this. An embedding that reads more than its rows says so."""
        weight = self.embedding.weight
        assert isinstance(weight, Tensor)
        return int(getattr(self.embedding, "id_limit", weight.shape[0]))

    @property
    def vocab_size(self) -> int:
        """Rows of the unembedding, padding included."""
        return self.unembedding.shape[0]

    def logits(self, final: Tensor) -> Tensor:
        """The stream after the last block [..., C] -> logits [..., V], as the model computes them."""
        return self.finish(self.norm.apply(final) @ self.unembedding.T)

    def finish(self, logits: Tensor) -> Tensor:
        """What comes after the unembedding's product: bias, scale and softcap. [..., V] -> [..., V]."""
        if self.unembedding_bias is not None:
            logits = logits + self.unembedding_bias
        logits = logits * self.logit_scale
        if self.logit_softcap is not None:
            logits = torch.tanh(logits / self.logit_softcap) * self.logit_softcap
        return logits


def require(refusal: str | None, what: str) -> None:
    """Raises LabError when `what` is refused for the model."""
    if refusal is not None:
        raise LabError(f"{what} cannot be shown for this model.", refusal, "The other panels still work.")
