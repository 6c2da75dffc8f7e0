"""Writing down what happens: events to events.jsonl, the present to status.json."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from llmlab.core.files import is_disk_full
from llmlab.core.processes import host_name, process_start
from llmlab.store.event_file import close_gaps, counted, set_aside, whole_bytes
from llmlab.store.events import Evaluated, Event, Started, StepEvent, to_line
from llmlab.store.run_folder import RunFolder
from llmlab.store.run_log import last_events
from llmlab.store.worker_folder import LAUNCH_SECONDS

# Room kept in the run's folder for its last words: when a disk is full, these must still be said. An event, a second
# status.json beside the first, and the folder entries of both.
_RESERVE_BYTES = 64 << 10
# How often status.json may be replaced for news that events.jsonl has as well.
_STATUS_SECONDS = 0.5
# Quiet for longer than anything took so far, a worker may hang. Before its first step nobody knows how long things
# take: to compile a model, say, takes minutes.
_PATIENCE_GAPS, _LEAST_PATIENCE, _FIRST_PATIENCE = 10, 120.0, 600.0
# A write to a file of the run takes no longer, unless its disk hangs.
_SEIZE_SECONDS = 2.0


class Recorder:
    """The one writer of a run's events and status, in the process that holds its lock."""

    def __init__(self, run: RunFolder) -> None:
        """Takes over the run: state `running`."""
        self._run = run
        self._file = self._open()
        self._last_status = 0.0
        self._heard, self._longest = time.monotonic(), 0.0  # the last sign of life, and the longest time between two
        self._patience, self._stepped = _FIRST_PATIENCE, False
        self._lock = threading.RLock()  # another thread writes only where it ends the process
        self._reserve = run.path / ".reserve"
        self.keep_reserve()
        recorded = run.recorded_status()
        pid = os.getpid()
        self.begun = False  # whether this worker's `started` is written
        self.preparation: dict[str, float] = {}  # seconds by what was done before training
        began = process_start(pid)
        # Since when: whoever started the worker said so just before; of one that somebody else started, nobody did.
        since = recorded.heartbeat if began - recorded.heartbeat < LAUNCH_SECONDS else began
        self._prepares = ("Starting the worker", since)
        self.status = dataclasses.replace(
            recorded, state="running", host=host_name(), pid=pid, pid_start=began, error=None
        )

    def begin(self, step: int, scan_from: int) -> int:
        """Cuts what happened after `step` and announces the attempt. scan_from: bytes known to be older.

        Returns how many lines could not be read: they are set aside, and what else counts is kept. First the cut,
        then the status that tells followers of it, then whatever is appended. The attempt is counted here and no
        sooner: a follower takes a new number as word of a new `events_start`.
        """
        found, damaged = counted(self._run.events, step, scan_from), 0
        if found.damaged:
            damaged = set_aside(self._run.events, found.damaged, self._run.damaged_events)
        if found.gaps:
            close_gaps(self._run.events, found)
            os.close(self._file)
            self._file = self._open()
        else:
            os.ftruncate(self._file, found.end)
        self.update(step=max(step, 0), events_start=self.bytes, attempt=self.status.attempt + 1)
        return damaged

    @property
    def bytes(self) -> int:
        """Length of events.jsonl."""
        return os.fstat(self._file).st_size

    def begin_early(self, started: Started) -> None:
        """Announces an attempt that ends before it trains: nothing is cut but half a line at the end.

        Which checkpoint counts was not looked up yet, and the next worker will.
        """
        os.ftruncate(self._file, whole_bytes(self._run.events))
        self.announce(started, step=started.step, attempt=started.attempt, events_start=self.bytes)

    def take_over(self) -> None:
        """For the last words of an attempt that began, whose worker died: half a line at the end is cut."""
        os.ftruncate(self._file, whole_bytes(self._run.events))
        self.status = dataclasses.replace(self.status, step=self.reached()[0])
        self.begun = True

    def reached(self) -> tuple[int, float]:
        """Step and training time (seconds, over all workers) of the newest events, whether or not they will count."""
        step, seconds = self.status.step, 0.0
        for event in last_events(self._run.events):
            step = max(step, event.step)
            seconds = getattr(event, "active_seconds", seconds)
        return step, seconds

    def record(self, event: Event) -> None:
        """Appends one event; a line is there whole or not at all. Raises OSError when the disk is full."""
        line = (to_line(event) + "\n").encode()
        with self._lock:
            before = self.bytes
            try:
                while line:  # a disk that fills up takes a part, and gives its error when asked again
                    line = line[os.write(self._file, line) :]
            except OSError:
                os.ftruncate(self._file, before)
                raise
        if isinstance(event, Started):
            self.begun = True
        elif isinstance(event, StepEvent):
            news: dict[str, Any] = {"loss": event.loss, "tokens_per_second": event.tokens_per_second}
            self._refresh(step=event.step, eta_seconds=event.eta_seconds, **news)
        elif isinstance(event, Evaluated):
            best = event.val_loss if event.best else self.status.best_val_loss
            self._refresh(step=event.step, val_loss=event.val_loss, best_val_loss=best)

    def update(self, **changes: Any) -> None:
        """Changes the status and writes it at once. Raises OSError when the disk is full."""
        with self._lock:
            self._hear()
            self._note(changes)
            changes |= {"heartbeat": time.time(), "patience": self._patience}
            self.status = dataclasses.replace(self.status, **changes)
            self._last_status = time.monotonic()
            self._run.write_status(self.status)

    def announce(self, event: Event, **changes: Any) -> None:
        """An event and the status that goes with it, said on a full disk too: the reserve is given up for them.

        Raises OSError when even that is not enough.
        """
        try:
            self.update(**changes)
            self.record(event)
        except OSError as error:
            if not is_disk_full(error):
                raise
            self._reserve.unlink(missing_ok=True)
            self.update(**changes)
            self.record(event)

    def stopping(self) -> None:
        """Says that the run was told to stop, from any thread."""
        with self._lock, contextlib.suppress(OSError):
            if self.status.state in ("running", "paused"):
                self.update(state="stopping")

    def seize(self) -> bool:
        """For a thread that will end the process: no other writes any more. False when the run has ended by itself."""
        return self._lock.acquire(timeout=_SEIZE_SECONDS) and self.status.live

    def keep_reserve(self) -> None:
        """Takes room for later announcements, as far as there is any."""
        with contextlib.suppress(OSError):
            self._reserve.write_bytes(os.urandom(_RESERVE_BYTES))  # zeros would take no room where disks compress

    def beat(self, expected: float) -> None:
        """Says that a step is done. expected: seconds that something between two steps is known to take."""
        gap = self._hear()
        if not self._stepped:  # what came before is not done again
            self._stepped, self._longest = True, gap
        self._patience = max(_LEAST_PATIENCE, _PATIENCE_GAPS * max(self._longest, expected))
        self._refresh()

    def prepare(self, doing: str) -> None:
        """Says what keeps the run from its next step."""
        self._refresh(doing=doing)

    @contextlib.contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """Inside, something keeps the run from its next step that takes as long as it takes."""
        with contextlib.suppress(OSError):  # what is done here says what the disk lacks
            self.update(doing=doing)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self.update(doing="")

    def close(self) -> None:
        """Gives the events file and the reserve back."""
        os.close(self._file)
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def _open(self) -> int:
        return os.open(self._run.events, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _hear(self) -> float:
        """A sign of life; returns the seconds since the last one. A pause does not count."""
        now = time.monotonic()
        gap = 0.0 if self.status.state == "paused" else now - self._heard
        self._heard, self._longest = now, max(self._longest, gap)
        return gap

    def _note(self, changes: Mapping[str, Any]) -> None:
        """Counts the time of what kept the run until now, when it turns to something else."""
        what, since = self._prepares
        doing = changes.get("doing", what).partition(" (")[0]  # without its percentage
        if doing == what or not what:
            return
        now = time.time()
        self.preparation[what] = self.preparation.get(what, 0.0) + max(0.0, now - since)
        self._prepares = doing, now

    def _refresh(self, **changes: Any) -> None:
        with self._lock:  # or else the state that another thread writes could be the one before
            self._hear()
            self._note(changes)
            self.status = dataclasses.replace(self.status, **changes)
        if time.monotonic() - self._last_status >= _STATUS_SECONDS:
            try:
                self.update()
            except OSError as error:
                if not is_disk_full(error):  # what is in the events already may be in the status later
                    raise
