"""Which runs test which claims, at each size of a check. No torch.

The transformer learns every task from every seed; the models beside it learn the bijection once, from the first seed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from llmlab.papers.plan import PaperPlan, PlannedRun
from llmlab.papers.settings import BIJECTION, DUPLICATES, HMM, LSTM, MLP_POSITION, MLP_PREFIX, TRANSFORMER

CALIBRATION, MANIFOLD, KEYS, CAUSAL = TESTED = ("calibration", "manifold", "keys", "causal")
BASELINES = (LSTM, MLP_POSITION, MLP_PREFIX)
FIRST_SEED = 1
# Tasks that a claim is read on. The geometry is read where entropy varies at each place.
_ON_DUPLICATES = dict.fromkeys((MANIFOLD, KEYS, CAUSAL), (DUPLICATES,))
_TASKS = {CALIBRATION: (BIJECTION, DUPLICATES, HMM), **_ON_DUPLICATES}


@dataclass(frozen=True)
class Size:
    """seeds: trained unless told otherwise. tasks: settings by task. sequences: held-out ones for the measurement."""

    seeds: int
    tasks: dict[str, dict[str, Any]]
    sequences: int = 2000


_SMALL: dict[str, Any] = {"model.n_layer": 2, "model.n_head": 4, "model.n_embd": 64, "data.batch_size": 128}
_SMALL |= {"train.learning_rate": 3e-3, "train.min_learning_rate": 0.0}
_SMALL_HMM: dict[str, Any] = {"data.states": 3, "data.symbols": 3, "data.length": 10, "model.n_layer": 3}
# The paper's own (I): 50,000 steps of 256 at 3e-4; 19 pairs of 20 values, and 5 states over 20 observations.
_PAPER: dict[str, Any] = {"data.batch_size": 256, "train.steps": 50_000}
_PAPER |= {"train.learning_rate": 3e-4, "train.min_learning_rate": 3e-5}
_PAPER |= {"train.warmup_steps": 1000, "train.eval_interval": 2500, "checkpoints.interval": 2500}
_PAPER_BIJECTION = _PAPER | {"data.values": 20, "model.n_layer": 6, "model.n_head": 6, "model.n_embd": 192}

SIZES = {
    "minutes": Size(
        5,
        {
            BIJECTION: _SMALL | {"data.values": 8, "data.pairs": 7, "train.steps": 2000},
            DUPLICATES: _SMALL | {"data.values": 8, "data.pairs": 12, "train.steps": 1000},
            HMM: _SMALL | _SMALL_HMM | {"train.steps": 2000},
        },
    ),
    "hour": Size(
        5,
        {
            BIJECTION: _SMALL | {"data.values": 8, "data.pairs": 7, "train.steps": 8000},
            DUPLICATES: _SMALL | {"data.values": 8, "data.pairs": 12, "train.steps": 5000},
            HMM: _SMALL | _SMALL_HMM | {"train.steps": 8000},
        },
    ),
    "paper": Size(
        5,
        {
            BIJECTION: _PAPER_BIJECTION | {"data.pairs": 19},
            DUPLICATES: _PAPER_BIJECTION | {"data.pairs": 30},
            HMM: _PAPER
            | {"data.states": 5, "data.symbols": 5, "data.length": 20, "data.layout": "numbers"}
            | {"model.n_layer": 9, "model.n_head": 8, "model.n_embd": 256},
        },
        sequences=5000,
    ),
}


def planned_runs(size: str, claims: Collection[str], seeds: int = 0) -> list[PlannedRun]:
    """The runs that claims (of TESTED) need, the first seed of everything first. seeds: 0 takes the size's own."""
    chosen = SIZES[size]
    tasks = [task for task in chosen.tasks if any(task in _TASKS[claim] for claim in claims)]
    runs = []
    for seed in range(FIRST_SEED, FIRST_SEED + (seeds or chosen.seeds)):
        runs += [_run(chosen, task, TRANSFORMER, seed) for task in tasks]
        if seed == FIRST_SEED and CALIBRATION in claims:
            runs += [_run(chosen, BIJECTION, kind, seed) for kind in BASELINES]
    return runs


def _run(size: Size, task: str, kind: str, seed: int) -> PlannedRun:
    settings = size.tasks[task] | {"data.task": task, "model.kind": kind, "train.seed": seed}
    beside = "" if kind == TRANSFORMER else f"-{kind}"
    return PlannedRun(f"{task}{beside}-s{seed}", seed, settings, f"{task}{beside}")


def _judging_seconds(size: str, claims: Collection[str], _models: int) -> float:
    """Of the geometry: about four seconds a model, trained or with random weights (measured on one core)."""
    seeds = SIZES[size].seeds
    return 4.0 * ((seeds + 10) * bool({MANIFOLD, KEYS} & {*claims}) + seeds * (CAUSAL in claims))


PLAN = PaperPlan("bayesian-geometry", TESTED, "llmlab.papers.bayesian_geometry.judge", planned_runs, _judging_seconds)
