"""Unsloth: the same adapters as PEFT's, trained faster and in less memory on a CUDA device, where it is installed.

It rewrites modules of transformers when it is imported, so it is imported in a training worker alone, and only for a
run that asks for it. What it trained is an adapter in PEFT's format, and is looked into without it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import ALL, ATTENTION, FEED_FORWARD, QLORA, FinetuneSettings
from llmlab.core.paths import python_command

if TYPE_CHECKING:  # the window probes, and has no torch
    from torch import nn

# Importing it compiles and patches: half a minute on a cold disk, and a broken installation may hang.
_PROBE_SECONDS = 180.0
_PROBE = """
import torch
if not torch.cuda.is_available():
    raise SystemExit("There is no CUDA device here.")
import unsloth
"""
# Layers of a block by the names that Unsloth's own kernels know (its documentation of get_peft_model).
_LAYERS = {ATTENTION: ["q_proj", "k_proj", "v_proj", "o_proj"], FEED_FORWARD: ["gate_proj", "up_proj", "down_proj"]}


def probe_unsloth() -> str | None:
    """Why Unsloth cannot be used here, a sentence; None when it can. It is tried in a process of its own."""
    if importlib.util.find_spec("unsloth") is None:
        return 'Unsloth is not installed (pip install ".[unsloth]", on a machine with CUDA).'
    command = python_command(_PROBE)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"Unsloth did not start within {_PROBE_SECONDS:.0f} seconds."
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"Unsloth ended with the code {done.returncode}."


def require_unsloth() -> None:
    """LabError when Unsloth cannot be used here."""
    if reason := probe_unsloth():
        raise LabError("Unsloth cannot be used here.", reason, "Set model.backend=peft, which works anywhere.")


def open_with_unsloth(folder: Path, settings: FinetuneSettings, seed: int) -> nn.Module:
    """A Hugging Face folder, whose checks are the caller's, on the CUDA device, with adapters inserted.

    Unsloth itself is told to run no code of the model and to read no pickles.
    """
    _ask_for_logits()
    from unsloth import FastLanguageModel

    model, _ = FastLanguageModel.from_pretrained(
        model_name=str(folder),
        max_seq_length=settings.data.max_length,
        load_in_4bit=settings.model.method == QLORA,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    lora = settings.lora
    targets = [name for part, names in _LAYERS.items() if lora.targets in (ALL, part) for name in names]
    adapted: nn.Module = FastLanguageModel.get_peft_model(
        model,
        r=lora.rank,
        target_modules=targets,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias="none",
        use_gradient_checkpointing="unsloth",
        random_state=seed,
    )
    return adapted


def unsloth_logits(model: nn.Module, inputs: dict[str, Any]) -> Any:
    """[B, T, V]: it leaves logits out of its answers while it trains, unless asked each time."""
    _ask_for_logits()
    return model(**inputs).logits


def _ask_for_logits() -> None:
    os.environ["UNSLOTH_RETURN_LOGITS"] = "1"  # github.com/unslothai/unsloth/issues/3071: it is forgotten between steps
