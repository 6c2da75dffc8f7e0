"""The settings of a run on a task whose exact posterior is known. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from llmlab.core.errors import UsageError
from llmlab.core.run_settings import CheckpointSettings, RunSettings, RunWords, SampleSettings, TrainSettings
from llmlab.core.setting_info import setting
from llmlab.core.settings import ModelSettings, require_heads

BIJECTION, DUPLICATES, HMM = "bijection", "duplicates", "hmm"
MODULAR = "modular"
REPEATS = "repeats"
TRANSFORMER, LSTM, MLP_POSITION, MLP_PREFIX = "transformer", "lstm", "mlp-position", "mlp-prefix"
ROWS, NUMBERS = "rows", "numbers"
LEARNED, ROTARY = "learned", "rotary"


@dataclass(frozen=True)
class TaskModelSettings:
    """What learns the task."""

    kind: str = setting(
        TRANSFORMER,
        "transformer: the lab's GPT. lstm: a recurrent network. mlp-position: sees one token, no context. "
        "mlp-prefix: sees all tokens so far at once.",
        choices=(TRANSFORMER, LSTM, MLP_POSITION, MLP_PREFIX),
    )
    n_layer: int = setting(2, "Blocks, or recurrent or hidden layers.", unit="layers", low=1, high=200)
    n_head: int = setting(4, "Attention heads of a block.", unit="heads", low=1, high=256)
    n_embd: int = setting(
        64, "Components of the residual stream (d_model).", unit="values per token", low=8, high=16384
    )
    feed_forward: bool = setting(
        True, "Transformer: blocks have a feed-forward; without, they are attention alone (Elhage et al. 2021)."
    )
    position: str = setting(
        LEARNED,
        "Transformer: how a token knows its position, by one learned vector per position or rotated queries and keys.",
        choices=(LEARNED, ROTARY),
    )


@dataclass(frozen=True)
class TaskDataSettings:
    """Which task, how large, and how it is cut into batches."""

    task: str = setting(
        BIJECTION,
        "bijection: pairs of a hidden one-to-one map, no key twice. duplicates: keys repeat, first occurrences are "
        "scored. hmm: which state a hidden Markov model is in. modular: the sum of two numbers modulo a third. "
        "repeats: random tokens, a segment of which is read twice.",
        choices=(BIJECTION, DUPLICATES, HMM, MODULAR, REPEATS),
    )
    values: int = setting(8, "Bijection: how many keys, and values, there are.", low=2, high=1000)
    pairs: int = setting(7, "Bijection: pairs in a sequence; the last value is not shown.", unit="pairs", low=1)
    states: int = setting(3, "HMM: hidden states.", low=2, high=9)
    symbols: int = setting(3, "HMM: symbols that can be observed.", low=2, high=9)
    length: int = setting(10, "HMM: observations in a sequence.", low=1, high=10_000)
    layout: str = setting(
        ROWS,
        "HMM: how the matrices are written. rows: a token a state (its row of T) and a token a symbol (its column of "
        "E). numbers: a token a number, as in the paper.",
        choices=(ROWS, NUMBERS),
    )
    modulus: int = setting(113, "Modular: p; there are p x p sums.", low=2, high=1000)
    train_share: float = setting(
        0.3, "Modular: share of all sums that is trained on; the others are held out.", low=0.01, high=0.99
    )
    split_seed: int = setting(1, "Modular: which sums are held out; the same for every seed of a run.", low=0)
    vocabulary: int = setting(256, "Repeats: how many tokens there are.", unit="tokens", low=2, high=65536)
    shortest: int = setting(20, "Repeats: length of the shortest segment.", unit="tokens", low=2, high=10_000)
    longest: int = setting(29, "Repeats: length of the longest segment.", unit="tokens", low=2, high=10_000)
    context: int = setting(
        64, "Repeats: tokens of a sequence; those beside the two readings are random.", unit="tokens", low=4, high=65536
    )
    batch_size: int = setting(128, "Sequences in one forward pass.", unit="sequences", low=1, high=65536)

    @property
    def train_sums(self) -> int:
        """Modular: how many sums are trained on, of modulus x modulus; at least one, and not all."""
        everything = self.modulus**2
        return min(max(1, round(self.train_share * everything)), everything - 1)


def _train() -> TrainSettings:
    """Of the tasks: the rates at which the small models were found to learn in a minute."""
    return TrainSettings(
        steps=1200,
        learning_rate=3e-3,
        min_learning_rate=0.0,
        warmup_steps=50,
        weight_decay=0.0,
        eval_interval=200,
        eval_early=False,
        eval_sequences=512,
        sample_interval=0,
    )


@dataclass(frozen=True)
class TaskSettings(RunSettings):
    """All that decides a run on a task. A window, in `train`, is a sequence; nothing is sampled."""

    track = "papers"
    noun = "a run on a task of a paper"
    trained_by = "llmlab.training.task:OnTask"

    model: TaskModelSettings = field(default_factory=TaskModelSettings)
    data: TaskDataSettings = field(default_factory=TaskDataSettings)
    train: TrainSettings = field(default_factory=_train)
    samples: SampleSettings = field(default_factory=lambda: SampleSettings(prompts=()))
    checkpoints: CheckpointSettings = field(
        default_factory=lambda: replace(CheckpointSettings(), interval=200, keep_last=1, best=False)
    )

    @property
    def time(self) -> int:
        """Tokens of a sequence."""
        data = self.data
        if data.task == MODULAR:
            return 3
        if data.task == REPEATS:
            return data.context
        if data.task != HMM:
            return 2 * data.pairs - 1
        if data.layout == ROWS:
            return data.states + data.symbols + 1 + data.length
        return data.states * (data.states + data.symbols) + 3 + 2 * data.length

    @property
    def tokens_per_step(self) -> int:
        return self.train.grad_accum * self.data.batch_size * self.time

    @property
    def reads(self) -> str:
        return self.data.task

    @property
    def words(self) -> RunWords:
        model, task = self.model, self.data.task
        size = f"{model.n_layer}x{model.n_embd}"
        return RunWords(
            does=f"task, {model.kind}",
            makes=f"{model.kind} on the task {task}",
            size=size,
            facts={"task": f"{task}, learned by {model.kind} {size}"},
            details=[f"{model.kind}, {model.n_layer} layers, d_model {model.n_embd}", f"Task {task}"],
            summary={"task": task, "model": model.kind},
        )

    @property
    def train_tokens(self) -> int:
        """Tokens of all training sequences; where they are drawn anew, of those that are read."""
        if self.data.task == MODULAR:
            return self.data.train_sums * self.time
        return self.train.steps * self.tokens_per_step

    def __post_init__(self) -> None:
        """Refuses combinations that no single range can."""
        if self.data.task == BIJECTION and self.data.pairs > self.data.values:
            raise UsageError(
                f"data.pairs ({self.data.pairs}) is above data.values ({self.data.values}).",
                "No key comes twice in this task.",
                "Set data.task=duplicates, where keys repeat.",
            )
        if self.data.task == REPEATS:
            _require_repeats(self.data)
        if self.model.kind == TRANSFORMER:
            require_heads(self.model.n_embd, self.model.n_head)


def shape_of(model: TaskModelSettings, time: int) -> ModelSettings:
    """The lab's GPT that a transformer of a task is, for sequences of `time` tokens; its feed-forward may be gone."""
    return ModelSettings(
        n_layer=model.n_layer, n_head=model.n_head, n_embd=model.n_embd, block_size=time, position=model.position
    )


def _require_repeats(data: TaskDataSettings) -> None:
    if data.shortest > data.longest:
        raise UsageError(f"data.shortest ({data.shortest}) is above data.longest ({data.longest}).")
    if 2 * data.longest > data.context:
        raise UsageError(
            f"A segment of {data.longest} tokens, read twice, does not fit into data.context ({data.context}).",
            "",
            f"Set data.context to {2 * data.longest} or more, or data.longest to {data.context // 2} or less.",
        )
    if data.context - data.shortest > data.vocabulary:
        raise UsageError(
            f"data.vocabulary ({data.vocabulary}) is too small for a context of {data.context}.",
            f"Beside the second reading all tokens are different: up to {data.context - data.shortest}.",
        )
