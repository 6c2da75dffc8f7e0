"""What can be compared here: models and runs with their checkpoints. Touches no Qt and no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmlab.core.errors import LabError
from llmlab.models.available import available_models
from llmlab.store.checkpoints import list_checkpoints
from llmlab.store.registry import short_name
from llmlab.store.run_folder import RunFolder

# Of the runs in sight; the checkpoints of others can be typed.
_MOST_RUNS = 12


def offers(outputs: Path, runs: Sequence[RunFolder], recent: Sequence[str]) -> list[tuple[str, str]]:
    """Reference and words of each: recent ones, runs newest checkpoint first, then models on this machine."""
    found = [(reference, reference) for reference in recent if reference]
    for run in runs[:_MOST_RUNS]:
        try:
            checkpoints = list_checkpoints(run.checkpoints)
        except (LabError, OSError):
            continue
        name = short_name(run, outputs)
        for checkpoint in reversed(checkpoints):
            loss = f", loss {checkpoint.val_loss:.3f}" if checkpoint.val_loss is not None else ""
            found.append((f"{name}@{checkpoint.step}", f"{name}@{checkpoint.step}{loss}"))
    for model in available_models(outputs):
        if model.kind != "run":
            found.append((model.reference, f"{model.name} ({model.detail})" if model.detail else model.name))
    return list(dict(found).items())
