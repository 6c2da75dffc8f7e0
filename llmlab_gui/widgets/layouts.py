"""Widgets put together: below one another, side by side, a box of choices, and a timer for the last of many changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from PySide6.QtCore import QObject, Qt, QTimer
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QLayout, QSplitter, QVBoxLayout, QWidget

from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.one_line import OneLineBox

VERTICAL, HORIZONTAL = Qt.Orientation.Vertical, Qt.Orientation.Horizontal


def column(
    *parts: QWidget | QLayout | tuple[QWidget, int], into: QWidget | None = None, spacing: int | None = None
) -> QWidget:
    """The parts below one another, without margins; (widget, stretch) for what takes the room. into: a new widget."""
    whole = into if into is not None else QWidget()
    layout = QVBoxLayout(whole)
    layout.setContentsMargins(0, 0, 0, 0)
    if spacing is not None:
        layout.setSpacing(spacing)
    for part in parts:
        if isinstance(part, QLayout):
            layout.addLayout(part)
        elif isinstance(part, QWidget):
            layout.addWidget(part)
        else:
            layout.addWidget(*part)
    return whole


def beside(*parts: QWidget, grows: QWidget | None = None) -> QHBoxLayout:
    """The parts in a row. grows: takes the free room."""
    layout = QHBoxLayout()
    for part in parts:
        layout.addWidget(part, int(part is grows))
    return layout


def flow(*left: QWidget, right: tuple[QWidget, ...] = ()) -> QWidget:
    """Controls in a row that goes on in a second line. right: at its other end."""
    widget = QWidget()
    layout = FlowRow(widget)
    for part in left:
        layout.addWidget(part)
    layout.addStretch(1)
    for part in right:
        layout.addWidget(part)
    return widget


def split(*parts: tuple[QWidget, int], across: bool = False) -> QSplitter:
    """Parts with handles between them that cannot be closed, each with its share of the room, below one another."""
    found = QSplitter(HORIZONTAL if across else VERTICAL)
    for place, (part, share) in enumerate(parts):
        found.addWidget(part)
        found.setStretchFactor(place, share)
    found.setChildrenCollapsible(False)
    return found


def combo_box(name: str, tip: str = "", least: int = 0) -> QComboBox:
    """A box that is filled later. least: characters in sight; 0: as many as its longest entry has."""
    box = choice_box(name)
    box.setToolTip(tip)
    policy = QComboBox.SizeAdjustPolicy
    box.setSizeAdjustPolicy(policy.AdjustToMinimumContentsLengthWithIcon if least else policy.AdjustToContents)
    box.setMinimumContentsLength(least)
    return box


def splitter(orientation: Qt.Orientation, sizes: Sequence[int], *parts: QWidget) -> QSplitter:
    """Parts whose shares of the room can be dragged. sizes: at first, in pixels."""
    found = QSplitter(orientation)
    for part in parts:
        found.addWidget(part)
    found.setSizes(sizes)
    return found


def choice_box(name: str, choices: Iterable[Sequence[str]] = ()) -> QComboBox:
    """name: for screen readers. choices: each its data, its words, and perhaps a tool tip."""
    box = OneLineBox()
    box.setAccessibleName(name)
    for key, words, *tips in choices:
        box.addItem(words, key)
        for tip in tips:
            box.setItemData(box.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
    return box


def settling_timer(parent: QObject, milliseconds: int, slot: Callable[[], object]) -> QTimer:
    """Each start puts the slot off: many changes at once are one."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(slot)
    return timer
