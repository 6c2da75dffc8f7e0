"""Which runs test which claims, at each size of a check. No torch.

The transformer learns every task from every seed. Models that it is held against, and deeper ones, are trained from as
many seeds as a verdict needs; those that are shown and not judged, once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from llmlab.core.task_settings import BIJECTION, DUPLICATES, HMM, LSTM, MLP_POSITION, MLP_PREFIX, TRANSFORMER
from llmlab.data.papers import NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import SEEDS_AGREEING
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.interface import PaperPlan, PlannedRun
from llmlab.studies.papers.records import Verdict

# ours: the picture is there when both of its static parts hold, and one of those that say what it does.
STATIC = ("manifold", "keys")
DYNAMIC = ("alignment", "focusing", "causal")
CALIBRATION, ARCHITECTURE, MANIFOLD, KEYS = "calibration", "architecture", "manifold", "keys"
ALIGNMENT, FOCUSING, CAUSAL, LAYERS, REAL_MODELS = "alignment", "focusing", "causal", "layers", "real-models"
TESTED = (CALIBRATION, ARCHITECTURE, MANIFOLD, KEYS, ALIGNMENT, FOCUSING, CAUSAL, LAYERS, REAL_MODELS)
OF_MODELS = (FOCUSING, REAL_MODELS)
# Task by task, the models without attention that are claimed to fail though they see the same evidence.
RIVALS = {BIJECTION: (MLP_PREFIX,), HMM: (LSTM, MLP_PREFIX)}
# Of the bijection: the LSTM matches by the paper's own table, and an MLP that sees one token can learn only the prior.
SHOWN = (LSTM, MLP_POSITION)
FIRST_SEED = 1
_SHAPE_SECONDS, _QUERY_SECONDS, _CHANGE_SECONDS = 1.5, 1.0, 2.0
# Of a pretrained model of 135 million parameters, on two cores; larger ones take longer in proportion. How much more
# the other sizes read.
MODEL_SECONDS = {FOCUSING: 100.0, REAL_MODELS: 350.0}
_TIMES = {"minutes": 1.0, "hour": 3.0, "paper": 6.0}
DEEP = "duplicates-deep"  # the bijection with repeats, learned by more layers


@dataclass(frozen=True)
class Size:
    """How much is trained.

    seeds: trained unless told otherwise. tasks: settings by group of runs: a task, or DEEP. rivals: tasks that models
    without attention learn beside the transformer. sequences: held-out ones for the measurement.
    """

    seeds: int
    tasks: dict[str, dict[str, Any]]
    rivals: tuple[str, ...] = (BIJECTION,)
    sequences: int = 2000

    @property
    def deep(self) -> str:
        """The group with layers enough for a trend over them."""
        return DEEP if DEEP in self.tasks else DUPLICATES

    def groups(self, claim: str) -> tuple[str, ...]:
        """Which runs of the transformer a claim is read on. Geometry is read where entropy varies at each position."""
        if claim == ARCHITECTURE:
            return self.rivals
        if claim in OF_MODELS:
            return ()
        if claim in (ALIGNMENT, LAYERS):
            return (self.deep,)
        return (BIJECTION, DUPLICATES, HMM) if claim == CALIBRATION else (DUPLICATES,)


_SMALL: dict[str, Any] = {"model.n_layer": 2, "model.n_head": 4, "model.n_embd": 64, "data.batch_size": 128}
_SMALL |= {"train.learning_rate": 3e-3, "train.min_learning_rate": 0.0}
_SMALL_HMM: dict[str, Any] = {"data.states": 3, "data.symbols": 3, "data.length": 10, "model.n_layer": 3}
# Six layers as in the paper, as narrow as still learns the task in about 40 seconds of two cores.
_SMALL_DEEP: dict[str, Any] = {"data.values": 8, "data.pairs": 12, "data.batch_size": 64}
_SMALL_DEEP |= {"model.n_layer": 6, "model.n_head": 2, "model.n_embd": 48}
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
            DEEP: _SMALL | _SMALL_DEEP | {"train.steps": 1200},
        },
    ),
    "hour": Size(
        5,
        {
            BIJECTION: _SMALL | {"data.values": 8, "data.pairs": 7, "train.steps": 8000},
            DUPLICATES: _SMALL | {"data.values": 8, "data.pairs": 12, "train.steps": 5000},
            HMM: _SMALL | _SMALL_HMM | {"train.steps": 8000},
            DEEP: _SMALL | _SMALL_DEEP | {"train.steps": 5000},
        },
        rivals=(BIJECTION, HMM),
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
        rivals=(BIJECTION, HMM),
        sequences=5000,
    ),
}


def planned_runs(size: str, claims: Collection[str], seeds: int = 0) -> list[PlannedRun]:
    """The runs that claims (of TESTED) need, the first seed of everything first. seeds: 0 takes the size's own."""
    chosen = SIZES[size]
    needed = {group for claim in claims for group in chosen.groups(claim)}
    full = {group for claim in claims if claim != ARCHITECTURE for group in chosen.groups(claim)} - {DEEP}
    runs = []
    for number in range(seeds or chosen.seeds):
        seed, few = FIRST_SEED + number, number < SEEDS_AGREEING
        runs += [_run(chosen, group, TRANSFORMER, seed) for group in chosen.tasks if group in (needed if few else full)]
        if ARCHITECTURE in claims and few:
            runs += [_run(chosen, task, kind, seed) for task in chosen.rivals for kind in RIVALS[task]]
        if ARCHITECTURE in claims and number == 0:
            runs += [_run(chosen, BIJECTION, kind, seed) for kind in SHOWN]
    return runs


