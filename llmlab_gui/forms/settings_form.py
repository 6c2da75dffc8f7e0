"""A form for a settings class: every field from its schema, nothing written by hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Generic, TypeVar

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from llmlab.core.config import key_now, with_values
from llmlab.core.errors import UsageError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.setting_info import describe
from llmlab_gui.forms.field import Field
from llmlab_gui.forms.section import Section
from llmlab_gui.widgets.layouts import column

T = TypeVar("T")
# Of the sections. To fine-tune, the model and the examples themselves are chosen above them.
_TITLES = {
    "model": "Model",
    "lora": "Adapters",
    "data": "Data",
    "train": "Training",
    "samples": "Samples",
    "checkpoints": "Checkpoints",
    "distributed": "Several processes",
}
_OF_FINETUNING = {"model": "Backend", "data": "Examples"}


class SettingsForm(QWidget, Generic[T]):
    """A folding section a section of the settings. `settings()` gives what is in it, checked."""

    edited = Signal()
    entered = Signal(object)  # Field

    def __init__(self, settings_type: type[T], own: Mapping[str, Field]) -> None:
        """own: fields by key that the caller made and places itself. Empty until `set_baseline`."""
        super().__init__()
        self._base = settings_type()
        self.fields: dict[str, Field] = {}
        grouped: dict[str, list[Field]] = {}
        for info in describe(settings_type):
            field = own.get(info.key) or Field(info)
            self.fields[info.key] = field
            if info.key not in own:
                grouped.setdefault(info.section, []).append(field)
            field.edited.connect(self._edited)
            field.entered.connect(self.entered)
        titles = _TITLES | (_OF_FINETUNING if settings_type is FinetuneSettings else {})
        self.sections = {name: Section(titles[name], fields) for name, fields in grouped.items()}
        column(*self.sections.values(), 1, into=self, spacing=4)
        self._quiet = False

    def set_baseline(self, settings: T) -> None:
        """Shows these settings, and counts them as unchanged."""
        self._base = settings
        self._set({key: _get(settings, key) for key in self.fields}, baseline=True)

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Shows some values by `section.field`, also of former names, checked; the others stay."""
        checked = with_values(self._base, values)
        self._set({key: _get(checked, key) for key in map(key_now, values)}, baseline=False)

    def settings(self) -> T:
        """What is in the form. UsageError naming the first thing that is wrong."""
        return with_values(self._base, {key: field.value() for key, field in self.fields.items()})

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
