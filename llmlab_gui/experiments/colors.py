"""Colours of an experiment's arms: by the varied value, in its order; by group where there are several."""

from __future__ import annotations

from collections.abc import Hashable

from PySide6.QtGui import QColor

from llmlab.studies.records import Arm, ExperimentRecord
from llmlab_gui.charts.color_scale import sequence_colors, series_color
from llmlab_gui.widgets.theme import current_theme, mix

# Of several groups each has one colour; its values are told apart by how much of the text's colour they have.
_TOWARDS_GROUND, _TOWARDS_TEXT = 0.4, 0.45


def cell_of(arm: Arm) -> Hashable:
    """What runs of different seeds have in common."""
    return arm.group, tuple(arm.varied.items()), arm.x


def arm_colors(record: ExperimentRecord) -> dict[str, QColor]:
    """A colour an arm, by its name; runs of one value share it."""
    groups = list(dict.fromkeys(arm.group for arm in record.arms))
    colors: dict[Hashable, QColor] = {}
    for number, group in enumerate(groups):
        cells = list(dict.fromkeys(cell_of(arm) for arm in sorted(_of(record, group), key=lambda arm: arm.x)))
        shades = sequence_colors(len(cells)) if len(groups) == 1 else _shades(series_color(number), len(cells))
        colors |= dict(zip(cells, shades, strict=True))
    return {arm.name: colors[cell_of(arm)] for arm in record.arms}


def _of(record: ExperimentRecord, group: str) -> list[Arm]:
    return [arm for arm in record.arms if arm.group == group]


def _shades(color: QColor, count: int) -> list[QColor]:
    """From fainter to stronger than `color`."""
    theme = current_theme()
    if count == 1:
        return [color]
    shares = [-_TOWARDS_GROUND + (_TOWARDS_GROUND + _TOWARDS_TEXT) * i / (count - 1) for i in range(count)]
    return [mix(color, theme.surface, -share) if share < 0 else mix(color, theme.text, share) for share in shares]
