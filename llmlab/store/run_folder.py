"""One run's folder: the interface between whatever trains and whatever watches.

run.json        what was asked: settings, seed, parent, versions, device, threads, precision, compiled
status.json     where it stands: state, step, process, heartbeat, last error; replaced atomically
events.jsonl    what happened, append-only
events.damaged.jsonl  lines of it that could not be read when a worker went on, append-only
worker.log      stdout and stderr of the worker
requests/       one JSON file a request
inspections/    answers to `inspect` requests, until whoever asked fetches them
checkpoints/    step-00000500/ and so on
pieces/         the learner's own code, of a run that trains with it
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from llmlab.core.config import from_mapping, to_mapping
from llmlab.core.errors import LabError, UsageError
from llmlab.core.files import locked, read_json, write_json
from llmlab.core.kinds import KINDS, MYSTERIES, PAPERS, PRETRAINING, fine_tunes
from llmlab.core.processes import process_stopped
from llmlab.core.records import from_plain, require_time
from llmlab.core.run_settings import RunSettings
from llmlab.store.worker_folder import LAUNCH_SECONDS, LIVE_STATES, Inside, WorkerFolder, is_elsewhere

S = TypeVar("S", bound=RunSettings)

RUN_FORMAT = 1
# What a silent worker may be, and what to do about it.
SILENT = (
    "Its process is stopped, or it hangs. A stopped one goes on with `kill -CONT` and its process id; Stop, or "
    "`kill`, ends it, and a resume goes on from the newest checkpoint."
)

SILENT_ELSEWHERE = (
    "Its machine, or the way by which its folder gets here, gives no more news. If you know that it is gone, "
    "Resume in the window, or `llmlab-run resume` with --take-over, goes on here."
)
# News from another machine come as often as its folder is copied here.
_PATIENCE_ELSEWHERE = 900.0
_seen: dict[Path, tuple[float, float]] = {}  # by status.json: the heartbeat in it, and when that was first seen here


def _unchanged_seconds(status_json: Path, heartbeat: float) -> float:
    """For how long this process has seen that heartbeat. The clock that wrote it is another's, and may be off by hours.

    0 for whoever looks only once.
    """
    now = time.monotonic()
    known = _seen.get(status_json)
    if known is None or known[0] != heartbeat:
        known = _seen[status_json] = heartbeat, now
    return now - known[1]


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands, as status.json says it.

    state: queued running paused stopping stopped finished failed. `RunFolder.status()` adds `interrupted`.
    host: the machine of its process. pid_start: the process's start time (Unix seconds), since ids are used again.
    events_start: bytes of events.jsonl when this worker began, after it cut what came after its checkpoint.
    heartbeat: when its worker last got on with something. patience: seconds after it in which to hear nothing means
    nothing; 0: unknown. silent_since: `RunFolder.status()` adds it for a worker that is stopped, or quiet for longer
    than that; None on disk.
    """

    state: str = "queued"
    step: int = 0
    steps: int = 0
    host: str = ""
    pid: int | None = None
    pid_start: float | None = None
    heartbeat: float = 0.0
    patience: float = 0.0
    silent_since: float | None = None
    attempt: int = 0
    events_start: int = 0
    loss: float | None = None
    val_loss: float | None = None
    best_val_loss: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    doing: str = ""  # what keeps it from its next step: "Reading shakespeare (40 %)"
    error: dict[str, str] | None = None

    @property
    def live(self) -> bool:
        """Whether a process trains, waits or is about to."""
        return self.state in LIVE_STATES

    @property
    def words(self) -> str:
        """The state as people read it, with another machine's name, and since when its worker is silent."""
        if self.silent_since is None:
            if self.elsewhere:
                return f"{self.state} on {self.host}"
            return "starting" if self.state == "queued" else self.state  # the window's queue holds no runs yet
        today = time.time() - self.silent_since < 12 * 3600
        since = time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M", time.localtime(self.silent_since))
        return f"{self.state}, silent since {since}"

    @property
    def elsewhere(self) -> bool:
        """Whether another machine trains it, by its own word."""
        return self.live and is_elsewhere(self)


