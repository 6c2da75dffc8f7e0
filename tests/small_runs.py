"""Runs of a second, trained inside the test's process, and reading what they left."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import safetensors.torch
import torch
from kills import small_settings

from llmlab.core.settings import PretrainSettings
from llmlab.jobs import worker
from llmlab.jobs.launcher import create_run
from llmlab.store.checkpoints import MODEL_FILE, select
from llmlab.store.run_folder import RunFolder
from llmlab.training.loop import Loop


class Killed(BaseException):
    """A process that is gone."""


def quick_settings(steps: int = 12, **overrides: Any) -> PretrainSettings:
    """The settings of `small_settings`, smaller: a step takes a few milliseconds. `section__field=value`."""
    values = {
        "model__n_layer": 1,
        "model__n_embd": 16,
        "model__block_size": 16,
        "train__eval_interval": 4,
        "train__sample_interval": 0,
        "samples__tokens": 4,
        "checkpoints__interval": 5,
    }
    return small_settings(steps, **(values | overrides))


def new_run(outputs: Path, steps: int = 12, name: str = "run", **overrides: Any) -> RunFolder:
    """A run that no worker has seen."""
    return create_run(outputs, quick_settings(steps, **overrides), name=name)


def train_here(run: RunFolder) -> RunFolder:
    """Trains to the end in this process, as a worker would; the peak of the machine is not measured but assumed."""
    with mock.patch.object(worker, "peak_flops", return_value=1e11):
        worker.train_run(run)
    return run


def all_events(run: RunFolder) -> list[dict[str, Any]]:
    """Every line of events.jsonl; fails on one that is not JSON."""
    return [json.loads(line) for line in run.events.read_text().splitlines()]


def names_of_events(run: RunFolder) -> list[str]:
    """The kinds of all events, in order."""
    return [event["event"] for event in all_events(run)]


def weights_of(run: RunFolder, which: str = "latest") -> dict[str, torch.Tensor]:
    """The tensors in model.safetensors of a checkpoint."""
    return safetensors.torch.load_file(select(run.checkpoints, which).path / MODEL_FILE)


def same_weights(first: RunFolder, second: RunFolder, which: str = "final") -> bool:
    """Whether two runs' checkpoints hold bitwise equal weights."""
    a, b = weights_of(first, which), weights_of(second, which)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@contextlib.contextmanager
def in_step(number: int, does: Callable[[], object], *, rank: int = 0, behind: bool = False) -> Iterator[None]:
    """A process of that rank does something as it begins that step, or behind it; holds for forks that begin inside."""
    plain = Loop.optimizer_step

    def step(self: Loop) -> Any:
        its = self.processes.rank == rank and self.progress.step + 1 == number
        if its and not behind:
            does()
        result = plain(self)
        if its and behind:
            does()
        return result

    with mock.patch.object(Loop, "optimizer_step", step):
        yield


def kill_in_step(run: RunFolder, number: int) -> None:
    """Trains until the optimizer is about to take that step, and is gone."""
    with in_step(number, mock.Mock(side_effect=Killed)), pytest.raises(Killed):
        train_here(run)


def kill_and_resume(run: RunFolder, before_step: int) -> RunFolder:
    """The same after so many steps; then it is trained again to its end."""
    kill_in_step(run, before_step + 1)
    return train_here(run)
