"""What happens at a step boundary on request: pause, resume, stop, save, sample, inspect; and waiting for room."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from llmlab.core.errors import LabError
from llmlab.core.files import is_disk_full
from llmlab.store import requests
from llmlab.store.events import Event, Paused, Resumed, Warned
from llmlab.store.recorder import Recorder
from llmlab.store.run_folder import RunFolder
from llmlab.training.inspections import answer_request

if TYPE_CHECKING:
    from llmlab.training.run import TrainingRun

T = TypeVar("T")

# How often a paused worker looks for requests: a click is answered before it feels slow.
_POLL_SECONDS = 0.05


class StopRequested(Exception):
    """Training should save and end."""


class Control:
    """Reads a run's requests for its trainer. `stop_signal` may be set from a signal handler or another thread."""

    def __init__(self, run: RunFolder, recorder: Recorder, *, watched: bool) -> None:
        """watched: someone looks on and can free space, so a full disk pauses the run instead of ending it."""
        self._run, self._recorder, self._watched = run, recorder, watched
        self._waiting: list[requests.Request] = []
        self.stop_signal = threading.Event()
        self.stop_heard = threading.Event()  # training is ending: it saves what there is to save
        self.saving = False  # a checkpoint is being written
        self.given_up: Callable[[], LabError | None] = lambda: None  # `llmlab.training.processes.Processes.given_up`

    def stop_wanted(self) -> bool:
        """Whether a stop was asked for; for work before the first step, which only a stop can end."""
        self._waiting += requests.take(self._run.requests)
        return self.stop_signal.is_set() or any(request.name == "stop" for request in self._waiting)

    def handle_requests(self, trainer: TrainingRun) -> None:
        """Does what is asked, in order. Raises StopRequested. A pause waits here, with all state in memory."""
        self._waiting += requests.take(self._run.requests)
        if self._waiting or self.stop_signal.is_set():
            trainer.write_report()
        while self._waiting and not self.stop_signal.is_set():
            request = self._waiting.pop(0)
            if request.name == "stop":
                self._stop()
            if request.name == "pause":
                self._pause(trainer, "requested")
            else:
                self._serve(trainer, request)
        if self.stop_signal.is_set():
            self._stop()

    def warn(self, trainer: TrainingRun, message: str) -> None:
        self._recorder.record(Warned(trainer.progress.step, time.time(), message))

    def until_written(self, trainer: TrainingRun, write: Callable[[], T]) -> T:
        """Calls `write` and returns what it does. A watched run that cannot write pauses and tries again."""
        while True:
            try:
                return write()
            except OSError as error:
                if not self._watched or not self._run.path.is_dir():
                    raise
                self._pause(trainer, f"The run's folder could not be written. {disk_advice(error)}")

    def _stop(self) -> NoReturn:
        self.stop_heard.set()
        raise StopRequested

    def _pause(self, trainer: TrainingRun, reason: str) -> None:
        began = time.monotonic()
        step = trainer.progress.step
        self._announce(Paused(step, time.time(), reason), state="paused", step=step)
        while not self.stop_signal.is_set():
            if not self._waiting:
                self._waiting = requests.take(self._run.requests)
                if not self._waiting:
                    if not self._run.path.is_dir():
                        raise self._run.gone()
                    time.sleep(_POLL_SECONDS)
                    continue
            request = self._waiting.pop(0)
            if request.name == "stop":
                self._stop()
            if request.name == "resume":
                break
            self._serve(trainer, request)
        if self.stop_signal.is_set():
            self._stop()
        self._recorder.keep_reserve()
        self._announce(Resumed(step, time.time(), time.monotonic() - began), state="running", step=step)

    def _serve(self, trainer: TrainingRun, request: requests.Request) -> None:
        """What can be done between two steps as well as during a pause; other requests mean nothing there."""
        match request.name:
            case "save":
                try:
                    trainer.save({"requested"})
                except OSError as error:
                    self.warn(trainer, f"The checkpoint could not be saved. {disk_advice(error)}")
            case "sample":
                self._sample(trainer, request)
            case "inspect":
                with trainer.busy("Answering a question about the model"):
                    inspected = answer_request(trainer, request.options, self.stop_wanted)
                if inspected is not None:
                    with contextlib.suppress(OSError):  # the answer is there; to say so may wait for a disk with room
                        self._recorder.record(inspected)

    def _announce(self, event: Event, **changes: Any) -> None:
        """Says it as far as a full disk allows: a pause holds, and ends, whether or not there is room for its words."""
        try:
            self._recorder.announce(event, **changes)
        except OSError as error:
            if not is_disk_full(error):
                raise

    def _sample(self, trainer: TrainingRun, request: requests.Request) -> None:
        prompts = request.options.get("prompts")
        if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
            prompts = list(trainer.settings.samples.prompts)
        try:
            # JSON can spell half of a surrogate pair, which no tokenizer reads and no file holds.
            trainer.sample([prompt.encode(errors="replace").decode() for prompt in prompts])
        except LabError as error:
            self.warn(trainer, str(error))


def disk_advice(error: OSError) -> str:
    """What an error of the file system means and what to do about it, in two sentences."""
    if is_disk_full(error):
        return "The disk is full. Free some space, then resume."
    if error.errno == errno.EFBIG or "os error 27" in str(error):
        return "A limit on the size of files was reached. Raise it, then resume."
    return f"{error}."
