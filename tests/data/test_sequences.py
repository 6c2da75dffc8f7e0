"""What stands in a batch, and that it depends on nothing but seed, epoch and index."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest

from llmlab.data import sequences as module
from llmlab.data.sequences import Sequences, fixed_sequences, gather
from llmlab.data.sharded_tokens import MixedTokens, ShardedTokens
from llmlab.data.shuffles import Shuffle, Turns

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


def test_a_shuffle_names_each_place_once_and_differs_by_seed() -> None:
    for count in [*range(1, 40), 63, 64, 65, 1000, 4096, 4097, 100_003]:
        places = np.arange(count)
        shuffled = Shuffle(count, [1, 2])(places)
        assert sorted(shuffled) == list(places)
        assert (Shuffle(count, [1, 2])(places[::-1]) == shuffled[::-1]).all()  # each place by itself
    assert abs(np.corrcoef(places, shuffled)[0, 1]) < 0.02
    assert abs(np.corrcoef(shuffled[1:], shuffled[:-1])[0, 1]) < 0.02
    assert (Shuffle(count, [1, 3])(places) != shuffled).mean() > 0.99
    assert Shuffle(10**12, [0])(np.array([0, 10**12 - 1])).max() < 10**12


def test_shards_are_read_like_one_array_and_many_sequences_without_a_permutation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = tokens(1601)
    sharded = ShardedTokens([whole[:100], whole[100:1001], whole[1001:]])
    for order in ORDERS:
        ours, theirs = (Sequences(each, 8, 7, order, seed=3) for each in (sharded, whole))
        for index in range(60):
            assert (ours.batch(index)[0] == theirs.batch(index)[0]).all()
    monkeypatch.setattr(module, "_MOST_PERMUTED", 100)
    ours, theirs = (Sequences(each, 8, 50, "sliding", seed=3) for each in (sharded, whole))
    orders = [np.concatenate([each.starts(4 + place) for place in range(4)]) for each in (ours, theirs)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(0, 1600, 8))
    assert list(orders[0]) != list(orders[1])
    assert ours._permutation[1].size == 0


def test_each_source_of_a_mixture_has_its_share_within_one_sequence_at_any_time() -> None:
    draw = random.Random(4)
    for seed in range(100):
        parts = [draw.randint(1, 30) for _ in range(draw.randint(1, 5))]
        weights = [Fraction(part, sum(parts)) for part in parts]
        sources, ordinals = Turns(weights, seed)(np.arange(2 * sum(parts) + 5))
        had = [0] * len(parts)
        for turn, (source, ordinal) in enumerate(zip(sources, ordinals, strict=True), start=1):
            assert ordinal == had[source]
            had[source] += 1
            assert all(abs(count - weight * turn) < 1 for count, weight in zip(had, weights, strict=True))
    fixed = Turns([Fraction(5, 10), Fraction(3, 10), Fraction(2, 10)], 0)(np.arange(10))[0]
    assert fixed.tolist() == [0, 1, 0, 2, 0, 1, 0, 1, 2, 0]  # a run of an earlier version is resumed in its own order
    equal = [Fraction(1, 4)] * 4
    orders = {tuple(Turns(equal, seed)(np.arange(8))[0]) for seed in range(20)}
    assert len(orders) > 5


@pytest.mark.parametrize("order", ORDERS)
def test_a_mixture_takes_whole_sequences_of_its_sources_by_their_weights(order: str) -> None:
    everything = tokens(1000)
    small, large = everything[:101], ShardedTokens([everything[101:400], everything[400:]])
    mixed = MixedTokens([small, large], [Fraction(3, 10), Fraction(7, 10)])
    one, other, another = (Sequences(mixed, 5, 8, order, seed=seed) for seed in (3, 3, 4))
    starts = np.concatenate([one.starts(index) for index in range(50)])
    assert (np.concatenate([other.starts(index) for index in reversed(range(50))][::-1]) == starts).all()
    assert (np.concatenate([another.starts(index) for index in range(50)]) != starts).any()
    of_small = starts <= 95
    assert of_small.sum() == 120
    assert ((starts >= 101) == ~of_small).all()  # none goes across the border of two sources
    if order == "sliding":
        assert sorted(starts[of_small][:20]) == list(range(0, 100, 5))
        assert sorted(starts[of_small][20:40]) == list(range(0, 100, 5))
    fixed = fixed_sequences(mixed, 5, 20)
    assert ((fixed <= 95).sum(), (fixed >= 101).sum()) == (6, 14)
