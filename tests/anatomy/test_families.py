"""Which models can be looked into: refusals and their reasons, unknown families, adapters, and the lab's own GPT."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import each
from family_models import KINDS, TIME, enliven, family_anatomy, family_model, new_model, some_ids
from plain_models import plain_logits, unchanged
from small_models import COMBINATIONS, VOCAB, lively, shape
from torch import Tensor, nn
from transformers import AttentionMaskInterface, AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from watched_models import Everything

from llmlab.anatomy import families
from llmlab.anatomy.anatomy import Anatomy, BlockAnatomy, HookPoint, Refusals
from llmlab.anatomy.capture import run
from llmlab.anatomy.finding import anatomy_of
from llmlab.anatomy.hf_attention import NAME
from llmlab.anatomy.modules import linear_numbers, norm_numbers
from llmlab.anatomy.probe import probe
from llmlab.core.errors import LabError

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # transformers' and peft's own
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning"),
]


# The probe: every kind of mistake ------------------------------------------------------------------------------------


def with_blocks(anatomy: Anatomy, change: Callable[[BlockAnatomy], BlockAnatomy]) -> Anatomy:
    """The anatomy with a mistake in each layer."""
    return replace(anatomy, blocks=tuple(change(block) for block in anatomy.blocks))


def attention_itself(block: BlockAnatomy) -> BlockAnatomy:
    """Takes attention's own output for what it adds."""
    assert block.attention is not None
    return replace(block, attn=HookPoint(block.attention, block.attn.scale), post_attn_norm=None)


def halves_swapped(block: BlockAnatomy) -> BlockAnatomy:
    return replace(block, attn=block.mlp, mlp=block.attn)


def input_norm_as_mid(block: BlockAnatomy) -> BlockAnatomy:
    return replace(block, mid=block.block.get_submodule("input_layernorm"))


MISTAKES: list[tuple[str, Callable[[BlockAnatomy], BlockAnatomy], str]] = [
    ("gemma2", attention_itself, "pre_attn + attn_out is not post_attn"),
    ("gemma3", attention_itself, "pre_attn + attn_out is not post_attn"),
    ("glm4", attention_itself, "pre_attn + attn_out is not post_attn"),
    ("olmo2", attention_itself, "pre_attn + attn_out is not post_attn"),
    ("bloom", attention_itself, "pre_attn + attn_out is not post_attn"),
    ("granite", lambda b: replace(b, attn=HookPoint(b.attn.module)), "pre_attn + attn_out is not post_attn"),
    ("granite", lambda b: replace(b, mlp=HookPoint(b.mlp.module)), "post_attn + mlp_out is not post_ffn"),
    ("bloom", lambda b: replace(b, mlp=HookPoint(b.block.get_submodule("mlp"))), "post_attn + mlp_out is not post_ffn"),
    (
        "gemma2",
        lambda b: replace(b, mlp=HookPoint(b.block.get_submodule("mlp"))),
        "post_attn + mlp_out is not post_ffn",
    ),
    # In parallel blocks the sum alone cannot tell the halves apart.
    ("phi", halves_swapped, "With attention off, tokens still change later ones"),
    ("gpt_neox parallel", halves_swapped, "With attention off, tokens still change later ones"),
    ("cohere", halves_swapped, "With attention off, tokens still change later ones"),
    ("llama", halves_swapped, "pre_attn + attn_out is not post_attn"),
    ("llama", lambda b: replace(b, mid=None, mlp=b.attn), "post_attn + mlp_out is not post_ffn"),
    ("gpt_neox parallel", lambda b: replace(b, mid=b.block.get_submodule("post_attention_layernorm")), "post_attn"),
    ("llama", input_norm_as_mid, "post_attn"),
    ("llama", lambda b: replace(b, attn=HookPoint(nn.Identity())), "never showed its attn_out"),
]


@each(("family", "mistake", "measure"), MISTAKES)
def test_the_probe_refuses_contributions_that_are_not_what_is_added(
    family: str, mistake: Callable[[BlockAnatomy], BlockAnatomy], measure: str
) -> None:
    model = family_model(family)
    wrong = replace(with_blocks(family_anatomy(family), mistake), refusals=Refusals())
    with unchanged(model):
        refusals = probe(model, wrong).refusals
    assert refusals.contributions is not None
    assert measure in refusals.contributions
    assert refusals.heads is not None  # which are parts of contributions
    assert refusals.attention is None
    assert refusals.attribution is None


