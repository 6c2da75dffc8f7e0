"""What is told of texts that are read, in plain values: a preview of examples, and a step's batch. No torch."""

from __future__ import annotations

from dataclasses import dataclass

IN_LOSS, MASKED, TRUNCATED = "trained", "masked", "cut"
TRAIN, HELD_OUT, LEFT_OUT = "training", "held out", "left out"


@dataclass(frozen=True)
class PreviewToken:
    """One token of an example. state: trained (its prediction counts), masked (only read), or cut (not even read)."""

    id: int
    text: str
    state: str


@dataclass(frozen=True)
class PreviewExample:
    """One example, token by token. place: from 0 among those that can be shown. number: its line or row.

    part: training, held out, or left out (nothing of its answer is within the maximal length). length: its tokens;
    of very long examples only the first are in `tokens`.
    """

    place: int
    number: int
    part: str
    length: int
    tokens: tuple[PreviewToken, ...]


@dataclass(frozen=True)
class Preview:
    """A source as one model will read it.

    examples: how many can be shown: train, held_out and those left out together. cut: of train and held_out, how
    many lose their end. tokens and trained: of train and held_out, after cutting. filling: padding, the share of
    positions in training batches that hold no token; `llmlab-run data --json` calls it so. longer: how many of all
    examples are longer than max_length.

    lengths: how many examples have 0 to bin_width - 1 tokens, bin_width to 2 * bin_width - 1, ... before cutting.
    bad: unusable lines, with the reason; the first of `bad_total`. trouble: why nothing can be trained with
    this (what, why, do), None when it can.
    """

    source: str
    origin: str
    template: str
    examples: int
    train: int
    held_out: int
    cut: int
    longer: int
    tokens: int
    trained: int
    filling: float
    max_length: int
    context: int
    shortest: int
    median: int
    longest: int
    bin_width: int
    lengths: tuple[int, ...]
    bad: tuple[tuple[int, str], ...]
    bad_total: int
    trouble: tuple[str, str, str] | None
    example: PreviewExample | None

    @property
    def left_out(self) -> int:
        """How many examples are too long altogether: nothing of their answer is within max_length."""
        return self.longer - self.cut


@dataclass(frozen=True)
class BatchText:
    """A row of what a step read. loss: nats per token under the last checkpoint before the step, or the first after it;
    None where there is none."""

    text: str
    loss: float | None = None
