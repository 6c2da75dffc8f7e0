"""The processes that train one run: how they find each other, hear what comes next, and notice that one is lost.

Each has a rank, 0 to N - 1. Rank 0 runs the loop of `llmlab.training.loop`, alone: it answers requests, measures, and
is the only one that writes. Before anything in which the others take part it gives an order; they do what they hear,
and nothing else (`Loop.follow`). Between orders they wait, however long a pause or a save takes. What they compute
together is in `llmlab.training.parallel`.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn

from llmlab.core.device import Device
from llmlab.core.errors import LabError
from llmlab.training.pace import STEPS

# ids, targets and what else a batch has, [B, T] each -> a mean over B, a scalar
Loss: TypeAlias = Callable[..., Tensor]

# How long the others wait for an order: a pause may last for months. Who dies meanwhile closes its connections.
_PATIENCE = timedelta(days=365)
# What all processes but the dead one take at most to say that they are there, and how often rank 0 listens.
_ROLL_CALL_SECONDS, _LISTEN_SECONDS = 2.0, 0.05
_ORDERS = ("end", "join", "step", "losses", "weights", "moments", "gradients", "parameters")
LOST = LabError(
    "A process of this run was lost, and the others cannot go on without it.",
    "",
    "Resume the run: it starts from its newest checkpoint.",
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

    def given_up(self) -> LabError | None:
        """Why the others have ended, as one of them said; None while none has."""
        return None

    @property
    def busy(self) -> list[float]:
        """By rank: the share of the last steps' time in which it computed. What is left it waited, for others or for
        what they send. Empty where that is not known."""
        return []


class Connected(Processes):
    """N processes that hear each other: each with a connection to all, and rank 0 with orders for the others."""

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

    def given_up(self) -> LabError | None:
        last = self._last_words()
        return self._who_is_gone(last, late=False) if any(last.values()) else None

    def why_lost(self, error: BaseException) -> LabError:
        """What became of the one that the others wait for in vain: as it said itself, or as the silence tells."""
        end = time.monotonic() + _ROLL_CALL_SECONDS
        while True:
            last = self._last_words()
            reasons = [said for said in last.values() if said is not None and said.what != LOST.what]
            if reasons or all(last.values()) or time.monotonic() > end:
                return self._who_is_gone(last, late="timed out" in str(error).lower())
            time.sleep(_LISTEN_SECONDS)

    def _who_is_gone(self, last: Mapping[int, LabError | None], *, late: bool) -> LabError:
        """last: words, by rank. late: this process waited for one of the others as long as it may."""
        for said in last.values():
            if said is not None and said.what != LOST.what:
                return said
        silent = [rank for rank, said in last.items() if said is None]
        if not silent and not late:  # the others are all there, and waited for this one
            return not_answering(self.rank, self.size)
        who = f"Process {silent[0]}" if len(silent) == 1 else "One"
        became = "was ended from outside, perhaps by the system for want of memory"
        if late:
            became = f"did not answer within {self.seconds:g} s (distributed.timeout)"
        return LabError(LOST.what, f"{who} of the run's {self.size} {became}.", LOST.do)

    def _last_words(self) -> dict[int, LabError | None]:
        """Why each of the others ends, by rank; None of one that has not said."""
        return {rank: self._said(rank) for rank in range(self.size) if rank != self.rank}

    def _said(self, rank: int) -> LabError | None:
        with contextlib.suppress(RuntimeError):  # the store went with the process that kept it
            if self._store.check([f"failed/{rank}"]):
                said = LabError(**json.loads(self._store.get(f"failed/{rank}")))
                return said if said.what == LOST.what else failed(rank, self.size, said)
        return None


def failed(rank: int, size: int, error: LabError) -> LabError:
    """What the run says where one of its processes failed."""
    return LabError(f"Process {rank} of the run's {size} failed. {error.what}", error.why, error.do)


def not_answering(rank: int, size: int, why: str = "") -> LabError:
    """What the run says where one of its processes hung, and torchrun ended it."""
    return LabError(f"Process {rank} of the run's {size} no longer answered, and was ended.", why, LOST.do)


def is_lost_contact(error: BaseException) -> bool:
    """Whether an error means that another process is gone or does not answer."""
    words = ("gloo", "onnection", "NCCL", "Broken pipe")
    said = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return said or isinstance(error, dist.DistError)
