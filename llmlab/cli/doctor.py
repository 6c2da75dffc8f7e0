"""`doctor`: checks by measuring that this machine can do what the lab needs."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from llmlab import __version__
from llmlab.cli import text
from llmlab.cli.output import DONE, FAILED, print_json
from llmlab.cli.words import Commands, add_outputs, outputs_of
from llmlab.core.errors import LabError
from llmlab.core.paths import cache_dir, resources_dir
from llmlab.core.presets import preset_names

# What each library is for; without the first group nothing trains.
_TRAINING_LIBRARIES = ("torch", "numpy", "tiktoken", "tokenizers", "safetensors", "filelock", "psutil", "rich")
_OTHER_LIBRARIES = {
    "pyarrow": "corpora in .parquet and opening long runs",
    "datasets": "fetching corpora",
    "transformers": "exporting, and pretrained models",
    "peft": "fine-tuning",
    "bitsandbytes": "fine-tuning in 4 bits",
    "PySide6_Essentials": "the window",
    "pyqtgraph": "the window's charts",
}
# Less room than this fills up within a few runs of the larger presets.
_LITTLE_DISK = 5e9


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. state: ok, note (works, but worth knowing) or broken."""

    name: str
    state: str
    said: str
    do: str = ""
    values: dict[str, float] = field(default_factory=dict)  # what was measured


def add_commands(commands: Commands) -> None:
    parser = commands.add("doctor", doctor, "check this machine: libraries, devices, speed, folders")
    add_outputs(parser)


def doctor(args: argparse.Namespace) -> int:
    findings = []
    for finding in _findings(outputs_of(args)):
        findings.append(finding)
        if not args.json:
            for line in text.hanging(f"{finding.state:<7} {finding.name:<10} ", f"{finding.said} {finding.do}"):
                print(line, flush=True)
    broken = sum(finding.state == "broken" for finding in findings)
    if args.json:
        print_json({"ok": not broken, "findings": [asdict(finding) for finding in findings]})
    else:
        print(f"\n{broken} of {len(findings)} are broken." if broken else "\nAll is well.")
    return FAILED if broken else DONE


def _findings(outputs: Path) -> Iterator[Finding]:
    yield _python()
    yield _machine()
    yield from _libraries()
    yield _attempted("resources", _resources)
    yield _folder("outputs", outputs)
    yield _folder("cache", cache_dir())
    yield _display()
    if importlib.util.find_spec("torch") is not None:
        from llmlab.cli import self_test  # brings torch

        for name, check in self_test.checks():
            yield _attempted(name, check)


def _attempted(name: str, check: Callable[[], Finding]) -> Finding:
    """A check's finding; whatever it raises is one too."""
    try:
        return check()
    except LabError as error:
        return Finding(name, "broken", f"{error.what} {error.why}".strip(), error.do)
    except Exception as error:  # a library or a driver can fail in any way, and that is what is looked for
        first = str(error).strip().partition("\n")[0]
        return Finding(name, "broken", f"{type(error).__name__}: {first}")


def _python() -> Finding:
    said = f"lab {__version__}, Python {platform.python_version()} on {platform.platform(terse=True)}"
    return Finding("Python", "ok", said)


def _machine() -> Finding:
    memory = psutil.virtual_memory()
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    said = f"{cores} cores, {text.size(memory.total)} of memory, {text.size(memory.available)} of it free"
    values = {"cores": float(cores), "memory_bytes": float(memory.total), "free_bytes": float(memory.available)}
    return Finding("machine", "ok", said, values=values)


def _libraries() -> Iterator[Finding]:
    """One finding for all that are there, one for each that is missing."""
    there = []
    for name in (*_TRAINING_LIBRARIES, *_OTHER_LIBRARIES):
        version = _version(name)
        if version is not None:
            there.append(f"{name} {version}")
        elif name in _TRAINING_LIBRARIES:
            yield Finding(name, "broken", "is not installed, and nothing trains without it.", "Install the lab again.")
        else:
            yield Finding(name, "note", f"is not installed; it is for {_OTHER_LIBRARIES[name]}.")
    yield Finding("libraries", "ok", ", ".join(there))
    # Only looked for: importing unsloth changes other libraries and takes long.
    unsloth = importlib.util.find_spec("unsloth") is not None
    yield Finding("unsloth", "ok" if unsloth else "note", "is here" if unsloth else "is not here; it is optional.")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _resources() -> Finding:
    """Presets and embedded corpora: what an incomplete installation lacks."""
    from llmlab.data.corpora import corpora

    embedded = [corpus for corpus in corpora() if corpus.kind == "embedded"]
    missing = [corpus.name for corpus in embedded if not corpus.here()]
    if missing:
        lacks = f"{', '.join(missing)} not found in {resources_dir()}."
        return Finding("resources", "broken", lacks, "Install the lab again.")
    return Finding("resources", "ok", f"{len(preset_names())} presets, {len(embedded)} embedded corpora")


def _folder(name: str, folder: Path) -> Finding:
    """Whether a folder can be written to, or made, and how much room it has."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        why = f"{folder} cannot be written: {error.strerror}."
        return Finding(name, "broken", why, f"Set LLMLAB_{name.upper()} to another folder.")
    state = "ok" if free > _LITTLE_DISK else "note"
    return Finding(name, state, f"{folder}, {text.size(free)} free", values={"free_bytes": float(free)})


def _display() -> Finding:
    """Whether a window could open. Qt itself is left alone: the core never imports it."""
    named = [name for name in ("WAYLAND_DISPLAY", "DISPLAY", "QT_QPA_PLATFORM") if os.environ.get(name)]
    if sys.platform != "linux":
        return Finding("display", "ok", "the desktop's own")
    if not named:
        return Finding("display", "note", "There is none, so llmlab-gui cannot open here; llmlab-run needs none.")
    return Finding("display", "ok", f"{named[0]}={os.environ[named[0]]}")