READINGS: list[tuple[str, Callable[[Anatomy], Anatomy]]] = [
    ("gemma", lambda a: replace(a, norm=replace(a.norm, weight=a.norm.weight - 1))),
    ("gpt2", lambda a: replace(a, norm=replace(a.norm, bias=None))),
    ("gpt2", lambda a: replace(a, norm=replace(a.norm, kind="rmsnorm"))),
    ("llama", lambda a: replace(a, norm=replace(a.norm, kind="layernorm"))),
    ("cohere", lambda a: replace(a, logit_scale=1.0)),
    ("granite", lambda a: replace(a, logit_scale=1 / a.logit_scale)),
    ("gemma2", lambda a: replace(a, logit_softcap=None)),
    ("phi", lambda a: replace(a, unembedding_bias=None)),
    ("llama", lambda a: replace(a, unembedding=a.embedding.weight.detach())),
    ("llama", lambda a: replace(a, final_norm=a.blocks[-1].block.get_submodule("input_layernorm"))),
]


@each(("family", "mistake"), READINGS)
def test_the_probe_refuses_a_readout_that_does_not_give_the_logits(
    family: str, mistake: Callable[[Anatomy], Anatomy]
) -> None:
    model = family_model(family)
    refusals = probe(model, mistake(family_anatomy(family))).refusals
    assert refusals.attribution is not None
    assert "differs from its logits by" in refusals.attribution
    assert refusals.attention is None


def test_the_probe_refuses_heads_that_do_not_add_up() -> None:
    for family, change in (
        ("gemma2", lambda b: replace(b, post_attn_norm=None)),
        ("granite", lambda b: replace(b, projection=b.block.get_submodule("self_attn.q_proj"))),
        ("llama", lambda b: replace(b, projection=b.block.get_submodule("self_attn.v_proj"))),
    ):
        model = family_model(family)
        refusals = probe(model, with_blocks(family_anatomy(family), change)).refusals
        assert refusals.heads is not None
        assert refusals.contributions is None
        assert refusals.attention is None


def test_heads_behind_a_gate_are_not_their_patterns_times_values() -> None:
    anatomy = family_anatomy("qwen3_next")
    refusals = probe(family_model("qwen3_next"), with_blocks(anatomy, lambda b: replace(b, gated=False))).refusals
    assert refusals.attention is None
    assert refusals.heads is not None
    assert "not what is projected" in refusals.heads


def test_the_probe_refuses_patterns_beyond_a_window_and_rows_that_do_not_sum_to_one() -> None:
    model = family_model("mistral")
    refused = probe(model, with_blocks(family_anatomy("mistral"), lambda b: replace(b, window=2))).refusals.attention
    assert refused is not None
    assert "beyond its window of 2 tokens" in refused
    model = family_model("gpt_oss")
    refused = probe(model, replace(family_anatomy("gpt_oss"), sinks=False)).refusals.attention
    assert refused is not None
    assert "do not sum to 1" in refused


