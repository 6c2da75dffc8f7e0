"""Does memory grow with models that are opened and closed again?

    python tests/benchmarks/model_loads.py [--loads 100] [--model REF] [--inspect]

Opens a checkpoint, and a small model of transformers, so many times each, as the model host does: one in memory, the
one before given back. Prints the process's resident memory after every tenth, and what each load added from the
tenth on (the first ones fill caches of the libraries). --model: another reference instead of these two.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny_models
from small_runs import new_run, train_here

from llmlab.core.memory import give_back
from llmlab.core.paths import outputs_dir
from llmlab.inspection.answers import answer_question
from llmlab.models.source import open_model

_SETTLED = 10  # loads after which caches of the libraries are full


def main() -> int:
    """Exit code 1 when a load leaves more than 100 kB behind, on average."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=int, default=100)
    parser.add_argument("--model", help="a reference (default: a checkpoint and a small model, made here)")
    parser.add_argument("--inspect", action="store_true", help="look inside each model too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.model:
            references = [(arguments.model, outputs_dir())]
        else:
            train_here(new_run(folder, 3, model__n_embd=128, model__n_layer=4, model__n_head=4))
            saved = tiny_models.save(tiny_models.llama(hidden_size=256, intermediate_size=512), folder / "tiny")
            references = [("run", folder), (str(saved), folder)]
        grown = [grown_by(reference, outputs, arguments, folder) for reference, outputs in references]
    return int(max(grown) > 100e3)


def grown_by(reference: str, outputs: Path, arguments: argparse.Namespace, folder: Path) -> float:
    """Bytes that a load leaves behind, on average."""
    process = psutil.Process()
    opened, seen, begin = None, [], time.perf_counter()
    for number in range(1, arguments.loads + 1):
        opened = None
        give_back()
        opened = open_model(reference, outputs)
        if arguments.inspect:
            answer_question(
                opened, "inspect", {"text": "the king", "what": ["heads", "lens"]}, folder / "seen.safetensors"
            )
        seen.append(process.memory_info().rss)
        if number % 10 == 0 or number == 1:
            print(f"{opened.name}: {number:4} loads, {seen[-1] / 1e6:8.1f} MB")
    settled = seen[min(_SETTLED, len(seen)) - 1 :]
    growth = (settled[-1] - settled[0]) / max(1, len(settled) - 1)
    seconds = (time.perf_counter() - begin) / arguments.loads
    print(f"{opened.name if opened else reference}: {growth / 1e3:+.1f} kB a load, {seconds:.2f} s a load")
    return growth


if __name__ == "__main__":
    raise SystemExit(main())
