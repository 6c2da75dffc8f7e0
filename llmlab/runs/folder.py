"""One run's folder: the interface between whatever trains and whatever watches.

run.json        what was asked: settings, seed, parent, versions, device, threads
status.json     where it stands: state, step, process, heartbeat, last error; replaced atomically
events.jsonl    what happened, append-only
worker.log      stdout and stderr of the worker
requests/       one JSON file a request
inspections/    answers to `inspect` requests, until whoever asked fetches them
checkpoints/    step-00000500/ and so on
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from llmlab.config import from_mapping, to_mapping
from llmlab.errors import LabError, UsageError
from llmlab.files import read_json, write_json
from llmlab.finetuning.settings import FinetuneSettings
from llmlab.papers.settings import TaskSettings
from llmlab.records import from_plain
from llmlab.settings import PretrainSettings

RUN_FORMAT = 1
# The folder under outputs/ that a run is in, and what it does.
PRETRAINING = "pretraining"
FINETUNING = "finetuning"
PAPERS = "papers"  # runs on tasks with a known posterior; checks of papers lie beside them
RunSettings: TypeAlias = PretrainSettings | FinetuneSettings | TaskSettings
SETTINGS: dict[str, type[RunSettings]] = {
    PRETRAINING: PretrainSettings,
    FINETUNING: FinetuneSettings,
    PAPERS: TaskSettings,
}
LIVE_STATES = ("queued", "running", "paused", "stopping")
ENDED_STATES = ("stopped", "finished", "failed", "interrupted")


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands, as status.json says it.

    state: queued running paused stopping stopped finished failed. `RunFolder.status()` adds `interrupted`.
    pid_start: the process's start time (Unix seconds), since process ids are used again.
    events_start: bytes of events.jsonl when this worker began, after it cut what came after its checkpoint.
    """

    state: str = "queued"
    step: int = 0
    steps: int = 0
    pid: int | None = None
    pid_start: float | None = None
    heartbeat: float = 0.0
    attempt: int = 0
    events_start: int = 0
    loss: float | None = None
    val_loss: float | None = None
    best_val_loss: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    doing: str = ""  # what keeps it before the first step: "Reading shakespeare (40 %)"
    error: dict[str, str] | None = None

    @property
    def live(self) -> bool:
        """Whether a process trains, waits or is about to."""
        return self.state in LIVE_STATES


@dataclass(frozen=True)
class RunInfo:
    """What was asked of a run, as run.json says it; written once, before the worker starts.

    parent: {"run": id, "checkpoint": folder name, "step": int} for a branch.
    """

    id: str
    track: str
    created: float
    settings: RunSettings
    preset: str = ""
    parent: dict[str, Any] | None = None
    watched: bool = False  # started by the window: leave it one core
    predictions: list[dict[str, Any]] = field(default_factory=list)
    code_version: str = ""
    versions: dict[str, str] = field(default_factory=dict)  # of the libraries, filled in by the worker
    device: str = ""
    threads: int = 0
    format: int = RUN_FORMAT

    @property
    def pretraining(self) -> PretrainSettings:
        """The settings of a run from scratch on text. LabError when it is of another kind."""
        if isinstance(self.settings, PretrainSettings):
            return self.settings
        if isinstance(self.settings, FinetuneSettings):
            raise LabError(f"{self.id} is a fine-tuning run.", f"It changes {self.settings.model.base}.")
        raise LabError(f"{self.id} is a run on a task of a paper.", "It reads no text.")

    @property
    def finetuning(self) -> FinetuneSettings:
        """The settings of a fine-tuning run. LabError when it trains from scratch."""
        if isinstance(self.settings, FinetuneSettings):
            return self.settings
        raise LabError(f"{self.id} is not a fine-tuning run.", "It trains from scratch: it has no base.")

    @property
    def task(self) -> TaskSettings:
        """The settings of a run on a task. LabError when it is of another kind."""
        if isinstance(self.settings, TaskSettings):
            return self.settings
        raise LabError(f"{self.id} is not a run on a task of a paper.", f"It learns from {self.reads}.")

    @property
    def reads(self) -> str:
        """What it learns from: a corpus, examples, or a task."""
        return learns_from(self.settings)


