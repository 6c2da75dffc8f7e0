"""The way of Tab through a window: what is in sight, as it is laid out.

Qt's own way is the order in which widgets were made, and it has those that lie behind others, too.
"""

from __future__ import annotations

from collections.abc import Iterator

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLabel,
    QLayout,
    QLineEdit,
    QScrollArea,
    QTabBar,
    QWidget,
)

_ROOM = 8  # pixels beside what is scrolled into sight, for the ring around it
# What stands around the content of a panel, or makes up a form.
_CONTROLS = (QAbstractButton, QAbstractSlider, QAbstractSpinBox, QComboBox, QLabel, QLineEdit, QTabBar)


def stops(root: QWidget) -> list[QWidget]:
    """What Tab stops at within `root`. Of a window without what others lie over."""
    return [widget for widget in _within(root) if _takes_tab(widget)]


def main_part(root: QWidget) -> QWidget | None:
    """What `root` is for: its first table, text or chart, or the first control of a form. None where nothing is."""
    for widget in _within(root):
        if _scrolls_a_form(widget):
            return stops(widget)[0]
        if _takes_tab(widget) and not isinstance(widget, _CONTROLS):
            return widget
    return next(iter(stops(root)), None)


def move_on(window: QWidget, *, forward: bool) -> bool:
    """Gives the keyboard to the next stop or the one before, round and round; False where there is none."""
    now = window.focusWidget()
    way = list(_within(window))
    here = _place(now, way)
    after, before = way[here + 1 :], way[: max(here, 0)]
    ahead = [*after, *before] if forward else [*reversed(before), *reversed(after)]
    found = next((widget for widget in ahead if _takes_tab(widget)), None)
    if found is None:
        return False
    give_keyboard(found, Qt.FocusReason.TabFocusReason if forward else Qt.FocusReason.BacktabFocusReason)
    return True


def give_keyboard(widget: QWidget, reason: Qt.FocusReason) -> None:
    """Gives the keyboard to a widget, scrolled into sight."""
    widget.setFocus(reason)
    around = widget.parentWidget()
    while around is not None and not around.isWindow():
        if isinstance(around, QScrollArea):
            around.ensureWidgetVisible(widget, _ROOM, _ROOM)
        around = around.parentWidget()


def _takes_tab(widget: QWidget) -> bool:
    """What has a proxy is passed, for the proxy is a stop itself; and what scrolls a form, for its fields are."""
    return _accepts_tab(widget) and not _scrolls_a_form(widget)


def _accepts_tab(widget: QWidget) -> bool:
    policy = widget.focusPolicy() & Qt.FocusPolicy.TabFocus
    return bool(policy) and widget.isEnabled() and widget.focusProxy() is None


def _scrolls_a_form(widget: QWidget) -> bool:
    return isinstance(widget, QScrollArea) and _accepts_tab(widget) and bool(stops(widget.viewport()))


def _within(widget: QWidget) -> Iterator[QWidget]:
    """A widget and all within it that can be seen, or scrolled to."""
    yield widget
    for child in _children(widget):
        hidden = not child.isVisible() or child.isWindow() or child.size().isEmpty()
        covered = widget.isWindow() and child.visibleRegion().isEmpty()
        if not hidden and not covered:
            yield from _within(child)


def _children(widget: QWidget) -> list[QWidget]:
    """As they are laid out. What no layout holds, as it lies, line by line: before what is laid out below its top or
    to its right."""
    children = [child for child in widget.children() if isinstance(child, QWidget)]
    layout = widget.layout()
    laid_out = list(_held(layout, children)) if layout is not None else []
    others = sorted((child for child in children if child not in laid_out), key=lambda child: (child.y(), child.x()))
    found: list[QWidget] = []
    for child in laid_out:
        while others and (others[0].y(), others[0].x()) <= (child.y(), child.x()):
            found.append(others.pop(0))
        found.append(child)
    return [*found, *others]


def _held(layout: QLayout, widgets: list[QWidget]) -> Iterator[QWidget]:
    """Those of the widgets that a layout holds, in its order.

    Asked by `indexOf`: what `itemAt` returns is no QObject, and PySide does not notice when Qt deletes it.
    """
    parts: list[QWidget | QLayout] = [each for each in layout.children() if isinstance(each, QLayout)]
    places = {part: layout.indexOf(part) for part in [*parts, *widgets]}
    for part in sorted((part for part, place in places.items() if place >= 0), key=lambda part: places[part]):
        if isinstance(part, QLayout):
            yield from _held(part, widgets)
        else:
            yield part


def _place(widget: QWidget | None, way: list[QWidget]) -> int:
    """Where a widget is on the way, or what it is in where it is not; -1 for the start."""
    while widget is not None and widget not in way:
        widget = widget.parentWidget()
    return way.index(widget) if widget is not None else -1
