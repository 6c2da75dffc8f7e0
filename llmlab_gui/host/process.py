"""The window's link to the process that holds a model: requests out, answers in, never a wait.

The model lives in `python -m llmlab.jobs.model_host`, started by the first request. Both sides speak JSON, one
object a line. The window hears of a reply through the signals of the `Request` that asked, and a host that dies is
started again by the next request. Models are named by references, as everywhere in the lab: `RUN@150`, a folder, a
file, `BASE+ADAPTER`.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import QElapsedTimer, QObject, QProcess, QProcessEnvironment, Qt, QTimer, Signal, SignalInstance

from llmlab.core.errors import LabError
from llmlab.core.paths import module_command
from llmlab.core.records import from_plain
from llmlab.models.replies import WrittenToken
from llmlab.training import thread_spin
from llmlab_gui.host.command import end_process
from llmlab_gui.host.messages import ANSWERS, Generation, progress_from, readable
from llmlab_gui.host.selection import Working

HOST_COMMAND = tuple(module_command("llmlab.jobs.model_host"))
# Enough for a Python traceback; the host's stderr is otherwise only noise of libraries.
_STDERR_KEPT = 8192
# A host that says nothing for so long while a cancellation waits is stuck: importing torch and loading a large
# checkpoint from a slow disk stay below it.
_CANCEL_PATIENCE_MS = 15_000
# glibc, else unread. Without it, a pass takes its activations from the kernel anew each time: of 512 tokens through
# SmolLM2-135M 272,000 page faults and 2.4 to 3.1 s of processor time, with it none and 1.5 to 1.9 s. All blocks share
# one heap, so that logits lie where contributions were. What is free at its end goes back to the kernel above 256 MB,
# the rest when a model is closed (`llmlab.core.memory.give_back`).
_KEEP_PAGES = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=268435456:glibc.malloc.hugetlb=1"
LOADING = Working("Loading the model")  # before a text is written or a next token asked for; details may follow


def host_environment() -> dict[str, str]:
    """What a process that holds a model is started with, besides this one's environment."""
    memory = os.environ.get("GLIBC_TUNABLES", _KEEP_PAGES)
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # the host takes more where they are free
    # A run chooses its spin once a second (`thread_spin.Spin`); answers are too short for that, so this one is fixed.
    # Beside six other processes on two cores, 40 tokens of a small model took 0.6 s with it, 5.8 with libgomp's own;
    # with nothing else running, writing takes 15 % longer.
    return {**one, "GLIBC_TUNABLES": memory, **thread_spin.environment()}


class Request(QObject):
    """Something that the host was asked. It ends once: `ended`, then one of `answered`, `cancelled` and `failed`.

    Dropped, it tells nothing more but `ended`, and each `part`, whose file is the asker's. It is deleted when it has
    ended.
    """

    progressed = Signal(object)  # Working
    token = Signal(object)  # WrittenToken, of `generate`
    part = Signal(object)  # Path of an archive: what was found so far
    ended = Signal()
    answered = Signal(object)  # what it was asked for
    cancelled = Signal()
    failed = Signal(object)  # LabError

    def __init__(self, cancel: Callable[[], None]) -> None:
        """cancel: asks the host to end it early."""
        super().__init__()
        self.wanted = True  # False once nobody waits for it
        self._cancel = cancel

    def cancel(self) -> None:
        """Ends it early; `cancelled` (or `answered`, if that was quicker) follows."""
        self._cancel()

    def drop(self) -> None:
        """Ends it early, and nobody waits for what follows."""
        self.wanted = False
        self._cancel()

    def tell(self, news: SignalInstance, *values: object) -> None:
        """The host's: something about it, for who waits."""
        if self.wanted:
            news.emit(*values)

    def end(self, result: SignalInstance, *values: object) -> None:
        """The host's: the last that is heard of it."""
        self.ended.emit()
        self.tell(result, *values)
        self.deleteLater()


