"""The models that a claim is tested on by default: pretrained, here, small enough, and not made by the lab itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmlab.core.errors import UsageError
from llmlab.data.papers import read_paper
from llmlab.studies.papers.checks import CheckRequest, models_here, plan_check


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With no models around but those that a test makes."""
    monkeypatch.setattr("llmlab.models.available._PACKAGES", ())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("LLMLAB_MODELS", str(tmp_path / "models"))
    return tmp_path / "outputs"


def model(folder: Path, size: int = 100) -> Path:
    """A folder as a published model has it, its weights of `size` bytes."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(b"x" * size)
    return folder


def test_models_of_all_places_are_found_smallest_first(tmp_path: Path, outputs: Path) -> None:
    model(tmp_path / "models" / "of-mine", 300)
    model(tmp_path / "hub" / "models--people--of-the-hub" / "snapshots" / "1", 200)
    (tmp_path / "models" / "packed.gguf").write_bytes(b"GGUF" * 25)
    assert models_here(outputs) == ["packed", "people/of-the-hub", "of-mine"]


def test_what_the_lab_made_adapters_and_large_models_are_left_out(tmp_path: Path, outputs: Path) -> None:
    model(tmp_path / "models" / "small", 10)
    model(tmp_path / "models" / "large", 11)
    model(outputs / "exported" / "mine", 10)
    adapter = tmp_path / "models" / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"x")
    assert models_here(outputs, most_bytes=10) == ["small"]


def test_nothing_here_is_no_error(outputs: Path) -> None:
    assert models_here(outputs) == []


def test_a_check_on_a_model_that_is_not_there_is_not_planned(tmp_path: Path, outputs: Path) -> None:
    model(tmp_path / "models" / "of-mine")
    paper = read_paper("attention-sinks")
    with pytest.raises(UsageError, match="There is no model 'first-gpt'"):
        plan_check(CheckRequest(paper, "minutes", outputs, ["sink"], models=["of-mine", "first-gpt@final"]))
    assert plan_check(CheckRequest(paper, "minutes", outputs, ["sink"], models=["of-mine"])).options["models"]
