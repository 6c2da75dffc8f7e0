"""What a training is given, what it says of itself, and what one of its steps did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch

from llmlab.core.device import Device
from llmlab.core.errors import Cancelled
from llmlab.store.recorder import Recorder
from llmlab.store.run_folder import RunFolder
from llmlab.training.control import Control
from llmlab.training.processes import Processes


@dataclass(frozen=True)
class Facts:
    """What a kind of training knows of text and model, as `started` has it (`llmlab.store.events.Started`)."""

    parameters: int
    vocab_size: int
    train_tokens: int
    val_tokens: int
    tokenizer: str
    uniform_loss: float
    unigram_loss: float | None = None
    floor_loss: float | None = None
    bytes_per_token: float | None = None
    comparable: bool = False


@dataclass(frozen=True)
class Workplace:
    """Where a worker trains: its run, and what it has to do it with."""

    run: RunFolder
    device: Device
    recorder: Recorder
    control: Control
    threads: int
    versions: dict[str, str]  # of the libraries
    peak_flops: float  # of all processes, measured in one: FLOP/s
    processes: Processes = field(default_factory=Processes)
    compiled: bool | None = None  # whether the run's earlier workers compiled the model; None for its first

    def tell(self, what: str, done: float, total: float) -> None:
        """Says what keeps the run before its first step (`llmlab.core.progress`). Cancelled when a stop is asked."""
        if self.processes.rank:  # rank 0 has said it already
            return
        if self.control.stop_wanted():
            raise Cancelled
        self.recorder.prepare(f"{what} ({100 * done / total:.0f} %)" if total else what)


@dataclass
class StepResult:
    """What one optimizer step did; tensors on the device until someone needs the numbers."""

    step: int  # counted from 1
    loss: torch.Tensor  # mean over the step's tokens, nats
    grad_norm: torch.Tensor  # before clipping
    lr: float
    tokens: int  # that it read

    device: Device

    @cached_property
    def read(self) -> Callable[[], list[float]]:
        """Begins to read loss and gradient norm, together and once, and gives what waits for them."""
        return self.device.begin_reading(torch.stack([self.loss.float(), self.grad_norm.to(self.loss.device).float()]))

    @property
    def numbers(self) -> tuple[float, float]:
        """Loss and gradient norm: on a GPU the first look waits for the step, or for all that was queued since."""
        loss, grad_norm = self.read()
        return loss, grad_norm
