"""The head of a form: the preset that it starts from, and the settings in sight without unfolding anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QComboBox, QGridLayout, QLabel, QWidget

from llmlab.core.settings import Preset
from llmlab_gui.forms.field import Field


class PresetBox(QComboBox):
    """The names of presets are its data; their descriptions are tool tips."""

    def __init__(
        self, name: str, presets: Sequence[Preset[Any]], first: str, titled: Callable[[Preset[Any]], str]
    ) -> None:
        """name: for screen readers. first: the preset that is chosen. titled: how each reads."""
        super().__init__()
        self.setAccessibleName(name)
        self.setToolTip("A starting point; everything below can be changed")
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
