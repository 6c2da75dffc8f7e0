"""The trainings that the concept pages name: `python tests/page_runs.py --outputs DIR` runs what the results lack.

Each `llmlab-run pretrain` and `finetune` of a page's "Try it" block is run as it stands, on one thread, in a process of
its own; what it measured is written to resources/results/pages.json, by its command. A command that needs a file of the
reader's, another process or the past of a run is left out. What a training gives is equal to the last digit on
processors of one kind alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from llmlab.core.files import read_json
from llmlab.core.paths import resources_dir

FILE = resources_dir() / "results" / "pages.json"
ONE_THREAD = "--set train.threads=1"
_COMMAND = re.compile(r"`llmlab-run ((?:pretrain|finetune|experiment) [^`]+)`")
_LEFT_OUT = re.compile(r"^experiment|\.txt|distributed\.|--from|--method qlora")
_FIRST = 10  # steps of which each one's loss is kept, and the length of its gradient


def trials_of(text: str) -> list[tuple[str, list[str]]]:
    """The "Try it" blocks of a page, each with what is said of it below, and its commands without predictions."""
    blocks = re.findall(r"^! .*?(?=^[!?#] |\Z)", text, re.MULTILINE | re.DOTALL)
    return [(block, [re.sub(" --predict \\S+", "", words) for words in _COMMAND.findall(block)]) for block in blocks]


def can_be_run(words: str) -> bool:
    return _LEFT_OUT.search(words) is None


def _measured(folder: Path) -> dict[str, Any]:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    seen = {event["step"]: event for event in events if event["event"] == "evaluated"}
    steps = [event for event in events if event["event"] == "step"][:_FIRST]
    return {
        "validation": {str(step): round(event["val_loss"], 6) for step, event in seen.items()},
        "training": {str(step): round(event["train_loss"], 6) for step, event in seen.items()},
        "batch_loss": [round(event["loss"], 6) for event in steps],
        "gradient_norm": [round(event["grad_norm"], 4) for event in steps],
    }


def _write(found: dict[str, Any]) -> None:
    """A line for each run."""
    runs = ",\n".join(f" {json.dumps(words)}: {json.dumps(run)}" for words, run in sorted(found["runs"].items()))
    head = json.dumps({"command": found["command"]})[:-1]
    FILE.write_text(f'{head}, "runs": {{\n{runs}\n}}}}\n', encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outputs", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--only", metavar="COMMAND", action="append", help="these, in this order: `pretrain --steps 1`")
    args = parser.parse_args()
    outputs = args.outputs.resolve()
    texts = [path.read_text(encoding="utf-8") for path in sorted((resources_dir() / "concepts").glob("*.md"))]
    named = [words for text in texts for _, trial in trials_of(text) for words in trial if can_be_run(words)]
    # What is fine-tuned has been trained before; short ones first.
    named.sort(key=lambda words: (words.startswith("finetune"), *map(int, re.findall(r"--steps (\d+)", words))))
    found = read_json(FILE) or {"command": f"llmlab-run ... {ONE_THREAD}", "runs": {}}
    environment = {**os.environ, "LLMLAB_OUTPUTS": str(outputs)}
    for words in args.only or dict.fromkeys(named):
        if words in found["runs"]:
            continue
        command = [sys.executable, "-m", "llmlab", *shlex.split(f"{words} {ONE_THREAD}")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{words}\n{done.stdout}{done.stderr}", flush=True)
            continue
        (folder,) = re.findall(r"^ +folder +(.+)$", done.stdout, re.MULTILINE)
        found["runs"][words] = _measured(Path(folder))
        _write(found)
        print(words, flush=True)


if __name__ == "__main__":
    main()
