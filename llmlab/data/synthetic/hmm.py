"""HMM state tracking: a transition and an emission matrix are given, then observations; where is the chain now?

The belief about the state after each observation is the forward algorithm's (Rabiner 1989, section III.A):

    alpha_1(j) ~ E[j, o_1] / S        alpha_t(j) ~ E[j, o_t] * sum_i alpha_{t-1}(i) T[i, j]

Both matrices are in the sequence, so what is learned is that algorithm, not their values.
Layouts: "rows" writes a state's row of T as one token, and so a symbol's column of E, the likelihood of every state
(short enough for a small model); "numbers" makes each number a token of its own, as the paper does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llmlab.core.task_settings import ROWS
from llmlab.data.synthetic.tasks import Layout, Task, TaskBatch, generator

_PARTS = 100  # a probability is a whole number of hundredths, and so can be a token
ROW_BASE = _PARTS + 1  # of the digits of a row that is one token
_LEAST = 0.05  # of a row's entries before it is normalised: nothing is impossible
_WINDOWS = (1, 2, 3, 4)  # observations that the limited filters see


@dataclass(frozen=True)
class HiddenMarkov(Task):
    """states: S. symbols: O. length: K observations. layout_kind: rows or numbers."""

    states: int
    symbols: int
    length: int
    layout_kind: str = ROWS

    @cached_property
    def layout(self) -> Layout:
        """Predictions are read at the observations."""
        states, rows = self.states, self.layout_kind == ROWS
        if rows:  # S rows of T, O columns of E, SEP, observations; tokens: observations, states, SEP
            begin, time = states + self.symbols + 1, states + self.symbols + 1 + self.length
            positions = tuple(range(begin, time))
            answers = (self.symbols, self.symbols + states)
            return Layout(self.symbols + states + 1, time, positions, answers, row_width=states)
        # TRANS, S x S numbers, EMIT, S x O numbers, SEP, (OBS, observation) x K. Observations are the numbers 0 .. O-1,
        # as in the paper; the states that are answered have tokens of their own behind its 105.
        begin = 3 + states * (states + self.symbols)
        time = begin + 2 * self.length
        vocabulary = _PARTS + 5 + states
        return Layout(vocabulary, time, tuple(range(begin + 1, time, 2)), (_PARTS + 5, vocabulary))

    def batch(self, seed: int, part: int, index: int, size: int) -> TaskBatch:
        """Sequences, with the posterior as target."""
        random = generator(seed, part, index)
        transitions = hundredths(random.dirichlet(np.ones(self.states), (size, self.states)))  # [B, S, S]
        emissions = hundredths(random.dirichlet(np.ones(self.symbols), (size, self.states)))  # [B, S, O]
        draws = random.random((2, self.length, size))
        observed = np.empty((size, self.length), dtype=np.int64)
        state = (draws[0, 0] * self.states).astype(np.int64)
        for step in range(self.length):
            if step:
                state = _drawn(transitions[np.arange(size), state], draws[0, step])
            observed[:, step] = _drawn(emissions[np.arange(size), state], draws[1, step])
        return self.read(transitions, emissions, observed)

    def read(self, transitions: np.ndarray, emissions: np.ndarray, observed: np.ndarray) -> TaskBatch:
        """Given matrices [B, S, S] and [B, S, O] in hundredths and observations int [B, K], as a batch."""
        size = len(observed)
        posterior = forward(transitions / _PARTS, emissions / _PARTS, observed)
        if self.layout_kind == ROWS:
            plain = self.layout.vocab_size
            rows = [row_ids(matrix, plain) for matrix in (transitions, emissions.transpose(0, 2, 1))]
            ids = np.concatenate([*rows, np.full((size, 1), plain - 1), observed], axis=1)
        else:
            mark = _PARTS + 1  # TRANS, EMIT, SEP, OBS follow the numbers 0.00 .. 1.00
            numbers = [matrix.reshape(size, -1) for matrix in (transitions, emissions)]
            marks = [np.full((size, 1), mark + number) for number in range(3)]
            seen = np.stack([np.full_like(observed, mark + 3), observed], axis=-1).reshape(size, -1)
            ids = np.concatenate([marks[0], numbers[0], marks[1], numbers[1], marks[2], seen], axis=1)
        return TaskBatch(ids.astype(np.int64), np.ones(observed.shape, dtype=bool), posterior, posterior)

    def baselines(self, batch: TaskBatch) -> dict[str, np.ndarray]:
        """Knowing nothing, and filters that see only the last w observations."""
        transitions, emissions, observed = self.parts(batch.ids)
        filters = {f"last {window}": forward(transitions, emissions, observed, window) for window in _WINDOWS}
        return super().baselines(batch) | filters

    def parts(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ids [B, T] -> the transition [B, S, S] and emission [B, S, O] matrices and the observations [B, K]."""
        states, symbols, size = self.states, self.symbols, len(ids)
        if self.layout_kind == ROWS:
            end = states + symbols
            numbers = row_numbers(ids[:, :end] - self.layout.vocab_size, states) / _PARTS  # [B, S + O, S]
            return numbers[:, :states], numbers[:, states:].transpose(0, 2, 1), ids[:, end + 1 :]
        transitions = ids[:, 1 : 1 + states**2].reshape(size, states, states)
        emissions = ids[:, 2 + states**2 : 2 + states * (states + symbols)].reshape(size, states, symbols)
        return transitions / _PARTS, emissions / _PARTS, ids[:, list(self.layout.positions)]

    def token_text(self, id: int) -> str:
        """o2, s1, [SEP], 0.35, or a row as (0.35 0.60 0.05)."""
        if self.layout_kind == ROWS:
            if id >= self.layout.vocab_size:
                numbers = row_numbers(np.array(id - self.layout.vocab_size), self.layout.row_width)
                return f"({' '.join(f'{number / _PARTS:.2f}' for number in numbers)})"
            names = [f"o{symbol}" for symbol in range(self.symbols)] + [f"s{state}" for state in range(self.states)]
            return [*names, "[SEP]"][id]
        if id <= _PARTS:
            return f"{id / _PARTS:.2f}"
        return [*("[TRANS]", "[EMIT]", "[SEP]", "[OBS]"), *(f"s{state}" for state in range(self.states))][
            id - _PARTS - 1
        ]


