"""Experiments and checks of papers on disk: what core, command line and window read and write alike. No torch.

outputs/experiments/<id>/
    experiment.json    what was asked: question, hypothesis, base settings, trials, seeds, predictions
    status.json        where it stands: state, the trial that runs, time left; replaced atomically
    results.json       what came out, from the runs' own events (llmlab.studies.experiments.outcomes)
    report.md          the same for people; figures/ holds its PNG and SVG files
    forecast.json      what a fit predicts for a run, written before that run begins
    measurements/      what was measured on a run's checkpoints after it: one JSON file a trial
    cluster/           submitit's files, where its runs are jobs of a cluster
    worker.log, worker.lock, requests/

Each trial is a normal run, outputs/<track>/<experiment id>-<trial>, and can be opened like any other.

outputs/papers/<id>/ is a check of a paper's claims: a plan of runs as an experiment has one, in paper.json, with
verdict.json (llmlab.studies.papers.records.CheckResult) for results. Its runs lie beside it, outputs/papers/<id>-<run>.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from llmlab.core.charts import Axis
from llmlab.core.config import from_mapping, with_values
from llmlab.core.errors import LabError, UsageError, did_you_mean
from llmlab.core.files import read_json, write_json
from llmlab.core.kinds import KINDS, PAPERS
from llmlab.core.records import formerly, from_plain, require_time
from llmlab.core.run_settings import RunSettings
from llmlab.notebook.quantities import CHECK, EXPERIMENT
from llmlab.store.run_folder import RunFolder
from llmlab.store.worker_folder import LAUNCH_SECONDS, Inside, WorkerFolder

EXPERIMENTS = "experiments"  # the folder beside the tracks
EXPERIMENT_FORMAT = 1
LONGEST_NAME = 60  # of a plan, in characters: its runs are called by it and more
LIVE_STATES = ("running", "stopping")
# Of a trial, which is planned, running or stopped (it waits to go on) before. `diverged`: stopped by the rule, or its
# loss was no number.
TRIAL_ENDED_STATES = ("finished", "diverged", "failed", "skipped")
_NEARLY_DONE = 0.99  # the share that is done while something is left, however long it takes
_LONGEST_WINDOW = 1_000_000  # of a divergence rule, in steps: more than anyone waits for


@dataclass(frozen=True)
class DivergenceRule:
    """When a run is cut early: nothing is learned from the rest of it.

    Cut when the median of the last `window` step losses is more than `above_start` nats above the loss at the
    start, or more than `above_best` above the lowest such median before. A loss that is not finite ends a run anyway.
    """

    window: int = 10
    above_start: float = 0.5
    above_best: float = 1.0

    def text(self) -> str:
        """The rule as a sentence."""
        return (
            f"A run is stopped as diverged when the median loss of {self.window} steps is {self.above_start:g} nats "
            f"above its start or {self.above_best:g} above its best, or when a loss is not a finite number."
        )


@dataclass(frozen=True)
class Trial:
    """One run of the plan.

    name: unique in the experiment, ends the run's id. settings: what differs from the base, `section.field` keys.
    varied: the part of it that the experiment is about, for labels. x: its place on the x axis. group: the curve
    that it belongs to ("lora", "attention"), "" where there is one. forecast: predicted from the trials before it.
    measuring_seconds: estimated, of what is measured on it once it has finished.
    """

    name: str
    run: str
    settings: dict[str, Any]
    varied: dict[str, Any]
    seed: int
    x: float
    group: str = ""
    forecast: bool = False
    estimated_seconds: float = 0.0
    measuring_seconds: float = 0.0

    @property
    def value_text(self) -> str:
        """What distinguishes it but for its seed, as a curve's name: `0.003`, `full 0.003`, `rank 8`."""
        parts = [f"{value:g}" if isinstance(value, float) else str(value) for value in self.varied.values()]
        named = self.group.split()
        return " ".join([*named, *(part for part in parts if part not in named)])


@dataclass(frozen=True)
class TrialStatus:
    """Where a trial stands.

    doing: what keeps it from its next step. note: why it failed or was stopped, as a sentence. at_once: how many
    trained at the same time, which `wall_seconds` depends on. eta_seconds: of its steps to come, by its own pace.
    """

    state: str = "planned"
    step: int = 0
    steps: int = 0
    loss: float | None = None
    val_loss: float | None = None
    active_seconds: float = 0.0  # training time
    wall_seconds: float = 0.0  # with starting, measuring and saving, over all sessions
    doing: str = ""
    note: str = ""
    at_once: int = 1
    eta_seconds: float | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in TRIAL_ENDED_STATES


