"""Naming a model: a box that offers runs, their checkpoints and models, and takes any other reference as typed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QPaintEvent
from PySide6.QtWidgets import QComboBox, QCompleter, QLineEdit, QSizePolicy, QStyle, QStyleOptionFrame, QStylePainter

from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, quiet
from llmlab.models.available import available_models, folder_name
from llmlab.models.reference import without_folders
from llmlab.store.checkpoints import list_checkpoints
from llmlab.store.registry import short_name
from llmlab.store.run_folder import RunFolder
from llmlab_gui.widgets.one_line import OneLineBox

_INDENT = 2  # pixels before the text of a line (QLineEditPrivate::horizontalMargin)


class ReferenceBox(OneLineBox):
    """Keeps what was typed or chosen when its offers change."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setEditable(True)
        self.setLineEdit(_Line(self))
        self.setAccessibleName(name)
        self.setToolTip(f"{name}: RUN@latest, RUN@150, RUN@live, a folder, a .gguf file, BASE+ADAPTER")
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(14)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        line = self.lineEdit()
        if line is not None:
            line.setAccessibleName(name)
            self.activated.connect(lambda _: line.setCursorPosition(0))
        completer = self.completer()
        if completer is not None:
            completer.setFilterMode(Qt.MatchFlag.MatchContains)
            completer.setCompletionMode(QCompleter.CompletionMode.PopupCompletion)

    @property
    def reference(self) -> str:
        """What is in the box; the reference behind an offer, or the text as typed."""
        text, place = self.currentText().strip(), self.currentIndex()
        if self.itemText(place) != text:  # of two offers with the same words, the one that was chosen
            place = self.findText(text)
        return str(self.itemData(place)) if place >= 0 else text

    def showPopup(self) -> None:
        super().showPopup()
        self.view().setTextElideMode(Qt.TextElideMode.ElideRight)  # the checkpoint is in the middle, before its loss

    def shown(self, room: int) -> str:
        """What fits into so many pixels: of a run's checkpoint, which one it is, and the beginning of anything else."""
        text, metrics = self.currentText(), self.fontMetrics()
        name, at, which = self.reference.rpartition("@")
        if metrics.horizontalAdvance(text) <= room or not at or "/" in which:
            return metrics.elidedText(text, Qt.TextElideMode.ElideRight, room)
        return metrics.elidedText(f"{without_folders(name)}@{which}", Qt.TextElideMode.ElideMiddle, room)

    def offer(self, references: Iterable[tuple[str, str]]) -> None:
        """Replaces the offers: reference, words."""
        kept = self.reference
        self.fill(references)
        self.choose(kept)

    def choose(self, reference: str) -> None:
        """Puts a reference in the box."""
        place = self.findData(reference)
        if place >= 0:
            self.setCurrentIndex(place)
        else:
            self.setCurrentIndex(-1)
            self.setEditText(reference)
        line = self.lineEdit()
        if line is not None:
            line.setCursorPosition(0)  # the name is at the beginning of what is too long for the box


class _Line(QLineEdit):
    """While nobody writes in it, what `ReferenceBox.shown` says; no style cuts a line that can be edited."""

    def __init__(self, box: ReferenceBox) -> None:
        super().__init__(box)
        self._box = box

    def paintEvent(self, event: QPaintEvent) -> None:
        room = self.rect().adjusted(_INDENT, 0, -_INDENT, 0)
        shown = self._box.shown(room.width())
        if self.hasFocus() or shown in ("", self.text()):
            super().paintEvent(event)
            return
        option = QStyleOptionFrame()
        with (painter := QStylePainter(self)):
            self.initStyleOption(option)
            painter.drawPrimitive(QStyle.PrimitiveElement.PE_PanelLineEdit, option)
            painter.drawText(room, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, shown)


# Of the runs in sight; the checkpoints of others can be typed.
_MOST_RUNS = 12


def offers(
    outputs: Path, runs: Sequence[RunFolder], recent: Sequence[str], progress: Progress = quiet
) -> list[tuple[str, str]]:
    """Reference and words of each: recent ones, runs newest checkpoint first, then models on this machine.

    Losses of two runs may be of different texts: each names its own.
    """
    found = [(reference, _words(reference)) for reference in recent if reference]
    for run in runs[:_MOST_RUNS]:
        try:
            checkpoints, text = list_checkpoints(run.checkpoints), Path(run.info().settings.reads).name
        except (LabError, OSError):
            continue
        name = short_name(run, outputs)
        for checkpoint in reversed(checkpoints):
            known = checkpoint.val_loss is not None
            loss = f", validation loss {checkpoint.val_loss:.3f} on {text}" if known else ""
            found.append((f"{name}@{checkpoint.step}", f"{name}@{checkpoint.step}{loss}"))
    for model in available_models(outputs, progress):
        if model.kind != "run":
            found.append((model.reference, f"{model.name} ({model.detail})" if model.detail else model.name))
    return list(dict(found).items())


def _words(reference: str) -> str:
    """The name of a file or folder before its place, of which a narrow box shows nothing but the beginning."""
    path = Path(reference)
    return f"{folder_name(path)}, {reference}" if path.is_absolute() else reference
