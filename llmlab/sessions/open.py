"""One reference, one open model: what the window, the command line and the tests open models by."""

from __future__ import annotations

from pathlib import Path

from llmlab.errors import UsageError
from llmlab.progress import Progress, quiet
from llmlab.runs.checkpoints import select
from llmlab.sessions.model import OpenModel
from llmlab.sessions.reference import (
    AdaptedModel,
    GgufFile,
    HubModel,
    LiveRun,
    ModelFolder,
    Reference,
    SavedRun,
    parse,
)


def open_model(reference: str | Reference, outputs: Path, progress: Progress = quiet) -> OpenModel:
    """Opens what `reference` names, on the CPU, in eval mode. outputs: where runs are found by their ids.

    UsageError when nothing bears that name; LabError when it is damaged, foreign or too large for memory.
    Cancelled when `progress` says so.
    """
    named = parse(reference, outputs) if isinstance(reference, str) else reference
    match named:
        case SavedRun():
            from llmlab.sessions.scratch import open_checkpoint

            return open_checkpoint(named.run, select(named.run.checkpoints, named.which), named.named, progress)
        case LiveRun():
            raise UsageError(
                f"{named} is a training run: it answers questions itself, and cannot be opened here.",
                "Its weights change from step to step.",
                f"Open {named.named}@latest, its newest checkpoint.",
            )
        case ModelFolder():
            from llmlab.sessions.huggingface import open_folder

            return open_folder(named.path, str(named), progress)
        case HubModel():
            from llmlab.sessions.hub import open_hub

            return open_hub(named.name, progress)
        case GgufFile():
            from llmlab.sessions.gguf_file import open_gguf

            return open_gguf(named.path, progress)
        case AdaptedModel():
            from llmlab.sessions.adapter import open_adapted

            return open_adapted(named, progress)
