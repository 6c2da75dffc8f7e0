"""What a command says: exit codes, JSON on stdout, remarks and how far it is on stderr, pipes whose reader is gone."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from llmlab.cli.text import duration
from llmlab.core.progress import Every, Progress, TimeLeft, quiet

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
# Where nothing can be redrawn, a line about what moves at most this often.
_LINE_SECONDS = 10.0


def print_json(value: Any) -> None:
    """One JSON value on stdout, indented; NaN and infinity are refused (ValueError)."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_answer(args: argparse.Namespace, value: Any, lines: Iterable[str]) -> int:
    """Prints what a command found: `value` with --json, else the lines, each as it is made. -> its exit code."""
    if args.json:
        print_json(value)
    else:
        for line in lines:
            print(line)
    return DONE


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


def now_and_then() -> Every:
    """When the next line is due, of a log, a pipe, or a terminal that cannot redraw: the first at once."""
    return Every(_LINE_SECONDS)


def can_redraw() -> bool:
    """Whether stdout is a terminal on which a line can move."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


class MovingLine:
    """A line on stdout or stderr that is drawn anew: where something is, a bar, and words; others scroll above it."""

    def __init__(self, *, on_stderr: bool = False) -> None:
        self._on_stderr = on_stderr
        self._bar: Bar | None = None

    def move(self, place: str, words: str, done: float, total: float | None) -> None:
        """Draws it; it appears with the first call. total: None for a bar that only shows that something goes on."""
        if self._bar is None:
            from rich.console import Console  # 0.2 s: only for those who see it
            from rich.progress import BarColumn, Progress, TextColumn

            where = TextColumn("{task.fields[place]}", markup=False)
            doing = TextColumn("{task.description}", markup=False)
            columns, console = (where, BarColumn(bar_width=24), doing), Console(stderr=self._on_stderr)
            self._bar = Progress(*columns, console=console, refresh_per_second=8, transient=True)
            self._bar.add_task(words, total=None, place="")
            self._bar.start()
        self._bar.tasks[0].total = total  # `update` would keep the one before where there is none
        self._bar.update(self._bar.task_ids[0], description=words, completed=done, place=place)

    def above(self, line: str, style: str = "") -> None:
        """Prints a line above it, or where it would be."""
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._bar is not None:
            bar, self._bar = self._bar, None
            bar.stop()


@contextlib.contextmanager
def terminal_progress(show: bool = True) -> Iterator[Progress]:
    """What to hand to long work; Ctrl-C reaches the work as KeyboardInterrupt.

    Without a terminal on stderr, quick work is quiet there, and long work prints a line now and then.
    """
    if not show:
        yield quiet
        return
    left, redraws = TimeLeft(), sys.stderr.isatty()
    line, lines = MovingLine(on_stderr=True), Every(_LINE_SECONDS, at_once=False)

    def tell(what: str, done: float, total: float) -> None:
        seconds = left.seconds(what, done, total)
        rest = "" if seconds is None else f"{duration(seconds)} left"
        if redraws:
            line.move("", f"{what}  {rest}", done, total or None)
        elif lines.due():
            say(f"{what} ({100 * done / total:.0f} %{rest and f', {rest}'})" if total else f"{what} ...")

    try:
        yield tell
    finally:
        line.close()
