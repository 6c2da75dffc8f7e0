"""Which runs test the claims about grokking, at each size of a check. No torch.

Every seed is trained with the weight decay that makes it generalise and, where the claim on weight decay is asked for,
without any, and longer. All read all of their training sums in each step.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from llmlab.core.task_settings import MODULAR, TaskDataSettings, TaskSettings
from llmlab.studies.papers.interface import PaperPlan, PlannedRun
from llmlab.training.task import step_seconds

# Claims, as resources/papers/grokking/claims.toml names them.
LATE, WEIGHT_DECAY, FOURIER, PROGRESS = TESTED = ("late", "weight-decay", "fourier", "progress")
FIRST_SEED = 1
WITH, WITHOUT = "with weight decay", "without weight decay"  # groups of runs that verdicts rest on
BETWEEN = "less weight decay"  # a group that is shown beside them
_MORE = 1_000_000  # checkpoints to keep: all


@dataclass(frozen=True)
class Size:
    """seeds: trained unless told otherwise. data, settings: of all runs, beside what `_run` adds.

    decay, steps: of the runs that are to generalise; every: steps between their checkpoints. without_steps: of the
    runs without weight decay, with a checkpoint in a hundred of them. between: weaker decays, on the first seed.
    """

    seeds: int
    data: TaskDataSettings
    settings: dict[str, Any]
    decay: float
    steps: int
    every: int
    without_steps: int
    between: tuple[float, ...] = ()


def _data(modulus: int, share: float) -> TaskDataSettings:
    return TaskDataSettings(task=MODULAR, modulus=modulus, train_share=share)


# Found by trying some fifteen settings, nearly all on seeds from 11 on, until runs generalised within a minute of one
# core and clearly after the fit: at weight decay 1 the delay was 7 to 26 times, around the bound, so half
# of it was taken.
_SMALL: dict[str, Any] = {"model.n_embd": 48, "train.learning_rate": 1e-2, "train.grad_clip": 1.0}
# Between the two; planned, and not yet run.
_MIDDLE: dict[str, Any] = {"model.n_embd": 64, "train.learning_rate": 3e-3, "train.grad_clip": 1.0}
# Nanda et al. 2023, appendix: one layer of width 128 with four heads, AdamW at 1e-3 with weight decay 1, 40,000 epochs.
_PAPER: dict[str, Any] = {"model.n_embd": 128, "train.learning_rate": 1e-3, "train.grad_clip": 0.0}

_BETWEEN = (0.3, 0.1)
SIZES = {
    "minutes": Size(5, _data(31, 0.4), _SMALL, 0.5, steps=2500, every=20, without_steps=7000),
    "hour": Size(5, _data(41, 0.35), _MIDDLE, 1.0, steps=6000, every=25, without_steps=25_000, between=_BETWEEN),
    "paper": Size(5, _data(113, 0.3), _PAPER, 1.0, steps=40_000, every=100, without_steps=200_000, between=_BETWEEN),
}


def planned_runs(size: str, claims: Collection[str], seeds: int = 0) -> list[PlannedRun]:
    """The runs that claims need, the first seed of everything first. seeds: 0 takes the size's own."""
    chosen = SIZES[size]
    runs = []
    for seed in range(FIRST_SEED, FIRST_SEED + (seeds or chosen.seeds)):
        runs.append(_run(chosen, seed, chosen.decay, WITH))
        if WEIGHT_DECAY in claims:
            runs.append(_run(chosen, seed, 0.0, WITHOUT))
            if seed == FIRST_SEED:
                runs += [_run(chosen, seed, decay, BETWEEN) for decay in chosen.between]
    return runs


def _run(size: Size, seed: int, decay: float, group: str) -> PlannedRun:
    data = size.data
    steps, every = (size.steps, size.every) if group == WITH else (size.without_steps, size.without_steps // 100)
    settings = size.settings | {
        "data.task": MODULAR,
        "data.modulus": data.modulus,
        "data.train_share": data.train_share,
        "data.batch_size": data.train_sums,
        "model.n_layer": 1,
        "model.n_head": 4,
        "train.seed": seed,
        "train.threads": 1,  # a step is a few milliseconds: threads would wait for one another
        "train.steps": steps,
        "train.weight_decay": decay,
        "train.schedule": "constant",
        "train.warmup_steps": 10,
        "train.beta2": 0.98,
        "train.log_interval": every,
        "train.eval_interval": every,
        "train.eval_sequences": data.modulus**2 - data.train_sums,
        "checkpoints.interval": every,
        "checkpoints.keep_last": _MORE,
    }
    return PlannedRun(f"decay-{decay:g}-s{seed}", seed, settings, group)


def _measuring_seconds(settings: TaskSettings) -> float:
    """Of each checkpoint: all sums read once. Measured: 2.6 s for 125 of the smallest size."""
    return settings.train.steps / settings.checkpoints.interval * (0.01 + step_seconds(settings))


PLAN = PaperPlan(
    "grokking", TESTED, "llmlab.studies.papers.grokking.judge", planned_runs, measuring_seconds=_measuring_seconds
)
