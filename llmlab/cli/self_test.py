"""Doctor's checks of the devices: that training computes what it should, and how fast.

Imports torch. Whatever is checked is the code that training runs: model, loss, optimizer.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from llmlab.cli.doctor import Finding
from llmlab.core.device import Device, choose_device, choose_threads, measured_peak
from llmlab.core.errors import LabError
from llmlab.core.paths import module_command
from llmlab.core.processes import multiplies_in_bf16
from llmlab.core.run_settings import TrainSettings
from llmlab.core.settings import ModelSettings
from llmlab.gpt.estimate import HALF_FROM, HALF_WIDTH
from llmlab.gpt.head import next_token_loss
from llmlab.gpt.model import GPT
from llmlab.jobs import ranks
from llmlab.training import thread_spin
from llmlab.training.optimizer import make_optimizer
from llmlab.training.parallel import join
from llmlab.training.processes import Processes

_STEPS = 20
# Largest difference of a loss from the CPU's within 20 steps, in nats. Rounding in another order makes about 1e-5;
# a device that computes something else (pytorch/pytorch#109457 on MPS) is off by tenths.
_TOLERANCE = 1e-3
# The same of several processes on the CPU, which add in another order: measured 1e-6
# (tests/training/several/test_same_run.py).
_SUM_TOLERANCE = 1e-4
_STRATEGIES, _PROCESSES = ("ddp", "fsdp2"), 2
_SECONDS = 60.0  # that the processes get to start and train
_ALONE = "Train on one process: distributed.strategy=none."
# Largest difference between the chunked loss's gradient and plain cross-entropy's, relative to the largest entry.
_GRADIENT_TOLERANCE = 1e-4
# A third of the nano preset's batch, for a quick answer: sequences x context, n_embd, vocabulary.
_ROWS, _N_EMBD, _VOCABULARY = 4 * 64, 128, 50257


def checks() -> Iterator[tuple[str, Callable[[], Finding]]]:
    """To be made one after the other, on as many threads as a run of the command line has."""
    before = torch.get_num_threads()
    torch.set_num_threads(choose_threads(TrainSettings(), 0, watched=False))
    try:
        yield "devices", _devices
        yield "cpu", partial(trains, Device("cpu", "fp32"))
        for kind in _other_kinds():
            yield kind, partial(trains, Device(kind, "fp32"))
        yield from _several(Device("cpu", "fp32"))
        if torch.cuda.device_count() >= _PROCESSES:
            yield from _several(Device("cuda", "fp32"))
        yield "speed", _speed
        yield "threads", _threads
        yield "loss", _loss
    finally:
        torch.set_num_threads(before)


def _other_kinds() -> list[str]:
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [kind for kind, available in here.items() if available]


def _devices() -> Finding:
    names = ["cpu"]
    for kind in _other_kinds():
        name = f" ({torch.cuda.get_device_name()})" if kind == "cuda" else ""
        names.append(f"{kind}{name}")
    chosen = choose_device(TrainSettings())
    said = f"{', '.join(names)}; runs use {chosen.kind} {chosen.precision} by default"
    if chosen.kind == "cpu":
        large = f"GPTs from scratch above {HALF_FROM / 1e9:g} GFLOP a batch with n_embd of {HALF_WIDTH} or more"
        said += (
            f", bf16 for {large}"
            if multiplies_in_bf16()
            else "; no units for bf16 (AMX) were found: a run that began in bf16 elsewhere may be slow here until it "
            "is resumed with --set train.precision=fp32"
        )
    return Finding("devices", "ok", said)


def trains(device: Device) -> Finding:
    """20 steps in fp32: finite, falling, and the same as on the CPU."""
    losses = training_losses(device)
    if not all(math.isfinite(loss) for loss in losses):
        return Finding(device.kind, "broken", f"The loss of 20 training steps is not finite: {losses}.", _avoid(device))
    said = f"{_STEPS} training steps, loss {losses[0]:.3f} -> {losses[-1]:.3f}, fused AdamW"
    if losses[-1] > losses[0] - 0.1:
        return Finding(device.kind, "broken", f"{said}: it does not learn.", _avoid(device))
    if device.kind == "cpu":
        return Finding(device.kind, "ok", said)
    reference = training_losses(Device("cpu", "fp32"))
    off = max(abs(a - b) for a, b in zip(losses, reference, strict=True))
    said += f", at most {off:.1e} from the CPU's"
    if off > _TOLERANCE:
        return Finding(device.kind, "broken", f"{said}: it computes something else.", _avoid(device))
    return Finding(device.kind, "ok", said, values={"difference": off})


def _several(device: Device) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Each strategy on two processes, which are started once for all of them."""
    losses: dict[str, list[float]] = {}

    def check(strategy: str) -> Finding:
        if not losses:
            losses.update(_losses_of_several(device))
        return _agrees(strategy, device, losses[strategy])

    for strategy in _STRATEGIES:
        yield strategy if device.kind == "cpu" else f"{strategy} {device.kind}", partial(check, strategy)


