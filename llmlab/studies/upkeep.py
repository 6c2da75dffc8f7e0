"""Deleting and renaming runs, and what else names them. No torch.

A run is named by branches (`parent` in run.json), by fine-tuning runs (`model.base`), by experiments and checks of
papers, by the queue and by the notebook.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from llmlab.core.config import with_values
from llmlab.core.errors import LabError, UsageError, explained
from llmlab.core.files import move_to_trash, remove_folder
from llmlab.core.progress import Progress, quiet
from llmlab.core.run_settings import RunSettings
from llmlab.jobs.launcher import claim_name, require_free, require_name
from llmlab.jobs.queue import QueuedRun, RunQueue
from llmlab.models.reference import parse, with_run
from llmlab.store.registry import list_runs, short_name
from llmlab.store.run_folder import RunFolder, RunInfo
from llmlab.studies.experiments.outcomes import read_results, write_results
from llmlab.studies.lab_notebook import lab_notebook
from llmlab.studies.plans.records import CheckFolder, ExperimentFolder, ExperimentRecord, list_plans

_BASE = "model.base"


def require_at_rest(run: RunFolder) -> None:
    """LabError while a process trains the run, or a plan that owns it is under way."""
    if run.status().live:
        why = "A run that is training or paused keeps its folder and its name."
        raise LabError(f"{run.id} has not ended.", why, "Stop it first.")
    for owner in _owners(run, _plans(run.outputs)):
        if owner.status().live:
            raise LabError(
                f"{run.id} belongs to {owner.id}, which is running.",
                f"The {owner.subject} would look for it.",
                f"Stop it first: {owner.cancel_command}",
            )


def what_rests_on(runs: Sequence[RunFolder]) -> list[list[str]]:
    """What would miss each of them if all were deleted, a sentence each; what is deleted with them misses nothing."""
    around = {outputs: _Around.read(outputs) for outputs in {run.outputs for run in runs}}
    gone = {run.path for run in runs}
    return [list(_resting(run, around[run.outputs], gone)) for run in runs]


def _resting(run: RunFolder, around: _Around, gone: Set[Path]) -> Iterator[str]:
    for other, info in around.runs:
        branch, fine_tuned = _is_parent(other, info, run), _mentions(info.settings.base, run)
        if not (branch or fine_tuned) or other.path in gone:
            continue
        name = short_name(other, run.outputs)
        if branch:
            yield f"{name} is a branch of it; what it began from was copied and stays."
        if fine_tuned:
            yield f"{name} cannot be opened without it: it is its base."
    for folder in _owners(run, around.plans):
        yield f"It belongs to the {folder.subject} {folder.id}."
    for item in around.waiting:
        if _mentions(item.settings.base, run):
            yield f"{item.name or 'A run'} waits in the queue and begins from it."


def delete_run(run: RunFolder, *, for_good: bool = False, progress: Progress = quiet) -> bool:
    """Moves a run to the system's trash; whether that could be done, since not every system and disk has one.

    for_good: without the trash, which may take a while; cancelled, the run is gone all the same. LabError for a live
    run, and when it cannot be deleted.
    """
    require_at_rest(run)
    with contextlib.suppress(LabError):  # what cannot be read or scored is no reason to keep it
        if run.info().predictions:
            lab_notebook(run.outputs).refresh()  # the entry outlives the run, and its outcome should, too
    if not for_good:
        return move_to_trash(run.path)
    with explained(f"{run.path} could not be deleted."):
        remove_folder(run.path, progress)
    return True


def require_new_name(run: RunFolder, new: str) -> RunFolder:
    """Where the run would be under that name. UsageError for one that is taken or cannot be one."""
    require_name(new, "a run", 100)
    renamed = RunFolder(run.path.with_name(new))
    if new == run.id:
        raise UsageError(f"{run.id} has that name already.", "", "Choose another.")
    if not _is_same_folder(run, renamed):
        require_free(renamed, renaming=True)
    return renamed


def _is_same_folder(run: RunFolder, renamed: RunFolder) -> bool:
    """Of `bar` and `Bar`, where case makes no difference."""
    return renamed.path.exists() and renamed.path.samefile(run.path)


def rename_run(run: RunFolder, new: str) -> RunFolder:
    """The run under another name; all that names it in its outputs folder names it so, too.

    Whoever is killed in between finds the run under its new name; to give the old one back restores the rest.
    UsageError for a name that is taken or cannot be one; LabError for a live run, and when a file cannot be written.
    """
    renamed = require_new_name(run, new)
    require_at_rest(run)
    if not _is_same_folder(run, renamed):
        claim_name(renamed)
    queue, book = RunQueue(run.outputs), lab_notebook(run.outputs)
    book.refresh()  # what was locked before there were seals is sealed under the name that it was locked with
    # What names it is looked for before the name changes: afterwards none of it would lead here.
    runs, plans = list(_changed_runs(run, renamed)), list(_changed_plans(run, renamed))
    waiting = {item.id: _moved(item.settings.base, run, renamed) for item in queue.read().items}
    with explained(f"{run.path} could not be renamed."):
        os.rename(run.path, renamed.path)
    try:
        renamed.change_info(lambda now: replace(now, id=new))
        for other, change in runs:
            other.change_info(change)
        for folder, record in plans:
            folder.write_record(record)
            _rename_in_results(folder, run, renamed)
        if any(waiting.values()):
            queue.change_each(lambda item: replace(item, settings=_with_base(item.settings, waiting.get(item.id))))
    except (OSError, LabError) as error:
        raise LabError(
            f"{run.id} is {new} now, but not all that names it could be changed.",
            f"{error}".rstrip(".") + ".",
            f"Give the old name back, which restores the rest: llmlab-run rename {new} {run.id}",
        ) from error
    book.refresh()  # it knows a run by the moment when it was made
    return renamed


# What names a run -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Around:
    """All of an outputs folder that may name a run, read once. What cannot be read names none that is known."""

    runs: list[tuple[RunFolder, RunInfo]]
    plans: list[tuple[ExperimentFolder, ExperimentRecord]]
    waiting: Sequence[QueuedRun]

    @staticmethod
    def read(outputs: Path) -> _Around:
        waiting: Sequence[QueuedRun] = ()
        with contextlib.suppress(LabError):
            waiting = RunQueue(outputs).read().items
        return _Around(list(_runs(outputs)), list(_plans(outputs)), waiting)


def _runs(outputs: Path) -> Iterator[tuple[RunFolder, RunInfo]]:
    for run in list_runs(outputs):
        with contextlib.suppress(LabError):
            yield run, run.info()


def _plans(outputs: Path) -> Iterator[tuple[ExperimentFolder, ExperimentRecord]]:
    for folder in (*list_plans(outputs, ExperimentFolder), *list_plans(outputs, CheckFolder)):
        with contextlib.suppress(LabError):
            yield folder, folder.record()


def _owners(run: RunFolder, plans: Iterable[tuple[ExperimentFolder, ExperimentRecord]]) -> Iterator[ExperimentFolder]:
    """Experiments and checks whose runs, or whose subject, it is."""
    for folder, record in plans:
        if run.path in [one.path for one in folder.runs_of(record)] or (
            record.subject and _mentions(record.subject, run)
        ):
            yield folder


def _is_parent(other: RunFolder, info: RunInfo, run: RunFolder) -> bool:
    """Whether `other` is a branch of `run`. Folders may have been moved since; both are of one track."""
    return (info.parent or {}).get("run") == run.id and other.path.parent == run.path.parent


def _mentions(text: str, run: RunFolder) -> bool:
    return _moved(text, run, run) is not None


def _moved(text: str, run: RunFolder, to: RunFolder) -> str | None:
    """A reference with `to` in the place of `run`; None where it names something else, or nothing here."""
    if run.id not in text:
        return None
    try:
        moved = with_run(parse(text, run.outputs), run.path.resolve(), to, by_track=run.full_name in text)
    except LabError:
        return None
    return None if moved is None else str(moved)


# Renaming -------------------------------------------------------------------------------------------------------


def _changed_runs(run: RunFolder, renamed: RunFolder) -> Iterator[tuple[RunFolder, Callable[[RunInfo], RunInfo]]]:
    """Branches and fine-tuned runs, with what changes in their run.json. Meanwhile they may train, or be predicted."""

    def change(info: RunInfo, base: str | None, *, branch: bool) -> RunInfo:
        origin = {"run": renamed.id, "folder": str(renamed.path)}
        parent = {**(info.parent or {}), **origin} if branch else info.parent
        return replace(info, parent=parent, settings=_with_base(info.settings, base))

    for other, info in _runs(run.outputs):
        base, branch = _moved(info.settings.base, run, renamed), _is_parent(other, info, run)
        if base is not None or branch:
            yield other, partial(change, base=base, branch=branch)


def _with_base(settings: RunSettings, base: str | None) -> RunSettings:
    return settings if base is None else with_values(settings, {_BASE: base})


def _changed_plans(run: RunFolder, renamed: RunFolder) -> Iterator[tuple[ExperimentFolder, ExperimentRecord]]:
    """Experiments and checks, with what their plan says then: runs, what is looked at, and the models named."""

    def moved(text: Any) -> Any:
        return (_moved(text, run, renamed) if isinstance(text, str) else None) or text

    for folder, record in _plans(run.outputs):
        trials = []
        for trial in record.trials:
            mine = folder.run_of(trial, record.track).path == run.path
            trials.append(
                replace(trial, run=renamed.id if mine else trial.run, settings=_with_models(trial.settings, moved))
            )
        changed = replace(
            record,
            trials=trials,
            subject=renamed.id if _mentions(record.subject, run) else record.subject,
            base=_with_models(record.base, moved),
            options=_with_models(record.options, moved),
        )
        if changed != record:
            yield folder, changed


def _with_models(values: Mapping[str, Any], moved: Callable[[Any], Any]) -> dict[str, Any]:
    """Settings or options with the models in them moved: `model.base`, flat or in its section, and `models`."""
    found = dict(values)
    if isinstance(found.get("model"), dict) and "base" in found["model"]:
        found["model"] = {**found["model"], "base": moved(found["model"]["base"])}
    if _BASE in found:
        found[_BASE] = moved(found[_BASE])
    if isinstance(found.get("models"), list):
        found["models"] = [moved(model) for model in found["models"]]
    return found


def _rename_in_results(folder: ExperimentFolder, run: RunFolder, renamed: RunFolder) -> None:
    results = read_results(folder)  # None of a check, whose verdicts name no run
    if results is not None and any(trial.run == run.id for trial in results.trials):
        trials = [replace(trial, run=renamed.id) if trial.run == run.id else trial for trial in results.trials]
        write_results(folder, replace(results, trials=trials))
