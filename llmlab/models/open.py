"""One reference, one open model: what the window, the command line and the tests open models by."""

from __future__ import annotations

from pathlib import Path

from llmlab.core.errors import LabError, UsageError
from llmlab.core.progress import Progress, quiet
from llmlab.models.model import OpenModel
from llmlab.models.reference import (
    AdaptedModel,
    GgufFile,
    HubModel,
    LiveRun,
    ModelFolder,
    Reference,
    SavedRun,
    is_fine_tuned,
    parse,
)
from llmlab.models.tuned import base_of
from llmlab.store.checkpoints import select


def open_model(reference: str | Reference, outputs: Path, progress: Progress = quiet) -> OpenModel:
    """Opens what `reference` names, on the CPU, in eval mode. outputs: where runs are found by their ids.

    UsageError when nothing bears that name; LabError when it is damaged, foreign or too large for memory.
    Cancelled when `progress` says so.
    """
    named = parse(reference, outputs) if isinstance(reference, str) else reference
    match named:
        case SavedRun():
            from llmlab.models.scratch import open_saved

            return open_saved(named, progress)
        case LiveRun():
            raise UsageError(
                f"{named} is a training run: it answers questions itself, and cannot be opened here.",
                "Its weights change from step to step.",
                f"Open {named.named}@latest, its newest checkpoint.",
            )
        case ModelFolder():
            from llmlab.models.huggingface import open_folder

            return open_folder(named.path, str(named), progress)
        case HubModel():
            from llmlab.models.hub import open_hub

            return open_hub(named.name, progress)
        case GgufFile():
            from llmlab.models.gguf_file import open_gguf

            return open_gguf(named.path, progress)
        case AdaptedModel():
            from llmlab.models.adapter import open_adapted

            return open_adapted(named, progress)


def fingerprint(reference: Reference) -> object:
    """Equal as long as the reference opens the same bytes: a checkpoint saved again, or a file replaced, differs."""
    match reference:
        case SavedRun():
            checkpoint = select(reference.run.checkpoints, reference.which)
            below = fingerprint(base_of(reference.run)) if is_fine_tuned(reference.run) else None
            return checkpoint.path, checkpoint.time, below
        case ModelFolder():
            return _files(reference.path)
        case GgufFile():
            return _files(reference.path.parent, reference.path.name)
        case AdaptedModel():
            return fingerprint(reference.base), _files(reference.adapter)
        case _:
            return str(reference)


def _files(folder: Path, pattern: str | None = None) -> object:
    """Names, sizes and times of the files that a model is made of. LabError when they are gone."""
    try:
        return str(folder), tuple(_about(folder, pattern))
    except OSError as error:
        raise LabError(f"{folder} cannot be read.", f"{error}.", "Was it moved or deleted?") from error


def _about(folder: Path, pattern: str | None) -> list[tuple[str, int, int]]:
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and (path.suffix in (".safetensors", ".json") if pattern is None else path.name == pattern):
            about = path.stat()
            found.append((path.name, about.st_size, about.st_mtime_ns))
    return found
