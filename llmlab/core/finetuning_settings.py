"""The settings of a fine-tuning run. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from llmlab.core.errors import UsageError
from llmlab.core.run_settings import (
    CheckpointSettings,
    DistributedSettings,
    RunSettings,
    RunWords,
    SampleSettings,
    TrainSettings,
    require_decay,
)
from llmlab.core.setting_info import setting

LORA, QLORA, FULL = "lora", "qlora", "full"
_TITLES = {LORA: "LoRA", QLORA: "QLoRA", FULL: "full fine-tuning"}
# Which linear layers of a block get an adapter: names are of the parts, not of the modules, which differ by family.
ATTENTION, FEED_FORWARD, ALL = "attention", "feed_forward", "all"


@dataclass(frozen=True)
class BaseSettings:
    """What is fine-tuned, and how."""

    base: str = setting("", "The model to start from: RUN@WHICH, a Hugging Face folder or hub name, a GGUF file.")
    method: str = setting(
        LORA,
        "lora: small matrices beside the frozen weights. qlora: the same, with the frozen weights in 4 bits. "
        "full: every weight.",
        choices=(LORA, QLORA, FULL),
    )
    backend: str = setting(
        "auto",
        "Who inserts the adapters: peft anywhere, unsloth on CUDA where it is installed; auto takes peft.",
        choices=("auto", "peft", "unsloth"),
        advanced=True,
    )


@dataclass(frozen=True)
class LoraSettings:
    """The adapters: W x becomes W x + (alpha / rank) B A x (Hu et al. 2021). Not used when method is full."""

    rank: int = setting(8, "Rank of an adapter: in how many directions it can change a matrix.", low=1, high=4096)
    alpha: float = setting(16.0, "The adapter's output is scaled by alpha / rank.", low=0.0, high=65536.0)
    dropout: float = setting(0.0, "Share of an adapter's inputs dropped at random.", low=0.0, high=0.9)
    targets: str = setting(
        ALL,
        "Which linear layers get an adapter: those of attention, of the feed-forward, or all.",
        choices=(ATTENTION, FEED_FORWARD, ALL),
    )


@dataclass(frozen=True)
class ExampleSettings:
    """What is learned, and how it is cut into batches."""

    source: str = setting(
        "tasks", "Examples by name (`tasks` is built in), a .jsonl, .csv or .parquet file, or a data set of the hub."
    )
    max_length: int = setting(
        256, "Tokens of an example that are read; the rest is truncated.", unit="tokens", low=8, high=65536
    )
    batch_size: int = setting(8, "Examples in one forward pass.", unit="examples", low=1, high=65536)
    train_on: str = setting(
        "answers", "Which tokens count in the loss: those of the answers, or all.", choices=("answers", "all")
    )
    packing: bool = setting(
        False,
        "Put several short examples into one row, so that less of it is padding. Refused for models that would read "
        "them as one text.",
    )
    val_fraction: float = setting(0.1, "Share of the examples held out for validation.", low=0.001, high=0.5)
    max_examples: int = setting(
        0, "Read at most this many examples; 0 means all.", unit="examples", low=0, advanced=True
    )
    scored: int = setting(
        32,
        "Held-out items that the model answers before and after, checked by a program; 0 means none.",
        unit="items",
        low=0,
        high=100_000,
        exact=False,
    )


@dataclass(frozen=True)
class FinetuneTrainSettings(TrainSettings):
    """How a model that exists learns."""

    activation_checkpointing: bool = setting(
        False,
        "Keep only each block's input for the backward pass, and compute its other activations again there: less "
        "memory, about half as much time again (a third where every weight learns), and the same losses to the last "
        "bit. Unsloth always uses its own way.",
        advanced=True,
        exact=False,
    )


def _train() -> FinetuneTrainSettings:
    """Fine-tuning's own defaults: few steps, constant rate after a short warm-up, no decay of adapters."""
    return FinetuneTrainSettings(
        steps=200,
        learning_rate=1e-3,
        min_learning_rate=0.0,
        schedule="linear",
        warmup_steps=10,
        weight_decay=0.0,
        beta2=0.999,
        eval_interval=50,
        eval_sequences=64,
        sample_interval=100,
    )


@dataclass(frozen=True)
class FinetuneSettings(RunSettings):
    """All that decides a fine-tuning run. Order: preset, then file, then --set.

    In `train` and `samples`, a window is an example; no prompts means the first held-out ones.
    """

    track = "finetuning"
    noun = "a fine-tuning run"
    trained_by = "llmlab.training.finetuning.kind:Finetuning"

    model: BaseSettings = field(default_factory=BaseSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    data: ExampleSettings = field(default_factory=ExampleSettings)
    train: FinetuneTrainSettings = field(default_factory=_train)
    samples: SampleSettings = field(default_factory=lambda: SampleSettings(prompts=(), tokens=48, temperature=0.0))
    checkpoints: CheckpointSettings = field(default_factory=lambda: replace(CheckpointSettings(), interval=100))
    distributed: DistributedSettings = field(default_factory=DistributedSettings)

    @property
    def tokens_per_step(self) -> int:
        return self.train.grad_accum * self.data.batch_size * self.data.max_length

    @property
    def reads(self) -> str:
        return self.data.source

    @property
    def base(self) -> str:
        return self.model.base

    @property
    def words(self) -> RunWords:
        model, lora, data = self.model, self.lora, self.data
        full = model.method == FULL
        size = model.method if full else f"{model.method} r{lora.rank}"
        adapters = "" if full else f", rank {lora.rank}, alpha {lora.alpha:g}, on {lora.targets}"
        return RunWords(
            does=model.method if full else f"{model.method}, rank {lora.rank}",
            makes=f"{_TITLES[model.method]} of {Path(model.base).name} on {Path(data.source).name}",
            size=size,
            facts={"base": f"{model.base}, {size}", "examples": data.source},
            details=[
                f"Base {model.base}",
                f"Method {model.method}{adapters}",
                f"Examples {data.source}, {data.batch_size} a batch, at most {data.max_length} tokens each",
            ],
            summary={"base": model.base, "method": model.method, "source": data.source},
        )

    def __post_init__(self) -> None:
        """Refuses combinations that no single range can."""
        require_decay(self.train, "Set train.min_learning_rate=0.")
        if self.model.method == FULL and self.model.backend == "unsloth":
            raise UsageError("Unsloth inserts adapters only.", "", "Set model.backend=peft for model.method=full.")
        strategy = self.distributed.strategy
        if self.model.backend == "unsloth" and strategy != "none":
            raise UsageError(
                "Unsloth trains in one process.",
                f"distributed.strategy={strategy} needs several.",
                "Set model.backend=peft, or distributed.strategy=none.",
            )
