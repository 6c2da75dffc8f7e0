"""Runs of several processes: forks with the environment that torchrun gives, without the seconds that it takes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from unittest import mock

import torch._dynamo  # this and what follows each fork would import by itself, with its first step or sooner
import torch.distributed as dist
import torch.distributed.fsdp
import torch.distributed.run  # noqa: F401
from forks import Fork, work_on
from kills import events_of

from llmlab.store.run_folder import RunFolder
from llmlab.training import processes

# Of a loss, after 30 steps: its sums are taken in another order, in fp32, and each step adds to what differs.
BOUND = 1e-5
# Six sequences: four processes have one or two; a warm-up begins with one, so that most have none.
SETTINGS = {
    "model__n_layer": 2,
    "model__dropout": 0.0,
    "data__batch_size": 6,
    "data__batch_warmup_steps": 6,
    "checkpoints__interval": 10,
    "train__eval_interval": 10,
    "distributed__strategy": "ddp",
}


@contextlib.contextmanager
def ranks(run: RunFolder, count: int, **how: float) -> Iterator[list[Fork]]:
    """`count` processes on `run`, by their rank; killed when the block is left. The store is here: torchrun has it."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    common |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "GLOO_SOCKET_IFNAME": "lo"}
    forks = []
    for rank in range(count):
        with (
            mock.patch.dict(os.environ, common | {"RANK": str(rank)}),
            mock.patch.object(processes, "_ROLL_CALL_SECONDS", 0.2),  # of two, one is lost, and nobody else speaks
        ):
            forks.append(Fork(lambda: work_on(run, **how)))
    try:
        yield forks
    finally:
        for fork in forks:
            fork.kill()


def train_by(run: RunFolder, count: int) -> RunFolder:
    """Trains to the end on so many processes."""
    with ranks(run, count) as forks:
        codes = [fork.wait() for fork in forks]
    assert codes == [0] * count, run.log.read_text()[-3000:]
    return run


def losses(run: RunFolder) -> list[float]:
    """All that were reported, and the norms of gradients."""
    steps = [event[name] for event in events_of(run, "step") for name in ("loss", "grad_norm")]
    return steps + [event[name] for event in events_of(run, "evaluated") for name in ("train_loss", "val_loss")]


def be_killed() -> None:
    """As the system does it where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
