"""One process at a time for each entry of the cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from llmlab.core.errors import LabError
from llmlab.core.progress import Progress

_POLL_SECONDS = 0.1


@contextmanager
def cache_lock(target: Path, progress: Progress) -> Iterator[None]:
    """Holds the lock of a cache entry against other processes while it is made; says so while it waits.

    Raises Cancelled, and LabError when the cache cannot be written: for the lock, or by what is done meanwhile.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(FileLock(target.with_name(f"{target.name}.lock")), progress):
            yield
    except OSError as error:
        raise LabError(
            "The cache could not be written.",
            f"{error.strerror or error} ({target.parent}).",
            "Make room there, set LLMLAB_CACHE to a folder that can be written, or lower data.max_tokens.",
        ) from error


@contextmanager
def _locked(lock: BaseFileLock, progress: Progress) -> Iterator[None]:
    while True:
        try:
            lock.acquire(timeout=_POLL_SECONDS)
            break
        except Timeout:
            progress("Waiting for another run that prepares the same text", 0, 0)
    try:
        yield
    finally:
        lock.release()
