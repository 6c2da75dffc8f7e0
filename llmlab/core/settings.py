"""The settings of a pretraining run, and how a token is drawn."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
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

# Longest warm-up of batches or lengths. Their tokens are summed step by step, also while someone types in the form:
# that takes 80 ms. GPT-3's went over some ten thousand steps.
_WARMUP_STEPS = 100_000


@dataclass(frozen=True)
class ModelSettings:
    """The shape of the GPT. Names as in GPT-2."""

    n_layer: int = setting(4, "Transformer blocks, one after the other.", unit="layers", low=1, high=200)
    n_head: int = setting(
        4, "Attention heads in each block; each has an equal share of n_embd.", unit="heads", low=1, high=256
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
        128,
        "Components of the residual stream (d_model); a multiple of n_head.",
        unit="values per token",
        low=8,
        high=16384,
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
        False, "The head has a matrix of its own; GPT-2's is the token embedding, used a second time.", advanced=True
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
        "muP: the n_embd at which the learning rate was chosen. Initialisation, rates and two multipliers then depend "
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
        "Steps over which sequences grow from 8 tokens to block_size, truncated at their end; 0 means no warm-up.",
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
        "Train on this many tokens from the start of the text; vocabulary and held-out text stay. 0 means all.",
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
    eval_sequences: int = setting(
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
            makes=f"{layers} with d_model {model.n_embd} on {corpus_title(data.corpus)}",
            size=f"{model.n_layer}x{model.n_embd}",
            facts={"corpus": f"{data.corpus}, tokenizer {data.tokenizer}"},
            details=[
                f"{model.n_layer} layers, {model.n_head} heads, d_model {model.n_embd}, context {model.block_size}",
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
                f"Rotary positions need heads of an even size, and {model.n_embd} / {model.n_head} is odd.",
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
