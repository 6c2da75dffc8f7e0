"""`llmlab-gui`: opens the window, or says in one line why it cannot."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from llmlab import __version__
from llmlab.core.errors import LabError
from llmlab.core.paths import expanded, outputs_dir
from llmlab.store.registry import resolve_run
from llmlab_gui.window.display import missing_library, why_no_window

if TYPE_CHECKING:
    from PySide6.QtWidgets import QApplication

    from llmlab_gui.window.main_window import MainWindow

_TWIN = "Without a window, train with: llmlab-run pretrain"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of `llmlab-gui`. Exit codes: 0 closed, 1 no window can be opened, 2 wrong use."""
    parser = argparse.ArgumentParser(
        prog="llmlab-gui", description="Train a GPT from scratch and watch it learn. Without a window: llmlab-run."
    )
    parser.add_argument("run", nargs="?", help="a run to show: its id or its folder")
    parser.add_argument("--outputs", type=Path, metavar="DIR", help="the folder that holds the runs")
    parser.add_argument("--version", action="version", version=f"LLM Learning Lab {__version__}")
    arguments = parser.parse_args(argv)
    try:
        outputs = expanded(arguments.outputs or outputs_dir()).resolve()
    except LabError as error:
        print(f"llmlab-gui: {error}", file=sys.stderr)
        return 2
    reason = why_no_window()
    if reason is not None:
        print(f"llmlab-gui: {reason} {_TWIN}", file=sys.stderr)
        return 1
    try:
        from PySide6.QtCore import QLibraryInfo
        from PySide6.QtWidgets import QApplication  # noqa: F401  (needs the graphics libraries of the system)
    except ImportError as error:
        print(f"llmlab-gui: a library of this system is missing ({error}). {_TWIN}", file=sys.stderr)
        return 1
    plugin = Path(QLibraryInfo.path(QLibraryInfo.LibraryPath.PluginsPath)) / "platforms" / "libqxcb.so"
    missing = missing_library(plugin) if sys.platform == "linux" and not _other_platform() else None
    if missing is not None:
        print(f"llmlab-gui: a library of this system is missing ({missing}). {_TWIN}", file=sys.stderr)
        return 1
    try:
        run = resolve_run(arguments.run, outputs).run if arguments.run else None
    except LabError as error:
        print(f"llmlab-gui: {error}", file=sys.stderr)
        return 2

    app, window = open_window(outputs)
    if run is not None:
        window.lab.open_run(run)
    return int(app.exec())


def open_window(outputs: Path) -> tuple[QApplication, MainWindow]:
    """The application and its window, shown; `exec()` is left to the caller."""
    gc.disable()  # the GarbageTimer takes over; what is imported now is no garbage
    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QApplication

    from llmlab_gui.lab.window_settings import WindowSettings
    from llmlab_gui.widgets.focus_ring import FocusRing
    from llmlab_gui.widgets.theme import apply_theme
    from llmlab_gui.widgets.wheel import WheelGuard
    from llmlab_gui.window import uncaught as errors
    from llmlab_gui.window.garbage import GarbageTimer
    from llmlab_gui.window.main_window import MainWindow

    app = QApplication(sys.argv[:1])
    app.setApplicationName("LLM Learning Lab")
    app.setApplicationVersion(__version__)
    app.setDesktopFileName("llmlab")
    post = errors.install(errors.log_path())
    post.setParent(app)
    garbage = GarbageTimer(app)  # its ticks also let Python see Ctrl-C
    app.aboutToQuit.connect(garbage.stop)
    settings = WindowSettings()
    apply_theme(app, settings.theme)
    FocusRing(app)
    WheelGuard(app)
    window = MainWindow(outputs, settings, later=True)
    window.furnished.connect(garbage.freeze)
    post.unexpected.connect(window.lab.error_raised)
    window.show()

    def end(_signal: int, _frame: FrameType | None) -> None:
        QTimer.singleShot(0, window, window.close_quietly)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    return app, window


def _other_platform() -> bool:
    """Whether Qt will not use X11."""
    chosen = os.environ.get("QT_QPA_PLATFORM", "")
    return bool(chosen and not chosen.startswith("xcb")) or not os.environ.get("DISPLAY")
