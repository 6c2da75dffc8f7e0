"""The newest token once more, with a KV cache: what is kept of the others, and that the result is the same."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from llmlab.anatomy.modules import base_model
from llmlab.core.errors import LabError, UsageError
from llmlab.gpt.cache import Cache
from llmlab.gpt.model import GPT
from llmlab.models.model import OpenModel
from llmlab.walk.focus import Focus, differing, value
from llmlab.walk.stage import Stage
from llmlab.walk.sums import number

_ROW = {"score", "softcap", "mask", "softmax", "weighted_sum"}  # of attention, between the new query and all keys
_OTHERS = {"text", "bytes", "tokens", "temperature", "top_k", "top_p", "probabilities", "draw", "next"}


@dataclass(frozen=True)
class _Cached:
    keys: Tensor  # [T, D], of one head; all but the last row were kept from the pass before
    values: Tensor
    logits: Tensor  # [V], of the pass over the newest token alone


def with_cache(focus: Focus, stages: list[Stage]) -> list[Stage]:
    """The stages with what of each a cache holds already, and a stage that shows the cache, after the values.

    UsageError at any other position than the last, or where there is no earlier token.
    """
    last = len(focus.ids) - 1
    if focus.position != last or last == 0:
        raise UsageError(
            "The KV cache cannot be walked here.",
            "It serves the newest token of a text that has others.",
            f"Choose position {last}." if last else "Take a longer prompt.",
        )
    cached = _pass(focus.opened, focus.ids, focus.layer, focus.head)
    marked = [replace(stage, reused=_reused(stage.name, focus.key, last)) for stage in stages]
    at = max(number for number, stage in enumerate(stages) if stage.name in ("value", "rotation", "value_mix")) + 1
    return [*marked[:at], _stage(focus, cached), *marked[at:]]


def _reused(name: str, key: int, last: int) -> str:
    if name in _OTHERS:
        return ""
    if name in ("key", "value"):
        return f"Position {key} is in the cache." if key < last else "New: it joins the cache."
    if name in _ROW:
        return f"One row, of the new query. Keys and values of positions 0 to {last - 1} are from the cache."
    return "Computed for the new token alone."


def _stage(focus: Focus, cached: _Cached) -> Stage:
    heads, last = focus.seen.heads, focus.position
    dim = cached.keys.shape[-1] + cached.values.shape[-1]
    kept = dim * focus.anatomy.n_kv_head * focus.anatomy.n_layer * last
    apart = differing(cached.logits, focus.seen.logits)
    return focus.stage(
        "cache",
        f"{last} rows of this head kept, 1 new; {kept:,} numbers kept in all layers. "
        f"The logits differ from those without a cache by at most {number(apart)}",
        [
            value("keys: all rows but the last are kept", ("position", "dimension of the head"), cached.keys),
            value("values: all rows but the last are kept", ("position", "dimension of the head"), cached.values),
        ],
        torch.cat([cached.keys.flatten(), cached.values.flatten(), cached.logits]),
        torch.cat([heads.key.flatten(), heads.value.flatten(), focus.seen.logits]),
    )


def _pass(opened: OpenModel, ids: tuple[int, ...], layer: int, head: int) -> _Cached:
    model, anatomy = opened.model, opened.anatomy
    kv_head = head // (anatomy.n_head // anatomy.n_kv_head)
    batch = torch.tensor([ids], device=anatomy.unembedding.device)
    last = len(ids) - 1
    if isinstance(model, GPT):
        cache = Cache(anatomy.n_layer, len(ids))
        positions = torch.arange(len(ids), device=batch.device)[None]
        cache.expect(positions[:, :last])
        model.residual_stream(batch[:, :last], cache)
        cache.expect(positions[:, last:])
        logits = model.logits(model.residual_stream(batch[:, last:], cache))[0, -1]
        keys, values = (kept[0, :, kv_head] for kept in cache.layers[layer].kept)
    else:
        plain: Any = base_model(model)
        # transformers 5.24 gave the argument and the field another name.
        name = "cache" if "cache" in inspect.signature(plain.forward).parameters else "past_key_values"
        held = plain(input_ids=batch[:, :last], use_cache=True)[name]
        output = plain(input_ids=batch[:, last:], use_cache=True, **{name: held})
        logits = output.logits[0, -1]
        try:
            kept = output[name].layers[layer]
            keys, values = kept.keys[0, kv_head], kept.values[0, kv_head]
        except (AttributeError, IndexError, TypeError) as error:
            raise LabError("The KV cache of this family cannot be shown.", "It keeps something else.") from error
        if len(keys) != len(ids):
            raise LabError("The KV cache of this layer cannot be shown.", "Its window is shorter than the prompt.")
    return _Cached(keys.float().cpu(), values.float().cpu(), logits[: opened.vocab_size].float().cpu())