@dataclass(frozen=True)
class RunInfo:
    """What was asked of a run, as run.json says it; written once, before the worker starts.

    parent: {"run": id, "checkpoint": folder name, "step": int} for a branch. precision: what its worker took; before
    that what "auto" shall take on a processor, empty where its worker may choose.
    """

    id: str
    track: str
    created: float
    settings: RunSettings
    preset: str = ""
    parent: dict[str, Any] | None = None
    queued: str = ""  # id of the queue's item that it was made from
    watched: bool = False  # started by the window: leave it one core
    predictions: list[dict[str, Any]] = field(default_factory=list)
    code_version: str = ""
    versions: dict[str, str] = field(default_factory=dict)  # of the libraries, filled in by the worker
    device: str = ""
    threads: int = 0
    precision: str = ""
    compiled: bool | None = None  # None: no worker has chosen yet
    format: int = RUN_FORMAT

    @property
    def precision_on_a_processor(self) -> str:
        """What "auto" takes on one, once that is settled, since rounding depends on it: what the first worker took, and
        before version 0.5 fp32. Empty while it is open, and for a run that comes from a GPU."""
        if self.device == "cpu":
            return self.precision or "fp32"
        return "" if self.device else self.precision

    def settings_as(self, kind: type[S]) -> S:
        """The settings of a run of this kind. LabError when it is of another."""
        if isinstance(self.settings, kind):
            return self.settings
        raise LabError(f"{self.id} is not {kind.noun}.", f"It is {self.settings.noun}.")


@dataclass(frozen=True)
class RunFolder(WorkerFolder):
    """A run by its folder. Cheap to make; reads nothing until asked."""

    run_json, events, damaged_events = Inside("run.json"), Inside("events.jsonl"), Inside("events.damaged.jsonl")
    tokenizer_json, inspections, checkpoints = Inside("tokenizer.json"), Inside("inspections"), Inside("checkpoints")
    pieces = Inside("pieces")

    @property
    def fine_tunes(self) -> bool:
        """Whether it changes a model that exists: its checkpoints stand on a base."""
        return fine_tunes(self._track)

    @property
    def on_task(self) -> bool:
        """Whether it learns a task of a paper: its tokens are no text's."""
        return self._track == PAPERS

    @property
    def sealed(self) -> bool:
        """Whether it has a sealed fault: its model may be built in another way."""
        return self._track == MYSTERIES

    @property
    def _track(self) -> object:
        return (read_json(self.run_json) or {}).get("track")

    def info(self) -> RunInfo:
        """run.json. Raises LabError when it is missing, damaged, or from a newer version of the lab."""
        values = read_json(self.run_json)
        if values is None:
            raise LabError(
                f"{self.path} is not a run that can be read.",
                "Its run.json is missing or damaged." if self.path.is_dir() else "There is no such folder.",
                "`llmlab-run runs` lists the runs that are here.",
            )
        version = values.get("format")
        if isinstance(version, int) and version > RUN_FORMAT:
            raise LabError(f"{self.id} was made by a newer version of the lab.", "", "Update the lab to open it.")
        try:
            settings = from_mapping(KINDS.get(values.get("track", ""), KINDS[PRETRAINING]), values["settings"])
            info = from_plain(RunInfo, values | {"id": self.id, "settings": settings})
            require_time("created", info.created)
            return info
        except (UsageError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise LabError(f"The run.json of {self.id} is damaged.", f"{error}") from error

    def write_info(self, info: RunInfo) -> None:
        """Replaces run.json."""
        values = {f.name: getattr(info, f.name) for f in dataclasses.fields(RunInfo)}
        write_json(self.run_json, values | {"settings": to_mapping(info.settings)})

    def change_info(self, change: Callable[[RunInfo], RunInfo]) -> None:
        """Replaces run.json by what `change` makes of it, while nobody else does. Raises LabError and OSError."""
        with locked(self.path / "run.lock", f"the run.json of {self.id}"):
            self.write_info(change(self.info()))

    def recorded_status(self) -> RunStatus:
        """status.json as it stands, whether or not its process still lives; the default when it is damaged."""
        return self._read_status(RunStatus)

    def status(self) -> RunStatus:
        """Where the run stands; `interrupted` when its process is gone although it says that it lives."""
        status = dataclasses.replace(self.recorded_status(), silent_since=None)
        if not status.live:
            return status
        if not self.has_worker(status):
            # A queued run has no process yet.
            if status.state == "queued" and abs(time.time() - status.heartbeat) < LAUNCH_SECONDS:
                return status
            return dataclasses.replace(status, state="interrupted")
        if status.elsewhere:
            seconds = _unchanged_seconds(self.status_json, status.heartbeat)
            silent = seconds > max(status.patience, _PATIENCE_ELSEWHERE) and status.state != "paused"
            return dataclasses.replace(status, silent_since=time.time() - seconds) if silent else status
        # A pause is quiet for as long as it likes.
        quiet = status.state != "paused" and 0 < status.patience < time.time() - status.heartbeat
        if quiet or process_stopped(status.pid):
            return dataclasses.replace(status, silent_since=status.heartbeat)
        return status
