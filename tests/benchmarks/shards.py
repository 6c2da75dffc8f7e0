"""How fast a large text becomes shards, what share of the machine that is, and in how much memory.

    python tests/benchmarks/shards.py [--megabytes 100 1000] [--folder DIR]        (--megabytes 0.1: in seconds)

The text: paragraphs of the novels and plays that come with the lab, in a random order, documents of about 3 kB, in one
.jsonl file. `one core` is tiktoken's encode_ordinary_batch with one thread on the first of these documents, before and
after each build; the limit of a build is that rate on every core (`of the limit`, by the clock; `of the work`, by
processor time, which other programs on the machine change less). Memory is the resident set of the build and all its
processes, where it was highest; pages that they share are counted in each. `checked` is the same command again, which
reads every shard for its hash; `read` draws random batches of 12 sequences of 1,025 tokens from the shards.

Below, by processor time: what the one process that reads can hand to the others (megabytes of text a second, by the
kind of file), the hash of a shard, and the counting of tokens with which the first run on a split begins.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow

from llmlab.core.processes import available_cores
from llmlab.core.progress import quiet
from llmlab.data.corpora import find_corpus
from llmlab.data.gpt2_vocabulary import gpt2_encoding
from llmlab.data.sequences import Sequences
from llmlab.data.shard_sources import Place, shard_source
from llmlab.data.shards import built_corpus

_DOCUMENT = 3_000  # characters
_BATCHES = 500
# At most, and no more than the largest text has:
_SAMPLE = 4_000_000  # characters that one core tokenizes
_READ = 20_000_000  # bytes
_PASSED = 10_000_000  # ids


@dataclass(frozen=True)
class Built:
    """A build and what it took. processor: seconds of all its processes; peak: bytes."""

    tokens: int
    seconds: float
    processor: float
    peak: int


def documents() -> Iterator[str]:
    """Endless."""
    texts = ["".join(piece.text for piece in find_corpus(name).pieces()) for name in ("austen", "shakespeare")]
    paragraphs = [paragraph for text in texts for paragraph in text.split("\n\n")]
    draw = random.Random(1)
    while True:
        document, length = [], 0
        while length < _DOCUMENT:
            document.append(draw.choice(paragraphs))
            length += len(document[-1])
        yield "\n\n".join(document)


def write(path: Path, size: int) -> None:
    """A .jsonl file of at least `size` bytes."""
    written = 0
    with path.open("w") as file:
        for document in documents():
            written += file.write(json.dumps({"text": document}) + "\n")
            if written >= size:
                return


def one_core(most: int) -> tuple[float, float]:
    """Tokens a second, by the clock and of processor time; of at most so many characters."""
    sample, length = [], 0
    for document in documents():
        sample.append(document)
        length += len(document)
        if length > min(_SAMPLE, most):
            break
    gpt2_encoding()  # made before the clock runs
    begin, spent = time.perf_counter(), time.process_time()
    count = sum(map(len, gpt2_encoding().encode_ordinary_batch(sample, num_threads=1)))
    return count / (time.perf_counter() - begin), count / (time.process_time() - spent)


def build(path: Path, name: str) -> Built:
    """Runs the command and watches its memory."""
    command = [sys.executable, "-m", "llmlab", "corpora", "build", str(path), "--shards", "--name", name, "--json"]
    begin, spent, peak = time.perf_counter(), os.times(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.Error):  # one ends between two looks
                held = [each.memory_info().rss for each in [watched, *watched.children(recursive=True)]]
                peak = max(peak, sum(held))
            time.sleep(0.1)
        seconds = time.perf_counter() - begin
        if process.returncode:
            sys.exit(process.returncode)
        assert process.stdout is not None
        answer = json.loads(process.stdout.read())
    after = os.times()
    processor = after.children_user + after.children_system - spent.children_user - spent.children_system
    return Built(answer["tokens"], seconds, processor, peak)


def read_rate(name: str) -> float:
    """Tokens a second of random batches."""
    corpus = built_corpus(name)
    assert corpus is not None
    sequences = Sequences(corpus.tokens(), 1024, 12)
    begin = time.perf_counter()
    count = sum(sequences.batch(index)[0].size for index in range(_BATCHES))
    return count / (time.perf_counter() - begin)


def reading(folder: Path, most: int) -> dict[str, float]:
    """Megabytes a second that are read, unpacked, cut into blocks and pickled, of at most so many bytes; by kind."""
    folder.mkdir()
    write(folder / "text.jsonl", min(_READ, most))
    content, rates = (folder / "text.jsonl").read_bytes(), {}
    (folder / "text.jsonl.gz").write_bytes(gzip.compress(content, 6))
    (folder / "text.jsonl.zst").write_bytes(pyarrow.Codec("zstd").compress(content, asbytes=True))
    for kind in ("jsonl", "jsonl.gz", "jsonl.zst"):
        begin = time.process_time()
        for block in shard_source(str(folder / f"text.{kind}"), "text").blocks(Place(0, 0), quiet):
            pickle.dumps(block.items)
        rates[kind] = len(content) / (time.process_time() - begin) / 1e6
    return rates


def passing(most: int) -> tuple[float, float]:
    """Ids a second, millions, of at most so many: hashed, and counted."""
    ids = np.random.default_rng(1).integers(0, 50_257, min(_PASSED, most)).astype(np.uint16)
    begin = time.process_time()
    hashlib.sha256(ids.tobytes())
    between = time.process_time()
    np.bincount(ids, minlength=50_257)
    return tuple(len(ids) / took / 1e6 for took in (between - begin, time.process_time() - between))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[100, 1000])
    parser.add_argument("--folder", type=Path, help="for text and shards, which are deleted (default: a temporary one)")
    parser.add_argument("--keep-text", action="store_true", help="use the text that an earlier call left in --folder")
    asked = parser.parse_args()
    cores, largest = available_cores(), round(max(asked.megabytes) * 1e6)
    print(f"{cores} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB of memory")
    columns = (
        "text MB",
        "tokens",
        "s",
        "tokens/s",
        "one core",
        "of the limit",
        "of the work",
        "peak MB",
        "checked s",
        "read",
    )
    print("".join(f"{name:>13}" for name in columns))
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        os.environ["LLMLAB_CACHE"] = folder
        for size in asked.megabytes:
            path = (asked.folder if asked.keep_text else Path(folder)) / f"text-{size:g}.jsonl"
            if not path.exists():
                write(path, round(size * 1e6))
            before = one_core(largest)
            built = build(path, f"text-{size:g}")
            core, of_processor = ((one + other) / 2 for one, other in zip(before, one_core(largest), strict=True))
            checked = build(path, f"text-{size:g}").seconds
            rate = built.tokens / built.seconds
            row = (
                f"{size:,g}",
                f"{built.tokens / 1e6:.1f} M",
                f"{built.seconds:.1f}",
                f"{rate / 1e6:.2f} M",
                f"{core / 1e6:.2f} M",
                f"{rate / core / cores:.0%}",
                f"{built.tokens / of_processor / built.processor:.0%}",
                f"{built.peak / 1e6:.0f}",
                f"{checked:.1f}",
                f"{read_rate(f'text-{size:g}') / 1e6:.1f} M/s",
            )
            print("".join(f"{cell:>13}" for cell in row), flush=True)
            if not asked.keep_text:
                path.unlink()
        rates = ", ".join(
            f"{kind} {rate:.0f} MB/s" for kind, rate in reading(Path(folder) / "reading", largest).items()
        )
        hashed, counted = passing(largest)
        print(f"reading: {rates}; hash {hashed:.0f} M ids/s; counting {counted:.0f} M ids/s")


if __name__ == "__main__":
    main()
