"""Where a run computes: device, precision, threads, memory, and the peak that its speed is compared with."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from llmlab.core.errors import LabError
from llmlab.core.files import read_json, write_json
from llmlab.core.memory import available_bytes
from llmlab.core.paths import cache_dir
from llmlab.core.processes import available_cores, processor
from llmlab.core.run_settings import TrainSettings


@dataclass(frozen=True)
class Device:
    """A device and the precision of its matrix products (weights and optimizer are always fp32)."""

    kind: str  # cpu, cuda or mps
    precision: str  # fp32, bf16 or fp16

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Runs matrix products in the lower precision; does nothing in fp32."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.kind, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def memory_bytes(self) -> int:
        """Memory that the run holds: allocated on a GPU, resident in the process on a CPU."""
        if self.kind == "cuda":
            return torch.cuda.memory_allocated()
        if self.kind == "mps":
            return torch.mps.current_allocated_memory()
        return int(psutil.Process().memory_info().rss)

    def free_bytes(self) -> int:
        """Memory that the run may hold: what is free, and what it holds already."""
        if self.kind == "cuda":
            return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
        return available_bytes() + int(psutil.Process().memory_info().rss)

    @property
    def queues(self) -> bool:
        """Whether work is only queued when a call returns: a look at its numbers waits for it."""
        return self.kind != "cpu"

    @property
    def reads_late(self) -> bool:
        """Whether `begin_reading` lets more work be queued before its numbers are there."""
        return self.kind == "cuda"

    def begin_reading(self, values: torch.Tensor) -> Callable[[], list[float]]:
        """Copies numbers [n] to the host; what it returns waits for them, but for no work that was queued later."""
        if not self.reads_late:
            numbers: list[float] = values.tolist()
            return lambda: numbers
        here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)  # only into pinned memory nobody waits
        here.copy_(values, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def read() -> list[float]:
            copied.synchronize()
            return here.tolist()

        return read

    def synchronize(self) -> None:
        """Waits until all queued work is done."""
        if self.kind == "cuda":
            torch.cuda.synchronize()
        elif self.kind == "mps":
            torch.mps.synchronize()


def choose_device(train: TrainSettings, on_a_processor: str = "fp32") -> Device:
    """The device and precision that the settings ask for. LabError when this machine lacks them.

    on_a_processor: the precision that "auto" takes on one.
    """
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = train.device
    if kind == "auto":
        kind = next(name for name in ("cuda", "mps", "cpu") if here[name])
    if not here[kind]:
        there = ", ".join(name for name, available in here.items() if available)
        raise LabError(f"There is no {kind} device here.", f"This machine has: {there}.", "Set train.device=auto.")
    precision = train.precision
    if precision == "auto":
        on_a_gpu = "bf16" if kind == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
        precision = on_a_processor if kind == "cpu" else on_a_gpu
    if precision == "fp16" and kind == "cpu":
        raise LabError(
            "fp16 training does not work on a CPU.",
            "Its small gradients need a scaler that only GPUs have.",
            "Set train.precision=fp32 or bf16.",
        )
    return Device(kind, precision)


def choose_threads(train: TrainSettings, recorded: int, watched: bool, processes: int = 1) -> int:
    """Torch threads: as set; else as the run's first worker had, since rounding depends on it; else by the cores.

    Of several processes each has one: threads that wait by spinning would hold the cores that the others need.

    A watched run leaves one core to the window: with as many torch threads as cores, any other busy process
    takes the core of one thread, and all others wait for that one (llmlab.training.thread_spin).
    """
    if processes > 1:
        return train.threads or 1
    return train.threads or recorded or max(1, available_cores() - (1 if watched else 0))


def peak_flops(device: Device) -> float:
    """FLOP/s of a large matrix product at the run's precision: the ceiling for `mfu`. Nothing else hangs on it.

    Remembered in the cache folder for this device, precision, number of threads and version of torch; measured where
    nothing that can be read is there.
    """
    remembered = (read_json(_peak_file(device)) or {}).get("flops")
    if isinstance(remembered, float) and 0 < remembered < float("inf"):
        return remembered
    return measured_peak(device)


def measured_peak(device: Device, reached: float = 0.0) -> float:
    """The same, measured now and remembered: 0.2 s on a quiet machine, seconds on a busy one.

    The best of a few, since neighbours can only make it slower; for the same reason a higher one that was measured
    before is kept, and returned. reached: FLOP/s of something that ran on the device, than which the peak is no lower.
    """
    found, file = reached, _peak_file(device)
    with contextlib.suppress(torch.OutOfMemoryError):  # beside a run that leaves no room
        found = max(found, _measure(device))
    before = (read_json(file) or {}).get("flops")
    if isinstance(before, float) and found <= before < float("inf"):
        return before
    with contextlib.suppress(OSError):  # a cache that cannot be written: the next start measures again
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"of": _measured_on(device), "flops": found}, durable=False)
    return found


def _measured_on(device: Device) -> list[str]:
    """All that the peak depends on."""
    name = torch.cuda.get_device_name() if device.kind == "cuda" else processor()
    threads = str(torch.get_num_threads()) if device.kind == "cpu" else ""
    return [device.kind, name, device.precision, threads, str(_size(device)), str(torch.__version__)]


def _peak_file(device: Device) -> Path:
    key = hashlib.sha256("\n".join(_measured_on(device)).encode()).hexdigest()[:32]
    return cache_dir() / "peaks" / f"{key}.json"


def _size(device: Device) -> int:
    """Rows of the matrices: large enough to reach the peak, small enough to be quick."""
    return 1024 if device.kind == "cpu" else 8192


def _measure(device: Device) -> float:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[device.precision]
    size = _size(device)
    # A generator of its own: measuring must not move the run's random numbers.
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(size, size, generator=generator).to(device.kind, dtype)
    best = float("inf")
    for _ in range(12):
        device.synchronize()
        begin = time.perf_counter()
        a @ a
        device.synchronize()
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on any device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # The CPU allocator raises a plain RuntimeError.
    return isinstance(error, RuntimeError) and ("t allocate memory" in str(error) or "out of memory" in str(error))
