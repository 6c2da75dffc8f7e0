"""Encoded examples in batches: which examples a batch holds is a pure function of the seed and its number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import ExampleSettings
from llmlab.core.progress import Progress
from llmlab.data.chat import ChatFormat, Encoded
from llmlab.data.chat_formats import chat_format
from llmlab.data.examples import BadLine, Example, Source, read_source, split_examples
from llmlab.data.tokenizers import TextTokenizer

NOT_IN_LOSS = -100  # the label that torch's cross-entropy passes over (its ignore_index)
# Examples that are packed between two looks at whether that is still wanted; they take about 30 ms.
_BETWEEN_LOOKS = 1000
# What evaluation on training examples draws them by: any number, as long as it stays.
_FIXED_SEED = 0


@dataclass
class Batch:
    """Rows of tokens, filled up at the right. All tensors are [batch, tokens], int64.

    labels: the ids themselves where they are trained on, else -100; the loss shifts them. attention_mask: 1 for
    tokens, 0 for padding.

    position_ids: None, or, when rows hold several examples, positions that begin at 0 with each of them.
    transformers then keeps the examples of a row apart by itself, under three conditions: the model is called
    without an attention mask and with `use_cache=False` (`masking_utils._preprocess_mask_arguments`), and is of a
    family that does so (`llmlab.training.finetuning.packing`).
    """

    ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    position_ids: Tensor | None = None

    @property
    def predicted(self) -> int:
        """Trained tokens that something stands before: those that have a loss."""
        return int((self.labels[:, 1:] != NOT_IN_LOSS).sum())

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that there are, in the order of the fields."""
        return tuple(tensor for tensor in vars(self).values() if tensor is not None)


@dataclass
class FinetuningData:
    """What a fine-tuning run learns and is measured on.

    train and held_out: encoded, beside the examples that they are made of. bad: lines that could not be used,
    those among them that the model's format cannot say. cut: examples that lost their end to the maximal length.
    rows: the examples of each row, by their places in `train`; several where they are packed. key: changes with
    anything that decides what a batch holds.
    """

    source: Source
    chat: ChatFormat
    train: list[Encoded]
    held_out: list[Encoded]
    examples: list[Example]
    held_out_examples: list[Example]
    bad: list[BadLine]
    cut: int
    batch_size: int
    max_length: int
    seed: int
    packing: bool
    rows: list[tuple[int, ...]] = field(repr=False)
    _permutation: tuple[int, np.ndarray] = field(init=False, repr=False, default=(-1, np.empty(0, dtype=np.int64)))

    @property
    def batches_per_epoch(self) -> int:
        """Batches in which every row comes once; those left over for less than a batch sit out that epoch."""
        return max(1, len(self.rows) // self.batch_size)

    @property
    def padding(self) -> float:
        """Share of the positions in the batches of the first epoch that hold no token."""
        filled = width = 0
        for index in range(self.batches_per_epoch):
            lengths = [sum(len(self.train[place].ids) for place in self.rows[row]) for row in self._row_numbers(index)]
            filled += sum(lengths)
            width += len(lengths) * max(lengths)
        return 1 - filled / width

    @property
    def key(self) -> str:
        """Hex sha256 over the encoded examples and how they are put together."""
        digest = hashlib.sha256(f"{self.batch_size} {self.packing} {self.max_length} {self.seed}".encode())
        for part in (self.train, self.held_out):
            for encoded in part:
                digest.update(np.array(encoded.ids, dtype="<i8").tobytes())
                digest.update(np.array(encoded.trained, dtype=np.uint8).tobytes() + b"\n")
            digest.update(b"\n\n")
        return digest.hexdigest()

    def batch(self, index: int) -> Batch:
        """Training batch number `index`, counted from 0 over all epochs.

        The order of an epoch is drawn from (seed, epoch). Where all rows are fewer than a batch, some stand in it
        more than once, so that every batch has as many.
        """
        rows = [[self.train[place] for place in self.rows[row]] for row in self._row_numbers(index)]
        return padded(rows, self.chat.pad_id, positions=self.packing)

    def examples_in(self, index: int) -> list[Example]:
        """The examples of training batch `index`, to look at."""
        return [self.examples[place] for row in self._row_numbers(index) for place in self.rows[row]]

    def fixed_batches(self, split: str, count: int) -> Iterator[Batch]:
        """At most `count` examples of a split (`train` or `val`) for evaluation, the same every time, in batches.

        They are drawn once, by a seed that no setting changes, and never packed.
        """
        part = _fixed(self.train if split == "train" else self.held_out, count)
        for begin in range(0, len(part), self.batch_size):
            yield padded([[encoded] for encoded in part[begin : begin + self.batch_size]], self.chat.pad_id)

    def bytes_per_token(self, count: int) -> float | None:
        """UTF-8 bytes that a token in the loss stands for: a mean over the examples of `fixed_batches("val", count)`.

        Counted are the tokens whose loss is: of a chat those of its answers and the one that ends each, of a plain
        text, and where all is trained on, all but the first. So their summed loss / ln 2 / their bytes is
        loss / ln 2 / bytes per token. A special token, as most ends of answers are, has a loss and no bytes. None
        where the tokenizer cannot tell.
        """
        size = tokens = 0
        for encoded in _fixed(self.held_out, count):
            for id, trained in zip(encoded.ids, encoded.trained, strict=True):
                if trained:
                    known = self.chat.byte_count(id)
                    if known is None:
                        return None
                    size, tokens = size + known, tokens + 1
        return size / tokens if size else None

    def _row_numbers(self, index: int) -> list[int]:
        epoch, place = divmod(index, self.batches_per_epoch)
        if self._permutation[0] != epoch:  # kept only to save time
            self._permutation = (epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.rows)))
        order = self._permutation[1][place * self.batch_size : (place + 1) * self.batch_size]
        return [int(row) for row in np.resize(order, self.batch_size)]


