"""Claims about pretrained models, from a model's folder to verdicts; a model that cannot be asked is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import llama, save

from llmlab.core.errors import Cancelled
from llmlab.data.papers import SUPPORTED
from llmlab.data.tokenizers import CompactTokenizer, save_hf_tokenizer
from llmlab.models.model import untrained_like
from llmlab.studies.papers.bayesian_geometry import focusing, judge, real_models, thresholds
from llmlab.studies.papers.bayesian_geometry.plan import FOCUSING, OF_MODELS, REAL_MODELS
from llmlab.studies.papers.interface import Check


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Of a tiny Llama that reads the first of GPT-2's tokens, and of one whose tokens are letters."""
    monkeypatch.setattr(thresholds, "RANDOM_MODELS", 3)  # fewer take less time
    monkeypatch.setitem(focusing.SIZES, "minutes", focusing.Size(5, 2, 1))
    monkeypatch.setitem(real_models.SIZES, "minutes", real_models.Size(6, 2, 5, 2))
    tokenizer = CompactTokenizer(range(8000))
    folder = save(llama(vocab_size=tokenizer.vocab_size, max_position_embeddings=128), tmp_path / "words")
    save_hf_tokenizer(tokenizer, folder)
    letters = save(llama(), tmp_path / "letters")
    (tmp_path / "measurements").mkdir()
    models = [str(folder), str(letters)]
    return Check(list(OF_MODELS), "minutes", models, tmp_path / "outputs", tmp_path / "measurements")


@pytest.mark.slow
def test_models_are_measured_once_part_by_part_and_judged(check: Check, tmp_path: Path) -> None:
    def interrupt(what: str, done: float, total: float) -> None:
        if done / (total or 1) > 0.93 and "evidence" in what:
            raise Cancelled

    shares: list[float] = []
    stopping = replace(check, progress=interrupt, asked=lambda _, done, all: shares.append(done / all))
    with pytest.raises(Cancelled):
        list(judge.late(stopping))
    assert shares == sorted(shares)  # of what is asked of both models, whatever claim it is for
    assert shares[0] < 0.1 < 0.4 < shares[-1] < 0.5
    kept = {path: path.stat().st_mtime_ns for path in check.measurements.iterdir()}
    # All of focusing; evidence, texts, and some models with random weights.
    assert len(kept) > 1 + thresholds.RANDOM_MODELS + 2

    attention, belief = judge.late(check)
    assert (attention.claim, belief.claim) == (FOCUSING, REAL_MODELS)
    assert SUPPORTED not in (attention.verdict, belief.verdict)
    assert (attention.n, belief.n) == (5, 30)
    assert attention.evidence["models"] == ["words", "letters"]  # texts can be read letter by letter
    assert belief.evidence["models"] == ["words"]
    assert "one token each" in belief.reason
    assert str(tmp_path / "letters") in belief.reason
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())

    for folder in check.models:
        (Path(folder) / "model.safetensors").unlink()
    assert next(iter(judge.late(check))).evidence == attention.evidence


def test_a_model_with_an_adapter_has_the_shape_of_its_base() -> None:
    base = llama()
    adapted = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert isinstance(adapted, torch.nn.Module)
    fresh, same = untrained_like(adapted, 3), untrained_like(base, 3)
    assert type(fresh) is type(base)
    assert all(map(torch.equal, fresh.parameters(), same.parameters()))