class ModelHost(QObject):
    """Owns the host process. What it is asked returns a `Request`, which tells the rest."""

    def __init__(
        self, parent: QObject | None = None, command: Sequence[str] = HOST_COMMAND, outputs: Path | None = None
    ) -> None:
        """outputs: where runs are found by their ids; the usual place if not given."""
        super().__init__(parent)
        self._command = list(command)
        self._outputs = outputs
        self._process: QProcess | None = None
        self._ids = itertools.count(1)
        self._waiting: dict[int, Request] = {}
        self._cancelling: set[int] = set()
        self._partial = b""
        self._stderr = b""
        self._gave_up = False  # whether the window killed it
        self._silence = QElapsedTimer()  # since the host last said anything
        self._patience = QTimer(self, singleShot=True)  # of a cancellation
        self._patience.timeout.connect(self._give_up)

    @property
    def busy(self) -> bool:
        """Whether a request is unanswered."""
        return bool(self._waiting)

    def generate(self, model: str, prompt: str, how: Generation, top: int = 10) -> Request:
        """Asks for a continuation of `prompt`; `top` alternatives come with each token."""
        return self._send({"do": "generate", "model": model, "prompt": prompt, "top": top, **asdict(how)})

    def ask_next(self, model: str, prompt: str, top: int = 20, *, chat: bool = False) -> Request:
        """Asks only what would come next; in a chat, how the answer would begin."""
        return self._send({"do": "next", "model": model, "prompt": prompt, "top": top, "chat": chat})

    def open(self, model: str) -> Request:
        """Loads a model: a ModelAbout."""
        return self._send({"do": "open", "model": model})

    def tokenize(self, model: str, text: str, beginning: bool) -> Request:
        """Asks how a model's tokenizer cuts a text: a TokenizedPrompt."""
        return self._send({"do": "tokenize", "model": model, "text": text, "beginning": beginning})

    def texts(self, model: str, ids: Sequence[int]) -> Request:
        """Asks what tokens read like: a TokenizedPrompt."""
        return self._send({"do": "tokenize", "model": model, "ids": list(ids), "text": "", "beginning": False})

    def ask(self, model: str, question: str, values: Mapping[str, Any], out: Path) -> Request:
        """Asks one of the questions of `llmlab.inspection.questions`; the Path of an archive, `out`."""
        asked = {"question": question, "values": dict(values), "out": str(out)}
        return self._send({"do": "ask", "model": model, **asked})

    def compare(self, first: str, second: str, values: Mapping[str, Any], out: Path) -> Request:
        """Two models on one prompt: an archive at `out`."""
        return self._send({"do": "compare", "models": [first, second], "values": dict(values), "out": str(out)})

    def evolve(self, run: str, values: Mapping[str, Any], out: Path) -> Request:
        """One question along a run's checkpoints: an archive at `out`."""
        return self._send({"do": "evolve", "run": run, "values": dict(values), "out": str(out)})

    def change(self, model: str, out: Path) -> Request:
        """What fine-tuning changed in a model's base: an archive at `out`."""
        return self._send({"do": "change", "model": model, "out": str(out)})

    def preview(self, model: str, settings: Mapping[str, Any], seed: int, place: int) -> Request:
        """Asks how a model reads examples: a Preview, with the one at `place`. settings: the section `data`."""
        values = {"settings": dict(settings), "seed": seed, "place": place}
        return self._send({"do": "preview", "model": model, **values})

    def practice(self, model: str, seed: int, concept: str, without: Sequence[str], quick: bool = False) -> Request:
        """Asks for the next question about a model, or a preset for ""; a Question, or None when none is left.

        concept: only of that page; "" for any. without: kinds that were asked just now. quick: none is trained for.
        """
        values = {"seed": seed, "concept": concept, "without": list(without), "quick": quick}
        return self._send({"do": "practice", "model": model, **values})

    def batch(self, run: str, step: int) -> Request:
        """Asks for what a step of a run read: a tuple of BatchText, the highest loss first."""
        return self._send({"do": "batch", "run": run, "step": step})

    def shutdown(self) -> None:
        """Ends the process: asks, terminates, kills; returns when it is gone. Unanswered requests end silently."""
        process, self._process = self._process, None
        for request in self._forget():
            request.deleteLater()
        if process is None:
            return
        process.closeWriteChannel()
        end_process(process)

    def _send(self, values: dict[str, Any]) -> Request:
        number = next(self._ids)
        request = self._waiting[number] = Request(partial(self._cancel, number))
        if self._process is None:
            self._start()
        self._write({"id": number, **values})
        return request

    def _cancel(self, number: int) -> None:
        if number not in self._waiting or number in self._cancelling:
            return
        self._cancelling.add(number)
        self._write({"do": "cancel", "id": number})
        self._silence.start()
        if not self._patience.isActive():
            self._patience.start(_CANCEL_PATIENCE_MS)

    def _start(self) -> None:
        process = QProcess(self)
        environment = QProcessEnvironment.systemEnvironment()
        for name, value in host_environment().items():
            environment.insert(name, value)
        environment.insert("PYTHONUNBUFFERED", "1")
        environment.insert("PYTHONIOENCODING", "utf-8")
        if self._outputs is not None:
            environment.insert("LLMLAB_OUTPUTS", str(self._outputs))
        process.setProcessEnvironment(environment)
        process.readyReadStandardOutput.connect(self._read)
        process.readyReadStandardError.connect(self._read_stderr)
        process.finished.connect(self._ended)
        # Queued: whoever asks has the request before it can fail.
        process.errorOccurred.connect(self._error, Qt.ConnectionType.QueuedConnection)
        self._partial = self._stderr = b""
        self._gave_up = False
        self._process = process
        process.start(self._command[0], self._command[1:])

    def _write(self, values: dict[str, Any]) -> None:
        if self._process is not None:
            self._process.write(json.dumps(values, ensure_ascii=True).encode() + b"\n")

    def _read(self) -> None:
        if self._process is None:
            return
        self._silence.start()
        *lines, self._partial = (self._partial + bytes(self._process.readAllStandardOutput().data())).split(b"\n")
        for line in lines:
            self._answer(line)

    def _answer(self, line: bytes) -> None:
        """One line of the host. What is no answer to a waiting request (a library's print) is passed over.

        An answer that does not fit its request ends it with an error: no other may follow.
        """
        try:
            values = json.loads(line)
            number, event = values["id"], values["event"]
            if number not in self._waiting:
                return
        except (ValueError, KeyError, TypeError):
            return
        try:
            self._take(number, event, values)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            self._refuse(
                number, f"Its answer {event!r:.40} does not fit the question ({type(error).__name__}: {error})."
            )

    def _refuse(self, number: int, why: str) -> None:
        """Ends a request whose answer cannot be understood, and the host's work for it."""
        self._write({"do": "cancel", "id": number})
        request, cancelled = self._waiting[number], number in self._cancelling
        self._close(number)
        if cancelled:
            request.end(request.cancelled)
            return
        do = "If the lab was updated while this window was open, close the window and start it again."
        request.end(
            request.failed, LabError("The model's process gave an answer that the window cannot read.", why, do)
        )

    def _take(self, number: int, event: str, values: Mapping[str, Any]) -> None:
        """One event of a waiting request: everything is understood before anyone hears of it."""
        request = self._waiting[number]
        match event:
            case "loading":
                request.tell(request.progressed, LOADING)
            case "progress":
                request.tell(request.progressed, progress_from(values))
            case "token":
                request.tell(request.token, from_plain(WrittenToken, readable(values)))
            case "part":
                request.part.emit(Path(values["path"]))
            case "cancelled":
                self._close(number)
                request.end(request.cancelled)
            case "error":
                error = LabError(*(str(values.get(part) or "") for part in ("what", "why", "do")))
                self._close(number)
                request.end(request.failed, error)
            case _:
                answer = ANSWERS[event](values)
                self._close(number)
                request.end(request.answered, answer)

    def _read_stderr(self) -> None:
        if self._process is not None:
            self._stderr = (self._stderr + bytes(self._process.readAllStandardError().data()))[-_STDERR_KEPT:]

    def _error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:  # the one error after which `finished` does not come
            self._fail_all("The model's process could not be started.", f"{self._command[0]} cannot be run.")

    def _ended(self, code: int, status: QProcess.ExitStatus) -> None:
        self._read()
        self._read_stderr()
        if self._gave_up:
            seconds = _CANCEL_PATIENCE_MS // 1000
            why = f"The window ended it: {seconds} seconds after Cancel it had not answered."
            self._fail_all("The model's process was ended.", why, "Try again: a new process starts.")
            return
        lines = self._stderr.decode(errors="replace").strip().splitlines()
        crashed = status == QProcess.ExitStatus.CrashExit
        why = f"It was killed by signal {code}." if crashed else f"It ended with code {code}."
        if lines:
            why += f" Its last line: {lines[-1].strip()[:300]}"
        self._fail_all("The model's process has ended.", why)

    def _fail_all(
        self,
        what: str,
        why: str,
        do: str = "Try again: a new process starts. If memory ran out, choose a smaller model.",
    ) -> None:
        """No answer comes any more: what was cancelled has ended as it should, and the rest has failed."""
        process, self._process = self._process, None
        if process is not None:
            process.deleteLater()
        cancelled = {self._waiting[number] for number in self._cancelling}
        error = LabError(what, why, do)
        for request in self._forget():
            if request in cancelled:
                request.end(request.cancelled)
            else:
                request.end(request.failed, error)

    def _give_up(self) -> None:
        """Kills a host that is silent while a cancellation waits; `finished` then ends what was waiting.

        One that talks is alive: the cancelled request waits behind another one.
        """
        if not self._cancelling or self._process is None:
            return
        if self._silence.elapsed() >= _CANCEL_PATIENCE_MS:
            self._gave_up = True
            self._process.kill()
        else:
            self._patience.start(_CANCEL_PATIENCE_MS)

    def _close(self, number: int) -> None:
        del self._waiting[number]
        self._cancelling.discard(number)

    def _forget(self) -> list[Request]:
        """Waits for nothing any more; returns what was unanswered."""
        waiting = list(self._waiting.values())
        self._waiting.clear()
        self._cancelling.clear()
        self._patience.stop()
        self._partial = b""
        return waiting
