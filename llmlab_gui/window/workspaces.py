"""Workspaces: an arrangement of the docks for each thing that people do here, kept as they leave it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDockWidget, QMainWindow

from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.pages.places import (
    COMPARE,
    DIAGNOSE,
    EXPERIMENTS,
    FINE_TUNE,
    LEARN,
    LOOK_INSIDE,
    PAPER,
    PRACTICE,
    REBUILD,
    TRAIN,
    WALK,
    WRITE,
)


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
    TRAIN: _beside(
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
    LOOK_INSIDE: _beside(
        (58, _stacked((26, _tabs("prompt")), (74, _tabs("attention", "evolution", "compare")))),
        (
            42,
            _stacked(
                (48, _tabs("contributions", "interventions", "geometry", "parameters")),
                (52, _tabs("lens", "residual", "checkpoints", "runs", "learn")),
            ),
        ),
    ),
    WALK: _beside(
        (58, _tabs("walk")),
        (
            42,
            _stacked(
                (34, _tabs("prompt")),
                (66, _tabs("residual", "attention", "contributions", "lens", "learn")),
            ),
        ),
    ),
    REBUILD: _beside(
        (64, _tabs("rebuild")),
        (36, _stacked((56, _tabs("loss", "throughput", "samples")), (44, _tabs("runs", "learn")))),
    ),
    FINE_TUNE: _beside(
        (27, _stacked((38, _tabs("runs", "queue")), (62, _tabs("finetune_setup")))),
        (
            73,
            _beside(
                (49, _stacked((56, _tabs("loss", "learning_rate")), (44, _tabs("checkpoints", "log", "learn")))),
                (51, _stacked((56, _tabs("data", "adapter")), (44, _tabs("samples")))),
            ),
        ),
    ),
    EXPERIMENTS: _beside(
        (30, _tabs("experiment", "experiments", "queue", "runs")),
        (
            70,
            _stacked(
                (50, _beside((50, _tabs("experiment_losses")), (50, _tabs("experiment_result")))),
                (50, _beside((58, _tabs("experiment_report")), (42, _tabs("notebook", "learn")))),
            ),
        ),
    ),
    PAPER: _beside(
        (30, _stacked((48, _tabs("paper", "learn", "runs")), (52, _tabs("check")))),
        (
            70,
            _stacked(
                (38, _tabs("claims")), (62, _tabs("evidence", "check_report", "attention", "evolution", "notebook"))
            ),
        ),
    ),
    COMPARE: _beside(
        (60, _stacked((58, _tabs("loss")), (42, _tabs("runs")))),
        (40, _stacked((60, _tabs("learning_rate")), (40, _tabs("throughput")))),
    ),
    WRITE: _beside(
        (58, _tabs("write")),
        (42, _stacked((58, _tabs("checkpoints")), (42, _tabs("samples", "loss", "runs", "log")))),
    ),
    PRACTICE: _beside(
        (54, _tabs("practice")),
        (46, _stacked((32, _tabs("notebook", "runs")), (68, _tabs("learn")))),
    ),
    LEARN: _beside(
        (50, _tabs("learn")),
        (50, _stacked((56, _tabs("loss")), (44, _tabs("setup", "runs", "samples", "learning_rate")))),
    ),
    DIAGNOSE: _beside(
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


class Workspaces:
    """The workspaces of a window, one of them in sight. Each comes back as it was left, until it is reset."""

    def __init__(self, window: QMainWindow, docks: Mapping[str, QDockWidget], settings: WindowSettings) -> None:
        self._window, self._docks, self._settings = window, docks, settings
        self.current = settings.workspace if settings.workspace in _ARRANGEMENTS else TRAIN
        self._lent = False  # what is in sight is not to be kept
        self.place()

    def use(self, name: str) -> None:
        """Brings a workspace into sight. KeyError for what is none."""
        self.keep()
        self.current = name
        self.place()

    def place(self) -> None:
        """Puts the docks where they were left; where that is unknown, in the places of the arrangement above."""
        self._lent = False
        self._remembered = self._settings.restore_docks(self._window, self.current)
        if not self._remembered:
            arrange(self._window, self._docks, self.current)

    def settle(self) -> None:
        """The shares of the arrangement, once more in the window's real size.

        What was left is not restored twice. Of a maximised window that is restored before it is shown, Qt keeps the
        state until 150 ms after its last resize, to restore it in the real size itself; another restoreState before
        then deletes what that state points to, and Qt crashes.
        """
        if not self._remembered:
            arrange(self._window, self._docks, self.current)

    def reset(self) -> None:
        """The workspace in sight, as at the first start."""
        self._settings.forget_docks(self.current)
        self.place()

    def lend(self) -> None:
        """The workspace in sight as at the first start, until `take_back`: what was left is kept."""
        self.keep()
        self._lent = True
        arrange(self._window, self._docks, self.current)

    def take_back(self) -> None:
        """Ends `lend`, unless the docks were placed anew meanwhile."""
        if self._lent:
            self.place()

    def keep(self) -> None:
        """Remembers where the docks are."""
        if not self._lent:
            self._settings.save_docks(self._window, self.current)


def arrange(window: QMainWindow, docks: Mapping[str, QDockWidget], workspace: str) -> None:
    """Puts the docks of a workspace in their places and hides the others. docks: by id."""
    tree = _ARRANGEMENTS[workspace]
    for dock in docks.values():
        dock.setFloating(False)  # first: Qt does not take down what has left the window
        window.removeDockWidget(dock)
    window.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, docks[_first(tree)])
    _place(window, docks, tree)
    shown = _names(tree)
    for name, dock in docks.items():
        if name not in shown:  # it has a place all the same, for when someone asks for it
            window.tabifyDockWidget(docks[shown[-1]], dock)
        dock.setVisible(name in shown)
    _resize(window, docks, tree, window.width(), window.height())
    for front in _fronts(tree):
        docks[front].raise_()


def _place(window: QMainWindow, docks: Mapping[str, QDockWidget], node: Node) -> None:
    """Adds what shares a part of the window with the part's first dock, which is there already."""
    if isinstance(node, Tabs):
        for name in node.names[1:]:
            window.tabifyDockWidget(docks[node.names[0]], docks[name])
        return
    for (_, before), (_, after) in pairwise(node.parts):
        window.splitDockWidget(docks[_first(before)], docks[_first(after)], _direction(node))
    for _, part in node.parts:
        _place(window, docks, part)


def _resize(window: QMainWindow, docks: Mapping[str, QDockWidget], node: Node, width: int, height: int) -> None:
    if isinstance(node, Tabs):
        return
    length = width if node.across else height
    sizes = [length * share // 100 for share, _ in node.parts]
    window.resizeDocks([docks[_first(part)] for _, part in node.parts], sizes, _direction(node))
    for size, (_, part) in zip(sizes, node.parts, strict=True):
        _resize(window, docks, part, size if node.across else width, height if node.across else size)


def _direction(node: Split) -> Qt.Orientation:
    return Qt.Orientation.Horizontal if node.across else Qt.Orientation.Vertical


def _first(node: Node) -> str:
    return node.names[0] if isinstance(node, Tabs) else _first(node.parts[0][1])


def _names(node: Node) -> list[str]:
    return list(node.names) if isinstance(node, Tabs) else [name for _, part in node.parts for name in _names(part)]


def _fronts(node: Node) -> list[str]:
    return [node.names[0]] if isinstance(node, Tabs) else [name for _, part in node.parts for name in _fronts(part)]
