"""Whether the window stays quick while a run streams, and whether watching slows the run.

python tests/benchmarks/gui_responsiveness.py               a fake run of 50 steps a second, from another process
python tests/benchmarks/gui_responsiveness.py --run-live    a real worker, alternately watched and left alone
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(Path(__file__).parent.parent))

from fakes import FakeRun
from loop_watch import LoopWatch
from preset_settings import resolve_settings
from PySide6.QtCore import QEventLoop, Qt, QTimer
from PySide6.QtGui import QTextCursor
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QPlainTextEdit
from window import Window

from llmlab.jobs.launcher import create_run, request, start_worker
from llmlab.store.run_folder import RunFolder
from llmlab_gui.pages.places import LOOK_INSIDE, TRAIN, WORKSPACES, WRITE

KEPT_BAR = 0.97  # of the headless tokens/s
PROMPT_CHARACTERS, KEY_BAR_MS = 10_000, 30.0
# Of one core, what the window's process takes while nobody touches it.
REST_BAR, STREAM_BAR, LIVE_BAR = 0.02, 0.25, 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-live", action="store_true", help="train with a real worker")
    parser.add_argument("--preset", default="baby", help="of the real run")
    parser.add_argument("--threads", type=int, default=1, help="of the real run, watched or not")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of one stretch")
    parser.add_argument("--rounds", type=int, default=3, help="stretches of each kind, with --run-live")
    parser.add_argument("--workspace", default=TRAIN, help=f"one of {', '.join(WORKSPACES)}")
    arguments = parser.parse_args()
    _application = QApplication.instance() or QApplication([])  # without one, an event loop spins
    with tempfile.TemporaryDirectory() as folder:
        if arguments.run_live:
            _live(Path(folder), arguments)
        else:
            _fake(Path(folder), arguments)


def _fake(outputs: Path, arguments: argparse.Namespace) -> None:
    # A fresh process: a fork of this one would hold its share of the window.
    writer = multiprocessing.get_context("spawn").Process(target=_stream, args=(outputs, arguments.seconds + 20))
    writer.start()
    try:
        while not (outputs / "pretraining" / "stream" / "events.jsonl").exists():
            time.sleep(0.05)
        _watch_stream(outputs, arguments)
    finally:
        writer.terminate()
        writer.join()


def _watch_stream(outputs: Path, arguments: argparse.Namespace) -> None:
    seconds = arguments.seconds
    empty = LoopWatch()
    empty.start()
    _spend(min(5.0, seconds))
    empty.stop()
    print(f"no window, the machine as it is: {empty.line()}")
    rest = outputs / "rest"
    window = Window(rest, rest / "window.ini", arguments.workspace)
    window.show_run(FakeRun(rest, "ended", steps=2000).start().advance(2000).finish().run)
    _spend(min(3.0, 5 * seconds))  # the window's first drawing is not what is measured
    busy = time.process_time()
    _spend(seconds)
    print(f"window at rest, workspace {arguments.workspace}: {_share(busy, seconds, REST_BAR)}")
    window.close()
    window = Window(outputs, outputs / "window.ini", arguments.workspace)
    window.show_run(RunFolder(outputs / "pretraining" / "stream"))
    _spend(min(3.0, 5 * seconds))
    watch, busy = LoopWatch(), time.process_time()
    watch.start()
    _spend(seconds)
    watch.stop()
    print(f"fake run, 50 steps a second, workspace {arguments.workspace}: {watch.line()}")
    print(f"  {_share(busy, seconds, STREAM_BAR)}")
    _type(window)
    window.close()


def _share(begun: float, seconds: float, bar: float) -> str:
    """What of one core this process took since `begun`, its processor time then, beside its bar."""
    share = (time.process_time() - begun) / seconds
    return f"its process took {share:.1%} of one core (bar {bar:.0%}): {'met' if share < bar else 'MISSED'}"


def _type(window: Window) -> None:
    """What a key at the end of a long prompt takes until it is painted."""
    for workspace, name in ((LOOK_INSIDE, "Prompt of the inspection"), (WRITE, "Prompt")):
        window.window.use_workspace(workspace)
        prompt = next(box for box in window.window.findChildren(QPlainTextEdit) if box.accessibleName() == name)
        prompt.setPlainText("The king said to the queen. " * (PROMPT_CHARACTERS // 28))
        prompt.moveCursor(QTextCursor.MoveOperation.End)
        _spend(0.5)
        times: list[float] = []  # of the processor, so that other work on the machine does not count
        for _ in range(30):
            begin = time.process_time()
            QTest.keyClick(prompt, Qt.Key.Key_A)
            QApplication.processEvents()
            times.append((time.process_time() - begin) * 1e3)
        key = statistics.median(times)
        met = "met" if key < KEY_BAR_MS else "MISSED"
        print(f"a key in {workspace}, in a prompt of {PROMPT_CHARACTERS:,} characters: {key:.1f} ms ", end="")
        print(f"(bar {KEY_BAR_MS:.0f}): {met}")


def _stream(outputs: Path, seconds: float) -> None:
    fake = FakeRun(outputs, "stream", steps=100_000).start().advance(2000)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        fake.advance(1)
        time.sleep(0.02)


def _live(outputs: Path, arguments: argparse.Namespace) -> None:
    overrides = [f"train.threads={arguments.threads}", "train.steps=1000000", "train.sample_interval=0"]
    run = create_run(outputs, resolve_settings(arguments.preset, None, overrides), name="live")
    worker = start_worker(run, follow_parent=True)
    while run.recorded_status().step < 50:
        time.sleep(0.1)
    speeds: dict[str, list[float]] = {"headless": [], "watched": []}
    watch, spent = LoopWatch(), 0.0
    for _ in range(arguments.rounds):
        speeds["headless"].append(_tokens_per_second(run, arguments.seconds))
        window = Window(outputs, outputs / "window.ini", arguments.workspace)
        window.show_run(run)
        _spend(3.0)
        watch.start()
        busy = time.process_time()
        speeds["watched"].append(_tokens_per_second(run, arguments.seconds))
        spent += time.process_time() - busy
        watch.stop()
        window.close()
    request(run, "stop")
    worker.wait()
    stretches = f"{arguments.rounds} x {arguments.seconds:.0f} s each"
    print(f"{arguments.preset}, workspace {arguments.workspace}, {arguments.threads} thread(s), {stretches}")
    for kind, values in speeds.items():
        print(f"  {kind:9} {statistics.median(values):10,.0f} tokens/s   ({', '.join(f'{v:,.0f}' for v in values)})")
    ratio = statistics.median(b / a for a, b in zip(speeds["headless"], speeds["watched"], strict=True))
    print(f"  watched / headless: {ratio:.3f} (bar {KEPT_BAR}): {'met' if ratio >= KEPT_BAR else 'MISSED'}")
    print(f"  {watch.line()}")
    print(f"  {_share(time.process_time() - spent, arguments.rounds * arguments.seconds, LIVE_BAR)}")


def _tokens_per_second(run: RunFolder, seconds: float) -> float:
    """Tokens that the worker read from now on, over the time between its first and last step; evaluations left out."""
    begin = run.events.stat().st_size
    _spend(seconds)
    with run.events.open("rb") as file:
        file.seek(begin)
        lines = file.read().splitlines()[1:-1]
    steps = [values for line in lines if (values := json.loads(line))["event"] == "step"]
    return (steps[-1]["tokens"] - steps[0]["tokens"]) / (steps[-1]["active_seconds"] - steps[0]["active_seconds"])


def _spend(seconds: float) -> None:
    """Lets the event loop run."""
    loop = QEventLoop()
    QTimer.singleShot(int(seconds * 1e3), loop.quit)
    loop.exec()


if __name__ == "__main__":
    main()
