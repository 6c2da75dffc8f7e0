"""`checkpoints`: what a run has saved, and keeping or deleting it."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from llmlab.cli import text
from llmlab.cli.output import DONE, FAILED, print_json
from llmlab.cli.runs import checkpoint_dict
from llmlab.cli.words import Commands, add_run, outputs_of
from llmlab.core.errors import LabError, UsageError
from llmlab.core.files import read_json
from llmlab.models.weights import TensorFile
from llmlab.store.checkpoints import (
    MANIFEST_FILE,
    Checkpoint,
    checkpoint_name,
    delete,
    list_checkpoints,
    select,
    set_pinned,
    unreadable,
    verify,
)
from llmlab.store.registry import RunReference, resolve_run

_DETAILS = """A final checkpoint is always saved. Periodic ones are thinned (checkpoints.keep_last); the best, the
final and pinned ones stay. STEP is a step's number, or final, best, latest.

examples:
  llmlab-run checkpoints bar
  llmlab-run checkpoints bar pin 500
  llmlab-run checkpoints bar inspect final
  llmlab-run checkpoints bar verify            all of them, against the sums in their manifests"""


def add_commands(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add("checkpoints", checkpoints, "list, inspect, pin, verify or delete checkpoints", _DETAILS)
    add_run(parser)
    parser.add_argument(
        "action", nargs="?", default="list", choices=("list", "inspect", "pin", "unpin", "verify", "delete")
    )
    parser.add_argument("step", nargs="?", metavar="STEP", help="which one")


def checkpoints(args: argparse.Namespace) -> int:
    """Does what was asked with one checkpoint, or with all."""
    reference = resolve_run(args.run, outputs_of(args))
    which = args.step.removeprefix("@") if args.step is not None else reference.which
    if args.action == "list":
        return _list(reference, args.json)
    if args.action == "verify":
        return _verify(reference, which, args.json)
    if which is None:
        raise UsageError(
            f"Which checkpoint should be used for {args.action}?", "", "Name a STEP, final, best or latest."
        )
    checkpoint = select(reference.run.checkpoints, which)
    if args.action == "inspect":
        return _inspect(checkpoint, args.json)
    if args.action == "delete":
        _delete(checkpoint)
        said = f"Deleted {checkpoint.name} ({text.size(checkpoint.bytes)})."
    else:
        set_pinned(checkpoint, args.action == "pin")
        said = f"{checkpoint.name} is {args.action}ned."
    if args.json:
        print_json([checkpoint_dict(one) for one in list_checkpoints(reference.run.checkpoints)])
    else:
        print(said)
    return DONE


def _list(reference: RunReference, as_json: bool) -> int:
    saved = list_checkpoints(reference.run.checkpoints)
    if as_json:
        print_json([checkpoint_dict(checkpoint) for checkpoint in saved])
    elif not saved:
        print(f"{reference.run.id} has saved no checkpoint yet.")
    else:
        header = ("step", "validation", "size", "saved", "why")
        rows = [
            (str(one.step), text.loss(one.val_loss), text.size(one.bytes), text.clock(one.time), _why(one))
            for one in saved
        ]
        for line in text.table(header, rows, right=(0, 1, 2)):
            print(line)
    return DONE


def _verify(reference: RunReference, which: str | None, as_json: bool) -> int:
    """All checkpoints of the run, or one, against their manifests; folders without a manifest are problems too."""
    folder = reference.run.checkpoints
    lost = unreadable(folder)
    if which is not None and which.isdecimal():
        lost = [name for name in lost if name == checkpoint_name(int(which))]
    elif which is not None:
        lost = []
    chosen = list_checkpoints(folder) if which is None else [] if lost else [select(folder, which)]
    problems = {checkpoint.name: verify(checkpoint) for checkpoint in chosen}
    problems |= {name: f"{name} has no manifest that can be read." for name in lost}
    if as_json:
        print_json([{"name": name, "problem": problem} for name, problem in sorted(problems.items())])
    else:
        for name, problem in sorted(problems.items()):
            print(problem or f"{name} is what was saved.")
        if not problems:
            print(f"{reference.run.id} has saved no checkpoint yet.")
    return FAILED if any(problems.values()) else DONE


def _inspect(checkpoint: Checkpoint, as_json: bool) -> int:
    """All that a checkpoint says of itself, and the shapes of its weights."""
    tensors = _tensors(checkpoint.weights)
    manifest = read_json(checkpoint.path / MANIFEST_FILE) or {}
    files = manifest.get("files", {})
    if as_json:
        print_json(checkpoint_dict(checkpoint) | {"files": files, "tensors": tensors})
        return DONE
    print(f"{checkpoint.name}, saved {text.clock(checkpoint.time)} ({_why(checkpoint)})")
    print(f"  folder       {checkpoint.path}")
    print(f"  validation   {text.loss(checkpoint.val_loss)}")
    for name, entry in files.items():
        print(f"  {name}   {text.size(entry['bytes'])}   sha256 {entry['sha256']}")
    for key, described in checkpoint.about.items():
        shown = (
            " ".join(f"{k}={text.value(v)}" for k, v in described.items()) if isinstance(described, dict) else described
        )
        print(f"  {key:<12} {shown}")
    print()
    rows = [(tensor["name"], tensor["dtype"], " x ".join(str(n) for n in tensor["shape"])) for tensor in tensors]
    for line in text.table(("weight", "type", "shape"), rows):
        print(line)
    print(f"{text.count(sum(math.prod(tensor['shape']) for tensor in tensors))} numbers in {len(tensors)} tensors")
    return DONE


def _tensors(path: Path) -> list[dict[str, Any]]:
    """Name, dtype and shape of each tensor in a safetensors file, from its header alone. LabError when damaged."""
    file = TensorFile(path, f"{path.name} of {path.parent.name}")
    # blocks.10 after blocks.2: numbers in names are compared as numbers.
    names = sorted(file, key=lambda name: [part.zfill(8) for part in name.split(".")])
    return [{"name": name, "dtype": file.dtypes[name], "shape": list(file.shapes[name])} for name in names]


def _delete(checkpoint: Checkpoint) -> None:
    if checkpoint.pinned:
        raise UsageError(f"{checkpoint.name} is pinned.", "A pin protects it.", f"Unpin {checkpoint.step} first.")
    try:
        delete(checkpoint)
    except OSError as error:
        raise LabError(f"{checkpoint.name} could not be deleted.", f"{error}.") from error


def _why(checkpoint: Checkpoint) -> str:
    return " ".join([*checkpoint.labels, *(["pinned"] if checkpoint.pinned else [])])
