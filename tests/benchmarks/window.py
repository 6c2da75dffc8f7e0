"""The real window, as the GUI benchmarks open it, with settings of its own."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QApplication

from llmlab.store.history import RunHistory
from llmlab.store.run_folder import RunFolder
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.train.chart_dock import ChartDock
from llmlab_gui.widgets.theme import apply_theme
from llmlab_gui.window.garbage import GarbageTimer
from llmlab_gui.window.main_window import MainWindow


class Window:
    """Opens at once, with the docks of a workspace; needs a QApplication."""

    def __init__(self, outputs: Path, settings: Path, workspace: str) -> None:
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        apply_theme(app, "light")
        self._garbage = GarbageTimer()
        self.window = MainWindow(outputs, WindowSettings(settings))
        self.window.resize(1600, 1000)
        self.window.show()
        QApplication.processEvents()  # the window arranges itself when it is first shown
        self.window.use_workspace(workspace)
        self._garbage.freeze()

    def show_run(self, run: RunFolder) -> None:
        self.window.lab.open_run(run)

    def history(self, run_id: str) -> RunHistory:
        return self.window.lab.history(run_id)

    def drawn(self) -> bool:
        """Whether all visible charts show what has arrived."""
        charts = [dock.panel for dock in self.window.docks.values() if isinstance(dock, ChartDock)]
        return not any(panel.dirty for panel in charts if panel.isVisible())

    def close(self) -> None:
        self.window.close_quietly()
        self.window.deleteLater()
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)  # without an event loop it would stay
        self._garbage.stop()
