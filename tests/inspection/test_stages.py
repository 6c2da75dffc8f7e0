"""The stages of a head lead to the pattern that the model has."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from cases import each
from small_models import some_ids
from torch import Tensor
from watched_models import SETTINGS, scratch, watch_all

from llmlab.anatomy.attention_call import AttentionCall
from llmlab.anatomy.capture import run
from llmlab.anatomy.finding import scratch_anatomy
from llmlab.core.errors import LabError
from llmlab.gpt.model import Block
from llmlab.inspection.stages import StagesOf, stages_of

TIME = 9


def some_call(
    *, softcap: float | None = None, window: int = TIME, sink: float | None = None, lowest: float = -math.inf
) -> AttentionCall:
    """Four heads on two keys, the pattern made by loops over queries and keys."""
    generator = torch.Generator().manual_seed(4)
    query, key, value = (torch.randn(heads, TIME, 8, generator=generator) * 2 for heads in (4, 2, 2))
    seen = torch.ones(TIME, TIME).tril().bool() & torch.ones(TIME, TIME).triu(1 - window).bool()
    mask = torch.zeros(TIME, TIME).masked_fill_(~seen, lowest)[None]
    pattern = torch.zeros(4, TIME, TIME)
    for head in range(4):
        for i in range(TIME):
            weights = []
            for j in range(max(0, i - window + 1), i + 1):
                score = float(query[head, i] @ key[head // 2, j]) * 0.3
                weights.append(math.exp(score if softcap is None else softcap * math.tanh(score / softcap)))
            whole = sum(weights) + (0 if sink is None else math.exp(sink))
            pattern[head, i, i + 1 - len(weights) : i + 1] = torch.tensor(weights) / whole

    def rows(first: int, last: int, keys: int) -> tuple[Tensor, Tensor]:
        return pattern[:, first:last, :keys], pattern[:, first:last] @ value.repeat_interleave(2, 0)

    return AttentionCall(query, key, value, mask, 0.3, softcap, rows)


@each("options", SETTINGS)
@each(("layer", "head"), [(0, 0), (1, 3)])
def test_the_stages_of_a_pass_give_its_pattern_and_the_heads_answer(
    options: dict[str, Any], layer: int, head: int
) -> None:
    model = scratch(options)
    anatomy, ids = scratch_anatomy(model), some_ids(12)
    watcher = StagesOf(anatomy, layer, head)
    run(model, anatomy, ids, [watcher])
    stages, (seen, _) = watcher.result(), watch_all(model, anatomy, ids)
    assert torch.equal(stages.pattern, seen.all_patterns()[layer, head])
    assert torch.allclose(stages.masked.softmax(-1), stages.pattern, atol=1e-6)
    assert torch.allclose(stages.query @ stages.key.T, stages.scores)
    scale = 8 / 8 if options.get("mup_base_width") else 1 / math.sqrt(8)  # muP's own is 8 / D
    assert torch.allclose(stages.scores * scale, stages.scaled)
    assert torch.equal(stages.masked.tril(), stages.scaled.tril())
    assert stages.masked.triu(1).tolist() == torch.full((12, 12), -math.inf).triu(1).tolist()
    assert torch.allclose(stages.pattern @ stages.value, seen.z[layer][:, head], atol=1e-5)
    block = model.blocks[layer]
    assert isinstance(block, Block)
    if block.attention.rotary is None:
        read = block.attention_norm(seen.points["pre_attn", layer])
        weight, bias = block.attention.qkv.weight[head * 8 :][:8], block.attention.qkv.bias
        query = read @ weight.T + (0 if bias is None else bias[head * 8 :][:8])
        assert torch.allclose(query, stages.query, atol=1e-5)


@each("lowest", [-math.inf, torch.finfo(torch.float32).min])
@each("window", [TIME, 3])
@each("softcap", [None, 1.5])
def test_softcap_and_window_are_stages_of_their_own(softcap: float | None, window: int, lowest: float) -> None:
    stages = stages_of(some_call(softcap=softcap, window=window, lowest=lowest), 3)
    assert (stages.masked == -math.inf).sum() == TIME * TIME - sum(min(i + 1, window) for i in range(TIME))
    assert torch.allclose(stages.masked.softmax(-1), stages.pattern, atol=1e-6)
    assert (stages.capped is None) == (softcap is None)
    if softcap is not None:
        assert stages.capped is not None
        assert float(stages.capped.abs().max()) <= softcap < float(stages.scaled.abs().max())
    assert "stages/sink" not in stages.tensors()
    assert ("stages/capped" in stages.tensors()) == (softcap is not None)


def test_what_goes_to_a_sink_is_told() -> None:
    stages = stages_of(some_call(sink=0.7), 1, sinks=True)
    assert stages.sink is not None
    weights = stages.masked.exp().sum(-1)
    assert torch.allclose(stages.sink, math.exp(0.7) / (weights + math.exp(0.7)), atol=1e-6)
    assert torch.allclose(stages.masked.softmax(-1) * (1 - stages.sink)[:, None], stages.pattern, atol=1e-6)


def test_a_pattern_that_the_stages_do_not_give_is_refused() -> None:
    with pytest.raises(LabError, match=r"differs from the model's own by up to 1"):
        stages_of(some_call(sink=0.7), 1)
    model = scratch(SETTINGS[0])
    with pytest.raises(LabError, match="not within reach"):
        StagesOf(scratch_anatomy(model), 0, 0).result()
