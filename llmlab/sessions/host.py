"""The model host: `python -m llmlab.sessions.host`, a process that holds a model and answers the window.

The window never imports torch and must survive a crash here. Requests come as JSON lines on stdin, answers go
as JSON lines to stdout; each answer carries its request's id.

    {"id": 1, "do": "generate", "run": FOLDER, "checkpoint": NAME or null, "prompt": TEXT, "tokens": N,
     "temperature": T, "top_k": K, "seed": S, "top": N}
        -> loading, token (text, probability, top: [[text, p], ...]) ..., done (seconds)
    {"id": 2, "do": "next", "run": FOLDER, "checkpoint": NAME or null, "prompt": TEXT, "top": N}
        -> loading, next (top, entropy in nats)
    {"do": "cancel", "id": 1}
        -> cancelled
    Any of them may answer error (what, why, do).
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from llmlab.errors import LabError
from llmlab.runs.checkpoints import Checkpoint, list_checkpoints, select
from llmlab.runs.folder import RunFolder
from llmlab.sessions.checkpoint import OpenCheckpoint, open_checkpoint


class Host:
    """Answers one request after the other; keeps the model of the last one open."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._requests: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._cancelled: set[int] = set()
        self._open: OpenCheckpoint | None = None

    def listen(self, lines: Iterable[str | bytes]) -> None:
        """Reads requests until the input ends; meant for a thread, so that a cancel is heard during an answer.

        Whatever a line holds, the next one is heard.
        """
        for line in lines:
            try:
                request = json.loads(line)
                if request["do"] == "cancel":
                    self._cancelled.add(int(request["id"]))
                else:
                    self._requests.put(request | {"id": int(request["id"])})
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                print(f"Not a request: {line[:200]!r}", file=sys.stderr)
        self._requests.put(None)

    def answer_all(self) -> None:
        """Answers until the input has ended."""
        while (request := self._requests.get()) is not None:
            number = request["id"]
            try:
                if number in self._cancelled:
                    self._send(number, "cancelled")
                else:
                    self._answer(number, request)
            except LabError as error:
                self._send(number, "error", **error.as_dict())
            except Exception as error:  # whatever a hostile request or checkpoint causes: the host lives on
                traceback.print_exc()
                self._send(number, "error", what="The model could not answer.", why=f"{error}", do="")
            self._cancelled.discard(number)

    def _answer(self, number: int, request: dict[str, Any]) -> None:
        begin = time.perf_counter()
        model = self._model(number, RunFolder(Path(request["run"])), request.get("checkpoint"))
        top = int(request["top"])
        if request["do"] == "next":
            likeliest, entropy = model.next(str(request["prompt"]), top)
            self._send(number, "next", top=likeliest, entropy=entropy)
            return
        if request["do"] != "generate":
            raise LabError(f"The model host cannot {request['do']!r}.")
        written = model.write(
            str(request["prompt"]),
            int(request["tokens"]),
            temperature=float(request["temperature"]),
            top_k=int(request["top_k"]),
            seed=int(request["seed"]),
            top=top,
        )
        for token in written:
            if number in self._cancelled:
                self._send(number, "cancelled")
                return
            self._send(number, "token", text=token.text, probability=token.probability, top=token.top)
        self._send(number, "done", seconds=time.perf_counter() - begin)

    def _model(self, number: int, run: RunFolder, name: str | None) -> OpenCheckpoint:
        wanted = _find(run, name)
        if self._open is None or (self._open.checkpoint.path, self._open.checkpoint.time) != (wanted.path, wanted.time):
            self._send(number, "loading")
            self._open = None  # one model in memory, not two
            self._open = open_checkpoint(run, wanted)
        return self._open

    def _send(self, number: int, event: str, **values: Any) -> None:
        self._output.write(json.dumps({"id": number, "event": event, **values}) + "\n")
        self._output.flush()


def _find(run: RunFolder, name: str | None) -> Checkpoint:
    if name is None:
        return select(run.checkpoints, "latest")
    for checkpoint in list_checkpoints(run.checkpoints):
        if checkpoint.name == name:
            return checkpoint
    raise LabError(f"{run.id} has no checkpoint {name}.", "It may have been deleted.", "Choose another one.")


def main() -> None:
    """Serves stdin until it ends."""
    host = Host(sys.stdout)
    threading.Thread(target=host.listen, args=(sys.stdin.buffer,), daemon=True).start()
    host.answer_all()


if __name__ == "__main__":
    main()
