"""What the runs of an experiment have in common: a preset, its chief settings in sight, all others in the form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from llmlab.core.config import describe
from llmlab.core.settings import Preset, RunSettings
from llmlab_gui.forms.editors import Editor
from llmlab_gui.forms.field import Field
from llmlab_gui.forms.settings_form import PresetBox, SettingsForm, essentials_grid
from llmlab_gui.widgets.labels import QuietLabel

S = TypeVar("S", bound=RunSettings)


class BaseForm(QWidget, Generic[S]):
    """`settings()` is what is in it, checked; `given()` names what differs from the preset."""

    edited = Signal()

    def __init__(
        self,
        settings_type: type[S],
        titles: Mapping[str, str],
        essentials: Mapping[str, Editor | None],
        presets: Sequence[Preset[S]],
        first_preset: str,
        parent: QWidget | None = None,
    ) -> None:
        """titles: of the form's sections. essentials: in sight without unfolding anything, with an editor of their own
        where the usual one is not enough."""
        super().__init__(parent)
        self._presets = {preset.name: preset for preset in presets}
        self.presets = PresetBox("Preset of the runs", presets, first_preset, lambda preset: preset.title)
        self.about = QuietLabel()
        infos = {info.key: info for info in describe(settings_type)}
        self.essentials = {key: Field(infos[key], editor, parent=self) for key, editor in essentials.items()}
        self.form: SettingsForm[S] = SettingsForm(settings_type, titles, self.essentials)
        self._lay_out()
        self.presets.currentIndexChanged.connect(self._use_preset)
        self.form.edited.connect(self.edited)
        self._use_preset()

    @property
    def preset(self) -> str:
        """The name of the chosen one."""
        return str(self.presets.currentData())

    def settings(self) -> S:
        """What is in the form. UsageError naming the first thing that is wrong."""
        return self.form.settings()

    def given(self) -> dict[str, Any]:
        """The settings that differ from the preset, by their keys: what the learner said. UsageError as above."""
        return {field.info.key: field.parsed() for field in self.form.changed()}

    def fill(self, preset: str, values: Mapping[str, Any]) -> None:
        """Shows a preset and what differs from it, by `section.field`. UsageError for what no setting can be."""
        self.presets.choose(preset)
        self.form.reset()
        self.form.set_values(values)

    def leave_out(self, key: str) -> None:
        """Takes the setting that is varied out of sight, and shows all others."""
        for field in self.essentials.values():
            policy = field.reset_button.sizePolicy()
            policy.setRetainSizeWhenHidden(field.info.key != key)
            field.reset_button.setSizePolicy(policy)
            field.set_visible(field.info.key != key)

    def _use_preset(self) -> None:
        preset = self._presets[self.preset]
        self.about.setText(preset.description)
        named = {key: field.editor.value() for key, field in self.essentials.items() if key == "model.base"}
        self.form.set_baseline(preset.settings)
        # A preset that names no base keeps the one that was chosen.
        for key, value in named.items():
            if value and not self.essentials[key].editor.value():
                self.essentials[key].set_value(value)

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(essentials_grid(self.presets, self.about, self.essentials.values()))
        layout.addWidget(self.form)