def test_heads_are_counted_in_the_pass() -> None:
    model, right = family_model("llama"), family_anatomy("llama")
    assert probe(model, replace(right, n_kv_head=1, head_dim=3)) == right
    refusals = probe(model, replace(right, n_head=2)).refusals
    assert refusals.attention == refusals.heads == "Layer 0 has 4 patterns, for 2 heads."
    assert refusals.contributions is None


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_mask_that_is_not_registered_is_noticed(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the model looks ahead, and no error says so."""
    masks: Any = AttentionMaskInterface._global_mapping
    monkeypatch.setitem(masks, NAME, lambda *args, **kwargs: None)
    refusals = anatomy_of(family_model(family)).refusals
    assert refusals.attention is not None
    assert "changes its predictions" in refusals.attention
    assert refusals.contributions is None


# Families that are refused ------------------------------------------------------------------------------------------

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "OPT, post-norm": ("opt", KINDS["opt"].settings | {"do_layer_norm_before": False}, "normalises the stream itself"),
    "OPT, no norm": ("opt", KINDS["opt"].settings | {"_remove_final_layer_norm": True}, "no norm"),
    "BLOOM, post-norm": ("bloom", KINDS["bloom"].settings | {"apply_residual_connection_post_layernorm": True}, "norm"),
    "OpenAI-GPT": ("openai-gpt", {"n_embd": 32, "n_layer": 2, "n_head": 4}, "normalises the stream itself"),
    "Mamba": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, "without attention"),
    "Gemma 3n": (
        "gemma3n_text",
        KINDS["gemma3"].settings
        | {
            "layer_types": ["sliding_attention", "full_attention"],
            "num_hidden_layers": 2,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 43,
            "num_kv_shared_layers": 0,
            "laurel_rank": 4,
            "activation_sparsity_pattern": None,
            "intermediate_size": [48, 48],
        },
        "AltUp",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_models_whose_stream_is_no_sum_are_refused_with_the_reason(kind: str) -> None:
    model_type, settings, reason = REFUSED[kind]
    with pytest.raises(LabError, match=reason):
        anatomy_of(new_model(model_type, settings))


def test_encoder_decoders_are_refused() -> None:
    sizes = {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 2, "num_heads": 4, "vocab_size": 43}
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **sizes))
    with pytest.raises(LabError, match="encoder beside"):
        anatomy_of(model)


# Families that nobody described -------------------------------------------------------------------------------------

# What names cannot tell and sums cannot either: multipliers that come after the unembedding.
_READOUT = {"cohere", "cohere2", "granite", "granitemoe", "minicpm3"}
_TOO_STRANGE = {"opt", "bloom", "mpt", "qwen3_next", "qwen3_5", "lfm2"}


@pytest.mark.slow
@each("family", KINDS)
def test_an_unknown_family_is_described_rightly_or_refused(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, known = family_model(family), family_anatomy(family)
    with monkeypatch.context() as unknown:
        unknown.delitem(families.FAMILIES, KINDS[family].model_type)
        if family in _TOO_STRANGE:
            with pytest.raises(LabError, match="does not know its family"):
                anatomy_of(model)
            return
        with unchanged(model):
            found = anatomy_of(model)
    for ours, theirs in zip(found.blocks, known.blocks, strict=True):
        assert ours.attn == theirs.attn
        assert ours.mlp == theirs.mlp
        assert ours.mid is theirs.mid
        assert ours.projection is theirs.projection
        assert ours.post_attn_norm is theirs.post_attn_norm
        # The first layer stands for all: where that has experts, a dense layer's neurons are not looked for.
        assert ours.neurons is theirs.neurons or (ours.neurons is None and found.blocks[0].neurons is None)
    assert (found.refusals.attribution is not None) == (family in _READOUT)
    assert replace(found.refusals, attribution=None) == Refusals()


# Adapters -----------------------------------------------------------------------------------------------------------


def adapted(target: str) -> nn.Module:
    """A LoRA whose difference is not zero."""
    from peft import LoraConfig, get_peft_model  # warns when it is imported, and only a test may let that pass

    model: Any = new_model("llama", KINDS["llama"].settings, seed=3)
    return enliven(get_peft_model(model, LoraConfig(r=2, target_modules=target)), 3)


@pytest.mark.parametrize("target", [".*(q_proj|o_proj|down_proj)", ".*lm_head", ".*embed_tokens"])
def test_an_adapter_is_looked_into_like_the_model_it_makes(target: str) -> None:
    wrapped: Any = adapted(target)
    logits = plain_logits(wrapped, some_ids())
    with unchanged(wrapped):
        anatomy, seen = anatomy_of(wrapped), Everything()
        watched = run(wrapped, anatomy, some_ids(), [seen])[0]
    assert anatomy.refusals == Refusals()
    assert torch.allclose(watched, logits, atol=2e-5)
    assert torch.allclose(anatomy.logits(seen.final_residual), logits, atol=2e-5)
    merged = copy.deepcopy(wrapped).merge_and_unload().eval()
    alone = Everything()
    run(merged, anatomy_of(merged), some_ids(), [alone])
    for point in seen.points:
        assert torch.allclose(seen.points[point], alone.points[point], atol=1e-4)


def test_adapters_that_put_tokens_before_the_prompt_are_refused() -> None:
    from peft import PromptTuningConfig, TaskType, get_peft_model

    model: Any = new_model("llama", KINDS["llama"].settings)
    wrapped = get_peft_model(model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3))
    with pytest.raises(LabError, match="virtual tokens"):
        anatomy_of(wrapped)


# How a model was loaded does not matter -----------------------------------------------------------------------------


CHOICES = [
    (name, choice) for name in ("llama", "gpt2", "falcon sequential", "falcon new") for choice in ("eager", "sdpa")
]


@each(("family", "implementation"), [*CHOICES, ("gemma2", "eager"), ("gpt_neo", "eager")])
def test_patterns_are_those_of_the_attention_that_was_chosen(family: str, implementation: str) -> None:
    plain = family_model(family)
    model = AutoModelForCausalLM.from_config(
        copy.deepcopy(plain.config), attn_implementation=implementation, dtype=torch.float32
    )
    model.load_state_dict(plain.state_dict())
    anatomy = anatomy_of(model.eval())
    assert anatomy.refusals == Refusals()
    logits = run(model, anatomy, some_ids(), [Everything()])[0]
    assert torch.allclose(logits, plain_logits(model, some_ids()), atol=2e-5)
    assert model.config._attn_implementation == implementation


@each("family", ["llama", "gemma2", "gpt2", "granite", "phi", "olmo", "olmo2", "bloom", "falcon new"])
@each("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_within_their_rounding(family: str, dtype: torch.dtype) -> None:
    model = copy.deepcopy(family_model(family)).to(dtype)
    anatomy = anatomy_of(model)
    assert anatomy.refusals == Refusals()
    logits = run(model, anatomy, some_ids(), [Everything()])[0]
    # Eager attention takes its softmax in fp32 even then.
    apart = (logits - plain_logits(model, some_ids())).abs().max()
    assert apart < (1e-6 if dtype is torch.float64 else 0.1)


def test_a_model_that_also_sees_is_looked_into_as_text() -> None:
    settings = KINDS["gemma3"].settings | {"vocab_size": 43}
    vision = _SMALL | {"intermediate_size": 48, "image_size": 8, "patch_size": 4}
    torch.manual_seed(0)
    config = AutoConfig.for_model("gemma3", text_config=settings, vision_config=vision, mm_tokens_per_image=4)
    model = enliven(AutoModelForCausalLM.from_config(config, dtype=torch.float32))
    with unchanged(model):
        anatomy, seen = anatomy_of(model), Everything()
        logits = run(model, anatomy, some_ids(), [seen])[0]
    assert anatomy.refusals == Refusals()
    assert torch.allclose(logits, plain_logits(model, some_ids()), atol=2e-5)


# Single modules -----------------------------------------------------------------------------------------------------


def test_a_norm_that_computes_something_else_is_refused() -> None:
    class Odd(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0.01

    with pytest.raises(LabError, match="neither a LayerNorm nor an RMSNorm"):
        norm_numbers(Odd(16), 16)


def test_a_linear_layer_of_any_kind_is_read_as_its_matrix() -> None:
    wrapped: Any = adapted(".*o_proj")
    layer = wrapped.get_base_model().model.layers[0].self_attn.o_proj
    x = torch.randn(5, 32)
    for module in (
        layer,
        family_model("gpt2").get_submodule("transformer.h.0.attn.c_proj"),
        nn.Linear(32, 7, bias=False),
    ):
        linear = linear_numbers(module)
        assert torch.allclose(nn.functional.linear(x, linear.weight, linear.bias), module(x), atol=1e-5)
    with pytest.raises(LabError, match="cannot be read"):
        linear_numbers(nn.Identity())


# The lab's own GPT --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@each("options", COMBINATIONS)
def test_the_scratch_gpt_is_right_in_all_its_settings(options: dict[str, Any]) -> None:
    model = lively(shape(**options)).requires_grad_(False)
    ids = torch.randint(VOCAB, (TIME,), generator=torch.Generator().manual_seed(1))
    anatomy = probe(model, anatomy_of(model))
    assert anatomy.refusals == Refusals()
    seen = Everything()
    with unchanged(model):
        logits = run(model, anatomy, ids, [seen])[0]
    assert torch.equal(logits, model(ids[None])[0])
    total = seen.points["pre_attn", 0]
    first: list[torch.Tensor] | None = [] if "value_residual" in options else None
    for layer, (block, attention) in enumerate((b, b.attention) for b in model.blocks):
        before = seen.points["pre_attn", layer]
        attn_out = attention(block.attention_norm(before[None]), None, first)[0]
        assert torch.equal(seen.points["attn_out", layer], attn_out)
        assert torch.equal(seen.points["post_attn", layer], before + attn_out)
        mlp_out = block.feed_forward(block.feed_forward_norm((before + attn_out)[None]))[0]
        assert torch.allclose(seen.points["mlp_out", layer], mlp_out, atol=1e-6)
        assert torch.equal(seen.points["post_ffn", layer], before + attn_out + seen.points["mlp_out", layer])
        (pattern,) = seen.patterns[layer]
        assert torch.allclose(pattern.sum(-1), torch.ones(()), atol=1e-5)
        assert not pattern.triu(1).any()
        total = total + seen.points["attn_out", layer] + seen.points["mlp_out", layer]
    assert torch.allclose(total, seen.final_residual, atol=1e-5)
    assert torch.allclose(anatomy.logits(seen.final_residual), logits, atol=1e-5)
