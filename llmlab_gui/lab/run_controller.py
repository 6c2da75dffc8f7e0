"""Starts runs and asks things of them, for all parts of the window."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from PySide6.QtCore import QObject, Signal, SignalInstance

from llmlab.core.config import with_values
from llmlab.core.errors import LabError
from llmlab.core.run_settings import RunSettings
from llmlab.jobs import launcher
from llmlab.jobs.queue import RunQueue
from llmlab.notebook.predictions import Prediction
from llmlab.store.checkpoints import Checkpoint
from llmlab.store.requests import RequestName
from llmlab.store.run_folder import RunFolder, RunStatus
from llmlab_gui.lab.worker_keeper import WorkerKeeper, write_failure

# The step that is being made, and the save after it, get time to end. SIGTERM does not wait for a step that is long, so
# it is for a worker that was silent for longer than its own patience.
ASK_AGAIN_SECONDS = 20.0
# A worker that neither ended nor gave a sign of life for so long is stuck; only then is it killed unasked.
STUCK_SECONDS = 120.0


@dataclass
class _Stopping:
    """A stop under way: since when, and which rung was reached (0 asked, 1 signalled, 2 killed).

    heard: when its heartbeat was last seen to change. By our own clock: the system's may be set meanwhile.
    """

    run: RunFolder
    since: float  # time.monotonic()
    rung: int = 0
    heartbeat: float = 0.0
    heard: float = 0.0  # time.monotonic()

    def silence(self, heartbeat: float, now: float) -> float:
        """Seconds without a sign of life, given the newest heartbeat."""
        if heartbeat != self.heartbeat:
            self.heartbeat, self.heard = heartbeat, now
        return now - max(self.heard, self.since)


class RunController(WorkerKeeper):
    """Of runs, which it also stops and ends."""

    started = Signal(object)  # RunFolder whose worker was just started, or started again
    took_turn = Signal(object)  # the same in place of `started`, where nobody asked for it now: its turn had come
    complained = Signal(object, object)  # RunFolder, and a LabError that holds until the run goes on
    queue_answered = Signal()  # what `start_queued` asked for was done, or could not be
    stopping_changed = Signal()  # `stopping_text` of some run is different

    def __init__(self, outputs: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._outputs = outputs
        self._stopping: dict[Path, _Stopping] = {}
        self.killed: set[Path] = set()  # runs that end without a word because this ended them

    # Making and starting ---------------------------------------------------------------------------------------

    def start(
        self,
        settings: RunSettings,
        name: str | None = None,
        preset: str = "",
        predictions: Sequence[Prediction] = (),
        begun: Callable[[], object] = lambda: None,
    ) -> None:
        """A new run, trained by a worker of its own. predictions: of the learner, locked with this. begun: called when
        it was started, and not when it could not be."""
        self._launch(
            lambda: launcher.create_run(
                self._outputs, settings, name=name, preset=preset, watched=True, predictions=predictions
            ),
            lambda run: f"{run.id} was started.",
            begun=begun,
        )

    def train_made(self, run: RunFolder) -> None:
        """Trains a run that is made already, and waits for its worker."""
        self._launch(lambda: run, lambda made: f"{made.id} was started.")

    def start_queued(self, queue: RunQueue, item_id: str = "") -> None:
        """The next run of a queue, or a certain one. `queue_answered` tells that it was tried."""
        self._launch(
            lambda: queue.take(item_id, watched=True),
            lambda run: f"{run.id} was started from the queue.",
            self.queue_answered.emit,
            started=self.started if item_id else self.took_turn,
        )

    def branch(
        self,
        run: RunFolder,
        checkpoint: Checkpoint,
        overrides: Mapping[str, Any],
        name: str | None = None,
        predictions: Sequence[Prediction] = (),
    ) -> None:
        """A new run that begins from a checkpoint of another. predictions: of the learner, locked with this."""

        def make() -> RunFolder:
            info = run.info()
            settings = with_values(info.settings, overrides)
            return launcher.create_run(
                self._outputs,
                settings,
                name=name,
                preset=info.preset,
                parent=(run, checkpoint),
                watched=True,
                predictions=predictions,
            )

        self._launch(make, lambda made: f"{made.id} was started from {run.id}@{checkpoint.step}.")

    def resume(self, run: RunFolder, overrides: Mapping[str, Any] | None = None, *, take_over: bool = False) -> None:
        """Trains a run that ended from its newest checkpoint on. take_over: also one that another machine has."""
        changes: list[str] = []

        def make() -> RunFolder:
            if take_over:
                run.take_over()
            changes.extend(launcher.prepare_resume(run, overrides or {}))
            return run

        self._launch(make, lambda _: " ".join([f"{run.id} resumes from its newest checkpoint.", *changes]))

    def _launch(
        self,
        make: Callable[[], RunFolder | None],
        sentence: Callable[[RunFolder], str],
        answered: Callable[[], object] = lambda: None,
        begun: Callable[[], object] = lambda: None,
        started: SignalInstance | None = None,
    ) -> None:
        """make: the run to start, None for none. answered: called when that is done, or could not be; begun: when it is
        done. started: what tells that it was, unless that is the signal of this name."""

        def work() -> tuple[RunFolder, subprocess.Popen[bytes]] | None:
            run = make()
            return (run, launcher.start_worker(run)) if run is not None else None

        def done(result: tuple[RunFolder, subprocess.Popen[bytes]] | None) -> None:
            if result is None:
                answered()
                return
            run, worker = result
            self._workers[run.path] = worker
            self._stopping.pop(run.path, None)
            self.killed.discard(run.path)
            self._timer.start()
            (started or self.started).emit(run)
            begun()
            self.said.emit(sentence(run))
            answered()

        def failed(error: LabError) -> None:
            self.failed.emit(error)
            answered()

        self._background.run(work, done, failed)

    # Asking ----------------------------------------------------------------------------------------------------

    def pause(self, run: RunFolder) -> None:
        """Waits after the step that is being made, its state in memory."""
        self._ask(run, "pause")

    def unpause(self, run: RunFolder) -> None:
        """Goes on after a pause."""
        self._ask(run, "resume")

    def save(self, run: RunFolder) -> None:
        """Saves a checkpoint after the step that is being made."""
        if self._ask(run, "save"):
            self.said.emit(f"{run.id} saves a checkpoint after this step.")

    def stop(self, run: RunFolder) -> None:
        """Saves and ends. Asked again when there is no answer; killed only when it is stuck."""
        if run.path not in self._stopping and self._ask(run, "stop"):
            self._stopping[run.path] = _Stopping(run, time.monotonic())
            self._timer.start()
            self.stopping_changed.emit()

    def kill(self, run: RunFolder) -> None:
        """Ends the worker at once. What was saved before stays; later steps are lost."""
        status = run.status()
        if status.elsewhere:
            why = f"It trains on {status.host}."
            self.failed.emit(
                LabError(f"{run.id} cannot be killed from here.", why, "Press Stop: that reaches it there.")
            )
        elif status.live:
            self.killed.add(run.path)
            _signal(run, status, psutil.Process.kill)
            self._stopping.setdefault(run.path, _Stopping(run, time.monotonic())).rung = 2
            self._timer.start()
            self.stopping_changed.emit()

    def stopping_text(self, run: RunFolder) -> str:
        """How far a stop is, for people; empty when none is under way."""
        stopping = self._stopping.get(run.path)
        if stopping is None:
            return ""
        seconds = int(time.monotonic() - stopping.since)
        words = ("Stopping: saves after this step", "Stopping: asked again", "Killed: waiting for the process to end")
        return f"{words[stopping.rung]} ({seconds} s)"

    def _ask(self, run: RunFolder, name: RequestName) -> bool:
        try:
            launcher.request(run, name)
        except LabError as error:
            self.failed.emit(error)
            return False
        return True

    # Watching --------------------------------------------------------------------------------------------------

    def _look_on(self) -> bool:
        for stopping in list(self._stopping.values()):
            self._climb(stopping)
        if self._stopping:
            self.stopping_changed.emit()
        return bool(self._stopping)

    def _ended(self, path: Path, code: int) -> None:
        """A worker that died before it could say anything left its run `queued`; say it in its place."""
        run = RunFolder(path)
        status = run.recorded_status()
        if status.state == "queued" and path.is_dir():
            why = f"Its exit code is {code}. {run.last_words()}".strip()
            self.complained.emit(run, write_failure(run, status, why, "Its output is in the Log."))

    def _climb(self, stopping: _Stopping) -> None:
        status = stopping.run.status()
        if not status.live:
            del self._stopping[stopping.run.path]
            self.stopping_changed.emit()
            return
        if status.elsewhere:  # it can be asked, and no more
            return
        now = time.monotonic()
        waited, silence = now - stopping.since, stopping.silence(status.heartbeat, now)
        patient = status.patience > 0 and silence <= status.patience
        if stopping.rung == 0 and waited > ASK_AGAIN_SECONDS and not patient:
            stopping.rung = 1
            _signal(stopping.run, status, psutil.Process.terminate)  # it saves if its step ends in time
        elif stopping.rung == 1 and waited > STUCK_SECONDS and silence > STUCK_SECONDS:
            stopping.rung = 2
            self.killed.add(stopping.run.path)
            _signal(stopping.run, status, psutil.Process.kill)
            error = LabError(
                f"{stopping.run.id} was killed.",
                f"It has been silent for {STUCK_SECONDS:.0f} seconds since it was asked to stop.",
                "Resume starts from its newest checkpoint.",
            )
            self.complained.emit(stopping.run, error)


def _signal(run: RunFolder, status: RunStatus, send: Callable[[psutil.Process], None]) -> None:
    """To the process that trains the run, if it still lives."""
    if status.pid is not None and not status.elsewhere and run.has_worker(status):
        # It may have ended meanwhile, or belong to someone else; the next look at its status tells.
        with contextlib.suppress(psutil.Error):
            send(psutil.Process(status.pid))
