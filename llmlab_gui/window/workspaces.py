"""Workspaces: an arrangement of the docks for each thing that people do here, kept as they leave it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TypeAlias

from PySide6.QtCore import QEvent, QObject, QRect, QSize, Qt
from PySide6.QtWidgets import QDockWidget, QMainWindow, QTabBar

from llmlab_gui.lab.dock import is_seen
from llmlab_gui.lab.window_settings import DockSizes, Guests, WindowSettings
from llmlab_gui.pages import places
from llmlab_gui.widgets.layouts import settling_timer

# Pixels that a panel is given where it is asked for and has no place of its own: some of what it shows can be read.
_READABLE = QSize(380, 460)
_MOST_OF_LINE = 0.6  # which it takes of a row or column at most


@dataclass(frozen=True)
class Tabs:
    """Docks that share a place, the first in front."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Parts beside or above each other, each with its share of the length in per cent."""

    across: bool  # beside each other
    parts: tuple[tuple[int, Node], ...]


Node: TypeAlias = Tabs | Split


def _beside(*parts: tuple[int, Node]) -> Split:
    return Split(True, parts)


def _stacked(*parts: tuple[int, Node]) -> Split:
    return Split(False, parts)


def _tabs(*names: str) -> Tabs:
    return Tabs(names)


_ARRANGEMENTS: Mapping[str, Split] = {
    places.TRAIN: _beside(
        (27, _stacked((38, _tabs("runs")), (62, _tabs("setup")))),
        (
            73,
            _stacked(
                (52, _tabs("loss")),
                (
                    48,
                    _beside(
                        (50, _tabs("learning_rate", "throughput", "log")),
                        (50, _tabs("samples", "checkpoints", "notebook", "learn")),
                    ),
                ),
            ),
        ),
    ),
    places.LOOK_INSIDE: _beside(
        (58, _stacked((26, _tabs("prompt")), (74, _tabs("attention", "evolution", "compare")))),
        (
            42,
            _stacked(
                (48, _tabs("contributions", "interventions", "geometry", "parameters", "learn")),
                (52, _tabs("lens", "residual", "checkpoints", "runs")),
            ),
        ),
    ),
    places.WALK: _beside(
        (58, _tabs("walk")),
        (
            42,
            _stacked(
                (34, _tabs("prompt")),
                (66, _tabs("residual", "attention", "contributions", "lens", "learn")),
            ),
        ),
    ),
    places.REBUILD: _beside(
        (64, _tabs("rebuild")),
        (36, _stacked((56, _tabs("loss", "throughput", "samples")), (44, _tabs("runs", "learn")))),
    ),
    places.FINE_TUNE: _beside(
        (27, _stacked((38, _tabs("runs", "queue")), (62, _tabs("finetune_setup")))),
        (
            73,
            _beside(
                (49, _stacked((56, _tabs("loss", "learning_rate")), (44, _tabs("checkpoints", "log", "learn")))),
                (51, _stacked((56, _tabs("data", "adapter")), (44, _tabs("samples")))),
            ),
        ),
    ),
    places.EXPERIMENTS: _beside(
        (30, _tabs("experiment", "experiments", "queue", "runs")),
        (
            70,
            _stacked(
                (50, _beside((50, _tabs("experiment_losses")), (50, _tabs("experiment_result")))),
                (50, _beside((58, _tabs("experiment_report")), (42, _tabs("notebook", "learn")))),
            ),
        ),
    ),
    places.PAPER: _beside(
        (30, _stacked((48, _tabs("paper", "runs")), (52, _tabs("check")))),
        (
            70,
            _stacked(
                (38, _tabs("claims")),
                (62, _tabs("evidence", "check_report", "attention", "evolution", "notebook", "learn")),
            ),
        ),
    ),
    places.COMPARE: _beside(
        (60, _stacked((58, _tabs("loss")), (42, _tabs("runs")))),
        (40, _stacked((60, _tabs("learning_rate")), (40, _tabs("throughput")))),
    ),
    places.WRITE: _beside(
        (58, _tabs("write")),
        (42, _stacked((58, _tabs("checkpoints")), (42, _tabs("samples", "loss", "runs", "log")))),
    ),
    places.PRACTICE: _beside(
        (54, _tabs("practice")),
        (46, _stacked((43, _tabs("notebook", "runs")), (57, _tabs("learn")))),
    ),
    places.LEARN: _beside(
        (50, _tabs("learn")),
        (50, _stacked((56, _tabs("loss")), (44, _tabs("setup", "runs", "samples", "learning_rate", "notebook")))),
    ),
    places.DIAGNOSE: _beside(
        (40, _tabs("diagnose", "runs", "learn")),
        (
            60,
            _stacked(
                (50, _tabs("loss", "learning_rate", "attention", "contributions", "lens")),
                (50, _tabs("samples", "checkpoints", "parameters", "prompt", "log")),
            ),
        ),
    ),
}


