"""Random tokens read twice: what can be known where, by counting all sequences."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import permutations

import numpy as np
import pytest

from llmlab.core.config import with_values
from llmlab.core.errors import UsageError
from llmlab.core.task_settings import REPEATS, TaskSettings
from llmlab.data.synthetic.known_tasks import task_of
from llmlab.data.synthetic.repeats import Repeats
from llmlab.data.synthetic.tasks import TRAIN, TaskBatch

TASK = Repeats(vocabulary=5, shortest=2, longest=3, time=7)


def all_sequences() -> tuple[TaskBatch, np.ndarray, np.ndarray]:
    """Every sequence of TASK with its probability and the distance between its readings."""
    orders = [list(order) for order in permutations(range(TASK.vocabulary))]
    rows, lengths, between, weights = [], [], [], []
    for length in range(TASK.shortest, TASK.longest + 1):
        gaps = TASK.time - 2 * length + 1
        for gap in range(gaps):
            rows += orders
            lengths += [length] * len(orders)
            between += [gap] * len(orders)
            weights += [1 / gaps] * len(orders)
    batch = TASK.read(np.array(rows), np.array(lengths), np.array(between))
    return batch, np.array(weights), np.array(lengths) + np.array(between)


def test_what_is_scored_is_certain_and_what_comes_before_is_not() -> None:
    batch, weights, _ = all_sequences()
    followed: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for ids, weight in zip(batch.ids.tolist(), weights, strict=True):
        for position in TASK.layout.positions:
            followed[tuple(ids[: position + 1])][ids[position + 1]] += weight
    for row, ids in enumerate(batch.ids.tolist()):
        for number, position in enumerate(TASK.layout.positions):
            counts = followed[tuple(ids[: position + 1])]
            belief = np.array([counts[token] for token in range(TASK.vocabulary)])
            belief /= belief.sum()
            if batch.scored[row, number]:
                np.testing.assert_allclose(belief, batch.posterior[row, number], atol=1e-12)
            else:
                assert belief.max() < 1


def test_scored_places_are_those_of_a_token_that_stands_there_again() -> None:
    batch = task_of(with_values(TaskSettings(), {"data.task": REPEATS}).data).batch(1, TRAIN, 0, 50)
    positions = task_of(with_values(TaskSettings(), {"data.task": REPEATS}).data).layout.positions
    for row, ids in enumerate(batch.ids.tolist()):
        for number, position in enumerate(positions):
            assert batch.scored[row, number] == (ids[position] in ids[:position])
        again = [ids[position] for number, position in enumerate(positions) if batch.scored[row, number]] + [ids[-1]]
        first = ids.index(again[0])
        assert ids[first : first + len(again)] == again
        assert 20 <= len(again) <= 29
        assert max(Counter(ids).values()) == 2


def test_distances_are_those_of_all_sequences_counted() -> None:
    batch, weights, distance = all_sequences()
    expected = np.zeros((len(TASK.layout.positions), TASK.time))
    for number in range(len(TASK.layout.positions)):
        there = batch.scored[:, number]
        np.add.at(expected[number], distance[there], weights[there])
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(TASK.distances(), expected, atol=1e-12)


def test_counts_and_places_weigh_tokens_by_distance_and_rule_out_what_came_twice() -> None:
    # 0 1 2 3 4 | 0 1: read twice are 0 1, at a distance of 5; the last position but one has seen 0 twice.
    batch = TASK.read(np.arange(5)[None], np.array([2]), np.array([3]))
    assert batch.ids.tolist() == [[0, 1, 2, 3, 4, 0, 1]]
    belief = TASK.baselines(batch)["counts and places"][0, -1]
    weights = TASK.distances()[-1]
    # One back from the next position is the token 0 itself, so distances 2, 3, 4, 5 say 4, 3, 2, 1.
    expected = np.array([0, weights[5], weights[4], weights[3], weights[2]])
    np.testing.assert_allclose(belief, expected / expected.sum(), atol=1e-12)
    assert batch.scored[0].tolist() == [False, True]


def test_a_floor_is_a_distribution_that_never_rules_out_what_comes() -> None:
    task = Repeats(40, 5, 8, 24)
    batch = task.batch(1, TRAIN, 0, 200)
    uniform, known = (task.baselines(batch)[name] for name in ("uniform", "counts and places"))
    np.testing.assert_allclose(known.sum(-1), 1)
    paid = [-np.log((belief * batch.target).sum(-1)[batch.scored]).mean() for belief in (uniform, known)]
    assert paid[0] == pytest.approx(np.log(40))
    assert 0.5 < paid[1] < 2.5  # at most about ten distances are open


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"data.shortest": 30}, "above data.longest"),
        ({"data.longest": 33}, "does not fit"),
        ({"data.vocabulary": 40}, "too small"),
    ],
)
def test_sizes_that_cannot_be_are_refused(values: dict[str, int], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        with_values(TaskSettings(), {"data.task": REPEATS} | values)
