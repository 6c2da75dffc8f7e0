"""Making runs and starting their workers: the same way for the window and the command line. No torch."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmlab import __version__
from llmlab.core.config import differences, with_values
from llmlab.core.errors import LabError, UsageError, explained
from llmlab.core.files import new_folder
from llmlab.core.run_settings import RunSettings
from llmlab.core.setting_info import SettingInfo
from llmlab.jobs.worker_process import launch
from llmlab.notebook.locked import lock
from llmlab.notebook.predictions import Prediction
from llmlab.notebook.quantities import RUN
from llmlab.notebook.seals import seal_new
from llmlab.store import requests
from llmlab.store.checkpoints import Checkpoint, copy_into, list_checkpoints, unreadable, verify
from llmlab.store.registry import namesakes, short_name
from llmlab.store.run_folder import RunFolder, RunInfo, RunStatus
from llmlab.store.run_log import STEP_PREFIX
from llmlab.training import thread_spin
from llmlab.training.kinds import kind_of

# glibc gives large blocks back to the kernel, and every training step then faults the same pages in again.
# Keeping them, in huge pages, makes a step 1.4-1.8 times as fast on Linux (tests/benchmarks/). An address space
# of 1 TiB as threshold means "never give back".
_KEEP_PAGES = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776:glibc.malloc.hugetlb=1"

_LONGEST_SAID = 40  # characters of a name that is refused: one word of more would make a form as wide


def create_run(
    outputs: Path,
    settings: RunSettings,
    *,
    name: str | None = None,
    preset: str = "",
    parent: tuple[RunFolder, Checkpoint] | None = None,
    watched: bool = False,
    predictions: Sequence[Prediction | Mapping[str, Any]] = (),
    queued: str = "",
    threads: int = 0,
    precision: str = "",
) -> RunFolder:
    """A new run folder with run.json, state `queued`. No worker yet.

    name: the run's id; made from date, preset and corpus when not given. parent: the run and checkpoint that a
    branch begins from. watched: a window looks on, so the worker leaves one core to it. predictions: of the learner,
    locked with this. queued: the id of the queue's item that it is made from. threads: 0 lets its worker choose.
    precision: that "auto" takes on a processor; "": a branch has its parent's, else its worker chooses. Raises
    UsageError when the name is taken or cannot be a folder, or when there is no such corpus; LabError when the folder
    cannot be made.
    """
    track = settings.track
    if name is None:
        name = free_name(outputs, settings, preset)
    require_name(name, "a run", 100)
    settings = kind_of(settings).pinned(settings, outputs)
    if parent is not None:
        _check_branch(*parent, settings)
    run = RunFolder(outputs / track / name)
    origin: dict[str, Any] | None = None
    if parent is not None:
        origin = {"run": parent[0].id, "folder": str(parent[0].path)}
        origin |= {"checkpoint": parent[1].name, "step": parent[1].step}
        precision = precision or parent[0].info().precision_on_a_processor
    info = RunInfo(
        id=name,
        track=track,
        created=time.time(),
        settings=settings,
        preset=preset,
        parent=origin,
        queued=queued,
        watched=watched,
        predictions=lock(RUN, predictions),
        code_version=__version__,
        threads=threads,
        precision=precision,
    )
    claim_name(run)
    with explained(f"The run's folder could not be made in {outputs / track}.", "Choose another --outputs folder."):
        _make_folder(run, info, parent)
    seal_new(run, RUN, info.created, info.predictions)
    return run


def require_name(name: str, what: str, longest: int) -> None:
    """UsageError when `what` ("a run") cannot be called so: the name is a folder's, too."""
    wrong = re.search(r"[^A-Za-z0-9._+-]|^[._+-]", name)
    if wrong or not 0 < len(name) <= longest:
        said = name if len(name) <= _LONGEST_SAID else f"{name[:_LONGEST_SAID]}…"
        place = " at the start" if wrong and wrong[0] in "._+-" else ""
        which = f"{wrong[0]!r} is not allowed{place}: use" if wrong else "Use"
        raise UsageError(
            f"{said!r} cannot be {what}'s name.",
            f"{which} a to z, A to Z, digits and . _ + -, at most {longest} of them, the first a letter or a digit.",
        )


