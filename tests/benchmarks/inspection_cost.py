"""What looking inside costs: time and memory beside a plain forward pass, ours and the peers', interleaved.

    python tests/benchmarks/inspection_cost.py --model FOLDER          # a Hugging Face model, SmolLM2-135M for the bars
    pip install transformer-lens                                       # to have it in the table too

Every way runs in processes of its own, in rounds that interleave the ways. They keep memory from pass to pass, as
the window's model host does. In a process the model is loaded in fp32 with eager attention. Single passes of the way
and plain ones come in pairs, in random order; a ratio is way / plain of one pair. Given are its median and the 95 %
interval of the median, for processor time (all threads) and by the clock. On a busy machine the clock says little, as
the first row shows, plain beside plain; what the passes themselves take is `--threads 1`, in processor time.
`memory` is the most that was resident (VmHWM) above what plain passes alone took in the same process before.
All ways compute the logits of every position, as plain passes do, except the last one, which is what the lab does.
The bars: summaries, norms and contributions 1.15 and 60 MB; all patterns to disk 1.3 and 60 MB.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmlab.studies.papers.statistics import median_interval

WAYS = {
    "plain": "plain eager forward",
    "tuples": "HF output_attentions + output_hidden_states",
    "lens-some": "TransformerLens, patterns + residuals",
    "lens-all": "TransformerLens, run_with_cache, everything",
    "summaries": "ours, head summaries + norms + contributions",
    "patterns": "ours, all patterns to disk",
    "answer": "ours, as answered: heads + contributions, to disk",
}
Pass = Callable[[], object]
Times = tuple[float, float]  # seconds of processor time, and by the clock


@dataclass
class Measured:
    """All rounds of one way."""

    plain: list[Times] = field(default_factory=list)
    looked: list[Times] = field(default_factory=list)
    extra: list[int] = field(default_factory=list)  # bytes

    def row(self) -> str:
        """Seconds and ratios of both clocks, and the memory."""
        cells = []
        for clock in range(2):
            ratios = [looked[clock] / plain[clock] for plain, looked in zip(self.plain, self.looked, strict=True)]
            low, high = median_interval(ratios) or (math.nan, math.nan)
            seconds = statistics.median(looked[clock] for looked in self.looked)
            cells.append(f"{seconds:>8.2f}{statistics.median(ratios):>7.2f} ({low:.2f} to {high:.2f})")
        return f"{''.join(cells)}{statistics.median(self.extra) / 1e6:>8.0f} MB"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a Hugging Face model")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=5, help="pairs of passes in each process")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--as-way", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_way:
        print(json.dumps(_measure(arguments.as_way, arguments)))
        return
    from llmlab_gui.host.process import host_environment  # loads Qt

    ways = list(dict.fromkeys(["plain", *arguments.ways]))
    if importlib.util.find_spec("transformer_lens") is None:
        ways = [way for way in ways if not way.startswith("lens")]
        print("TransformerLens is not installed, so its rows are missing.")
    environment = {**os.environ, **host_environment()}
    found = {way: Measured() for way in ways}
    for number in range(arguments.rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            command = [sys.executable, __file__, *sys.argv[1:], "--as-way", way]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
            result = json.loads(done.stdout.splitlines()[-1])
            found[way].plain += result["plain"]
            found[way].looked += result["looked"]
            found[way].extra.append(result["extra"])
    print(f"{arguments.tokens} tokens, {arguments.threads} threads, {arguments.rounds} x {arguments.passes} pairs")
    print(f"{'':<45}{'processor time':>29}{'clock':>29}{'memory':>11}")
    for way, measured in found.items():
        print(f"{WAYS[way]:<45}{measured.row()}")


# In a process of its own -----------------------------------------------------------------------------------------


def _measure(way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(arguments.threads)
    model = AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (1, arguments.tokens), generator=generator)

    @torch.inference_mode()
    def plain() -> object:
        return model(input_ids=ids, use_cache=False)

    with tempfile.TemporaryDirectory() as folder:
        special = _WAYS[way](model, ids, arguments.model, Path(folder), plain)
        _timed(plain)
        _forget_peak()
        _timed(plain)
        before = _peak()
        _timed(special)
        pairs = []
        for _ in range(arguments.passes):
            turns = [("plain", plain), ("looked", special)]
            random.shuffle(turns)
            pairs.append({name: _timed(work) for name, work in turns})
        return {name: [pair[name] for pair in pairs] for name in pairs[0]} | {"extra": _peak() - before}


def _timed(work: Pass) -> Times:
    gc.collect()
    used, begin = time.process_time(), time.perf_counter()
    kept = work()
    seconds = time.process_time() - used, time.perf_counter() - begin
    del kept
    return seconds


def _forget_peak() -> None:
    """Makes VmHWM start anew, since loading the model took more."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _plain(model: Any, ids: Any, source: Path, folder: Path, plain: Pass) -> Pass:
    return plain


