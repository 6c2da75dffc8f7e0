"""What `llmlab-run export` writes, transformers opens: same ids, same logits, same text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from small_runs import new_run, train_here

from llmlab.cli.main import main
from llmlab.core.settings import ModelSettings, Sampling
from llmlab.gpt import gpt2_settings
from llmlab.gpt.model import GPT
from llmlab.models.generation import write
from llmlab.models.model import OpenModel
from llmlab.models.scratch import open_checkpoint
from llmlab.store.checkpoints import select
from llmlab.store.run_folder import RunFolder

transformers = pytest.importorskip("transformers")

PROMPT = "the"
TOKENS = 12  # with the prompt fewer than the context: GPT-2 in transformers has no sliding window


def _lively(model: GPT) -> None:
    """Weights so large that the most likely token is clear, and another one at every place."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.5)


@pytest.fixture(scope="module", params=["char", "bpe"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    options = {"data__tokenizer": request.param, "data__bpe_vocab_size": 300, "train__learning_rate": 1e-4}
    multiple = 64 if request.param == "bpe" else 1
    outputs = tmp_path_factory.mktemp("exported")
    with mock.patch.object(GPT, "initialise", _lively):
        return train_here(new_run(outputs, 2, model__bias=True, model__vocab_multiple=multiple, **options))


def _exported(run: RunFolder, tmp_path: Path) -> Path:
    assert main(["export", f"{run.path}@final", "--to", "hf", "--out", str(tmp_path / "hf")]) == 0
    return tmp_path / "hf"


def _greedy(model: OpenModel) -> str:
    return "".join(token.text for token in write(model, PROMPT, TOKENS, Sampling(0, 0), seed=0))


def test_transformers_continues_a_prompt_with_the_same_text(trained: RunFolder, tmp_path: Path) -> None:
    folder = _exported(trained, tmp_path)
    ours = open_checkpoint(trained, select(trained.checkpoints, "final"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(PROMPT, return_tensors="pt")
    assert ids["input_ids"][0].tolist() == ours.tokenizer.encode(PROMPT)
    written = theirs.generate(**ids, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)
    text = tokenizer.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=False)
    assert text == _greedy(ours)
    assert len(set(text)) > 1
    assert theirs.config.vocab_size == open_checkpoint(trained, select(trained.checkpoints, "final")).model.vocab_size


def test_the_exported_logits_are_the_checkpoints(trained: RunFolder, tmp_path: Path) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(_exported(trained, tmp_path))
    ours = open_checkpoint(trained, select(trained.checkpoints, "final"))
    ids = torch.tensor([ours.tokenizer.encode("and then the")[:16]])
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, ours.model(ids)[..., : theirs.config.vocab_size], atol=1e-5)


def test_an_export_never_overwrites(trained: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    assert main(["export", f"{trained.path}@final", "--to", "hf", "--out", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_setting_that_the_export_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new one is, until it is written or checked."""
    known, others = gpt2_settings._WRITTEN, {"dropout": 0.1, "bias": True, "untied_head": True, "zero_init": True}
    for name, changed in others.items():
        monkeypatch.setattr(gpt2_settings, "_WRITTEN", known - {name})
        assert f"this model has {name}={changed}" in str(
            gpt2_settings.refusal(replace(ModelSettings(), **{name: changed}))
        )
        assert gpt2_settings.refusal(ModelSettings()) is None
