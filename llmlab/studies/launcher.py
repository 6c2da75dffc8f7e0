"""Making experiments and starting their workers: the same way for the window and the command line. No torch."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from llmlab.core.errors import LabError, UsageError, explained
from llmlab.core.files import new_folder
from llmlab.core.processes import available_cores
from llmlab.core.settings import PretrainSettings
from llmlab.jobs.cluster import require_cluster
from llmlab.jobs.launcher import claim_name, require_free
from llmlab.jobs.worker_process import launch
from llmlab.notebook.locked import lock
from llmlab.notebook.seals import seal_new
from llmlab.store import requests
from llmlab.store.worker_folder import is_elsewhere
from llmlab.studies.plans.records import ExperimentFolder, ExperimentRecord, ExperimentStatus, TrialStatus, settings_of


def create_experiment(
    outputs: Path, record: ExperimentRecord, kind: type[ExperimentFolder] = ExperimentFolder
) -> ExperimentFolder:
    """A new experiment's or check's folder with its record, state `planned`. No worker yet. Predictions are locked.

    Raises UsageError when the name is taken, or a run has one of the names that its trials need; LabError when its
    text is not here or the folder cannot be made.
    """
    folder = kind(outputs / kind.home / record.id)
    make_folder(folder, record)
    return folder


def make_folder(folder: ExperimentFolder, record: ExperimentRecord) -> None:
    """`create_experiment` at a given place."""
    if folder.path.exists():
        raise UsageError(
            f"{record.id!r} is already there.",
            f"It is in {folder.path}.",
            f"Choose another --name, or go on with it: {folder.resume_command}",
        )
    runs = folder.runs_of(record)
    for run in runs:
        require_free(run)
    _require_text(record)
    for run in runs:  # only now, when nothing is refused any more
        claim_name(run)
    record = replace(record, predictions=lock(folder.subject, record.predictions))
    with (
        explained(
            f"The experiment's folder could not be made in {folder.path.parent}.", "Choose another --outputs folder."
        ),
        new_folder(folder.path) as path,
    ):
        made = replace(folder, path=path)
        trials = {trial.name: TrialStatus() for trial in record.trials}
        made.write_status(ExperimentStatus(trials=trials, eta_seconds=record.estimated_seconds))
        made.write_record(record)
    seal_new(folder, folder.subject, record.created, record.predictions)


def _require_text(record: ExperimentRecord) -> None:
    """Refuses a corpus that is not here, in the words of the corpus."""
    from llmlab.data.corpora import find_corpus  # brings numpy, which `--help` should not wait for

    settings = settings_of(record)
    if record.trials and isinstance(settings, PretrainSettings):
        corpus = find_corpus(settings.data.corpus)
        if not corpus.here():
            next(corpus.pieces())  # raises the error that says where it comes from, and which file to put where


def start_experiment(
    folder: ExperimentFolder,
    *,
    jobs: int | None = None,
    cluster: str | None = None,
    cluster_options: Mapping[str, str] | None = None,
    follow_parent: bool = False,
) -> subprocess.Popen[bytes]:
    """Starts the worker that runs what is left of the plan; finished runs stay as they are.

    jobs: runs at once. cluster: whose jobs they are, "none" for this machine's own processes; None, of all three: as
    before. Unless `jobs` is said, all jobs of Slurm wait at once, and local ones share the cores.
    follow_parent: the worker dies with this process (a command in a terminal); otherwise it outlives it (the window).
    Raises LabError when a worker is already there.
    """

    if cluster not in (None, "none"):
        require_cluster(cluster)

    def begin(held: bool) -> ExperimentStatus:
        status = folder.recorded_status()
        if status.live and folder.has_worker(status, held=held):
            do = f"Watch it in the window, or stop it first: {folder.cancel_command}"
            if is_elsewhere(status):
                do += f". If you know that it is gone: {folder.resume_command} --take-over"
            raise LabError(
                f"{folder.id} is already running.",
                f"Process {status.pid}{f' on {status.host}' if is_elsewhere(status) else ''} is working on it.",
                do,
            )
        requests.clear(folder.requests)
        if cluster is not None:
            status = replace(status, cluster="" if cluster == "none" else cluster, cluster_options={})
        if cluster_options:
            status = replace(status, cluster_options=dict(cluster_options))
        at_once = status.jobs if jobs is None else jobs
        if jobs is None and cluster is not None:
            at_once = {"slurm": len(status.trials), "local": available_cores()}.get(status.cluster, 1)
        at_once = min(at_once, max(1, len(status.trials)))
        return replace(status, state="running", pid=None, heartbeat=time.time(), error=None, jobs=at_once)

    return launch("llmlab.studies.worker", folder, begin, {}, die_with_parent=follow_parent)


def stop_experiment(folder: ExperimentFolder) -> None:
    """Asks the worker to stop: what trains saves, the rest of the plan waits. LabError when none is there."""
    status = folder.status()
    if not status.live:
        raise LabError(
            f"{folder.id} is not running (it is {status.state}).",
            "",
            "" if status.state == "finished" else f"Resume it: {folder.resume_command}",
        )
    with explained(f"The request could not be written to {folder.requests}."):
        requests.send(folder.requests, "stop")
