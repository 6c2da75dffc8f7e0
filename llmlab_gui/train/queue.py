"""The Queue dock: the runs that wait, in which order they start, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from PySide6.QtCore import QMimeData, QModelIndex, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QShowEvent
from PySide6.QtWidgets import QAbstractItemView, QLabel, QWidget

from llmlab.core.errors import LabError
from llmlab.jobs.queue import QueuedRun
from llmlab.notebook.predictions import from_dict
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.widgets.icons import state_icon
from llmlab_gui.widgets.labels import ProblemLabel, labelled
from llmlab_gui.widgets.layouts import column
from llmlab_gui.widgets.numbers import minutes_text, time_left_text
from llmlab_gui.widgets.row_tables import Column, Index, RowsModel, numbers, rows_table, table_actions, tool_bar
from llmlab_gui.widgets.theme import current_theme, theme_notifier

_TICK_MS = 1000  # times left grow shorter


class QueueDock(LabDock):
    """Drag a run, or move it by keyboard. The next starts when no run lives any more."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "queue", "Queue", parent)
        self.model = QueueModel(self)
        self.table = rows_table(self.model, "Runs that wait", COLUMNS, several=True)
        self.now = labelled(QLabel(wordWrap=True), "What the queue waits for")
        self.problem = ProblemLabel()
        self._actions = table_actions(
            self.table,
            "queue",
            (
                ("start", "Start now", "Start it now, whatever else is training", self.start_now, ""),
                ("up", "Up", "Move it up", lambda: self.shift(-1), "Alt+Up"),
                ("down", "Down", "Move it down", lambda: self.shift(1), "Alt+Down"),
                ("edit", "Edit", "Take it out, and put its settings into its set-up panel", self.edit, ""),
                ("remove", "Remove", "Take it out of the queue", self.remove, "Del"),
                ("pause", "Pause the queue", "No further run is started", lab.queue.toggle_paused, ""),
            ),
        )
        self._build_table()
        self.tools = tool_bar(self._actions)
        self.set_body(column(self.tools, self.now, (self.table, 1), self.problem))
        self.caption("Waiting runs: each starts when the one before it has ended.", "experiments")
        self._timer = QTimer(self, interval=_TICK_MS)
        self._timer.timeout.connect(self._refresh_if_seen)
        self._timer.start()
        lab.queue.changed.connect(self.refresh)
        lab.runs_changed.connect(self._refresh_if_seen)
        theme_notifier.changed.connect(self.refresh)
        self.refresh()

    @property
    def _one(self) -> QueuedRun | None:
        """The selected run, if it is the only one."""
        chosen = self.chosen()
        return chosen[0] if len(chosen) == 1 else None

    def chosen(self) -> list[QueuedRun]:
        """The selected runs, first in turn first."""
        places = sorted(index.row() for index in self.table.selectionModel().selectedRows())
        return [self.model.rows[place].item for place in places]

    def refresh(self) -> None:
        """Shows the queue as it is now."""
        state, live = self.lab.queue.state, self.lab.queue.live
        kept = {item.id for item in self.chosen()}
        left = None if state.paused else _time_left(live)
        self.model.show(waits(state.items, left))
        if kept and not self.chosen():
            self._select(kept)
        self.now.setText(_now_text(live, state.paused))
        pause = self._actions["pause"]
        pause.setText("Resume the queue" if state.paused else "Pause the queue")
        pause.setIconText(pause.text())
        self._update_actions()
        if state.items:
            self.show_body()
        else:
            hint = "Set up a run and press Add to queue: it starts when the one before has ended."
            self.show_no_run(hint, "Nothing waits")

    def shutdown(self) -> None:
        self._timer.stop()
        super().shutdown()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.refresh()

    # What the buttons do -------------------------------------------------------------------------------------------

    def start_now(self) -> None:
        """Starts the chosen run at once."""
        if (item := self._one) is not None:
            self.lab.queue.start_now(item.id)

    def shift(self, distance: int) -> None:
        """Moves the chosen run up (negative) or down."""
        if (item := self._one) is not None:
            self.lab.queue.move(item.id, self._place(item) + distance)

    def remove(self) -> None:
        """Takes the chosen runs out."""
        self.lab.queue.remove([item.id for item in self.chosen()])

    def edit(self) -> None:
        """Takes the chosen run out and puts its settings, name and predictions into its set-up panel."""
        item = self._one
        if item is None:
            return
        try:
            predictions = list(map(from_dict, item.predictions))
        except LabError as error:
            self.lab.error_raised.emit(error)
            return
        self.lab.queue.remove(
            [item.id], lambda: self.lab.set_up_again(item.settings, item.preset, item.name, predictions)
        )

    def _build_table(self) -> None:
        table = self.table
        table.setDragDropMode(QAbstractItemView.DragDropMode.InternalMove)
        table.setDragDropOverwriteMode(False)
        table.setDefaultDropAction(Qt.DropAction.MoveAction)
        table.selectionModel().selectionChanged.connect(self._update_actions)
        self.model.moved.connect(self.lab.queue.move)

    def _place(self, item: QueuedRun) -> int:
        return [row.item.id for row in self.model.rows].index(item.id)

    def _select(self, ids: set[str]) -> None:
        for place, row in enumerate(self.model.rows):
            if row.item.id in ids:
                self.table.selectRow(place)

    def _refresh_if_seen(self) -> None:
        if self.isVisible():
            self.refresh()

    def _update_actions(self) -> None:
        one = self._one
        place = self._place(one) if one is not None else -1
        self._actions["start"].setEnabled(one is not None)
        self._actions["edit"].setEnabled(one is not None)
        self._actions["up"].setEnabled(place > 0)
        self._actions["down"].setEnabled(0 <= place < len(self.model.rows) - 1)
        self._actions["remove"].setEnabled(bool(self.chosen()))
        self.problem.say(one.problem if one is not None else "")


