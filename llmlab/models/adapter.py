"""Opening what was fine-tuned: a base and an adapter, or a base with other weights, as one plain model.

An adapter is merged in memory, so that every panel sees a model like any other; files stay as they are. Adapters on
the lab's own GPT, also where it was exported as a GPT-2, are merged by `W + scale B A` itself, those on other models
of transformers by PEFT. One that was trained on weights in 4 bits (QLoRA) is merged into the weights that those were
made of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import nn

from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import FULL, FinetuneSettings
from llmlab.core.progress import Progress, quiet
from llmlab.gpt.model import GPT
from llmlab.models.adapter_file import BASE_DIGEST, Factors, has_own_names, other_form, read_factors, read_settings
from llmlab.models.adapter_patterns import require_quick
from llmlab.models.file_sources import Source
from llmlab.models.huggingface import translated, without_compiler
from llmlab.models.model import OpenModel, require_finite
from llmlab.models.weights import count_parameters, weight_shapes
from llmlab.store.checkpoints import ADAPTER_WEIGHTS_FILE, MODEL_FILE, Checkpoint, require_whole
from llmlab.store.run_folder import RunFolder

_FLOAT = 4  # bytes of a weight in fp32
# PEFT's `init_lora_weights` that read no weight of the base; the others (PiSSA, OLoRA, ...) also change it.
_BLIND_STARTS = ("gaussian", "orthogonal", "mica")


def open_adapted(
    below: Source, adapter: Path, reference: str, progress: Progress = quiet, *, with_bytes: int = 0
) -> OpenModel:
    """The base with the adapter merged into it, in fp32 on the CPU. with_bytes: memory that is needed besides.

    LabError when the adapter is damaged, was made for another base, or cannot be merged.
    """
    base, model = _with_adapter(below, adapter, adapter.name, progress, with_bytes)
    return OpenModel(reference, f"{base.name} + {_name_of(adapter)}", "adapter", model, base.tokenizer)


def open_fine_tuned(
    below: Source,
    run: RunFolder,
    checkpoint: Checkpoint,
    named: str,
    progress: Progress = quiet,
    *,
    with_bytes: int = 0,
) -> OpenModel:
    """A checkpoint of a run that fine-tunes: its base with the adapter merged, or with all weights replaced.

    named: how the run is called in the reference. LabError when the checkpoint, or the base, is damaged or gone.
    """
    what = f"{run.id}@{checkpoint.step}"
    progress(f"Checking {what}", 0, 3)
    require_whole(checkpoint, what)
    if run.info().settings_as(FinetuneSettings).model.method == FULL:
        base, model = _with_weights(below, checkpoint.path, what, progress, with_bytes)
    else:
        base, model = _with_adapter(below, checkpoint.path, what, progress, with_bytes)
    return OpenModel(
        reference=f"{named}@{checkpoint.step}",
        name=f"{run.id}, step {checkpoint.step:,}",
        kind="finetuned",
        model=model,
        tokenizer=base.tokenizer,
        step=checkpoint.step,
    )


# Adapters ---------------------------------------------------------------------------------------------------------


def _with_adapter(
    below: Source, folder: Path, name: str, progress: Progress, with_bytes: int
) -> tuple[OpenModel, nn.Module]:
    """The base, and the model that it has become."""
    shapes = weight_shapes(folder, f"The adapter {name}", ADAPTER_WEIGHTS_FILE)
    size = sum(map(math.prod, shapes.values())) * _FLOAT
    _require_base(below, folder, name)
    base = below.open(progress, with_bytes=2 * size + with_bytes)
    progress("Merging the adapter", 0, 1)
    plain = isinstance(base.model, GPT) or (_is_gpt2(base.model) and has_own_names(shapes))
    merged = _with_factors(base, folder, name) if plain else _merged(base, folder, name)
    require_finite(merged, f"The adapter {name} on {base.name}")
    progress("Merging the adapter", 1, 1)
    return base, merged


def _require_harmless(settings: Mapping[str, Any], most: int, name: str) -> None:
    """LabError for settings by which PEFT would import, open or allocate what the adapter's weights do not need.

    most: the largest rank that they can have.
    """
    from peft import PeftType, PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    def refused(why: str, do: str = "") -> LabError:
        return LabError(f"The adapter {name} cannot be opened.", why, do)

    if settings.get("megatron_config"):  # PEFT would import a module that the file names
        raise refused("It is made for Megatron.")
    kind = settings.get("peft_type", PeftType.LORA)
    if not isinstance(kind, str) or kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise refused(f"It is of the kind {kind!r:.40}, which PEFT does not know.", "A newer peft may know it.")
    # An X-LoRA names adapters of its own, which PEFT would open.
    if kind == PeftType.XLORA or issubclass(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)], PromptLearningConfig):
        raise refused(
            f"It is of the kind {kind}, which does not change weights.",
            "Adapters that can be merged (LoRA and its kin) can be opened.",
        )
    if settings.get("layer_replication"):
        raise refused("It repeats layers of its base (layer_replication), which the lab does not.")
    named = settings.get("rank_pattern")
    for rank in (settings.get("r", 8), *(named.values() if isinstance(named, dict) else ())):
        strange = type(rank) is not int or not 1 <= rank <= most
        # Others call by that name what may be 0 or missing, or list it; of LoKr's, a large one says that there is none.
        if strange and (kind == PeftType.LORA or (isinstance(rank, int) and rank > most and kind != PeftType.LOKR)):
            raise refused(
                f"Its settings say rank {f'{rank:,}' if isinstance(rank, int) else f'{rank!r:.40}'}, "
                f"and its weights have {most:,} at most.",
                "Its adapter_config.json may be that of another adapter.",
            )


def _require_base(below: Source, folder: Path, name: str) -> None:
    """LabError when the adapter says which base it was trained on, and this is another."""
    try:
        with safetensors.safe_open(folder / ADAPTER_WEIGHTS_FILE, framework="pt") as file:
            about = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise LabError(
            f"The adapter {name} cannot be opened.",
            f"Its weights are missing or damaged: {error}.",
            "Choose another adapter.",
        ) from error
    wanted = about.get(BASE_DIGEST)
    if wanted is not None and not below.has_digest(wanted):
        raise LabError(
            f"The adapter {name} was not made for {below}.",
            "Its checksum of the weights that it was trained on does not match these.",
            f"Name the base that it was trained on: {about.get('base', 'it does not say which')}.",
        )


@torch.no_grad()
def _with_factors(base: OpenModel, folder: Path, name: str) -> nn.Module:
    """Adds scale B A to each weight that the adapter is about, in place. LabError when one does not fit."""
    weights = {key.removesuffix(".weight"): weight for key, weight in base.model.named_parameters()}
    factors: list[Factors] = []
    for pair in read_factors(folder):
        if pair.module not in weights:
            pair = other_form(pair) or pair
        weight = weights.get(pair.module)
        if weight is None:
            raise _misfit(name, base.name, f"It changes {pair.module}, which {base.name} does not have.")
        wanted = (pair.a.shape[1], pair.b.shape[0]) if pair.transposed else (pair.b.shape[0], pair.a.shape[1])
        if tuple(weight.shape) != wanted:
            raise _misfit(name, base.name, f"Their {pair.module} have the shapes {tuple(weight.shape)} and {wanted}.")
        factors.append(pair)
    for pair in factors:
        weights[pair.module].add_(torch.from_numpy(pair.delta.copy()))
    return base.model


def _is_gpt2(model: nn.Module) -> bool:
    return getattr(getattr(model, "config", None), "model_type", None) == "gpt2"


def _merged(base: OpenModel, adapter: Path, name: str) -> nn.Module:
    with without_compiler():
        from peft import PeftModel, get_peft_model_state_dict

    settings = read_settings(adapter)
    start = settings.get("init_lora_weights")
    blind = not isinstance(start, str) or start.lower() in _BLIND_STARTS
    if blind:
        shapes = weight_shapes(adapter, f"The adapter {name}", ADAPTER_WEIGHTS_FILE).values()
        extents = [extent for shape in shapes for extent in shape]
    else:  # a decomposition of a weight has no more parts than the weight has rows, or columns
        extents = [min(weight.shape) for weight in base.model.parameters() if weight.dim() == 2]
    _require_harmless(settings, max(extents, default=0), name)
    require_quick(settings, (module for module, _ in base.model.named_modules()), name)
    with translated(f"The adapter {name} on {base.name}"):
        try:
            wrapped: Any = PeftModel.from_pretrained(
                base.model, adapter, local_files_only=True, is_trainable=False, low_cpu_mem_usage=blind
            )  # so that memory is taken for what the file holds, and not for what its settings say
        except RuntimeError as error:
            if "size mismatch" not in str(error):
                raise
            raise _misfit(name, base.name, "Their weights have other shapes.") from error
        with safetensors.safe_open(adapter / ADAPTER_WEIGHTS_FILE, framework="pt") as file:
            saved = set(file.keys())
        _require_fit(saved, set(get_peft_model_state_dict(wrapped)), name, base.name)
        model: nn.Module = wrapped.merge_and_unload().eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def _require_fit(saved: set[str], used: set[str], name: str, base_name: str) -> None:
    """LabError when weights of the adapter find no place in the base, or places no weights."""
    strange = sorted(saved - used) or sorted(used - saved)
    if strange:
        raise _misfit(name, base_name, f"They do not share {strange[0]} ({len(saved ^ used)} weights differ).")


def _misfit(name: str, base_name: str, why: str) -> LabError:
    return LabError(f"The adapter {name} was not made for {base_name}.", why, "Name the base that it was trained on.")


def _name_of(adapter: Path) -> str:
    """A checkpoint's folder alone says nothing: `step-00000100` is one of many."""
    run = adapter.parent.parent
    return f"{run.name}, {adapter.name}" if (run / "run.json").is_file() else adapter.name


