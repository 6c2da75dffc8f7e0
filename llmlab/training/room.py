"""Whether a run fits into memory, and what would: said before it starts, and when memory ran out. No torch.

What takes most is made smaller first: activations by smaller batches or a shorter context, the vocabulary by another
tokenizer, what learns by a smaller model or by adapters.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmlab.core.config import differences, with_values
from llmlab.core.errors import LabError, UsageError
from llmlab.core.finetuning_settings import FULL, LORA, QLORA, FinetuneSettings
from llmlab.core.memory import gigabytes
from llmlab.core.settings import PretrainSettings
from llmlab.core.task_settings import TaskSettings
from llmlab.gpt.estimate import Memory, estimate, expected_vocab_size
from llmlab.store.run_folder import RunSettings
from llmlab.training.finetuning.estimate import estimate as estimate_finetuning

# Estimates are within this share of what is measured (tests/benchmarks/): only what is further off cannot fit.
_ERROR = 0.15
# A row of a fine-tuning run that has hardly any activations: how long its examples are is known once they are read.
_FEW_TOKENS = 16
_TOKENIZERS = ("gpt2", "compact", "bpe", "char")  # by falling size of the vocabulary
_NAMES = {
    "learning": "weights, gradients and optimizer",
    "activations": "activations",
    "vocabulary": "logits over the vocabulary",
    "process": "the process itself",
}


def need_of(settings: RunSettings, outputs: Path) -> Memory | None:
    """What a run holds at its peak: at least, for a fine-tuning run, whose examples are not read yet. None for a task.

    LabError where a base is not here.
    """
    if isinstance(settings, FinetuneSettings):
        return estimate_finetuning(settings, outputs, row_tokens=_FEW_TOKENS).memory
    return None if isinstance(settings, TaskSettings) else estimate(settings).memory


def certainly_above(need: Memory, free: int) -> bool:
    """Whether a run needs more than the `free` bytes even where its estimate is too high by as much as it can."""
    return need.total * (1 - _ERROR) > free


def require_room(settings: RunSettings, need: Memory, free: int, outputs: Path) -> None:
    """LabError, with what would fit, when a run needs more than the `free` bytes for certain."""
    if not certainly_above(need, free):
        return
    raise LabError(
        "This run does not fit into memory.",
        f"{needed_text(need)} {gigabytes(free)} are free.",
        advice(settings, lambda other: need_of(other, outputs), free),
    )


def ran_out(settings: RunSettings, outputs: Path, free: int) -> LabError:
    """What to say when memory ran out in spite of the estimate. free: what there was for the run."""

    def need(other: RunSettings) -> Memory | None:
        if isinstance(other, FinetuneSettings):  # it trained, so rows may have been full
            return estimate_finetuning(other, outputs).memory
        return need_of(other, outputs)

    try:
        known = need(settings)
    except LabError:  # the base is gone
        known = None
    if known is None:
        return LabError("There was not enough memory.", "", "Try a smaller batch: data.batch_size.")
    # What was tried did not fit, whatever is free now.
    return LabError(
        "There was not enough memory.", needed_text(known), advice(settings, need, min(free, known.total - 1))
    )


def computes_in_main_memory(settings: RunSettings) -> bool:
    """As far as that is known without torch: a device of its own has a memory of its own, which the worker looks at."""
    device = settings.train.device
    return device == "cpu" or (device == "auto" and shutil.which("nvidia-smi") is None)


def needed_text(need: Memory) -> str:
    """`About 1.30 GB are needed: activations 0.90 GB, ...`, the largest first."""
    parts = sorted(_NAMES, key=lambda name: -getattr(need, name))
    told = ", ".join(f"{_NAMES[name]} {gigabytes(getattr(need, name))}" for name in parts if getattr(need, name))
    return f"About {gigabytes(need.total)} are needed: {told}."


def advice(settings: RunSettings, need_of: Callable[[RunSettings], Memory | None], free: int) -> str:
    """The settings with which it would fit, found by making smaller what takes most, again and again."""
    smaller, known = settings, need_of(settings)
    while known is not None and known.total > free:
        changes = _smaller(smaller, known)
        if changes is None:
            tried = _told(settings, smaller)
            even = f"Even with {tried} it needs {gigabytes(known.total)}: choose" if tried else "Choose"
            return f"{even} a smaller model, or close other programs."
        smaller = with_values(smaller, changes)
        known = need_of(smaller)
    return f"Try {_told(settings, smaller)}: about {gigabytes(known.total)}." if known is not None else ""


def _told(before: RunSettings, after: RunSettings) -> str:
    return ", ".join(f"{info.key}={value}" for info, _, value in differences(before, after))


def _smaller(settings: RunSettings, need: Memory) -> dict[str, Any] | None:
    """Settings that change, for the largest part that can become smaller; None where none can."""
    levers = _TUNING if isinstance(settings, FinetuneSettings) else _PRETRAINING
    for part in sorted(levers, key=lambda name: -getattr(need, name)):
        for lever in levers[part]:
            changed = lever(settings)
            if changed is not None and _possible(settings, changed):
                return changed
    return None


def _possible(settings: RunSettings, changes: Mapping[str, Any]) -> bool:
    try:
        return with_values(settings, changes) != settings
    except UsageError:
        return False


def _smaller_batch(settings: Any) -> dict[str, Any] | None:
    """Half of it, with as many tokens a step."""
    size = settings.data.batch_size
    half = -(-size // 2)
    if size == 1:
        return None
    return {"data.batch_size": half, "train.grad_accum": settings.train.grad_accum * -(-size // half)}


def _shorter_context(settings: PretrainSettings) -> dict[str, Any] | None:
    return {"model.block_size": settings.model.block_size // 2} if settings.model.block_size >= 32 else None


def _shorter_rows(settings: FinetuneSettings) -> dict[str, Any] | None:
    return {"data.max_length": settings.data.max_length // 2} if settings.data.max_length >= 32 else None


def _smaller_vocabulary(settings: PretrainSettings) -> dict[str, Any] | None:
    here = expected_vocab_size(settings.data)
    for name in _TOKENIZERS:
        changed = with_values(settings, {"data.tokenizer": name}).data
        if expected_vocab_size(changed) < here:
            return {"data.tokenizer": name}
    return None


def _smaller_model(settings: PretrainSettings) -> dict[str, Any] | None:
    """A smaller vocabulary where the embedding is most of it, else half the layers, else half the width."""
    model, known = settings.model, estimate(settings)
    if 2 * known.embedding_parameters > known.parameters and (changed := _smaller_vocabulary(settings)) is not None:
        return changed
    if model.n_layer > 4:
        return {"model.n_layer": -(-model.n_layer // 2)}
    if model.n_head % 2 == 0 and model.n_embd >= 64:  # heads keep their width
        return {"model.n_embd": model.n_embd // 2, "model.n_head": model.n_head // 2, "model.n_kv_head": 0}
    return {"model.n_embd": model.n_embd // 2} if model.n_embd >= 64 else None


def _fewer_that_learn(settings: FinetuneSettings) -> dict[str, Any] | None:
    less = {FULL: LORA, LORA: QLORA}.get(settings.model.method)
    return None if less is None else {"model.method": less}


_Levers = Mapping[str, tuple[Callable[[Any], dict[str, Any] | None], ...]]
_PRETRAINING: _Levers = {
    "activations": (_smaller_batch, _shorter_context),
    "vocabulary": (_smaller_vocabulary, _smaller_batch),
    "learning": (_smaller_model,),
}
_TUNING: _Levers = {
    "activations": (_smaller_batch, _shorter_rows),
    "vocabulary": (_smaller_batch, _shorter_rows),
    "learning": (_fewer_that_learn,),
}
