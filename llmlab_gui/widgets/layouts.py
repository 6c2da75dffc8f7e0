"""Widgets put together: below one another, side by side, a box of choices, and a timer for the last of many changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from PySide6.QtCore import QObject, Qt, QTimer
from PySide6.QtWidgets import (
    QBoxLayout,
    QComboBox,
    QHBoxLayout,
    QLayout,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.one_line import OneLineBox

Margins: TypeAlias = tuple[int, int, int, int]
# A pair is a widget and its stretch; a number is the stretch of an empty place.
Part: TypeAlias = "QWidget | QLayout | int | tuple[QWidget, int]"


def column(
    *parts: Part, into: QWidget | None = None, spacing: int | None = None, margins: Margins | None = (0, 0, 0, 0)
) -> QWidget:
    """The parts below one another. into: a new widget. margins: left, top, right, bottom; None: as dialogs have."""
    whole = into if into is not None else QWidget()
    layout = QVBoxLayout(whole)
    if margins is not None:
        layout.setContentsMargins(*margins)
    if spacing is not None:
        layout.setSpacing(spacing)
    _add(layout, parts)
    return whole


def beside(
    *parts: Part, grows: QWidget | None = None, into: QWidget | None = None, margins: Margins = (0, 0, 0, 0)
) -> QHBoxLayout:
    """The parts in a row. grows: takes the free room. into: the widget that consists of them."""
    layout = QHBoxLayout() if into is None else QHBoxLayout(into)
    layout.setContentsMargins(*margins)
    _add(layout, [(part, 1) if part is grows and isinstance(part, QWidget) else part for part in parts])
    return layout


def _add(layout: QBoxLayout, parts: Iterable[Part]) -> None:
    for part in parts:
        if isinstance(part, QLayout):
            layout.addLayout(part)
        elif isinstance(part, QWidget):
            layout.addWidget(part)
        elif isinstance(part, int):
            layout.addStretch(part)
        else:
            layout.addWidget(*part)


def flow(*left: QWidget, right: tuple[QWidget, ...] = ()) -> QWidget:
    """Controls in a row that goes on in a second line. right: at its other end."""
    widget = QWidget()
    layout = FlowRow(widget)
    layout.add(*left)
    layout.addStretch(1)
    layout.add(*right)
    return widget


def stack(*pages: QWidget) -> QStackedWidget:
    """One of several pages at a time, the first at first."""
    found = QStackedWidget()
    for page in pages:
        found.addWidget(page)
    return found


def split(
    *parts: QWidget | tuple[QWidget, int], across: bool = False, sizes: Sequence[int] = (), closes: bool = False
) -> QSplitter:
    """Parts below one another with handles between them; (widget, share) for what takes that share of free room.

    across: side by side. sizes: at first, in pixels. closes: a part can be dragged shut.
    """
    found = QSplitter(Qt.Orientation.Horizontal if across else Qt.Orientation.Vertical)
    for place, part in enumerate(parts):
        widget, share = (part, 0) if isinstance(part, QWidget) else part
        found.addWidget(widget)
        found.setStretchFactor(place, share)
    found.setChildrenCollapsible(closes)
    if sizes:
        found.setSizes(sizes)
    return found


def turn(halves: QSplitter, *, across: bool, sizes: Sequence[int], shares: Sequence[int]) -> None:
    """Puts parts side by side (`across`) or below one another, in these pixels; what grows with the whole has shares.

    Nothing where they are so already: the handle stays where someone has dragged it.
    """
    wanted = Qt.Orientation.Horizontal if across else Qt.Orientation.Vertical
    if wanted != halves.orientation():
        halves.setOrientation(wanted)
        for place, share in enumerate(shares):
            halves.setStretchFactor(place, share)
        halves.setSizes(sizes)


def choice_box(name: str, choices: Iterable[Sequence[Any]] = (), *, tip: str = "", least: int = 0) -> OneLineBox:
    """name: for screen readers. choices: each its data, its words, and perhaps a tool tip; none: it is filled later.

    least: characters in sight, whatever its entries have; 0: as many as the longest has when it is first shown.
    """
    box = labelled(OneLineBox(), name, tip)
    if least:
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(least)
    box.fill(choices)
    return box


def settling_timer(parent: QObject, milliseconds: int, slot: Callable[[], object]) -> QTimer:
    """Each start puts the slot off: many changes at once are one."""
    timer = QTimer(parent, singleShot=True, interval=milliseconds)
    timer.timeout.connect(slot)
    return timer
