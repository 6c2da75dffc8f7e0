"""What a file or folder that is dropped onto the window means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmlab.corpora.text_files import SUFFIXES
from llmlab.errors import LabError
from llmlab.runs.checkpoints import MANIFEST_FILE
from llmlab.runs.folder import RunFolder


@dataclass(frozen=True)
class DroppedText:
    """A text to train on."""

    path: Path


@dataclass(frozen=True)
class DroppedRun:
    """A run, and the checkpoint's folder name if one of its checkpoints was dropped."""

    run: RunFolder
    checkpoint: str = ""


def meaning(path: Path) -> DroppedText | DroppedRun:
    """A run folder, a checkpoint of a run, a text file, or a folder with texts. LabError for anything else."""
    if (path / "run.json").is_file():
        return DroppedRun(RunFolder(path))
    run = path.parent.parent
    if (path / MANIFEST_FILE).is_file() and (run / "run.json").is_file():
        return DroppedRun(RunFolder(run), path.name)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return DroppedText(path)
    if path.is_dir() and next(path.rglob("*.txt"), None) is not None:
        return DroppedText(path)
    raise LabError(
        f"{path.name} is nothing that the lab can open.",
        "It is neither a run, nor a checkpoint in a run's folder, nor a text.",
        f"Drop a run's folder, a {', '.join(SUFFIXES)} file, or a folder of .txt files.",
    )
