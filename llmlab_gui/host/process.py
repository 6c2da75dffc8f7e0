"""The window's link to the process that holds a model: requests out, answers in, never a wait.

The model lives in `python -m llmlab.jobs.model_host`, started by the first request. Both sides speak JSON, one
object a line. The window hears of everything through signals, and a host that dies is started again by the next
request. Models are named by references, as everywhere in the lab: `RUN@150`, a folder, a file, `BASE+ADAPTER`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import QElapsedTimer, QObject, QProcess, QProcessEnvironment, Qt, QTimer, Signal

from llmlab.core.errors import LabError
from llmlab.core.paths import module_command
from llmlab.data.example_preview import preview_from
from llmlab_gui.host.about import about_from
from llmlab_gui.host.messages import (
    Generation,
    NextToken,
    Token,
    alternatives_from,
    cut_from,
    progress_from,
    rows_from,
    text_of,
)

HOST_COMMAND = tuple(module_command("llmlab.jobs.model_host"))
# Enough for a Python traceback; the host's stderr is otherwise only noise of libraries.
_STDERR_KEPT = 8192
# A host that says nothing for so long while a cancellation waits is stuck: importing torch and loading a large
# checkpoint from a slow disk stay below it.
_CANCEL_PATIENCE_MS = 15_000


class ModelHost(QObject):
    """Owns the host process. Every request returns its id; signals carry that id first.

    A request ends with exactly one of `done`, `next_token`, `opened`, `tokens`, `answered`, `models`, `previewed`,
    `cancelled` and `failed`.
    """

    loading = Signal(int)
    progress = Signal(int, object)  # HostProgress
    opened = Signal(int, object)  # ModelAbout
    tokens = Signal(int, object)  # CutPrompt
    answered = Signal(int, object, float)  # the archive's Path, and seconds that it took
    models = Signal(int, list)  # list[ModelRow]
    previewed = Signal(int, object)  # Preview
    token = Signal(int, object)  # Token
    next_token = Signal(int, object)  # NextToken
    done = Signal(int, float)  # seconds that it took
    cancelled = Signal(int)
    failed = Signal(int, object)  # LabError

    def __init__(
        self, parent: QObject | None = None, command: Sequence[str] = HOST_COMMAND, outputs: Path | None = None
    ) -> None:
        """outputs: where runs are found by their ids; the usual place if not given."""
        super().__init__(parent)
        self._command = list(command)
        self._outputs = outputs
        self._process: QProcess | None = None
        self._ids = itertools.count(1)
        self._waiting: set[int] = set()
        self._cancelling: set[int] = set()
        self._partial = b""
        self._stderr = b""
        self._silence = QElapsedTimer()  # since the host last said anything
        self._patience = QTimer(self)  # of a cancellation
        self._patience.setSingleShot(True)
        self._patience.timeout.connect(self._give_up)

    @property
    def busy(self) -> bool:
        """Whether a request is unanswered."""
        return bool(self._waiting)

    def generate(self, model: str, prompt: str, how: Generation, top: int = 10) -> int:
        """Asks for a continuation of `prompt`; `top` alternatives come with each token."""
        options = {"tokens": how.tokens, "temperature": how.temperature, "top_k": how.top_k, "seed": how.seed}
        options["chat"] = how.chat
        return self._send({"do": "generate", "model": model, "prompt": prompt, "top": top, **options})

    def ask_next(self, model: str, prompt: str, top: int = 20, *, chat: bool = False) -> int:
        """Asks only what would come next; in a chat, how the answer would begin."""
        return self._send({"do": "next", "model": model, "prompt": prompt, "top": top, "chat": chat})

    def open(self, model: str) -> int:
        """Loads a model: `progress` as it goes, then `opened`."""
        return self._send({"do": "open", "model": model})

    def tokenize(self, model: str, text: str, beginning: bool) -> int:
        """Asks how a model's tokenizer cuts a text: `tokens`."""
        return self._send({"do": "tokenize", "model": model, "text": text, "beginning": beginning})

    def texts(self, model: str, ids: Sequence[int]) -> int:
        """Asks what tokens read like: `tokens`."""
        return self._send({"do": "tokenize", "model": model, "ids": list(ids), "text": "", "beginning": False})

    def ask(self, model: str, question: str, values: Mapping[str, Any], out: Path) -> int:
        """Asks one of the questions of `llmlab.inspection.questions`; `answered` when the archive is at `out`."""
        asked = {"question": question, "values": dict(values), "out": str(out)}
        return self._send({"do": "ask", "model": model, **asked})

    def compare(self, first: str, second: str, values: Mapping[str, Any], out: Path) -> int:
        """Two models on one prompt: `answered`."""
        return self._send({"do": "compare", "models": [first, second], "values": dict(values), "out": str(out)})

    def evolve(self, run: str, values: Mapping[str, Any], out: Path) -> int:
        """One question along a run's checkpoints: `answered`."""
        return self._send({"do": "evolve", "run": run, "values": dict(values), "out": str(out)})

    def change(self, model: str, out: Path) -> int:
        """What fine-tuning changed in a model's base: `answered`."""
        return self._send({"do": "change", "model": model, "out": str(out)})

    def list_models(self) -> int:
        """Asks what is here and can be opened: `models`."""
        return self._send({"do": "models"})

    def preview(self, model: str, settings: Mapping[str, Any], seed: int, place: int) -> int:
        """Asks how a model reads examples: `previewed`, with the one at `place`. settings: the section `data`."""
        values = {"settings": dict(settings), "seed": seed, "place": place}
        return self._send({"do": "preview", "model": model, **values})

    def cancel(self, request: int) -> None:
        """Ends a request early; `cancelled` (or `done`, if it was quicker) follows."""
        if request not in self._waiting or request in self._cancelling:
            return
        self._cancelling.add(request)
        self._write({"do": "cancel", "id": request})
        self._silence.start()
        if not self._patience.isActive():
            self._patience.start(_CANCEL_PATIENCE_MS)

    def shutdown(self) -> None:
        """Ends the process: asks, terminates, kills; returns when it is gone. Unanswered requests end silently."""
        process, self._process = self._process, None
        self._forget()
        if process is None:
            return
        process.closeWriteChannel()
        process.terminate()
        if not process.waitForFinished(1500):
            process.kill()
            process.waitForFinished(3000)
        process.deleteLater()

    def _send(self, values: dict[str, Any]) -> int:
        request = next(self._ids)
        self._waiting.add(request)
        if self._process is None:
            self._start()
        self._write({"id": request, **values})
        return request

    def _start(self) -> None:
        process = QProcess(self)
        environment = QProcessEnvironment.systemEnvironment()
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            environment.insert(name, "1")  # the host takes more where they are free
        environment.insert("PYTHONUNBUFFERED", "1")
        environment.insert("PYTHONIOENCODING", "utf-8")
        if self._outputs is not None:
            environment.insert("LLMLAB_OUTPUTS", str(self._outputs))
        process.setProcessEnvironment(environment)
        process.readyReadStandardOutput.connect(self._read)
        process.readyReadStandardError.connect(self._read_stderr)
        process.finished.connect(self._ended)
        # Queued: a request has its id before it can fail.
        process.errorOccurred.connect(self._error, Qt.ConnectionType.QueuedConnection)
        self._partial = self._stderr = b""
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
        """One line of the host. What is no answer to a waiting request (a library's print) is passed over."""
        try:
            values = json.loads(line)
            request = values["id"]
            if request not in self._waiting:
                return
            self._take(request, values["event"], values)
        except (ValueError, KeyError, TypeError):
            return

    def _take(self, request: int, event: str, values: Mapping[str, Any]) -> None:
        """One event of a waiting request: everything is understood before anyone hears of it."""
        match event:
            case "loading":
                self.loading.emit(request)
            case "progress":
                self.progress.emit(request, progress_from(values))
            case "token":
                alternatives = alternatives_from(values.get("top", ()))
                self.token.emit(request, Token(text_of(values["text"]), float(values["probability"]), alternatives))
            case "next":
                answer = NextToken(alternatives_from(values["top"]), float(values["entropy"]))
                self._close(request)
                self.next_token.emit(request, answer)
            case "opened":
                about = about_from(values["about"])
                self._close(request)
                self.opened.emit(request, about)
            case "tokens":
                cut = cut_from(values)
                self._close(request)
                self.tokens.emit(request, cut)
            case "answered":
                path, seconds = Path(values["path"]), float(values.get("seconds", 0.0))
                self._close(request)
                self.answered.emit(request, path, seconds)
            case "models":
                rows = rows_from(values)
                self._close(request)
                self.models.emit(request, rows)
            case "previewed":
                preview = preview_from(values["preview"])
                self._close(request)
                self.previewed.emit(request, preview)
            case "done":
                seconds = float(values.get("seconds", 0.0))
                self._close(request)
                self.done.emit(request, seconds)
            case "cancelled":
                self._close(request)
                self.cancelled.emit(request)
            case "error":
                error = LabError(*(str(values.get(part) or "") for part in ("what", "why", "do")))
                self._close(request)
                self.failed.emit(request, error)

    def _read_stderr(self) -> None:
        if self._process is not None:
            self._stderr = (self._stderr + bytes(self._process.readAllStandardError().data()))[-_STDERR_KEPT:]

    def _error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:  # the one error after which `finished` does not come
            self._fail_all("The model's process could not be started.", f"{self._command[0]} cannot be run.")

    def _ended(self, code: int, status: QProcess.ExitStatus) -> None:
        self._read()
        self._read_stderr()
        lines = self._stderr.decode(errors="replace").strip().splitlines()
        crashed = status == QProcess.ExitStatus.CrashExit
        why = f"It was killed by signal {code}." if crashed else f"It ended with code {code}."
        if lines:
            why += f" Its last words: {lines[-1].strip()[:300]}"
        self._fail_all("The process that holds the model is gone.", why)

    def _fail_all(self, what: str, why: str) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.deleteLater()
        waiting = sorted(self._waiting)
        self._forget()
        error = LabError(what, why, "Ask again: a new process starts. A smaller model may help if memory ran out.")
        for request in waiting:
            self.failed.emit(request, error)

    def _give_up(self) -> None:
        """Kills a host that is silent while a cancellation waits; `finished` then fails what was waiting.

        One that talks is alive: the cancelled request waits behind another one.
        """
        if not self._cancelling or self._process is None:
            return
        if self._silence.elapsed() >= _CANCEL_PATIENCE_MS:
            self._process.kill()
        else:
            self._patience.start(_CANCEL_PATIENCE_MS)

    def _close(self, request: int) -> None:
        self._waiting.discard(request)
        self._cancelling.discard(request)

    def _forget(self) -> None:
        self._waiting.clear()
        self._cancelling.clear()
        self._patience.stop()
        self._partial = b""
