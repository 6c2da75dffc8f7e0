"""One process at a time for each entry of the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from llmlab.errors import Cancelled

Progress = Callable[[str, float], None]  # what is being done, and the share of it that is done, 0 to 1
IsCancelled = Callable[[], bool]

_POLL_SECONDS = 0.1


@contextmanager
def cache_lock(target: Path, progress: Progress, cancelled: IsCancelled) -> Iterator[None]:
    """Holds the lock of a cache entry against other processes; says so while it waits. Raises Cancelled."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target.with_name(f"{target.name}.lock"))
    while True:
        try:
            lock.acquire(timeout=_POLL_SECONDS)
            break
        except Timeout:
            progress("Waiting for another run that prepares the same text", 0.0)
            if cancelled():
                raise Cancelled from None
    try:
        yield
    finally:
        lock.release()