def _agrees(strategy: str, device: Device, losses: list[float]) -> Finding:
    """What two processes computed, beside what one computes on the CPU."""
    name = strategy if device.kind == "cpu" else f"{strategy} {device.kind}"
    reference = training_losses(Device("cpu", "fp32"))
    off = [abs(a - b) for a, b in zip(losses, reference, strict=True)]
    said = (
        f"{_PROCESSES} processes on {device.kind}: the loss is at most {max(off[:2]):.1e} from that of one on the CPU"
    )
    said += f" after one step, {max(off):.1e} after {_STEPS}"
    bound = _TOLERANCE if device.queues else _SUM_TOLERANCE
    if not max(off) <= bound:  # nor where it is no number
        return Finding(name, "broken", f"{said}, beyond {bound:g}: it computes something else.", _ALONE)
    return Finding(name, "ok", f"{said} (bound: {bound:g})", values={"difference": max(off), "first": max(off[:2])})


def _losses_of_several(device: Device) -> dict[str, list[float]]:
    """By strategy, what rank 0 of new processes says. LabError where they cannot work together."""
    # Kept here, as torchrun keeps it, so that no port can be taken by another between two processes.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {"WORLD_SIZE": str(_PROCESSES), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    common |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "OMP_NUM_THREADS": "1", **ranks.interface()}
    children = []
    for rank in range(_PROCESSES):
        environment = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [*module_command("llmlab.cli.self_test"), device.kind]
        children.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    with ThreadPoolExecutor(_PROCESSES) as listeners:
        said = [listeners.submit(_last_line, child) for child in children]
        try:
            ended, waiting = wait(said, _SECONDS, FIRST_EXCEPTION)
            for one in ended:
                one.result()  # the others would wait in vain for one that failed
        finally:
            for child in children:
                child.kill()
    if waiting:
        why = f"They did not end within {_SECONDS:g} seconds."
        raise LabError("Several processes cannot train together here.", why, _ALONE)
    return json.loads(said[0].result())


def _last_line(child: subprocess.Popen[str]) -> str:
    """What a process printed last. LabError where it failed."""
    printed, errors = child.communicate()
    if child.returncode:
        last = errors.strip().rpartition("\n")[2]
        raise LabError("Several processes cannot train together here.", last, _ALONE)
    return printed.strip().rpartition("\n")[2]


def _as_rank(kind: str) -> None:
    """What each of those processes does; prints the losses by strategy."""
    device, losses = Device(kind, "fp32"), {}
    torch.set_num_threads(1)
    for place, strategy in enumerate(_STRATEGIES):
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(place)  # each has names of its own in the store
        losses[strategy] = training_losses(device, join(strategy, device, _SECONDS))
        torch.distributed.destroy_process_group()
    print(json.dumps(losses))


