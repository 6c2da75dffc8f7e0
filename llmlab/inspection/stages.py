"""One head's way from queries and keys to its attention pattern, stage by stage (Vaswani et al. 2017, equation 1).

    query, key, value   [T, D] of this head, turned by their positions where the model does so (rotary embeddings);
                        in grouped attention several heads share a key and a value
    scores   = q k^T                       [T, T], query by key
    scaled   = scores * scale              scale is 1 / sqrt(D) in most families
    capped   = tanh(scaled / c) * c        only with a softcap c (Gemma 2)
    masked   = scaled (or capped) + mask   minus infinity at later tokens and outside a sliding window; position
                                           biases that a family adds to its scores (ALiBi) are in the mask too
    pattern  = softmax(masked)             the model's own, as it came out of the pass
    sink     = 1 - sum of the pattern's row  [T]: a sink outside the prompt (gpt-oss) joins the softmax and is
                                           dropped, so that pattern = softmax(masked) * (1 - sink)

The pattern is not recomputed: it is compared with the stages' own, and a model that gets its pattern in another way
than this is refused rather than shown wrongly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.attention_call import AttentionCall, never, with_all_keys
from llmlab.anatomy.capture import Observer
from llmlab.core.errors import LabError

# Largest difference between the model's pattern and softmax(masked) * (1 - sink): rounding of the model's own dtype.
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class HeadStages:
    """See the module. capped and sink are None where the model has no softcap and no sink."""

    query: Tensor  # [T, D]
    key: Tensor  # [T, D]
    value: Tensor  # [T, D]
    scores: Tensor  # [T, T], as are those that follow
    scaled: Tensor
    capped: Tensor | None
    masked: Tensor
    pattern: Tensor
    sink: Tensor | None  # [T]
    scale: float
    softcap: float | None

    def tensors(self) -> dict[str, Tensor]:
        """Those that there are, by their archive names: stages/query and so on."""
        names = ("query", "key", "value", "scores", "scaled", "capped", "masked", "pattern", "sink")
        return {f"stages/{name}": x for name in names if (x := getattr(self, name)) is not None}


class StagesOf(Observer):
    """Watches one head; `result` has its stages after the pass."""

    def __init__(self, anatomy: Anatomy, layer: int, head: int) -> None:
        """LabError where the layer has no pattern."""
        if anatomy.blocks[layer].attention is None:
            raise LabError(f"Layer {layer} has no attention pattern.", "It mixes tokens in another way.")
        self._layer, self._head, self._sinks = layer, head, anatomy.sinks
        self._found: HeadStages | None = None

    def attention(self, layer: int, call: AttentionCall) -> None:
        if layer == self._layer:
            self._found = stages_of(call, self._head, sinks=self._sinks)

    def result(self) -> HeadStages:
        """LabError when the model never showed this layer's attention."""
        if self._found is None:
            raise LabError(
                "The stages of this model's attention cannot be shown.",
                "Its queries and keys are not within reach, only its patterns.",
                "The patterns can be shown.",
            )
        return self._found


def stages_of(call: AttentionCall, head: int, *, sinks: bool = False) -> HeadStages:
    """The stages of one head, in float32. sinks: whether the rows of the pattern may sum to less than one.

    LabError when scale, softcap, mask and softmax do not give the pattern that the model has.
    """
    group = call.query.shape[0] // call.key.shape[0]
    query = call.query[head].float()
    key, value = (x[head // group].float() for x in (call.key, call.value))
    scores = query @ key.T
    scaled = scores * call.scale
    capped = None if call.softcap is None else torch.tanh(scaled / call.softcap) * call.softcap
    masked = scaled.clone() if capped is None else capped.clone()
    if call.mask is not None:
        mask = call.mask[head if call.mask.shape[0] > 1 else 0]
        masked = (masked + mask.float()).masked_fill_(never(mask), -math.inf)
    pattern = torch.cat([with_all_keys(rows[head].float(), len(key)) for _, rows, _ in call.chunks()])
    sink = 1 - pattern.sum(-1) if sinks else None
    recomputed = masked.softmax(-1)
    if sink is not None:
        recomputed *= (1 - sink)[:, None]
    difference = float((recomputed - pattern).abs().max())
    if math.isnan(difference):
        what, why = "This head's attention pattern is not finite.", "Its scores are too large, or no numbers at all."
        raise LabError(what, why, "Choose a smaller number in a change, or another checkpoint.")
    if not difference <= _TOLERANCE.get(call.query.dtype, 3e-2):
        raise LabError(
            "The stages of this model's attention cannot be shown.",
            f"Scale, mask and softmax give a pattern that differs from the model's own by up to {difference:.2g}.",
            "The pattern itself can be shown.",
        )
    return HeadStages(query, key, value, scores, scaled, capped, masked, pattern, sink, call.scale, call.softcap)
