"""Writing files so that a reader, a crash or a full disk never meets half of one; reading only what is a file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, quiet

# No write of a small file takes so long; after it, its writer is gone.
_LITTER_SECONDS = 60.0
# Nor does making a folder, with copies of the largest checkpoint, take so long.
_FOLDER_LITTER_SECONDS = 24 * 3600.0
# Whoever holds a lock reads and writes small files, or makes a run's folder; and how often someone who waits for one
# looks whether that is still wanted.
_LOCK_SECONDS = 30.0
_LOCK_LOOK_SECONDS = 0.2
# safetensors itself refuses larger headers (its MAX_HEADER_SIZE).
_LARGEST_HEADER = 100_000_000
# What can stand under a file's name and is none: to read it is to wait for a writer, or to read without end.
_NO_FILES = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def is_disk_full(error: OSError) -> bool:
    """Whether an error means that there is no room: to free some helps, and nothing else does."""
    # Rust's libraries give the system's number only in their text.
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error)


def kind_of_no_file(path: Path) -> str | None:
    """A named pipe, a socket or a device; None for a file or a folder. OSError when it cannot be looked at."""
    mode = path.stat().st_mode
    return next((kind for is_kind, kind in _NO_FILES if is_kind(mode)), None)


def require_file(path: Path) -> None:
    """OSError for a named pipe, a socket or a device: whoever opens one waits for a writer, or reads without end.

    Asked before every file that a person or a model names. Folders are left to the system, which refuses to read them.
    """
    if (kind := kind_of_no_file(path)) is not None:
        raise OSError(errno.EINVAL, f"It is {kind}, not a file", str(path))


def open_file(path: Path) -> BinaryIO:
    """A file's bytes, from its beginning. OSError like `require_file` and when it cannot be opened."""
    require_file(path)
    return path.open("rb")


def safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its tensors begin: length (8 bytes, little-endian), then JSON.

    OSError when it cannot be read; ValueError when it does not begin like one.
    """
    size = path.stat().st_size
    with open_file(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise ValueError("it does not begin like a safetensors file")
        header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header, 8 + length


def sha256_of(path: Path, progress: Progress = quiet) -> str:
    """Hex digest of a file's bytes, read in blocks of 1 MiB. progress: in bytes."""
    digest, done = hashlib.sha256(), 0
    with open_file(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
            done += len(block)
            progress(f"Reading {path.name}", done, 0)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(
    path: Path,
    what: str,
    progress: Progress = quiet,
    *,
    seconds: float | None = None,
    do: str = "Nothing was saved. Try again.",
) -> Iterator[None]:
    """Holds a lock file, which the system frees when a process ends. what: is held. seconds: to wait for it.

    LabError when another program holds it to their end; OSError, and what `progress` raises while it waits.
    """
    import filelock  # seldom needed, and 25 ms of every start

    seconds = _LOCK_SECONDS if seconds is None else seconds
    lock, end = filelock.FileLock(path), time.monotonic() + seconds
    while not lock.is_locked:
        try:
            lock.acquire(timeout=min(_LOCK_LOOK_SECONDS, seconds))
        except filelock.Timeout as error:
            if time.monotonic() >= end:
                raise LabError(f"Another program holds {what}.", f"It does not let go of {path}.", do) from error
            progress("Waiting for another program", 0, 0)
    try:
        yield
    finally:
        lock.release()


def fsync_file(path: Path) -> None:
    """Forces a file's bytes to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def fsync_folder(path: Path) -> None:
    """Forces a folder's entries to the disk (a no-op on Windows, which cannot open folders)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replaces `path` by `data`: a reader sees the old bytes or the new, never a mixture.

    durable: also survive a power cut (fsync). Off for what is rewritten every second.
    Raises OSError (a full disk, say) with the old file intact and no litter.
    """
    with replaced(path, durable=durable) as file:
        file.write(data)


@contextlib.contextmanager
def replaced(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """`write_atomic` for what is written piece by piece."""
    staging = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with staging.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(staging, path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise
    if durable:
        fsync_folder(path.parent)


def clear_litter(folder: Path) -> None:
    """Removes what writers that were killed left in `folder`: staging files of `write_atomic`, over a minute old.

    A younger one may belong to a writer that lives.
    """
    for path in folder.glob(".tmp-*"):
        with contextlib.suppress(OSError):
            if path.is_file() and abs(time.time() - path.stat().st_mtime) > _LITTER_SECONDS:
                path.unlink()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that has its name only when all of it is there: filled under another name beside it, then renamed.

    Whoever is killed in between leaves the name free. Raises OSError, FileExistsError among them, with nothing left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_half_made(path.parent)
    staging = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex[:8]}")
    staging.mkdir()
    try:
        yield staging
        if path.exists():  # an empty folder would be replaced
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.rename(staging, path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    fsync_folder(path.parent)


def remove_folder(path: Path, progress: Progress = quiet) -> None:
    """Deletes a folder: first out of sight in one rename, then file by file. Of a link, the link alone.

    Cancelled in between it is gone all the same; `new_folder` clears what is left a day later. Raises OSError with
    what could not be deleted under its old name.
    """
    if path.is_symlink():
        path.unlink()
        return
    aside = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex[:8]}")
    with contextlib.suppress(OSError):
        os.utime(path)  # its day begins now: `new_folder` would take an old one away meanwhile
    os.replace(path, aside)
    try:
        files = [file for file in aside.rglob("*") if file.is_symlink() or not file.is_dir()]
        for number, file in enumerate(files):
            progress(f"Deleting {path.name}", number, len(files))
            file.unlink(missing_ok=True)
        shutil.rmtree(aside)
    except OSError:
        os.replace(aside, path)
        raise


def move_to_trash(path: Path) -> bool:
    """Whether the system's trash took a file or a folder."""
    from send2trash import send2trash  # seldom needed

    with contextlib.suppress(OSError):
        send2trash(path)
        return True
    return False


def _clear_half_made(parent: Path) -> None:
    """Removes what `new_folder` left where its process was killed, over a day old: a younger one may still grow."""
    for path in parent.glob(".tmp-*"):
        with contextlib.suppress(OSError):
            if path.is_dir() and abs(time.time() - path.stat().st_mtime) > _FOLDER_LITTER_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replaces `path` by `value` as indented JSON; NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, text.encode(), durable=durable)


def parse_json(text: str | bytes) -> Any:
    """What JSON says. ValueError when it is none, also where it nests deeper than Python follows (RecursionError)."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def is_unicode(text: str) -> bool:
    """False for half of a surrogate pair, which JSON can spell and UTF-8 cannot."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`; None when it is missing, unreadable, damaged, or not an object."""
    try:
        with open_file(path) as file:
            value = parse_json(file.read().decode())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
