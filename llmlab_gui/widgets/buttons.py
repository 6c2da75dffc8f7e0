"""The small buttons of panels: one that opens its menu, one that stays pressed, one that exports a chart."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtWidgets import QMenu, QToolButton


def tool_button(text: str, tip: str = "") -> QToolButton:
    """A button of a panel."""
    button = QToolButton()
    button.setText(text)
    button.setToolTip(tip)
    return button


def menu_button(text: str, tip: str) -> QToolButton:
    """A button that opens its menu."""
    button = tool_button(text, tip)
    button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
    button.setMenu(QMenu(button))
    return button


def toggle_button(text: str, tip: str) -> QToolButton:
    """A button that is pressed or not."""
    button = tool_button(text, tip)
    button.setCheckable(True)
    return button


def chart_export_button(choose_file: Callable[[str], object]) -> QToolButton:
    """Offers what a chart can be saved as. choose_file: is given png, svg or csv."""
    button = menu_button("Export", "Save this chart as a picture, a drawing, or a table of its numbers")
    for kind, text in (("png", "Picture (PNG)…"), ("svg", "Drawing (SVG)…"), ("csv", "Numbers (CSV)…")):
        button.menu().addAction(text).triggered.connect(lambda _=False, kind=kind: choose_file(kind))
    return button