def learns_from(settings: RunSettings) -> str:
    """A corpus, examples, or a task, as the settings name it."""
    if isinstance(settings, TaskSettings):
        return settings.data.task
    return settings.data.corpus if isinstance(settings, PretrainSettings) else settings.data.source


def track_of(settings: RunSettings) -> str:
    """The track of runs with such settings."""
    return next(track for track, kind in SETTINGS.items() if isinstance(settings, kind))


@dataclass(frozen=True)
class RunFolder:
    """A run by its folder. Cheap to make; reads nothing until asked."""

    path: Path

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def outputs(self) -> Path:
        """The folder that holds the tracks, in one of which the run is."""
        return self.path.parent.parent

    @property
    def tunes(self) -> bool:
        """Whether it fine-tunes, as its place says."""
        return self.path.parent.name == FINETUNING

    @property
    def run_json(self) -> Path:
        return self.path / "run.json"

    @property
    def status_json(self) -> Path:
        return self.path / "status.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "worker.log"

    @property
    def tokenizer_json(self) -> Path:
        return self.path / "tokenizer.json"

    @property
    def lock(self) -> Path:
        return self.path / "worker.lock"

    @property
    def requests(self) -> Path:
        return self.path / "requests"

    @property
    def inspections(self) -> Path:
        return self.path / "inspections"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

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
            settings = from_mapping(SETTINGS.get(values.get("track", ""), PretrainSettings), values["settings"])
            return from_plain(RunInfo, values | {"id": self.id, "settings": settings})
        except (UsageError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise LabError(f"The run.json of {self.id} is damaged.", f"{error}") from error

    def write_info(self, info: RunInfo) -> None:
        """Replaces run.json."""
        values = {f.name: getattr(info, f.name) for f in dataclasses.fields(RunInfo)}
        write_json(self.run_json, values | {"settings": to_mapping(info.settings)})

    def recorded_status(self) -> RunStatus:
        """status.json as it stands, whether or not its process still lives; the default when it is damaged."""
        try:
            return from_plain(RunStatus, read_json(self.status_json) or {})
        except ValueError:
            return RunStatus()

    def status(self) -> RunStatus:
        """Where the run stands; `interrupted` when its process is gone although it says that it lives."""
        status = self.recorded_status()
        if status.live and not self.has_worker(status):
            # A queued run has no process yet; give its launcher a minute before calling it interrupted.
            if status.state == "queued" and abs(time.time() - status.heartbeat) < 60:
                return status
            return dataclasses.replace(status, state="interrupted")
        return status

    def has_worker(self, status: RunStatus) -> bool:
        """Whether the process that `status` names lives.

        Linux counts start times from the clock of now: when someone sets the clock, those of all processes move, and
        none is what was written down. The lock, which a worker holds as long as it lives, then tells.
        """
        if process_alive(status.pid, status.pid_start):
            return True
        return status.pid is not None and _exists(status.pid) and self._is_locked()

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

    def write_status(self, status: RunStatus) -> None:
        """Replaces status.json; numbers that are not finite become null. OSError when that is impossible."""
        values = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in dataclasses.asdict(status).items()
        }
        write_json(self.status_json, values, durable=False)


def process_alive(pid: int | None, started: float | None) -> bool:
    """Whether that very process lives: same id and same start time (within a second, as clocks round)."""
    if pid is None or started is None:
        return False
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied, ValueError, OverflowError):
        return False


def _exists(pid: int) -> bool:
    with contextlib.suppress(ValueError, OverflowError, psutil.Error):
        return psutil.pid_exists(pid)
    return False


def process_start(pid: int) -> float:
    """Start time of a living process, Unix seconds."""
    return float(psutil.Process(pid).create_time())
