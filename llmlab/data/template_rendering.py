"""Renders chat templates, which are untrusted programs, in a process of their own with limits of time and memory.

transformers runs them in a sandbox, which keeps them from files and from Python's insides, but neither from nested
loops without end nor from texts without end; and a thread cannot be stopped from outside. The process renders with
transformers itself, so what it writes is what `apply_chat_template` writes. One process serves all templates of this
one, is started at the first, and ends with it. A conversation costs one line there and one back.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, BinaryIO

import psutil

from llmlab.core.errors import LabError
from llmlab.core.paths import module_command

# Of one text; templates of known families take less than a thousandth.
_SECONDS = 10.0
# Of the process, which takes 0.1 GB by itself; and of one text, twice the longest line that is read as an example.
_MOST_BYTES = 1 << 30
_LONGEST_TEXT = 128 << 20
# How often the memory of the process is looked at while an answer is waited for.
_LOOK_SECONDS = 0.05


def render(template: str, calls: Sequence[Mapping[str, Any]]) -> list[str]:
    """A template's text for each call: `conversation` (turns with role and content) and the template's variables.

    LabError with the template's own words when it refuses one, and when it takes too long or too much memory; one that
    did is not run again.
    """
    if (said := _condemned.get(template)) is not None:
        raise LabError(**said)  # anew: one that is raised again and again keeps all that was done where it was
    with _lock:
        try:
            answers = _process().ask({"template": template, "seconds": _SECONDS, "calls": list(calls)})
        except LabError as error:
            _condemned[template] = error.as_dict()
            raise
    if isinstance(answers, str):
        raise LabError(f"The model's chat template refuses it: {answers.rstrip('.')}.")
    return [str(answer) for answer in answers]


def rendered(template: str, call: Mapping[str, Any]) -> str:
    """The text of one call in this process: for a template that can be trusted."""
    from transformers.utils.chat_template_utils import render_jinja_template

    values = dict(call)
    texts, _ = render_jinja_template([values.pop("conversation")], chat_template=template, **values)
    return str(texts[0])


_lock = threading.Lock()
_condemned: dict[str, dict[str, str]] = {}
_running: _Process | None = None


def running() -> _Process | None:
    """The process that renders, if it was started and lives."""
    return _running if _running is not None and _running.alive else None


def _process() -> _Process:
    global _running
    if running() is None:
        _running = _Process()
        atexit.register(_running.end)
    assert _running is not None
    return _running


class _Process:
    """The other process, as this one sees it. A fork of this one has no part in it: its pipes are read here."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            module_command("llmlab.data.template_rendering"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def alive(self) -> bool:
        return self._owner == os.getpid() and self._process.poll() is None

    @property
    def process_id(self) -> int:
        return self._process.pid

    def ask(self, request: Mapping[str, Any]) -> Any:
        """The answer to a request. LabError when the process ended over it, or was ended for the memory it took."""
        assert self._process.stdin is not None
        why, began = "", time.monotonic()
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            about = psutil.Process(self._process.pid)
            while True:
                try:
                    line = self._lines.get(timeout=_LOOK_SECONDS)
                    break
                except queue.Empty:
                    if about.memory_info().rss > _MOST_BYTES:
                        why = f"It took more than {_MOST_BYTES >> 30} GiB of memory."
                        self._process.kill()
        except (OSError, psutil.Error):
            line = b""
        if line:
            return json.loads(line)
        self.end()
        if not why:
            late = time.monotonic() - began >= _SECONDS
            why = f"It was not done after {_SECONDS:g} seconds." if late else "The process that renders it ended."
        raise LabError(
            "The model's chat template cannot be used.", why, "Remove it from the model's folder, or take another copy."
        )

    def end(self) -> None:
        """Ends it, whatever it does. At the end of a fork of this process, nothing."""
        if self._owner != os.getpid():
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what was not yet written finds no reader
                pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):  # it was closed
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put(b"")


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """The other process: a line is a request, or the end of it; what takes too long ends the process from inside."""
    import_module("transformers.utils.chat_template_utils")  # seconds on a slow disk, and no template's own
    for line in requests:
        request = json.loads(line)
        try:
            answer: Any = []
            for call in request["calls"]:
                # Of C, so that it also ends one long operation; and ends this process when its parent is gone.
                faulthandler.dump_traceback_later(request["seconds"], exit=True)
                text = rendered(request["template"], call)
                if len(text) > _LONGEST_TEXT:
                    raise ValueError(f"it writes {len(text):,} characters")
                answer.append(text)
        except Exception as error:  # a template refuses in its own ways
            answer = " ".join(str(error).split())[:200] or type(error).__name__
        faulthandler.cancel_dump_traceback_later()
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
