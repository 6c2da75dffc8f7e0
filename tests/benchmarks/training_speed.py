"""Training speed, memory and losses against nanoGPT's model and step, interleaved in one run.

    python tests/benchmarks/training_speed.py --peer FOLDER_WITH_NANOGPTS_MODEL_PY
    python tests/benchmarks/training_speed.py                  # against plain PyTorch code in this file
    python tests/benchmarks/training_speed.py --neighbours 1   # beside one other process at full load

Ours is a whole run: the worker as the window and the command line start it, with every step's event written; of
baby-json, `llmlab-run pretrain --json`, which reads and prints them all. The peer is the bare step of its train.py in
a plain process. Both have the same weights at the start, the same batches, settings and threads. nanoGPT's GELU is set
to the tanh approximation, GPT-2's own, that ours uses. baby, nano and small are the presets: on a processor with units
for bf16 (AMX) all three multiply in it. nanoGPT's train.py knows fp32 alone there, as do products and limit here,
and the names with -fp32.

limit: the ratio that ours would have if it took no longer than its matrix products alone; of it: the ratio's share of
that, which is also the products' share of our step; theirs: the same share of the peer's step. Products are those of
the linear layers, forward and backward, each by itself. Both sides have the same ones and take them as they train:
ours into memory that is there already, at a large vocabulary in chunks, in a process like the worker; the peer's into
new memory, all rows at once, in a plain process.

90 % of the limit would mean that all else (attention, GELU, norms, sums, clipping, the optimizer, events) takes a tenth
of the step; what it does take of each side's is what the two shares leave.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.core.config import with_values
from llmlab.core.presets import of_preset
from llmlab.core.progress import quiet
from llmlab.core.settings import PretrainSettings
from llmlab.jobs.launcher import create_run, start_worker, worker_environment
from llmlab.store.run_folder import RunFolder

COMMON = {
    "data.corpus": "shakespeare",
    "train.eval_interval": 0,
    "train.sample_interval": 0,
    "checkpoints.interval": 0,
    "model.dropout": 0,
    "model.bias": False,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "baby": ("baby", {}),
    "baby-json": ("baby", {}),
    "nano": ("nano", {"model.vocab_multiple": 64}),
    "small": ("small", {"model.vocab_multiple": 64}),
    "baby-fp32": ("baby", {"train.precision": "fp32"}),
    "nano-fp32": ("nano", {"model.vocab_multiple": 64, "train.precision": "fp32"}),
    "small-fp32": ("small", {"model.vocab_multiple": 64, "train.precision": "fp32"}),
}
WARM_UP = 3  # steps that no figure counts
PRODUCTS_SECONDS = 3.0  # at most


@dataclass
class Result:
    """One process's run. seconds: of each step after the warm-up; peak_bytes: most resident memory."""

    seconds: list[float]
    losses: list[float]
    peak_bytes: int
    vocab_size: int = 0


