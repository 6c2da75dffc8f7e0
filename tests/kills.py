"""Killing a run at random moments and comparing its end with that of a run left alone."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from preset_settings import resolve_settings

from llmlab.core.run_settings import RunSettings
from llmlab.core.settings import PretrainSettings
from llmlab.jobs.launcher import create_run, start_worker
from llmlab.store.checkpoints import STATE_FILE, select
from llmlab.store.run_folder import RunFolder

# How long a worker may take at most, on a busy machine.
_SECONDS = 240
# Fields of a step event that training decides, and not the clock.
DETERMINED = ("step", "loss", "lr", "grad_norm", "tokens")


def small_settings(steps: int, **overrides: Any) -> PretrainSettings:
    """A run of seconds in which everything happens that can go wrong: dropout, accumulation, evaluation, samples."""
    values: dict[str, Any] = {
        "model.n_layer": 2,
        "model.n_head": 2,
        "model.n_embd": 32,
        "model.block_size": 32,
        "model.dropout": 0.1,
        "data.corpus": "tiny",
        "data.tokenizer": "char",
        "data.batch_size": 4,
        "train.steps": steps,
        "train.grad_accum": 2,
        "train.warmup_steps": 5,
        "train.eval_interval": 10,
        "train.eval_sequences": 4,
        "train.sample_interval": 25,
        "train.threads": 1,
        "samples.tokens": 8,
        "checkpoints.interval": 7,
    }
    return resolve_settings("baby", overrides=values | {key.replace("__", "."): v for key, v in overrides.items()})


class Worker(Protocol):
    """What a worker's process answers: a subprocess.Popen, or a fork (tests/forks.py)."""

    @property
    def returncode(self) -> int | Any: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...


def train_to_the_end(run: RunFolder, start: Callable[[RunFolder], Worker] = start_worker) -> None:
    """Runs a worker and waits for it."""
    assert start(run).wait(_SECONDS) == 0, run.log.read_text()[-2000:]


def train_with_kills(
    run: RunFolder, kills: int, seed: int, longest: float = 4.0, start: Callable[[RunFolder], Worker] = start_worker
) -> int:
    """Kills workers with SIGKILL after random times until `kills` are done or the run is finished; then finishes it.

    longest: seconds that a worker may live; the shortest is a twentieth of it, so that some die before they train.
    Returns how many were killed while they lived.
    """
    moments = random.Random(seed)
    killed = 0
    while killed < kills and run.status().state != "finished":
        worker = start(run)
        try:
            worker.wait(moments.uniform(longest / 20, longest))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
            killed += 1
        else:
            assert worker.returncode == 0, run.log.read_text()[-2000:]
    if run.status().state != "finished":
        train_to_the_end(run, start)
    return killed


def final_tensors(run: RunFolder) -> dict[str, torch.Tensor]:
    """Every weight and optimizer tensor of the final checkpoint, what an average is of, and torch's random state."""
    folder = select(run.checkpoints, "final").path
    state = torch.load(folder / STATE_FILE, weights_only=True)
    tensors = dict(safetensors.torch.load_file(select(run.checkpoints, "final").weights))
    tensors |= {f"{name}/{key}": value for name, values in state["optimizer"].items() for key, value in values.items()}
    tensors |= {f"{name}/trained": value for name, value in state.get("weights", {}).items()}
    return tensors | {"random": state["random"]["torch"]}


def events_of(run: RunFolder, kind: str) -> list[dict[str, Any]]:
    """The run's events of one kind; fails on a line that is not JSON."""
    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    return [event for event in events if event["event"] == kind]


def differences(left_alone: RunFolder, killed: RunFolder) -> list[str]:
    """What differs between two runs that should have ended alike; empty when nothing does."""
    found = []
    ours, theirs = final_tensors(left_alone), final_tensors(killed)
    if ours.keys() != theirs.keys():
        found.append(f"tensors: {sorted(ours.keys() ^ theirs.keys())}")
    found += [name for name in ours.keys() & theirs.keys() if not torch.equal(ours[name], theirs[name])]
    for kind, fields in (("step", DETERMINED), ("evaluated", ("step", "train_loss", "val_loss", "best"))):
        rows = [
            [tuple(event[field] for field in fields) for event in events_of(run, kind)] for run in (left_alone, killed)
        ]
        if rows[0] != rows[1]:
            found.append(f"{kind} events: {len(rows[0])} and {len(rows[1])}")
    if events_of(left_alone, "sampled")[-1]["samples"] != events_of(killed, "sampled")[-1]["samples"]:
        found.append("samples")
    return found


def compare_with_kills(outputs: Path, settings: RunSettings, kills: int, seed: int, longest: float = 4.0) -> str:
    """One line on what came out; raises AssertionError when the runs differ."""
    begin = time.monotonic()
    alone = create_run(outputs, settings, name=f"alone-{seed}")
    train_to_the_end(alone)
    killed = create_run(outputs, settings, name=f"killed-{seed}")
    count = train_with_kills(killed, kills, seed, longest)
    found = differences(alone, killed)
    assert not found, found
    attempts = killed.recorded_status().attempt
    return f"{count} kills, {attempts} workers that began, {time.monotonic() - begin:.0f} s: equal"
