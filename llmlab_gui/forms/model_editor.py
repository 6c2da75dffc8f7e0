"""Choosing the model that is fine-tuned: the active one, a run's checkpoint, a model here, a file, or a hub name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from PySide6.QtCore import Qt

from llmlab.core.errors import LabError
from llmlab.models.available import AvailableModel, available_models
from llmlab.models.source import base_named
from llmlab_gui.forms.model_dialog import ModelDialog
from llmlab_gui.forms.named_editor import NamedEditor
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.numbers import bytes_text
from llmlab_gui.widgets.one_line import keep_short

_OFFERED = ("run", "huggingface", "gguf")


class ModelEditor(NamedEditor):
    """The value is a model reference (`llmlab.models.reference`)."""

    def __init__(self, lab: Lab) -> None:
        hint = "a run, a folder, a GGUF file, or a name on the hub"
        to_do = "Choose the model to fine-tune: a run of yours, or any other model."
        super().__init__("Model to fine-tune", hint, to_do, "Choose a model")
        self._lab = lab
        self._suggested = ""
        self._chosen = False  # by hand, also to empty it: what a person sees there is never replaced
        line = self.box.lineEdit()
        assert line is not None
        for chosen in (line.textEdited, self.box.activated):
            chosen.connect(self._note_choice)
        self.button.menu().aboutToShow.connect(self._fill_menu)

    def describe(self, name: str) -> str:
        source = base_named(name, self._lab.outputs)
        if not source.is_here:
            return f"{source.kind}. <b>Not on this machine yet:</b> it is downloaded when the run starts."
        files = source.weight_files()
        if not files:
            raise LabError(f"There are no weights in {source}.", "It holds no .safetensors file.")
        size = bytes_text(sum(file.stat().st_size for file in files))
        more = "" if source.base is None else " What is trained now comes on top of what it learned."
        return f"{source.kind}, {size}.{more}"

    def offers(self) -> Iterable[tuple[str, str]]:
        found = available_models(self._lab.outputs, self._background.check)
        return [(model.reference, _words(model)) for model in found if _fits(model)]

    @property
    def named(self) -> bool:
        """Whether a person named it, or emptied it."""
        return self._chosen or self.value() not in ("", self._suggested)

    def set_value(self, value: Any) -> None:
        if value and value == self.value():  # the suggestion itself was named
            self._note_choice()
        super().set_value(value)

    def suggest(self) -> None:
        """Where none was named, the current run if it has been pretrained, else that of the active model, else the
        newest such run. The same one stays the suggestion when others are trained, as long as it is there."""
        if self.named:
            return
        rows = self._lab.runs()
        current, about = self._lab.current(), self._lab.inspection.about
        active = about.reference.partition("@")[0] if about is not None else ""
        first = (current.name if current is not None else "", active, self._suggested.partition("@")[0])
        wanted = [*(row for name in first for row in rows if row.name == name), *rows]
        self._suggested = next((f"{row.name}@latest" for row in wanted if row.pretrained), "")
        if self._suggested != self.value():
            self.set_value(self._suggested)

    def _note_choice(self) -> None:
        self._chosen = True
        self._settle.start()  # it is no suggestion any more

    def _found(self, wanted: str, words: str, error: LabError | None) -> None:
        suggested = "" if self.named or not words else " Suggested: it follows the current run until you name a model."
        super()._found(wanted, f"{words}{suggested}", error)

    def _fill_menu(self) -> None:
        menu, lab = self.button.menu(), self._lab
        menu.clear()
        about, row = lab.inspection.about, lab.current()
        if about is not None and not about.live:
            menu.addAction(f"{about.name} (active model)", partial(self.set_value, about.reference))
        if row is not None:
            menu.addAction(f"{row.name}, latest checkpoint", partial(self.set_value, f"{row.name}@latest"))
        menu.addAction("Choose from a list…", self._choose)
        self.button.add_folder("A model's folder…", "A model's folder", str(lab.outputs))
        self.button.add_file("A GGUF file…", "A GGUF file", "GGUF (*.gguf)")
        keep_short(menu)

    def _choose(self) -> None:
        dialog = ModelDialog(self._lab.outputs, self._lab.inspection.recent, self.window())
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.chosen.connect(self.set_value)
        dialog.open()


def _fits(model: AvailableModel) -> bool:
    return model.kind in _OFFERED


def _words(model: AvailableModel) -> str:
    return model.reference if model.kind == "run" else model.name
