"""Widgets put together: below one another, side by side, a box of choices, and a timer for the last of many changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from PySide6.QtCore import QObject, Qt, QTimer
from PySide6.QtWidgets import QComboBox, QLayout, QSplitter, QVBoxLayout, QWidget

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


def splitter(orientation: Qt.Orientation, sizes: Sequence[int], *parts: QWidget) -> QSplitter:
    """Parts whose shares of the room can be dragged. sizes: at first, in pixels."""
    found = QSplitter(orientation)
    for part in parts:
        found.addWidget(part)
    found.setSizes(sizes)
    return found


def choice_box(name: str, choices: Iterable[Sequence[str]] = ()) -> QComboBox:
    """name: for screen readers. choices: each its data, its words, and perhaps a tool tip."""
    box = QComboBox()
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
