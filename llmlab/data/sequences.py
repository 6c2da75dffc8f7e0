"""Sequences of tokens and the order in which they come: a pure function of (seed, epoch, batch index)."""

from __future__ import annotations

import numpy as np

from llmlab.data.sharded_tokens import MixedTokens, ShardedTokens, Tokens
from llmlab.data.shuffles import Shuffle, Turns

# A permutation of more sequences than this would take more than 8 MB: those of shards are shuffled without one.
_MOST_PERMUTED = 1 << 20


class Sequences:
    """Batches of sequences over a stretch of tokens.

    random: each sequence starts anywhere; batch `index` draws its starts from (seed, index).
    sliding: sequences start at 0, stride, 2 * stride, ...; their order in an epoch is drawn from (seed, epoch).
    The sequences left over for less than a batch sit out that epoch. Where all sequences are fewer than a batch,
    some stand in it more than once, so that every batch has the same shape.
    mixture: sequences of all batches are numbered through; the source of each follows from (seed, number), and within
    its source the sequences come in the order above, an epoch of a source by itself.

    Nothing is remembered between calls, so a resumed run asks for the next index and is where it was.
    """

    def __init__(
        self, tokens: Tokens, block_size: int, batch_size: int, order: str = "random", stride: int = 0, seed: int = 0
    ) -> None:
        """stride: 0 means block_size. ValueError when there is not one sequence: block_size + 1 tokens."""
        if len(tokens) < block_size + 1:
            raise ValueError(f"{len(tokens)} tokens hold no sequence of {block_size} + 1")
        self.tokens = tokens
        self.block_size = block_size
        self.batch_size = batch_size
        self.order = order
        self.stride = stride or block_size
        self.seed = seed
        starts = len(tokens) - block_size  # positions where a sequence and the token after it fit
        if order == "sliding":
            self.sequences = 1 + (starts - 1) // self.stride
            self.batches_per_epoch = max(1, self.sequences // batch_size)
        else:
            self.sequences = starts
        self._permutation: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))
        self._mixed: list[Sequences] = []
        if isinstance(tokens, MixedTokens):
            self._turns = Turns(tokens.weights, seed)
            for source, own in zip(
                tokens.sources, np.random.SeedSequence(seed).spawn(len(tokens.sources)), strict=True
            ):
                own_seed = int(own.generate_state(1)[0])
                self._mixed.append(Sequences(source, block_size, 1, order, stride, own_seed))

    def batch(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch number `index`, counted from 0 over all epochs: x and y, int64 [batch, block].

        y is x one token later.
        """
        return gather(self.tokens, self.starts(index), self.block_size)

    def starts(self, index: int) -> np.ndarray:
        """Where the sequences of batch `index` start, int64 [batch]."""
        if isinstance(self.tokens, MixedTokens):
            first = index * self.batch_size
            sources, ordinals = self._turns(np.arange(first, first + self.batch_size))
            starts = [
                self._mixed[source].starts(own)[0]
                for source, own in zip(sources.tolist(), ordinals.tolist(), strict=True)
            ]
            return self.tokens.firsts[sources] + starts
        if self.order != "sliding":
            random = np.random.default_rng([self.seed, index])
            return random.integers(0, self.sequences, self.batch_size)
        epoch, place = divmod(index, self.batches_per_epoch)
        first = place * self.batch_size
        order = self._epoch_order(epoch, first, min(first + self.batch_size, self.sequences))
        return np.resize(order, self.batch_size) * self.stride

    def _epoch_order(self, epoch: int, first: int, end: int) -> np.ndarray:
        """The sequences of an epoch, from place `first` on. The last permutation is kept, only to save time."""
        if isinstance(self.tokens, ShardedTokens) and self.sequences > _MOST_PERMUTED:
            return Shuffle(self.sequences, [self.seed, epoch])(np.arange(first, end))
        if self._permutation[0] != epoch:
            self._permutation = (epoch, np.random.default_rng([self.seed, epoch]).permutation(self.sequences))
        return self._permutation[1][first:end]


def fixed_sequences(tokens: Tokens, block_size: int, count: int, seed: int = 0) -> np.ndarray:
    """Starts of at most `count` sequences for evaluation, int64, ascending: spread evenly, the same every time.

    The text is divided into `count` equal stretches; each sequence starts somewhere in its own, drawn from `seed`. Of a
    mixture, each source has its share of them.
    """
    if isinstance(tokens, MixedTokens):
        sources, _ = Turns(tokens.weights, seed)(np.arange(count))
        shares = np.bincount(sources, minlength=len(tokens.sources)).tolist()
        parts = [part for part in zip(tokens.firsts, tokens.sources, shares, strict=True) if part[-1]]
        return np.concatenate([first + fixed_sequences(part, block_size, share, seed) for first, part, share in parts])
    starts = len(tokens) - block_size
    if starts < 1:
        raise ValueError(f"{len(tokens)} tokens hold no sequence of {block_size} + 1")
    count = min(count, starts)
    edges = np.arange(count + 1) * starts // count
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])


def sequences_end_to_end(tokens: Tokens, block_size: int) -> np.ndarray:
    """Starts of sequences that predict every token but the first, each once, int64; what fills no sequence is left."""
    return np.arange((len(tokens) - 1) // block_size) * block_size


def gather(tokens: Tokens, starts: np.ndarray, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The sequences at `starts`: x and y, int64 [len(starts), block]; y is x one token later."""
    sequences = tokens[starts[:, None] + np.arange(block_size + 1)].astype(np.int64)
    return sequences[:, :-1].copy(), sequences[:, 1:].copy()
