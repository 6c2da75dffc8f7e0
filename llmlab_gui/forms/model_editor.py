"""Choosing the model that is fine-tuned: the active one, a run's checkpoint, a model here, a file, or a hub name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from PySide6.QtCore import Qt

from llmlab.core.errors import LabError, UsageError
from llmlab.core.files import read_json
from llmlab.core.kinds import PRETRAINING
from llmlab.models.available import CONFIG_FILE, AvailableModel, available_models, cached_models
from llmlab.models.reference import AdaptedModel, GgufFile, HubModel, LiveRun, ModelFolder, Reference, SavedRun, parse
from llmlab.store.checkpoints import select
from llmlab_gui.forms.model_dialog import ModelDialog
from llmlab_gui.forms.named_editor import NamedEditor
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.numbers import bytes_text, count_text
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
        self._typed = False  # also to empty it: what a person sees there is never replaced
        line = self.box.lineEdit()
        assert line is not None
        line.textEdited.connect(self._note_typing)
        self.button.menu().aboutToShow.connect(self._fill_menu)

    def describe(self, name: str) -> str:
        reference = parse(name, self._lab.outputs)
        match reference:
            case SavedRun():
                return _run_words(reference)
            case LiveRun():
                raise UsageError(
                    f"{reference.run.id} has not ended.",
                    "A base must not change while it is fine-tuned.",
                    f"Name {reference.named}@latest, its newest checkpoint.",
                )
            case GgufFile():
                return f"GGUF file, {bytes_text(reference.path.stat().st_size)}."
            case ModelFolder():
                family = (read_json(reference.path / CONFIG_FILE) or {}).get("model_type", "unknown family")
                size = sum(file.stat().st_size for file in reference.path.glob("*.safetensors"))
                if not size:
                    raise LabError(f"There are no weights in {reference.path}.", "It holds no .safetensors file.")
                return f"Hugging Face folder, {family}, {bytes_text(size)}."
            case HubModel():
                if not must_be_fetched(reference):
                    return "From the Hugging Face Hub, cached on this machine."
                return (
                    "From the Hugging Face Hub. <b>Not on this machine yet:</b> it is downloaded when the run starts."
                )
            case AdaptedModel():
                return f"An adapter on {reference.base}: the new adapter is trained on top of both."

    def offers(self) -> Iterable[tuple[str, str]]:
        found = available_models(self._lab.outputs, self._background.check)
        return [(model.reference, _words(model)) for model in found if _fits(model)]

    def suggest(self) -> None:
        """The newest model that was trained here, where none was named: most learners mean that one. The same one
        stays the suggestion when others are trained."""
        if self._typed or self.value():
            return
        if not self._suggested:
            rows = (row for row in self._lab.runs() if row.info.track == PRETRAINING and row.status.state == "finished")
            newest = next(rows, None)
            self._suggested = f"{newest.name}@latest" if newest is not None else ""
        if self._suggested:
            self.set_value(self._suggested)

    def _note_typing(self) -> None:
        self._typed = True

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


def must_be_fetched(reference: Reference) -> bool:
    """Whether it is a model of the hub that is not in the cache: nothing is known of its sizes."""
    return isinstance(reference, HubModel) and reference.name not in cached_models()


def _run_words(reference: SavedRun) -> str:
    """Which checkpoint of which run, and how large. LabError when there is none."""
    checkpoint = select(reference.run.checkpoints, reference.which)
    parameters = checkpoint.about.get("parameters")
    size = f", {count_text(parameters)} parameters" if isinstance(parameters, int) else ""
    loss = f", validation loss {checkpoint.val_loss:.3f}" if checkpoint.val_loss is not None else ""
    info = reference.run.info()
    return f"Step {checkpoint.step:,} of a run on {info.settings.reads}{size}{loss}."


def _fits(model: AvailableModel) -> bool:
    return model.kind in _OFFERED


def _words(model: AvailableModel) -> str:
    return model.reference if model.kind == "run" else model.name
