"""One process at a time for each entry of the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from llmlab.core.errors import Cancelled, LabError

Progress = Callable[[str, float], None]  # what is being done, and the share of it that is done, 0 to 1
IsCancelled = Callable[[], bool]

_POLL_SECONDS = 0.1


@contextmanager
def cache_lock(target: Path, progress: Progress, cancelled: IsCancelled) -> Iterator[None]:
    """Holds the lock of a cache entry against other processes while it is made; says so while it waits.

    Raises Cancelled, and LabError when the cache cannot be written: for the lock, or by what is done meanwhile.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(FileLock(target.with_name(f"{target.name}.lock")), progress, cancelled):
            yield
    except OSError as error:
        raise LabError(
            "The cache could not be written.",
            f"{error.strerror or error} ({target.parent}).",
            "Make room there, set LLMLAB_CACHE to a folder that can be written, or lower data.max_tokens.",
        ) from error


@contextmanager
def _locked(lock: BaseFileLock, progress: Progress, cancelled: IsCancelled) -> Iterator[None]:
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
