"""What the concept pages' commands measure: `python tests/page_runs.py --outputs DIR` runs what the results lack.

Each command of a page's "Try it" blocks is run as it stands, a training on one thread in fp32, and so is what the page
says to do again with other values, and what `page_measures` adds. What came out is written to
resources/results/pages.json, by the command. What a training gives is equal to the last digit on processors of one kind
alone.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from page_measures import MEASURES

from llmlab.cli.main import main as llmlab
from llmlab.core.errors import LabError
from llmlab.core.files import read_json
from llmlab.core.paths import resources_dir
from llmlab.core.processes import processor
from llmlab.inspection.archive import Archive, read_archive

FILE = resources_dir() / "results" / "pages.json"
ONE_THREAD, IN_FP32 = " --set train.threads=1", " --set train.precision=fp32"
_KINDS = "adapter|checkpoints|compare|evolve|experiment|finetune|generate|inspect|intervene|practice|pretrain"
_COMMAND = re.compile(rf"`llmlab-run ((?:{_KINDS}) [^`]+)`")
# A run that somebody stopped on the way; what a plan costs; an experiment once more, or one whose outcome is not told;
# a text that others are trained on; what `page_measures` asks.
_LEFT_OUT = re.compile(
    r"\bbroken\b|--plan|^experiment (?:resume|show)|--name (?:ranks|sizes|widths)|--tokens 4096|--out needle"
)
_ORDER = ("pretrain", "finetune", "", "experiment")  # what others need comes first, what takes longest last
# What a page says to do again: a command that has the first of these, with other words in their places.
_AGAIN: dict[str, list[dict[str, str]]] = {
    "ablation-and-patching": [{"--ablate zero --out zeroed": "--ablate mean --out averaged"}],
    "chat-templates": [
        {" --temperature 0": " --temperature 0 --chat"},
        {"base@final --prompt": "whole@final --prompt"},
        {"base@final --prompt": "whole@final --chat --prompt"},
    ],
    "critical-batch-size": [{"early --name early-noise": "later --name later-noise"}],
    "experiments": [{"--seed 1": f"--seed {seed}"} for seed in (2, 3, 4, 5)],
    "fine-tuning": [{"adapted@final --chat": "whole@final --chat"}],
    "in-context-learning": [{"practice stories": "practice bar"}],
    "induction-heads": [
        {"--seed 1 ": "--seed 1337 ", "--name two": "--name two-later"},
        {"--seed 1 ": "--seed 1337 ", "n_layer=2": "n_layer=1", "--name two": "--name only-one"},
        {"evolve two": "evolve two-later", "two-grown": "two-later-grown"},
        {"evolve two": "evolve only-one", "two-grown": "only-one-grown"},
    ],
    "optimisation": [{"learning_rate=1e-1": "learning_rate=1e-1 --set train.precision=bf16"}],
    "sampling": [{"--temperature 0 ": f"--temperature {other} "} for other in ("0.8", "2")],
    "superposition": [{"practice narrow": "practice wide"}],
}
_TOLD = r"^.*\b(?:became|outside|inside|score|surprise|compare|right)\b.*$"  # what is kept of a training's lines
_STEPS = 300  # of a longer run, the losses of evaluations alone


def trials_of(page: str) -> list[tuple[str, list[str]]]:
    """The "Try it" blocks of a page, each with what is said of it below, and its commands."""
    text = (resources_dir() / f"concepts/{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^! .*?(?=^[!?] |^#|\Z)", text, re.MULTILINE | re.DOTALL)
    return [(block, list(_commands(page, block))) for block in blocks]


def _commands(page: str, block: str) -> Iterator[str]:
    for words in _COMMAND.findall(block):
        if _LEFT_OUT.search(words):
            continue
        yield words
        for others in _AGAIN.get(page, ()):
            again = words
            for old, new in others.items():
                again = again.replace(old, new)
            if next(iter(others)) in words:
                yield again


class Runs:
    """Runs commands in a folder of outputs, from the folder `here` in it, where their files are."""

    def __init__(self, outputs: Path) -> None:
        self._outputs, self._here = outputs, outputs / "here"
        self._here.mkdir(parents=True, exist_ok=True)
        os.environ["LLMLAB_OUTPUTS"] = str(outputs)

    def lack(self, words: str) -> bool:
        """Whether the run of that name, which others need, is not here."""
        name = re.search(r"--name (\S+)", words)
        return name is not None and not list(self._outputs.glob(f"*/{name[1]}"))

    def run(self, page: str, words: str) -> dict[str, Any]:
        """What a command measured. LabError when it fails."""
        self._make_text(page, words)
        trains = re.match(r"pretrain|finetune|experiment (?!loss-curves)", words)
        # As on processors without units for bf16, except where a page is about precision.
        settled = ONE_THREAD + ("" if "train.precision" in words else IN_FP32) if trains else ""
        printed = self._printed(words + settled)
        found: dict[str, Any] = {}
        if folder := re.search(r"^  folder +(.+)$", printed, re.MULTILINE) if trains else None:
            found = _of_run(Path(folder[1]))
            printed = "\n".join(re.findall(_TOLD, printed, re.MULTILINE))
        elif words.startswith("experiment"):
            found = self._of_experiment(re.findall(r"--name (\S+)", words)[0])
            printed = printed[printed.index("\nfound ") + 1 : printed.index("\n\nReport: ")]
        elif out := re.search(r"--out (\S+)", words):
            (archive,) = (self._here / out[1]).glob("*.safetensors")
            found = _of_archive(read_archive(archive))
        # Without where it is and how long it took.
        lines = [one for one in printed.splitlines() if str(self._outputs) not in one and "safetensors (" not in one]
        return found | ({"printed": lines} if lines else {})

    def _printed(self, words: str) -> str:
        sys.stdin = io.StringIO("\n" * 5)  # no answer to what `practice` asks
        with contextlib.chdir(self._here), contextlib.redirect_stdout(io.StringIO()) as printed:
            if llmlab(shlex.split(words)):
                raise LabError(f"{words} failed.", printed.getvalue())
        return printed.getvalue()

    def _make_text(self, page: str, words: str) -> None:
        """The corpus that a command names, made as the page says: by its code, or by letting a model write."""
        corpus = re.search(r"--corpus (\S+\.txt)", words)
        if corpus is None or (self._here / corpus[1]).exists():
            return
        text = (resources_dir() / f"concepts/{page}.md").read_text(encoding="utf-8")
        for code in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            if f'open("{corpus[1]}"' in code:
                subprocess.run([sys.executable, "-c", code], cwd=self._here, check=True)
                return
        (cold,) = re.findall(r"`llmlab-run (generate [^`]+--tokens 4096[^`]+)`", text)
        written = self._printed(
            cold if corpus[1] == "cold.txt" else cold.replace("--temperature 0.5", "--temperature 1")
        )
        (self._here / corpus[1]).write_text(written, encoding="utf-8")

    def _of_experiment(self, name: str) -> dict[str, Any]:
        results = read_json(self._outputs / "experiments" / name / "results.json") or {}
        kept = ("group", "x", "seed", "start_loss", "train_loss", "val_loss", "best_val_loss", "best_step", "score")
        return {"arms": [{key: _short(trial[key]) for key in kept} for trial in results.get("trials", ())]}


def _short(value: Any) -> Any:
    """A number with six digits."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _of_run(folder: Path) -> dict[str, Any]:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    named = {name: [event for event in events if event["event"] == name] for name in ("evaluated", "scored", "step")}
    steps = named["step"] if len(named["step"]) <= _STEPS else named["step"][:10]
    (started, *_) = (event for event in events if event["event"] == "started")
    found: dict[str, Any] = {
        "bytes_per_token": round(started["bytes_per_token"], 4),
        "validation": {str(event["step"]): round(event["val_loss"], 8) for event in named["evaluated"]},
        "training": {str(event["step"]): round(event["train_loss"], 6) for event in named["evaluated"]},
        "batch_loss": [float(f"{event['loss']:.5g}") for event in steps],
        "gradient_norm": [round(event["grad_norm"], 4) for event in steps[:10]],
    }
    if named["scored"]:
        found["right"] = [event["correct"] for event in named["scored"]]
    return found