def training_losses(device: Device, processes: Processes | None = None) -> list[float]:
    """Losses of 20 steps of a tiny GPT; the same on every device and any number of processes, but for rounding."""
    processes = processes or Processes()
    settings = ModelSettings(n_layer=2, n_head=2, n_embd=32, block_size=32)
    generator = torch.Generator().manual_seed(0)
    starts = torch.randint(0, 64, (8, 1), generator=generator)
    tokens = ((starts + 7 * torch.arange(settings.block_size + 1)) % 64).to(device.kind)  # every token tells the next
    state = torch.get_rng_state()
    torch.manual_seed(0)  # weights are drawn on the CPU and then moved
    model = GPT(settings, vocab_size=64).to(device.kind)
    torch.set_rng_state(state)
    loss_of = processes.around(model, model.loss, model.blocks)
    optimizer = make_optimizer(model, TrainSettings(learning_rate=1e-2))
    losses = []
    for step in range(_STEPS):
        optimizer.zero_grad(set_to_none=True)
        with processes.batch(0, step, last=True):
            loss = loss_of(tokens[:, :-1], tokens[:, 1:])
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(processes.mean(loss.detach())))
    return losses


def _speed() -> Finding:
    """Matrix products: what the speed of a run is a share of."""
    device = choose_device(TrainSettings())
    peak = measured_peak(device)
    said = f"{peak / 1e9:.0f} GFLOP/s of {device.precision} matrix products on {device.kind}"
    if device.kind == "cpu":  # one with units for bf16 (AMX) multiplies several times as fast in it
        said += f", {measured_peak(Device('cpu', 'bf16')) / 1e9:.0f} in bf16 (train.precision)"
    count = torch.get_num_threads()
    threads = f", {count} thread{'' if count == 1 else 's'}" if device.kind == "cpu" else ""
    told = f"{said}{threads}; remembered in the cache, so that runs of as many need not measure it"
    return Finding("speed", "ok", told, values={"flops": peak})


def _threads() -> Finding:
    """How the threads of a run wait for each other."""
    fixed = thread_spin.fixed_by({**thread_spin.environment(), **os.environ})
    if fixed:
        return Finding("threads", "ok", f"how long threads spin while they wait for each other is fixed: {fixed}")
    said = f"{torch.get_num_threads()} threads spin while they wait for each other: for long where no other process"
    told = f"{said} wants their cores, else briefly; checked every second, and a run's log says which"
    if thread_spin.waited_for_cores() is None:
        told = f"{said.partition(':')[0]}: briefly, since this system does not say whether others want their cores"
    return Finding("threads", "ok", told)


def _loss() -> Finding:
    """The chunked loss over a large vocabulary: equal to plain cross-entropy, and how long both take."""
    device = choose_device(TrainSettings()).kind
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1, _ROWS, _N_EMBD, generator=generator).to(device)
    unembedding = (0.02 * torch.randn(_VOCABULARY, _N_EMBD, generator=generator)).to(device)
    targets = torch.randint(0, _VOCABULARY, (1, _ROWS), generator=generator).to(device)

    def plain(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(x, w).flatten(0, 1), y.flatten())

    ours, seconds = _gradients(next_token_loss, rows, unembedding, targets)
    theirs, plain_seconds = _gradients(plain, rows, unembedding, targets)
    off = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True))
    said = f"{_ROWS} x {_VOCABULARY:,}: {1000 * seconds:.0f} ms in chunks, {1000 * plain_seconds:.0f} ms at once"
    values = {"seconds": seconds, "plain_seconds": plain_seconds, "difference": off}
    if not off < _GRADIENT_TOLERANCE:
        return Finding("loss", "broken", f"{said}, and the gradients differ by {off:.1e}.", values=values)
    return Finding("loss", "ok", f"{said}; gradients agree within {off:.0e}", values=values)


def _gradients(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor], rows: Tensor, unembedding: Tensor, targets: Tensor
) -> tuple[list[Tensor], float]:
    """Gradients of both inputs, and the shorter of two times in seconds."""
    seconds = math.inf
    for _ in range(2):
        inputs = [rows.clone().requires_grad_(), unembedding.clone().requires_grad_()]
        begin = time.perf_counter()
        loss(inputs[0], inputs[1], targets).backward()
        gradients = [tensor.grad for tensor in inputs if tensor.grad is not None]
        float(gradients[0].sum())  # waits for a device that works behind the program's back
        seconds = min(seconds, time.perf_counter() - begin)
    return gradients, seconds


def _avoid(device: Device) -> str:
    return "Install torch again." if device.kind == "cpu" else "Set train.device=cpu."


if __name__ == "__main__":
    _as_rank(sys.argv[1])
