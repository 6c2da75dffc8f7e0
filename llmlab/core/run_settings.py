"""What every run's settings have, of whatever kind. Those of one kind stand in a file of their own, beside this one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from llmlab.core.errors import UsageError
from llmlab.core.setting_info import setting


@dataclass(frozen=True)
class TrainSettings:
    """How the model learns."""

    steps: int = setting(2000, "Optimizer steps in all.", unit="steps", low=1, high=1_000_000_000)
    learning_rate: float = setting(1e-3, "Peak learning rate, after warm-up.", low=0.0, high=10.0)
    min_learning_rate: float = setting(1e-4, "Learning rate at the end of the decay.", low=0.0, high=10.0)
    schedule: str = setting(
        "cosine",
        "Learning rate after warm-up: cosine or linear decay, constant, or wsd (constant, then a linear decay).",
        choices=("cosine", "linear", "constant", "wsd"),
    )
    warmup_steps: int = setting(100, "Steps over which the learning rate rises from zero.", unit="steps", low=0)
    decay_fraction: float = setting(
        0.2, "Last share of the steps in which wsd decays.", low=0.0, high=1.0, advanced=True
    )
    grad_accum: int = setting(
        1, "Batches whose gradients are added before one optimizer step.", unit="batches", low=1, high=65536
    )
    grad_clip: float = setting(1.0, "Largest norm of the gradient; 0 means no clipping.", low=0.0)
    weight_decay: float = setting(
        0.1, "AdamW's, and Muon's, decay of matrices (not of biases and norms).", low=0.0, high=10.0
    )
    beta1: float = setting(0.9, "AdamW's memory of the gradient.", low=0.0, high=0.9999, advanced=True)
    beta2: float = setting(0.99, "AdamW's memory of the squared gradient.", low=0.0, high=0.99999, advanced=True)
    seed: int = setting(1337, "Seed of weights, batches and dropout.", low=0, high=2**31 - 1)
    log_interval: int = setting(
        1, "Steps between `step` events.", unit="steps", low=1, high=1_000_000, advanced=True, exact=False
    )
    eval_interval: int = setting(
        250, "Steps between measurements of train and validation loss; 0 means never.", unit="steps", low=0, exact=False
    )
    eval_early: bool = setting(
        True,
        "Also measure after 10, 30, 100, 300 ... steps until the first interval is over: the loss falls fastest there.",
        advanced=True,
        exact=False,
    )
    eval_sequences: int = setting(
        192, "Fixed sequences of each split that a measurement reads.", unit="sequences", low=1, exact=False
    )
    sample_interval: int = setting(
        500, "Steps between samples of generated text; 0 means never.", unit="steps", low=0, exact=False
    )
    early_stop: int = setting(
        0, "Stop after this many measurements without a better validation loss; 0 means never.", low=0, advanced=True
    )
    device: str = setting("auto", "Where to compute.", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = setting(
        "auto",
        "Of matrix products; weights stay in fp32. auto: bf16 on a GPU that has it, and on a processor with units for "
        "it (AMX) for a GPT from scratch above 3 GFLOP a batch with n_embd of 96 or more, in one process; else fp32. "
        "doctor compares speeds.",
        choices=("auto", "fp32", "bf16", "fp16"),
        advanced=True,
    )
    threads: int = setting(
        0, "Processor threads; 0 means all, or all but one while a window is watching.", low=0, high=1024, advanced=True
    )
    compile: str = setting(
        "auto",
        "torch.compile for a GPT that learns from scratch. auto: on CUDA, for runs of more than about 3 minutes; there "
        "nanoGPT's README gives 135 ms a step in place of 250. Compiling takes up to a minute. On a CPU it saves 1 to "
        "5 % of a step and takes 45 s.",
        choices=("auto", "on", "off"),
        advanced=True,
    )


@dataclass(frozen=True)
class SampleSettings:
    """The texts that show how generation changes."""

    prompts: tuple[str, ...] = setting(("\n", "The king"), "Prompts that every sample continues.")
    tokens: int = setting(120, "Length of a sample.", unit="tokens", low=1, high=4096)
    temperature: float = setting(0.8, "0 takes the most likely token; higher is wilder.", low=0.0, high=10.0)
    top_k: int = setting(50, "Sample from this many of the most likely tokens; 0 means all.", low=0, advanced=True)


@dataclass(frozen=True)
class CheckpointSettings:
    """What is kept. A final checkpoint is always saved."""

    interval: int = setting(500, "Steps between periodic checkpoints; 0 means never.", unit="steps", low=0, exact=False)
    keep_last: int = setting(
        2, "Periodic checkpoints kept; best, final, log-spaced and pinned ones are kept besides.", low=0, exact=False
    )
    best: bool = setting(True, "Save when the validation loss is the best so far.", exact=False)
    per_decade: int = setting(
        0,
        "Log-spaced checkpoints per factor of ten in steps, all kept: 10 means steps 1, 2, 3, 4, 5, 6, 8, 10, 13 …, "
        "for Evolution; 0 means none.",
        low=0,
        high=100,
        exact=False,
    )

    def periodic(self, steps: int) -> int:
        """How many periodic checkpoints a run of so many steps saves."""
        return steps // self.interval if self.interval else 0

    def log_spaced(self, steps: int) -> list[int]:
        """The steps of the log-spaced ones, up to `steps`: 10^(k / per_decade) for k = 0, 1, 2 ..., rounded."""
        if not self.per_decade:
            return []
        ends = range(math.ceil(self.per_decade * math.log10(steps + 1)) + 1)
        return sorted({step for k in ends if (step := round(10 ** (k / self.per_decade))) <= steps})

    def at_once(self, steps: int) -> int:
        """How many there are at once, at most: periodic, log-spaced, best, final, and the one being written."""
        return min(self.keep_last, self.periodic(steps)) + len(self.log_spaced(steps)) + self.best + 2


@dataclass(frozen=True)
class DistributedSettings:
    """Training on several processes at once: llmlab/training/parallel.py says what each strategy does."""

    strategy: str = setting(
        "none",
        "none: one process. ddp: each process holds the whole model and reads its part of every batch. fsdp2: each "
        "also holds only a part of the model, for models that do not fit into one process's memory.",
        choices=("none", "ddp", "fsdp2"),
    )
    processes: int = setting(
        2,
        "Processes on this machine; strategy none has one. Where you start them with torchrun, its number counts.",
        low=1,
        high=1024,
    )
    timeout: int = setting(
        45,  # with the 12 that who hears a SIGTERM takes to end (llmlab.jobs.worker), less than a minute
        "How long the others wait in a step for a process that does not answer, before the run fails.",
        unit="seconds",
        low=1,
        high=86400,
        advanced=True,
        exact=False,
    )

    @property
    def count(self) -> int:
        """How many processes train a run that is started on this machine alone."""
        return 1 if self.strategy == "none" else self.processes


@dataclass(frozen=True)
class RunWords:
    """A run as people read it.

    does: `pretraining`, `lora, rank 8`, `task, lstm`. makes: what of what, in a few words: `LoRA of gpt2 on tasks`.
    size: of what learns, in a table: `4x128`, `lora r8`. facts: the lines that describe it, by their labels. details:
    more of them, each a line by itself. summary: what tells it from others, by the names that `llmlab-run runs --json`
    has.
    """

    does: str
    makes: str
    size: str
    facts: dict[str, str]
    details: list[str]
    summary: dict[str, str]


class RunSettings(ABC):
    """All that decides a run, and what people are told of it. A kind of training has a subclass: see core/kinds.py.

    track: its name in files, and the folder of outputs/ that its runs are in. noun: what a run of it is.
    trained_by: MODULE:CLASS of its `llmlab.training.kinds.TrainingKind` (`core.kinds.registered` imports it).
    """

    track: ClassVar[str]
    noun: ClassVar[str]
    trained_by: ClassVar[str]

    model: Any
    data: Any
    train: TrainSettings
    samples: SampleSettings
    checkpoints: CheckpointSettings
    distributed: DistributedSettings = DistributedSettings()  # of kinds that only one process trains

    @property
    @abstractmethod
    def tokens_per_step(self) -> int:
        """Tokens that an optimizer step reads, at most."""

    @property
    @abstractmethod
    def reads(self) -> str:
        """What it learns from: a corpus, examples, or a task."""

    @property
    def base(self) -> str:
        """The model that it begins from; nothing from scratch."""
        return ""

    @property
    def tokenizer(self) -> str:
        """The kind of the lab's own tokenizers that it reads with; nothing where there is none."""
        return ""

    @property
    @abstractmethod
    def words(self) -> RunWords:
        """What people are told of it."""

    @property
    def title(self) -> str:
        """What it makes, and for how long."""
        return f"{self.words.makes}, {self.train.steps:,} steps"


def require_decay(train: TrainSettings, do: str) -> None:
    """UsageError where the learning rate would rise to its minimum. do: what to set."""
    if train.min_learning_rate > train.learning_rate and train.schedule != "constant":
        raise UsageError(
            f"train.min_learning_rate ({train.min_learning_rate:g}) is above "
            f"train.learning_rate ({train.learning_rate:g}).",
            "The schedule decays towards the minimum.",
            do,
        )
