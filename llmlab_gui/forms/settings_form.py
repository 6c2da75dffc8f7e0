"""A form for a settings class: every field from its schema, the preset and what matters most at its head."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QComboBox, QGridLayout, QLabel, QVBoxLayout, QWidget

from llmlab.core.config import describe, with_values
from llmlab.core.errors import UsageError
from llmlab.core.settings import Preset
from llmlab_gui.forms.field import Field
from llmlab_gui.forms.section import Section

T = TypeVar("T")


class SettingsForm(QWidget, Generic[T]):
    """A folding section a section of the settings. `settings()` gives what is in it, checked."""

    edited = Signal()
    entered = Signal(object)  # Field

    def __init__(
        self, settings_type: type[T], titles: Mapping[str, str], own: Mapping[str, Field], parent: QWidget | None = None
    ) -> None:
        """titles: of the sections. own: fields by key that the caller made and places itself.

        Empty until `set_baseline`.
        """
        super().__init__(parent)
        self._base = settings_type()
        self.fields: dict[str, Field] = {}
        self.sections: dict[str, Section] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        grouped: dict[str, list[Field]] = {}
        for info in describe(settings_type):
            field = own.get(info.key) or Field(info, parent=self)
            self.fields[info.key] = field
            if info.key not in own:
                grouped.setdefault(info.section, []).append(field)
            field.edited.connect(self._edited)
            field.entered.connect(self.entered)
        for name, fields in grouped.items():
            self.sections[name] = Section(titles.get(name, name), fields)
            layout.addWidget(self.sections[name])
        layout.addStretch(1)
        self._quiet = False

    def set_baseline(self, settings: T) -> None:
        """Shows these settings, and counts them as unchanged."""
        self._base = settings
        self._set({key: _get(settings, key) for key in self.fields}, baseline=True)

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Shows some values by `section.field`, checked; the others stay."""
        checked = with_values(self._base, values)
        self._set({key: _get(checked, key) for key in values}, baseline=False)

    def settings(self) -> T:
        """What is in the form. UsageError naming the first thing that is wrong."""
        return with_values(self._base, {key: field.editor.value() for key, field in self.fields.items()})

    def problem(self) -> tuple[UsageError, Field | None] | None:
        """What is wrong, and the field that it is about where that is clear."""
        for field in self.fields.values():
            try:
                field.parsed()
            except UsageError as error:
                return error, field
        try:
            self.settings()
        except UsageError as error:
            named = (field for key, field in self.fields.items() if key in error.what)
            return error, next(named, None)
        return None

    def complain(self) -> None:
        """Says under a field what is wrong with it, also where only its fit with others is."""
        found = self.problem()
        for field in self.fields.values():
            field.complain(str(found[0]) if found is not None and found[1] is field else "")

    def changed(self) -> Collection[Field]:
        """The fields that differ from the baseline."""
        return [field for field in self.fields.values() if field.changed]

    def reset(self) -> None:
        """Everything as in the baseline."""
        self.set_baseline(self._base)

    def _set(self, values: Mapping[str, Any], *, baseline: bool) -> None:
        self._quiet = True
        for key, value in values.items():
            if baseline:
                self.fields[key].set_baseline(value)
            else:
                self.fields[key].set_value(value)
        self._quiet = False
        self._edited()

    def _edited(self) -> None:
        if self._quiet:
            return
        for section in self.sections.values():
            section.count_changes()
        self.edited.emit()


def _get(settings: Any, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(settings, section), name)


class PresetBox(QComboBox):
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
        for preset in presets:
            self.addItem(titled(preset), preset.name)
            self.setItemData(self.count() - 1, preset.description, Qt.ItemDataRole.ToolTipRole)
        self.choose(first)

    def choose(self, name: str) -> None:
        """The first when there is none of that name."""
        self.setCurrentIndex(max(0, self.findData(name)))


def essentials_grid(presets: PresetBox, about: QWidget, fields: Iterable[Field]) -> QGridLayout:
    """The preset, what it is, and the fields below one another; name, editor, unit and the way back in a row."""
    grid = QGridLayout()
    grid.setHorizontalSpacing(6)
    grid.setVerticalSpacing(4)
    grid.setColumnStretch(1, 1)
    label = QLabel("preset")
    label.setBuddy(presets)
    grid.addWidget(label, 0, 0)
    grid.addWidget(presets, 0, 1, 1, 3)
    grid.addWidget(about, 1, 1, 1, 3)
    top = Qt.AlignmentFlag.AlignTop
    for place, field in enumerate(fields):
        row = 2 + 2 * place  # under each is room for what is wrong with it
        name, editor, unit, reset = field.widgets
        grid.addWidget(name, row, 0, top)
        grid.addWidget(editor, row, 1, 1, 1 if field.info.unit else 2)
        grid.addWidget(unit, row, 2)
        grid.addWidget(reset, row, 3, top)
        grid.addWidget(field.problem, row + 1, 1, 1, 3)
    return grid
