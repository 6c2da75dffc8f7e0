"""Unsloth: the same adapters as PEFT's, trained faster and in less memory on a CUDA device, where it is installed.

It rewrites modules of transformers when it is imported, so it is imported in a training worker alone, and only for a
run that asks for it. What it trained is an adapter in PEFT's format, and is looked into without it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import ALL, ATTENTION, FEED_FORWARD, QLORA, FinetuneSettings
from llmlab.core.paths import python_command
from llmlab.core.progress import Progress, quiet

if TYPE_CHECKING:  # the window probes, and has no torch
    from torch import nn

# Importing it compiles and patches: half a minute on a cold disk, and a broken installation may hang.
_PROBE_SECONDS = 180.0
_LOOK_SECONDS = 0.2
_PROBE = """
import torch
if not torch.cuda.is_available():
    raise SystemExit("There is no CUDA device here.")
import unsloth
"""
# Layers of a block by the names that Unsloth's own kernels know (its documentation of get_peft_model).
_LAYERS = {ATTENTION: ["q_proj", "k_proj", "v_proj", "o_proj"], FEED_FORWARD: ["gate_proj", "up_proj", "down_proj"]}


def probe_unsloth(progress: Progress = quiet) -> str | None:
    """Why Unsloth cannot be used here, a sentence; None when it can. It is tried in a process of its own, which ends
    with what `progress` raises meanwhile."""
    if importlib.util.find_spec("unsloth") is None:
        return 'Unsloth is not installed (pip install ".[unsloth]", on a machine with CUDA).'
    end, errors = time.monotonic() + _PROBE_SECONDS, None
    command = python_command(_PROBE)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as probe:
        try:
            while errors is None:
                if time.monotonic() > end:
                    return f"Unsloth did not start within {_PROBE_SECONDS:.0f} seconds."
                progress("Trying Unsloth", 0, 0)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    errors = probe.communicate(timeout=_LOOK_SECONDS)[1]
        finally:
            probe.kill()  # nothing where it has ended
    if probe.returncode == 0:
        return None
    said = errors.strip().splitlines()
    return said[-1] if said else f"Unsloth ended with the code {probe.returncode}."


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
    return FastLanguageModel.get_peft_model(
        model,
        r=lora.rank,
        target_modules=targets,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias="none",
        use_gradient_checkpointing="unsloth",
        random_state=seed,
    )


def unsloth_logits(model: nn.Module, inputs: dict[str, Any]) -> Any:
    """[B, T, V]: it leaves logits out of its answers while it trains, unless asked each time."""
    _ask_for_logits()
    return model(**inputs).logits


def _ask_for_logits() -> None:
    os.environ["UNSLOTH_RETURN_LOGITS"] = "1"  # github.com/unslothai/unsloth/issues/3071: it is forgotten between steps
