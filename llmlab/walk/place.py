"""Where a walk is, and how a stage of it is made: recomputed by its formula and compared with what the model has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import Anatomy, FinalNorm
from llmlab.anatomy.modules import base_model, linear_numbers, norm_numbers
from llmlab.core.errors import LabError
from llmlab.core.settings import Sampling
from llmlab.gpt.model import GPT, Block, CausalSelfAttention, FeedForward, Rotary
from llmlab.models.model import OpenModel
from llmlab.walk.code import code_of
from llmlab.walk.parts import LayerParts, layer_parts, name_in
from llmlab.walk.stage import Code, Stage, Value
from llmlab.walk.sums import dot, number
from llmlab.walk.watched import Changes, Seen

# How far a recomputed stage may be from the model's own, relative to its largest number: rounding of its dtype.
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}
OTHERWISE = "This family computes this step in a way of its own: the values are the model's, without a formula."


@dataclass(frozen=True)
class Place:
    """One prompt in one model, and the layer, head, position and key that are looked at."""

    opened: OpenModel
    seen: Seen
    text: str
    ids: tuple[int, ...]
    layer: int
    head: int
    position: int
    key: int
    changes: Changes
    sampling: Sampling
    seed: int
    drawn: int  # tokens of the prompt that earlier draws of this seed appended

    @property
    def anatomy(self) -> Anatomy:
        return self.opened.anatomy

    @cached_property
    def parts(self) -> LayerParts:
        return layer_parts(self.anatomy, self.layer)

    @cached_property
    def tokens(self) -> list[str]:
        return [self.opened.tokenizer.token_text(id) for id in self.ids]

    @cached_property
    def token_labels(self) -> tuple[str, ...]:
        """`3 king`: what stands along an axis of positions."""
        return tuple(f"{at} {text}" for at, text in enumerate(self.tokens))

    def stage(
        self,
        name: str,
        title: str,
        formula: str,
        numbers: str,
        why: str,
        panel: str,
        values: Sequence[Value],
        recomputed: Tensor | None = None,
        seen: Tensor | None = None,
        note: str = "",
    ) -> Stage:
        """A stage of which `recomputed` must be `seen`, what the model has; where it is not, it goes without formula.

        Where nothing is computed, both are None.
        """
        plain = Stage(name, title, formula, numbers, why, panel, tuple(values), self.code(name), note=note)
        if seen is None:
            return plain
        if name in self.changes.vectors:
            component, number_set = self.changes.vectors[name]
            note = f"Component {component} was set to {number(number_set)}. {note}".strip()
        without = replace(plain, formula="", numbers="", note=note or OTHERWISE)
        if recomputed is None:
            return without
        if name in self.changes.vectors:
            recomputed = recomputed.clone()
            recomputed[component] = number_set
        difference = differing(recomputed, seen)
        tolerance = _TOLERANCE.get(self.anatomy.unembedding.dtype, 4e-2)
        finite = seen[seen.isfinite()]
        size = max(1.0, float(finite.abs().max()) if finite.numel() else 1.0)
        if not difference <= tolerance * size:
            return without
        return replace(plain, difference=difference, note=note)

    def code(self, name: str) -> Code | None:
        """The lines that do a stage."""
        if name in _SAMPLING:
            from llmlab.gpt import generate

            return code_of(getattr(generate, _SAMPLING[name][0]), _SAMPLING[name][1])
        if isinstance(self.opened.model, GPT):
            thing, *wanted = _OWN.get(name, (None,))
            return None if thing is None else code_of(thing, *wanted)
        return self._code_of_transformers(name)

    def _code_of_transformers(self, name: str) -> Code | None:
        from llmlab.anatomy.hf_attention import eager_attention_of  # loads transformers

        about = self.anatomy.blocks[self.layer]
        halves = {"attention": about.attn, "feed_forward": about.mlp}
        block, parts, model = about.block, self.parts, base_model(self.opened.model)
        last = self.anatomy.final_norm
        trunk = next(module for module in model.modules() if any(one is last for one in module.children()))
        eager = eager_attention_of(parts.attention)
        projections = [f"self.{name_in(parts.attention, one)}(" for one in parts.projections]
        feed_forward = parts.feed_forward or block

        def forward(module: nn.Module) -> Any:
            return type(module).forward

        def called(parent: nn.Module, part: nn.Module | None) -> str:
            return f"self.{name_in(parent, part)}(" if part is not None else "self."

        match name:
            case "embedding":
                return code_of(forward(trunk), called(trunk, self.anatomy.embedding))
            case "position":
                return code_of(forward(trunk), "self.wpe(", "self.embed_positions(", "self.rotary_emb(")
            case "norm" if self.seen.norm is not None:
                return code_of(forward(block), called(block, self.seen.norm))
            case "query" | "key" | "value" if projections:
                at = ("query", "key", "value").index(name) if len(projections) == 3 else 0
                return code_of(forward(parts.attention), projections[at])
            case "query_norm":
                return code_of(forward(parts.attention), called(parts.attention, parts.query_norms[0]))
            case "rotation":
                return code_of(forward(parts.attention), "apply_rotary_pos_emb(", "rotary")
            case "score":
                return code_of(eager, "torch.matmul(query", "matmul(", "@") if eager else None
            case "softcap":
                return code_of(eager, "tanh") if eager else None
            case "mask":
                return code_of(eager, "attn_weights + ", "attention_mask") if eager else None
            case "softmax":
                return code_of(eager, "softmax(") if eager else None
            case "weighted_sum":
                return code_of(eager, "torch.matmul(attn_weights", "matmul(attn") if eager else None
            case "attention" if not any(one is parts.out for one in halves["attention"].module.modules()):
                return code_of(forward(block), called(block, halves["attention"].module), "multiplier")
            case "feed_forward" if not any(one is parts.down for one in halves["feed_forward"].module.modules()):
                return code_of(forward(block), called(block, halves["feed_forward"].module), "multiplier")
            case "attention" | "output_projection":
                return code_of(forward(parts.attention), called(parts.attention, parts.out))
            case "middle":
                return code_of(forward(block), "residual + hidden_states", "+ residual", "residual")
            case "feed_forward_norm" if self.seen.feed_forward_norm is not None:
                return code_of(forward(block), called(block, self.seen.feed_forward_norm))
            case "up" | "feed_forward" | "down" | "neurons":
                part = {"up": parts.up, "neurons": parts.activation}.get(name, parts.down)
                return code_of(forward(feed_forward), called(feed_forward, part))
            case "after":
                return code_of(forward(block), "residual + hidden_states", "+ residual", "residual")
            case "rest":
                return code_of(forward(trunk), "for decoder_layer in", "for i, block in", "for ")
            case "final_norm":
                return code_of(forward(trunk), called(trunk, self.anatomy.final_norm))
            case "logits":
                return code_of(forward(model), "lm_head(", "embed_out(")
        return None


def differing(a: Tensor, b: Tensor) -> float:
    """The largest difference; infinite where only one of them is infinite."""
    if a.shape != b.shape:
        return float("inf")
    a, b = a.double(), b.double()
    apart = torch.where(a == b, torch.zeros_like(a), (a - b).abs())
    return float(apart.nan_to_num(float("inf")).max()) if apart.numel() else 0.0


def value(name: str, axes: Sequence[str], x: Tensor, labels: Sequence[str] = ()) -> Value:
    """A value of a stage, in fp32."""
    return Value(name, tuple(axes), x.detach().float().cpu().numpy(), tuple(labels))


@dataclass(frozen=True)
class Product:
    """y = W x + b: a linear layer's work on one vector, recomputed."""

    x: Tensor  # [in]
    y: Tensor  # [out]
    weight: Tensor  # [out, in]
    bias: Tensor | None

    def formula(self, letter: str, matrix: str, x: str) -> str:
        """`q = W_Q · norm(x) + b`."""
        return f"{letter} = {matrix} · {x}" + ("" if self.bias is None else " + b")

    def numbers(self, letter: str) -> str:
        """The first component as the sum it is."""
        bias = None if self.bias is None else float(self.bias[0])
        return f"{letter}[0] = {dot(self.weight[0], self.x, float(self.y[0]), bias)}"


