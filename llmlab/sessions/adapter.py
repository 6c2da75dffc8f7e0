"""Opening a PEFT adapter on its base: merged in memory, so that every panel sees one plain model; files untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors
from torch import nn

from llmlab.errors import LabError
from llmlab.files import read_json
from llmlab.progress import Progress, quiet
from llmlab.sessions.available import ADAPTER_FILE
from llmlab.sessions.gguf_file import open_gguf
from llmlab.sessions.hub import hub_snapshot
from llmlab.sessions.huggingface import open_folder, translated
from llmlab.sessions.model import OpenModel
from llmlab.sessions.reference import AdaptedModel, GgufFile, HubModel, ModelFolder
from llmlab.sessions.weights import count_numbers

WEIGHTS_FILE = "adapter_model.safetensors"
_FLOAT = 4  # bytes of a weight in fp32


def open_adapted(reference: AdaptedModel, progress: Progress = quiet) -> OpenModel:
    """The base with the adapter merged into it, in fp32 on the CPU.

    LabError when the adapter is damaged, was made for another base, or cannot be merged.
    """
    adapter = reference.adapter
    settings = read_json(adapter / ADAPTER_FILE)
    if settings is None:
        raise LabError(f"The adapter {adapter.name} cannot be opened.", f"Its {ADAPTER_FILE} is damaged.")
    if settings.get("megatron_config"):  # PEFT would import a module that the file names
        raise LabError(f"The adapter {adapter.name} cannot be opened.", "It is made for Megatron.")
    size = count_numbers(adapter, f"The adapter {adapter.name}", WEIGHTS_FILE) * _FLOAT
    base = _open_base(reference, 2 * size, progress)
    progress("Merging the adapter", 0, 1)
    model = _merged(base.model, adapter, base.name)
    progress("Merging the adapter", 1, 1)
    return OpenModel(str(reference), f"{base.name} + {adapter.name}", "adapter", model, base.tokenizer)


def _open_base(reference: AdaptedModel, with_bytes: int, progress: Progress) -> OpenModel:
    match reference.base:
        case ModelFolder(path):
            return open_folder(path, str(path), progress, with_bytes=with_bytes)
        case HubModel(name):
            return open_folder(hub_snapshot(name, progress), name, progress, name=name, with_bytes=with_bytes)
        case GgufFile(path):
            return open_gguf(path, progress, with_bytes=with_bytes)


def _merged(base: nn.Module, adapter: Path, base_name: str) -> nn.Module:
    from peft import PeftModel, get_peft_model_state_dict

    with translated(f"The adapter {adapter.name} on {base_name}"):
        try:
            wrapped: Any = PeftModel.from_pretrained(base, adapter, local_files_only=True, is_trainable=False)
        except RuntimeError as error:
            if "size mismatch" not in str(error):
                raise
            raise _misfit(adapter, base_name, "Their weights have other shapes.") from error
        if not hasattr(wrapped, "merge_and_unload") or wrapped.active_peft_config.is_prompt_learning:
            raise LabError(
                f"The adapter {adapter.name} cannot be opened.",
                f"It is of the kind {wrapped.active_peft_config.peft_type.value}, which is no change of weights.",
                "Adapters that can be merged (LoRA and its kin) can be opened.",
            )
        with safetensors.safe_open(adapter / WEIGHTS_FILE, framework="pt") as file:
            saved = set(file.keys())
        _require_fit(saved, set(get_peft_model_state_dict(wrapped)), adapter, base_name)
        model: nn.Module = wrapped.merge_and_unload().eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def _require_fit(saved: set[str], used: set[str], adapter: Path, base_name: str) -> None:
    """LabError when weights of the adapter find no place in the base, or places no weights."""
    strange = sorted(saved - used) or sorted(used - saved)
    if strange:
        raise _misfit(adapter, base_name, f"They do not share {strange[0]} ({len(saved ^ used)} weights differ).")


def _misfit(adapter: Path, base_name: str, why: str) -> LabError:
    return LabError(
        f"The adapter {adapter.name} was not made for {base_name}.", why, "Name the base that it was trained on."
    )
