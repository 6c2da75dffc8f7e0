"""A worker without a model: `python fake_worker.py RUN_FOLDER BEHAVIOUR` writes a run's events and behaves as told.

The parent process is the command that follows it; some behaviours press its Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from pathlib import Path

from llmlab.store import requests
from llmlab.store.events import Failed, Finished, Started, StepEvent, Stopped
from llmlab.store.recorder import Recorder
from llmlab.store.run_folder import RunFolder

STEPS = 3
# However a test ends, its fake worker does too.
_LONGEST_SECONDS = 60.0


def main(run: RunFolder, behaviour: str) -> int:
    if behaviour == "never_begins":
        os.kill(os.getppid(), signal.SIGINT)
        threading.Event().wait(_LONGEST_SECONDS)
    if behaviour == "refused":
        print("Another worker holds this run.", file=sys.stderr)
        return 3
    recorder = Recorder(run)
    recorder.begin(-1, 0)
    recorder.record(_started(run, recorder.status.attempt))
    for step in range(1, STEPS + 1):
        recorder.record(StepEvent(step, time.time(), 4.0 - step, 1e-3, 0.5, step * 768, 1000.0, step, 1.0, 10**8, 0.5))
    if behaviour == "fails":
        recorder.record(Failed(STEPS, time.time(), "The loss is not a number.", "It was 7.", "Lower it."))
        recorder.update(state="failed")
        return 1
    if behaviour == "dies":
        print("some earlier line\nSegmentation fault in a library\nNote: Threads spin long.", flush=True)
        return 7
    if behaviour == "is_killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "is_silent":  # until someone answers
        recorder.status = dataclasses.replace(recorder.status, heartbeat=1.0, patience=600.0)
        run.write_status(recorder.status)
        _wait_until_asked(run)
        recorder.update()
        _wait_until_asked(run)
    if behaviour == "is_terminated":
        told = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: told.set())
        os.kill(os.getppid(), signal.SIGTERM)
        if not told.wait(_LONGEST_SECONDS):
            return 8
        recorder.record(Stopped(STEPS, time.time(), 3.0, "step-00000002"))
        recorder.update(state="stopped")
        return 0
    if behaviour in ("stops", "is_deaf"):
        os.kill(os.getppid(), signal.SIGINT)
        _wait_until_asked(run)
        if behaviour == "is_deaf":  # asked once: so the first Ctrl-C was heard, and the second cannot merge with it
            os.kill(os.getppid(), signal.SIGINT)
            threading.Event().wait(_LONGEST_SECONDS)
        recorder.record(Stopped(STEPS, time.time(), 3.0, "step-00000003"))
        recorder.update(state="stopped")
        return 0
    recorder.record(Finished(STEPS, time.time(), "steps", 1.0, 1.5, 1.25, 2, 3.0, "step-00000003"))
    recorder.update(state="finished")
    return 0


def _wait_until_asked(run: RunFolder) -> None:
    """Returns when a stop was requested."""
    pause = threading.Event()
    end = time.monotonic() + _LONGEST_SECONDS
    while time.monotonic() < end and all(request.name != "stop" for request in requests.take(run.requests)):
        pause.wait(0.01)


def _started(run: RunFolder, attempt: int) -> Started:
    return Started(
        step=0,
        time=time.time(),
        run=run.id,
        attempt=attempt,
        steps=STEPS,
        parameters=809_856,
        vocab_size=65,
        train_tokens=1_003_854,
        val_tokens=111_540,
        tokens_per_step=768,
        uniform_loss=4.174,
        unigram_loss=3.3,
        floor_loss=None,
        device="cpu",
        precision="fp32",
        threads=1,
        peak_flops=1e11,
        tokenizer="char",
        comparable=False,
        active_seconds=0.0,
        pid=os.getpid(),
    )


if __name__ == "__main__":
    sys.exit(main(RunFolder(Path(sys.argv[1])), sys.argv[2]))