def product(module: nn.Module, x: Tensor, rows: Tensor | None = None) -> Product | None:
    """What a linear layer makes of x [in], these rows of it alone; None where it is not linear."""
    try:
        numbers = linear_numbers(module)
    except LabError:
        return None
    weight, bias = numbers.weight, numbers.bias
    if rows is not None:
        weight, bias = weight[rows], None if bias is None else bias[rows]
    weight, bias = weight.detach().to(x), None if bias is None else bias.detach().to(x)
    y = weight @ x
    return Product(x, y if bias is None else y + bias, weight, bias)


def norm_of(module: nn.Module, size: int) -> FinalNorm | None:
    """A norm as numbers, in fp32; None where it is of no known kind."""
    try:
        norm = norm_numbers(module, size)
    except (LabError, RuntimeError, TypeError, AttributeError):  # no norm at all, or of other vectors
        return None
    bias = None if norm.bias is None else norm.bias.float().cpu()
    return FinalNorm(norm.kind, norm.weight.float().cpu(), bias, norm.eps)


# Of the lab's own GPT: where each stage is computed, and what the line holds.
_OWN: dict[str, tuple[Any, ...]] = {
    "embedding": (GPT.residual_stream, "self.token_embedding(ids)"),
    "position": (GPT.residual_stream, "x + self.position_embedding"),
    "stream": (GPT.residual_stream, "x = block(x"),
    "norm": (Block.forward, "self.attention_norm("),
    "query": (CausalSelfAttention.forward, "self.qkv(x)"),
    "key": (CausalSelfAttention.forward, "self.qkv(x)"),
    "value": (CausalSelfAttention.forward, "self.qkv(x)"),
    "value_mix": (CausalSelfAttention.heads, "v = share *"),
    "query_norm": (CausalSelfAttention.heads, "self.q_norm(q"),
    "rotation": (Rotary.forward, "x * cos"),
    "score": (CausalSelfAttention.forward, "scaled_dot_product_attention("),
    "mask": (CausalSelfAttention.forward, "scaled_dot_product_attention("),
    "softmax": (CausalSelfAttention.forward, "scaled_dot_product_attention("),
    "weighted_sum": (CausalSelfAttention.forward, "scaled_dot_product_attention("),
    "attention": (CausalSelfAttention.forward, "self.out(y)"),
    "middle": (Block.forward, "self.attention("),
    "feed_forward_norm": (Block.forward, "self.feed_forward_norm("),
    "up": (FeedForward.forward, "self.up(x)"),
    "neurons": (FeedForward.forward, "self.up(x)"),
    "feed_forward": (FeedForward.forward, "self.down(hidden)"),
    "after": (Block.forward, "self.feed_forward("),
    "rest": (GPT.residual_stream, "in enumerate(self.blocks)"),
    "final_norm": (GPT.residual_stream, "self.final_norm(x)"),
    "logits": (GPT.logits, "self.unembedding"),
}
# The lab draws from every model in one way: function of `llmlab.gpt.generate`, and what the line holds.
_SAMPLING = {
    "temperature": ("sampling_steps", "/ how.temperature"),
    "top_k": ("sampling_steps", "logits.topk("),
    "top_p": ("sampling_steps", "less_likely ="),
    "probabilities": ("choose", "softmax(-1)"),
    "draw": ("choose", "torch.multinomial("),
    "next": ("generate_batch", "text + new"),
}
