"""What `pretrain` and `finetune` have in common: the words of a new run, and what --from means."""

from __future__ import annotations

import argparse
from pathlib import Path

from llmlab.cli.predict import add_predict
from llmlab.cli.words import Parser, add_outputs, add_settings, add_settings_file
from llmlab.core.errors import UsageError
from llmlab.store.checkpoints import Checkpoint
from llmlab.store.registry import resolve_run
from llmlab.store.run_folder import RunFolder


def add_new_run(parser: Parser, *, seeded: str, learns_from: str, parent: str) -> None:
    """--steps to --outputs. seeded: what --seed is of, besides batches and dropout. learns_from: what --name tells
    by default. parent: the kind of run that --from takes."""
    add_settings(parser)
    parser.add_argument("--seed", metavar="N", help=f"seed of {seeded}, batches and dropout: train.seed")
    add_settings_file(parser)
    parser.add_argument("--name", help=f"the run's id (default: made from date, preset and {learns_from})")
    parser.add_argument(
        "--from",
        metavar="RUN@WHICH",
        dest="parent",
        help=f"branch: start from a checkpoint of another {parent}, with its settings, as a new run",
    )
    add_predict(parser)
    add_outputs(parser)


def branch_point(args: argparse.Namespace, outputs: Path) -> tuple[RunFolder, Checkpoint] | None:
    """The run and checkpoint of --from; None without it. UsageError when there is no such one, or a preset besides."""
    if args.parent is None:
        return None
    if args.preset is not None:
        raise UsageError(
            "--preset and --from exclude each other.",
            "A branch keeps the settings of the run that it comes from.",
            "Change single ones with --set.",
        )
    reference = resolve_run(args.parent, outputs)
    return reference.run, reference.checkpoint()
