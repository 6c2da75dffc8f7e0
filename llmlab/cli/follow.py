"""Training in a terminal: starts a run's worker, reports its events and forwards signals.

The worker is a process of its own (see llmlab.jobs.launcher). Ctrl-C asks it to stop and waits until it has saved;
a second one kills it.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from types import FrameType, TracebackType
from typing import Any

from llmlab.cli.output import DONE, INTERRUPTED
from llmlab.cli.progress import Report, StartTimes
from llmlab.cli.words import spoken
from llmlab.core.errors import LabError
from llmlab.core.progress import Every
from llmlab.jobs.launcher import start_worker
from llmlab.store import requests
from llmlab.store.events import FINAL_EVENTS, Event, Failed
from llmlab.store.run_folder import SILENT, RunFolder
from llmlab.store.run_log import EventFollower
from llmlab.store.worker_folder import WorkerFolder

# How often the events are read: at first so often that a short run is shown as it goes, then so seldom that the cores
# are left to the training (each time costs it some tenths of a millisecond), and still often enough to look live.
_FIRST_POLL_SECONDS, _POLL_SECONDS, _SLOWER = 0.05, 0.2, 1.1
# How often it is asked whether the worker is silent.
_LOOK_SECONDS = 1.0
# A worker that has not begun to train answers a stop between two pieces of text; importing torch takes longest.
_PATIENCE_SECONDS = 15.0
# After its last event a worker only has to end.
_ENDING_SECONDS = 30.0


class Interrupts:
    """Listens to Ctrl-C, SIGTERM and SIGHUP while it is entered; the second raises KeyboardInterrupt anywhere."""

    def __init__(self) -> None:
        self.count = 0
        self._first = 0  # its signal number
        self._ask: Callable[[int], None] | None = None
        self._before: dict[int, Any] = {}

    def answer_first_with(self, ask: Callable[[int], None]) -> None:
        """Calls `ask` with the first one, from within the signal handler: also while stdout's reader makes us wait."""
        self._ask = ask
        if self.count:
            ask(self._first)

    def __enter__(self) -> Interrupts:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            ignored = number is not None and signal.getsignal(number) == signal.SIG_IGN
            if number is None or (ignored and name == "SIGHUP"):  # nohup means: train on without a terminal
                continue
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        self._first = number
        if self._ask is not None:
            self._ask(number)


def train(run: RunFolder, report: Report, times: StartTimes | None = None, listening: Interrupts | None = None) -> int:
    """Trains `run` from where it is, to its end; returns the exit code. Raises LabError when it fails.

    times: makes a table of where the time goes until the first step; the report says it. listening: entered before the
    run was made; KeyboardInterrupt where one came by now.
    """
    follower = EventFollower(run, _size(run))
    with contextlib.nullcontext(listening) if listening is not None else Interrupts() as interrupts:
        if interrupts.count:
            _settle(run)
            raise KeyboardInterrupt
        worker = start_worker(run, follow_parent=True)
        interrupts.answer_first_with(lambda number: ask_to_stop(run, worker, number))
        try:
            last = _Following(run, worker, follower, report, interrupts, times).to_the_end()
            _wait(worker)
        except KeyboardInterrupt:
            worker.kill()
            worker.wait()
            _settle(run)
            report.close()
            report.note(f"Killed. Resume from what was saved: llmlab-run resume {spoken(run)}")
            return INTERRUPTED
        except Exception:
            worker.terminate()  # it saves before it ends
            _wait(worker)
            report.close()
            raise
        report.close()
        if isinstance(last, Failed):
            raise LabError(last.what, last.why, last.do)
        report.summary(last)
        return INTERRUPTED if interrupts.count else DONE


