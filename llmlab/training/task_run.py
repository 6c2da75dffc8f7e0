"""A run on a task: the lab's own loop, on sequences whose exact posterior is known.

The validation loss is the cross-entropy of the model's belief against the posterior, and `floor_loss` the entropy of
the posterior on the same sequences: what lies between the two is exactly KL(Bayes || model), in nats.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from llmlab.anatomy.modules import evaluating
from llmlab.core.config import from_mapping, to_mapping
from llmlab.core.errors import LabError, UsageError
from llmlab.core.task_settings import TaskDataSettings, TaskSettings
from llmlab.data.synthetic.known_tasks import task_of
from llmlab.data.synthetic.metrics import Calibration, calibration, entropy
from llmlab.data.synthetic.tasks import TRAIN, Task, TaskBatch, TaskTokenizer, held_out
from llmlab.models.task_models import Answering, make_model
from llmlab.store.checkpoints import Checkpoint
from llmlab.training.loop import FromScratch
from llmlab.training.optimizer import make_optimizer
from llmlab.training.workplace import Facts, Workplace


class TaskRun(FromScratch):
    """A model and the task that it learns."""

    settings: TaskSettings

    def __init__(self, place: Workplace, settings: TaskSettings) -> None:
        super().__init__(place, settings, task_key(settings))
        train = settings.train
        torch.manual_seed(train.seed)
        self.task = task_of(settings.data)
        self.layout = self.task.layout
        self.tokenizer = TaskTokenizer(self.task)
        self.model = make_model(settings.model, self.layout).to(place.device.kind)
        self.optimizer = make_optimizer(self.model, train)
        self.scaler = torch.amp.GradScaler(place.device.kind, enabled=place.device.precision == "fp16")
        # 2 FLOPs a weight forward, twice that backward (Kaplan et al. 2020, section 2.1).
        self.flops_per_token = 6.0 * self._parameters()
        self._held_out = held_out(self.task, train.eval_sequences)

    def loss_of_batch(self, index: int) -> Tensor:
        """Mean over scored predictions of -sum target ln p, nats."""
        batch = self.task.batch(self.settings.train.seed, TRAIN, index, self.settings.data.batch_size)
        return cross_entropy(self.model, batch, batch.target, self.device.kind)

    def choose_prompts(self) -> None:
        """None: nothing is written on a task."""

    def losses(self) -> tuple[float, float]:
        """Against the posterior: on the first sequences of training, and on held-out ones."""
        seed, size = self.settings.train.seed, self.settings.data.batch_size
        count = -(-self.settings.train.eval_sequences // size)
        begun = [self.task.batch(seed, TRAIN, index, size) for index in range(count)]
        with evaluating(self.model), torch.no_grad(), self.device.autocast():
            return self._mean_loss(begun), self._mean_loss(self._held_out)

    def continuations(self, prompts: Sequence[str], seed: int) -> list[dict[str, str]]:
        """None: LabError when one is asked for."""
        if prompts:
            raise LabError(f"{self.run.id} writes no text.", "It learns a task of a paper.")
        return []

    def about(self) -> dict[str, Any]:
        settings = to_mapping(self.settings)
        return {"task": settings["data"], "task_model": settings["model"], "parameters": self._parameters()}

    def require_same_text(self, checkpoint: Checkpoint) -> None:
        """LabError when the checkpoint was trained on another task."""
        if _task_of(checkpoint) != self.settings.data:
            raise LabError(f"{self.run.id} cannot be resumed.", f"{checkpoint.name} was trained on another task.")

    def facts(self) -> Facts:
        """With the loss of knowing nothing, and the lowest loss there is: the posterior's mean entropy, nats."""
        bits = np.concatenate([entropy(batch.posterior)[batch.scored] for batch in self._held_out])
        return Facts(
            parameters=self._parameters(),
            vocab_size=self.layout.vocab_size,
            train_tokens=self.settings.train_tokens,
            val_tokens=self.settings.train.eval_sequences * self.layout.time,
            tokenizer=self.settings.data.task,
            uniform_loss=math.log(self.layout.answers[1] - self.layout.answers[0]),
            floor_loss=math.log(2) * float(bits.mean()),
        )

    def _mean_loss(self, batches: list[TaskBatch]) -> float:
        total, count = 0.0, 0
        for batch in batches:
            scored = int(batch.scored.sum())
            total += float(cross_entropy(self.model, batch, batch.posterior, self.device.kind)) * scored
            count += scored
        return total / count


def task_key(settings: TaskSettings) -> str:
    """Changes when the sequences do, on which an exact resume depends: they follow from task, batches and seed.

    Settings of other tasks have no part in it, so it stays as it is when the lab learns a new one.
    """
    what = f"{task_of(settings.data)!r} {settings.data.batch_size} {settings.train.seed}"
    return hashlib.sha256(what.encode()).hexdigest()


def cross_entropy(model: nn.Module, batch: TaskBatch, target: np.ndarray, device: str) -> Tensor:
    """Mean over the scored predictions of -sum target ln p: a scalar, in nats. target: [B, P, C]."""
    logits = cast(Answering, model).answers(torch.from_numpy(batch.ids).to(device))  # [B, P, C]
    scored = torch.from_numpy(batch.scored).to(device)
    wanted = torch.from_numpy(target).to(device, torch.float32)
    return -(wanted * logits.float().log_softmax(-1)).sum(-1)[scored].mean()


@torch.no_grad()
def beliefs_of(model: nn.Module, batches: Sequence[TaskBatch]) -> np.ndarray:
    """What the model believes at each position of all batches together: float64 [B, P, C]."""
    answers = cast(Answering, model).answers
    found = [answers(torch.from_numpy(batch.ids)).double().softmax(-1).numpy() for batch in batches]
    return np.concatenate(found)


def measure(model: nn.Module, task: Task, count: int) -> Calibration:
    """How well a model, on the CPU, agrees with the posterior on the first `count` held-out sequences."""
    batches = held_out(task, count)
    posterior = np.concatenate([batch.posterior for batch in batches])
    scored = np.concatenate([batch.scored for batch in batches])
    return calibration(beliefs_of(model, batches), posterior, scored)


def _task_of(checkpoint: Checkpoint) -> TaskDataSettings | None:
    """What a checkpoint was trained on, settings newer than it at their defaults; None where that is unknown."""
    try:
        return from_mapping(TaskSettings, {"data": checkpoint.about["task"]}).data
    except (KeyError, UsageError):
        return None
