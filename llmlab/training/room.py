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
from llmlab.core.memory import gigabytes
from llmlab.core.processes import available_cores
from llmlab.core.run_settings import RunSettings
from llmlab.core.settings import PretrainSettings
from llmlab.gpt.estimate import Memory
from llmlab.training.kinds import kind_of

# Estimates are within this share of what is measured (tests/benchmarks/): only what is further off cannot fit.
_ERROR = 0.15
_NAMES = {
    "learning": "weights, gradients and optimizer",
    "activations": "activations",
    "vocabulary": "logits over the vocabulary",
    "process": "the process itself",
}


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
        advice(settings, lambda other: kind_of(other).memory(other, outputs), free),
    )


def ran_out(settings: RunSettings, outputs: Path, free: int) -> LabError:
    """What to say when memory ran out in spite of the estimate. free: what there was for the run."""

    def need(other: RunSettings) -> Memory | None:
        return kind_of(other).memory(other, outputs, read=True)  # it trained, so rows may have been full

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
    each = f" by {need.processes} processes, by each" if need.processes > 1 else ""
    others = (("torchrun, which starts them", need.torchrun), ("saving, in the first", need.saving))
    told += "".join(f"; {name} {gigabytes(count)}" for name, count in others if count)
    return f"About {gigabytes(need.total)} are needed{each}: {told}."


def crowded(settings: RunSettings) -> str:
    """What to say where a run's processes do not fit its batches or this machine's cores; nothing where they do."""
    count, cores = settings.distributed.count, available_cores()
    if count > (rows := settings.data.batch_size):
        what = "sequences" if isinstance(settings, PretrainSettings) else "examples"
        return f"{count} processes share {rows} {what} a batch: {count - rows} of them have nothing to compute."
    if count == 1 or not computes_in_main_memory(settings):
        return ""
    if count > cores:
        return f"{count} processes share {cores} core{'s' if cores > 1 else ''}: more than {cores} are not faster here."
    if cores >= 2 * count and not settings.train.threads:
        use = f"{count} processes of one thread use {count} of {cores} cores"
        return f"{use}: try train.threads={cores // count}."
    return ""


def advice(settings: RunSettings, need: Callable[[RunSettings], Memory | None], free: int) -> str:
    """The settings with which it would fit, found by making smaller what takes most, again and again."""
    smaller, known = settings, need(settings)
    while known is not None and known.total > free:
        changes = _smaller(smaller, known)
        if changes is None:
            tried = _told(settings, smaller)
            even = f"Even with {tried} it needs {gigabytes(known.total)}: choose" if tried else "Choose"
            return f"{even} a smaller model, or close other programs."
        smaller = with_values(smaller, changes)
        known = need(smaller)
    return f"Try {_told(settings, smaller)}: about {gigabytes(known.total)}." if known is not None else ""


def _told(before: RunSettings, after: RunSettings) -> str:
    return ", ".join(f"{info.key}={value}" for info, _, value in differences(before, after))


def _smaller(settings: RunSettings, need: Memory) -> dict[str, Any] | None:
    """Settings that change, for the largest part that can become smaller; None where none can."""
    levers = kind_of(settings).levers
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
