"""Opening a week's run: how long until its curve is there, what memory it takes, and whether the window froze.

python tests/benchmarks/gui_long_run.py --lines 5000000
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
from fakes import FakeRun
from loop_watch import LoopWatch
from PySide6.QtCore import QEventLoop, QTimer
from PySide6.QtWidgets import QApplication
from window import Window

from llmlab.store.run_folder import RunFolder
from llmlab_gui.pages.places import TRAIN

SPIKE_STEP, SPIKE = 123_456, 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=5_000_000)
    arguments = parser.parse_args()
    _application = QApplication.instance() or QApplication([])  # without one, an event loop spins
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as elsewhere:
        fake = FakeRun(Path(elsewhere), "week", steps=arguments.lines).start()
        fake.write_lines(arguments.lines, eval_every=1000, spikes={SPIKE_STEP: SPIKE})
        size = fake.run.events.stat().st_size
        print(f"events.jsonl: {arguments.lines:,} lines, {size / 2**20:,.0f} MiB")
        _open(Path(folder), fake.run.path, arguments.lines)


def _open(outputs: Path, week: Path, lines: int) -> None:
    """The run lies elsewhere, so that it is opened when asked and not as soon as the window finds it."""
    here = psutil.Process()
    window = Window(outputs, outputs / "window.ini", TRAIN)
    _until(lambda: False, 2.0)
    before = here.memory_info().rss
    peak_here = peak_reader = 0
    watch = LoopWatch()
    watch.start()
    begin = time.perf_counter()
    run = RunFolder(week)
    window.show_run(run)

    def opened() -> bool:
        nonlocal peak_here, peak_reader
        peak_here = max(peak_here, here.memory_info().rss)
        for child in here.children():
            try:
                peak_reader = max(peak_reader, child.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        steps = window.history(run.full_name).step_columns["step"]
        return len(steps) > 0 and steps[-1] == lines and window.drawn()

    _until(opened, 300.0)
    seconds = time.perf_counter() - begin
    _until(lambda: False, 1.0)
    watch.stop()
    history = window.history(run.full_name)
    kept, evaluated = len(history.step_columns), len(history.evaluations)
    print(f"  open after {seconds:.1f} s; {kept:,} steps kept, {evaluated:,} evaluations")
    print(f"  spike kept: {history.step_columns['loss'].max() == SPIKE}")
    print(f"  memory: window +{(peak_here - before) / 2**20:.0f} MiB, reading process {peak_reader / 2**20:.0f} MiB")
    print(f"  {watch.line()}")
    window.close()


def _until(done: object, seconds: float) -> None:
    """Lets the event loop run until `done()`, asked ten times a second, or so many seconds have passed."""
    loop = QEventLoop()
    timer = QTimer()
    timer.timeout.connect(lambda: loop.quit() if done() else None)
    timer.start(100)
    QTimer.singleShot(int(seconds * 1e3), loop.quit)
    loop.exec()


if __name__ == "__main__":
    main()