def forward(transitions: np.ndarray, emissions: np.ndarray, observed: np.ndarray, window: int = 0) -> np.ndarray:
    """The belief about the state at each observation: [B, S, S], [B, S, O], int [B, K] -> [B, K, S].

    window: see only the last so many observations, and nothing of what was before; 0 sees all.
    """
    size, length = observed.shape
    likelihood = np.take_along_axis(emissions, observed[:, None, :], axis=2).transpose(0, 2, 1)  # [B, K, S]
    beliefs = np.empty_like(likelihood)
    for last in range(length):
        first = max(0, last + 1 - window) if window else 0
        if first == 0 and last > 0:  # goes on from the belief before
            begin, belief = last, beliefs[:, last - 1]
        else:
            begin, belief = first, np.full((size, emissions.shape[1]), 1 / emissions.shape[1])
        for step in range(begin, last + 1):
            if step > first:
                belief = np.einsum("bi,bij->bj", belief, transitions)
            belief = belief * likelihood[:, step]
            belief = belief / belief.sum(-1, keepdims=True)
        beliefs[:, last] = belief
    return beliefs


def hundredths(rows: np.ndarray) -> np.ndarray:
    """Probabilities [..., N] -> whole hundredths that sum to 100, each at least about 4.

    Rounding leaves a rest, which the largest entry takes: what the sequence shows then is exactly what drew it.
    """
    raised = np.maximum(rows, _LEAST)
    raised /= raised.sum(-1, keepdims=True)
    whole = np.rint(_PARTS * raised).astype(np.int64)
    largest = whole.argmax(-1)[..., None]
    rest = _PARTS - whole.sum(-1, keepdims=True)
    np.put_along_axis(whole, largest, np.take_along_axis(whole, largest, -1) + rest, -1)
    return whole


def row_ids(rows: np.ndarray, first: int) -> np.ndarray:
    """Rows of hundredths [..., N] -> ids [...]: their digits in base 101, the first lowest, from `first` on."""
    return first + (rows * ROW_BASE ** np.arange(rows.shape[-1])).sum(-1)


def row_numbers(codes: np.ndarray, width: int) -> np.ndarray:
    """The inverse of `row_ids`, less `first`: [...] -> hundredths [..., width]."""
    return codes[..., None] // ROW_BASE ** np.arange(width) % ROW_BASE


def _drawn(rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """One index of each row of hundredths [B, N], by uniform draws [B]."""
    return (np.cumsum(rows, axis=1) <= _PARTS * draws[:, None]).sum(axis=1)
