"""The two set-up panels: from scratch, and to fine-tune. Train means the one that is in sight."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from llmlab_gui.lab.dock import is_seen
from llmlab_gui.pages.places import FINE_TUNE, TRAIN

if TYPE_CHECKING:  # docks, which are made when the window is seen
    from llmlab_gui.finetune.setup import FinetuneSetupDock
    from llmlab_gui.train.run_setup import RunSetupDock
    from llmlab_gui.train.setup import SetupDock
    from llmlab_gui.window.main_window import MainWindow


class Setups:
    """Asked for either panel, it has the window make its docks."""

    def __init__(self, window: MainWindow) -> None:
        self._window = window
        self._fine_tunes = False  # the panel that was brought into sight last is that of fine-tuning

    def watch(self) -> None:
        """The docks are there."""
        for dock, fine_tunes in ((self.scratch, False), (self.fine_tuning, True)):
            dock.visibilityChanged.connect(partial(self._seen, fine_tunes))

    @property
    def scratch(self) -> SetupDock:
        """Of runs from scratch."""
        self._window.furnish()
        return cast("SetupDock", self._window.docks["setup"])

    @property
    def fine_tuning(self) -> FinetuneSetupDock:
        """Of fine-tuning runs."""
        self._window.furnish()
        return cast("FinetuneSetupDock", self._window.docks["finetune_setup"])

    @property
    def shown_setup(self) -> SetupDock | FinetuneSetupDock:
        """The panel that is in sight; of both, or of none, the one that was brought there last."""
        fine_tuning, scratch = self.fine_tuning, self.scratch
        if is_seen(fine_tuning) == is_seen(scratch):
            return fine_tuning if self._fine_tunes else scratch
        return fine_tuning if is_seen(fine_tuning) else scratch

    def train(self) -> None:
        """Trains what the panel in sight describes; where none is, brings one there instead."""
        if self._sees_one():
            self.shown_setup.train()

    def queue(self) -> None:
        """Puts what the panel in sight describes behind the runs that wait; the same."""
        if self._sees_one():
            self.shown_setup.queue()

    def text(self) -> str:
        """What `train` would do."""
        setup = self.shown_setup
        verb = setup.train_button.text()
        if not is_seen(setup):
            return f"{verb}: first shows {setup.windowTitle()}"
        return f"{verb}: {setup.in_words() or f'{setup.windowTitle()} says what is missing'}"

    def show_setting(self, dock_id: str, key: str) -> None:
        """Brings one setting of a panel into sight, and gives it the keyboard."""
        self._window.show_dock(dock_id)
        cast("RunSetupDock[Any]", self._window.docks[dock_id]).reveal(key)

    def _sees_one(self) -> bool:
        """Whether a panel is in sight. Nothing is started from a form that nobody sees."""
        setup, window = self.shown_setup, self._window
        if is_seen(setup):
            return True
        if setup.isHidden():  # not in this workspace, which stays as it is
            window.use_workspace(FINE_TUNE if setup is self.fine_tuning else TRAIN)
        window.show_dock(setup.objectName().removeprefix("dock."))
        window.lab.said.emit(f"{setup.windowTitle()} shows what would start. Start it from there.")
        return False

    def _seen(self, fine_tunes: bool, seen: bool) -> None:
        if seen:
            self._fine_tunes = fine_tunes
