"""What a watched pass shows is what the model does, in every family of transformers.

The other side of each comparison knows nothing of the lab: transformers' own `output_attentions` and
`output_hidden_states` under eager attention, plain hooks on a copy without its feed-forward, and arithmetic.
"""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from cases import each
from family_models import KINDS, TIME, family_anatomy, family_model, some_ids
from plain_models import NAMES, around_block, layers_of, plain_logits, told, unchanged, without_feed_forward
from torch import Tensor, nn
from transformers.models.llama import modeling_llama
from watched_models import Everything

from llmlab.anatomy import attention_call, hf_attention
from llmlab.anatomy.anatomy import Anatomy, Refusals
from llmlab.anatomy.attention_call import AttentionCall, with_all_keys
from llmlab.anatomy.capture import Intervener, Observer, Point, run
from llmlab.anatomy.finding import anatomy_of

# Falcon with ALiBi adds it twice under eager attention; what it does as loaded is checked through its values below.
EAGER = [name for name in NAMES if name != "falcon sequential"]
# Layers whose feed-forward is not made of experts.
DENSE = {"qwen2_moe": 1, "qwen3_moe": 1, "qwen3_next": 1, "deepseek_v2": 0, "deepseek_v3": 0}
EXPERTS = {"mixtral", "olmoe", "phimoe", "gpt_oss", "granitemoe", *DENSE}
GATED = {"qwen3_next", "qwen3_5"}  # head outputs go through a gate before they are projected
_NO_PATTERN = {"qwen3_next": {0, 2}, "qwen3_5": {0, 2}, "lfm2": {0, 2}}


class Watcher(Everything):
    """Keeps what attention got, too."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[int, Tensor] = {}
        self.outputs: dict[int, Tensor] = {}

    def attention(self, layer: int, call: AttentionCall) -> None:
        self.values[layer] = call.value.clone()
        self.outputs[layer] = torch.cat([z for _, _, z in call.chunks()], dim=1)


@dataclass(frozen=True)
class Watched:
    model: nn.Module
    anatomy: Anatomy
    seen: Watcher
    logits: Tensor


@functools.cache
def watched(name: str) -> Watched:
    model = family_model(name)
    anatomy, seen = family_anatomy(name), Watcher()
    with unchanged(model):
        logits = run(model, anatomy, some_ids(), [seen])[0]
    return Watched(model, anatomy, seen, logits)


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> bool:
    """Apart by no more than `tolerance` of a vector's length, position by position."""
    return bool(((ours - theirs).norm(dim=-1) <= tolerance * theirs.norm(dim=-1).clamp(min=1e-3)).all())


@each("name", NAMES)
def test_nothing_is_refused(name: str) -> None:
    assert watched(name).anatomy.refusals == Refusals()


@each("name", NAMES)
def test_watching_changes_no_logit_and_leaves_no_trace(name: str) -> None:
    about = watched(name)
    assert (about.logits - plain_logits(about.model, some_ids())).abs().max() < 2e-5
    assert not hf_attention._watchers


@each("name", EAGER)
def test_patterns_and_logits_are_those_of_eager_attention(name: str) -> None:
    seen, eager = watched(name).seen, told(name)
    assert (watched(name).logits - eager.logits).abs().max() < 5e-6
    with_pattern = sorted(set(range(3)) - _NO_PATTERN.get(name, set()))
    assert sorted(seen.patterns) == with_pattern
    assert len(eager.attentions) == len(with_pattern)
    for layer, theirs in zip(with_pattern, eager.attentions, strict=True):
        (ours,) = seen.patterns[layer]
        assert (ours - theirs).abs().max() < 1e-6


@each("name", NAMES)
def test_rows_sum_to_one_and_look_neither_ahead_nor_out_of_their_window(name: str) -> None:
    about = watched(name)
    for layer, (pattern,) in about.seen.patterns.items():
        sums = pattern.sum(-1)
        assert bool((sums < 1 - 1e-3).all()) if name == "gpt_oss" else torch.allclose(sums, torch.ones(()), atol=1e-5)
        assert not pattern.triu(1).any()
        window = KINDS[name].windows[layer]
        assert about.anatomy.blocks[layer].window == window
        edge = window or TIME
        assert not pattern.tril(-edge).any()
        assert bool((pattern.diagonal(1 - edge, 1, 2) > 0).all())  # the furthest position that it says to see, it sees
    assert about.anatomy.sinks == (name == "gpt_oss")


@each("name", EAGER)
def test_the_stream_is_transformers_hidden_states(name: str) -> None:
    about, hidden = watched(name), told(name).hidden
    for layer in range(3):
        assert close(about.seen.points["pre_attn", layer], hidden[layer])
    for layer in range(2):
        assert close(about.seen.points["post_ffn", layer], hidden[layer + 1])
    # The last one of transformers has been through the final norm.
    assert close(about.anatomy.norm.apply(about.seen.final_residual), hidden[3])


