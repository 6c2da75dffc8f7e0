"""A folder at which one worker process works, a run's or an experiment's: what both have, and whether it lives."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import psutil

from llmlab.core.files import write_json
from llmlab.core.records import read_record, to_plain

if TYPE_CHECKING:
    import filelock

T = TypeVar("T")
# A worker has no process until it begins; its launcher gets so long before it counts as interrupted.
LAUNCH_SECONDS = 60.0
# A worker that was just killed may hold its lock for a moment until the system has taken it down.
_LOCK_SECONDS = 5.0


class NamesProcess(Protocol):
    """A status: it names the process that works. pid_start: Unix seconds, since process ids are used again."""

    @property
    def pid(self) -> int | None: ...

    @property
    def pid_start(self) -> float | None: ...


@dataclass(frozen=True)
class WorkerFolder:
    """Such a folder. Cheap to make; reads nothing until asked."""

    path: Path

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def full_name(self) -> str:
        """`TRACK/ID`: names a run also where another track has one of that id."""
        return f"{self.path.parent.name}/{self.id}"

    @property
    def outputs(self) -> Path:
        """The outputs folder that it lies in, with those of its kind in between."""
        return self.path.parent.parent

    @property
    def status_json(self) -> Path:
        return self.path / "status.json"

    @property
    def log(self) -> Path:
        return self.path / "worker.log"

    @property
    def lock(self) -> Path:
        return self.path / "worker.lock"

    @property
    def requests(self) -> Path:
        return self.path / "requests"

    def write_status(self, status: Any) -> None:
        """Replaces status.json; numbers that are not finite become null. OSError when that is impossible."""
        write_json(self.status_json, to_plain(dataclasses.asdict(status)), durable=False)

    def held(self) -> filelock.BaseFileLock:
        """The lock, which a worker holds as long as it lives; filelock.Timeout when another has it."""
        import filelock  # seldom needed, and 25 ms of every start

        return filelock.FileLock(self.lock, timeout=_LOCK_SECONDS)

    def has_worker(self, status: NamesProcess, *, held: bool = False) -> bool:
        """Whether the process that `status` names lives. held: whoever asks holds the lock, so that no worker does.

        Linux counts start times from the clock of now: when someone sets the clock, those of all processes move, and
        none is what was written down. The lock then tells.
        """
        if process_alive(status.pid, status.pid_start):
            return True
        return not held and status.pid is not None and _exists(status.pid) and self._is_locked()

    def _is_locked(self) -> bool:
        if not self.lock.is_file():
            return False
        import filelock  # seldom needed, and 25 ms of every start

        try:
            with filelock.FileLock(self.lock, timeout=0):
                return False
        except filelock.Timeout:
            return True
        except OSError:
            return False

    def _read_status(self, kind: type[T]) -> T:
        """status.json as it stands; the default when it is missing or damaged."""
        status = read_record(kind, self.status_json)
        return kind() if status is None else status


def process_alive(pid: int | None, started: float | None) -> bool:
    """Whether that very process lives: same id and same start time (within a second, as clocks round)."""
    if pid is None or started is None:
        return False
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied, ValueError, OverflowError):
        return False


def process_stopped(pid: int | None) -> bool:
    """Whether a process stands still until it is continued: SIGSTOP, Ctrl-Z, a debugger."""
    with contextlib.suppress(ValueError, OverflowError, psutil.Error):
        return pid is not None and psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    return False


def _exists(pid: int) -> bool:
    with contextlib.suppress(ValueError, OverflowError, psutil.Error):
        return psutil.pid_exists(pid)
    return False


def process_start(pid: int) -> float:
    """Start time of a living process, Unix seconds."""
    return float(psutil.Process(pid).create_time())
