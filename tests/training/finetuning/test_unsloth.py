"""What Unsloth opens was held to the lab's checks before: a stand-in for the library tells what reaches it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch
import tiny_models
import torch
from bases import CPU
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import BaseSettings, FinetuneSettings
from llmlab.core.progress import quiet
from llmlab.training.finetuning import backends
from llmlab.training.finetuning.backends import prepare


class FastLanguageModel:
    """Opens with transformers, and remembers what it was told."""

    told: list[dict[str, Any]]

    @classmethod
    def from_pretrained(cls, model_name: str, **told: Any) -> tuple[Any, None]:
        cls.told.append(told)
        return AutoModelForCausalLM.from_pretrained(model_name), None

    @staticmethod
    def get_peft_model(model: Any, r: int, target_modules: list[str], **_: Any) -> Any:
        return get_peft_model(model, LoraConfig(r=r, target_modules=target_modules))


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    library = ModuleType("unsloth")
    monkeypatch.setattr(library, "FastLanguageModel", FastLanguageModel, raising=False)
    monkeypatch.setitem(sys.modules, "unsloth", library)
    monkeypatch.setattr(backends, "require_unsloth", lambda: None)
    monkeypatch.setattr(FastLanguageModel, "told", [], raising=False)
    return FastLanguageModel.told


def prepared(folder: Path) -> Any:
    settings = FinetuneSettings(model=BaseSettings(base=str(folder), backend="unsloth"))
    return prepare(settings, folder.parent, CPU, quiet, 0)


def _pickled(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _incomplete(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _changed(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def _adapted(folder: Path) -> None:
    tiny_models.save_adapter(folder, folder.parent / "adapter")
    for path in (folder.parent / "adapter").iterdir():
        shutil.copy(path, folder / path.name)


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickled": (_pickled, "is a pickle"),
    "with code of its own": (_changed(model_type="mine", auto_map={"AutoConfig": "mine.Config"}), "runs no code"),
    "quantized": (_changed(quantization_config={"quant_method": "gptq"}), "are quantized"),
    "incomplete": (_incomplete, "lacks the weight"),
    "of fewer layers than its file": (_changed(num_hidden_layers=1), "has no layer"),
}


def test_unsloth_is_told_to_run_no_code_and_to_read_no_pickles(tmp_path: Path, told: list[dict[str, Any]]) -> None:
    what = prepared(tiny_models.save(tiny_models.llama(), tmp_path / "model"))
    assert what.patched
    assert what.trained_weights()
    (once,) = told
    assert (once["trust_remote_code"], once["use_safetensors"], once["local_files_only"]) == (False, True, True)


@pytest.mark.parametrize("how", SPOILT)
def test_what_the_lab_would_not_open_never_reaches_unsloth(
    tmp_path: Path, told: list[dict[str, Any]], how: str
) -> None:
    folder = tiny_models.save(tiny_models.llama(), tmp_path / "model")
    spoil, words = SPOILT[how]
    spoil(folder)
    with pytest.raises(LabError, match=words):
        prepared(folder)
    assert not told


def test_an_adapter_beside_a_model_never_reaches_unsloth(tmp_path: Path, told: list[dict[str, Any]]) -> None:
    folder = tiny_models.save(tiny_models.llama(), tmp_path / "model")
    _adapted(folder)
    with pytest.raises(LabError, match="adapter"):
        backends._require_openable(folder, "model", quiet)
    assert not told
