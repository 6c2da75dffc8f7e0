"""The window as the GUI benchmarks open it: the lab's model and its three chart docks, side by side."""

from __future__ import annotations

import gc
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QMainWindow

from llmlab_gui.docks.learning_rate import LearningRateDock
from llmlab_gui.docks.loss import LossDock
from llmlab_gui.docks.throughput import ThroughputDock
from llmlab_gui.lab import Lab
from llmlab_gui.runs.history import RunHistory
from llmlab_gui.theme import apply_theme


class Window:
    """Opens at once; shows `run_id`, or nothing."""

    def __init__(self, outputs: Path, run_id: str) -> None:
        app = QApplication.instance() or QApplication([])
        assert isinstance(app, QApplication)
        apply_theme(app, "light")
        gc.disable()  # as the application does
        self._lab = Lab(outputs)
        self._window = QMainWindow()
        self._docks = [LossDock(self._lab), LearningRateDock(self._lab), ThroughputDock(self._lab)]
        for dock in self._docks:
            self._window.addDockWidget(Qt.DockWidgetArea.TopDockWidgetArea, dock)
        self._window.resize(1600, 700)
        self._window.show()
        if run_id:
            self.show_run(run_id)

    def show_run(self, run_id: str) -> None:
        self._lab.set_current(run_id)

    def history(self, run_id: str) -> RunHistory:
        return self._lab.history(run_id)

    def drawn(self) -> bool:
        """Whether all charts show what has arrived."""
        return not any(dock.panel.dirty for dock in self._docks)

    def close(self) -> None:
        self._lab.shutdown()
        for dock in self._docks:
            dock.shutdown()
        self._window.close()
        self._window.deleteLater()