class _Following:
    """One worker from its start to its last event."""

    def __init__(
        self,
        run: RunFolder,
        worker: subprocess.Popen[bytes],
        follower: EventFollower,
        report: Report,
        interrupts: Interrupts,
        times: StartTimes | None,
    ) -> None:
        self._run, self._worker, self._follower = run, worker, follower
        self._report, self._interrupts, self._times = report, interrupts, times
        self._begun = False
        self._silent, self._looks = False, Every(_LOOK_SECONDS, at_once=False)
        self._asked: float | None = None  # when we saw that a stop was asked for, monotonic

    def to_the_end(self) -> Event | None:
        """Reports every event; returns the last, or None when the worker was ended before its first."""
        pause = _FIRST_POLL_SECONDS
        while True:
            gone = self._worker.poll() is not None  # asked before reading, so that its last words are read
            events = self._follower.poll()
            last = self._show(events)
            if last is not None:
                return last
            if gone and not events:
                _settle(self._run)
                if not self._interrupts.count or self._begun:
                    raise self._death()
                return None
            doing = self._run.recorded_status().doing
            if doing or not self._begun:
                self._report.preparing(doing)
            if self._interrupts.count:
                self._stopping()
            self._watch_silence()
            time.sleep(pause)
            if self._begun:
                pause = min(_POLL_SECONDS, _SLOWER * pause)

    def _show(self, events: list[Event]) -> Event | None:
        """Reports events, all at once for whoever reads the output; returns the run's last, if it is among them."""
        for event in events:
            self._begun = True
            self._report.event(event)
            for line in self._times.take(event) if self._times is not None else ():
                self._report.note(line)
            if event.name in FINAL_EVENTS:
                break
        self._report.flush()
        return next((event for event in events if event.name in FINAL_EVENTS), None)

    def _watch_silence(self) -> None:
        """Says when the worker falls silent, and when it is heard again."""
        if not self._looks.due():
            return
        status = self._run.status()
        if (status.silent_since is not None) == self._silent:
            return
        self._silent = not self._silent
        heard = f"Process {status.pid} is {status.words}. {SILENT}" if self._silent else "It is heard again."
        self._report.note(heard)

    def _stopping(self) -> None:
        """Says once that a stop was asked for; ends a worker that does not answer before it trains."""
        if self._asked is None:
            self._asked = time.monotonic()
            self._report.note("Stopping after this step, with a checkpoint. Press Ctrl-C again to end it immediately.")
        elif not self._begun and time.monotonic() - self._asked > _PATIENCE_SECONDS:
            self._worker.kill()

    def _death(self) -> LabError:
        """Why the worker went without a last event, as far as it said."""
        if not self._run.path.is_dir():
            return self._run.gone()
        error = self._run.recorded_status().error
        if error is not None:
            return LabError(error.get("what", ""), error.get("why", ""), error.get("do", ""))
        code = self._worker.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if code == -getattr(signal, "SIGKILL", 9):
            how += ", which the system sends when memory runs out"
        words = self._run.last_words()
        return LabError(
            f"The worker of {self._run.id} died ({how}).",
            f"Its last words: {words}" if words else "It left no message.",
            f"All of its log: {self._run.log}. Resume from the last checkpoint: llmlab-run resume {spoken(self._run)}",
        )


def ask_to_stop(folder: WorkerFolder, worker: subprocess.Popen[bytes], number: int) -> None:
    """Passes on a signal: SIGTERM as it is, since whoever sent it waits for seconds; others wait for the step's end."""
    try:
        if number != signal.SIGTERM:
            requests.send(folder.requests, "stop")
            return
    except OSError:  # a full disk, say: the worker takes SIGTERM for the same request
        pass
    worker.terminate()


def _settle(run: RunFolder) -> None:
    """A run whose worker went before it took over would look queued for a while: says that it is stopped."""
    status = run.recorded_status()
    if run.path.is_dir() and status.state == "queued" and not run.has_worker(status):
        run.write_status(replace(status, state="stopped", pid=None, pid_start=None))


def _wait(worker: subprocess.Popen[bytes]) -> None:
    try:
        worker.wait(_ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def _size(run: RunFolder) -> int:
    try:
        return run.events.stat().st_size
    except OSError:
        return 0
