"""What a file or folder that is dropped onto the window means, and where it may land."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

from PySide6.QtCore import QMimeData, Qt
from PySide6.QtGui import QColor, QDragEnterEvent, QDragLeaveEvent, QDropEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QWidget

from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, quiet
from llmlab.data.example_files import SUFFIXES as EXAMPLES
from llmlab.data.own_texts import SUFFIXES
from llmlab.models.available import ADAPTER_FILE, GGUF_SUFFIX, ggufs_in, is_model_folder
from llmlab.store.checkpoints import MANIFEST_FILE
from llmlab.store.run_folder import RunFolder
from llmlab_gui.widgets.theme import current_theme

_FRAME = 3  # pixels
_TINT = 28  # of 255


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


class _Frame(QWidget):
    """Lies over what takes a drop, while something is dragged over it."""

    def __init__(self, over: QWidget) -> None:
        super().__init__(over)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setObjectName("drop frame")
        self.setGeometry(over.rect())
        self.raise_()
        self.show()

    def paintEvent(self, event: QPaintEvent) -> None:
        accent = QColor(current_theme().accent)
        with QPainter(self) as painter:
            painter.setPen(QPen(accent, _FRAME))
            accent.setAlpha(_TINT)
            painter.setBrush(accent)
            painter.drawRect(self.rect().adjusted(1, 1, -2, -2))


def _copy(event: QDropEvent) -> None:
    """Takes it, whatever is proposed: of what was moved, its program may delete the original."""
    event.setDropAction(Qt.DropAction.CopyAction)
    event.accept()


class TakesDrops:
    """A widget that files and folders are dropped on: framed while it takes what is dragged over it.

    What it does not take goes to the widget around it; where none takes it, the cursor says so.
    """

    _frame: _Frame | None = None

    def takes(self, path: Path) -> bool:
        """Whether it may be dropped. Quick: it is asked while something is dragged, so a folder may turn out wrong."""
        return path.is_dir() or meaning_at_once(path) is not None or holds_examples(path, asked_for=True)

    def take(self, path: Path) -> None:
        """Opens what was dropped, or says why not."""
        raise NotImplementedError

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(map(self.takes, local_paths(event.mimeData()))):
            self._show_frame(True)
            _copy(event)
        else:
            event.ignore()

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        self._show_frame(False)

    def dropEvent(self, event: QDropEvent) -> None:
        self._show_frame(False)
        _copy(event)
        for path in local_paths(event.mimeData()):
            self.take(path)

    def _show_frame(self, shown: bool) -> None:
        if self._frame is not None:
            self._frame.hide()
            self._frame.deleteLater()
        self._frame = _Frame(cast("QWidget", self)) if shown else None


class TakesModelsAndExamples(TakesDrops):
    """A dock that fine-tunes, or shows what is learned from: files of examples, runs and models are dropped on it."""

    lab: Any  # llmlab_gui.lab.lab.Lab

    def set_examples(self, source: str) -> None:
        """These examples, all else as it is."""
        raise NotImplementedError

    def set_base(self, reference: str) -> None:
        """This model, all else as it is."""
        raise NotImplementedError

    def takes(self, path: Path) -> bool:
        return holds_examples(path, asked_for=True) or isinstance(meaning_at_once(path), DroppedRun | DroppedModel)

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
