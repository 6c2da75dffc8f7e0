"""Losses of an experiment's runs, all in one chart: coloured by the varied value, seeds thin with their mean."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget

from llmlab.store.events import NATS
from llmlab.store.history import RunHistory
from llmlab.studies.experiments.outcomes import ExperimentResults
from llmlab.studies.plans.records import ExperimentRecord, Trial
from llmlab_gui.charts.curve import CurveStyle
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.experiments.desk import ExperimentDesk
from llmlab_gui.experiments.tables import cell_of, trial_colors
from llmlab_gui.lab.lab import Lab
from llmlab_gui.train.chart_dock import PanelDock, SmoothedColumn
from llmlab_gui.train.loss_unit import NO_BYTES, LossUnit
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.one_line import ChoiceBox
from llmlab_gui.widgets.theme import current_theme

_SMOOTHING_STEPS = 20
_TRAINING, _VALIDATION = "training loss", "validation loss"
_SEED_ALPHA, _SEED_WIDTH, _MEAN_WIDTH = 90, 1.0, 2.2
# A mean needs its runs at the same places: so many of them, more than a screen shows.
_MEAN_POINTS = 600
_CAPTION = "Every run of the experiment. Thin: one seed; thick: the mean of a value's seeds; ×: stopped as diverged."


@dataclass(frozen=True)
class _Cell:
    """The runs of one varied value."""

    label: str
    color: QColor
    trials: list[Trial]


class ExperimentLossesDock(PanelDock):
    """Follows the current experiment while its runs train."""

    def __init__(self, lab: Lab, desk: ExperimentDesk[ExperimentResults], parent: QWidget | None = None) -> None:
        self.desk = desk
        self._smoothed: dict[str, SmoothedColumn] = {}  # by trial
        self.chart = LineChart("loss", NATS)
        self.unit = LossUnit(self.chart, self._which_chosen)
        self.which = labelled(ChoiceBox(), "Which loss")
        self.which.addItems([_TRAINING, _VALIDATION])
        self.which.setToolTip("Training loss step by step, or validation loss where it was measured")
        title, controls = "Losses of the runs", [self.which, self.unit.button]
        charts = [(self.chart, 1)]
        super().__init__(
            lab, "experiment_losses", title, charts, smoothing=_SMOOTHING_STEPS, controls=controls, parent=parent
        )
        self.caption(_CAPTION, "experiments")
        self.which.currentIndexChanged.connect(self._which_chosen)
        self.desk.curves_changed.connect(self._changed)
        self.desk.current_changed.connect(self._current_changed)
        self.desk.changed.connect(self._changed)
        self._current_changed("")

    def _which_chosen(self) -> None:
        self.panel.set_follow(True)
        self._changed()

    def _current_changed(self, _experiment: str) -> None:
        self._smoothed.clear()
        row = self.desk.current()
        self.panel.export_name = f"{row.id if row else 'experiment'}-losses"
        self.panel.export_title = f"Losses of the runs of {row.id}" if row else ""
        self.panel.set_follow(True)
        self._changed()

    def _changed(self) -> None:
        row = self.desk.current()
        if row is None:
            hint = "Set one up, or choose one in Experiments: the losses of its runs appear here while they train."
            self.show_empty(
                "No experiment is selected", hint, "Set one up", partial(self.lab.dock_requested.emit, "experiment")
            )
        elif not row.record.trials:
            self.show_empty("This experiment trains nothing", f"It analyses {row.record.subject}.")
        elif not self.desk.curves:
            self.show_empty("No steps yet", "The first one appears here as soon as a run has done it.")
        else:
            self.show_body()
        self.panel.mark_dirty()

    # Drawing ---------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        curves, diverged, row = self.desk.curves, self._diverged(), self.desk.current()
        self.unit.settle(curve.worker for curve in curves.values())
        scales = {name: self.unit.scale(curve.worker) for name, curve in curves.items()}
        lines = {name: self._line(name, curves[name], scale) for name, scale in scales.items() if scale is not None}
        self.chart.ceiling = _ceiling(lines, diverged)
        keys: set[str] = set()
        legend: list[CurveStyle] = []
        for place, cell in enumerate(self._cells()):
            there = [trial.name for trial in cell.trials if trial.name in lines]
            if not there:
                continue
            words = cell.label if legend or row is None else f"{_varied(row.record)}: {cell.label}"
            legend.append(CurveStyle(cell.color, words, width=2.0))
            seeds = {trial.name: trial.seed for trial in cell.trials}
            for name in there:
                style = self._style(cell, f"seed {seeds[name]}", thin=len(there) > 1, z=float(place))
                keys.add(self._set(name, *lines[name], style))
                if name in diverged:
                    keys.add(self._mark_diverged(name, cell, *lines[name]))
            if len(there) > 1:
                style = self._style(cell, f"mean of {len(there)} seeds", thin=False, z=place + 100.0)
                keys.add(self._set(f"mean/{place}", *_mean([lines[name] for name in there]), style))
        self.chart.keep_only(keys)
        shown = diverged & set(lines)
        if shown:
            legend.append(CurveStyle(QColor(current_theme().bad), "stopped as diverged", markers="x", width=1.5))
        self.chart.set_legend(legend)
        self.panel.set_note(self._note_text(len(shown), len(curves) - len(lines)))

    def _diverged(self) -> set[str]:
        """Names of the trials that were cut."""
        row = self.desk.current()
        trials = row.record.trials if row is not None else []
        return {trial.name for trial in trials if row is not None and row.standing(trial.name).state == "diverged"}

    def _cells(self) -> list[_Cell]:
        row = self.desk.current()
        if row is None:
            return []
        colors = trial_colors(row.record)
        found: dict[Hashable, _Cell] = {}
        groups = list(dict.fromkeys(trial.group for trial in row.record.trials))
        for trial in sorted(row.record.trials, key=lambda trial: (groups.index(trial.group), trial.x, trial.seed)):
            cell = found.setdefault(cell_of(trial), _Cell(trial.value_text, colors[trial.name], []))
            cell.trials.append(trial)
        return list(found.values())

    def _line(self, trial: str, curve: RunHistory, scale: float) -> tuple[np.ndarray, np.ndarray]:
        axis, memory = self.panel.x_axis, self.panel.memory
        if self.which.currentIndex() == 1:
            values = curve.evaluations["val_loss"]
            finite = np.isfinite(values)
            return curve.x(axis, curve.evaluations["step"][finite]), scale * values[finite]
        if not memory:
            return curve.x(axis), scale * curve.step_columns["loss"]
        known = self._smoothed.get(trial)
        if known is None or known.history is not curve:
            known = self._smoothed[trial] = SmoothedColumn(curve, "loss")
        return curve.x(axis), scale * known.values(memory)

    def _style(self, cell: _Cell, label: str, *, thin: bool, z: float) -> CurveStyle:
        measured = self.which.currentIndex() == 1
        return CurveStyle(
            cell.color,
            label,
            cell.label,
            width=_SEED_WIDTH if thin else _MEAN_WIDTH,
            alpha=_SEED_ALPHA if thin else 255,
            markers="o" if measured and not thin else None,
            marker_size=6,
            z=z,
            minor=thin,
        )

    def _set(self, key: str, x: np.ndarray, y: np.ndarray, style: CurveStyle) -> str:
        key = f"{self.which.currentIndex()}/{key}"  # markers stay what they were
        known = self.chart.curves().get(key)
        if known is not None and bool(known.style.markers) != bool(style.markers):
            style = replace(style, markers=known.style.markers)
        self.chart.set_curve(key, x, y, style)
        return key

    def _mark_diverged(self, name: str, cell: _Cell, x: np.ndarray, y: np.ndarray) -> str:
        last = np.flatnonzero(np.isfinite(y))[-1:]
        # Where it left the view, if it did: a mark that nobody sees says nothing.
        at = y[last] if self.chart.ceiling is None else np.minimum(y[last], self.chart.ceiling)
        style = CurveStyle(
            QColor(current_theme().bad),
            "stopped as diverged",
            cell.label,
            markers="x",
            marker_size=12,
            z=300.0,
            minor=True,
        )
        return self._set(f"diverged/{name}", x[last], at, style)

    def _note_text(self, diverged: int, missing: int) -> str:
        row = self.desk.current()
        if row is None:
            return ""
        notes = [f"colour: {_varied(row.record)}", f"{diverged} diverged" if diverged else ""]
        notes += [self.unit.note, f"{missing} left out, {NO_BYTES}" if missing else ""]
        return " · ".join(filter(None, notes))


def _varied(record: ExperimentRecord) -> str:
    """What tells the curves apart, in words."""
    names = list(dict.fromkeys(key.rpartition(".")[2] for trial in record.trials for key in trial.varied))
    return " and ".join(names)


def _ceiling(lines: Mapping[str, tuple[np.ndarray, np.ndarray]], diverged: set[str]) -> float | None:
    """The largest loss of the runs that did not diverge, and of the start: what lies above tells nothing more."""
    kept = [y[np.isfinite(y)] for name, (_, y) in lines.items() if name not in diverged]
    kept += [y[np.isfinite(y)][:1] for name, (_, y) in lines.items() if name in diverged]
    if not diverged or not any(len(y) for y in kept):
        return None
    return float(max(y.max() for y in kept if len(y)))


def _mean(lines: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of curves where all of them are: between the last first place and the first last one."""
    lines = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in lines]
    lines = [(x, y) for x, y in lines if len(x)]
    if not lines:
        return np.empty(0), np.empty(0)
    low, high = max(float(x[0]) for x, _ in lines), min(float(x[-1]) for x, _ in lines)
    first = lines[0][0]
    if all(len(x) == len(first) and np.array_equal(x, first) for x, _ in lines):
        return first, np.mean([y for _, y in lines], axis=0)
    if high < low:
        return np.empty(0), np.empty(0)
    places = np.unique(np.concatenate([x for x, _ in lines]))
    places = places[(places >= low) & (places <= high)]
    if len(places) > _MEAN_POINTS:
        places = places[np.linspace(0, len(places) - 1, _MEAN_POINTS).round().astype(int)]
    return places, np.mean([np.interp(places, x, y) for x, y in lines], axis=0)