@each("name", NAMES)
def test_contributions_add_up_within_layers_and_over_all_of_them(name: str) -> None:
    points, final = watched(name).seen.points, watched(name).seen.final_residual
    total = points["pre_attn", 0]
    for layer in range(3):
        assert close(points["pre_attn", layer] + points["attn_out", layer], points["post_attn", layer], 1e-6)
        assert close(points["post_attn", layer] + points["mlp_out", layer], points["post_ffn", layer], 1e-6)
        after = points["pre_attn", layer + 1] if layer < 2 else final
        assert torch.equal(points["post_ffn", layer], after)
        total = total + points["attn_out", layer] + points["mlp_out", layer]
    assert close(total, final)


@each("name", NAMES)
def test_attn_out_is_all_that_a_block_adds_without_its_feed_forward(name: str) -> None:
    for layer in range(3):
        before, after = around_block(without_feed_forward(name, layer), layer, some_ids())
        attn_out = watched(name).seen.points["attn_out", layer]
        assert close(after - before, attn_out, 2e-5)


@each("name", NAMES)
def test_post_attn_is_real_where_a_module_reads_it(name: str) -> None:
    parallel = {"gptj", "codegen", "phi", "cohere", "cohere2", "gpt_neox parallel", "stablelm parallel"}
    parallel |= {"falcon old", "falcon new"}
    assert {block.parallel for block in watched(name).anatomy.blocks} == {name in parallel}