class Workspaces(QObject):
    """The workspaces of a window, one of them in sight. Each comes back as it was left, until it is reset.

    Docks keep their shares of the window whatever its size: Qt would take what a smaller one lacks from the last of
    them, and give what a larger one has to all alike.
    """

    def __init__(self, window: QMainWindow, docks: Mapping[str, QDockWidget], settings: WindowSettings) -> None:
        super().__init__(window)
        self._window, self._docks, self._settings = window, docks, settings
        self.current = settings.workspace if settings.workspace in _ARRANGEMENTS else places.TRAIN
        self._lent = False  # what is in sight is not to be kept
        self._sizes: DockSizes | None = None  # what the shares are taken from
        self._guests: Guests | None = None  # what was given room, until the last of it is closed
        self._fits = False  # they are about to come into the places that these shares give them
        self._places: list[QRect] = []  # those, or the places that the shares were taken from
        self._resized = settling_timer(self, 0, self._fit)
        self._moved = settling_timer(self, 0, self._note)
        window.installEventFilter(self)
        for name, dock in docks.items():
            dock.visibilityChanged.connect(partial(self._seen_changed, name))
        self.place()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """The window has another size, or another height for its docks; or a line between docks was let go."""
        if event.type() in (QEvent.Type.Resize, QEvent.Type.ContentsRectChange):
            self._resized.start()
        elif event.type() == QEvent.Type.MouseButtonRelease:
            self._moved.start()
            if any(dock.geometry() not in self._places for dock in self._seen().values()):
                self._guests = None  # the shares are the learner's own; a click on a label is passed on to here, too
        return False

    def use(self, name: str) -> None:
        """Brings a workspace into sight. KeyError for what is none."""
        if name == self.current and not self._lent:
            return
        self.keep()
        self.current = self._settings.workspace = name  # at once: where the window is killed it comes back to this one
        self.place()

    def place(self) -> None:
        """Puts the docks where they were left; where that is unknown, in the places of the arrangement above."""
        self._lent = False
        self._places = []
        self._guests = None
        self._hide_bars()
        self._remembered = self._settings.restore_docks(self._window, self.current)
        self._sizes = self._settings.dock_sizes(self.current) if self._remembered else None
        self._guests = self._settings.guests(self.current) if self._remembered else None
        if not self._remembered:
            arrange(self._window, self._docks, self.current)
        self._fit()  # what was left was perhaps of a window of another size

    def settle(self) -> None:
        """The shares of the arrangement, once more in the window's real size.

        What was left is not restored twice. Of a maximised window that is restored before it is shown, Qt keeps the
        state until 150 ms after its last resize, to restore it in the real size itself; another restoreState before
        then deletes what that state points to, and Qt crashes.
        """
        if not self._remembered:
            arrange(self._window, self._docks, self.current)
            self._moved.start()

    def reset(self) -> None:
        """The workspace in sight, as at the first start."""
        self._settings.forget_docks(self.current)
        self.place()

    def lend(self) -> None:
        """The workspace in sight as at the first start, until `take_back`: what was left is kept."""
        self.keep()
        self._lent = True
        self._sizes = self._guests = None
        self._hide_bars()
        arrange(self._window, self._docks, self.current)

    def take_back(self) -> None:
        """Ends `lend`, unless the docks were placed anew meanwhile."""
        if self._lent:
            self.place()

    def keep(self) -> None:
        """Remembers where the docks are."""
        if not self._lent:
            self._settings.save_docks(self._window, self.current, self._sizes, self._guests)

    def make_room(self, dock: QDockWidget) -> None:
        """What was brought into sight and has no place of its own here gets enough of the row and the column that it
        came into, until it and all others that were given room are closed. All of them are given a size: one alone
        would have to share what it lacks with the others."""
        name = dock.objectName().removeprefix("dock.")
        if self._guests is not None:
            self._guests = replace(self._guests, names=[*self._guests.names, name])
        elif self._sizes is not None:
            self._guests = Guests([name], self._sizes)
        place = dock.geometry()
        for across, least in ((True, _READABLE.width()), (False, _READABLE.height())):
            line: dict[QDockWidget, int] = {}  # the docks of this row or column, and their lengths
            for other in self._seen().values():
                spot, size = other.geometry(), self._size(other)
                if across and spot.top() == place.top() and size.height() == self._size(dock).height():
                    line[other] = size.width()
                elif not across and (spot.left(), spot.right()) == (place.left(), place.right()):
                    line[other] = size.height()
            others = sum(line.values()) - line.get(dock, 0)
            wanted = min(least, round(_MOST_OF_LINE * sum(line.values())))
            if 0 < line.get(dock, 0) < wanted and others:
                rest = 1 - (wanted - line[dock]) / others
                sizes = [wanted if other is dock else round(rest * length) for other, length in line.items()]
                self._window.resizeDocks(list(line), sizes, _orientation(across))

    def _seen_changed(self, name: str, _seen: bool) -> None:
        guests = self._guests
        if guests is not None and name in guests.names and self._docks[name].isHidden():  # it was closed
            left = [other for other in guests.names if other != name]
            self._guests = replace(guests, names=left) if left else None
            if not left:
                self._sizes = guests.before
                self._resized.start()
        self._moved.start()

    def _seen(self) -> dict[str, QDockWidget]:
        return {name: dock for name, dock in self._docks.items() if is_seen(dock) and not dock.isFloating()}

    def _size(self, dock: QDockWidget) -> QSize:
        """What it takes of the window, with the tabs of what is behind it."""
        behind = any(not other.isHidden() for other in self._window.tabifiedDockWidgets(dock))
        bars = _tab_bars(self._window)
        tabs = max((bar.height() for bar in bars if bar.isVisible()), default=0) if behind else 0
        return QSize(dock.width(), dock.height() + tabs)

    def _note(self) -> None:
        """Takes the shares from where the docks are now, unless they are there because of their shares."""
        seen, size = self._seen(), self._window.size()
        spots = [dock.geometry() for dock in seen.values()]
        if not spots or self._resized.isActive():
            return
        if not self._fits and any(place not in self._places for place in spots):  # and not another tab in the same
            docks = {name: list(self._size(dock).toTuple()) for name, dock in seen.items()}
            self._sizes = DockSizes([size.width(), size.height()], docks)
        self._fits, self._places = False, spots

    def _fit(self) -> None:
        """Gives the docks their shares of the window as it is."""
        self._moved.start()
        if (sizes := self._sizes) is None:
            return
        self._fits, window = True, self._window.size()
        there = {self._docks[name]: size for name, size in sizes.docks.items() if name in self._docks}
        there = {dock: size for dock, size in there.items() if not dock.isHidden() and not dock.isFloating()}
        for at, length in enumerate((window.width(), window.height())):
            lengths = [max(1, size[at] * length // sizes.window[at]) for size in there.values()]
            self._window.resizeDocks(list(there), lengths, _orientation(at == 0))

    def _hide_bars(self) -> None:
        """The tabs of the workspace before: Qt takes them down only when the window has nothing else to do."""
        for bar in _tab_bars(self._window):
            bar.hide()


def arrange(window: QMainWindow, docks: Mapping[str, QDockWidget], workspace: str) -> None:
    """Puts the docks of a workspace in their places and hides the others. docks: by id."""
    tree = _ARRANGEMENTS[workspace]
    for dock in docks.values():
        if dock.isFloating():  # first: Qt does not take down what has left the window
            dock.setFloating(False)
        window.removeDockWidget(dock)
    layout = window.layout()
    assert layout is not None
    layout.activate()  # Qt takes down the tabs of the docks that were removed
    for bar in _tab_bars(window):  # but not those from before another state was restored
        while bar.count():
            bar.removeTab(0)
    layout.setEnabled(False)  # or it would give all docks their places each time that one of them is shown
    window.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, docks[_first(tree)])
    _place(window, docks, tree)
    shown = _names(tree)
    for name, dock in docks.items():
        if name not in shown:  # it has a place all the same, for when someone asks for it
            window.tabifyDockWidget(docks[shown[-1]], dock)
        dock.setVisible(name in shown)
    layout.setEnabled(True)
    layout.activate()
    _resize(window, docks, tree, window.width(), window.height())
    for front in _fronts(tree):
        docks[front].raise_()
    for bar in _tab_bars(window):
        bar.setVisible(bar.count() > 1)  # Qt would when a dock has moved to its place


def _tab_bars(window: QMainWindow) -> list[QTabBar]:
    """Those of docks, also of such as are no longer there."""
    return window.findChildren(QTabBar, options=Qt.FindChildOption.FindDirectChildrenOnly)


def _place(window: QMainWindow, docks: Mapping[str, QDockWidget], node: Node) -> None:
    """Adds what shares a part of the window with the part's first dock, which is there already."""
    if isinstance(node, Tabs):
        for name in node.names[1:]:
            window.tabifyDockWidget(docks[node.names[0]], docks[name])
        return
    for (_, before), (_, after) in pairwise(node.parts):
        window.splitDockWidget(docks[_first(before)], docks[_first(after)], _orientation(node.across))
    for _, part in node.parts:
        _place(window, docks, part)


def _resize(window: QMainWindow, docks: Mapping[str, QDockWidget], node: Node, width: int, height: int) -> None:
    if isinstance(node, Tabs):
        return
    length = width if node.across else height
    sizes = [length * share // 100 for share, _ in node.parts]
    window.resizeDocks([docks[_first(part)] for _, part in node.parts], sizes, _orientation(node.across))
    for size, (_, part) in zip(sizes, node.parts, strict=True):
        _resize(window, docks, part, size if node.across else width, height if node.across else size)


def _orientation(across: bool) -> Qt.Orientation:
    return Qt.Orientation.Horizontal if across else Qt.Orientation.Vertical


def _first(node: Node) -> str:
    return node.names[0] if isinstance(node, Tabs) else _first(node.parts[0][1])


def _names(node: Node) -> list[str]:
    return list(node.names) if isinstance(node, Tabs) else [name for _, part in node.parts for name in _names(part)]


def _fronts(node: Node) -> list[str]:
    return [node.names[0]] if isinstance(node, Tabs) else [name for _, part in node.parts for name in _fronts(part)]