def load_finetuning_data(
    settings: ExampleSettings, seed: int, tokenizer: TextTokenizer, context: int, progress: Progress
) -> FinetuningData:
    """Reads, encodes and splits the examples that `settings` describe.

    context: the longest row that the model can read; 0 if unknown. UsageError for a source or option that cannot be;
    LabError when nothing is left to learn from. Cancelled when `progress` says so, as in all that it calls.
    """
    source = read_source(settings.source, progress, settings.max_examples)
    encoded = encode_source(source, chat_format(tokenizer), settings, context, progress)
    encoded.check()
    return split_data(encoded, settings, seed, progress)


def _fixed(part: Sequence[Encoded], count: int) -> list[Encoded]:
    """At most `count` of the examples, the same every time."""
    return [part[place] for place in np.random.default_rng(_FIXED_SEED).permutation(len(part))[:count]]


@dataclass(frozen=True)
class EncodedSource:
    """A source in the tokens of one model.

    usable: examples of which something is trained on within `longest` tokens. bad: the lines that are not, those of
    the source among them, by number. lengths: of every example that the format can say, uncut.
    """

    source: Source
    chat: ChatFormat
    longest: int
    usable: list[tuple[Example, Encoded]]
    bad: list[BadLine]
    lengths: list[tuple[Example, int]]

    def check(self) -> None:
        """LabError when nothing is left to learn from."""
        if self.usable:
            return
        if self.lengths:
            raise LabError(
                f"All examples of {self.source.name} are too long.",
                f"The shortest has {min(length for _, length in self.lengths):,} tokens, and within {self.longest:,} "
                "no answer begins.",
                "Raise data.max_length as far as the model's context allows, or take shorter examples or a model with "
                "a longer context.",
            )
        raise LabError(
            f"This model cannot read one example of {self.source.name}.",
            f"Line {self.bad[0].number:,}: {self.bad[0].why}",
            "Take other examples or another model.",
        )


