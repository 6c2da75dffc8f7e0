"""The events of a run: what happened, one JSON object a line in events.jsonl.

Every event has `event`, `time` (Unix seconds, float, taken when it happened) and `step`. `event` comes first,
so that a reader can tell the kinds apart without parsing whole lines. The fields of each kind are below; they
are the contract between whatever trains and whatever watches, and change only with a migration.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

from llmlab.core.records import field_types, fits

EVENT_TYPES: dict[str, type[Event]] = {}
NATS, BITS = "nats per token", "bits per byte"  # units of a loss


@dataclass
class Event:
    """What all events share. `step`: optimizer steps done when it happened."""

    step: int
    time: float

    name: ClassVar[str]  # the word in the `event` field

    def __init_subclass__(cls, name: str) -> None:
        cls.name = name
        EVENT_TYPES[name] = cls


@dataclass
class Started(Event, name="started"):
    """A worker begins. `step` is 0, or the checkpoint's step when it resumes: later steps are void.

    uniform_loss: ln(vocabulary), of a task ln(its possible answers): what knowing nothing costs. unigram_loss:
    validation cross-entropy of the training split's token frequencies. floor_loss: entropy a token of the generator,
    where the corpus has one.
    preparation: seconds by what the worker did before that, from its start on; empty in runs of earlier versions.
    All losses are in nats per token. bytes_per_token: of the validation text, in fine-tuning of those tokens in it
    whose loss counts; a loss in bits per byte is loss / ln 2 / bytes_per_token. None where there is no such text, and
    in runs of earlier versions.

    compile_seconds: that torch.compile took before the first step, found in a cache or not; None where it does nothing.

    settings, data_key: what the batches of its steps follow from; empty in runs of earlier versions.

    A worker that ends before it trains (its text could not be read, say) begins all the same: what it had not found
    out is null then, or empty, `reached_training` is false, `step` is the newest there is, and nothing is void.
    """

    run: str
    attempt: int  # 1 for the first worker on this run
    steps: int  # planned steps in all
    parameters: int | None
    vocab_size: int | None
    train_tokens: int | None
    val_tokens: int | None
    tokens_per_step: int
    uniform_loss: float | None
    unigram_loss: float | None
    floor_loss: float | None
    device: str
    precision: str
    threads: int
    peak_flops: float | None  # measured rate of matrix products, FLOP/s; what `mfu` is a share of
    tokenizer: str
    comparable: bool  # losses can be compared with other runs of the same vocabulary
    active_seconds: float  # training time of earlier workers
    pid: int
    changed: list[str] = field(default_factory=list)  # settings changed on resume, as sentences
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # section -> name -> value, as in run.json
    data_key: str = ""  # changes with the tokens that are read
    bytes_per_token: float | None = None
    processes: int = 1  # that train it together
    preparation: dict[str, float] = field(default_factory=dict)
    compile_seconds: float | None = None

    @property
    def reached_training(self) -> bool:
        """Whether the worker read its text and made its model."""
        return self.parameters is not None

    @property
    def workers_text(self) -> str:
        """`1 thread`, or `2 processes (ddp) of 1 thread each`."""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        if self.processes == 1:
            return threads
        strategy = self.settings.get("distributed", {}).get("strategy", "")  # as a file has it, which may lack it
        return f"{self.processes} processes{f' ({strategy})' if strategy else ''} of {threads} each"

    @property
    def bits_per_byte(self) -> float | None:
        """What turns nats per token into bits per byte; None where it is not known how long the tokens are."""
        return 1 / math.log(2) / self.bytes_per_token if self.bytes_per_token else None

    def keeps(self, event: Event) -> bool:
        """Whether what was written before still counts."""
        return bool(self.keeps_step(event.step))

    def keeps_step(self, step: Any) -> Any:
        """The same of what has only a step, or of an array of steps, each by itself: a worker goes on from its own
        step, and what is later is void."""
        return step <= self.step


def tokens_differ(runs: Iterable[Started]) -> bool:
    """Whether the losses of these runs are per different tokens, as far as that is known: then they do not compare.

    Compact tokenizes a text as GPT-2 does. Of vocabularies learned from a text, as long as each other, the bytes tell.
    A fine-tuning, which names its template, tokenizes as its base does: where a run from scratch has as long a
    vocabulary, as that does.
    """
    cuts: set[tuple[str, int | None]] = set()
    sizes: set[int | None] = set()  # of the vocabularies of runs from scratch
    fine_tuned: set[tuple[str, int | None]] = set()
    learned: set[float] = set()
    for run in runs:
        if "base" in run.settings.get("model", {}):
            fine_tuned.add((run.tokenizer, run.vocab_size))
            continue
        same = run.tokenizer in ("char", "gpt2", "compact")  # whatever the size of the vocabulary
        cuts.add((run.tokenizer.replace("compact", "gpt2"), None if same else run.vocab_size))
        sizes.add(run.vocab_size)
        if run.tokenizer == "bpe" and run.bytes_per_token is not None:
            learned.add(run.bytes_per_token)
    cuts |= {(template, size) for template, size in fine_tuned if size not in sizes}
    return len(cuts) > 1 or len(learned) > 1


@dataclass
class StepEvent(Event, name="step"):
    """One optimizer step. loss: mean over its tokens, nats. grad_norm: before clipping. lr: AdamW's."""

    loss: float
    lr: float
    grad_norm: float
    tokens: int  # training tokens seen in all
    tokens_per_second: float  # over the last steps, pauses and evaluations left out
    active_seconds: float  # time spent training, over all workers of this run
    eta_seconds: float
    memory_bytes: int  # resident memory of the worker, or allocated memory of the GPU; of several processes, rank 0's
    mfu: float  # share of `peak_flops`, or of the peak as it was measured anew when a step was faster than that


