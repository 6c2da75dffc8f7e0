"""bf16 against fp32 on this processor: what a step takes by its size, and what it costs in loss, seed by seed.

    python tests/benchmarks/half_precision.py steps [--cases NAME ...] [--threads 1] [--seconds 3]
    python tests/benchmarks/half_precision.py losses [--presets baby quick] [--steps N] [--seeds 1 2] [--results FILE]

steps: whole optimizer steps in both precisions, in turn in one process, medians: in processor time on one thread, by
the clock on more. losses: whole runs of a preset, as the command line starts them; validation loss at the
end, on the same sequences, as the run computed it, and that of bf16's weights computed in fp32, as Look inside does.
What FILE holds already is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from training_speed import events_of

from llmlab.core.config import with_values
from llmlab.core.presets import of_preset
from llmlab.core.settings import PretrainSettings
from llmlab.gpt.estimate import expected_vocab_size, flops_per_token
from llmlab.jobs.launcher import create_run, start_worker, worker_environment
from llmlab.store.run_folder import RunFolder

_FIRST_RUN = {"data.tokenizer": "bpe", "data.bpe_vocab_size": 2048, "model.position": "rotary"}
_LLAMA = {"model.norm": "rmsnorm", "model.position": "rotary", "model.activation": "swiglu"}
_BATCHES = {32: (12, 96, 192), 48: (96,), 64: (12, 36, 96), 96: (12, 24), 192: (6,), 256: (1, 2, 4)}
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "baby": ("baby", {}),
    "quick": ("quick", {}),
    "first run": ("baby", _FIRST_RUN),
    "baby, dropout": ("baby", {"model.dropout": 0.1}),
    "baby, Llama's parts": ("baby", _LLAMA),
    "baby, context 256": ("baby", {"model.block_size": 256}),
    **{f"baby, batch {n}": ("baby", {"data.batch_size": n}) for n in (1, 2, 4, 6, 8, 24)},
    **{f"first run, batch {n}": ("baby", {**_FIRST_RUN, "data.batch_size": n}) for n in (1, 4, 8)},
    **{
        f"width {width}, batch {n}": ("baby", {"model.n_embd": width, "data.batch_size": n})
        for width, sizes in _BATCHES.items()
        for n in sizes
    },
    "12 layers of 64": ("baby", {"model.n_embd": 64, "model.n_layer": 12}),
    "12 layers of 32, batch 48": ("baby", {"model.n_embd": 32, "model.n_layer": 12, "data.batch_size": 48}),
    "width 64, context 256": ("baby", {"model.n_embd": 64, "model.block_size": 256}),
}
_WARM_UP = 3
_WINDOWS = 600  # held-out sequences that a loss is measured on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["steps", "losses"])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seconds", type=float, default=3.0, help="of each case")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--presets", nargs="+", default=["baby", "quick"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--steps", type=int, default=0, help="of each run; 0: as many as the preset has")
    parser.add_argument("--results", type=Path, help="where losses are kept between calls")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what == "losses":
        for preset in arguments.presets:
            _losses(preset, arguments)
        return
    if not arguments.here:  # in an environment like a worker's
        subprocess.run([sys.executable, *sys.argv, "--here"], env=os.environ | worker_environment(), check=True)
        return
    print(f"threads: {arguments.threads}")
    print(f"{'':<28}{'GFLOP a step':>12}{'fp32 ms':>10}{'bf16 ms':>10}{'bf16 / fp32':>13}", flush=True)
    for name in arguments.cases:
        _steps(name, arguments.threads, arguments.seconds)


def _steps(name: str, threads: int, seconds: float) -> None:
    import torch

    from llmlab.core.device import Device
    from llmlab.gpt.model import GPT
    from llmlab.training.optimizer import make_pretraining_optimizer
    from llmlab.training.thread_spin import Spin

    torch.set_num_threads(threads)
    preset, changes = CASES[name]
    settings = with_values(of_preset(PretrainSettings, preset), changes)
    vocab, rows, length = expected_vocab_size(settings.data), settings.data.batch_size, settings.model.block_size
    tokens = torch.randint(vocab, (rows, length + 1))
    clock = time.process_time if threads == 1 else time.perf_counter
    models = {precision: GPT(settings.model, vocab) for precision in ("fp32", "bf16")}
    optimizers = {precision: make_pretraining_optimizer(model, settings.train) for precision, model in models.items()}
    took: dict[str, list[float]] = {precision: [] for precision in models}
    end, spin = time.perf_counter() + seconds, Spin()
    while time.perf_counter() < end or len(took["bf16"]) < _WARM_UP + 10:
        for precision in sorted(models, reverse=len(took["bf16"]) % 2 == 0):
            begin, model = clock(), models[precision]
            optimizers[precision].zero_grad(set_to_none=True)
            with Device("cpu", precision).autocast():
                loss = model.loss(tokens[:, :-1], tokens[:, 1:])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.train.grad_clip, foreach=True)
            optimizers[precision].step()
            took[precision].append(clock() - begin)
            spin.look()
    each = {precision: values[_WARM_UP:] for precision, values in took.items()}
    plain, half = (1e3 * statistics.median(each[precision]) for precision in ("fp32", "bf16"))
    ratio = statistics.median(b / a for a, b in zip(each["fp32"], each["bf16"], strict=True))
    flops = rows * length * flops_per_token(settings.model, vocab) / 1e9
    print(f"{name:<28}{flops:>12.2f}{plain:>10.1f}{half:>10.1f}{ratio:>13.2f}", flush=True)


def _losses(preset: str, arguments: argparse.Namespace) -> None:
    from llmlab.studies.papers.statistics import mean_interval

    rows = []
    for seed in arguments.seeds:
        which = {"preset": preset, "steps": arguments.steps, "seed": seed}
        kept = arguments.results.read_text().splitlines() if arguments.results and arguments.results.is_file() else []
        one = next((one for one in map(json.loads, kept) if which.items() <= one.items()), None)
        if one is None:
            of_plain, of_half = (_trained(which, arguments.threads, precision) for precision in ("fp32", "bf16"))
            one = which | {"fp32": of_plain["run"], "bf16": of_half["run"], "weights": of_half["fp32"]}
            if arguments.results:
                with arguments.results.open("a") as file:
                    file.write(json.dumps(one) + "\n")
        rows.append(one)
        plain, half, weights = one["fp32"], one["bf16"], one["weights"]
        print(f"{preset:<8} seed {seed}: fp32 {plain:.4f}, bf16 {half:.4f} ({half - plain:+.4f}), ", end="")
        print(f"its weights in fp32 {weights:.4f} ({weights - plain:+.4f})", flush=True)
    for name, what in (("bf16", "as computed"), ("weights", "weights in fp32")):
        differences = [row[name] - row["fp32"] for row in rows]
        low, high = mean_interval(differences) or (float("nan"), float("nan"))
        print(f"{preset:<8} bf16 - fp32, {what:<16}: {statistics.mean(differences):+.4f} ({low:+.4f} to {high:+.4f})")
    spread = statistics.stdev(row["fp32"] for row in rows) if len(rows) > 1 else float("nan")
    print(f"{preset:<8} standard deviation of fp32 over seeds: {spread:.4f}", flush=True)


def _trained(which: dict[str, Any], threads: int, precision: str) -> dict[str, float]:
    """Validation losses at the end: the run's own, and of its weights in fp32."""
    base = of_preset(PretrainSettings, which["preset"])
    steps = which["steps"] or base.train.steps
    changes: dict[str, Any] = {"train.seed": which["seed"], "train.threads": threads, "train.precision": precision}
    changes |= {"train.steps": steps, "train.eval_interval": steps, "train.eval_sequences": _WINDOWS}
    changes |= {"train.eval_early": False, "train.sample_interval": 0, "checkpoints.interval": 0}
    settings = with_values(base, changes)
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder), settings, name="run")
        worker = start_worker(run)
        assert worker.wait() == 0, run.log.read_text()[-2000:]
        of_run: float = events_of(run, "evaluated")[-1]["val_loss"]
        return {"run": of_run, "fp32": _in_fp32(run, settings)}


def _in_fp32(run: RunFolder, settings: PretrainSettings) -> float:
    import torch

    from llmlab.core.progress import quiet
    from llmlab.data.dataset import load_dataset
    from llmlab.data.sequences import fixed_sequences, gather
    from llmlab.models.scratch import open_checkpoint
    from llmlab.store.checkpoints import select

    torch.set_num_threads(settings.train.threads)
    model: Any = open_checkpoint(run, select(run.checkpoints, "final")).model
    val, length = load_dataset(settings.data, settings.model.block_size, quiet).val, settings.model.block_size
    pairs = gather(val, fixed_sequences(val, length, _WINDOWS), length)
    with torch.no_grad():
        batches = zip(*(torch.from_numpy(part).split(settings.data.batch_size) for part in pairs), strict=True)
        return sum(float(model.loss(x, y)) * len(x) for x, y in batches) / _WINDOWS


if __name__ == "__main__":
    main()