def _time_left(live: list[RunRow]) -> float | None:
    """Seconds until all of these have ended; None where one does not say, or is paused."""
    times = [row.status.eta_seconds if row.status.state == "running" else None for row in live]
    known = [time for time in times if time is not None]
    return max(known, default=0.0) if len(known) == len(times) else None


def _now_text(live: list[RunRow], paused: bool) -> str:
    """What the queue waits for."""
    if paused:
        return "The queue is paused: nothing is started."
    if not live:
        return "The first one starts at once."
    row = live[0]
    others = f" and {len(live) - 1} more" if len(live) > 1 else ""
    if row.status.state == "paused":
        return f"Waits for {row.name}{others}, which is paused."
    left = row.status.eta_seconds
    return f"Waits for {row.name}{others}" + (f": {time_left_text(left)} left." if left is not None else ".")


_MIME = "application/x-llmlab-queued-run"


@dataclass(frozen=True)
class Waiting:
    """A run that waits. place: its turn, from 1. begins: seconds until then, None where that is not known."""

    place: int
    item: QueuedRun
    begins: float | None


def waits(items: Sequence[QueuedRun], left: float | None) -> list[Waiting]:
    """When each begins. left: seconds until the runs that live now have ended, None where that is not known."""
    rows, begins = [], left
    for place, item in enumerate(items, start=1):
        rows.append(Waiting(place, item, None if item.problem else begins))
        if not item.problem:
            begins = None if begins is None or item.seconds is None else begins + item.seconds
    return rows


COLUMNS: tuple[Column[Waiting], ...] = (
    Column("", lambda row: str(row.place), "Its turn", right=True, width=3),
    Column(
        "Run",
        lambda row: row.item.name or f"{row.item.preset or 'custom'} (named when it starts)",
        "Its name, or the preset that it is made from",
        width=20,
    ),
    numbers(
        "Takes",
        lambda row: row.item.seconds,
        lambda seconds: minutes_text(seconds / 60),
        "As estimated before it was queued",
        "s",
        width=8,
    ),
    Column("Begins in", lambda row: _begins(row), "When those before it have ended, as far as that is known", width=11),
    Column("Kind", lambda row: row.item.settings.words.does, "What it does", width=14),
    Column("Learns from", lambda row: PurePath(row.item.settings.reads).name, "Corpus or examples", width=14),
)
NAME, BEGINS = 1, 3


class QueueModel(RowsModel[Waiting]):
    """First comes first."""

    moved = Signal(str, int)  # item's id, its new place among the others

    columns = COLUMNS

    def key(self, row: Waiting) -> str:
        return row.item.id

    def tip(self, row: Waiting) -> str:
        return _tip(row.item)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row, column = self.rows[index.row()], index.column()
        if role == Qt.ItemDataRole.DecorationRole and column == NAME:
            return state_icon("failed" if row.item.problem else "queued")
        if role == Qt.ItemDataRole.ForegroundRole and row.item.problem and column == BEGINS:
            return QColor(current_theme().bad)
        return super().data(index, role)

    # Dragging ----------------------------------------------------------------------------------------------------

    def flags(self, index: Index) -> Qt.ItemFlag:
        if not index.isValid():
            return Qt.ItemFlag.ItemIsDropEnabled  # between rows, not onto them
        return Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsDragEnabled

    def supportedDropActions(self) -> Qt.DropAction:
        return Qt.DropAction.MoveAction

    def mimeTypes(self) -> list[str]:
        return [_MIME]

    def mimeData(self, indexes: Sequence[QModelIndex]) -> QMimeData:
        data = QMimeData()
        if indexes:
            data.setData(_MIME, self.rows[indexes[0].row()].item.id.encode())
        return data

    def dropMimeData(self, data: QMimeData, action: Qt.DropAction, row: int, column: int, parent: Index) -> bool:
        item_id = bytes(data.data(_MIME).data()).decode("ascii", "replace")
        place = next((at for at, other in enumerate(self.rows) if other.item.id == item_id), None)
        if place is not None:
            before = len(self.rows) if row < 0 else row
            self.moved.emit(item_id, before - (place < before))
        return False  # the view takes nothing out: the queue itself is asked to change


def _begins(row: Waiting) -> str:
    if row.item.problem:
        return "cannot start"
    if row.begins is None:
        return "not known"
    return "at once" if row.begins < 1 else minutes_text(row.begins / 60)


def _tip(item: QueuedRun) -> str:
    lines = [item.name or item.preset, f"{item.settings.train.steps:,} steps"]
    if base := item.settings.base:
        lines.append(f"Base {base}")
    if item.problem:
        lines.append(item.problem)
    return "\n".join(lines)
