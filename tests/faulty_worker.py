"""A worker at fault, by the variable FAULT: its rank 1 finds no device, or its rank 0 stands still in a step, or
between two, or saves and answers for longer than anything took so far. tests/fork_server.py serves it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

from llmlab.core.errors import LabError
from llmlab.jobs import ranks, worker
from llmlab.store import recorder
from llmlab.training import inspections
from llmlab.training.loop import Trainer

rank, fault = int(os.environ["RANK"]), os.environ["FAULT"]
plain_device, plain_loss, plain_report = worker.choose_device, Trainer.loss_of_batch, Trainer.report


def choose_device(*asked: Any) -> Any:
    if fault == "no device" and rank == 1:
        raise LabError("There is no GPU for process 1.", "This machine has 1.", "Set fewer.")
    return plain_device(*asked)


def loss_of_batch(self: Trainer, index: int) -> Any:
    if fault == "hangs" and rank == 0 and self.progress.step == 7:
        threading.Event().wait()
    return plain_loss(self, index)


def report(self: Trainer, result: Any) -> None:
    plain_report(self, result)
    if fault == "hangs between steps" and self.progress.step == 7:
        _have_patience(self, 0.5)
        threading.Event().wait()


def slowly(does: Callable[..., Any]) -> Callable[..., Any]:
    done: list[bool] = []

    def slow(trainer: Trainer, *given: Any) -> Any:
        if fault == "works for long" and not done:
            done.append(True)
            _have_patience(trainer, 0.5)
            threading.Event().wait(4)  # longer than that patience and the test's timeout of 2 seconds
            _have_patience(trainer, 120.0)
        return does(trainer, *given)

    return slow


def _have_patience(trainer: Trainer, seconds: float) -> None:
    recorder._LEAST_PATIENCE, recorder._PATIENCE_GAPS = seconds, 0
    trainer.recorder.beat(0.0)
    trainer.recorder.update()


with (
    mock.patch.object(worker, "choose_device", choose_device),
    mock.patch.object(worker, "peak_flops", return_value=1e11),
    mock.patch.object(worker, "SIGTERM_SECONDS", 1.0),
    mock.patch.object(ranks, "_LOOK_SECONDS", 0.2),
    mock.patch.multiple(Trainer, loss_of_batch=loss_of_batch, report=report, _save=slowly(Trainer._save)),
    mock.patch.object(inspections, "_answer", slowly(inspections._answer)),
):
    raise SystemExit(worker.main())
