"""Progress of work that a command does itself: one line on the terminal, with the time left."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmlab.progress import Progress, quiet

if TYPE_CHECKING:
    from rich.progress import TaskID


@contextlib.contextmanager
def terminal_progress(show: bool = True) -> Iterator[Progress]:
    """What to hand to long work. Quiet without a terminal on stderr; Ctrl-C reaches the work as KeyboardInterrupt."""
    if not (show and sys.stderr.isatty()):
        yield quiet
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
