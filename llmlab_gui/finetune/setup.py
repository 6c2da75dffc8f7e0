"""The Fine-tune set-up dock: which model learns what, how, and what it will cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QWidget

from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import FULL, FinetuneSettings
from llmlab.core.signs import count_text
from llmlab.models.source import base_named
from llmlab.training.finetuning.estimate import FinetuneEstimate, estimate_finetuning
from llmlab.training.finetuning.unsloth import probe_unsloth
from llmlab.training.kinds import as_watched
from llmlab_gui.forms.model_editor import ModelEditor
from llmlab_gui.forms.named_editor import ExamplesEditor
from llmlab_gui.lab.lab import Lab
from llmlab_gui.train.run_costs import Costs, checkpoints_text, memory_text, time_text
from llmlab_gui.train.run_setup import RunSetupDock
from llmlab_gui.widgets import drops
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.layouts import settling_timer

_ESSENTIAL = ("model.method", "lora.rank", "train.learning_rate", "train.steps")


class FinetuneSetupDock(drops.TakesModelsAndExamples, RunSetupDock[FinetuneSettings]):
    """A model or a file of examples that is dropped onto it is taken."""

    settings_changed = Signal(object)  # FinetuneSettings that can be started, or None

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        self.model = ModelEditor(lab)
        self.examples = ExamplesEditor(lab)
        super().__init__(
            lab,
            "finetune_setup",
            "Fine-tune set-up",
            settings_type=FinetuneSettings,
            essentials={"model.base": self.model, "data.source": self.examples} | dict.fromkeys(_ESSENTIAL),
            parent=parent,
        )
        self._probing = Background(self)
        self._probed = False  # whether Unsloth was tried, or is being tried
        self._no_unsloth = ""  # why it cannot be used
        self._estimated: FinetuneSettings | None = None
        self._refused: tuple[FinetuneSettings, LabError] | None = None  # what cannot work, and why
        self.train_button.setText("Fine-tune")
        self.setAcceptDrops(True)
        self.caption("What the model learns, and how. Bold settings differ from the preset.", "fine-tuning")
        self._listing = settling_timer(self, 0, self._list_offers)
        self.model.state_changed.connect(self._model_looked_at)
        self.examples.state_changed.connect(self.update_all)
        lab.finetune_requested.connect(self.fill)
        lab.runs_changed.connect(self._runs_changed)
        lab.current_changed.connect(self._suggest)
        lab.inspection.about_changed.connect(self._suggest)
        self._offered: set[str] = set()
        self.update_all()

    def set_base(self, reference: str) -> None:
        """Starts from this model, all else as it is."""
        self.model.set_value(reference)
        self.show()
        self.raise_()

    def set_examples(self, source: str) -> None:
        """Learns from these examples, all else as it is."""
        self.examples.set_value(source)
        self.show()
        self.raise_()

    def check(self) -> None:
        self.model.check()
        self.examples.check()
        if self._wants_unsloth and self._no_unsloth:
            raise LabError("Unsloth cannot be used here.", self._no_unsloth, "Set backend to peft: it works anywhere.")
        if self._refused is not None and self.form.problem() is None and self.form.settings() == self._refused[0]:
            raise self._refused[1]

    def given(self) -> dict[str, Any]:
        """Without a base that was only suggested."""
        return {key: value for key, value in super().given().items() if key != "model.base" or self.model.named}

    def reads(self) -> str:
        return f"{Path(self.examples.value()).name}, from {Path(self.model.value()).name}"

    def work_out(self, settings: FinetuneSettings) -> None:
        self.settings_changed.emit(settings)
        if self._wants_unsloth and not self._probed:
            self._probe()
        if not self.isVisible() or settings == self._estimated:
            return
        outputs = self.lab.outputs

        def find() -> FinetuneEstimate | str:
            try:
                return estimate_finetuning(as_watched(settings), outputs)
            except LabError as error:
                if not base_named(settings.model.base, outputs).is_here:
                    return str(error)
                raise

        def done(needed: FinetuneEstimate | str) -> None:
            if self._estimated != settings:
                return
            if isinstance(needed, str):
                self.show_costs(None, needed)
            else:
                self._show_estimate(settings, needed)

        def failed(error: LabError) -> None:
            if self._estimated == settings:
                self._refused = (settings, error)
                self.update_all()

        self._estimated = settings
        self._background.run(find, done, failed)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._listing.start()
        self.model.suggest()
        self.model.look_again()
        self._settle.start()

    @property
    def _wants_unsloth(self) -> bool:
        return bool(self.form.fields["model.backend"].value() == "unsloth")

    def _probe(self) -> None:
        """Tries Unsloth in a process of its own, once."""
        self._probed = True

        def done(reason: str | None) -> None:
            self._no_unsloth = reason or ""
            self.update_all()

        self._probing.run(lambda: probe_unsloth(self._probing.check), done, lambda error: done(str(error)))

    def _show_estimate(self, settings: FinetuneSettings, needed: FinetuneEstimate) -> None:
        method = settings.model.method
        share = needed.trainable / needed.total if needed.total else 0.0
        learned = f"{count_text(needed.trainable)} of {count_text(needed.total)} parameters learn"
        parts = [
            time_text(settings, needed.seconds / 60),
            learned if method == FULL else f"{learned} ({100 * share:.2g} %)",
            memory_text(needed.memory),
            checkpoints_text(settings, needed.checkpoint_bytes),
        ]
        disk = needed.checkpoint_bytes * settings.checkpoints.at_once(settings.train.steps)
        self.show_costs(Costs(settings, parts, needed.memory_bytes, disk, needed.seconds))

    def _model_looked_at(self) -> None:
        """What its costs were, or why it was refused, is said of what it was before."""
        self._estimated = self._refused = None
        self.update_all()

    def _runs_changed(self) -> None:
        if self.isVisible():
            self.model.look_again()
        known = {row.id for row in self.lab.runs()}
        if known != self._offered and self.isVisible():
            self._offered = known
            self._listing.start()
            self.model.suggest()

    def _suggest(self) -> None:
        if self.isVisible():
            self.model.suggest()

    def _list_offers(self) -> None:
        for editor in (self.model, self.examples):
            editor.list_offers()
