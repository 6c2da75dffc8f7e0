"""Where one layer's smaller parts are: the norms, the projections, the activation.

The anatomy knows what families differ in (`llmlab.anatomy`). What is inside of a half is found here by the names that
families use, and nothing is believed: a stage is compared with what the model computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from llmlab.anatomy.anatomy import Anatomy, HookPoint

_SEPARATE = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"))
_FUSED = ("qkv", "c_attn", "query_key_value", "qkv_proj")
_QUERY_NORMS = (("q_norm", "k_norm"), ("q_layernorm", "k_layernorm"))
_UP = ("up", "up_proj", "c_fc", "dense_h_to_4h", "fc1", "fc_in")
_GATE = ("gate", "gate_proj")
_UP_WITH_GATE = ("gate_up_proj",)
_ACTIVATION = ("act_fn", "act", "activation_fn")
_POSITIONS = ("position_embedding", "wpe", "embed_positions")


@dataclass(frozen=True)
class LayerParts:
    """One layer. projections: of query, key and value, one module for all three or three; () where none was found."""

    attention: nn.Module
    out: nn.Module
    projections: tuple[nn.Module, ...]
    query_norms: tuple[nn.Module, ...]  # of queries and keys, both or none
    feed_forward: nn.Module | None  # whose parts follow
    up: nn.Module | None
    gate: nn.Module | None
    gated_up: bool  # `up` gives gate and up side by side
    activation: nn.Module | None
    down: nn.Module | None
    children: tuple[nn.Module, ...]  # of the block: one of them is the norm before attention

    def watched(self) -> Iterator[nn.Module]:
        """All whose inputs and outputs a walk looks at."""
        for module in (
            *self.children,
            *self.projections,
            *self.query_norms,
            self.attention,
            self.out,
            self.up,
            self.gate,
            self.down,
        ):
            if module is not None:
                yield module


def layer_parts(anatomy: Anatomy, layer: int) -> LayerParts:
    """The parts of a layer that has an attention pattern."""
    block = anatomy.blocks[layer]
    assert block.attention is not None
    assert block.projection is not None
    inner = _parent(block.block, block.neurons) if block.neurons is not None else None
    up, gated = _first(inner, _UP), False
    if up is None and (up := _first(inner, _UP_WITH_GATE)) is not None:
        gated = True
    return LayerParts(
        attention=block.attention,
        out=block.projection,
        projections=_together(block.attention, _SEPARATE) or _alone(_first(block.attention, _FUSED)),
        query_norms=_together(block.attention, _QUERY_NORMS),
        feed_forward=inner,
        up=up,
        gate=_first(inner, _GATE),
        gated_up=gated,
        activation=_first(inner, _ACTIVATION),
        down=block.neurons,
        children=tuple(block.block.children()),
    )


def position_embedding(model: nn.Module) -> nn.Module | None:
    """The module with a vector for each position; None in models that have none."""
    found = (module for name, module in model.named_modules() if name.rpartition(".")[2] in _POSITIONS)
    return next((module for module in found if isinstance(module, nn.Embedding)), None)


def name_in(parent: nn.Module, part: nn.Module | None) -> str:
    """What a module calls one inside of it; "" for none."""
    return next((name for name, module in parent.named_modules() if module is part), "")


def holds(half: HookPoint, last: nn.Module | None) -> bool:
    """Whether a half's last linear layer is in the module whose output is added to the stream."""
    return last is not None and any(one is last for one in half.module.modules())


def is_direct(half: HookPoint, last: nn.Module | None) -> bool:
    """Whether what that layer gives goes into the stream as it is."""
    return half.scale == 1.0 and holds(half, last)


def _first(parent: nn.Module | None, names: Sequence[str]) -> nn.Module | None:
    found = (getattr(parent, name, None) for name in names)
    return next((module for module in found if isinstance(module, nn.Module)), None)


def _together(parent: nn.Module, choices: Sequence[Sequence[str]]) -> tuple[nn.Module, ...]:
    """The modules of the first choice that is there whole."""
    for names in choices:
        found = [module for name in names if isinstance(module := getattr(parent, name, None), nn.Module)]
        if len(found) == len(names):
            return tuple(found)
    return ()


def _alone(module: nn.Module | None) -> tuple[nn.Module, ...]:
    return () if module is None else (module,)


def _parent(block: nn.Module, part: nn.Module) -> nn.Module:
    """The module that `part` is directly in."""
    return next(module for module in block.modules() if any(child is part for child in module.children()))
