"""What reasoners that know less reach: the lines a model's error is held against."""

from __future__ import annotations

import numpy as np

from llmlab.data.synthetic.metrics import Calibration, calibration
from llmlab.data.synthetic.tasks import Task, TaskBatch, held_out


def floors(task: Task, count: int) -> dict[str, Calibration]:
    """By name (`uniform`, `last 2`), the calibration of limited reasoners on the first `count` held-out sequences."""
    return floors_of(task, held_out(task, count))


def floors_of(task: Task, batches: list[TaskBatch]) -> dict[str, Calibration]:
    """The same on given sequences."""
    beliefs = [task.floors(batch) for batch in batches]
    posterior = np.concatenate([batch.posterior for batch in batches])
    scored = np.concatenate([batch.scored for batch in batches])
    return {name: calibration(np.concatenate([one[name] for one in beliefs]), posterior, scored) for name in beliefs[0]}
