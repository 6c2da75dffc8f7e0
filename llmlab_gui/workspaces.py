"""Arrangements of the docks: one for each thing that people do here."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDockWidget, QMainWindow

TRAIN, COMPARE, WRITE, LEARN = "Train", "Compare runs", "Write", "Learn"
WORKSPACES = (TRAIN, COMPARE, WRITE, LEARN)

# Columns from left to right, each with its share of the width; in a column groups from top to bottom, each with its
# share of the height; in a group the docks that share a place as tabs, the first in front.
Group = tuple[int, tuple[str, ...]]
_ARRANGEMENTS: Mapping[str, tuple[tuple[int, tuple[Group, ...]], ...]] = {
    TRAIN: (
        (27, ((30, ("runs",)), (70, ("setup",)))),
        (45, ((60, ("loss",)), (40, ("learning_rate", "throughput", "log")))),
        (28, ((100, ("samples", "checkpoints", "write", "learn")),)),
    ),
    COMPARE: (
        (62, ((66, ("loss",)), (34, ("runs",)))),
        (38, ((60, ("learning_rate",)), (40, ("throughput",)))),
    ),
    WRITE: (
        (56, ((58, ("write",)), (42, ("samples",)))),
        (44, ((45, ("checkpoints",)), (55, ("loss", "runs", "log")))),
    ),
    LEARN: (
        (48, ((100, ("learn",)),)),
        (52, ((56, ("loss",)), (44, ("setup", "runs", "samples", "learning_rate")))),
    ),
}


def arrange(window: QMainWindow, docks: Mapping[str, QDockWidget], workspace: str) -> None:
    """Puts the docks of a workspace in their places and hides the others. docks: by id."""
    area = Qt.DockWidgetArea.LeftDockWidgetArea
    for dock in docks.values():
        window.removeDockWidget(dock)
        dock.setFloating(False)
    columns = _ARRANGEMENTS[workspace]
    heads = [docks[groups[0][1][0]] for _, groups in columns]
    window.addDockWidget(area, heads[0])
    for before, head in pairwise(heads):
        window.splitDockWidget(before, head, Qt.Orientation.Horizontal)
    fronts: list[QDockWidget] = []
    for _, groups in columns:
        above: QDockWidget | None = None
        for _, names in groups:
            front = docks[names[0]]
            if above is not None:
                window.splitDockWidget(above, front, Qt.Orientation.Vertical)
            for name in names[1:]:
                window.tabifyDockWidget(front, docks[name])
            above = front
            fronts.append(front)
    shown = [name for _, groups in columns for _, names in groups for name in names]
    for name, dock in docks.items():
        dock.setVisible(name in shown)
    width, height = window.width(), window.height()
    window.resizeDocks(heads, [width * share // 100 for share, _ in columns], Qt.Orientation.Horizontal)
    for _, groups in columns:
        tops = [docks[names[0]] for _, names in groups]
        window.resizeDocks(tops, [height * share // 100 for share, _ in groups], Qt.Orientation.Vertical)
    for front in fronts:
        front.raise_()
