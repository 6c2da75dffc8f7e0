"""The recipes of a speedrun: from a baseline to a preset's settings, one lever at a time, and each left out alone.

Every recipe but the baseline trains for the record's steps, so that their losses compare; the baseline and the record
compare in time. No torch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from llmlab.core.config import flat, to_mapping, with_values
from llmlab.core.errors import UsageError
from llmlab.core.presets import DEFAULT_PRESET, load_preset
from llmlab.core.settings import PretrainSettings

RECORD_PRESET = "quick"
BASELINE, ADDED, WITHOUT, RECORD = PARTS = ("baseline", "added", "without", "record")
FEWER_STEPS = "fewer steps"
# What the record's preset has otherwise, in the order in which it is added; a lever whose settings are the baseline's
# is none. Numbers of steps keep their share of all steps.
LEVERS: dict[str, tuple[str, ...]] = {
    "rates": ("train.learning_rate", "train.min_learning_rate", "train.schedule", "train.warmup_steps"),
    "rotary": ("model.position",),
    "RMSNorm": ("model.norm",),
    "squared ReLU": ("model.activation",),
    "Muon": ("train.optimizer", "train.muon_learning_rate", "train.weight_decay", "train.muon_iterations"),
    "Muon by head": ("train.muon_heads",),
    "QK-norm": ("model.qk_norm",),
    "zero init": ("model.zero_init",),
    "untied head": ("model.untied_head",),
    "softcap": ("model.logit_softcap",),
    "value residuals": ("model.value_residual",),
    "batch": ("data.batch_size", "data.batch_warmup_steps"),
    "length warm-up": ("data.length_warmup_steps",),
    "averaging": ("train.ema_decay",),
}
_STEPS = ("train.warmup_steps", "data.batch_warmup_steps", "data.length_warmup_steps")


@dataclass(frozen=True)
class Recipe:
    """One row of the speedrun. part: of PARTS. lever: what was added or left out. levers: how many it has."""

    part: str
    lever: str
    levers: int
    settings: dict[str, Any]


def recipes(base: PretrainSettings, parts: Collection[str]) -> list[Recipe]:
    """The baseline; the same for fewer steps, with one lever after the other; the record, and it without each lever.

    UsageError where nothing tells the baseline from the record.
    """
    goal = load_preset(RECORD_PRESET).settings
    share = goal.train.steps / load_preset(DEFAULT_PRESET).settings.train.steps
    fewer = _in_steps(base, share)
    wanted, here = flat(to_mapping(goal)), flat(to_mapping(with_values(base, fewer)))
    grown = fewer["train.steps"] / goal.train.steps
    wanted |= {key: round(grown * wanted[key]) for key in _STEPS}
    levers = {
        lever: changed
        for lever, keys in LEVERS.items()
        if (changed := {key: wanted[key] for key in keys if wanted[key] != here[key]})
    }
    if not levers:
        raise UsageError(
            f"There is no lever between this baseline and the preset {RECORD_PRESET}.",
            "A speedrun goes from the one to the other.",
            f"Start from another preset: --preset {DEFAULT_PRESET}.",
        )
    made = [Recipe(BASELINE, "", 0, {}), Recipe(ADDED, FEWER_STEPS, 0, fewer)]
    together = dict(fewer)
    for number, (lever, changed) in enumerate(levers.items(), start=1):
        together |= changed
        made.append(Recipe(ADDED if number < len(levers) else RECORD, lever, number, dict(together)))
    for number, (lever, changed) in enumerate(levers.items(), start=1):
        without = {key: fewer.get(key) if key in changed else value for key, value in together.items()}
        without = {key: value for key, value in without.items() if value is not None}
        made.append(Recipe(WITHOUT, lever, number, without))
    return [recipe for recipe in made if recipe.part in parts]


def _in_steps(base: PretrainSettings, share: float) -> dict[str, Any]:
    """What makes a run shorter: its steps, and all that is counted in them."""
    here = flat(to_mapping(base))
    keys = ("train.steps", "train.eval_interval", "checkpoints.interval", *_STEPS)
    return {key: max(1, round(share * here[key])) for key in keys if here[key]}