@dataclass(frozen=True)
class ExperimentRecord:
    """What was asked of an experiment; written once, before anything runs.

    kind: of llmlab.studies.experiments.kinds. base: all settings that the trials share, as in run.json. trials:
    in the order in which they run. subject: the run that is looked at, where nothing new is trained. source: of the
    hypothesis. estimated_seconds: of the whole plan. options: what only this kind knows (the general text, a target
    loss).
    """

    id: str
    kind: str
    title: str
    question: str
    hypothesis: str
    source: str
    track: str
    created: float
    base: dict[str, Any]
    trials: list[Trial] = field(metadata=formerly("arms"))
    seeds: list[int]
    x_axis: Axis
    y_axis: Axis
    varies: str = ""
    preset: str = ""
    subject: str = ""
    estimated_seconds: float = 0.0
    rule: DivergenceRule = field(default_factory=DivergenceRule)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    watched: bool = False  # a window looks on: its runs leave one core free
    code_version: str = ""
    format: int = EXPERIMENT_FORMAT

    def trial(self, name: str) -> Trial:
        """The trial of that name. KeyError when there is none."""
        for trial in self.trials:
            if trial.name == name:
                return trial
        raise KeyError(name)


@dataclass(frozen=True)
class ExperimentStatus:
    """Where an experiment stands.

    state: planned running stopping stopped finished failed; `ExperimentFolder.status()` adds `interrupted`.
    trial: name of the one that runs, the first where several do. eta_seconds: of all that is left. doing: between the
    runs, in words. jobs: runs that train at once. cluster, cluster_options: whose jobs they are (llmlab.jobs.cluster).
    """

    state: str = "planned"
    trial: str = field(default="", metadata=formerly("arm"))
    doing: str = ""
    trials: dict[str, TrialStatus] = field(default_factory=dict, metadata=formerly("arms"))
    eta_seconds: float | None = None
    active_seconds: float = 0.0  # time spent by its workers so far
    host: str = ""
    pid: int | None = None
    pid_start: float | None = None
    heartbeat: float = 0.0
    attempt: int = 0
    jobs: int = 1
    cluster: str = ""
    cluster_options: dict[str, str] = field(default_factory=dict)
    error: dict[str, str] | None = None

    @property
    def live(self) -> bool:
        """Whether a worker is at it."""
        return self.state in LIVE_STATES

    @property
    def ended_trials(self) -> int:
        """Trials to which nothing more will happen."""
        return sum(trial.ended for trial in self.trials.values())

    @property
    def share(self) -> int:
        """How many runs share this machine."""
        return 1 if self.cluster == "slurm" else self.jobs

    @property
    def share_done(self) -> float:
        """Of the whole plan, 0 to 1, by the time that it has taken and still takes; 1 once it has finished alone."""
        if self.state == "finished" or self.eta_seconds is None:
            return float(self.state == "finished")
        whole = self.active_seconds + max(0.0, self.eta_seconds)
        return min(_NEARLY_DONE, self.active_seconds / whole) if whole > 0 else 0.0

    @property
    def training(self) -> dict[str, TrialStatus]:
        """Trials that train now, by name."""
        return {name: trial for name, trial in self.trials.items() if trial.state == "running"}


