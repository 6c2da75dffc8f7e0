"""Progress of a command's work: a live line on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmlab.cli.output import say
from llmlab.core.progress import Progress, quiet

if TYPE_CHECKING:
    from rich.progress import TaskID


# Where nothing can be redrawn, a line about what moves at most this often.
_LINE_SECONDS = 10.0


class Pace:
    """Tells when the next line is due, of a log, a pipe, or a terminal that cannot redraw."""

    def __init__(self) -> None:
        self._last: float | None = None

    def due(self) -> bool:
        """Whether a line may be printed now: the first at once, every other a while after the one before."""
        now = time.monotonic()
        if self._last is not None and now - self._last < _LINE_SECONDS:
            return False
        self._last = now
        return True


@contextlib.contextmanager
def terminal_progress(show: bool = True) -> Iterator[Progress]:
    """What to hand to long work; Ctrl-C reaches the work as KeyboardInterrupt.

    Without a terminal on stderr, quick work is quiet there, and long work prints a line now and then.
    """
    if not show:
        yield quiet
        return
    if not sys.stderr.isatty():
        pace = Pace()
        pace.due()  # not at once

        def say_now_and_then(what: str, done: float, total: float) -> None:
            if pace.due():
                say(f"{what} ({done / total:.0%})" if total else f"{what} ...")

        yield say_now_and_then
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(compact=True))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: float, total: float) -> None:
            if what not in tasks:  # the work has come to its next part
                for task in tasks.values():
                    bar.remove_task(task)
                tasks.clear()
                tasks[what] = bar.add_task(what, total=total or None)
            bar.update(tasks[what], completed=done, total=total or None)

        yield tell
