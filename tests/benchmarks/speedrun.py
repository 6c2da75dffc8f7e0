"""The preset `quick` against nanoGPT's own small setting, seed by seed in one run: time to a loss.

    python tests/benchmarks/speedrun.py --peer FOLDER_WITH_NANOGPTS_MODEL_PY --results FILE [--track letters|gpt2]

Both train on the same text and are measured on the whole held-out part of it. The peer is nanoGPT's model.py and the
step of its train.py (configure_optimizers, its schedule, its clipping), 2,000 steps in a plain process, or 600 with
GPT-2's vocabulary; ours is a run as the window and the command line start it. Clocks: of the peer, its loop; of ours,
the run's training time. Starting, measuring losses and saving are in neither. What FILE holds already is not run again.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_speed import events_of

from llmlab.core.config import with_values
from llmlab.core.presets import load_preset
from llmlab.core.progress import quiet
from llmlab.core.settings import PretrainSettings
from llmlab.jobs.launcher import create_run, start_worker


@dataclass(frozen=True)
class Track:
    """peer: the preset with nanoGPT's settings. text: as much as nanoGPT's own Shakespeare has. steps: of `quick`."""

    peer: str
    tokenizer: str
    text: int  # tokens
    steps: int


_QUICK = load_preset("quick").settings
TRACKS = {
    "letters": Track("baby", "char", 1_115_394, _QUICK.train.steps),
    "gpt2": Track("nano", "gpt2", 338_025, 170),
}
WATCHING = {"train.eval_sequences": 0, "train.eval_early": False, "train.sample_interval": 0, "checkpoints.interval": 0}


@dataclass(frozen=True)
class Result:
    """One training. loss: on the whole held-out text, nats per character."""

    who: str
    seed: int
    seconds: float
    loss: float
    parameters: int
    tokens: int


def main() -> None:
    """Prints each pair, then means and the ratio of the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="folder with nanoGPT's model.py")
    parser.add_argument("--results", type=Path, help="where results are kept between calls")
    parser.add_argument("--track", choices=TRACKS, default="letters")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--share", type=float, default=1.0, help="of all steps, to try it out")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--as-peer", type=int, metavar="SEED", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_peer is not None:
        print(json.dumps(vars(_nanogpt(arguments.peer, _settings("peer", arguments, arguments.as_peer)))))
        return
    known = kept(arguments.results, arguments.track)
    for seed in arguments.seeds:
        for who in ("peer", "ours") if seed % 2 else ("ours", "peer"):
            if any((one.who, one.seed) == (who, seed) for one in known):
                continue
            result = _ours(_settings(who, arguments, seed)) if who == "ours" else _peer(seed)
            known.append(result)
            print(f"{who:<6} seed {seed}: {result.seconds:7.2f} s, loss {result.loss:.4f}", flush=True)
            if arguments.results is not None:
                with arguments.results.open("a") as file:
                    file.write(json.dumps(vars(result) | {"track": arguments.track}) + "\n")
    _summary(known)


def kept(path: Path | None, track: str) -> list[Result]:
    """What the file holds of that track; files of when there was one name none."""
    lines = path.read_text().splitlines() if path is not None and path.is_file() else []
    return [Result(**one) for one in map(json.loads, lines) if one.pop("track", "letters") == track]


def _settings(who: str, arguments: argparse.Namespace, seed: int) -> PretrainSettings:
    track = TRACKS[arguments.track]
    base = _QUICK if who == "ours" else load_preset(track.peer).settings
    steps = max(1, round(arguments.share * (track.steps if who == "ours" else base.train.steps)))
    known = {"train.steps": steps, "train.warmup_steps": round(arguments.share * base.train.warmup_steps)}
    known |= {"train.eval_interval": steps, "train.seed": seed, "train.threads": arguments.threads}
    text = {"data.corpus": "shakespeare", "data.tokenizer": track.tokenizer, "data.max_tokens": track.text}
    return with_values(base, text | WATCHING | known)


def _summary(known: list[Result]) -> None:
    rows = {who: [one for one in known if one.who == who] for who in ("peer", "ours")}
    if not all(rows.values()):
        return
    print(f"\n{'':<8}{'seeds':>6}{'seconds':>18}{'loss':>20}{'parameters':>12}{'tokens':>12}")
    for who, results in rows.items():
        times, losses = ([getattr(one, name) for one in results] for name in ("seconds", "loss"))
        print(
            f"{'nanoGPT' if who == 'peer' else 'quick':<8}{len(results):>6}{_spread(times, 2):>18}"
            f"{_spread(losses, 4):>20}{results[0].parameters:>12,}{results[0].tokens:>12,}"
        )
    seconds = {(one.who, one.seed): one.seconds for one in known}
    ratios = [took / seconds["peer", seed] for (who, seed), took in seconds.items() if who == "ours"]
    print(f"time of quick over nanoGPT's, seed by seed: {_spread(ratios, 3)} (mean and standard error)")


def _spread(values: list[float], digits: int) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {error:.{digits}f}"


def _ours(settings: PretrainSettings) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder), settings, name="ours")
        worker = start_worker(run)
        assert worker.wait() == 0, run.log.read_text()[-2000:]
        step, started = events_of(run, "step")[-1], events_of(run, "started")[0]
        loss = events_of(run, "evaluated")[-1]["val_loss"]
        seed = settings.train.seed
        return Result("ours", seed, step["active_seconds"], loss, started["parameters"], step["tokens"])


def _peer(seed: int) -> Result:
    output = subprocess.run([sys.executable, *sys.argv, "--as-peer", str(seed)], check=True, capture_output=True)
    return Result(**json.loads(output.stdout.splitlines()[-1]))


def _nanogpt(peer: Path, settings: PretrainSettings) -> Result:
    """The peer's own process: only torch, the tokens and nanoGPT's model with its own initial weights."""
    import torch

    from llmlab.data.dataset import load_dataset
    from llmlab.data.sequences import Sequences, gather, sequences_end_to_end
    from llmlab.training.schedule import learning_rate

    sys.path.insert(0, str(peer))
    from model import GPT, GPTConfig

    shape, train = settings.model, settings.train
    torch.set_num_threads(train.threads)
    torch.manual_seed(train.seed)
    data = load_dataset(settings.data, shape.block_size, quiet)
    sizes: dict[str, Any] = {"n_layer": shape.n_layer, "n_head": shape.n_head, "n_embd": shape.n_embd}
    config = GPTConfig(block_size=64, vocab_size=data.tokenizer.vocab_size, dropout=0.0, bias=False, **sizes)
    model = GPT(config)
    optimizer = model.configure_optimizers(train.weight_decay, train.learning_rate, (train.beta1, train.beta2), "cpu")
    batch = settings.data.batch_size
    sequences = Sequences(data.train, shape.block_size, batch, seed=train.seed)
    begin = time.perf_counter()
    for step in range(train.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, train)
        x, y = (torch.from_numpy(array) for array in sequences.batch(step))
        _, loss = model(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - begin
    starts, total = sequences_end_to_end(data.val, shape.block_size), 0.0
    model.eval()
    with torch.no_grad():
        for first in range(0, len(starts), batch):
            x, y = map(torch.from_numpy, gather(data.val, starts[first : first + batch], shape.block_size))
            total += float(model(x, y)[1]) * len(x)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tokens = train.steps * batch * shape.block_size
    return Result("peer", train.seed, seconds, total / len(starts), parameters, tokens)


if __name__ == "__main__":
    main()
