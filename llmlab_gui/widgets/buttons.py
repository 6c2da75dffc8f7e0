"""The buttons of panels: one that opens its menu, one that stays pressed, and one that leads to a file."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFileDialog, QMenu, QPushButton, QToolButton

from llmlab_gui.widgets.icons import icon
from llmlab_gui.widgets.labels import Slot, labelled
from llmlab_gui.widgets.theme import theme_notifier


def push_button(text: str, slot: Slot, tip: str = "") -> QPushButton:
    """A button with words, and what it does."""
    button = labelled(QPushButton(text), tip=tip)
    button.clicked.connect(slot)
    return button


def tool_button(text: str, tip: str = "", slot: Slot | None = None) -> QToolButton:
    """A small one."""
    button = labelled(QToolButton(), tip=tip)
    button.setText(text)
    if slot is not None:
        button.clicked.connect(slot)
    return button


def flat_button(sign: str, name: str, slot: Callable[[], object], tip: str = "") -> QToolButton:
    """One that shows its frame under the mouse alone. name: for screen readers, and its tip unless there is another."""
    button = labelled(tool_button(sign, tip or name), name)
    button.setAutoRaise(True)
    button.clicked.connect(lambda: slot())
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


class FileButton(QToolButton):
    """A folder is its sign, and its menu has the ways to a file or a folder of one's own."""

    chosen = Signal(str)  # its path

    def __init__(self, name: str, tip: str) -> None:
        """name: for screen readers."""
        super().__init__()
        labelled(self, name, tip)
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.setMenu(QMenu(self))
        theme_notifier.changed.connect(self._restyle)
        self._restyle()

    def add_file(self, text: str, title: str, kinds: str) -> None:
        """title, kinds: of the dialog; kinds as Qt has them."""
        self.menu().addAction(text, lambda: self._tell(QFileDialog.getOpenFileName(self, title, "", kinds)[0]))

    def add_folder(self, text: str, title: str, start: str = "") -> None:
        """title, start: of the dialog."""
        self.menu().addAction(text, lambda: self._tell(QFileDialog.getExistingDirectory(self, title, start)))

    def _tell(self, path: str) -> None:
        if path:
            self.chosen.emit(path)

    def _restyle(self) -> None:
        self.setIcon(icon("folder"))
