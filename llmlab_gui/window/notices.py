"""Tells what happened to people who do not see it: a long run's end, to whoever looks elsewhere; all of it, to a screen
reader."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from PySide6.QtCore import QObject
from PySide6.QtGui import QAccessible, QAccessibleAnnouncementEvent
from PySide6.QtWidgets import QApplication, QSystemTrayIcon, QWidget

from llmlab.core.errors import LabError
from llmlab_gui.experiments.desk import ExperimentDesk
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.widgets.background import WindowError
from llmlab_gui.widgets.icons import app_icon
from llmlab_gui.widgets.numbers import minutes_text

# Whoever started a shorter run is still there.
LONG_SECONDS = 60.0
_SHOWN_MS = 10_000
_WORDS = {
    "finished": "has finished",
    "failed": "has failed",
    "stopped": "has stopped",
    "interrupted": "was interrupted",
}


class Notices(QObject):
    """The window's entry in the task bar asks for attention; where the system has a tray, a message says more.

    What happened is also said in the window itself (`Lab.said`, `Lab.error_raised`), and read out by a screen reader.
    """

    def __init__(
        self, lab: Lab, desks: Sequence[ExperimentDesk[Any]], settings: WindowSettings, window: QWidget
    ) -> None:
        super().__init__(window)
        self._lab, self._settings, self._window = lab, settings, window
        self._tray: QSystemTrayIcon | None = None
        self._mistake: LabError | None = None  # the window's own that was told last
        lab.run_ended.connect(self._run_ended)
        lab.run_appeared.connect(self._run_appeared)
        lab.error_raised.connect(self._tell_error)
        lab.said.connect(lambda said: self.announce(said, politely=True))
        for desk in desks:
            desk.ended.connect(partial(self._plan_ended, desk))

    def tell(self, title: str, words: str) -> None:
        """Says it outside the window."""
        QApplication.alert(self._window)
        if not QSystemTrayIcon.isSystemTrayAvailable() or not QSystemTrayIcon.supportsMessages():
            return
        if self._tray is None:  # it is in the tray only once it has something to say
            self._tray = QSystemTrayIcon(app_icon(), self)
            self._tray.setToolTip("LLM Learning Lab")
            self._tray.messageClicked.connect(self._come_to_front)
            self._tray.activated.connect(lambda _: self._come_to_front())
        self._tray.show()
        self._tray.showMessage(title, words, app_icon(), _SHOWN_MS)

    def announce(self, words: str, *, politely: bool = False) -> None:
        """Has a screen reader say it: at once, or `politely` when it has said what it is saying."""
        event = QAccessibleAnnouncementEvent(self._window, words)
        kinds = QAccessible.AnnouncementPoliteness
        event.setPoliteness(kinds.Polite if politely else kinds.Assertive)
        QAccessible.updateAccessibility(event)

    def shutdown(self) -> None:
        """Takes the sign out of the tray."""
        if self._tray is not None:
            self._tray.hide()

    def _tell_error(self, error: LabError) -> None:
        """A mistake of the window comes twice: by whoever caught it, and as the answer to whoever waited."""
        if isinstance(error, WindowError):
            if error is self._mistake:
                return
            self._mistake = error
        self.announce(str(error))

    def _run_appeared(self, run_id: str) -> None:
        row = self._lab.row(run_id)
        if row is not None:
            self._lab.said.emit(f"{row.name} started training; it is in Runs.")

    def _run_ended(self, run_id: str) -> None:
        row = self._lab.row(run_id)
        if row is None:
            return
        seconds = lasted(row)
        killed = row.run.path in self._lab.controller.killed
        told = sentence(row, seconds, killed=killed)
        died = row.status.state == "interrupted" or row.status.error is not None
        if row.status.state != "finished" and (killed or not died):  # those the lab says itself
            self.announce(". ".join(told))
        if seconds >= LONG_SECONDS and self._is_unseen():
            self.tell(*told)

    def _plan_ended(self, desk: ExperimentDesk[Any], id: str) -> None:
        row = desk.row(id)
        if row is None:
            return
        seconds = row.status.active_seconds
        what = f"{id} {_WORDS.get(row.status.state, 'has ended')}"
        ended, all_of_them = row.status.ended_trials, len(row.record.trials)
        runs = f": {ended} of {all_of_them} runs have ended" if all_of_them else ""  # some train nothing
        words = f"After {minutes_text(seconds / 60)}{runs}."
        self.announce(f"{what}. {words}")
        if seconds >= LONG_SECONDS and self._is_unseen():
            self.tell(what, words)

    def _is_unseen(self) -> bool:
        """Whether the learner looks elsewhere, and wants to be told there."""
        return self._settings.notify and not self._window.isActiveWindow()

    def _come_to_front(self) -> None:
        self._window.showNormal() if self._window.isMinimized() else self._window.show()
        self._window.raise_()
        self._window.activateWindow()
        if self._tray is not None:
            self._tray.hide()


def lasted(row: RunRow) -> float:
    """Seconds since the run was made; it may have waited and paused meanwhile."""
    return max(0.0, time.time() - row.info.created)


def sentence(row: RunRow, seconds: float, *, killed: bool = False) -> tuple[str, str]:
    """Title and words of the message. killed: from here."""
    status = row.status
    killed = killed and status.state in ("failed", "interrupted")
    what = f"{row.name} {'was killed' if killed else _WORDS.get(status.state, 'has ended')}"
    parts = [f"After {minutes_text(seconds / 60)}, at step {status.step:,} of {status.steps:,}."]
    if status.val_loss is not None:
        parts.append(f"Validation loss {status.val_loss:.3f}.")
    if status.error is not None and not killed:
        parts.append(status.error.get("what", ""))
    return what, " ".join(parts).strip()
