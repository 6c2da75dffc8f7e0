"""Runs of an experiment without training: finished, with the losses that a test says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes import FakeRun
from preset_settings import resolve_settings

from llmlab.core.settings import PretrainSettings
from llmlab.store.events import Evaluated
from llmlab.studies.experiments.kinds import find_kind
from llmlab.studies.experiments.plan import Request, make_plan
from llmlab.studies.launcher import create_experiment
from llmlab.studies.plans.records import ExperimentFolder, Trial, settings_of

STEPS = 20


def experiment(outputs: Path, kind: str, **more: Any) -> ExperimentFolder:
    """A planned pretraining experiment, `x`."""
    settings = resolve_settings("baby", overrides={"train.steps": STEPS, "train.eval_interval": 10})
    return create_experiment(outputs, make_plan(Request(find_kind(kind), settings, outputs, id="x", **more)))


def finish(
    folder: ExperimentFolder,
    trial: Trial,
    val_loss: float,
    *,
    train_loss: float = 1.0,
    best: float = 9.0,
    steps: int = STEPS,
    **about: Any,
) -> FakeRun:
    """The trial's run, from its first step to its last. best: validation loss half-way. about: what FakeRun takes."""
    settings = settings_of(folder.record(), trial)
    assert isinstance(settings, PretrainSettings)
    fake = FakeRun(folder.outputs, trial.run, steps=steps, seed=trial.seed, settings=settings, created=1.75e9, **about)
    fake.start()
    for step, val in ((0, 4.2), (steps // 2, best), (steps, val_loss)):
        fake.advance(step - fake.step, evaluate=False)
        fake.append(Evaluated(step, fake.time_of(step), train_loss if step else 4.2, val, True, 0.1))
    return fake.finish()


def finish_all(folder: ExperimentFolder, loss: Callable[[Trial], float], **about: Any) -> None:
    """Every trial but those to be predicted."""
    for trial in folder.record().trials:
        if not trial.forecast:
            finish(folder, trial, loss(trial), **about)
