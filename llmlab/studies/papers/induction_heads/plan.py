"""Which runs test which claims, at each size of a check. No torch.

Models of two layers learn to copy from every seed, and beside them models of one layer, equal but for that.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from llmlab.core.task_settings import REPEATS, ROTARY, TaskSettings
from llmlab.studies.papers.interface import PaperPlan, PlannedRun
from llmlab.training.task import step_seconds

LAYERS, CHANGE, COMPOSITION = TESTED = ("two-layers", "phase-change", "composition")
TWO, ONE = "two layers", "one layer"
FIRST_SEED = 1
# Held-out sequences on which the loss of every checkpoint is measured: about 3,000 predictions.
SEQUENCES = 128

# Attention alone, width 64 with 4 heads, batches of 32 at a rate of 1e-3: what small reproductions of the paper use.
# Positions are rotated, as in Singh et al. 2024: with learned ones two layers need several times as many steps
# (measured). The rate is constant, so that no schedule gives the curves their shape.
_SMALL: dict[str, Any] = {
    "data.task": REPEATS,
    "data.batch_size": 32,
    "model.n_head": 4,
    "model.n_embd": 64,
    "model.feed_forward": False,
    "model.position": ROTARY,
    "train.learning_rate": 1e-3,
    "train.schedule": "constant",
    "train.eval_sequences": SEQUENCES,
    "checkpoints.keep_last": 1000,
}
# Checkpoints of two layers are the points of the curves; of one layer a few do.
_STEPS: dict[str, dict[str, dict[str, Any]]] = {
    "minutes": {
        TWO: {"train.steps": 1500, "train.eval_interval": 100, "checkpoints.interval": 50},
        ONE: {"train.steps": 1500, "train.eval_interval": 100, "checkpoints.interval": 100},
    },
    # Ten times as much for one layer: it might only be slow.
    "hour": {
        TWO: {"train.steps": 3000, "train.eval_interval": 100, "checkpoints.interval": 25},
        ONE: {"train.steps": 15_000, "train.eval_interval": 500, "checkpoints.interval": 500},
    },
    "paper": {
        TWO: {"train.steps": 20_000, "train.eval_interval": 500, "checkpoints.interval": 100},
        ONE: {"train.steps": 20_000, "train.eval_interval": 500, "checkpoints.interval": 500},
    },
}
# As wide as the paper's own small models, which learn from text (width 768, 12 heads); for a GPU.
_WIDE: dict[str, Any] = {"model.n_head": 12, "model.n_embd": 768, "train.learning_rate": 3e-4}
_SEEDS = 5


def planned_runs(size: str, claims: Collection[str], seeds: int = 0) -> list[PlannedRun]:
    """The runs that claims (of TESTED) need, seed by seed. seeds: 0 takes five. One layer is for LAYERS alone."""
    runs = []
    for seed in range(FIRST_SEED, FIRST_SEED + (seeds or _SEEDS)):
        runs.append(_run(size, TWO, 2, seed))
        if LAYERS in claims:
            runs.append(_run(size, ONE, 1, seed))
    return runs


def _run(size: str, group: str, layers: int, seed: int) -> PlannedRun:
    settings = _SMALL | (_WIDE if size == "paper" else {}) | _STEPS[size][group]
    settings |= {"model.n_layer": layers, "train.seed": seed}
    return PlannedRun(f"{group.replace(' ', '-')}-s{seed}", seed, settings, group)


def _measuring_seconds(settings: TaskSettings) -> float:
    """Of each checkpoint, and of what is removed from the last one: SEQUENCES read without a backward pass, and heads
    scored. Fitted to two runs, 3.6 and 0.9 s."""
    points = settings.train.steps / settings.checkpoints.interval + 13 * (settings.model.n_layer - 1)
    return float(points * (0.065 + 1.4 * step_seconds(settings)))


# All is measured run by run; what is left is arithmetic.
PLAN = PaperPlan(
    "induction-heads",
    TESTED,
    "llmlab.studies.papers.induction_heads.judge",
    planned_runs,
    measuring_seconds=_measuring_seconds,
)
