"""What stands in a batch, and that it depends on nothing but seed, epoch and index."""

from __future__ import annotations

import numpy as np
import pytest

from llmlab.data.sequences import Sequences, fixed_sequences, gather

ORDERS = ("random", "sliding")


def tokens(count: int) -> np.ndarray:
    """Token `i` is `i`, so a sequence tells where it came from."""
    return np.arange(count, dtype=np.uint16)


@pytest.mark.parametrize("order", ORDERS)
def test_y_is_x_one_token_later(order: str) -> None:
    sequences = Sequences(tokens(1000), block_size=7, batch_size=5, order=order, seed=3)
    for index in range(40):
        x, y = sequences.batch(index)
        assert x.shape == y.shape == (5, 7)
        assert x.dtype == y.dtype == np.int64
        assert (y == x + 1).all()
        assert (np.diff(x, axis=1) == 1).all()
        assert y.max() < 1000


def test_sliding_without_overlap_reads_every_token_once_an_epoch() -> None:
    sequences = Sequences(tokens(10 * 8 + 1), block_size=8, batch_size=5, order="sliding", seed=3)
    assert sequences.batches_per_epoch == 2
    for epoch in range(3):
        seen = np.concatenate([sequences.batch(2 * epoch + place)[0].ravel() for place in range(2)])
        assert sorted(seen) == list(range(80))


def test_sliding_with_a_stride_starts_every_stride_tokens() -> None:
    sequences = Sequences(tokens(101), block_size=8, batch_size=1, order="sliding", stride=3)
    starts = sorted(int(sequences.starts(index)[0]) for index in range(sequences.batches_per_epoch))
    assert starts == list(range(0, 93, 3))


def test_an_incomplete_batch_sits_out_its_epoch() -> None:
    sequences = Sequences(tokens(7 * 8 + 1), block_size=8, batch_size=3, order="sliding", seed=1)
    assert sequences.batches_per_epoch == 2
    seen = [start for index in range(2) for start in sequences.starts(index)]
    assert len(set(seen)) == 6


def test_fewer_windows_than_a_batch_still_fill_it() -> None:
    sequences = Sequences(tokens(2 * 8 + 1), block_size=8, batch_size=5, order="sliding")
    x, _ = sequences.batch(0)
    assert x.shape == (5, 8)
    assert set(x[:, 0]) == {0, 8}
    assert sequences.batches_per_epoch == 1


def test_epochs_come_in_different_orders_and_seeds_too() -> None:
    sequences = Sequences(tokens(1601), block_size=8, batch_size=200, order="sliding", seed=1)
    other = Sequences(tokens(1601), block_size=8, batch_size=200, order="sliding", seed=2)
    first, second = sequences.starts(0), sequences.starts(1)
    assert sorted(first) == sorted(second)
    assert list(first) != list(second)
    assert list(first) != list(other.starts(0))


@pytest.mark.parametrize("order", ORDERS)
def test_a_batch_depends_on_its_index_only(order: str) -> None:
    one = Sequences(tokens(1000), block_size=7, batch_size=5, order=order, seed=3)
    forwards = [one.batch(index)[0] for index in range(100)]
    fresh = Sequences(tokens(1000), block_size=7, batch_size=5, order=order, seed=3)
    for index in reversed(range(100)):
        assert (fresh.batch(index)[0] == forwards[index]).all()


def test_random_windows_reach_the_first_and_the_last_token() -> None:
    sequences = Sequences(tokens(30), block_size=8, batch_size=64)
    x, y = sequences.batch(0)
    assert x.min() == 0
    assert y.max() == 29


@pytest.mark.parametrize("order", ORDERS)
def test_the_shortest_text_is_one_window(order: str) -> None:
    sequences = Sequences(tokens(9), block_size=8, batch_size=1, order=order)
    assert sequences.batch(5)[1].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    with pytest.raises(ValueError, match="no sequence"):
        Sequences(tokens(8), block_size=8, batch_size=1, order=order)


def test_an_epoch_is_all_windows_or_as_many_tokens() -> None:
    sliding = Sequences(tokens(81), block_size=8, batch_size=5, order="sliding")
    assert [sliding.epoch(index) for index in (0, 1, 2, 3)] == [0.0, 0.5, 1.0, 1.5]
    random = Sequences(tokens(80), block_size=8, batch_size=5)
    assert random.epoch(2) == 1.0
    assert random.batches_per_epoch == 2


def test_fixed_windows_are_spread_evenly_and_stay() -> None:
    starts = fixed_sequences(tokens(1009), block_size=9, count=10, seed=4)
    assert (starts == fixed_sequences(tokens(1009), block_size=9, count=10, seed=4)).all()
    assert [start // 100 for start in starts] == list(range(10))
    x, y = gather(tokens(1009), starts, 9)
    assert (x[:, 0] == starts).all()
    assert (y == x + 1).all()


def test_fixed_windows_are_never_more_than_there_are() -> None:
    assert fixed_sequences(tokens(13), block_size=9, count=100).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="no sequence"):
        fixed_sequences(tokens(9), block_size=9, count=1)
