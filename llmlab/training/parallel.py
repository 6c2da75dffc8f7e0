"""Training on N processes: what is put around the loop of `llmlab.training.loop`, which stays as it is.

resources/concepts/many-processes.md explains it: what each process holds and sends, and why the losses stay the same.
Of a batch's B sequences rank r, 0 to N - 1, reads B_r (`Several.share`):

    ids [B, T] -> [B_r, T]        loss_r = mean over its tokens        weight_r = N B_r / B

    DDP    (Li et al. 2020)     gradient g_r [P] -> all-reduce -> (1/N) sum_r weight_r g_r [P], the same on every rank
    FSDP2  (Zhao et al. 2023)   weight [out, in] -> shard [out / N, in], gathered a block at a time;
                                gradient [out, in] -> reduce-scatter -> [out / N, in]

Under FSDP2 in bf16 the blocks' matrices travel in two bytes, gradients and what the optimizer keeps in four.

A checkpoint is the same under every strategy: rank 0 collects whole tensors one by one (`whole`), and a resume gives
each rank its rows (`llmlab.training.state.restore`). Both call DTensor's own functions, on which the state dictionaries
of torch.distributed.checkpoint stand, too: these hold a fifth more while a state is taken, begin AdamW's count of steps
at 1 where none was made, and part Muon from AdamW.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from llmlab.core.device import Device
from llmlab.core.errors import LabError
from llmlab.gpt.model import Block
from llmlab.training.processes import Connected, Loss, Place, Processes


class Several(Connected):
    """N processes with DDP. `join` makes one."""

    _ddp: DistributedDataParallel | None = None

    def share(self, *batch: Tensor) -> tuple[tuple[Tensor, ...], int]:
        rows = len(batch[0])
        begin, end = (rank * rows // self.size for rank in (self.rank, self.rank + 1))
        mine = slice(begin, end) if end > begin else slice(1)  # a rank that stays away would keep the others waiting
        return tuple(each[mine] for each in batch), end - begin

    def around(self, model: nn.Module, loss: Loss, blocks: Iterable[nn.Module] = ()) -> Loss:
        self._meet()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 has a new name for one of these
            self._ddp = DistributedDataParallel(
                _Weighted(model, loss, self),
                process_group=self._group,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )
        _warmed(self._ddp, self._device)
        return self._ddp

    @contextlib.contextmanager
    def batch(self, seed: int, index: int, *, last: bool) -> Iterator[None]:
        assert self._ddp is not None, "nothing is around the model yet"
        self._seed(seed, index)
        with contextlib.nullcontext() if last else self._ddp.no_sync():
            yield

    def _seed(self, seed: int, index: int) -> None:
        """For the masks of dropout. torch.manual_seed would note the stack for each kind of device that is not here."""
        drawn = hash((seed, index, self.rank)) & (2**63 - 1)  # of integers: the same in every process
        torch.default_generator.manual_seed(drawn)
        if self._device.kind == "cuda":
            torch.cuda.manual_seed(drawn)

    def mean(self, loss: Tensor) -> Tensor:
        wall, worked = time.perf_counter() - self._begun, time.thread_time() - self._worked
        told = torch.zeros(1 + self.size, dtype=torch.float64, device=loss.device)
        told[0] = loss
        told[1 + self.rank] = min(1.0, worked / wall)
        dist.all_reduce(told, group=self._group)
        if not self._device.queues:
            self._shares.append(told[1:].tolist())
        return (told[0] / self.size).to(loss.dtype)


class Sharded(Several):
    """N processes with FSDP2."""

    _model: Any = None  # an FSDPModule, once `fully_shard` made it one

    @property
    def sharded(self) -> bool:
        return True

    def order(self, what: str, step: int) -> None:
        super().order(what, step)
        if self._model is not None:  # a measurement leaves gathered what is outside of the blocks
            self._model.reshard()

    def around(self, model: nn.Module, loss: Loss, blocks: Iterable[nn.Module] = ()) -> Loss:
        from torch.distributed.device_mesh import DeviceMesh  # half a second that other runs do without
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

        self._meet()
        mesh = DeviceMesh.from_group(self._group, self._device.kind)
        half = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        for block in blocks:
            if self._device.precision == "bf16" and isinstance(block, Block):  # its matrices; norms stay fp32
                fully_shard(block.attention, mesh=mesh, mp_policy=half)
                fully_shard(block.feed_forward, mesh=mesh, mp_policy=half)
            fully_shard(block, mesh=mesh)
        if loss == getattr(model, "loss", None):  # FSDP2, too, acts on `forward` alone
            self._model = fully_shard(model, mesh=mesh)
            register_fsdp_forward_method(model, "loss")
            return _Weighted(model, self._model.loss, self)
        self._model = fully_shard(_Weighted(model, loss, self), mesh=mesh)
        return self._model

    @contextlib.contextmanager
    def batch(self, seed: int, index: int, *, last: bool) -> Iterator[None]:
        self._seed(seed, index)
        self._model.set_requires_gradient_sync(last)
        yield

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        gathered = ((name, _gathered(tensor)) for name, tensor in tensors.items())  # one at a time
        return {name: tensor.cpu() for name, tensor in gathered if self.rank == 0}

    def norm(self, found: Tensor) -> Tensor:
        return _gathered(found)


def _gathered(tensor: Tensor) -> Tensor:
    """All of a DTensor, on every rank."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def join(strategy: str, device: Device, seconds: float) -> Processes:
    """The processes of this run, once all of them are there. LabError where they could not work together."""
    place = Place.from_environment()
    if place is None:
        return Processes()
    if strategy == "none":
        raise LabError(
            f"This run trains in one process, and it was started in {place.size}.",
            "Its distributed.strategy is none.",
            "Start it with llmlab-run resume, or set distributed.strategy=ddp.",
        )
    if device.kind == "mps":
        raise LabError("Several processes cannot train on MPS.", "torch sends nothing there.", "Set train.device=cpu.")
    if device.kind == "cuda" and place.local >= torch.cuda.device_count():
        raise LabError(
            f"There is no GPU for process {place.rank}.",
            f"This machine has {torch.cuda.device_count()}, and each process needs one.",
            "Set fewer processes, or train.device=cpu.",
        )
    return (Sharded if strategy == "fsdp2" else Several)(place, device, seconds)


class _Weighted(nn.Module):
    """DDP acts on a module's `forward`: this one's is the loss of this rank's rows, in proportion to them."""

    def __init__(self, model: nn.Module, loss: Loss, processes: Several) -> None:
        super().__init__()
        self.model = model  # for DDP to find the parameters
        self._loss, self._processes = loss, processes

    def forward(self, *batch: Tensor) -> Tensor:
        """ids, targets and what else the whole batch has, [B, T] each -> weight_r loss_r: a scalar."""
        mine, rows = self._processes.share(*batch)
        return self._loss(*mine) * (self._processes.size * rows / len(batch[0]))


def _warmed(ddp: DistributedDataParallel, device: Device) -> None:
    """A first pass that changes nothing: after it, DDP has its buckets in the order that they keep."""
    two = torch.zeros(1, 2, dtype=torch.int64, device=device.kind)
    with device.autocast():
        loss = ddp(two, two) * 0.0
    loss.backward()
    ddp.zero_grad(set_to_none=True)
