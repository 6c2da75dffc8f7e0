"""`checkpoints`: what a run has saved, and keeping or deleting it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmlab.cli import text
from llmlab.cli.output import DONE, FAILED, print_answer
from llmlab.cli.runs import checkpoint_dict
from llmlab.cli.words import Commands, add_run, outputs_of
from llmlab.core.errors import UsageError, explained
from llmlab.core.files import read_json
from llmlab.core.signs import count_text
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


def add_commands(commands: Commands) -> None:
    parser = commands.add("checkpoints", checkpoints, "list, inspect, pin, verify or delete checkpoints")
    add_run(parser)
    parser.add_argument(
        "action", nargs="?", default="list", choices=("list", "inspect", "pin", "unpin", "verify", "delete")
    )
    parser.add_argument("step", nargs="?", metavar="STEP", help="which one")


def checkpoints(args: argparse.Namespace) -> int:
    reference = resolve_run(args.run, outputs_of(args))
    which = args.step.removeprefix("@") if args.step is not None else reference.which
    if args.action == "list":
        saved = list_checkpoints(reference.run.checkpoints)
        return print_answer(args, [checkpoint_dict(checkpoint) for checkpoint in saved], _list(reference, saved))
    if args.action == "verify":
        return _verify(args, reference, which)
    if which is None:
        raise UsageError(
            f"Which checkpoint should be used for {args.action}?", "", "Name a STEP, final, best or latest."
        )
    checkpoint = select(reference.run.checkpoints, which)
    if args.action == "inspect":
        return _inspect(args, checkpoint)
    if args.action == "delete":
        _delete(checkpoint)
        said = f"Deleted {checkpoint.name} ({text.size(checkpoint.bytes)})."
    else:
        set_pinned(checkpoint, args.action == "pin")
        said = f"{checkpoint.name} is {args.action}ned."
    return print_answer(args, [checkpoint_dict(one) for one in list_checkpoints(reference.run.checkpoints)], [said])


def _list(reference: RunReference, saved: Sequence[Checkpoint]) -> Iterator[str]:
    rows = [
        (str(one.step), text.loss(one.val_loss), text.size(one.bytes), text.clock(one.time), one.why) for one in saved
    ]
    if rows:
        yield from text.table(("step", "validation", "size", "saved", "why"), rows, right=(0, 1, 2))
    else:
        yield f"{reference.run.id} has saved no checkpoint yet."


def _verify(args: argparse.Namespace, reference: RunReference, which: str | None) -> int:
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
    found = sorted(problems.items())
    lines = [problem or f"{name} is intact." for name, problem in found]
    none = [f"{reference.run.id} has saved no checkpoint yet."]
    print_answer(args, [{"name": name, "problem": problem} for name, problem in found], lines or none)
    return FAILED if any(problems.values()) else DONE


def _inspect(args: argparse.Namespace, checkpoint: Checkpoint) -> int:
    """All that a checkpoint says of itself, and the shapes of its weights."""
    tensors = _tensors(checkpoint.weights)
    files = (read_json(checkpoint.path / MANIFEST_FILE) or {}).get("files", {})
    value = checkpoint_dict(checkpoint) | {"files": files, "tensors": tensors}
    return print_answer(args, value, _description(checkpoint, files, tensors))


def _description(checkpoint: Checkpoint, files: dict[str, Any], tensors: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{checkpoint.name}, saved {text.clock(checkpoint.time)} ({checkpoint.why})"
    yield f"  folder       {checkpoint.path}"
    yield f"  validation   {text.loss(checkpoint.val_loss)}"
    for name, entry in files.items():
        yield f"  {name}   {text.size(entry['bytes'])}   sha256 {entry['sha256']}"
    for key, described in checkpoint.about.items():
        if isinstance(described, dict):
            described = " ".join(f"{name}={text.value(value)}" for name, value in described.items())
        yield f"  {key:<12} {described}"
    yield ""
    rows = [(tensor["name"], tensor["dtype"], " x ".join(str(n) for n in tensor["shape"])) for tensor in tensors]
    yield from text.table(("weight", "type", "shape"), rows)
    yield f"{count_text(sum(math.prod(tensor['shape']) for tensor in tensors))} parameters in {len(tensors)} tensors"


def _tensors(path: Path) -> list[dict[str, Any]]:
    """Name, dtype and shape of each tensor in a safetensors file, from its header alone. LabError when damaged."""
    file = TensorFile(path, f"{path.name} of {path.parent.name}")
    # blocks.10 after blocks.2: numbers in names are compared as numbers.
    names = sorted(file, key=lambda name: [part.zfill(8) for part in name.split(".")])
    return [{"name": name, "dtype": file.dtypes[name], "shape": list(file.shapes[name])} for name in names]


def _delete(checkpoint: Checkpoint) -> None:
    if checkpoint.pinned:
        raise UsageError(f"{checkpoint.name} is pinned.", "A pin protects it.", f"Unpin {checkpoint.step} first.")
    with explained(f"{checkpoint.path} could not be deleted."):
        delete(checkpoint)
