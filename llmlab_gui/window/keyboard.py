"""Where the keyboard is among the panels: always in one that is in sight."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject
from PySide6.QtWidgets import QApplication, QWidget

from llmlab_gui.lab.dock import LabDock, is_seen
from llmlab_gui.widgets.labels import Scrolled
from llmlab_gui.widgets.layouts import settling_timer

if TYPE_CHECKING:
    from llmlab_gui.window.main_window import MainWindow


class Keyboard(QObject):
    """Moves it from panel to panel, and out of one that goes out of sight."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        self._had: dict[str, LabDock] = {}  # by workspace: the panel that had it there last
        self._arrives = False
        self._lost: LabDock | None = None  # had it, and went out of sight
        self._came: LabDock | None = None  # in sight instead
        self._settle = settling_timer(self, 0, self._settled)  # once the docks have their places

    def watch(self) -> None:
        """The docks were made."""
        for dock in self._window.docks.values():
            dock.visibilityChanged.connect(partial(self._seen_changed, dock))

    def leave(self) -> None:
        """The docks are about to be placed anew."""
        dock = self.holder()
        for area in self._scrolled():
            area.left_at[self._window.workspaces.current] = area.verticalScrollBar().value()
        if dock is not None and is_seen(dock):
            self._had[self._window.workspaces.current] = dock
        if dock is not None:
            self._window.setFocus()  # or Qt looks for the next stop of Tab each time what has it goes out of sight

    def arrive(self, dock: LabDock | None = None) -> None:
        """The docks were placed: it goes to this one, else to the one that had it in this workspace, else the first."""
        if dock is not None:
            self._had[self._window.workspaces.current] = dock
        self._arrives = True
        self._settle.start()

    def give(self, dock: LabDock, *, again: bool = False) -> None:
        """To a dock, which comes to the front. again: to the part that had it there last."""
        self._arrives, self._lost = False, None
        dock.show()
        dock.raise_()
        dock.take_keyboard(again=again)

    def go(self, distance: int) -> None:
        """To another panel in sight, so many further on."""
        self._step([dock for dock in self._docks() if is_seen(dock)], distance)

    def turn(self, distance: int) -> None:
        """To another panel in the same place, so many tabs further on."""
        now = self.holder()
        if now is not None:
            beside = {now, *self._window.tabifiedDockWidgets(now)}
            self._step([dock for dock in self._docks() if dock in beside], distance)

    def _step(self, docks: list[LabDock], distance: int) -> None:
        now = self.holder()
        if docks and self._window.covers.welcome.isHidden():
            place = docks.index(now) + distance if now in docks else min(distance, 0)
            self.give(docks[place % len(docks)], again=True)

    def _seen_changed(self, dock: LabDock, seen: bool) -> None:
        if seen:
            self._came = dock
        elif self.holder() is dock:
            self._lost, self._came = dock, None
            self._settle.start()

    def _settled(self) -> None:
        arrives, lost, covers = self._arrives, self._lost, self._window.covers
        self._arrives, self._lost = False, None
        seen = [dock for dock in self._docks() if is_seen(dock)]
        if not seen or covers.tour is not None or not covers.welcome.isHidden():
            return
        if arrives:
            workspace = self._window.workspaces.current
            had = self._had.get(workspace)
            (had if had in seen else seen[0]).take_keyboard(again=had in seen)
            for area in self._scrolled() if had in seen else ():
                area.verticalScrollBar().setValue(area.left_at.get(workspace, area.verticalScrollBar().value()))
        elif lost is not None and lost not in seen:  # its tab was left, or it was closed
            beside = [self._came, *self._window.tabifiedDockWidgets(lost)]
            next((dock for dock in seen if dock in beside), seen[0]).take_keyboard(again=True)

    def _docks(self) -> list[LabDock]:
        """Those that are shown or behind one that is, as they are laid out; floating ones come last."""
        layout = self._window.layout()
        assert layout is not None
        shown = [dock for dock in self._window.docks.values() if dock.isVisible()]
        return sorted(shown, key=lambda dock: (dock.isFloating(), layout.indexOf(dock)))

    def _scrolled(self) -> list[Scrolled]:
        """What can be scrolled in the panels in sight."""
        return [area for dock in self._docks() if is_seen(dock) for area in dock.findChildren(Scrolled)]

    def holder(self) -> LabDock | None:
        """The dock that has the keyboard."""
        widget: QWidget | None = QApplication.focusWidget() or self._window.focusWidget()
        while widget is not None and not isinstance(widget, LabDock):
            widget = widget.parentWidget()
        return widget
