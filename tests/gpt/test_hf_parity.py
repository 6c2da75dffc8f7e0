"""Ours and transformers' GPT-2 are the same function, in both directions, or the difference is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import VOCAB, lively, shape, some_ids

from llmlab.core.errors import LabError
from llmlab.core.settings import ModelSettings
from llmlab.gpt.gpt2_names import block_modules
from llmlab.gpt.gpt2_settings import refusal
from llmlab.gpt.hf import to_hf
from llmlab.gpt.model import GPT

transformers = pytest.importorskip("transformers")

CLOSE = 1e-5  # of logits in fp32


def _config(**changes: Any) -> Any:
    plain = {"vocab_size": VOCAB, "n_positions": 12, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return transformers.GPT2Config(**(plain | {"bos_token_id": None, "eos_token_id": None} | changes))


def _ours(theirs: Any) -> GPT:
    """The lab's GPT with a GPT-2's weights."""
    config, state = theirs.config, theirs.state_dict()
    sizes = {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd")}
    ours = {"token_embedding": "transformer.wte", "position_embedding": "transformer.wpe"}
    ours |= dict([*block_modules(config.n_layer), ("final_norm", "transformer.ln_f")])
    model = GPT(ModelSettings(**sizes, block_size=config.n_positions, bias=True), config.vocab_size)
    weights = {}
    for name in model.state_dict():
        module, _, kind = name.rpartition(".")
        weight = state[f"{ours[module]}.{kind}"]
        transposed = weight.dim() == 2 and "embedding" not in module  # Conv1D
        weights[name] = weight.t().contiguous() if transposed else weight
    model.load_state_dict(weights)
    return model.eval()


def _theirs(**changes: Any) -> Any:
    """A GPT2LMHeadModel whose every parameter, biases included, was moved from where it began."""
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(_config(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def _apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("multiple", [1, 64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_kv_head": 4},
        {"activation": "relu2"},
        {"activation": "gelu_exact"},
        {"untied_head": True},
        {"n_head": 2, "n_embd": 128, "mup_base_width": 48},  # whose multiplier the final norm takes
    ],
    ids=str,
)
def test_ours_as_theirs_has_equal_logits(bias: bool, multiple: int, options: dict[str, Any]) -> None:
    model = lively(shape(bias=bias, vocab_multiple=multiple, **options))
    theirs = to_hf(model)
    ids = some_ids(3, 12)
    tied = "untied_head" not in options
    with torch.no_grad():
        assert _apart(model(ids)[:, :, :VOCAB], theirs(ids).logits) < CLOSE
    assert theirs.config.vocab_size == VOCAB
    assert (theirs.lm_head.weight.data_ptr() == theirs.transformer.wte.weight.data_ptr()) == tied


def test_theirs_as_ours_has_equal_logits() -> None:
    theirs = _theirs()
    ids = some_ids(3, 12)
    with torch.no_grad():
        assert _apart(_ours(theirs)(ids), theirs(ids).logits) < CLOSE


def test_every_layers_stream_agrees() -> None:
    theirs = _theirs()
    ours = _ours(theirs)
    ids = some_ids(2, 9)
    with torch.no_grad():
        hidden = theirs(ids, output_hidden_states=True).hidden_states
        x = ours.token_embedding(ids) + ours.position_embedding.weight[:9]
        for block, expected in zip(ours.blocks[:-1], hidden[1:-1], strict=True):
            x = block(x)
            assert _apart(x, expected) < CLOSE
        assert _apart(ours.residual_stream(ids), hidden[-1]) < CLOSE


def test_there_and_back_is_every_weight_unchanged() -> None:
    model = lively(shape(bias=True))
    back = _ours(to_hf(model))
    assert back.state_dict().keys() == model.state_dict().keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], weight), name


def test_training_the_copy_leaves_ours_alone() -> None:
    model = lively(shape(bias=True))
    before = model.token_embedding.weight.clone()
    with torch.no_grad():
        for parameter in to_hf(model).parameters():
            parameter.zero_()
    assert torch.equal(model.token_embedding.weight, before)


@pytest.mark.parametrize("normed", [True, False])
def test_llamas_parts_are_transformers_llama_and_with_norms_of_queries_and_keys_its_qwen3(normed: bool) -> None:
    """Gate, rotary positions, RMSNorm, grouped heads and the norms in front of the rotation, in one function."""
    options = {"norm": "rmsnorm", "position": "rotary", "activation": "swiglu", "n_kv_head": 2}
    ours = lively(shape(**options, qk_norm=normed))
    kind = (transformers.Qwen3Config, transformers.LlamaConfig)[not normed]
    config = kind(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=ours.blocks[0].feed_forward.down.in_features,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rms_norm_eps=1e-5,
        max_position_embeddings=12,
        tie_word_embeddings=True,
    )
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    renamed = {
        "token_embedding": "model.embed_tokens",
        "final_norm": "model.norm",
        "attention_norm": "input_layernorm",
        "attention.out": "self_attn.o_proj",
        "attention.q_norm": "self_attn.q_norm",
        "attention.k_norm": "self_attn.k_norm",
        "feed_forward_norm": "post_attention_layernorm",
        "feed_forward.up": "mlp.up_proj",
        "feed_forward.gate": "mlp.gate_proj",
        "feed_forward.down": "mlp.down_proj",
    }
    state = {}
    for name, weight in ours.state_dict().items():
        module = name.removesuffix(".weight")
        block = module.split(".")[1] if module.startswith("blocks.") else None
        front, part = (f"model.layers.{block}.", module.split(".", 2)[2]) if block else ("", module)
        if part == "attention.qkv":
            for which, rows in zip("qkv", weight.split([32, 16, 16]), strict=True):
                state[f"{front}self_attn.{which}_proj.weight"] = rows
        else:
            state[f"{front}{renamed[part]}.weight"] = weight
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])  # the tied head
    ids = some_ids(3, 12)
    with torch.no_grad():
        assert _apart(ours(ids), theirs(ids).logits) < CLOSE


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"norm": "rmsnorm"}, "norm=rmsnorm"),
        ({"position": "rotary"}, "position=rotary"),
        ({"activation": "swiglu"}, "activation=swiglu"),
        ({"n_kv_head": 2}, "n_kv_head=2"),
        ({"qk_norm": True}, "qk_norm=True"),
        ({"logit_softcap": 30.0}, "logit_softcap=30.0"),
        ({"value_residual": True}, "value_residual=True"),
        ({"mup_base_width": 32}, "divides scores by 8 / 8; a GPT-2 divides by sqrt"),
    ],
)
def test_a_model_that_is_no_gpt2_is_refused_by_what_differs(options: dict[str, Any], named: str) -> None:
    model = lively(shape(**options))
    assert named in (refusal(model.settings) or "")
    with pytest.raises(LabError, match=named):
        to_hf(model)