def _of_archive(archive: Archive) -> dict[str, Any]:
    """The small tensors, and of larger ones what the pages read: the last position of the lens, means over tokens of
    what was added, and of each head its largest weight in the last row."""
    reduce = {
        r"lens/(?:rank|kl|target_probability)": lambda values: values[:, -1],
        r"contributions/(?:share|norm)/.*": lambda values: values.mean(-1),
        r"attention/\d+": lambda values: values[:, -1].max(-1),
        r"attribution/(?:attention|feed_forward|heads|embedding|sum)|sweep/effect|kl|cka/post_ffn": np.asarray,
    }
    found = {}
    for name in sorted(archive) if archive.metadata.kind != "evolution" else ():
        for pattern, reduced in reduce.items():
            if re.fullmatch(pattern, name):
                values = np.nan_to_num(reduced(np.asarray(archive[name], dtype=np.float64)))
                found[name] = values.round(4).tolist()
    return found


def _recorded() -> dict[str, Any]:
    """The runs in the results, by their commands."""
    return dict((read_json(FILE) or {"runs": {}})["runs"])


def _add(about: dict[str, str], words: str, run: Any) -> None:
    """One more run beside those that are there by now, a line for each: another process may measure others."""
    runs = sorted((_recorded() | {words: run}).items())
    lines = ",\n".join(f" {json.dumps(words)}: {json.dumps(run)}" for words, run in runs)
    FILE.write_text(f'{json.dumps(about)[:-1]}, "runs": {{\n{lines}\n}}}}\n', encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outputs", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--only", metavar="WORDS", default="", help="commands that have these in them")
    args = parser.parse_args()
    runs = Runs(args.outputs.resolve())
    pages = sorted(path.stem for path in (resources_dir() / "concepts").glob("*.md"))
    named = {words: page for page in pages for _, trial in trials_of(page) for words in trial}
    kind = {words: words.partition(" ")[0] for words in named}
    order = sorted(named, key=lambda words: _ORDER.index(kind[words] if kind[words] in _ORDER else ""))
    about = {"command": f"llmlab-run ...{ONE_THREAD}{IN_FP32}", "processor": processor()}
    about |= {"python": platform.python_version(), "torch": importlib.metadata.version("torch")}
    for words in order:
        if args.only not in words or (words in _recorded() and not runs.lack(words)):
            continue
        try:
            _add(about, words, runs.run(named[words], words))
        except LabError as error:
            print(error, flush=True)
            continue
        print(words, flush=True)
    for name, measure in MEASURES.items():
        if name not in _recorded() and args.only in name:
            _add(about, name, measure(args.outputs.resolve()))


if __name__ == "__main__":
    main()
