"""What is known of a real model shows in its panels, and its numbers are transformers' own. SmolLM2-135M."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from real_model import smollm2

from llmlab.inspection.answers import answer
from llmlab.inspection.archive import Archive, read_archive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CAPITAL = "The capital of France is"


def _ask(folder: Path, question: str, **values: object) -> Archive:
    return read_archive(answer(smollm2(), question, values, folder / f"{question}.safetensors"))


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
