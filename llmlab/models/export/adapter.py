"""An adapter as a folder that PEFT opens on its base, with the tokenizer and the ends that it learned.

One on the lab's own GPT is written for the GPT-2 that `llmlab-run export` makes of that base: the same factors under
its names, on transposed matrices (Conv1D). Where the base is no GPT-2 (rotary positions, say) there is no such
folder to sit on, and the lab's own names stay.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import safetensors
from safetensors.numpy import save_file

from llmlab.core.errors import LabError
from llmlab.core.files import write_json
from llmlab.gpt.gpt2_settings import refusal
from llmlab.models.adapter_file import (
    ADAPTER_WEIGHTS_FILE,
    PEFT_PREFIX,
    Factors,
    has_own_names,
    other_form,
    read_factors,
    read_settings,
)
from llmlab.models.available import ADAPTER_FILE, GENERATION_FILE
from llmlab.models.export.chat_files import set_ends, write_tokenizer
from llmlab.models.file_sources import Files, Folder, Source
from llmlab.models.huggingface import translated
from llmlab.models.weights import weight_shapes


def write_adapter(adapter: Path, base: Source, out: Path) -> None:
    """Writes the adapter in the folder `adapter` to `out`, an empty folder. base: what it sits on.

    LabError when it is damaged, its base is not here, or it changes what a GPT-2's adapter cannot.
    """
    own = base.own_settings()
    names = weight_shapes(adapter, f"The adapter {adapter.name}", ADAPTER_WEIGHTS_FILE)
    if own is not None and refusal(own) is None and has_own_names(names):
        settings = _write_as_gpt2(adapter, own.n_layer, out)
    else:
        settings = read_settings(adapter)
        shutil.copyfile(adapter / ADAPTER_WEIGHTS_FILE, out / ADAPTER_WEIGHTS_FILE)
    write_json(out / ADAPTER_FILE, settings | {"base_model_name_or_path": str(base), "inference_mode": True})
    tokenizer = base.tokenizer()
    generation = _generation_config(base)
    set_ends(generation, tokenizer, fine_tuned=True)
    # Also settings of sampling that nothing uses, which many models have and `save_pretrained` refuses to write.
    generation.to_json_file(out / GENERATION_FILE)
    write_tokenizer(tokenizer, out, fine_tuned=True)


def _write_as_gpt2(adapter: Path, layers: int, out: Path) -> dict[str, Any]:
    """The factors under a GPT-2's names; the settings that go with them."""
    before, pairs = read_settings(adapter), list[Factors]()
    for pair in read_factors(adapter):
        theirs = other_form(pair)
        if theirs is None:
            raise LabError(
                f"The adapter {adapter.name} cannot be written for PEFT.",
                f"It changes {pair.module}, which is not a layer of a block and shares its numbers in a GPT-2.",
                "Use --to hf for the merged model.",
            )
        pairs.append(theirs)
    weights = {f"{PEFT_PREFIX}{pair.module}.lora_A.weight": pair.a for pair in pairs}
    weights |= {f"{PEFT_PREFIX}{pair.module}.lora_B.weight": pair.b for pair in pairs}
    with safetensors.safe_open(adapter / ADAPTER_WEIGHTS_FILE, framework="np") as file:
        about = file.metadata()
    save_file(weights, out / ADAPTER_WEIGHTS_FILE, about or {"format": "pt"})
    rank, alpha = pairs[0].rank, _alpha(pairs[0])
    parts = dict.fromkeys(pair.module.split(".", 3)[3] for pair in pairs)  # transformer.h.3.attn.c_attn
    everywhere = len(pairs) == layers * len(parts)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": before.get("lora_dropout", 0.0),
        "target_modules": list(parts) if everywhere else [pair.module for pair in pairs],
        "rank_pattern": {pair.module: pair.rank for pair in pairs if pair.rank != rank},
        "alpha_pattern": {pair.module: _alpha(pair) for pair in pairs if _alpha(pair) != alpha},
        "fan_in_fan_out": True,
        "bias": "none",
    }


def _alpha(pair: Factors) -> float:
    """What PEFT divides by the rank; whole where it is."""
    alpha = round(pair.scale * pair.rank, 9)
    return int(alpha) if alpha.is_integer() else alpha


def _generation_config(base: Source) -> Any:
    """transformers' GenerationConfig of a base, as its files have it. LabError when they cannot be read."""
    from transformers import GenerationConfig

    below = base.bottom
    if not isinstance(below, Files):
        return GenerationConfig()
    config = below.config()
    with translated(below.name):
        if isinstance(below, Folder) and (folder := below.settings_folder() / GENERATION_FILE).is_file():
            return GenerationConfig.from_pretrained(folder.parent, local_files_only=True)
        return GenerationConfig.from_model_config(config)