def _run(size: Size, group: str, kind: str, seed: int) -> PlannedRun:
    task = DUPLICATES if group == DEEP else group
    settings = size.tasks[group] | {"data.task": task, "model.kind": kind, "train.seed": seed}
    name = group if kind == TRANSFORMER else f"{group}-{kind}"
    return PlannedRun(f"{name}-s{seed}", seed, settings, name)


def _judging_seconds(size: str, claims: Collection[str], models: float) -> float:
    """Of the geometry. Processor seconds of a model, trained or with random weights, measured on one core."""
    seeds = SIZES[size].seeds
    few, random = min(seeds, SEEDS_AGREEING), bounds.RANDOM_MODELS
    seconds = 0.0
    if {MANIFOLD, KEYS} & {*claims}:  # the HMM's are there when calibration is asked for
        seconds += _SHAPE_SECONDS * (seeds + random) * (1 + (CALIBRATION in claims))
    seconds += _QUERY_SECONDS * (few + random) * (ALIGNMENT in claims)
    seconds += models * sum(MODEL_SECONDS[claim] for claim in OF_MODELS if claim in claims) * _TIMES[size]
    return seconds + _CHANGE_SECONDS * (seeds * (CAUSAL in claims) + few * (LAYERS in claims))


def overall(verdicts: Sequence[Verdict]) -> str:
    """Whether the picture as a whole is there: it needs manifold, keys and a dynamic claim. "" without any of them."""
    found = {one.claim: one.verdict for one in verdicts}
    if not found.keys() & {*STATIC, *DYNAMIC}:
        return ""
    static = [found.get(claim) for claim in STATIC]
    dynamic = [found.get(claim) for claim in DYNAMIC]
    if static == [SUPPORTED] * len(STATIC) and SUPPORTED in dynamic:
        word = "supported"
    elif NOT_SUPPORTED in static or dynamic == [NOT_SUPPORTED] * len(DYNAMIC):
        word = "not supported"
    else:
        word = "open"
    told = ", ".join(f"{claim} {found.get(claim, 'not judged')}" for claim in (*STATIC, *DYNAMIC))
    names = {"static": " and ".join(STATIC), "dynamic": ", ".join(DYNAMIC)}
    return bounds.TEXTS.say("overall", word=word, told=told, **names)


PLAN = PaperPlan(
    "bayesian-geometry",
    TESTED,
    "llmlab.studies.papers.bayesian_geometry.judge",
    planned_runs,
    _judging_seconds,
    of_models=OF_MODELS,
    overall=overall,
)
