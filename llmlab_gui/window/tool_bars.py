"""The window's toolbars that hold no more than what others made: training, and messages."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QSizePolicy, QToolBar, QWidget

from llmlab_gui.train.run_actions import RunActions
from llmlab_gui.widgets.icons import icon
from llmlab_gui.widgets.theme import theme_notifier
from llmlab_gui.window.message_bar import MessageBar


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


class MessagesBar(QToolBar):
    """As wide as the window; whoever owns it shows it while there are messages."""

    def __init__(self, messages: MessageBar, window: QWidget) -> None:
        super().__init__("Messages", window)
        self.setObjectName("toolbar.messages")
        self.setMovable(False)
        self.addWidget(messages)
        self.toggleViewAction().setVisible(False)
        messages.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
