"""The window's toolbars that hold no more than what others made: workspaces, and training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QAction, QActionGroup, QKeySequence
from PySide6.QtWidgets import QSizePolicy, QToolBar, QWidget

from llmlab_gui.pages.places import WORKSPACES
from llmlab_gui.train.run_actions import RunActions
from llmlab_gui.widgets.icons import icon
from llmlab_gui.widgets.theme import theme_notifier


class WorkspaceBar(QToolBar):
    """The workspaces side by side, the one in sight marked."""

    def __init__(self, use: Callable[[str], object], window: QWidget) -> None:
        super().__init__("Workspaces", window)
        self.setObjectName("toolbar.workspaces")
        self.setMovable(False)
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)
        group = QActionGroup(self)
        for number, name in enumerate(WORKSPACES, start=1):
            action = QAction(name, window)
            action.setObjectName(f"action.workspace.{number}")
            action.setCheckable(True)
            key = f"Ctrl+{number % 10}" if number <= 10 else ""  # the keyboard has ten digits
            action.setShortcut(QKeySequence(key))
            action.setToolTip(f"Workspace {name}" + (f" ({key})" if key else ""))
            action.triggered.connect(partial(_called, use, name))
            group.addAction(action)
            self.addAction(action)

    def mark(self, name: str) -> None:
        """Shows which workspace is in sight."""
        self.actions()[WORKSPACES.index(name)].setChecked(True)


def _called(use: Callable[[str], object], name: str, _checked: bool = False) -> None:
    use(name)


class TrainBar(QToolBar):
    """What can be done with the current run, and, at the right, the way to everything else."""

    def __init__(self, actions: RunActions, window: QWidget) -> None:
        super().__init__("Training", window)
        self.setObjectName("toolbar.train")
        self.setMovable(False)
        self.setIconSize(QSize(18, 18))
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.addActions(actions.all())
        spacer = QWidget()
        spacer.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.addWidget(spacer)
        self.palette_action = QAction(icon("search"), "Find a command", window)
        self.palette_action.setObjectName("action.palette")
        self.palette_action.setShortcuts([QKeySequence("Ctrl+K"), QKeySequence("Ctrl+Shift+P")])
        self.palette_action.setToolTip("Find a command, run, panel or page (Ctrl+K)")
        self.addAction(self.palette_action)
        theme_notifier.changed.connect(self._restyle)

    def _restyle(self) -> None:
        self.palette_action.setIcon(icon("search"))
