"""Colours of an experiment's trials: by the varied value, in its order; by group where there are several."""

from __future__ import annotations

from collections.abc import Hashable

from PySide6.QtGui import QColor

from llmlab.studies.records import ExperimentRecord, Trial
from llmlab_gui.charts.color_scale import sequence_colors, series_color
from llmlab_gui.widgets.theme import current_theme, mix

# Of several groups each has one colour; its values are told apart by how much of the text's colour they have.
_TOWARDS_GROUND, _TOWARDS_TEXT = 0.4, 0.45


def cell_of(trial: Trial) -> Hashable:
    """What runs of different seeds have in common."""
    return trial.group, tuple(trial.varied.items()), trial.x


def trial_colors(record: ExperimentRecord) -> dict[str, QColor]:
    """A colour a trial, by its name; runs of one value share it."""
    groups = list(dict.fromkeys(trial.group for trial in record.arms))
    colors: dict[Hashable, QColor] = {}
    for number, group in enumerate(groups):
        cells = list(dict.fromkeys(cell_of(trial) for trial in sorted(_of(record, group), key=lambda trial: trial.x)))
        shades = sequence_colors(len(cells)) if len(groups) == 1 else _shades(series_color(number), len(cells))
        colors |= dict(zip(cells, shades, strict=True))
    return {trial.name: colors[cell_of(trial)] for trial in record.arms}


def _of(record: ExperimentRecord, group: str) -> list[Trial]:
    return [trial for trial in record.arms if trial.group == group]


def _shades(color: QColor, count: int) -> list[QColor]:
    """From fainter to stronger than `color`."""
    theme = current_theme()
    if count == 1:
        return [color]
    shares = [-_TOWARDS_GROUND + (_TOWARDS_GROUND + _TOWARDS_TEXT) * i / (count - 1) for i in range(count)]
    return [mix(color, theme.surface, -share) if share < 0 else mix(color, theme.text, share) for share in shares]
