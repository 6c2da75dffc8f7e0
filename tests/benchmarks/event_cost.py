"""What an event a step costs: processor time of the worker that writes it, and of whoever reads it.

    python tests/benchmarks/event_cost.py

A writer records a `step` event every 30 ms, as a worker does in a run of the smallest preset; the command's own
follower, or the window's, reads along. Bar: worker and command together 2 % of a step.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PySide6.QtCore import QCoreApplication, QTimer

from llmlab.cli.follow import Interrupts, _Following
from llmlab.cli.progress import JsonReport
from llmlab.core.presets import of_preset
from llmlab.core.settings import PretrainSettings
from llmlab.jobs.launcher import create_run
from llmlab.store.events import Finished, StepEvent
from llmlab.store.recorder import Recorder
from llmlab.store.run_folder import RunFolder
from llmlab.store.run_log import EventFollower
from llmlab_gui.lab.run_watcher import RunWatcher

STEP_SECONDS, BAR = 0.03, 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0, help="about how long each part takes")
    parser.add_argument("--as-writer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    steps = round(arguments.seconds / STEP_SECONDS)
    if arguments.as_writer is not None:
        _write(RunFolder(arguments.as_writer), steps)
        return
    print(f"{steps} events, one every {1e3 * STEP_SECONDS:.0f} ms: processor time an event")
    with tempfile.TemporaryDirectory() as folder:
        writing, reading = _measure(Path(folder), steps, "command")
        _, watching = _measure(Path(folder), steps, "window")
    for name, seconds in (
        ("worker, writing", writing),
        ("command with --json, reading", reading),
        ("window, reading", watching),
    ):
        print(f"  {name:<30}{1e3 * seconds:6.3f} ms  {100 * seconds / STEP_SECONDS:5.2f} % of a step")
    share = (writing + reading) / STEP_SECONDS
    print(f"worker and command: {100 * share:.2f} % (bar {100 * BAR:.0f} %): {'met' if share <= BAR else 'MISSED'}")


def _measure(folder: Path, steps: int, reader: str) -> tuple[float, float]:
    """Seconds of processor time an event, of the writer and of this process, which reads."""
    run = create_run(folder, of_preset(PretrainSettings, "baby"), name=reader)
    seconds = steps * STEP_SECONDS
    command = [sys.executable, __file__, "--seconds", str(seconds), "--as-writer", str(run.path)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()  # it has begun
    begin = time.process_time()
    _follow(run, writer) if reader == "command" else _watch(run, seconds)
    read = time.process_time() - begin
    wrote = float(writer.stdout.readline())
    writer.wait()
    return wrote / steps, read / steps


def _follow(run: RunFolder, writer: subprocess.Popen[bytes]) -> None:
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        _Following(run, writer, EventFollower(run), JsonReport(run), Interrupts(), None).to_the_end()


def _watch(run: RunFolder, seconds: float) -> None:
    app = QCoreApplication.instance() or QCoreApplication([])
    watcher = RunWatcher()
    watcher.follow(run)
    watcher.start()
    QTimer.singleShot(round(1e3 * seconds), app.quit)
    app.exec()
    watcher.stop()
    watcher.wait()


def _write(run: RunFolder, steps: int) -> None:
    recorder = Recorder(run)
    recorder.begin(-1, 0)
    recorder.update(state="running")
    print("begun", flush=True)
    spent, due = 0.0, time.monotonic()
    for step in range(1, steps + 1):
        due += STEP_SECONDS
        time.sleep(max(0.0, due - time.monotonic()))
        begin = time.process_time()
        loss, speed, active = 2.5 + 1 / step, 2e4 + 1 / step, step / 33
        recorder.beat(1.0)
        recorder.record(StepEvent(step, time.time(), loss, 1e-3, 0.731, step * 768, speed, active, 9.5, 10**8, 0.4))
        spent += time.process_time() - begin
    recorder.record(Finished(steps, time.time(), "steps", None, None, None, None, 1.0, "none"))
    recorder.update(state="finished")
    print(spent, flush=True)


if __name__ == "__main__":
    main()