def encode_source(
    source: Source, chat: ChatFormat, settings: ExampleSettings, context: int, progress: Progress
) -> EncodedSource:
    """Cuts every example into tokens. context: as in `load_finetuning_data`."""
    longest = min(settings.max_length, context) if context else settings.max_length
    found = EncodedSource(source, chat, longest, [], list(source.bad), [])
    for done, example in enumerate(source.examples):
        progress("Tokenizing the examples", done, len(source.examples))
        try:
            encoded = chat.encode(example, longest, settings.train_on)
        except LabError as error:
            found.bad.append(BadLine(example.number, f"{error.what} {error.why}".strip()))
            continue
        length = len(encoded.ids) + encoded.cut
        found.lengths.append((example, length))
        if any(encoded.trained):
            found.usable.append((example, encoded))
        else:
            why = f"It has {length:,} tokens, and nothing of its answer is among the first {longest:,}."
            found.bad.append(BadLine(example.number, why))
    found.bad.sort(key=lambda line: line.number)
    return found


def split_data(encoded: EncodedSource, settings: ExampleSettings, seed: int, progress: Progress) -> FinetuningData:
    """The usable examples, split and ready for batches. LabError when they are too few."""
    tokens = dict(encoded.usable)
    train, held_out = split_examples([example for example, _ in encoded.usable], settings.val_fraction, seed)
    lengths = [len(tokens[example].ids) for example in train]
    if settings.packing:
        rows = packed(lengths, encoded.longest, progress)
    else:
        rows = [(place,) for place in range(len(train))]
    return FinetuningData(
        source=encoded.source,
        chat=encoded.chat,
        train=[tokens[example] for example in train],
        held_out=[tokens[example] for example in held_out],
        examples=train,
        held_out_examples=held_out,
        bad=encoded.bad,
        cut=sum(one.cut > 0 for one in tokens.values()),
        batch_size=settings.batch_size,
        max_length=encoded.longest,
        seed=seed,
        packing=settings.packing,
        rows=rows,
    )


def padded(rows: Sequence[Sequence[Encoded]], pad_id: int, *, positions: bool = False) -> Batch:
    """Rows of one or more examples each as a batch, as wide as the longest. positions: with `position_ids`."""
    width = max(sum(len(encoded.ids) for encoded in row) for row in rows)
    shape = (len(rows), width)
    ids, labels = torch.full(shape, pad_id), torch.full(shape, NOT_IN_LOSS)
    mask, position_ids = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    for number, row in enumerate(rows):
        begin = 0
        for encoded in row:
            end = begin + len(encoded.ids)
            ids[number, begin:end] = torch.tensor(encoded.ids)
            trained = torch.tensor(encoded.trained)
            labels[number, begin:end] = torch.where(trained, ids[number, begin:end], NOT_IN_LOSS)
            mask[number, begin:end] = 1
            position_ids[number, begin:end] = torch.arange(end - begin)
            begin = end
        position_ids[number, begin:] = torch.arange(width - begin)  # the padding is an example of its own
    return Batch(ids, labels, mask, position_ids if positions else None)


def packed(lengths: Sequence[int], room: int, progress: Progress) -> list[tuple[int, ...]]:
    """Which examples share a row of `room` tokens: first fit, the longest first. Places by row.

    lengths: none longer than a row.

    Every example could have a row of its own, so there is always a first row that fits. It is found by descending a
    binary tree whose nodes hold the largest room left below them: N log N steps for N examples.
    """
    leaves = 1 << (len(lengths) - 1).bit_length()
    left = [room] * (2 * leaves)  # node n has the children 2 n and 2 n + 1; row r is leaf `leaves` + r
    rows: list[list[int]] = []
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    for done, place in enumerate(order):
        if done % _BETWEEN_LOOKS == 0:
            progress("Packing examples into rows", done, len(order))
        node = 1
        while node < leaves:
            node = 2 * node if lengths[place] <= left[2 * node] else 2 * node + 1
        row = node - leaves
        if row == len(rows):
            rows.append([])
        rows[row].append(place)
        left[node] -= lengths[place]
        while node > 1:
            node //= 2
            left[node] = max(left[2 * node], left[2 * node + 1])
    return [tuple(row) for row in rows]
