"""A folder at which one worker process works, a run's or an experiment's: what both have, and whether it lives."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from llmlab.core.errors import LabError
from llmlab.core.files import read_json, write_json
from llmlab.core.processes import host_name, process_alive
from llmlab.core.records import read_record, to_plain

if TYPE_CHECKING:
    import filelock

T = TypeVar("T")
LIVE_STATES = ("queued", "running", "paused", "stopping")
# A worker has no process until it begins; its launcher gets so long before it counts as interrupted.
LAUNCH_SECONDS = 60.0
# A worker that was just killed may hold its lock for a moment until the system has taken it down.
_LOCK_SECONDS = 5.0
# Who looks whether a lock is held holds it, too, for an instant, in which another who looks finds it held.
_LOOK_SECONDS = 0.02
# How lines of a worker's log begin that say nothing of why it ended.
REMARK = "Note: "
_LAST_WORDS_BYTES, _LAST_WORDS = 4096, 300  # of the log's end that are read; characters of the line that is told


class NamesProcess(Protocol):
    """A status: it names the process that works, and the machine on which it does; host is "" where nobody said.

    pid_start: Unix seconds, since process ids are used again.
    """

    @property
    def host(self) -> str: ...

    @property
    def pid(self) -> int | None: ...

    @property
    def pid_start(self) -> float | None: ...


def is_elsewhere(status: NamesProcess) -> bool:
    """Whether the process is another machine's: then its id and its clock are none of this one's."""
    return status.host not in ("", host_name())


class Inside:
    """What has that name in a folder: where it is, whether or not it is there."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: WorkerFolder, kind: type[WorkerFolder]) -> Path:
        return folder.path / self._name


@dataclass(frozen=True)
class WorkerFolder:
    """Such a folder. Cheap to make; reads nothing until asked."""

    path: Path

    status_json, requests = Inside("status.json"), Inside("requests")
    log, lock = Inside("worker.log"), Inside("worker.lock")

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def subject(self) -> str:
        """What it is to whoever predicts its outcome (llmlab.notebook.quantities)."""
        return "run"

    @property
    def full_name(self) -> str:
        """`TRACK/ID`: names a run also where another track has one of that id."""
        return f"{self.path.parent.name}/{self.id}"

    @property
    def outputs(self) -> Path:
        """The outputs folder that it lies in, with those of its kind in between."""
        return self.path.parent.parent

    def write_status(self, status: Any) -> None:
        """Replaces status.json; numbers that are not finite become null. OSError when that is impossible."""
        write_json(self.status_json, to_plain(dataclasses.asdict(status)), durable=False)

    def last_words(self) -> str:
        """The last line of its log that is no remark, cut to a few hundred characters; empty when there is none."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _LAST_WORDS_BYTES))
                lines = file.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        words = (line.strip() for line in reversed(lines) if not line.startswith(REMARK))
        return next((line[:_LAST_WORDS] for line in words if line), "")

    def gone(self) -> LabError:
        """What is to be said when it was taken away."""
        why = f"{self.path} was deleted or moved."
        return LabError(f"The folder of {self.id} is gone.", why, "Put it back where it was, or start anew.")

    def held(self) -> filelock.BaseFileLock:
        """The lock, which a worker holds as long as it lives; filelock.Timeout when another has it."""
        import filelock  # seldom needed, and 25 ms of every start

        return filelock.FileLock(self.lock, timeout=_LOCK_SECONDS)

    def has_worker(self, status: NamesProcess, *, held: bool = False) -> bool:
        """Whether the process that `status` names lives. held: whoever asks holds the lock, so that no worker does.

        Linux counts start times from the clock of now: when someone sets the clock, those of all processes move, and
        none is what was written down. A machine or container of the same name has process ids of its own. The lock
        then tells.
        Nobody can see from here whether a process of another machine lives, and the lock may not reach so far: it does,
        until it says itself that it has ended.
        """
        if process_alive(status.pid, status.pid_start):
            return True
        if is_elsewhere(status):
            return True
        return not held and status.pid is not None and self._is_locked()

    def take_over(self) -> None:
        """Forgets a worker on another machine: whoever calls knows that it is gone. OSError.

        Not one that holds the lock: it lives, here and under this machine's earlier name, say.
        """
        status = read_json(self.status_json) or {}
        there = status.get("state") in LIVE_STATES and status.get("host", "") not in ("", host_name())
        if there and not self._is_locked():
            write_json(self.status_json, status | {"host": "", "pid": None, "pid_start": None, "heartbeat": 0.0})

    def _is_locked(self) -> bool:
        if not self.lock.is_file():
            return False
        import filelock  # seldom needed, and 25 ms of every start

        try:
            with filelock.FileLock(self.lock, timeout=_LOOK_SECONDS, poll_interval=_LOOK_SECONDS / 4):
                return False
        except filelock.Timeout:
            return True
        except OSError:
            return False

    def _read_status(self, kind: type[T]) -> T:
        """status.json as it stands; the default when it is missing or damaged."""
        status = read_record(kind, self.status_json)
        return kind() if status is None else status
