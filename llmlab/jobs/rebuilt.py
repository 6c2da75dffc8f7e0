"""A run with pieces of the learner's own, the lab's own run beside it, and what the two have come to. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from llmlab.core.config import from_mapping, to_mapping, with_values
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.rebuilt_settings import RebuiltSettings, RetunedSettings
from llmlab.core.settings import PretrainSettings
from llmlab.exercises.pieces import Workbook
from llmlab.exercises.rebuilding import put_pieces, usable
from llmlab.jobs.launcher import create_run, free_name
from llmlab.notebook.predictions import Prediction
from llmlab.store.history import RunHistory
from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder, RunInfo


def make_yours(
    outputs: Path,
    names: Sequence[str],
    settings: PretrainSettings | FinetuneSettings,
    *,
    name: str | None = None,
    preset: str = "",
    watched: bool = False,
    predictions: Sequence[Prediction] = (),
) -> RunFolder:
    """A new run with those pieces, or all that have passed: from scratch, or a fine-tuning with LoRA. UsageError for a
    piece or a setting that cannot be used."""
    workbook = Workbook(outputs)
    chosen = usable(workbook, names, settings)
    kind = RetunedSettings if isinstance(settings, FinetuneSettings) else RebuiltSettings
    mine = with_values(from_mapping(kind, to_mapping(settings)), {"pieces.yours": tuple(chosen)})
    name = name or _untaken(outputs, f"yours-{free_name(outputs, mine, preset)}")
    run = create_run(outputs, mine, name=name, preset=preset, watched=watched, predictions=predictions)
    put_pieces(run, workbook)
    return run


def twin_of(run: RunFolder) -> RunFolder | None:
    """The lab's own finished run of the same settings, seed and precision, the newest; None where there is none."""
    info = run.info()
    plain = plain_settings(info)
    for other in list_runs(run.outputs):
        if other.path.parent.name != plain.track or other.recorded_status().state != "finished":
            continue
        theirs = other.info()
        if theirs.settings == plain and theirs.precision_on_a_processor == info.precision_on_a_processor:
            return other
    return None


def make_ours(run: RunFolder, *, watched: bool = False) -> RunFolder:
    """A new run of the lab's own, of the same settings and seed; beside one that was stopped or failed, another."""
    info = run.info()
    name = _untaken(run.outputs, f"ours-{run.id.removeprefix('yours-')}")  # what differs stands first: names are cut
    return create_run(
        run.outputs,
        plain_settings(info),
        name=name,
        preset=info.preset,
        watched=watched,
        precision=info.precision_on_a_processor,
    )


def _untaken(outputs: Path, stem: str) -> str:
    """The stem, with a number where a run has that name."""
    taken = {run.id for run in list_runs(outputs)}
    return next(name for n in count(1) if (name := stem if n == 1 else f"{stem}-{n}") not in taken)


def plain_settings(info: RunInfo) -> PretrainSettings | FinetuneSettings:
    """The settings of a run with pieces, without them."""
    values = to_mapping(info.settings)
    del values["pieces"]
    if isinstance(info.settings, FinetuneSettings):
        return from_mapping(FinetuneSettings, values)
    return from_mapping(PretrainSettings, values)


@dataclass(frozen=True)
class Beside:
    """Two runs of one seed. losses: step, validation loss of yours, of ours, where both were measured. speeds: the
    median of tokens a second; 0 where nothing was trained."""

    losses: list[tuple[int, float, float]]
    your_speed: float
    our_speed: float


def beside(yours: RunHistory, ours: RunHistory) -> Beside:
    """What two runs have come to so far."""
    mine = {event.step: event.val_loss for event in yours.evaluated}
    theirs = {event.step: event.val_loss for event in ours.evaluated}
    losses = [(step, mine[step], theirs[step]) for step in sorted(mine.keys() & theirs.keys())]
    return Beside(losses, _speed(yours), _speed(ours))


def _speed(history: RunHistory) -> float:
    speeds = history.step_columns["tokens_per_second"]
    known = speeds[np.isfinite(speeds)]
    return float(np.median(known)) if len(known) else 0.0
