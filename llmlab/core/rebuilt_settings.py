"""The settings of runs that train with pieces of the learner's own: from scratch, or a fine-tuning. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from llmlab.core.errors import UsageError
from llmlab.core.finetuning_settings import LORA, FinetuneSettings
from llmlab.core.run_settings import RunSettings, RunWords
from llmlab.core.setting_info import setting
from llmlab.core.settings import ModelSettings, PretrainSettings

_SIZES = {"n_layer", "n_head", "n_embd", "block_size", "vocab_multiple"}
# What the pieces compute: GPT-2's form without biases. Each setting, and the values that it may have.
_PLAIN: dict[str, tuple[object, ...]] = {
    **{f"model.{one.name}": (one.default,) for one in fields(ModelSettings) if one.name not in _SIZES},
    "train.optimizer": ("adamw",),
    "train.schedule": ("cosine",),
    "train.ema_decay": (0.0,),
    "train.activation_checkpointing": (False,),
    "train.compile": ("auto", "off"),
    "distributed.strategy": ("none",),
}
# The same of the LoRA layer: W x + (alpha / rank) B A x beside a frozen matrix, and nothing else.
_PLAIN_LORA: dict[str, tuple[object, ...]] = {
    "model.method": (LORA,),
    "model.backend": ("peft", "auto"),
    "lora.dropout": (0.0,),
    "distributed.strategy": ("none",),
}


@dataclass(frozen=True)
class PiecesSettings:
    """What of the run is the learner's."""

    yours: tuple[str, ...] = setting(
        (),
        "Pieces of your own that the run trains with in place of the lab's; copies of them lie in its folder.",
        advanced=True,
    )


@dataclass(frozen=True)
class RebuiltSettings(PretrainSettings):
    """As of a run from scratch, in the plain form that the pieces have."""

    track = "rebuilt"
    noun = "a run with pieces of yours"
    trained_by = "llmlab.exercises.rebuilding:Rebuilding"

    pieces: PiecesSettings = field(default_factory=PiecesSettings)

    @property
    def words(self) -> RunWords:
        return _theirs(super().words, self.pieces)

    def __post_init__(self) -> None:
        super().__post_init__()
        why = "The pieces build GPT-2's form, without biases and dropout, trained by AdamW in one process."
        _require(self, _PLAIN, why)


@dataclass(frozen=True)
class RetunedSettings(FinetuneSettings):
    """As of fine-tuning with LoRA, with the learner's layer."""

    track = "rebuilt-finetuning"
    noun = "a fine-tuning run with your LoRA"
    trained_by = "llmlab.exercises.rebuilding:Retuning"

    pieces: PiecesSettings = field(default_factory=PiecesSettings)

    @property
    def words(self) -> RunWords:
        return _theirs(super().words, self.pieces)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self, _PLAIN_LORA, "Your LoRA is a layer without dropout beside a weight that is not in 4 bits.")


def _theirs(words: RunWords, pieces: PiecesSettings) -> RunWords:
    names = ", ".join(pieces.yours)
    return replace(
        words,
        does=f"{words.does}, yours",
        makes=f"{words.makes}, with pieces of yours",
        facts={**words.facts, "yours": names},
        details=[*words.details, f"Yours: {names}"],
        summary={**words.summary, "yours": names},
    )


def _require(settings: RunSettings, plain: Mapping[str, tuple[object, ...]], why: str) -> None:
    """UsageError for what the pieces have no place for."""
    wrong = {}
    for key, values in plain.items():
        section, name = key.split(".")
        value = getattr(getattr(settings, section), name)
        if value not in values:
            wrong[key] = value
    if wrong:
        raise UsageError(
            f"A run with pieces of yours cannot have {', '.join(f'{key}={has}' for key, has in wrong.items())}.",
            why,
            f"Add {' '.join(f'--set {key}={_shown(plain[key][0])}' for key in wrong)}",
        )


def _shown(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value