@dataclass
class Shared(Event, name="shared"):
    """How several processes share the work, now and then. busy: by rank, the share of the last steps' time, up to the
    end of the backward pass, in which it computed; the rest it waited, for the others or for what they send."""

    busy: list[float]

    @property
    def slowest(self) -> int:
        """The rank that computes longest: the others wait for it."""
        return max(range(len(self.busy)), key=self.busy.__getitem__, default=0)

    @property
    def waiting(self) -> float:
        """The share of the time in which even that one waits: what communication costs."""
        return 1 - max(self.busy, default=1.0)

    @property
    def words(self) -> str:
        """`2 processes; 12% of the time goes to communication; process 1 computes longest`."""
        shared = f"{self.waiting:.0%} of the time goes to communication"
        return f"{len(self.busy)} processes; {shared}; process {self.slowest} computes longest"


@dataclass
class Evaluated(Event, name="evaluated"):
    """Losses on fixed sequences of both splits, nats per token: of the averaged weights, where an average is kept.

    Of a mixture, the losses of its sources by their weights.
    """

    train_loss: float
    val_loss: float
    best: bool  # the lowest val_loss so far
    seconds: float
    val_losses: dict[str, float] = field(default_factory=dict)  # of a mixture: each source's, by its title


@dataclass
class Sampled(Event, name="sampled"):
    """Generated text. Each sample: {"prompt": str, "text": str (the continuation)}."""

    samples: list[dict[str, str]]


@dataclass
class Scored(Event, name="scored"):
    """Held-out items that the model answered, checked by a program; fine-tuning, before the first step and at the end.

    items: {"prompt": str, "expected": str, "answer": str, "right": bool} each.
    """

    correct: int
    total: int
    items: list[dict[str, str | bool]]
    seconds: float


@dataclass
class CheckpointSaved(Event, name="checkpoint_saved"):
    """A checkpoint folder is complete. labels: of periodic, best, final, requested, stopped."""

    checkpoint: str  # folder name under checkpoints/
    labels: list[str]
    bytes: int
    seconds: float


@dataclass
class Paused(Event, name="paused"):
    """The worker waits, its state in memory. reason: `requested`, or why it paused by itself."""

    reason: str


@dataclass
class Resumed(Event, name="resumed"):
    """The worker goes on after a pause (a restart from a checkpoint is `started`)."""

    paused_seconds: float


@dataclass
class Warned(Event, name="warned"):
    """Something that the learner should know and that does not stop the run."""

    message: str


@dataclass
class Inspected(Event, name="inspected"):
    """An inspection was answered; path: its result, relative to the run folder."""

    path: str


@dataclass
class Finished(Event, name="finished"):
    """All planned steps are done, or early stopping ended them; the final checkpoint is saved."""

    reason: str  # `steps` or `early_stop`
    train_loss: float | None
    val_loss: float | None
    best_val_loss: float | None
    best_step: int | None
    active_seconds: float
    checkpoint: str


@dataclass
class Stopped(Event, name="stopped"):
    """Ended on request before the planned steps; a checkpoint is saved."""

    active_seconds: float
    checkpoint: str | None


@dataclass
class Failed(Event, name="failed"):
    """Ended by an error. what happened, why, what to do next; saved checkpoints are intact."""

    what: str
    why: str
    do: str


FINAL_EVENTS = ("finished", "stopped", "failed")
# What numbers in a file may be at most: 64 bits, and a time that every system can show (the year 5138).
_LARGEST = 2**63 - 1
_LATEST = 1e11


def to_line(event: Event) -> str:
    """One line of events.jsonl, without the line break; NaN and infinity become null."""
    values: dict[str, Any] = {"event": event.name, "time": event.time, "step": event.step}
    values |= {name: _finite(value) for name, value in vars(event).items() if name not in values}
    if not values.get("val_losses", True):  # a mixture alone has them
        del values["val_losses"]
    return json.dumps(values, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_line(line: str | bytes) -> Event | None:
    """The event on a line; None when it is damaged, of a kind not known here, or a field is not of its type.

    A null number of a `step` or `evaluated` (it was not finite) reads as NaN.
    """
    try:
        values = json.loads(line)
        kind = values.pop("event")
        readers = _readers(kind)
        event = EVENT_TYPES[kind](**{name: readers[name](value) for name, value in values.items() if name in readers})
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return event if event.step >= 0 and 0 <= event.time <= _LATEST else None


@functools.cache
def _readers(event: str) -> dict[str, Callable[[Any], Any]]:
    """What checks each field's value, and raises ValueError; the frequent types without a look at their annotation."""
    frequent = {int: _whole, float: _number}
    hints = field_types(cast(type, EVENT_TYPES[event]))
    return {name: frequent.get(hint) or _reader(hint) for name, hint in hints.items()}


def _whole(value: Any) -> int:
    if type(value) is not int or not -_LARGEST <= value <= _LARGEST:
        raise ValueError
    return value


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if type(value) is float:
        return value
    if type(value) is not int:
        raise ValueError
    return value if abs(value) <= _LARGEST else float(value)


def _reader(hint: Any) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not fits(value, hint) or (type(value) is int and abs(value) > _LARGEST):
            raise ValueError
        return value

    return read
