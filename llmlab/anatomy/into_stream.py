"""What one input of an output projection, a head output or a neuron, adds to the residual stream by itself.

What attention (or a feed-forward) adds to the stream is a linear layer of its inputs x, in some families followed by
a norm (sandwich) or a multiplier m (Granite):

    contribution = m * norm(x W + b)

The norm divides by a scale that depends on all inputs together. Frozen at its value s(x) in this pass, what is left
is linear, and the contribution is a sum over the inputs i, exactly (Elhage et al. 2021, "A Mathematical Framework
for Transformer Circuits", treat the norm before the unembedding so):

    contribution = sum_i x_i W'_i / s(x) + b' / s(x) + c
    W' = m * gamma * centred(W),   b' = m * gamma * centred(b),   c = m * beta

centred: minus the mean over the width, in LayerNorm alone; gamma, beta: the norm's weight and bias. Without a norm
gamma = s = 1 and c = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import BlockAnatomy, FinalNorm
from llmlab.anatomy.modules import Linear, linear_numbers, norm_numbers
from llmlab.core.errors import LabError


@dataclass(frozen=True)
class IntoStream:
    """The formula above with numbers in it, in float32 at least."""

    weight: Tensor  # W' [inputs, C]
    bias: Tensor  # b' [C]
    offset: Tensor  # c [C]
    linear: Linear  # W and b as the layer has them
    norm: FinalNorm | None

    def frozen(self, x: Tensor) -> Tensor:
        """x [..., inputs] -> 1 / s(x), [..., 1]."""
        if self.norm is None:
            return x.new_ones(*x.shape[:-1], 1, dtype=self.weight.dtype)
        return 1 / self.norm.scale(nn.functional.linear(x, self.linear.weight, self.linear.bias).to(self.weight.dtype))

    def constant(self, frozen: Tensor) -> Tensor:
        """The part of the contribution that comes from no input: [..., 1] -> [..., C]."""
        return self.bias * frozen + self.offset

    def whole(self, x: Tensor) -> Tensor:
        """The contribution [..., C] of all inputs [..., inputs] and biases."""
        frozen = self.frozen(x)
        return x.to(self.weight.dtype) @ self.weight * frozen + self.constant(frozen)


def heads_into_stream(block: BlockAnatomy) -> IntoStream:
    """A layer's heads, side by side as inputs. LabError where it has none, or its modules cannot be read."""
    if block.projection is None:
        raise LabError("A layer of this model has no heads.", "It mixes tokens without attention.")
    return _into_stream(block.projection, block.post_attn_norm, block.attn.scale)


def neurons_into_stream(block: BlockAnatomy) -> IntoStream:
    """A feed-forward's neurons. LabError where it has none to speak of (experts), or its modules cannot be read."""
    if block.neurons is None:
        raise LabError(
            "The neurons of this layer cannot be shown.",
            "It has no feed-forward, or a mixture of experts, which differ from token to token.",
            "Look at the feed-forward as a whole.",
        )
    # What is tapped is the feed-forward itself, or the norm behind it.
    inside = any(module is block.neurons for module in block.mlp.module.modules())
    return _into_stream(block.neurons, None if inside else block.mlp.module, block.mlp.scale)


@torch.no_grad()
def _into_stream(module: nn.Module, after: nn.Module | None, scale: float) -> IntoStream:
    linear = linear_numbers(module)
    dtype = torch.promote_types(linear.weight.dtype, torch.float32)
    weight = linear.weight.detach().to(dtype).T
    bias = weight.new_zeros(weight.shape[1]) if linear.bias is None else linear.bias.detach().to(dtype)
    offset = torch.zeros_like(bias)
    norm = None
    if after is not None:
        norm = norm_numbers(after, weight.shape[1])
        gamma = norm.weight.detach().to(dtype)
        weight, bias = norm.centred(weight) * gamma, norm.centred(bias) * gamma
        offset = offset if norm.bias is None else norm.bias.detach().to(dtype)
    if scale != 1.0:
        weight, bias, offset = weight * scale, bias * scale, offset * scale
    return IntoStream(weight, bias, offset, linear, norm)