def main() -> None:
    """Prints a table a configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder with nanoGPT's model.py")
    parser.add_argument("--configs", nargs="+", default=list(CONFIGS), choices=list(CONFIGS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="about how long each process trains")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--neighbours", type=int, default=0, help="other processes that use a core each")
    parser.add_argument("--as-peer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--as-products", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_peer is not None:
        _peer_process(arguments.as_peer, arguments.peer)
        return
    if arguments.as_products is not None:
        _products_process(arguments.as_products)
        return
    name = "nanoGPT" if arguments.peer else "plain PyTorch"
    print(f"{'config':<12}{'round':>6}{'ours tok/s':>12}{name + ' tok/s':>22}", end="")
    print(f"{'ratio':>7}{'products':>20}{'limit':>7}{'of it':>7}{'theirs':>8}", end="")
    print(f"{'memory':>18}{'ratio':>7}{'loss gap':>10}")
    for config in arguments.configs:
        preset, overrides = CONFIGS[config]
        steps = max(WARM_UP + 5, round(arguments.seconds / {"baby": 0.03, "nano": 0.25, "small": 2.0}[preset]))
        wanted = COMMON | overrides | {"train.steps": steps, "train.threads": arguments.threads}
        wanted["train.warmup_steps"] = steps // 2
        settings = with_values(of_preset(PretrainSettings, preset), wanted)
        tokens = settings.data.batch_size * settings.model.block_size
        speed_ratios, limits, memory_ratios = [], [], []
        for number in range(arguments.rounds):
            with tempfile.TemporaryDirectory() as folder, neighbours(arguments.neighbours):
                if number % 2:
                    peer = _train_peer(Path(folder), settings, arguments.peer)
                if config == "baby-json":
                    ours = _train_by_command(Path(folder), preset, wanted)
                else:
                    ours = train_ours(Path(folder), settings)
                if number % 2 == 0:
                    peer = _train_peer(Path(folder), settings, arguments.peer)
                products, theirs = (
                    _seconds_of_products(Path(folder), settings, ours.vocab_size, arguments.seconds, by_peer=by_peer)
                    for by_peer in (False, True)
                )
            fast = [tokens / statistics.median(result.seconds) for result in (ours, peer)]
            gap = max(abs(a - b) for a, b in zip(ours.losses, peer.losses, strict=True))
            speed_ratios.append(fast[0] / fast[1])
            limits.append(statistics.median(peer.seconds) / products)
            memory_ratios.append(ours.peak_bytes / peer.peak_bytes)
            both = f"{1e3 * products:.1f} / {1e3 * theirs:.1f} ms"
            share = 100 * theirs / statistics.median(peer.seconds)
            memory = f"{ours.peak_bytes / 1e6:.0f} / {peer.peak_bytes / 1e6:.0f} MB"
            print(
                f"{config:<12}{number + 1:>6}{fast[0]:>12.0f}{fast[1]:>22.0f}{speed_ratios[-1]:>7.2f}{both:>20}"
                f"{limits[-1]:>7.2f}{100 * speed_ratios[-1] / limits[-1]:>5.0f} %{share:>6.0f} %"
                f"{memory:>18}{memory_ratios[-1]:>7.2f}{gap:>10.1e}",
                flush=True,
            )
        of_limit = statistics.median(ratio / limit for ratio, limit in zip(speed_ratios, limits, strict=True))
        print(
            f"{config:<12}median of {arguments.rounds}: {statistics.median(speed_ratios):.2f}x the tokens/s, "
            f"{100 * of_limit:.0f} % of the limit, {statistics.median(memory_ratios):.2f}x the peak memory; "
            f"{steps} steps, {arguments.threads} threads, {arguments.neighbours} neighbours",
            flush=True,
        )


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def train_ours(folder: Path, settings: PretrainSettings) -> Result:
    run = create_run(folder, settings, name="ours")
    worker = start_worker(run)
    return _result(run, worker.pid)


def _train_by_command(folder: Path, preset: str, wanted: dict[str, Any]) -> Result:
    """The same by `llmlab-run pretrain --json`, whose lines go to a file."""
    command = [sys.executable, "-m", "llmlab", "pretrain", "--preset", preset, "--name", "ours", "--json"]
    command += ["--outputs", str(folder)]
    for key, value in wanted.items():
        command += ["--set", f"{key}={str(value).lower() if isinstance(value, bool) else value}"]
    with (folder / "lines.jsonl").open("w") as lines:
        child = subprocess.Popen(command, stdout=lines)
    return _result(RunFolder(folder / "pretraining" / "ours"), child.pid)


def _result(run: RunFolder, pid: int) -> Result:
    """Of a run whose process ends. A step's seconds are those between two events: whatever a worker does is in them."""
    _, status, usage = os.wait4(pid, 0)
    assert status == 0, run.log.read_text()[-2000:]
    steps, started = events_of(run, "step"), events_of(run, "started")
    seconds = [after["time"] - before["time"] for before, after in itertools.pairwise(steps)]
    losses = [event["loss"] for event in steps]
    return Result(seconds[WARM_UP:], losses, usage.ru_maxrss * 1024, started[0]["vocab_size"])


def events_of(run: RunFolder, kind: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    return [event for event in events if event["event"] == kind]


def _train_peer(folder: Path, settings: PretrainSettings, peer: Path | None) -> Result:
    from llmlab.core.config import to_mapping

    request = folder / "peer.json"
    request.write_text(json.dumps({"settings": to_mapping(settings), "out": str(folder / "result.json")}))
    command = [sys.executable, __file__, "--as-peer", str(request)]
    child = subprocess.Popen(command + (["--peer", str(peer)] if peer else []))
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, "the peer failed"
    values = json.loads((folder / "result.json").read_text())
    return Result(values["seconds"], values["losses"], usage.ru_maxrss * 1024)


def _seconds_of_products(
    folder: Path, settings: PretrainSettings, vocab_size: int, seconds: float, *, by_peer: bool
) -> float:
    """Of a step's linear layers alone, forward and backward, as the peer trains or as ours does.

    Our products at the vocabulary are those of the loss in chunks, which keeps its logits near the processor.
    """
    from llmlab.gpt.shapes import CHUNK_ROWS, FEW_LOGITS, padded_vocab_size

    model = settings.model
    rows = settings.data.batch_size * model.block_size
    width, vocabulary = model.n_embd, padded_vocab_size(model, vocab_size)
    block = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]  # inputs, outputs
    chunk = rows if by_peer or rows * vocabulary < FEW_LOGITS else CHUNK_ROWS
    request = {
        "rows": rows,
        "layers": [*((*shape, rows) for shape in block * model.n_layer), (width, vocabulary, chunk)],
        "new_memory": by_peer,
        "threads": settings.train.threads,
        "seconds": min(seconds, PRODUCTS_SECONDS),
    }
    file = folder / "products.json"
    file.write_text(json.dumps(request))
    command = [sys.executable, __file__, "--as-products", str(file)]
    environment = dict(os.environ) if by_peer else os.environ | worker_environment()
    return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def _products_process(request: Path) -> None:
    import time

    import torch

    from llmlab.training.thread_spin import Spin

    asked = json.loads(request.read_text())
    torch.set_num_threads(asked["threads"])
    rows, spin, seconds, new = asked["rows"], Spin(), list[float](), asked["new_memory"]
    layers = []
    for inputs, outputs, chunk in asked["layers"]:
        x, w, y = torch.rand(rows, inputs), torch.rand(outputs, inputs), torch.rand(chunk, outputs)
        slope = y if chunk < rows else torch.rand(rows, outputs)  # the loss in chunks has one buffer for both
        layers.append((x, w, y, slope, torch.empty_like(x), torch.zeros_like(w)))
    end = time.perf_counter() + asked["seconds"]
    while time.perf_counter() < end or len(seconds) < WARM_UP + 3:
        begin = time.perf_counter()
        kept = []  # of new memory, as a step does: outputs and the weights' gradients
        for x, w, y, slope, x_grad, w_grad in layers:
            if new:
                kept += [torch.mm(x, w.t()), torch.mm(slope.t(), x)]
                torch.mm(slope, w)
                continue
            for start in range(0, rows, len(y)):
                part = slice(start, start + len(y))
                size = len(x[part])
                torch.mm(x[part], w.t(), out=y[:size])
                torch.mm(slope[:size], w, out=x_grad[part])
                if len(y) == rows:
                    torch.mm(slope.t(), x, out=w_grad)
                else:
                    w_grad.addmm_(slope[:size].t(), x[part])
        del kept
        seconds.append(time.perf_counter() - begin)
        spin.look()
    print(statistics.median(seconds[WARM_UP:]))


