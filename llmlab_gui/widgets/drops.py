"""What a file or folder that is dropped onto the window means."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from PySide6.QtCore import QMimeData
from PySide6.QtGui import QDragEnterEvent, QDropEvent

from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, quiet
from llmlab.data.example_files import SUFFIXES as EXAMPLES
from llmlab.data.own_texts import SUFFIXES
from llmlab.models.available import ADAPTER_FILE, GGUF_SUFFIX, ggufs_in, is_model_folder
from llmlab.store.checkpoints import MANIFEST_FILE
from llmlab.store.run_folder import RunFolder


@dataclass(frozen=True)
class DroppedText:
    """A text to train on."""

    path: Path


@dataclass(frozen=True)
class DroppedRun:
    """A run, and the checkpoint's folder name if one of its checkpoints was dropped."""

    run: RunFolder
    checkpoint: str = ""


@dataclass(frozen=True)
class DroppedModel:
    """A model to look into, by what opens it (`llmlab.models.reference`)."""

    reference: str


Dropped: TypeAlias = DroppedText | DroppedRun | DroppedModel


def meaning_at_once(path: Path) -> Dropped | None:
    """A run, a checkpoint of one, a model's folder or file, or a text; None where it takes a look into folders."""
    if (path / "run.json").is_file():
        return DroppedRun(RunFolder(path))
    run = path.parent.parent
    if (path / MANIFEST_FILE).is_file() and (run / "run.json").is_file():
        return DroppedRun(RunFolder(run), path.name)
    if _is_model(path):
        return DroppedModel(str(path))
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return DroppedText(path)
    return None


def meaning(path: Path, progress: Progress = quiet) -> Dropped:
    """The same, or a folder with texts, which may be large: not on the window's thread. LabError otherwise."""
    if (found := meaning_at_once(path)) is not None:
        return found
    for folder, _, files in os.walk(path):  # of a file there is nothing to walk
        progress(f"Looking for texts in {Path(folder).name}", 0, 0)
        if any(name.lower().endswith(".txt") for name in files):
            return DroppedText(path)
    raise LabError(
        f"{path.name} cannot be opened here.",
        "It is neither a run, nor a checkpoint in a run's folder, nor a model, nor a text.",
        f"Drop a run's or a model's folder, a {GGUF_SUFFIX} or {', '.join(SUFFIXES)} file, or a folder of .txt files.",
    )


def local_paths(dropped: QMimeData) -> list[Path]:
    """The files and folders of this machine that are in it."""
    return [Path(url.toLocalFile()) for url in dropped.urls() if url.isLocalFile()]


def holds_examples(path: Path, *, asked_for: bool) -> bool:
    """Whether a file holds examples to fine-tune on. asked_for: examples are what is being chosen, so a file that
    could be a text as well is one of examples."""
    suffix = path.suffix.lower()
    return path.is_file() and suffix in EXAMPLES and (asked_for or suffix not in SUFFIXES)


def _is_model(path: Path) -> bool:
    """A Hugging Face folder, an adapter's, a GGUF file or a folder with some; texts beside them are the tokenizer's."""
    if path.is_file():
        return path.suffix == GGUF_SUFFIX
    if not path.is_dir():
        return False
    return is_model_folder(path) or (path / ADAPTER_FILE).is_file() or bool(ggufs_in(path))


class TakesModelsAndExamples:
    """A dock that fine-tunes, or shows what is learned from: files of examples, runs and models are dropped on it."""

    lab: Any  # llmlab_gui.lab.lab.Lab

    def set_examples(self, source: str) -> None:
        """These examples, all else as it is."""
        raise NotImplementedError

    def set_base(self, reference: str) -> None:
        """This model, all else as it is."""
        raise NotImplementedError

    def take(self, path: Path) -> None:
        """A file of examples, a run, a checkpoint or a model, by its file or folder."""
        if holds_examples(path, asked_for=True):
            self.set_examples(str(path))
            return
        found = meaning_at_once(path)
        if found is None or isinstance(found, DroppedText):
            error = LabError(f"{path.name} holds no examples.", f"The lab reads {', '.join(EXAMPLES)}.")
            self.lab.error_raised.emit(error)
            return
        self.set_base(found.reference if isinstance(found, DroppedModel) else str(path))

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if local_paths(event.mimeData()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        event.acceptProposedAction()
        for path in local_paths(event.mimeData()):
            self.take(path)
