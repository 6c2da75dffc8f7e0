"""`delete` and `rename`: removes runs, or gives them another name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from llmlab.cli import text
from llmlab.cli.output import DONE, answer, say
from llmlab.cli.words import Commands, add_outputs, add_run, outputs_of
from llmlab.core.errors import UsageError
from llmlab.store.registry import RunReference, resolve_run
from llmlab.store.run_folder import RunFolder


def add_commands(commands: Commands) -> None:
    parser = commands.add("delete", delete, "move runs to the trash, with all their checkpoints")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run's id, TRACK/ID or folder")
    parser.add_argument("--yes", action="store_true", help="do not ask, also where there is no trash")
    add_outputs(parser)
    parser = commands.add("rename", rename, "give a run another name")
    add_run(parser)
    parser.add_argument("new", metavar="NEW", help="its new name")


def delete(args: argparse.Namespace) -> int:
    """Moves runs to the trash. None is touched when one of them cannot be deleted."""
    from llmlab.studies.upkeep import (  # brings numpy, for which --help should not wait
        delete_run,
        require_at_rest,
        what_rests_on,
    )

    outputs = outputs_of(args)
    runs = list(dict.fromkeys(_whole(resolve_run(name, outputs), name) for name in args.runs))
    for run in runs:
        require_at_rest(run)
    for run, resting in zip(runs, what_rests_on(runs), strict=True):
        for line in (f"{run.full_name} ({text.size(_bytes(run))})", *(f"  {said}" for said in resting)):
            print(line) if not args.json else say(line)
    if not args.yes and not _agreed(f"Move {_these(runs)} to the trash?"):
        return DONE
    kept = [run for run in runs if not delete_run(run)]
    if kept and not args.yes and not _agreed(f"No trash here can hold {_these(kept)}. Delete for good?"):
        return DONE
    for run in kept:
        delete_run(run, for_good=True)
    values = [{"run": run.full_name, "deleted": "for good" if run in kept else "to the trash"} for run in runs]
    lines = (
        f"Deleted {run.full_name} for good." if run in kept else f"Moved {run.full_name} to the trash." for run in runs
    )
    return answer(args, values, lines)


def rename(args: argparse.Namespace) -> int:
    from llmlab.studies.upkeep import rename_run  # brings numpy, for which --help should not wait

    run = _whole(resolve_run(args.run, outputs_of(args)), args.run)
    renamed = rename_run(run, args.new)
    value = {"run": renamed.id, "was": run.id, "path": str(renamed.path)}
    return answer(args, value, [f"Renamed {run.id} to {renamed.id}."])


def _whole(reference: RunReference, name: str) -> RunFolder:
    if reference.which is not None:
        raise UsageError(
            f"{name} is one checkpoint.", "This command takes a whole run.", "See llmlab-run checkpoints --help"
        )
    return reference.run


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("Nothing was deleted.", "There is no terminal to answer in.", "Add --yes to agree.")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _these(runs: Sequence[RunFolder]) -> str:
    return runs[0].full_name if len(runs) == 1 else f"{len(runs)} runs"


def _bytes(run: RunFolder) -> int:
    return sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