def require_free(run: RunFolder, renaming: bool = False) -> None:
    """UsageError when a run of any track has that id already: an id alone should say which run is meant.

    renaming: whether a run that is there gets that name, so that resuming the other is no way out.
    A run of that very folder that came to nothing does not hold the name: see `came_to_nothing`.
    """
    for other in (run, *namesakes(run)):
        if other.path.exists() and not (other is run and came_to_nothing(run)):
            resume = "." if renaming else f", or resume it: llmlab-run resume {other.id}"
            raise UsageError(
                f"A run named {run.id!r} is already there.", f"It is in {other.path}.", f"Choose another name{resume}"
            )


def claim_name(run: RunFolder) -> None:
    """`require_free`, and takes away a run of that name that came to nothing: out of sight in one rename, then its
    files. LabError when that is impossible."""
    require_free(run)
    if run.path.exists():
        aside = run.path.with_name(f".tmp-{run.id}-{uuid.uuid4().hex[:8]}")
        with explained(f"The failed run {run.path} could not be removed."):
            os.rename(run.path, aside)
        shutil.rmtree(aside, ignore_errors=True)


def came_to_nothing(run: RunFolder) -> bool:
    """Whether a run failed, or never began, before its first step, with nothing saved of its own: its name can be used
    again, and until then its log and its error can be read."""
    if not run.run_json.is_file() or run.status().state not in ("failed", "interrupted"):
        return False
    saved = list_checkpoints(run.checkpoints)
    if unreadable(run.checkpoints) or any(checkpoint.labels != ("branch",) for checkpoint in saved):
        return False
    try:
        with run.events.open("rb") as file:  # a damaged line tells of a step as well
            return not any(line.startswith(STEP_PREFIX) for line in file)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def free_name(outputs: Path, settings: RunSettings, preset: str) -> str:
    """A new run's id: when, from which preset, on which text."""
    track = outputs / settings.track
    text = re.sub(r"[^A-Za-z0-9]+", "-", Path(settings.reads).stem).strip("-") or "text"
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{preset or 'custom'}-{text}"[:80]
    name, number = stem, 1
    while (track / name).exists() or namesakes(RunFolder(track / name)):
        number += 1
        name = f"{stem}-{number}"
    return name


def _make_folder(run: RunFolder, info: RunInfo, parent: tuple[RunFolder, Checkpoint] | None) -> None:
    """All of a new run's folder, or nothing. Raises OSError."""
    with new_folder(run.path) as path:
        made = RunFolder(path)
        made.requests.mkdir()
        made.checkpoints.mkdir()
        if parent is not None:  # its own copies, so that the branch outlives its parent
            copy_into(made.checkpoints, parent[1], labels=("branch",))
            with contextlib.suppress(FileNotFoundError):  # its worker writes it too; with it, the branch can write now
                shutil.copyfile(parent[0].tokenizer_json, made.tokenizer_json)
            if parent[0].pieces.is_dir():
                shutil.copytree(parent[0].pieces, made.pieces)
        step = parent[1].step if parent is not None else 0
        made.write_status(RunStatus(step=step, heartbeat=time.time(), steps=info.settings.train.steps))
        made.write_info(info)


def _check_branch(parent: RunFolder, checkpoint: Checkpoint, settings: RunSettings) -> None:
    before = parent.info().settings
    if type(before) is not type(settings):
        raise UsageError(
            f"A branch of {parent.id} does what {parent.id} does.",
            "It either trains from scratch or fine-tunes.",
            f"Fine-tune it: llmlab-run finetune --model {parent.id}@{checkpoint.step}",
        )
    _refuse_unfit(differences(before, settings), settings)
    problem = verify(checkpoint)
    if problem is not None:
        raise LabError(f"A branch cannot begin from {parent.id}@{checkpoint.step}.", problem)
    if checkpoint.step >= settings.train.steps:
        raise UsageError(
            f"A branch from {parent.id}@{checkpoint.step} has nothing to do.",
            f"Its train.steps is {settings.train.steps}, and it begins at step {checkpoint.step}.",
            f"Give it more: --steps {2 * checkpoint.step}",
        )