@each("name", NAMES)
def test_patterns_times_values_are_the_head_outputs(name: str) -> None:
    about = watched(name)
    for layer, (pattern,) in about.seen.patterns.items():
        value = about.seen.values[layer]  # [H_kv, T, D]
        group = about.anatomy.n_head // about.anatomy.n_kv_head
        assert value.shape == (about.anatomy.n_kv_head, TIME, about.anatomy.head_dim)
        z = torch.stack([pattern[head] @ value[head // group] for head in range(about.anatomy.n_head)])
        assert torch.allclose(z, about.seen.outputs[layer], atol=1e-6)
        if name not in GATED:
            assert torch.allclose(z.transpose(0, 1), about.seen.z[layer], atol=1e-6)


@each("name", NAMES)
@torch.no_grad()
def test_heads_through_the_projection_are_attn_out(name: str) -> None:
    about = watched(name)
    for layer, z in about.seen.z.items():
        block = about.anatomy.blocks[layer]
        assert block.projection is not None
        nothing = block.projection(torch.zeros_like(z).flatten(-2))
        total = nothing.clone()
        for head in range(z.shape[1]):
            alone = torch.zeros_like(z)
            alone[:, head] = z[:, head]
            total += block.projection(alone.flatten(-2)) - nothing
        total = total if block.post_attn_norm is None else block.post_attn_norm(total)
        assert close(total * block.attn.scale, about.seen.points["attn_out", layer])


@each("name", NAMES)
def test_the_final_norm_and_the_unembedding_give_the_logits(name: str) -> None:
    about = watched(name)
    assert close(about.anatomy.logits(about.seen.final_residual), about.logits)
    # With one frozen scale the norm is linear in parts of the stream.
    norm, final = about.anatomy.norm, about.seen.final_residual
    parts = [x for (point, _), x in about.seen.points.items() if point in ("attn_out", "mlp_out")]
    parts.append(about.seen.points["pre_attn", 0])
    summed = sum(norm.centred(part) / norm.scale(final) * norm.weight @ about.anatomy.unembedding.T for part in parts)
    if norm.bias is not None:
        summed = summed + norm.bias @ about.anatomy.unembedding.T
    assert isinstance(summed, Tensor)
    assert close(about.anatomy.finish(summed), about.logits)


@each("name", NAMES)
def test_neurons_are_the_input_of_the_last_linear_layer(name: str) -> None:
    about = watched(name)
    for layer, block in enumerate(about.anatomy.blocks):
        none = name in EXPERTS and layer != DENSE.get(name)
        assert (block.neurons is None) == none
        if not none:
            assert about.seen.activations[layer].shape[0] == TIME
            owner = layers_of(about.model)[layer]
            assert any(module is block.neurons for module in owner.modules())


class WithoutHead(Intervener):
    """Zeroes head 1 of layer 1."""

    def heads(self, layer: int, z: Tensor) -> Tensor | None:
        if layer != 1:
            return None
        changed = z.clone()
        changed[:, :, 1] = 0
        return changed


@dataclass
class Subtracted(Intervener):
    """Subtracts a contribution from what attention adds in layer 1."""

    contribution: Tensor

    def residual(self, layer: int, point: Point, x: Tensor) -> Tensor | None:
        return x - self.contribution if (layer, point) == (1, "attn_out") else None


@each("name", NAMES)
@torch.no_grad()
def test_zeroing_a_head_is_subtracting_its_contribution(name: str) -> None:
    about = watched(name)
    block, z = about.anatomy.blocks[1], about.seen.z[1]
    assert block.projection is not None
    without = z.clone()
    without[:, 1] = 0
    added = [block.projection(x.flatten(-2)) for x in (z, without)]
    if block.post_attn_norm is not None:
        added = [block.post_attn_norm(x) for x in added]
    contribution = (added[0] - added[1]) * block.attn.scale
    zeroed = run(about.model, about.anatomy, some_ids(), interventions=[WithoutHead()])
    subtracted = run(about.model, about.anatomy, some_ids(), interventions=[Subtracted(contribution)])
    assert close(zeroed, subtracted, 5e-5)
    assert not close(zeroed[0, -1], about.logits[-1], 1e-3)


@each("name", EAGER)
def test_long_prompts_come_out_the_same_in_pieces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    about, ids = watched(name), some_ids(time=40)
    whole, pieces = Everything(), Everything()
    run(about.model, about.anatomy, ids, [whole])
    with monkeypatch.context() as small:
        small.setattr(attention_call, "_PATTERN_NUMBERS", 1)  # 16 rows at a time
        logits = run(about.model, about.anatomy, ids, [pieces])[0]
    assert (logits - plain_logits(about.model, ids)).abs().max() < 2e-5
    for layer, (pattern,) in whole.patterns.items():
        # Keys behind a piece's last row are left out.
        assert [rows.shape[1:] for rows in pieces.patterns[layer]] == [(16, 16), (16, 32), (8, 40)]
        assert torch.allclose(pieces.whole_pattern(layer), pattern, atol=1e-6)


class Breaks(Observer):
    """Fails in the second layer."""

    def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
        if layer == 1:
            raise OSError("no space left")


@pytest.mark.parametrize("name", ["llama", "gemma2", "bloom", "opt", "gpt_neo"])
def test_a_pass_that_fails_leaves_no_trace(name: str) -> None:
    about = watched(name)
    with unchanged(about.model), pytest.raises(OSError, match="no space"):
        run(about.model, about.anatomy, some_ids(), [Breaks()])
    assert not hf_attention._watchers
    assert torch.equal(run(about.model, about.anatomy, some_ids(), [Everything()])[0], about.logits)


def test_a_pass_has_no_dropout_and_puts_back_the_mode_of_each_module() -> None:
    about = watched("gpt2")
    model = copy.deepcopy(about.model).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    list(model.modules())[-1].eval()
    before = [module.training for module in model.modules()]
    alone = run(model, anatomy_of(model), some_ids())
    assert torch.equal(alone, run(about.model, about.anatomy, some_ids()))
    assert [module.training for module in model.modules()] == before


def test_the_last_logits_alone_are_the_last_of_all() -> None:
    for name in NAMES:
        about = watched(name)
        alone = run(about.model, about.anatomy, some_ids(), last=True)
        assert alone.shape[1] == 1
        assert close(alone[0, 0], run(about.model, about.anatomy, some_ids())[0, -1])


@pytest.mark.parametrize("lowest", [-math.inf, torch.finfo(torch.float32).min])
@pytest.mark.parametrize("ahead", [[], [(3, 39)], [(3, 20), (30, 39)]])
def test_keys_are_left_out_only_where_no_row_sees_them(
    lowest: float, ahead: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    query, key, value = torch.randn(3, 4, 40, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.full((1, 40, 40), lowest).triu(1)
    for row, later in ahead:
        mask[0, row, later] = 0
    monkeypatch.setattr(attention_call, "_PATTERN_NUMBERS", 1)  # 16 rows at a time
    call = AttentionCall.of(query, key, value, mask, 0.3)
    pieces = [with_all_keys(pattern, 40) for _, pattern, _ in call.chunks()]
    assert torch.allclose(torch.cat(pieces, 1), (query @ key.mT * 0.3 + mask).softmax(-1), atol=1e-6)


@pytest.mark.parametrize("time", [1, 15, 16, 17])
def test_grouped_heads_in_pieces_are_those_of_eager_attention_whatever_repeats_them(
    time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, plain = told("llama", time), modeling_llama.eager_attention_forward

    def indirect(*given: Any, **options: Any) -> Any:  # does not name the groups itself
        return plain(*given, **options)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", indirect)
    monkeypatch.setattr(attention_call, "_PATTERN_NUMBERS", 1)  # 16 rows at a time
    about, seen = watched("llama"), Everything()
    logits = run(about.model, about.anatomy, some_ids(time=time), [seen])[0]
    assert (logits - eager.logits).abs().max() < 5e-6
    for layer, theirs in enumerate(eager.attentions):
        assert (seen.whole_pattern(layer) - theirs).abs().max() < 1e-6
