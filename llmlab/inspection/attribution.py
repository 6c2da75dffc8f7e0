"""Direct logit attribution: how much of a logit each part of the model wrote into the residual stream by itself.

The logit of a token t is linear in the last stream f, once the scale s(f) that the final norm divides by is frozen
at its value in this pass. f is a sum, so the logit is one too (Elhage et al. 2021, "A Mathematical Framework for
Transformer Circuits"; nothing is folded into the weights):

    d = W_U[answer] - W_U[against]                  [C], of the answer alone without `against`
    u = centred(gamma * d) / s(f)                   [C], what a vector in the stream is multiplied by
    attribution of a part c = <c, u>                c: the embedding, each layer's attn_out and mlp_out
    bias = <beta, d> + b_U[answer] - b_U[against]
    sum = embedding + sum of attention and feed_forward + bias = logit

centred: minus the mean over C, for a LayerNorm; gamma, beta: the norm's weight and bias. The logit is that
before a family's scale and softcap, since no sum of parts survives a softcap; `after` tells the one behind them.
Those of attention split further (`into_stream`): attention[l] = sum over heads of heads[l] + attention_bias[l], the
last being the output projection's bias and, in sandwich families, that of the norm behind it.

This is the direct path alone. A part that changes what later layers do has an effect that is not in its attribution.
One position of the prompt is looked at, and only its vectors are kept: 2 L + 2 of C numbers, and the head outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llmlab.anatomy.anatomy import Anatomy, require
from llmlab.anatomy.capture import Observer, Point
from llmlab.anatomy.into_stream import heads_into_stream, neurons_into_stream
from llmlab.core.errors import LabError

# Largest difference between a feed-forward's contribution and the sum of its neurons', of the former's norm.
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class Direction:
    """What turns a vector of the stream into its logit attribution. u [C]; the bias's and the logit are scalars [1]."""

    u: Tensor
    bias: Tensor
    logit: Tensor

    def attribution(self, contribution: Tensor) -> Tensor:
        """[..., C] -> [...]."""
        return contribution.to(self.u.dtype) @ self.u


@torch.no_grad()
def direction(anatomy: Anatomy, final: Tensor, answer: int, against: int | None = None) -> Direction:
    """The direction of a logit, or of a difference of two, at a position whose last stream is `final` [C]."""
    dtype = torch.promote_types(final.dtype, torch.float32)
    norm, final = anatomy.norm, final.to(dtype)
    rows = [anatomy.unembedding[id].to(dtype) for id in (answer, against) if id is not None]
    bias = final.new_zeros(1)
    if anatomy.unembedding_bias is not None:
        numbers = [anatomy.unembedding_bias[id].to(dtype) for id in (answer, against) if id is not None]
        bias += numbers[0] - sum(numbers[1:])
    d = rows[0] - rows[1] if len(rows) == 2 else rows[0]
    logit = norm.apply(final) @ d + bias
    if norm.bias is not None:
        bias = bias + norm.bias.to(dtype) @ d
    u = norm.centred(norm.weight.to(dtype) * d) / norm.scale(final)
    return Direction(u, bias, logit)