# All weights ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _with_weights(
    below: Source, folder: Path, name: str, progress: Progress, with_bytes: int
) -> tuple[OpenModel, nn.Module]:
    """The base with every weight of a checkpoint in its place."""
    size = count_parameters(folder, name) * _FLOAT
    base = below.open(progress, with_bytes=size + with_bytes)
    progress("Loading the weights", 0, 0)
    places = base.model.state_dict()
    tied = _tied(base.model)
    with translated(name), safetensors.safe_open(folder / MODEL_FILE, framework="pt") as file:
        saved = set(file.keys())
        strange = sorted(saved - set(places)) or sorted(key for key in set(places) - saved if not tied[key] & saved)
        if strange:
            raise _other_base(name, base.name, f"They do not share {strange[0]}.")
        for key in file.keys():  # noqa: SIM118 (a file is no mapping)
            weight = file.get_tensor(key)
            if weight.shape != places[key].shape:
                raise _other_base(name, base.name, f"Their {key} have other shapes.")
            places[key].copy_(weight)
    require_finite(base.model, name)
    return base, base.model.eval()


def _tied(model: nn.Module) -> dict[str, set[str]]:
    """The other names of each weight: a file holds a tied one once."""
    state = model.state_dict()
    names: dict[int, set[str]] = {}
    for key, value in state.items():
        names.setdefault(value.data_ptr(), set()).add(key)
    return {key: names[value.data_ptr()] - {key} for key, value in state.items()}


def _other_base(name: str, base_name: str, why: str) -> LabError:
    return LabError(f"{name} is not a model of the kind of {base_name}.", why, "Has its base been replaced?")