def _peer_process(request: Path, peer: Path | None) -> None:
    """The peer's own process: only torch, the tokens and the peer's model."""
    import time

    import torch

    from llmlab.core.config import from_mapping
    from llmlab.data.dataset import load_dataset
    from llmlab.data.sequences import Sequences
    from llmlab.gpt.model import GPT
    from llmlab.gpt.shapes import padded_vocab_size
    from llmlab.training.schedule import learning_rate

    values = json.loads(request.read_text())
    settings = from_mapping(PretrainSettings, values["settings"])
    torch.set_num_threads(settings.train.threads)
    data = load_dataset(settings.data, settings.model.block_size, quiet)
    torch.manual_seed(settings.train.seed)
    weights = GPT(settings.model, data.tokenizer.vocab_size).state_dict()
    vocab = padded_vocab_size(settings.model, data.tokenizer.vocab_size)
    model, optimizer = (_nanogpt if peer else _plain)(peer, settings, vocab, weights)
    del weights
    batches = settings.data
    windows = Sequences(
        data.train, settings.model.block_size, batches.batch_size, batches.order, batches.stride, settings.train.seed
    )
    seconds, losses = [], []
    for step in range(settings.train.steps):
        begin = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings.train)
        x, y = (torch.from_numpy(array) for array in windows.batch(step))
        _, loss = model(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.train.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - begin)
    Path(values["out"]).write_text(json.dumps({"seconds": seconds[WARM_UP + 1 :], "losses": losses}))


def _nanogpt(peer: Path, settings: PretrainSettings, vocab: int, weights: dict[str, Any]) -> tuple[Any, Any]:
    import torch

    sys.path.insert(0, str(peer))
    from model import GPT, GPTConfig

    shape, train = settings.model, settings.train
    model = GPT(
        GPTConfig(
            block_size=shape.block_size,
            vocab_size=vocab,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            n_embd=shape.n_embd,
            dropout=0.0,
            bias=False,
        )
    )
    names = {
        "token_embedding": "transformer.wte",
        "position_embedding": "transformer.wpe",
        "final_norm": "transformer.ln_f",
        "blocks": "transformer.h",
        "attention_norm": "ln_1",
        "feed_forward_norm": "ln_2",
        "qkv": "c_attn",
        "attention": "attn",
        "feed_forward": "mlp",
        "up": "c_fc",
        "out": "c_proj",
        "down": "c_proj",
    }
    state = {".".join(names.get(part, part) for part in name.split(".")): tensor for name, tensor in weights.items()}
    state["lm_head.weight"] = state["transformer.wte.weight"]
    model.load_state_dict(state)
    for block in model.transformer.h:
        block.mlp.gelu = torch.nn.GELU(approximate="tanh")
    return model, model.configure_optimizers(train.weight_decay, train.learning_rate, (train.beta1, train.beta2), "cpu")


def _plain(_: None, settings: PretrainSettings, vocab: int, weights: dict[str, Any]) -> tuple[Any, Any]:
    """Our model as anyone would train it: whole logits, ordinary AdamW, an ordinary process."""
    import torch
    import torch.nn.functional as F

    from llmlab.gpt.model import GPT

    class Plain(GPT):
        def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> Any:
            logits = F.linear(self.residual_stream(ids), self.unembedding)
            return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    model, train = Plain(settings.model, vocab), settings.train
    model.load_state_dict(weights)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    return model, torch.optim.AdamW(groups, lr=train.learning_rate, betas=(train.beta1, train.beta2))


if __name__ == "__main__":
    main()
