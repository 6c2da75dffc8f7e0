"""Training speed, memory and losses against nanoGPT's model and step, interleaved in one run.

    python tests/benchmarks/training_speed.py --peer FOLDER_WITH_NANOGPTS_MODEL_PY
    python tests/benchmarks/training_speed.py                  # against plain PyTorch code in this file

Ours is a whole run: the worker as the window and the command line start it, with every step's event written.
The peer is the bare step of its train.py in a plain process. Both have the same weights at the start, the same
batches, settings and threads. nanoGPT's GELU is set to the tanh approximation, GPT-2's own, that ours uses.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.core.config import with_values
from llmlab.core.presets import of_preset
from llmlab.core.progress import quiet
from llmlab.core.settings import PretrainSettings
from llmlab.jobs.launcher import create_run, start_worker
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
    "nano": ("nano", {"model.vocab_multiple": 64}),
    "small": ("small", {"model.vocab_multiple": 64}),
}
WARM_UP = 3  # steps that no figure counts


@dataclass
class Result:
    """One process's run. seconds: of each step after the warm-up; peak_bytes: most resident memory."""

    seconds: list[float]
    losses: list[float]
    peak_bytes: int


def main() -> None:
    """Prints a table a configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder with nanoGPT's model.py")
    parser.add_argument("--configs", nargs="+", default=list(CONFIGS), choices=list(CONFIGS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="about how long each process trains")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--as-peer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_peer is not None:
        _peer_process(arguments.as_peer, arguments.peer)
        return
    name = "nanoGPT" if arguments.peer else "plain PyTorch"
    print(f"{'config':<7}{'round':>6}{'ours tok/s':>12}{name + ' tok/s':>22}", end="")
    print(f"{'ratio':>7}{'memory':>18}{'ratio':>7}{'loss gap':>10}")
    for config in arguments.configs:
        preset, overrides = CONFIGS[config]
        steps = max(WARM_UP + 5, round(arguments.seconds / {"baby": 0.03, "nano": 0.25, "small": 2.0}[config]))
        wanted = COMMON | overrides | {"train.steps": steps, "train.threads": arguments.threads}
        settings = with_values(of_preset(PretrainSettings, preset), wanted | {"train.warmup_steps": steps // 2})
        tokens = settings.data.batch_size * settings.model.block_size
        speed_ratios, memory_ratios = [], []
        for number in range(arguments.rounds):
            with tempfile.TemporaryDirectory() as folder:
                results = {}
                order = ("ours", "peer") if number % 2 == 0 else ("peer", "ours")
                for who in order:
                    results[who] = (
                        _train_ours(Path(folder), settings)
                        if who == "ours"
                        else _train_peer(Path(folder), settings, arguments.peer)
                    )
            ours, peer = results["ours"], results["peer"]
            fast = [tokens / statistics.median(result.seconds) for result in (ours, peer)]
            gap = max(abs(a - b) for a, b in zip(ours.losses, peer.losses, strict=True))
            speed_ratios.append(fast[0] / fast[1])
            memory_ratios.append(ours.peak_bytes / peer.peak_bytes)
            memory = f"{ours.peak_bytes / 1e6:.0f} / {peer.peak_bytes / 1e6:.0f} MB"
            print(
                f"{config:<7}{number + 1:>6}{fast[0]:>12.0f}{fast[1]:>22.0f}{speed_ratios[-1]:>7.2f}"
                f"{memory:>18}{memory_ratios[-1]:>7.2f}{gap:>10.1e}",
                flush=True,
            )
        print(
            f"{config:<7}median of {arguments.rounds}: {statistics.median(speed_ratios):.2f}x the tokens/s, "
            f"{statistics.median(memory_ratios):.2f}x the peak memory; {steps} steps, {arguments.threads} threads",
            flush=True,
        )


def _train_ours(folder: Path, settings: PretrainSettings) -> Result:
    run = create_run(folder, settings, name="ours")
    worker = start_worker(run)
    _, status, usage = os.wait4(worker.pid, 0)
    assert status == 0, run.log.read_text()[-2000:]
    steps = events_of(run, "step")
    active = [event["active_seconds"] for event in steps]
    seconds = [after - before for before, after in itertools.pairwise(active)]
    return Result(seconds[WARM_UP:], [event["loss"] for event in steps], usage.ru_maxrss * 1024)


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
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

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
        def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> Any:  # type: ignore[override]
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
