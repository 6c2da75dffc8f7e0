"""What the lab is, and what a bug report needs to know."""

from __future__ import annotations

import platform
from pathlib import Path

from PySide6.QtCore import QLibraryInfo, qVersion
from PySide6.QtGui import QAction, QGuiApplication, QKeySequence
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QHeaderView,
    QMessageBox,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

import llmlab
from llmlab.core.paths import cache_dir, resources_dir
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import column
from llmlab_gui.widgets.row_tables import show_whole_rows
from llmlab_gui.widgets.theme import current_theme
from llmlab_gui.window.uncaught import last_lines, log_path

_PACKAGES = ("torch", "numpy", "PySide6_Essentials", "pyqtgraph", "tiktoken", "tokenizers", "transformers")


def show_about(parent: QWidget) -> None:
    """The About box."""
    box = QMessageBox(parent)
    box.setWindowTitle("About LLM Learning Lab")
    box.setIconPixmap(parent.windowIcon().pixmap(64))
    box.setText(
        f"<h3>LLM Learning Lab {llmlab.__version__}</h3>"
        "<p>Understand language models by training them, looking inside them and testing claims about them.</p>"
        "<p>Training runs in processes of its own, which can go on when this window closes.</p>"
        "<p>MIT licence. Qt is used under the LGPL.</p>"
    )
    box.addButton("Close", QMessageBox.ButtonRole.RejectRole)
    box.exec()
    box.deleteLater()


def debug_information(outputs: Path) -> str:
    """Versions, platform, folders, and the end of the window's log."""
    from importlib import metadata  # rarely needed, and slow to load

    lines = [
        f"LLM Learning Lab {llmlab.__version__}",
        f"Python {platform.python_version()} on {platform.platform()} ({platform.machine()})",
        f"Qt {qVersion()} ({QGuiApplication.platformName()}), {QLibraryInfo.build()!s}",
    ]
    for package in _PACKAGES:
        try:
            lines.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{package} is not installed")
    for screen in QGuiApplication.screens():
        size = screen.size()
        lines.append(f"Screen {size.width()} x {size.height()} at {screen.devicePixelRatio():g}")
    lines += [f"Theme {current_theme().name}", f"Outputs {outputs}", f"Cache {cache_dir()}"]
    lines += [f"Resources {resources_dir()}", f"Log {log_path()}", "", last_lines(log_path())]
    return "\n".join(lines).rstrip() + "\n"


class ShortcutsDialog(QDialog):
    """All keyboard shortcuts of the window."""

    def __init__(self, actions: list[QAction], parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Keyboard shortcuts")
        rows = [(_what_it_does(action), action.shortcuts()) for action in actions if action.shortcuts()]
        table = labelled(QTableWidget(len(rows), 2), "Keyboard shortcuts")
        table.setHorizontalHeaderLabels(["Action", "Keys"])
        show_whole_rows(table, ())
        table.setAlternatingRowColors(True)
        table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        for place, (text, keys) in enumerate(rows):
            native = ", ".join(key.toString(QKeySequence.SequenceFormat.NativeText) for key in keys)
            table.setItem(place, 0, QTableWidgetItem(text))
            table.setItem(place, 1, QTableWidgetItem(native))
        table.selectRow(0)
        buttons = QDialogButtonBox()
        buttons.addButton("Close", QDialogButtonBox.ButtonRole.RejectRole)
        buttons.rejected.connect(self.reject)
        column(table, buttons, into=self, margins=None)
        self.resize(480, 520)


def _what_it_does(action: QAction) -> str:
    """Its words, and what has that name: workspaces, panels and commands share some."""
    name, words = action.objectName(), action.text().replace("&&", "&")
    kinds = {"action.workspace.": "Workspace", "action.show_": "Panel"}
    return next((f"{kind}: {words}" for start, kind in kinds.items() if name.startswith(start)), words)
