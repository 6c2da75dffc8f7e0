"""A preset, its chief settings in sight, and all others in the form below them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QComboBox, QGridLayout, QWidget

from llmlab.core.errors import LabError
from llmlab.core.presets import Preset, default_preset, presets_of
from llmlab.core.run_settings import RunSettings
from llmlab.core.setting_info import describe
from llmlab_gui.forms.editors import Editor
from llmlab_gui.forms.field import Field
from llmlab_gui.forms.settings_form import SettingsForm
from llmlab_gui.widgets.labels import QuietLabel, label_of
from llmlab_gui.widgets.layouts import column
from llmlab_gui.widgets.one_line import OneLineBox

S = TypeVar("S", bound=RunSettings)


class PresetForm(QWidget, Generic[S]):
    """`settings()` is what is in it, checked; `given()` names what differs from the preset."""

    edited = Signal()

    def __init__(
        self,
        settings_type: type[S],
        essentials: Mapping[str, Editor | None],
        *,
        name: str = "Preset of the runs",
        titled: Callable[[Preset[Any]], str] = lambda preset: preset.title,
        also: Mapping[str, QWidget] | None = None,
    ) -> None:
        """essentials: in sight without unfolding anything, with an editor of their own where the usual one is not
        enough. name: of the presets, for screen readers. titled: how each reads. also: what stands under the
        essentials, by its label."""
        super().__init__()
        presets = presets_of(settings_type)
        self._presets = {preset.name: preset for preset in presets}
        self.presets = PresetBox(name, presets, default_preset(settings_type), titled)
        self.about = QuietLabel()
        infos = {info.key: info for info in describe(settings_type)}
        self.essentials = {key: Field(infos[key], editor, parent=self) for key, editor in essentials.items()}
        self.form: SettingsForm[S] = SettingsForm(settings_type, self.essentials)
        column(_grid(self.presets, self.about, self.essentials.values(), also or {}), (self.form, 1), into=self)
        self.presets.currentIndexChanged.connect(self.use_preset)
        self.form.edited.connect(self.edited)
        self.use_preset()

    @property
    def preset(self) -> str:
        """The name of the chosen one."""
        return str(self.presets.currentData())

    @property
    def title(self) -> str:
        """The title of the chosen one."""
        return self._presets[self.preset].title

    def settings(self) -> S:
        """What is in the form. UsageError naming the first thing that is wrong."""
        return self.form.settings()

    def given(self) -> dict[str, Any]:
        """The settings that differ from the preset, by their keys: what the learner said. UsageError as above."""
        return {field.info.key: field.parsed() for field in self.form.changed()}

    def readable(self) -> dict[str, Any]:
        """Those of them that can be read."""
        found: dict[str, Any] = {}
        for field in self.form.changed():
            with contextlib.suppress(LabError):
                found[field.info.key] = field.parsed()
        return found

    def fill(self, preset: str, values: Mapping[str, Any]) -> None:
        """Shows a preset and what differs from it, by `section.field`. UsageError for what no setting can be."""
        self.presets.choose(preset)
        self.form.reset()
        self.form.set_values(values)

    def leave_out(self, key: str) -> None:
        """Takes the setting that is varied out of sight, and shows all others."""
        for field in self.essentials.values():
            field.set_visible(field.info.key != key)

    def use_preset(self) -> None:
        """Shows the chosen preset, unchanged; one that names no model to start from keeps the one that was chosen."""
        preset = self._presets[self.preset]
        self.about.setText(preset.description)
        base = self.essentials.get("model.base")
        chosen = base.value() if base is not None else ""
        self.form.set_baseline(preset.settings)
        if base is not None and chosen and not base.value():
            base.set_value(chosen)


class PresetBox(OneLineBox):
    """The names of presets are its data; their descriptions are tool tips."""

    def __init__(
        self, name: str, presets: Sequence[Preset[Any]], first: str, titled: Callable[[Preset[Any]], str]
    ) -> None:
        """name: for screen readers. first: the preset that is chosen. titled: how each reads."""
        super().__init__()
        self.setAccessibleName(name)
        self.setToolTip("A starting point: you can change everything below")
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(10)
        self.fill([(preset.name, titled(preset), preset.description) for preset in presets], first)

    def choose(self, name: str) -> None:
        """The first when there is none of that name."""
        self.setCurrentIndex(max(0, self.findData(name)))


def _grid(presets: PresetBox, about: QWidget, fields: Iterable[Field], also: Mapping[str, QWidget]) -> QGridLayout:
    """The preset, what it is, and the fields below one another; name, editor, unit and the way back in a row."""
    grid = QGridLayout()
    grid.setHorizontalSpacing(6)
    grid.setVerticalSpacing(4)
    grid.setColumnStretch(1, 1)
    grid.addWidget(label_of("preset", presets), 0, 0)
    grid.addWidget(presets, 0, 1, 1, 3)
    grid.addWidget(about, 1, 1, 1, 3)
    top = Qt.AlignmentFlag.AlignTop
    for place, field in enumerate(fields):
        row = 2 + 2 * place  # under each is room for what is wrong with it
        grid.addWidget(field.row.name, row, 0, top)
        grid.addWidget(field.editor, row, 1, 1, 1 if field.info.unit else 2)
        grid.addWidget(field.row.unit, row, 2)
        grid.addWidget(field.row.reset, row, 3, top)
        grid.addWidget(field.row.problem, row + 1, 1, 1, 3)
    for words, widget in also.items():
        row = grid.rowCount()
        grid.addWidget(label_of(words, widget), row, 0)
        grid.addWidget(widget, row, 1, 1, 3)
    return grid