def prepare_resume(run: RunFolder, overrides: Mapping[str, Any]) -> list[str]:
    """Changes a run's settings for its next worker; returns what changes, as sentences. Writes nothing if nothing does.

    Raises UsageError for what a run cannot change (its model and vocabulary: a checkpoint would not fit), when all
    planned steps are done, and for fewer steps than are done.
    """
    info = run.info()
    settings = with_values(info.settings, overrides)
    rows = differences(info.settings, settings)
    _refuse_unfit(rows, settings)
    saved = max((one.step for one in list_checkpoints(run.checkpoints)), default=0)
    if saved > settings.train.steps:
        raise UsageError(
            f"{run.id} cannot end at step {settings.train.steps}: it has saved step {saved}.",
            "",
            f"Give it at least --steps {saved}, or branch from an earlier checkpoint: --from {run.id}@STEP",
        )
    done = run.recorded_status()
    if done.state == "finished" and done.step >= settings.train.steps:
        raise UsageError(
            f"{run.id} is finished: all {settings.train.steps} steps are done.",
            "",
            f"Train it longer (--steps {2 * settings.train.steps}), or branch from one of its checkpoints.",
        )
    if rows:
        with explained(f"The settings in {run.path} could not be changed."):
            run.change_info(lambda now: replace(now, settings=settings))
    return [
        f"{changed.key}: {before} -> {after}"
        + ("; from here on the run differs from one left alone." if changed.exact else ".")
        for changed, before, after in rows
    ]


def _refuse_unfit(changes: Sequence[tuple[SettingInfo, Any, Any]], settings: RunSettings) -> None:
    """Raises UsageError for a change after which a checkpoint's weights mean nothing."""
    kind = kind_of(settings)
    for changed, before, after in changes:
        if not kind.fits(changed, settings):
            raise UsageError(
                f"{changed.key} cannot change from {before} to {after} in a run that exists, or in a branch of it.",
                "Its checkpoints would not fit.",
                "Start a new run with it.",
            )


def start_worker(run: RunFolder, *, follow_parent: bool = False) -> subprocess.Popen[bytes]:
    """Starts the process that trains `run`, from its newest checkpoint if it has one.

    follow_parent: the worker dies with this process (a command in a terminal); otherwise it outlives it (the
    window). Raises LabError when a worker is already there.
    """

    def begin(held: bool) -> RunStatus:
        status = run.recorded_status()
        if status.live and run.has_worker(status, held=held):
            raise already_trained(run, status)
        if status.attempt:  # an earlier worker may have left requests that nobody means any more
            requests.clear(run.requests)
        return replace(status, state="queued", heartbeat=time.time(), pid=None, error=None)

    return launch("llmlab.jobs.worker", run, begin, worker_environment(), die_with_parent=follow_parent)


def already_trained(run: RunFolder, status: RunStatus) -> LabError:
    """Why no worker can be started on a run that has one."""
    name, asks = short_name(run, run.outputs), "resume" if status.state == "paused" else "stop"
    do = f"Ask it: llmlab-run request {name} {asks}"
    if status.elsewhere:
        do += f". If you know that it is gone: llmlab-run resume {name} --take-over"
    return LabError(
        f"{run.id} is already being trained.",
        f"Process {status.pid}{f' on {status.host}' if status.elsewhere else ''} holds it.",
        do,
    )


def worker_environment() -> dict[str, str]:
    """What a process that trains finds in its environment: how it keeps memory, and how its threads wait."""
    environment = dict(thread_spin.environment())
    if sys.platform == "linux":
        earlier = os.environ.get("GLIBC_TUNABLES")
        environment["GLIBC_TUNABLES"] = f"{earlier}:{_KEEP_PAGES}" if earlier else _KEEP_PAGES
    return environment


def request(run: RunFolder, name: requests.RequestName, **options: Any) -> None:
    """Asks whoever trains `run`. Raises LabError when nobody does, or the request cannot be written."""
    status = run.status()
    if not status.live:
        raise LabError(
            f"{run.id} is not running (it is {status.state}).",
            "Only a live run answers requests.",
            f"Resume it: llmlab-run resume {short_name(run, run.outputs)}",
        )
    with explained(f"The request could not be written to {run.requests}."):
        requests.send(run.requests, name, **options)
