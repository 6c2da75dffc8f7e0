"""What every run's settings have, and the settings of a pretraining run."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

from llmlab.core.config import setting
from llmlab.core.errors import UsageError

# Longest warm-up of batches or lengths. Their tokens are summed step by step, also while someone types in the form:
# that takes 80 ms. GPT-3's went over some ten thousand steps.
_WARMUP_STEPS = 100_000


@dataclass(frozen=True)
class ModelSettings:
    """The shape of the GPT. Names as in GPT-2."""

    n_layer: int = setting(4, "Transformer blocks, one after the other.", unit="layers", low=1, high=200)
    n_head: int = setting(
        4, "Attention heads in each block; they split the width among them.", unit="heads", low=1, high=256
    )
    n_kv_head: int = setting(
        0,
        "Heads that keys and values have (grouped-query attention); 0 means as many as n_head.",
        unit="heads",
        low=0,
        high=256,
        advanced=True,
    )
    n_embd: int = setting(
        128, "Width of the residual stream; a multiple of n_head.", unit="values per token", low=8, high=16384
    )
    block_size: int = setting(64, "Context: how many tokens the model sees at once.", unit="tokens", low=2, high=65536)
    dropout: float = setting(0.0, "Share of activations dropped at random while training.", low=0.0, high=0.9)
    bias: bool = setting(False, "Bias vectors in linear layers and norms, as GPT-2 has.")
    norm: str = setting(
        "layernorm", "How the residual stream is normalised before it is read.", choices=("layernorm", "rmsnorm")
    )
    position: str = setting(
        "learned",
        "How a token knows its position: one learned vector per position (GPT-2) or rotated queries and keys (RoPE).",
        choices=("learned", "rotary"),
    )
    activation: str = setting(
        "gelu",
        "The feed-forward's non-linearity: GELU as GPT-2 approximates it, GELU itself (a tenth of a small model's step "
        "faster on a CPU), gated SwiGLU (Llama) or squared ReLU (Primer).",
        choices=("gelu", "gelu_exact", "swiglu", "relu2"),
    )
    qk_norm: bool = setting(
        False,
        "RMSNorm on the queries and keys of each head, which keeps attention scores small (Qwen3).",
        advanced=True,
    )
    zero_init: bool = setting(
        False,
        "The projections into the residual stream begin at zero, so that a new block changes nothing (Fixup).",
        advanced=True,
    )
    untied_head: bool = setting(
        False,
        "The head has a matrix of its own; GPT-2's is the token embedding, used a second time.",
        advanced=True,
    )
    logit_softcap: float = setting(
        0.0,
        "Logits stay between minus and plus this, by a tanh (Gemma 2: 30); 0 means no bound.",
        low=0.0,
        high=1000.0,
        advanced=True,
    )
    value_residual: bool = setting(
        False,
        "Each block's attention values are mixed with the first block's, in a learned proportion (ResFormer).",
        advanced=True,
    )
    mup_base_width: int = setting(
        0,
        "muP: the width at which the learning rate was chosen. Initialisation, rates and two multipliers then depend "
        "on n_embd, so that the best rate stays about the same in a wider model; 0 means off.",
        unit="values per token",
        low=0,
        high=16384,
        advanced=True,
    )
    vocab_multiple: int = setting(
        1,
        "Round the vocabulary up to a multiple of this; 64 is faster on a GPU.",
        unit="tokens",
        low=1,
        high=1024,
        advanced=True,
    )


@dataclass(frozen=True)
class DataSettings:
    """What is read, and how it is cut into batches."""

    corpus: str = setting(
        "shakespeare",
        "A corpus by name, or a path to your own .txt, folder, .jsonl or .parquet. Several with weights are mixed, "
        "sequence by sequence: austen:0.7,shakespeare:0.3.",
    )
    tokenizer: str = setting(
        "gpt2",
        "gpt2: GPT-2's 50,257 tokens. char: characters. compact: only those GPT-2 tokens that occur (losses not "
        "comparable with gpt2). bpe: tokens learned from the corpus.",
        choices=("gpt2", "char", "compact", "bpe"),
    )
    bpe_vocab_size: int = setting(
        2048, "Tokens that the bpe tokenizer learns.", unit="tokens", low=257, high=200000, advanced=True
    )
    batch_size: int = setting(12, "Sequences in one forward pass.", unit="sequences", low=1, high=65536)
    order: str = setting(
        "random",
        "random: sequences from anywhere. sliding: every sequence once per epoch, shuffled.",
        choices=("random", "sliding"),
    )
    stride: int = setting(
        0,
        "Distance between the starts of sliding sequences; 0 means block_size (no overlap).",
        unit="tokens",
        low=0,
        high=65536,
        advanced=True,
    )
    batch_warmup_steps: int = setting(
        0,
        "Steps over which a step's sequences rise from one to batch_size x grad_accum; 0 means no warm-up. What a "
        "smaller batch leaves out of a sliding epoch is not read in it.",
        unit="steps",
        low=0,
        high=_WARMUP_STEPS,
        advanced=True,
    )
    length_warmup_steps: int = setting(
        0,
        "Steps over which sequences grow from 8 tokens to block_size, cut at their end; 0 means no warm-up.",
        unit="steps",
        low=0,
        high=_WARMUP_STEPS,
        advanced=True,
    )
    val_fraction: float = setting(0.1, "Share of the corpus held out for validation.", low=0.001, high=0.5)
    split: str = setting(
        "position",
        "position: the end of the text is held out. documents: whole documents are.",
        choices=("position", "documents"),
    )
    max_tokens: int = setting(
        0, "Read at most this many tokens of the corpus; 0 means all.", unit="tokens", low=0, advanced=True
    )
    train_tokens: int = setting(
        0,
        "Train on the first so many tokens, with vocabulary and held-out text as ever; 0 means all.",
        unit="tokens",
        low=0,
        advanced=True,
    )


def mixture_parts(corpus: str) -> list[tuple[str, str]]:
    """`books:0.7,web:0.3` as names and weights; nothing where that is one corpus."""
    parts = [part.strip().rpartition(":") for part in corpus.split(",")]
    if len(parts) < 2 or not all(name and re.fullmatch(r"\d+(\.\d+)?", weight) for name, _, weight in parts):
        return []
    return [(name.strip(), weight) for name, _, weight in parts]


def corpus_title(corpus: str) -> str:
    """A corpus as it stands in a run's title: a path without its folders."""
    parts = mixture_parts(corpus)
    return ",".join(f"{Path(name).name}:{weight}" for name, weight in parts) if parts else Path(corpus).name


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
    eval_windows: int = setting(
        192, "Fixed sequences of each split that a measurement reads.", unit="sequences", low=1, exact=False
    )
    sample_interval: int = setting(
        500, "Steps between samples of the model's writing; 0 means never.", unit="steps", low=0, exact=False
    )
    early_stop: int = setting(
        0, "Stop after this many measurements without a better validation loss; 0 means never.", low=0, advanced=True
    )
    device: str = setting("auto", "Where to compute.", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = setting(
        "auto",
        "fp32 everywhere, or matrix products in bf16 or fp16 where the device has them.",
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
class PretrainTrainSettings(TrainSettings):
    """How a model learns from scratch on text: what fine-tuning does not have."""

    optimizer: str = setting(
        "adamw",
        "The optimizer: muon handles the matrices inside the blocks, and leaves everything else to the default.",
        choices=("adamw", "muon"),
        advanced=True,
    )
    muon_learning_rate: float = setting(
        0.02,
        "Muon's peak learning rate; warm-up and decay follow those of learning_rate in proportion.",
        low=0.0,
        high=10.0,
        advanced=True,
    )
    eval_windows: int = setting(
        192,
        "Fixed sequences of each split that an evaluation reads; 0 means the whole held-out text, end to end, and as "
        "many sequences of the training text.",
        unit="sequences",
        low=0,
        exact=False,
    )
    muon_iterations: int = setting(
        5,
        "Newton-Schulz iterations in each step of Muon: fewer take less time, and directions move less equally.",
        low=1,
        high=5,
        advanced=True,
    )
    muon_heads: bool = setting(
        False,
        "Muon treats the queries, keys and values of each head as matrices of their own (GLM-5's Muon Split).",
        advanced=True,
    )
    activation_checkpointing: bool = setting(
        False,
        "Keep only each block's input for the backward pass, and compute its other activations again there: less "
        "memory, about a third more time, and the same losses to the last bit.",
        advanced=True,
        exact=False,
    )
    ema_decay: float = setting(
        0.0,
        "Average the weights over the steps, keeping this share of the average at each: the average is what is "
        "measured, sampled and saved. 0 means no average.",
        low=0.0,
        high=0.99999,
        advanced=True,
    )


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from a model's distribution; `llmlab.gpt.generate` says what each does, in which order.

    The defaults change nothing: the distribution is the model's own.
    """

    temperature: float = setting(1.0, "0 takes the most likely token; higher is wilder.", low=0.0, high=10.0)
    top_k: int = setting(0, "Sample from this many of the most likely tokens; 0 means all.", low=0)
    top_p: float = setting(
        1.0, "Sample from the most likely tokens that have this probability together; 1 means all.", low=0.0, high=1.0
    )
    min_p: float = setting(
        0.0, "Sample from the tokens that are at least this share as likely as the most likely one.", low=0.0, high=1.0
    )
    repetition_penalty: float = setting(
        1.0, "Above 1, tokens that the text holds already become less likely.", low=0.1, high=10.0
    )


@dataclass(frozen=True)
class SampleSettings:
    """The texts that show how the writing changes."""

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
        60,
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
    trained_by: MODULE:CLASS of its `llmlab.training.kinds.TrainingKind`, imported when it is asked for.
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


@dataclass(frozen=True)
class PretrainSettings(RunSettings):
    """All that decides a pretraining run. Order: preset, then file, then --set."""

    track = "pretraining"
    noun = "a run from scratch on text"
    trained_by = "llmlab.training.pretraining:Pretraining"

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    train: PretrainTrainSettings = field(default_factory=PretrainTrainSettings)
    samples: SampleSettings = field(default_factory=SampleSettings)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    distributed: DistributedSettings = field(default_factory=DistributedSettings)

    @property
    def tokens_per_step(self) -> int:
        return self.train.grad_accum * self.data.batch_size * self.model.block_size

    def batch_at(self, step: int) -> tuple[int, int]:
        """Sequences, and tokens of each, in the optimizer step that follows `step` finished ones.

        A warm-up of N steps gives the share (step + 1) / (N + 1), rounded down: of the sequences, as GPT-3 had (Brown
        et al. 2020, appendix B), to whole batches where they are more than one; of their length (Li et al. 2022) to a
        multiple of 8, the sizes in which a GPU multiplies.
        """
        data, sequences, length = self.data, self.data.batch_size * self.train.grad_accum, self.model.block_size
        if step < data.batch_warmup_steps:
            sequences = max(1, sequences * (step + 1) // (data.batch_warmup_steps + 1))
            sequences -= sequences % data.batch_size if sequences > data.batch_size else 0
        if step < data.length_warmup_steps:
            grown = length * (step + 1) // (data.length_warmup_steps + 1)
            length = min(length, max(8, grown - grown % 8))
        return sequences, length

    def tokens_until(self, step: int) -> int:
        """Tokens that the first `step` optimizer steps read."""
        warm = _tokens_of_warmup(self)
        known = min(step, len(warm) - 1)
        return warm[known] + (step - known) * self.tokens_per_step

    @property
    def full_steps(self) -> float:
        """Steps without a warm-up that read as much as all of this run's."""
        return self.tokens_until(self.train.steps) / self.tokens_per_step

    @property
    def reads(self) -> str:
        return self.data.corpus

    @property
    def tokenizer(self) -> str:
        return self.data.tokenizer

    @property
    def words(self) -> RunWords:
        model, data = self.model, self.data
        layers = f"{model.n_layer} layer{'' if model.n_layer == 1 else 's'}"
        return RunWords(
            does="pretraining",
            makes=f"{layers} of width {model.n_embd} on {corpus_title(data.corpus)}",
            size=f"{model.n_layer}x{model.n_embd}",
            facts={"corpus": f"{data.corpus}, tokenizer {data.tokenizer}"},
            details=[
                f"{model.n_layer} layers, {model.n_head} heads, width {model.n_embd}, context {model.block_size}",
                f"Corpus {data.corpus}, tokenizer {data.tokenizer}",
            ],
            summary={"corpus": data.corpus},
        )

    def __post_init__(self) -> None:
        """Refuses combinations that no single range can."""
        model = self.model
        require_heads(model.n_embd, model.n_head)
        if model.n_kv_head and model.n_head % model.n_kv_head:
            raise UsageError(
                f"model.n_head ({model.n_head}) is not a multiple of model.n_kv_head ({model.n_kv_head}).",
                "Each key-value head serves an equal group of query heads.",
            )
        if model.position == "rotary" and (model.n_embd // model.n_head) % 2:
            raise UsageError(
                f"Rotary positions need an even head width, and {model.n_embd} / {model.n_head} is odd.",
                "They rotate pairs of numbers.",
                "Choose another model.n_head.",
            )
        require_decay(self.train, f"Add train.min_learning_rate={self.train.learning_rate / 10:g}.")
        if self.distributed.strategy == "fsdp2":
            self._require_what_shards()

    def _require_what_shards(self) -> None:
        train = self.train
        for key, used, why, do in (
            ("optimizer=muon", train.optimizer == "muon", "Muon needs whole matrices.", "optimizer=adamw"),
            ("ema_decay", train.ema_decay, "The average would be of parts of the weights.", "ema_decay=0"),
            (
                "compile=on",
                train.compile == "on",
                "The model is gathered by hooks, which are not compiled.",
                "compile=off",
            ),
            ("precision=fp16", train.precision == "fp16", "Each process would scale by itself.", "precision=bf16"),
        ):
            if used:
                raise UsageError(
                    f"train.{key} does not work with distributed.strategy=fsdp2.",
                    why,
                    f"Set train.{do}, or distributed.strategy=ddp.",
                )


@lru_cache(maxsize=8)
def _tokens_of_warmup(settings: PretrainSettings) -> tuple[int, ...]:
    """Tokens that the first 0, 1, 2 ... steps read, until batches and sequences have their size."""
    longest = max(settings.data.batch_warmup_steps, settings.data.length_warmup_steps)
    return (0, *accumulate(math.prod(settings.batch_at(step)) for step in range(min(longest, settings.train.steps))))


def require_heads(n_embd: int, n_head: int) -> None:
    """UsageError where heads cannot have equal shares of a vector."""
    if n_embd % n_head:
        fits = [heads for heads in range(1, n_embd + 1) if n_embd % heads == 0]
        near = min(fits, key=lambda heads: abs(heads - n_head))
        raise UsageError(
            f"model.n_embd ({n_embd}) does not divide among model.n_head ({n_head}) heads.",
            "Each head takes an equal share of it.",
            f"Try model.n_head={near}.",
        )


def require_decay(train: TrainSettings, do: str) -> None:
    """UsageError where the learning rate would rise to its minimum. do: what to set."""
    if train.min_learning_rate > train.learning_rate and train.schedule != "constant":
        raise UsageError(
            f"train.min_learning_rate ({train.min_learning_rate:g}) is above "
            f"train.learning_rate ({train.learning_rate:g}).",
            "The schedule decays towards the minimum.",
            do,
        )