def _tuples(model: Any, ids: Any, source: Path, folder: Path, plain: Pass) -> Pass:
    import torch

    @torch.inference_mode()
    def look() -> object:
        return model(input_ids=ids, use_cache=False, output_attentions=True, output_hidden_states=True)

    return look


def _lens_some(model: Any, ids: Any, source: Path, folder: Path, plain: Pass) -> Pass:
    import torch

    bridge = _bridge(model, source)
    names = ("hook_pattern", "hook_resid_pre", "hook_resid_mid", "hook_resid_post")

    @torch.inference_mode()
    def look() -> object:
        return bridge.run_with_cache(ids, names_filter=lambda name: name.endswith(names))

    return look


def _lens_all(model: Any, ids: Any, source: Path, folder: Path, plain: Pass) -> Pass:
    import torch

    bridge = _bridge(model, source)

    @torch.inference_mode()
    def look() -> object:
        return bridge.run_with_cache(ids)

    return look


def _bridge(model: Any, source: Path) -> Any:
    """TransformerLens around the model that is already there, so that no second copy counts against it."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    return TransformerBridge.boot_transformers(
        str(source), hf_model=model, tokenizer=AutoTokenizer.from_pretrained(source), device="cpu"
    )


def _summaries(model: Any, ids: Any, source: Path, folder: Path, plain: Pass) -> Pass:
    from llmlab.anatomy.capture import run
    from llmlab.anatomy.finding import anatomy_of
    from llmlab.inspection.heads import HeadSummaries
    from llmlab.inspection.residual import Contributions

    anatomy, length = anatomy_of(model), ids.shape[1]

    def look() -> object:
        heads = HeadSummaries(anatomy, length)
        contributions = Contributions(anatomy, length, folder, logits=length)
        logits = run(model, anatomy, ids, [heads, contributions])
        return logits, heads.results(), contributions.results()

    return look


def _patterns(model: Any, ids: Any, source: Path, folder: Path, plain: Pass) -> Pass:
    from torch import Tensor

    from llmlab.anatomy.attention_call import with_all_keys
    from llmlab.anatomy.capture import Observer, run
    from llmlab.anatomy.finding import anatomy_of
    from llmlab.inspection.archive import ArchiveWriter, Metadata

    anatomy, length = anatomy_of(model), ids.shape[1]

    class ToDisk(Observer):
        def __init__(self, writer: ArchiveWriter) -> None:
            self._writer = writer

        def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
            for head, rows in enumerate(with_all_keys(pattern, length).numpy()):
                self._writer.write(f"attention/{layer}", rows, head, first_row=first)

    def look() -> object:
        slots = {f"attention/{layer}": ("<f4", (anatomy.n_head, length, length)) for layer in range(anatomy.n_layer)}
        with ArchiveWriter(folder / "patterns.safetensors", slots, Metadata("inspection", "", "")) as writer:
            return run(model, anatomy, ids, [ToDisk(writer)])

    return look


def _answer(model: Any, ids: Any, source: Path, folder: Path, plain: Pass) -> Pass:
    from llmlab.data.hf_tokenizer import load_tokenizer
    from llmlab.inspection.answers import answer_question
    from llmlab.models.model import OpenModel

    opened = OpenModel(str(source), source.name, "huggingface", model, load_tokenizer(source, source.name))
    values = {"ids": ids[0].tolist(), "what": ["heads", "contributions"]}
    return lambda: answer_question(opened, "inspect", values, folder / "answer.safetensors")


_WAYS: dict[str, Callable[[Any, Any, Path, Path, Pass], Pass]] = {
    "plain": _plain,
    "tuples": _tuples,
    "lens-some": _lens_some,
    "lens-all": _lens_all,
    "summaries": _summaries,
    "patterns": _patterns,
    "answer": _answer,
}


if __name__ == "__main__":
    main()
