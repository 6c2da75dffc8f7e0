"""Where a walk is, and how a stage of it is made: recomputed by its formula and compared with what the model has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import Anatomy, FinalNorm
from llmlab.anatomy.modules import linear_numbers, norm_numbers
from llmlab.core.errors import LabError
from llmlab.core.settings import Sampling
from llmlab.gpt.model import GPT
from llmlab.models.model import OpenModel
from llmlab.walk.changes import Changes
from llmlab.walk.code import OWN, SAMPLING, Where, code_of, of_transformers
from llmlab.walk.parts import LayerParts, layer_parts
from llmlab.walk.stage import CHANGEABLE, Code, Stage, Value, stage_of
from llmlab.walk.sums import dot, number
from llmlab.walk.watched import Seen

# How far a recomputed stage may be from the model's own, relative to its largest number: rounding of its dtype.
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}
OTHERWISE = "This family computes this step in a way of its own: the values are the model's, without a formula."


@dataclass(frozen=True)
class Focus:
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
        numbers: str,
        values: Sequence[Value],
        recomputed: Tensor | None = None,
        seen: Tensor | None = None,
        note: str = "",
        **facts: Any,
    ) -> Stage:
        """A stage of which `recomputed` must be `seen`, what the model has; where it is not, it goes without formula.

        Where nothing is computed, both are None. What a change has set is no result of the formula. facts: as in
        `stage_of`.
        """
        for changed, (component, number_set) in self.changes.vectors.items():
            if CHANGEABLE[changed][0] == name:
                of = "" if changed == name else f" of {changed}"
                note = f"Component {component}{of} was set to {number(number_set)}. {note}".strip()
                numbers = f"{changed}[{component}] = {number(number_set)}, as it was set"  # which no formula gives
            if changed == name and recomputed is not None:
                recomputed = recomputed.clone()
                recomputed[component] = number_set
        stage = stage_of(name, numbers, values, self.code(name), note, **facts)
        if seen is None:
            return stage
        tolerance = _TOLERANCE.get(self.anatomy.unembedding.dtype, 4e-2)
        finite = seen[seen.isfinite()]
        size = max(1.0, float(finite.abs().max()) if finite.numel() else 1.0)
        without = replace(stage, formula="", numbers="", note=note or OTHERWISE)
        return compared(stage, recomputed, seen, tolerance * size, without)

    def code(self, name: str) -> Code | None:
        """The lines that do a stage."""
        where = SAMPLING.get(name) or self._code.get(name)
        return None if where is None else code_of(*where)

    @cached_property
    def _code(self) -> Mapping[str, Where]:
        if isinstance(self.opened.model, GPT):
            return OWN
        seen = self.seen
        return of_transformers(
            self.opened.model, self.anatomy, self.layer, self.parts, seen.norm, seen.feed_forward_norm
        )


def compared(stage: Stage, recomputed: Tensor | None, seen: Tensor, tolerance: float, otherwise: Stage) -> Stage:
    """The stage, where what its formula gives is what the model has; else `otherwise`, which has no formula."""
    difference = float("inf") if recomputed is None else differing(recomputed, seen)
    return replace(stage, difference=difference) if difference <= tolerance else otherwise


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


def worked(made: Product | None, letter: str) -> tuple[str, Tensor | None, str]:
    """The numbers of a product, its result, and what its formula has behind it; nothing of what is not linear."""
    return ("", None, "") if made is None else (made.numbers(letter), made.y, "" if made.bias is None else " + b")


def norm_of(module: nn.Module, size: int) -> FinalNorm | None:
    """A norm as numbers, in fp32; None where it is of no known kind."""
    try:
        norm = norm_numbers(module, size)
    except (LabError, RuntimeError, TypeError, AttributeError):  # no norm at all, or of other vectors
        return None
    bias = None if norm.bias is None else norm.bias.float().cpu()
    return FinalNorm(norm.kind, norm.weight.float().cpu(), bias, norm.eps)