class AttributionAt(Observer):
    """Keeps what the attributions at one position are made of; `results` makes them for any answer after the pass."""

    def __init__(self, anatomy: Anatomy, position: int) -> None:
        """position: from 0. LabError where the family's way from the stream to the logits is not this one."""
        require(anatomy.refusals.contributions or anatomy.refusals.attribution, "Attribution")
        self._anatomy, self._position = anatomy, position
        self._parts: dict[tuple[Point, int], Tensor] = {}  # [C] each
        self._z: dict[int, Tensor] = {}  # [H, D] each
        self._final = torch.zeros(0)

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        """Keeps one vector of a contribution, and of the embedding."""
        if point in ("attn_out", "mlp_out") or (layer == 0 and point == "pre_attn"):
            self._parts[point, layer] = x[self._position].clone()

    def heads(self, layer: int, z: Tensor) -> None:
        """Keeps the head outputs at the position."""
        if self._anatomy.refusals.heads is None:
            self._z[layer] = z[self._position].clone()

    def final(self, x: Tensor) -> None:
        self._final = x[self._position].clone()

    @torch.no_grad()
    def results(self, answer: int, against: int | None = None) -> dict[str, Tensor]:
        """attribution/{attention|feed_forward|attention_bias} [L], /heads [L, H], /{embedding|bias|sum|logit} [1].

        heads and attention_bias are NaN in layers without heads, or where a family's heads cannot be trusted.
        """
        towards = direction(self._anatomy, self._final, answer, against)
        layers = range(self._anatomy.n_layer)
        attention = torch.stack([towards.attribution(self._parts["attn_out", layer]) for layer in layers])
        feed_forward = torch.stack([towards.attribution(self._parts["mlp_out", layer]) for layer in layers])
        heads = attention.new_full((len(layers), self._anatomy.n_head), torch.nan)
        constant = attention.new_full((len(layers),), torch.nan)
        for layer, z in self._z.items():
            into = heads_into_stream(self._anatomy.blocks[layer])
            frozen = into.frozen(z.flatten())  # [1]
            by_input = z.flatten().to(towards.u.dtype) * towards.attribution(into.weight) * frozen  # [H D]
            heads[layer] = by_input.view(z.shape).sum(-1)
            constant[layer] = towards.attribution(into.constant(frozen))
        embedding = towards.attribution(self._parts["pre_attn", 0])[None]
        return {
            "attribution/embedding": embedding,
            "attribution/attention": attention,
            "attribution/feed_forward": feed_forward,
            "attribution/heads": heads,
            "attribution/attention_bias": constant,
            "attribution/bias": towards.bias,
            "attribution/sum": embedding + attention.sum() + feed_forward.sum() + towards.bias,
            "attribution/logit": towards.logit,
        }

    @torch.no_grad()
    def after(self, answer: int, against: int | None = None) -> str | None:
        """A sentence with the logit behind scale and softcap, None where the family has neither."""
        anatomy = self._anatomy
        if anatomy.logit_scale == 1.0 and anatomy.logit_softcap is None:
            return None
        logits = anatomy.logits(self._final.float())
        value = float(logits[answer] - (0 if against is None else logits[against]))
        done = [f"multiplies its logits by {anatomy.logit_scale:g}"] if anatomy.logit_scale != 1.0 else []
        done += [f"caps them softly at {anatomy.logit_softcap:g}"] if anatomy.logit_softcap is not None else []
        what = "the logit" if against is None else "the difference"
        return f"Bars sum to {what} before this family {' and '.join(done)}; afterwards it is {value:.4f}."


class NeuronsAt(Observer):
    """The neurons of one feed-forward at one position: activation times what its output weights say for the answer."""

    def __init__(self, anatomy: Anatomy, layer: int, position: int) -> None:
        """LabError where the layer has no neurons of its own (experts), or attribution is refused."""
        require(anatomy.refusals.contributions or anatomy.refusals.attribution, "Neurons")
        self._into = neurons_into_stream(anatomy.blocks[layer])
        self._anatomy, self._layer, self._position = anatomy, layer, position
        self._activations = self._whole = self._final = torch.zeros(0)

    def neurons(self, layer: int, x: Tensor) -> None:
        """Keeps the activations at the position [hidden]."""
        if layer == self._layer:
            self._activations = x[self._position].clone()

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        """Keeps what the feed-forward adds, to check its neurons against."""
        if layer == self._layer and point == "mlp_out":
            self._whole = x[self._position].clone()

    def final(self, x: Tensor) -> None:
        self._final = x[self._position].clone()

    @torch.no_grad()
    def results(self, answer: int, against: int | None = None, top: int = 20) -> dict[str, Tensor]:
        """neurons/{index (int32)|activation|attribution} [top], largest |attribution| first; /{bias|sum} [1].

        sum: all neurons and the bias, which is the feed_forward attribution. LabError when the neurons do not add
        up to what the feed-forward gave in this pass.
        """
        towards = direction(self._anatomy, self._final, answer, against)
        into, x = self._into, self._activations
        whole, dtype = into.whole(x), self._whole.dtype
        error = float((whole - self._whole).norm() / self._whole.norm().clamp_min(1e-12))
        if not error <= _TOLERANCE.get(dtype, 5e-2):
            raise LabError(
                "The neurons of this layer cannot be shown.",
                f"Their sum differs from what the feed-forward gave by {100 * error:.1f} %.",
                "Look at the feed-forward as a whole.",
            )
        frozen = into.frozen(x)
        found = x.to(towards.u.dtype) * towards.attribution(into.weight) * frozen  # [hidden]
        bias = towards.attribution(into.constant(frozen))[None]
        index = found.abs().topk(min(top, len(found))).indices
        return {
            "neurons/index": index.int(),
            "neurons/activation": x[index].to(found.dtype),
            "neurons/attribution": found[index],
            "neurons/bias": bias,
            "neurons/sum": found.sum() + bias,
        }
