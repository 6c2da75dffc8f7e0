"""Closing the window while runs, experiments or checks are live: the question, and the wait until they stop."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import QDialog, QDialogButtonBox, QLabel, QWidget

from llmlab_gui.experiments.desk import ExperimentDesk
from llmlab_gui.experiments.poller import ExperimentRow
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.widgets import question
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import column
from llmlab_gui.widgets.progress_bar import ProgressBar

# How long a stop may take before ending it by force is offered.
_PATIENCE_SECONDS = 15
_LOOK_MS = 250


class CloseChoice(enum.Enum):
    """What becomes of the live runs."""

    STOP = enum.auto()
    KEEP = enum.auto()
    CANCEL = enum.auto()


def runs_to_ask_about(lab: Lab) -> list[RunRow]:
    """The live runs that a window started here. Closing changes nothing for those of a terminal or another machine."""
    return [row for row in lab.runs() if row.status.live and row.info.watched and not row.status.elsewhere]


def plans_to_ask_about(desks: Sequence[ExperimentDesk[Any]]) -> list[ExperimentRow]:
    """The live experiments and checks that a window started here: also between two runs, and those that train none."""
    return [plan for desk in desks for plan in desk.live() if plan.record.watched]


def ask(parent: QWidget, rows: Sequence[RunRow], waiting: int = 0, plans: Sequence[ExperimentRow] = ()) -> CloseChoice:
    """Asks what becomes of the live runs and plans. waiting: how many runs are queued."""
    names = [row.name for row in rows] or [plan.id for plan in plans]
    if len(names) > 1:
        text = f"{len(names)} {'runs' if rows else 'experiments and checks'} have not ended: {', '.join(names)}."
    elif rows:
        text = f"{names[0]} is {'paused' if rows[0].status.state == 'paused' else 'still training'}."
    else:
        text = f"{names[0]} has not ended."
    if rows:
        text += "".join(f" {plan.id} has not ended either, and may start more runs." for plan in plans)
    more = (
        f"Stopping saves {'a checkpoint first' if rows else 'what is finished'}, to resume from. "
        "Kept in the background, it stays as it is, and the window shows it again the next time it opens."
        + queue_words(waiting)
    )
    answers = {"keep": "Keep in the background", "stop": "Stop"}
    chosen = question.ask(parent, "Close", text, more, answers, default="keep", harmful="stop")
    return {"keep": CloseChoice.KEEP, "stop": CloseChoice.STOP}.get(chosen, CloseChoice.CANCEL)


def stop(lab: Lab, desks: Sequence[ExperimentDesk[Any]], rows: Sequence[RunRow]) -> None:
    """Stops these runs, and what would start others in their place: the queue, this window's experiments and checks."""
    if lab.queue.waiting():
        lab.queue.hold()
    for desk in desks:
        for plan in plans_to_ask_about([desk]):
            desk.controller.stop(plan.folder)
    for row in rows:
        lab.controller.stop(row.run)


def queue_words(waiting: int) -> str:
    """What becomes of the queue; nothing where nobody waits."""
    if not waiting:
        return ""
    runs = "The run that waits in the queue is" if waiting == 1 else f"The {waiting} runs that wait in the queue are"
    return (
        f"\n\n{runs} kept: the next one starts when the window is open again or, after Stop, when you resume the queue."
    )


class StoppingDialog(QDialog):
    """Waits for runs and plans to stop. `ended`: all of them have. After a while, ending runs by force is offered."""

    ended = Signal()
    kept = Signal()  # do not wait: the stop goes on without the window

    def __init__(self, lab: Lab, desks: Sequence[ExperimentDesk[Any]], ids: Sequence[str], parent: QWidget) -> None:
        """ids: of runs, and of plans of the desks."""
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Stopping")
        self.setModal(True)
        self._lab, self._desks, self._ids = lab, desks, list(ids)
        self._looks = 0
        self.text = labelled(QLabel(wordWrap=True), "What is being stopped")
        bar = ProgressBar()
        bar.setRange(0, 0)
        bar.setAccessibleName("Stopping")
        self.buttons = QDialogButtonBox()
        self.leave = self.buttons.addButton("Close without waiting", QDialogButtonBox.ButtonRole.AcceptRole)
        self.leave.setToolTip("It still saves and stops, just without the window")
        self.kill = self.buttons.addButton("End it now", QDialogButtonBox.ButtonRole.DestructiveRole)
        self.kill.setToolTip("Loses the steps since the last checkpoint")
        self.kill.hide()
        back = self.buttons.addButton("Do not close", QDialogButtonBox.ButtonRole.RejectRole)
        column(self.text, bar, self.buttons, into=self, margins=None)
        self.setMinimumWidth(440)
        self.leave.clicked.connect(self.kept)
        self.kill.clicked.connect(self._kill)
        back.clicked.connect(self.reject)
        self._timer = QTimer(self, interval=_LOOK_MS)
        self._timer.timeout.connect(self._look)
        self._timer.start()
        self._draw()

    def _live(self) -> list[RunRow]:
        rows = (self._lab.row(run_id) for run_id in self._ids)
        return [row for row in rows if row is not None and row.status.live]

    def _live_plans(self) -> list[str]:
        return [plan.id for plan in plans_to_ask_about(self._desks) if plan.id in self._ids]

    def _look(self) -> None:
        self._looks += 1
        self._lab.refresh()
        if self._live() or self._live_plans() or self._lab.queue.holding:
            self._draw()
        else:
            self._timer.stop()
            self.ended.emit()

    def _draw(self) -> None:
        asked = self._lab.controller.stopping_text
        lines = [f"{row.name}: {asked(row.run) or row.status.words}" for row in self._live()]
        holding = self._lab.queue.holding
        lines += [f"{plan}: stopping" for plan in self._live_plans()]
        lines += ["The queue: being paused"] if holding else []
        self.leave.setEnabled(not holding)  # or it would start its next run when the window is open again
        self.text.setText("\n".join(["Stopping…", *lines]))
        self.kill.setVisible(bool(self._live()) and self._looks * _LOOK_MS > _PATIENCE_SECONDS * 1000)

    def _kill(self) -> None:
        for row in self._live():
            self._lab.controller.kill(row.run)


def wait_for(
    lab: Lab, desks: Sequence[ExperimentDesk[Any]], ids: Sequence[str], parent: QWidget, ended: Callable[[], object]
) -> None:
    """Shows what is being stopped; then, or when it is kept after all, calls `ended`."""
    dialog = StoppingDialog(lab, desks, ids, parent)

    def close_now() -> None:
        dialog.close()
        ended()

    dialog.ended.connect(close_now)
    dialog.kept.connect(close_now)
    dialog.open()