@dataclass(frozen=True)
class ExperimentFolder(WorkerFolder):
    """An experiment by its folder. Cheap to make; reads nothing until asked.

    home: of all of its kind, in the outputs folder. noun: what it is to whoever predicts its outcome. command: of
    llmlab-run. asked, found: files with what was asked and what came out.
    """

    noun: ClassVar[str] = EXPERIMENT
    home: ClassVar[str] = EXPERIMENTS
    command: ClassVar[str] = "experiment"
    asked: ClassVar[str] = "experiment.json"
    found: ClassVar[str] = "results.json"

    forecast_json, report = Inside("forecast.json"), Inside("report.md")
    figures, measurements = Inside("figures"), Inside("measurements")

    @property
    def subject(self) -> str:
        return self.noun

    @property
    def resume_command(self) -> str:
        """What goes on with it in a terminal."""
        return f"llmlab-run {self.command} resume {self.id}"

    @property
    def cancel_command(self) -> str:
        """What stops it in a terminal."""
        return f"llmlab-run {self.command} cancel {self.id}"

    @property
    def experiment_json(self) -> Path:
        return self.path / self.asked

    @property
    def results_json(self) -> Path:
        return self.path / self.found

    def record(self) -> ExperimentRecord:
        """What was asked. Raises LabError when it is missing, damaged, or from a newer version of the lab."""
        values = read_json(self.experiment_json)
        if values is None:
            raise LabError(
                f"{self.path} is no {self.subject} that can be read.",
                f"Its {self.experiment_json.name} is missing or damaged." if self.path.is_dir() else "It is not there.",
                f"`llmlab-run {self.command} list` lists those that are here.",
            )
        version = values.get("format")
        if isinstance(version, int) and version > EXPERIMENT_FORMAT:
            raise LabError(f"{self.id} was made by a newer version of the lab.", "", "Update the lab to open it.")
        try:
            record = from_plain(ExperimentRecord, values | {"id": self.id})
            _check(record)
            return record
        except (ValueError, TypeError) as error:
            raise LabError(f"The {self.experiment_json.name} of {self.id} is damaged.", f"{error}") from error

    def write_record(self, record: ExperimentRecord) -> None:
        """Replaces what was asked."""
        write_json(self.experiment_json, dataclasses.asdict(record))

    def recorded_status(self) -> ExperimentStatus:
        """status.json as it stands; the default when it is missing or damaged."""
        return self._read_status(ExperimentStatus)

    def status(self) -> ExperimentStatus:
        """Where it stands; `interrupted`, with the trials that trained, when its worker is gone although it says that
        it works."""
        status = self.recorded_status()
        if not status.live or self.has_worker(status):
            return status
        if status.pid is None and abs(time.time() - status.heartbeat) < LAUNCH_SECONDS:
            return status
        gone = {name: dataclasses.replace(trial, state="interrupted") for name, trial in status.training.items()}
        return dataclasses.replace(status, state="interrupted", trials=status.trials | gone)

    def take_over_all(self) -> None:
        """Forgets workers on other machines, its own and its runs': whoever calls knows that they are gone."""
        for one in (self, *self.runs_of(self.record())):
            one.take_over()

    def runs_of(self, record: ExperimentRecord) -> list[RunFolder]:
        """The runs of all trials, in the plan's order, whether or not they have begun."""
        return [self.run_of(trial, record.track) for trial in record.trials]

    def run_of(self, trial: Trial, track: str) -> RunFolder:
        """The run of a trial, whether or not it has begun."""
        return RunFolder(self.outputs / track / trial.run)


@dataclass(frozen=True)
class CheckFolder(ExperimentFolder):
    """A check by its folder."""

    noun: ClassVar[str] = CHECK
    home: ClassVar[str] = PAPERS
    command: ClassVar[str] = "paper"
    asked: ClassVar[str] = "paper.json"
    found: ClassVar[str] = "verdict.json"


def _check(record: ExperimentRecord) -> None:
    """ValueError for what no plan says: names that lead out of the folders in which runs and files are, among them."""
    require_time("created", record.created)
    if record.track not in KINDS:
        raise ValueError(f"track is {record.track!r:.100}")
    for trial in record.trials:
        for name in (trial.name, trial.run):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
                raise ValueError(f"{name!r:.100} is not a name of a run")
    if not 1 <= record.rule.window <= _LONGEST_WINDOW:
        raise ValueError(f"window is {record.rule.window!r:.100}")


def settings_of(record: ExperimentRecord, trial: Trial | None = None) -> RunSettings:
    """The settings of a trial, or of the base. Raises UsageError when the file names a setting that does not exist."""
    base = from_mapping(KINDS[record.track], record.base)
    return base if trial is None else with_values(base, trial.settings)


Folder = TypeVar("Folder", bound=ExperimentFolder)


def list_plans(outputs: Path, kind: type[Folder]) -> list[Folder]:
    """Every one of a kind, newest first; half-made folders, and those without what was asked, are left out."""
    found: list[tuple[float, Folder]] = []
    with contextlib.suppress(OSError):  # none yet
        for path in (outputs / kind.home).iterdir():
            folder = kind(path)
            if path.name.startswith("."):
                continue
            with contextlib.suppress(OSError):  # a folder that may not be read, or went away
                found.append((folder.experiment_json.stat().st_mtime, folder))
    return [folder for _, folder in sorted(found, key=lambda pair: pair[0], reverse=True)]


def find_plan(text: str, outputs: Path, kind: type[Folder]) -> Folder:
    """The one of a kind that an id or a folder names. UsageError with the nearest ids otherwise."""
    known = {folder.id: folder for folder in list_plans(outputs, kind)}
    if text in known:
        return known[text]
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # no text that a folder could be named by
        folder = kind(Path(text).expanduser().resolve())
        if folder.experiment_json.is_file():
            return folder
    hint = did_you_mean(text, known, 3, 0.4) or f"`llmlab-run {kind.command} list` lists them."
    raise UsageError(f"There is no {kind.noun} {text!r}.", f"Looked in {outputs / kind.home}.", hint)
