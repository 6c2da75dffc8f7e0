"""How a decoder's blocks are built: one type for each way in which they add to the residual stream.

A layout turns one block of a model into its `BlockAnatomy`. Names are paths of submodules inside the block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from llmlab.anatomy.anatomy import BlockAnatomy, HookPoint


@dataclass(frozen=True)
class Parts:
    """Where a block keeps its two halves."""

    attention: str = "self_attn"
    projection: str = "self_attn.o_proj"
    mlp: str = "mlp"
    down: str | None = "mlp.down_proj"  # absent in layers with experts


class Layout(ABC):
    """One way of building a block."""

    @abstractmethod
    def describe(self, block: nn.Module, config: Any) -> BlockAnatomy:
        """One block -> where everything is. AttributeError when the block is built in another way."""


@dataclass(frozen=True)
class Sequential(Layout):
    """x + attention(norm(x)), then + feed_forward(norm(.)); `mid` is that second norm."""

    parts: Parts = field(default_factory=Parts)
    mid: str = "post_attention_layernorm"
    gated: bool = False  # head outputs go through a gate before the projection

    def describe(self, block: nn.Module, config: Any) -> BlockAnatomy:
        return replace(_block(block, self.parts, self.mid), gated=self.gated)


@dataclass(frozen=True)
class Parallel(Layout):
    """x + attention(norm(x)) + feed_forward(norm'(x))."""

    parts: Parts = field(default_factory=Parts)

    def describe(self, block: nn.Module, config: Any) -> BlockAnatomy:
        return _block(block, self.parts)


@dataclass(frozen=True)
class Sandwich(Layout):
    """x + attn_norm(attention(.)), then + mlp_norm(feed_forward(.)); `mid` is what reads the stream in between."""

    parts: Parts = field(default_factory=Parts)
    attn_norm: str = "post_attention_layernorm"
    mlp_norm: str = "post_feedforward_layernorm"
    mid: str = "pre_feedforward_layernorm"

    def describe(self, block: nn.Module, config: Any) -> BlockAnatomy:
        described = _block(block, self.parts, self.mid, self.attn_norm, self.mlp_norm)
        return replace(described, post_attn_norm=described.attn.module)


@dataclass(frozen=True)
class Scaled(Layout):
    """x + m * attention(norm(x)), then + m * feed_forward(norm(.)); the block holds m."""

    parts: Parts = field(default_factory=Parts)
    mid: str = "post_attention_layernorm"
    multiplier: str = "residual_multiplier"

    def describe(self, block: nn.Module, config: Any) -> BlockAnatomy:
        return _block(block, self.parts, self.mid, scale=float(getattr(block, self.multiplier)))


@dataclass(frozen=True)
class ResidualInside(Layout):
    """The modules add the stream by themselves: their inner linear layers are what they add."""

    parts: Parts
    mid: str
    attn: str
    mlp: str

    def describe(self, block: nn.Module, config: Any) -> BlockAnatomy:
        return _block(block, self.parts, self.mid, self.attn, self.mlp)


@dataclass(frozen=True)
class ByConfig(Layout):
    """Two layouts, chosen by a setting that is yes or no."""

    setting: str
    yes: Layout
    no: Layout

    def describe(self, block: nn.Module, config: Any) -> BlockAnatomy:
        return (self.yes if getattr(config, self.setting) else self.no).describe(block, config)


@dataclass(frozen=True)
class Hybrid(Layout):
    """Blocks of several kinds, in one model or in one family, told apart by which submodule they have."""

    kinds: Mapping[str, Layout]

    def describe(self, block: nn.Module, config: Any) -> BlockAnatomy:
        for name, layout in self.kinds.items():
            if optional(block, name) is not None:
                return layout.describe(block, config)
        raise AttributeError(f"{type(block).__name__} has none of {', '.join(self.kinds)}")


@dataclass(frozen=True)
class WithoutPattern(Layout):
    """A layer that mixes tokens without attention (linear attention, a state space); else as `like`."""

    like: Sequential

    def describe(self, block: nn.Module, config: Any) -> BlockAnatomy:
        parts = self.like.parts
        return BlockAnatomy(
            block=block,
            attn=HookPoint(block.get_submodule(parts.attention)),
            mlp=HookPoint(block.get_submodule(parts.mlp)),
            attention=None,
            projection=None,
            mid=block.get_submodule(self.like.mid),
            neurons=optional(block, parts.down),
        )


def optional(module: nn.Module, path: str | None) -> nn.Module | None:
    """A submodule, None where there is none of that name."""
    try:
        return None if path is None else module.get_submodule(path)
    except AttributeError:
        return None


def _block(
    block: nn.Module, parts: Parts, mid: str | None = None, attn: str = "", mlp: str = "", scale: float = 1.0
) -> BlockAnatomy:
    """attn, mlp: what gives attn_out and mlp_out, the two halves themselves unless named; times `scale`."""
    return BlockAnatomy(
        block=block,
        attn=HookPoint(block.get_submodule(attn or parts.attention), scale),
        mlp=HookPoint(block.get_submodule(mlp or parts.mlp), scale),
        attention=block.get_submodule(parts.attention),
        projection=block.get_submodule(parts.projection),
        mid=None if mid is None else block.get_submodule(mid),
        neurons=optional(block, parts.down),
    )
