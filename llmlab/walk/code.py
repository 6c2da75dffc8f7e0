"""The lines of code that do a stage: of the lab's own GPT, or of the transformers file that the model comes from."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

import llmlab
from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.modules import base_model
from llmlab.gpt import generate
from llmlab.gpt.model import GPT, Block, CausalSelfAttention, FeedForward, Rotary
from llmlab.walk.parts import LayerParts, holds, name_in
from llmlab.walk.stage import Code

# A class, function or method, and what the line holds, tried in order.
Where: TypeAlias = tuple[Any, ...]
_ROOT = Path(llmlab.__file__).resolve().parent.parent


def code_of(thing: Any, *wanted: str) -> Code | None:
    """The first lines of a class, function or method that hold one of `wanted`, tried in order.

    A statement that goes on over several lines is whole. None where the source is not at hand, or has no such line.
    """
    try:
        lines, first, file = _source(thing)
    except (OSError, TypeError):
        return None
    for word in wanted:
        for at, line in enumerate(lines):
            if word in line and not line.lstrip().startswith(("#", '"', "def ")):
                text = textwrap.dedent("".join(_statement(lines, at))).rstrip()
                return Code(file, first + at, text)
    return None


@lru_cache(maxsize=256)
def _source(thing: Any) -> tuple[list[str], int, str]:
    """Its lines, the first one's number, and its file's name. Found once: two milliseconds each, at every stage."""
    thing = inspect.unwrap(thing)
    lines, first = inspect.getsourcelines(thing)
    return lines, first, _name(Path(inspect.getsourcefile(thing) or "").resolve())


def _statement(lines: list[str], at: int) -> list[str]:
    """From a line on until its brackets are closed."""
    depth = 0
    for end, line in enumerate(lines[at:], at):
        depth += sum(line.count(sign) for sign in "([{") - sum(line.count(sign) for sign in ")]}")
        if depth <= 0:
            return lines[at : end + 1]
    return lines[at:]


def _name(path: Path) -> str:
    """A file's name from the package on: as in the checkout, or below site-packages."""
    if path.is_relative_to(_ROOT / "llmlab"):
        return path.relative_to(_ROOT).as_posix()
    parts = path.parts
    for package in ("transformers", "peft", "torch"):
        if package in parts:
            return "/".join(parts[parts.index(package) :])
    return path.name


# Where stages are computed ---------------------------------------------------------------------------------------

_ATTENDS: Where = (CausalSelfAttention.forward, "scaled_dot_product_attention(")
_PROJECTS: Where = (CausalSelfAttention.forward, "self.qkv(x)")
# In the lab's own GPT.
OWN: Mapping[str, Where] = {
    "embedding": (GPT.residual_stream, "self.token_embedding(ids)"),
    "position": (GPT.residual_stream, "x + self.position_embedding"),
    "stream": (GPT.residual_stream, "x = block(x"),
    "norm": (Block.forward, "self.attention_norm("),
    "query": _PROJECTS,
    "key": _PROJECTS,
    "value": _PROJECTS,
    "value_mix": (CausalSelfAttention.heads, "v = share *"),
    "query_norm": (CausalSelfAttention.heads, "self.q_norm(q"),
    "rotation": (Rotary.forward, "x * cos"),
    "score": _ATTENDS,
    "mask": _ATTENDS,
    "softmax": _ATTENDS,
    "weighted_sum": _ATTENDS,
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
# The lab draws from every model in one way.
SAMPLING: Mapping[str, Where] = {
    "temperature": (generate.sampling_steps, "/ how.temperature"),
    "top_k": (generate.sampling_steps, "logits.topk("),
    "top_p": (generate.sampling_steps, "less_likely ="),
    "probabilities": (generate.choose, "softmax(-1)"),
    "draw": (generate.choose, "torch.multinomial("),
    "next": (generate.generate_batch, "text + new"),
}


def of_transformers(
    model: nn.Module,
    anatomy: Anatomy,
    layer: int,
    parts: LayerParts,
    norm: nn.Module | None,
    feed_forward_norm: nn.Module | None,
) -> dict[str, Where]:
    """The same of a family of transformers. norm, feed_forward_norm: those in front of the layer's halves, if any."""
    from llmlab.anatomy.hf_attention import eager_attention_of  # loads transformers

    about, whole, attention = anatomy.blocks[layer], base_model(model), parts.attention
    block, feeding, eager = about.block, parts.feed_forward or about.block, eager_attention_of(attention)
    trunk = next(one for one in whole.modules() if any(child is anatomy.final_norm for child in one.children()))

    def call(parent: nn.Module, part: nn.Module | None, *otherwise: str) -> Where:
        return type(parent).forward, f"self.{name_in(parent, part)}(" if part is not None else "self.", *otherwise

    added = (type(block).forward, "residual + hidden_states", "+ residual", "residual")
    out, down = call(attention, parts.out), call(feeding, parts.down)
    found: dict[str, Where] = {
        "embedding": call(trunk, anatomy.embedding),
        "position": (type(trunk).forward, "self.wpe(", "self.embed_positions(", "self.rotary_emb("),
        "rotation": (type(attention).forward, "apply_rotary_pos_emb(", "rotary"),
        "output_projection": out,
        "attention": out if holds(about.attn, parts.out) else call(block, about.attn.module, "multiplier"),
        "middle": added,
        "up": call(feeding, parts.up),
        "neurons": call(feeding, parts.activation),
        "down": down,
        "feed_forward": down if holds(about.mlp, parts.down) else call(block, about.mlp.module, "multiplier"),
        "after": added,
        "rest": (type(trunk).forward, "for decoder_layer in", "for i, block in", "for "),
        "final_norm": call(trunk, anatomy.final_norm),
        "logits": (type(whole).forward, "lm_head(", "embed_out("),
    }
    if norm is not None:
        found["norm"] = call(block, norm)
    if feed_forward_norm is not None:
        found["feed_forward_norm"] = call(block, feed_forward_norm)
    if parts.query_norms:
        found["query_norm"] = call(attention, parts.query_norms[0])
    if parts.projections:
        modules = parts.projections if len(parts.projections) == 3 else parts.projections * 3
        found |= {name: call(attention, one) for name, one in zip(("query", "key", "value"), modules, strict=True)}
    if eager is not None:
        found |= {
            "score": (eager, "torch.matmul(query", "matmul(", "@"),
            "softcap": (eager, "tanh"),
            "mask": (eager, "attn_weights + ", "attention_mask"),
            "softmax": (eager, "softmax("),
            "weighted_sum": (eager, "torch.matmul(attn_weights", "matmul(attn"),
        }
    return found
