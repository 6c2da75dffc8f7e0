"""Fine-tuning runs as a worker leaves them, made by hand, with weights of which each number counts."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import tiny_models
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from llmlab.core.finetuning_settings import BaseSettings, FinetuneSettings
from llmlab.core.kinds import FINETUNING
from llmlab.models.source import open_model
from llmlab.store.checkpoints import MODEL_FILE, STATE_FILE, commit
from llmlab.store.run_folder import RunFolder, RunInfo, RunStatus

SCRATCH_TARGETS = ["attention.qkv", "attention.out", "feed_forward.up", "feed_forward.down"]
LLAMA_TARGETS = ["q_proj", "v_proj", "up_proj", "down_proj"]


def new_tuned(outputs: Path, base: str, name: str = "tuned", method: str = "lora") -> RunFolder:
    """A fine-tuning run without checkpoints that has ended."""
    run = RunFolder(outputs / FINETUNING / name)
    run.checkpoints.mkdir(parents=True)
    settings = FinetuneSettings(model=BaseSettings(base=base, method=method))
    run.write_info(RunInfo(name, FINETUNING, 0.0, settings))
    run.write_status(RunStatus(state="finished", step=100, steps=100))
    return run


def add_checkpoint(run: RunFolder, step: int, write: Callable[[Path], None], *labels: str) -> Path:
    """A checkpoint of a fine-tuning run; `write` makes the files of what was trained."""
    settings = run.info().settings_as(FinetuneSettings).model

    def files(folder: Path) -> None:
        write(folder)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's
        torch.save({}, folder / STATE_FILE)

    about = {"run": run.id, "method": settings.method, "base": settings.base, "tokens": step, "parameters": 1000}
    labels = labels or ("periodic",)
    return commit(run.checkpoints, step, files, labels=labels, val_loss=2.0 - step / 1000, about=about).path


def lora_run(outputs: Path, base: str, targets: list[str], name: str = "tuned", **changes: Any) -> RunFolder:
    """A run with two adapters: step 50, and step 100 (final)."""
    run = new_tuned(outputs, base, name)
    for step, label in ((50, "periodic"), (100, "final")):
        add_checkpoint(
            run, step, lambda folder, s=step: write_adapter(base, outputs, folder, targets, s, **changes), label
        )
    return run


def full_run(outputs: Path, base: str, name: str = "whole") -> RunFolder:
    """A run whose checkpoint, step 100, has all weights of its base moved a little."""
    run = new_tuned(outputs, base, name, "full")

    def write(folder: Path) -> None:
        model = open_model(base, outputs).model
        torch.manual_seed(3)
        weights = {key: value + 0.1 * torch.randn_like(value) for key, value in _weights(model)}
        safetensors.torch.save_file(weights, folder / MODEL_FILE)

    add_checkpoint(run, 100, write, "final")
    return run


def write_adapter(base: str, outputs: Path, folder: Path, targets: list[str], seed: int, **changes: Any) -> None:
    """An adapter in PEFT's format, written by PEFT, for any model that the lab opens."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft_model(open_model(base, outputs).model, targets, seed, **changes)
        wrapped.save_pretrained(folder)


def peft_model(model: nn.Module, targets: list[str], seed: int, **changes: Any) -> Any:
    """PEFT's own model with a LoRA of which every number counts."""
    torch.manual_seed(seed)
    wrapped = get_peft_model(model, LoraConfig(**({"r": 4, "lora_alpha": 6, "target_modules": targets} | changes)))
    with torch.no_grad():
        for key, parameter in wrapped.named_parameters():
            if "lora" in key:
                parameter.normal_(0.0, 0.3)
    return wrapped.eval()


def llama_folder(folder: Path, **changes: Any) -> Path:
    """A tiny Llama of transformers with its tokenizer."""
    return tiny_models.save(tiny_models.llama(**changes), folder)


def rebased(run: RunFolder, base: str) -> RunFolder:
    """The same run as if it had another base."""
    info = run.info()
    model = replace(info.settings_as(FinetuneSettings).model, base=base)
    run.write_info(replace(info, settings=replace(info.settings_as(FinetuneSettings), model=model)))
    return run


def copy_adapter(checkpoint: Path, folder: Path) -> Path:
    """An adapter by itself, as others publish it."""
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(checkpoint / name, folder / name)
    return folder


def _weights(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(key, value.detach().clone()) for key, value in model.named_parameters()]
