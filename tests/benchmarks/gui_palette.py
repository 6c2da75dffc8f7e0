"""How long a key in the command palette takes until its rows are painted, in a lab with a thousand runs.

python tests/benchmarks/gui_palette.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtWidgets import QApplication
from window import Window

from llmlab_gui.window.commands import search_pages
from llmlab_gui.window.palette import Command, CommandPalette

BAR_MS = 16.0
TYPED = ("train", "kv cache", "overfitting", "remove a head", "shakespeare-99", "finished", "rl", "nanogpt speed")


def main() -> None:
    """Types each text letter by letter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    arguments = parser.parse_args()
    app = QApplication.instance() or QApplication([])
    with tempfile.TemporaryDirectory() as folder:
        made = Window(Path(folder), Path(folder) / "window.ini", "Train")
        runs = [
            Command(f"20261124-{n:06}-baby-shakespeare-{n} (finished)", lambda: None, "Open run")
            for n in range(arguments.runs)
        ]
        begin = time.perf_counter()
        commands = [*made.window.menus.commands(), *runs]
        gathered = time.perf_counter()
        palette = CommandPalette(commands, made.window, partial(search_pages, made.window))
        palette.show()
        app.processEvents()
        shown = time.perf_counter()
        times: dict[str, float] = {}  # of the processor, so that other work on the machine does not count
        waited: list[float] = []
        for typed in TYPED:
            for end in range(1, len(typed) + 1):
                start, busy = time.perf_counter(), time.process_time()
                palette.line.setText(typed[:end])
                app.processEvents()
                waited.append((time.perf_counter() - start) * 1e3)
                times[typed[:end]] = (time.process_time() - busy) * 1e3
        palette.close()
        made.close()
    slowest = max(times, key=times.__getitem__)
    print(f"{len(commands):,} commands, {arguments.runs:,} of them runs; {len(times)} keys")
    print(f"  open: gather {(gathered - begin) * 1e3:.0f} ms, index and show {(shown - gathered) * 1e3:.0f} ms")
    typical = statistics.median(times.values())
    print(f"  a key, of processor time: median {typical:.1f} ms, slowest {times[slowest]:.1f} ms ({slowest!r})")
    print(f"  the same by the clock: median {statistics.median(waited):.1f} ms, slowest {max(waited):.1f} ms")
    print(f"bar: every key under {BAR_MS:.0f} ms: {'met' if times[slowest] < BAR_MS else 'MISSED'}")


if __name__ == "__main__":
    main()
