"""The settings of a run with a sealed fault: pretraining at the baby size, and the seal. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from llmlab.core.run_settings import CheckpointSettings, RunWords, SampleSettings
from llmlab.core.setting_info import setting
from llmlab.core.settings import DataSettings, ModelSettings, PretrainSettings, PretrainTrainSettings


@dataclass(frozen=True)
class SealSettings:
    """What is wrong with the run, sealed."""

    token: str = setting("", "Seal of what is wrong with the run (llmlab/mysteries/faults.py).", advanced=True)


def _train() -> PretrainTrainSettings:
    """A good rate for this size, and few enough steps for a minute. On the CPU, where the tell-tales were measured."""
    return PretrainTrainSettings(
        steps=400,
        learning_rate=3e-3,
        min_learning_rate=3e-4,
        warmup_steps=50,
        eval_interval=50,
        eval_sequences=48,
        sample_interval=100,
        device="cpu",
        precision="fp32",
        compile="off",
    )


@dataclass(frozen=True)
class MysterySettings(PretrainSettings):
    """As of a run from scratch, whatever is wrong. The training text is short, so that held-out text is harder.

    rebuilt_by: MODULE:FUNCTION that makes of a fresh GPT the one that is trained, which may be built wrongly.
    """

    track = "mysteries"
    noun = "a run with a sealed fault"
    trained_by = "llmlab.mysteries.kind:Mystery"
    rebuilt_by = "llmlab.mysteries.broken_model:rebuild"

    model: ModelSettings = field(default_factory=lambda: ModelSettings(dropout=0.1))
    data: DataSettings = field(
        default_factory=lambda: DataSettings(tokenizer="char", order="sliding", train_tokens=60_000)
    )
    train: PretrainTrainSettings = field(default_factory=_train)
    samples: SampleSettings = field(default_factory=SampleSettings)
    checkpoints: CheckpointSettings = field(
        default_factory=lambda: CheckpointSettings(interval=0, best=False, per_decade=1)
    )
    mystery: SealSettings = field(default_factory=SealSettings)

    @property
    def words(self) -> RunWords:
        words = super().words
        return replace(words, does="mystery", makes=f"mystery: {words.makes}")
