"""The sums of modular addition: which are trained on, which are held out, and that a run reads them whole."""

from __future__ import annotations

import numpy as np
import pytest

from llmlab.core.task_settings import MODULAR, TaskDataSettings
from llmlab.data.synthetic.known_tasks import task_of
from llmlab.data.synthetic.modular import ModularSum
from llmlab.data.synthetic.tasks import HELD_OUT, TRAIN, TaskBatch, held_out


def pairs(batch: TaskBatch) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b, _ in batch.ids]


def test_training_and_held_out_sums_are_all_sums_once() -> None:
    task = ModularSum(7, 20)
    trained, held = pairs(task.whole(TRAIN)), pairs(task.whole(HELD_OUT))
    assert (len(trained), len(held)) == (20, 29)
    assert sorted(trained + held) == [(a, b) for a in range(7) for b in range(7)]


def test_the_split_is_the_same_whatever_the_seed_of_the_run_and_another_by_its_own() -> None:
    task, again = ModularSum(7, 20), ModularSum(7, 20)
    assert pairs(task.batch(1, TRAIN, 0, 20)) == pairs(again.batch(2, TRAIN, 5, 20)) == pairs(task.whole(TRAIN))
    assert set(pairs(ModularSum(7, 20, split_seed=2).whole(TRAIN))) != set(pairs(task.whole(TRAIN)))


def test_the_answer_is_the_sum_and_is_read_at_the_equals_sign() -> None:
    task = ModularSum(5, 12)
    for part in (TRAIN, HELD_OUT):
        batch = task.whole(part)
        for (a, b), posterior in zip(pairs(batch), batch.posterior, strict=True):
            assert posterior[0, (a + b) % 5] == posterior.sum() == 1
        assert batch.scored.all()
    text = [task.token_text(int(id)) for id in task.read(np.array([3 * 5 + 4])).ids[0]]
    assert (text, task.layout.positions) == (["3", "4", "="], (2,))


def test_all_held_out_sums_are_measured_once_when_as_many_are_asked_for() -> None:
    task = ModularSum(19, 61)  # 300 held out: more than one batch of a measurement
    found = [pair for batch in held_out(task, 300) for pair in pairs(batch)]
    assert found == pairs(task.whole(HELD_OUT))


def test_small_batches_go_through_the_training_sums_and_begin_again() -> None:
    task = ModularSum(4, 6)
    seen = [pair for index in range(3) for pair in pairs(task.batch(1, TRAIN, index, 4))]
    assert seen == pairs(task.whole(TRAIN)) * 2


@pytest.mark.parametrize(("share", "count"), [(0.3, 3831), (0.5, 6384), (0.01, 128), (0.99, 12641)])
def test_settings_say_how_many_sums_are_trained_on(share: float, count: int) -> None:
    data = TaskDataSettings(task=MODULAR, train_share=share)
    assert data.train_sums == count
    assert len(ModularSum(data.modulus, data.train_sums).whole(TRAIN).ids) == count
    assert task_of(data) == ModularSum(113, count)
