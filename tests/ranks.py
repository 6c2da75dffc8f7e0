"""Runs of several processes: forks with the environment that torchrun gives, without the seconds that it takes."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from unittest import mock

import torch.distributed as dist
from forks import Fork, work_on

from llmlab.store.run_folder import RunFolder


@contextlib.contextmanager
def ranks(run: RunFolder, count: int, **how: float) -> Iterator[list[Fork]]:
    """`count` processes on `run`, by their rank; killed when the block is left. The store is here: torchrun has it."""
    importlib.import_module("torch._dynamo")  # which each fork would import by itself, with its optimizer's first step
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    common |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "GLOO_SOCKET_IFNAME": "lo"}
    forks = []
    for rank in range(count):
        with mock.patch.dict(os.environ, common | {"RANK": str(rank)}):
            forks.append(Fork(lambda: work_on(run, **how)))  # type: ignore[arg-type]
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
