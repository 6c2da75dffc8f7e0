"""What all docks with charts over a run's steps share: which runs are shown, and when to redraw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, ClassVar

import numpy as np
from PySide6.QtGui import QColor, QResizeEvent
from PySide6.QtWidgets import QSplitter, QWidget

from llmlab.store.columns import Columns
from llmlab.store.history import RunHistory
from llmlab_gui.charts.curve import CurveStyle, StyledPoints
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.charts.marks import Span
from llmlab_gui.charts.panel import ChartChoices, ChartPanel
from llmlab_gui.charts.smoothing import smooth
from llmlab_gui.lab.dock import LabDock, is_seen
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.widgets.layouts import split, turn
from llmlab_gui.widgets.theme import current_theme

# More entries hide the curves; the Runs dock has every run's colour.
_MOST_IN_LEGEND = 6
_SEEN = 140  # alpha of a short piece of a line that is pale because there is much of it
# More than the kinds of curves that a run has, so that no curve of one run comes between those of another.
_LAYERS = 10.0
_MOST_EDGES = 2
# Pauses beyond these are shaded no more: the newest tell enough.
_MOST_SPANS = 40
_WIDE = 70  # characters: both the charts and what stands aside have room for their controls
_LOW = 22  # lines, with the title: two charts below one another would have to be scrolled
_SHARES = (3, 2)  # of the charts, and of that


@dataclass(frozen=True)
class ShownRun:
    """A run that the charts show; the first is the one that all docks are about."""

    id: str  # of the window: TRACK/ID
    name: str
    color: QColor
    history: RunHistory
    behind: float  # subtracted from the curves' z: the current run is in front
    edge: float = 0.0  # pixels added to a line's width: what lies behind shows on both sides where two runs agree


class PanelDock(LabDock):
    """A dock around a ChartPanel, whose choices are kept. Subclasses write `_fill`, which hands the charts their
    curves."""

    def __init__(
        self,
        lab: Lab,
        dock_id: str,
        title: str,
        charts: Sequence[tuple[LineChart, int]],
        *,
        smoothing: int | None = None,
        controls: Sequence[QWidget] = (),
        aside: QWidget | None = None,
        parent: QWidget | None = None,
    ) -> None:
        """charts: each with its share of the height. smoothing: its reach at first, in steps; None for no control.

        controls: the dock's own, before those of every chart. aside: what stands at the right of the charts, or under
        them where that is narrow.
        """
        self._halves: QSplitter | None = None
        super().__init__(lab, dock_id, title, parent)
        self.panel = ChartPanel(charts, self._fill, lab.redraw, self.write_file, smoothing=smoothing, controls=controls)
        if aside is not None:
            self._halves = split(*zip((self.panel, aside), _SHARES, strict=True), across=True)
        self.set_body(self.panel if self._halves is None else self._halves)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        width, height = event.size().toTuple()
        if self._body is not None:
            least = sum(chart.minimumSizeHint().width() for chart in self.panel.charts)
            self.panel.lay_out(across=height < self.fontMetrics().lineSpacing() * _LOW and least < width)
        if self._halves is not None:
            wide = width >= self.fontMetrics().averageCharWidth() * _WIDE
            sizes = [(width if wide else height) * share // sum(_SHARES) for share in _SHARES]
            turn(self._halves, across=wide, sizes=sizes, shares=_SHARES)

    def remember(self, settings: WindowSettings) -> None:
        name = f"charts/{self.objectName().removeprefix('dock.')}"
        choices = settings.choices(name, ChartChoices)
        if choices is not None:
            self.panel.set_choices(choices)
        self.panel.choices_changed.connect(lambda chosen: settings.save_choices(name, chosen))

    def shutdown(self) -> None:
        self.panel.shutdown()
        super().shutdown()

    def _fill(self) -> None:
        raise NotImplementedError


class ChartDock(PanelDock):
    """Charts of the runs that are shown. Subclasses write `fill`."""

    # Pixels, both sides together, by which the line of a run is wider than that of the run in front of it.
    edge: ClassVar[float] = 1.0

    def __init__(self, lab: Lab, *what: Any, **more: Any) -> None:
        """what, more: as of a PanelDock."""
        self._smoothed: dict[str, SmoothedColumn] = {}  # by the run's id
        super().__init__(lab, *what, **more)
        lab.events_arrived.connect(self._history_grew)
        lab.history_reset.connect(self._history_read)
        lab.shown_runs_changed.connect(self._runs_changed)
        lab.current_changed.connect(self._runs_changed)
        lab.runs_changed.connect(self._status_changed)
        self._runs_changed()

    def fill(self, runs: list[ShownRun]) -> None:
        """Sets the curves of the charts to what the histories hold now."""
        raise NotImplementedError

    def shown_runs(self) -> list[ShownRun]:
        """The runs to draw, current first; those that were deleted are left out."""
        rows = [row for run_id in self.lab.shown_runs() if (row := self.lab.row(run_id)) is not None]
        return [
            ShownRun(
                row.id,
                row.name,
                self.lab.color(row.id),
                self.lab.history(row.id),
                behind=place * _LAYERS,
                edge=self.edge * min(place, _MOST_EDGES),
            )
            for place, row in enumerate(rows)
        ]

    def steps_of(self, run: ShownRun, column: str, key: str, of: str = "") -> dict[str, StyledPoints]:
        """The curves of a column step by step, and smoothed if the panel is to smooth.

        column: loss or grad_norm. key: of the curve of single steps. of: before the names of both.
        """
        history, memory, x = run.history, self.panel.memory, run.history.x(self.panel.x_axis)
        raw = CurveStyle(
            run.color,
            f"{of}each step",
            run.name,
            edge=0.0 if memory else run.edge,
            alpha=80 if memory else 255,
            z=1 - run.behind,
            minor=memory > 0,
        )
        curves = {f"{run.id}/{key}": (x, history.step_columns[column], raw)}
        if memory:
            known = self._smoothed.get(run.id)
            if known is None or known.history is not history:
                known = self._smoothed[run.id] = SmoothedColumn(history, column)
            style = CurveStyle(run.color, f"{of}smoothed", run.name, width=2.0, z=3 - run.behind, edge=run.edge)
            curves[f"{run.id}/smoothed"] = (x, known.values(memory), style)
        return curves

    def _fill(self) -> None:
        runs = self.shown_runs()
        self.fill(runs)
        self._smoothed = {run.id: self._smoothed[run.id] for run in runs if run.id in self._smoothed}

    def _history_grew(self, run_id: str, _events: Sequence[object] = ()) -> None:
        if run_id in self.lab.shown_runs():
            self._update_empty()
            self.panel.mark_dirty()

    def _history_read(self, run_id: str) -> None:
        """Where there was nothing to see, the first curves are drawn before they are shown; one thing after the other,
        since all docks hear of a long run at once."""
        if self.panel.isVisible():
            self._history_grew(run_id)
        elif run_id in self.lab.shown_runs():
            self.panel.mark_dirty()
            if is_seen(self):
                self.lab.redraw.once(self, self._fill)  # makes the curves, and is done in no time when it comes again
                self.lab.redraw.once(self, self.panel.redraw_if_dirty)
            self.lab.redraw.once(self, self._update_empty)

    def _status_changed(self) -> None:
        if not self.panel.isVisibleTo(self):
            self._update_empty()

    def _runs_changed(self) -> None:
        self.panel.export_name = (
            f"{PurePath((self.lab.shown_runs() or ['chart'])[0]).name}-{self.objectName().removeprefix('dock.')}"
        )
        names = ", ".join(run.name for run in self.shown_runs())
        self.panel.export_title = f"{self.windowTitle().replace('&&', '&')}: {names}"
        self._update_empty()
        self.panel.set_follow(True)
        self.panel.mark_dirty()

    def _update_empty(self) -> None:
        runs = self.shown_runs()
        if not runs:
            self.show_no_run("Start one, or choose one in Runs: its curves appear here while it trains.")
        elif not any(len(run.history.step_columns) for run in runs):
            statuses = [row.status for run in runs if (row := self.lab.row(run.id)) is not None]
            if any(status.step for status in statuses):
                self.show_empty("Reading the steps", "Their curves appear here as soon as they are read.")
            elif statuses and not statuses[0].live:
                self.show_empty("No steps", f"{runs[0].name} ended before its first step.")
            elif statuses and statuses[0].state == "paused":
                self.show_empty("No steps yet", "The run is paused: Resume lets it take its first step.")
            else:
                self.show_empty("No steps yet", "The first one appears here as soon as it is done.")
        else:
            if is_seen(self) and not self.panel.isVisible():
                self.panel.redraw_if_dirty()  # else the curves of the run before were seen until the next tick
            self.show_body()


def legend(runs: list[ShownRun], kinds: list[CurveStyle], remarks: Mapping[str, str] | None = None) -> list[CurveStyle]:
    """The runs by their colours, then what each kind of line is, in the colour of text where there are several runs.

    remarks: what is to be said of a run, by its id.
    """
    said = {run.id: f"{run.name}: {remarks[run.id]}" if remarks and run.id in remarks else run.name for run in runs}
    entries = [CurveStyle(run.color, said[run.id], width=2.0) for run in runs[:_MOST_IN_LEGEND]]
    if len(runs) > _MOST_IN_LEGEND:
        entries.append(CurveStyle(QColor(current_theme().quiet), f"and {len(runs) - _MOST_IN_LEGEND} more", alpha=0))
    text = QColor(current_theme().text)
    distinct = {kind.label: kind for kind in reversed(kinds)}
    for kind in reversed(distinct.values()):
        entries.append(
            replace(
                kind, color=kind.color if len(runs) == 1 else text, group="", alpha=max(kind.alpha, _SEEN), edge=0.0
            )
        )
    return entries


def pauses(run: ShownRun, x_axis: str) -> list[Span]:
    """Where a run did not train: a stretch on the axis of elapsed time, single places on the others."""
    history = run.history
    interruptions = history.interruptions[-_MOST_SPANS:]
    if x_axis == "elapsed":
        origin = history.origin or 0.0
        newest = float(history.x("elapsed")[-1]) if len(history.step_columns) else 0.0
        return [
            Span(pause.start - origin, max(newest, pause.start - origin) if pause.end is None else pause.end - origin)
            for pause in interruptions
        ]
    if not len(history.step_columns):
        return []
    places = history.x(x_axis, np.array([float(pause.step) for pause in interruptions]))
    return [Span(float(place), float(place)) for place in places]


class SmoothedColumn:
    """One column of one run, smoothed. New rows change only the newest; a change of history or reach starts over."""

    def __init__(self, history: RunHistory, column: str) -> None:
        """column: `loss` or `grad_norm`, whose means over thinned rows the history keeps."""
        self.history = history
        self._column = f"{column}_mean"
        self._count = f"{column}_count"
        self._key: tuple[int, int] | None = None

    def values(self, reach: int) -> np.ndarray:
        """The smoothed value at each row; reach as in `smooth`."""
        steps = self.history.step_columns
        if self._key != (self.history.version, reach):
            self._key = (self.history.version, reach)
            self._smoothed = Columns(("smoothed",))
        done, at = len(self._smoothed), steps["step"]
        if done < len(steps):
            # Rows whose windows reached beyond the last one; its neighbour's mean may belong far before its step.
            begin = max(0, int(np.searchsorted(at, at[done - 1] - reach)) - 1) if done else 0
            counts = steps[self._count]
            means = np.where(counts > 0, steps[self._column], np.nan)
            self._smoothed.truncate(begin)
            self._smoothed.append(smooth(at, means, reach, counts=counts, begin=begin)[:, None])
        return self._smoothed["smoothed"]
