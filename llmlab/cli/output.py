"""What a command says: exit codes, JSON on stdout, remarks on stderr, and pipes whose reader has gone."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import Any

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


def print_json(value: Any) -> None:
    """One JSON value on stdout, indented; NaN and infinity are refused (ValueError)."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def say(text: str) -> None:
    """A remark that is not the command's output, so that piped output stays clean."""
    with contextlib.suppress(OSError):  # the terminal may be gone, which is no reason to stop what goes on
        print(text, file=sys.stderr)


def prepare_streams(as_json: bool) -> None:
    """JSON is UTF-8 everywhere; a terminal that lacks a character shows another one instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if as_json and stream is sys.stdout:
            stream.reconfigure(encoding="utf-8", errors="replace")  # a path need not be text
        else:
            stream.reconfigure(errors="replace")


def silence_stdout() -> None:
    """Sends what may still be printed nowhere, after the reader of a pipe has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
