"""Training on N processes: what is put around the loop of `llmlab.training.loop`, which stays as it is.

Each process has a rank, 0 to N - 1. Rank 0 runs the loop, alone: it answers requests, measures, and is the only one
that writes. Before anything in which the others take part it gives an order; they do what they hear, and nothing else
(`follow`). Between orders they wait, however long a pause or a save takes.

**The same run.** Batches are a function of (seed, step), and no process draws its own. Of a batch's B sequences rank r
reads rows r B / N to (r + 1) B / N, B_r of them:

    ids [B, T] -> [B_r, T]        loss_r = mean over its tokens        weight_r = N B_r / B

What follows averages over ranks, and the mean of weight_r loss_r is the mean loss of the whole batch, also where B / N
is no whole number. So 1, 2 and 4 processes compute the same sum in another order, and their losses differ by rounding
in fp32: about 1e-7 of the loss a step, less than 1e-5 after 30 (tests/training/test_parallel.py). Dropout is the
exception: each rank draws a mask of its own, from (seed, batch, rank).

**DDP** (Li et al. 2020): each rank holds the whole model, its gradients and its optimizer, P parameters. It averages
gradients, and since all ranks then take the same step, their weights stay equal without ever being sent:

    gradient g_r [P] -> all-reduce -> (1/N) sum_r weight_r g_r [P], the same on every rank

A ring of N ranks passes parts of it on: each rank sends 2 (N - 1) / N P numbers, 4 bytes each, once a step. It sends
the last layers' while the backward pass computes the first ones'. Of several batches that make a step
(`train.grad_accum`) only the last one's backward pass sends anything (`Processes.batch`).

**FSDP2** (Zhao et al. 2023; `fully_shard`): each rank holds the N-th part of every parameter, its gradient and its
moments: rows of it. Blocks are gathered one at a time, when they are computed; what is outside the blocks stays
gathered from the beginning of a step to its end, since a tied head reads the embedding again.

    weight [out, in] -> shard [out / N, in]; gathered [out, in]; gradient [out, in] -> reduce-scatter -> [out / N, in]

Each rank sends (N - 1) / N P numbers to gather weights in the forward pass, as many to gather them again in the
backward pass, and as many gradients: 3 (N - 1) / N P in all, for 16 P / N bytes of memory in place of DDP's 16 P. In
bf16 the blocks' matrices travel in two bytes, gradients and what the optimizer keeps in four.

A checkpoint is the same under every strategy: rank 0 collects whole tensors one by one (`whole`). So a run goes on
under another one, or on another number of ranks, each of which takes its rows (`llmlab.training.state.restore`).

**Exact resume.** Floating-point sums depend on their order, and in a ring the order depends on where in its bucket a
gradient lies. DDP orders the buckets anew after its first backward pass, so it makes that one on a batch of no weight
(`_warmed`): from the first step on the order is the one of all later steps, and a resume on as many processes is
bitwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from llmlab.core.device import Device
from llmlab.core.errors import LabError
from llmlab.gpt.model import Block
from llmlab.training.pace import STEPS

if TYPE_CHECKING:
    from llmlab.training.loop import Loop

# ids, targets and what else a batch has, [B, T] each -> a mean over B, a scalar
Loss: TypeAlias = Callable[..., Tensor]

# How long the others wait for an order: a pause may last for months. Who dies meanwhile closes its connections.
_PATIENCE = timedelta(days=365)
# What all processes but the dead one take to say that they are there.
_ROLL_CALL_SECONDS = 2.0
_ORDERS = ("end", "join", "step", "losses", "weights", "moments", "gradients", "parameters")
LOST = LabError(
    "A process of this run was lost, and the others cannot go on without it.",
    "",
    "Resume the run: it goes on from its newest checkpoint.",
)


@dataclass(frozen=True)
class Place:
    """Which process of how many this one is, as torchrun says it in the environment. local: its number here."""

    rank: int
    size: int
    local: int

    @classmethod
    def from_environment(cls) -> Place | None:
        """None for a process that is not one of several."""
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            return None
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        return cls(rank, size, int(os.environ.get("LOCAL_RANK", rank))) if size > 1 else None


class Processes:
    """The processes that train one run, as each of them sees them. By itself: one, and nothing here does anything."""

    rank, size = 0, 1

    def order(self, what: str, step: int) -> None:
        """Rank 0 tells the others what comes now, and after how many finished steps; of others it is no word."""

    def share(self, *batch: Tensor) -> tuple[tuple[Tensor, ...], int]:
        """This rank's rows of a batch's tensors [B, T], and how many: [B_r, T]; where it has none, the first, which
        count 0."""
        return batch, len(batch[0])

    def around(self, model: nn.Module, loss: Loss, blocks: Iterable[nn.Module] = ()) -> Loss:
        """The loss of a whole batch by all processes: what each returns is its part, whose mean over ranks it is.

        blocks: what of the model is gathered at a time, where each rank holds a part.
        """
        return loss

    def batch(self, seed: int, index: int, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Around forward and backward pass of batch number `index`; gradients are sent with the last of a step."""
        return contextlib.nullcontext()

    def mean(self, loss: Tensor) -> Tensor:
        """Of the ranks' parts of a step's loss: a scalar, the same on every rank."""
        return loss

    def total(self, *numbers: float) -> tuple[float, ...]:
        """The sum over ranks of each."""
        return numbers

    def norm(self, found: Tensor) -> Tensor:
        """The gradient's norm as a plain number."""
        return found

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of which each rank may hold a part, whole; where they were in parts: in main memory, on rank 0."""
        return dict(tensors)

    @property
    def sharded(self) -> bool:
        """Whether each rank holds only a part of the model."""
        return False

    @property
    def busy(self) -> list[float]:
        """By rank: the share of the last steps' time in which it computed. What is left it waited, for others or for
        what they send. Empty where that is not known."""
        return []


class Several(Processes):
    """N processes with DDP. `join` makes one."""

    def __init__(self, place: Place, device: Device, seconds: float) -> None:
        """Waits for the others. seconds: how long one may leave them waiting in a step (`distributed.timeout`)."""
        self.rank, self.size, self.seconds = place.rank, place.size, seconds
        self._device = device
        if device.kind == "cuda":
            torch.cuda.set_device(place.local)
        # torchrun's agent keeps the store; where it keeps none, rank 0 does.
        hosts = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        libuv = os.environ.get("USE_LIBUV", "1") == "1"  # as torchrun reads it
        store = dist.TCPStore(address, port, is_master=hosts, wait_for_workers=False, use_libuv=libuv)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = dist.PrefixStore(f"llmlab/{attempt}", store)
        dist.init_process_group("gloo", store=self._store, rank=self.rank, world_size=self.size, timeout=_PATIENCE)
        backend = "nccl" if device.kind == "cuda" else "gloo"
        self._group = dist.new_group(backend=backend, timeout=timedelta(seconds=seconds))
        self._ddp: DistributedDataParallel | None = None
        self._begun, self._worked = time.perf_counter(), time.thread_time()
        self._shares: deque[list[float]] = deque(maxlen=STEPS)  # as the speed is averaged

    def _meet(self) -> None:
        """Waits for those that still read. From here on rank 0 waits for the others as long as one may in a step; they
        wait for its orders through a pause of any length."""
        dist.barrier()
        if self.rank == 0:
            dist.distributed_c10d._set_pg_timeout(timedelta(seconds=self.seconds))

    def order(self, what: str, step: int) -> None:
        self._begun, self._worked = time.perf_counter(), time.thread_time()
        if self.rank == 0:
            dist.broadcast(torch.tensor([_ORDERS.index(what), step]), 0)

    def hear(self) -> tuple[str, int]:
        """The next order of rank 0, on every other rank."""
        heard = torch.zeros(2, dtype=torch.int64)
        dist.broadcast(heard, 0)
        return _ORDERS[int(heard[0])], int(heard[1])

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
        """For the masks of dropout."""
        torch.manual_seed(hash((seed, index, self.rank)) & (2**63 - 1))  # of integers: the same in every process

    def mean(self, loss: Tensor) -> Tensor:
        wall, worked = time.perf_counter() - self._begun, time.thread_time() - self._worked
        told = torch.zeros(1 + self.size, dtype=torch.float64, device=loss.device)
        told[0] = loss
        told[1 + self.rank] = min(1.0, worked / wall)
        dist.all_reduce(told, group=self._group)
        if not self._device.queues:
            self._shares.append(told[1:].tolist())
        return (told[0] / self.size).to(loss.dtype)

    def total(self, *numbers: float) -> tuple[float, ...]:
        sums = torch.tensor(numbers, dtype=torch.float64, device=self._device.kind)
        dist.all_reduce(sums, group=self._group)
        return tuple(sums.tolist())

    @property
    def busy(self) -> list[float]:
        return [sum(shares) / len(shares) for shares in zip(*self._shares, strict=True)]

    def say_failed(self, error: LabError) -> None:
        """For the others, who only hear that this rank is gone."""
        with contextlib.suppress(RuntimeError):
            self._store.set(f"failed/{self.rank}", json.dumps(error.as_dict()))

    def why_lost(self, error: BaseException) -> LabError:
        """What became of the one that the others wait for in vain: as it said itself, or as the silence tells."""
        time.sleep(_ROLL_CALL_SECONDS)
        silent = []
        for rank in range(self.size):
            said = None if rank == self.rank else self._said(rank)
            if said is not None and said.what != LOST.what:
                return failed(rank, self.size, said)
            if said is None and rank != self.rank:
                silent.append(rank)
        who = f"Process {silent[0]}" if len(silent) == 1 else "One"
        became = "was ended from outside, perhaps by the system for want of memory"
        if "timed out" in str(error).lower():
            became = f"did not answer within {self.seconds:g} s (distributed.timeout)"
        return LabError(LOST.what, f"{who} of the run's {self.size} {became}.", LOST.do)

    def _said(self, rank: int) -> LabError | None:
        with contextlib.suppress(RuntimeError):  # the store went with the process that kept it
            if self._store.check([f"failed/{rank}"]):
                return LabError(**json.loads(self._store.get(f"failed/{rank}")))
        return None


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
        found = {}
        for name, tensor in tensors.items():
            gathered = _gathered(tensor)
            if self.rank == 0:
                found[name] = gathered.cpu()
        return found

    def norm(self, found: Tensor) -> Tensor:
        return _gathered(found)


def _gathered(tensor: Tensor) -> Tensor:
    """All of a DTensor, on every rank."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


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


def follow(processes: Several, trainer: Loop) -> None:
    """What every rank but 0 does: what it hears, until it hears that this is all."""
    trainer.model.train()
    while True:
        what, trainer.progress.step = processes.hear()
        match what:
            case "step":
                trainer.optimizer_step()
                trainer.spin.look()
            case "losses":
                trainer.losses()
            case "weights":
                trainer.whole_weights()
            case "moments":
                trainer.whole_moments()
            case "gradients":
                trainer.whole_gradients()
            case "parameters":
                trainer.whole_parameters()
            case _:
                return


def failed(rank: int, size: int, error: LabError) -> LabError:
    """What the run says where one of its processes failed."""
    return LabError(f"Process {rank} of the run's {size} failed. {error.what}", error.why, error.do)


def is_lost_contact(error: BaseException) -> bool:
    """Whether an error means that another process is gone or does not answer."""
    words = ("gloo", "onnection", "NCCL", "Broken pipe")
    said = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return said or isinstance(error, dist.DistError)


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
