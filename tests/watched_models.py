"""Models and brute-force patterns that the tests of the analyses share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from small_models import lively, shape
from torch import Tensor, nn

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.attention_call import with_all_keys
from llmlab.anatomy.capture import Observer, Point, run
from llmlab.gpt.model import GPT

# Every option of the scratch GPT in at least two of them.
SETTINGS: list[dict[str, Any]] = [
    {"norm": "layernorm", "position": "learned", "activation": "gelu", "bias": True, "n_kv_head": 0},
    {"norm": "layernorm", "position": "rotary", "activation": "swiglu", "bias": True, "n_kv_head": 2},
    {"norm": "rmsnorm", "position": "learned", "activation": "gelu", "bias": True, "n_kv_head": 1},
    {"norm": "rmsnorm", "position": "rotary", "activation": "swiglu", "bias": False, "n_kv_head": 2},
    {"norm": "layernorm", "position": "rotary", "activation": "gelu", "bias": False, "n_kv_head": 0},
    {"norm": "rmsnorm", "position": "rotary", "bias": True, "n_kv_head": 2, "activation": "relu2", "qk_norm": True},
    {"norm": "rmsnorm", "position": "rotary", "bias": True, "n_kv_head": 2, "value_residual": True, "qk_norm": True},
    {
        "norm": "layernorm",
        "position": "learned",
        "bias": True,
        "untied_head": True,
        "logit_softcap": 3.0,
        "mup_base_width": 8,
    },
]


def name(options: dict[str, Any]) -> str:
    """The setting as a test's id."""
    return " ".join(map(str, options.values()))


def scratch(options: dict[str, Any], **changes: Any) -> GPT:
    """A small lively GPT of two layers and four heads, over 12 tokens unless changed."""
    return lively(shape(**options, **changes)).requires_grad_(False)


class Everything(Observer):
    """Keeps copies of all that a pass shows."""

    def __init__(self) -> None:
        self.points: dict[tuple[Point, int], Tensor] = {}
        self.z: dict[int, Tensor] = {}
        self.activations: dict[int, Tensor] = {}
        self.last: Tensor | None = None
        self.patterns: dict[int, list[Tensor]] = {}

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        self.points[point, layer] = x.clone()

    def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
        self.patterns.setdefault(layer, []).append(pattern.clone())

    def heads(self, layer: int, z: Tensor) -> None:
        self.z[layer] = z.clone()

    def neurons(self, layer: int, x: Tensor) -> None:
        self.activations[layer] = x.clone()

    def final(self, x: Tensor) -> None:
        self.last = x.clone()

    def stacked(self, point: Point) -> Tensor:
        """[L, T, C]."""
        return torch.stack([x for (at, _), x in sorted(self.points.items()) if at == point])

    def all_patterns(self) -> Tensor:
        """[L, H, T, T]."""
        return torch.stack([self.whole_pattern(layer) for layer in sorted(self.patterns)])

    def whole_pattern(self, layer: int) -> Tensor:
        """[H, T, T], of all pieces."""
        pieces = self.patterns[layer]
        return torch.cat([with_all_keys(piece, pieces[-1].shape[-1]) for piece in pieces], 1)

    @property
    def final_residual(self) -> Tensor:
        """[T, C]."""
        assert self.last is not None
        return self.last


def watch_all(model: nn.Module, anatomy: Anatomy, ids: Sequence[int] | Tensor) -> tuple[Everything, Tensor]:
    """All that a pass shows, and its logits [T, V]."""
    everything = Everything()
    return everything, run(model, anatomy, ids, [everything])[0]
