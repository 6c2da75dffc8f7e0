"""Options that several commands share."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from llmlab.core.errors import UsageError, did_you_mean
from llmlab.core.paths import expanded, outputs_dir, resources_dir
from llmlab.jobs.cluster import CLUSTERS
from llmlab.notebook.predictions import parse_prediction
from llmlab.store.registry import short_name
from llmlab.store.run_folder import RunFolder

T = TypeVar("T")

# Words that stand for a setting: `--steps 300` is `--set train.steps=300`.
_SHORT_FOR = {"corpus": "data.corpus", "steps": "train.steps", "seed": "train.seed"}
# The same, of fine-tuning alone.
_SHORT_FOR_TUNING = {"model": "model.base", "data": "data.source", "method": "model.method"}

_MOST_JOBS = 64  # more than workstations have cores


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in the lab's own way, and takes no abbreviated options."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        # Wide enough for the longest command and most options to share a line with their meaning.
        options.setdefault(
            "formatter_class", lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28)
        )
        super().__init__(*args, **options)
        self.facts: dict[str, str] = {}  # that stand in braces in its details

    def format_help(self) -> str:
        """With the details of resources/commands/<last word>.txt, which few commands are without."""
        path = resources_dir() / "commands" / f"{self.prog.rpartition(' ')[2]}.txt"
        if self.epilog is None and path.is_file():
            details = path.read_text(encoding="utf-8").rstrip("\n")
            for name, fact in self.facts.items():
                details = details.replace(f"{{{name}}}", fact)
            self.epilog = details
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Raises UsageError instead of printing the whole usage."""
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", "", f"See {self.prog} --help")

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Raises UsageError for words that mean nothing here, with the nearest option."""
        word, options = unknown[0].partition("=")[0], re.findall(r"--[a-z-]+", self.format_usage())
        begun = [option for option in options if len(word) > 2 and option.startswith(word)]
        meant = f"Did you mean {' or '.join(begun)}?" if begun else did_you_mean(word, options)
        hint = meant or f"See {self.prog} --help"
        raise UsageError(f"{self.prog} does not take {unknown[0]!r}.", "", hint)


def action_of(args: argparse.Namespace, actions: Mapping[str, T]) -> T:
    """What the command's word ACTION stands for. UsageError when it is none of `actions`."""
    if args.action not in actions:
        does, there = args.command.__name__, ", ".join(actions)
        raise UsageError(
            f"{does} has no action {args.action!r}.", f"There are: {there}.", f"See llmlab-run {does} --help"
        )
    return actions[args.action]


class Commands:
    """The commands of a program, in the order in which its help lists them."""

    def __init__(self, parser: Parser) -> None:
        self._parsers = parser.add_subparsers(metavar="COMMAND", title="commands")
        self.names: list[str] = []

    def add(self, name: str, command: Callable[[argparse.Namespace], int], help: str, **facts: str) -> Parser:
        """A new command with --json and --debug; `command(args)` returns the exit code. facts: of its details."""
        parser = self._parsers.add_parser(name, help=help, description=help)
        parser.facts = facts
        parser.add_argument("--json", action="store_true", help="machine-readable output")
        parser.add_argument(
            "--debug",
            action="store_true",
            help="print the traceback of an error too; for a training run, where the time goes before step 1",
        )
        parser.set_defaults(command=command, parser=parser)
        self.names.append(name)
        return parser


def add_outputs(parser: Parser) -> None:
    parser.add_argument(
        "--outputs", metavar="DIR", type=Path, help="folder of the runs (default: $LLMLAB_OUTPUTS, or the lab's own)"
    )


def add_run(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's id, TRACK/ID or folder")
    add_outputs(parser)


def add_model(parser: Parser) -> None:
    parser.add_argument("reference", metavar="REF", help="a run or a model; see below")
    add_outputs(parser)


def add_settings(parser: Parser) -> None:
    parser.add_argument("--steps", metavar="N", help="optimizer steps in all: train.steps")
    add_assignments(parser, "change a setting; again for each (`llmlab-run settings` lists all)")


def add_assignments(parser: Parser, help: str) -> None:
    parser.add_argument(
        "--set", metavar="SECTION.FIELD=VALUE", dest="assignments", action="append", default=[], help=help
    )


def add_settings_file(parser: Parser) -> None:
    parser.add_argument("--settings", metavar="FILE.toml", type=Path, help="settings from a file, [section] by section")


def add_predict(parser: Parser) -> None:
    parser.add_argument(
        "--predict",
        metavar="WHAT",
        dest="predictions",
        action="append",
        type=parse_prediction,
        default=[],
        help="what you expect, locked before the start and scored at the end: val_loss=1.9..2.2@80%%; again for each "
        "(`llmlab-run notebook quantities` lists what can be predicted)",
    )


def add_jobs(parser: Parser) -> None:
    parser.add_argument(
        "--jobs", metavar="N", type=_jobs, help="runs that train at once (default: 1, or as many as before)"
    )


def add_cluster(parser: Parser) -> None:
    parser.add_argument(
        "--cluster",
        choices=(*CLUSTERS, "none"),
        help="give each run to a job of a cluster, by submitit (default: none, or as before)",
    )
    parser.add_argument(
        "--cluster-set",
        metavar="NAME=VALUE",
        dest="cluster_options",
        action="append",
        default=[],
        type=_option,
        help="a parameter of its jobs, in submitit's words; again for each: slurm_partition=gpu, timeout_min=90",
    )


def _option(word: str) -> tuple[str, str]:
    name, is_there, value = word.partition("=")
    if not is_there:
        raise argparse.ArgumentTypeError(f"it takes NAME=VALUE, and {word!r} has no =")
    return name.strip(), value.strip()


def add_take_over(parser: Parser) -> None:
    parser.add_argument(
        "--take-over", action="store_true", help="resume here what another machine trained, which you know is gone"
    )


def _jobs(word: str) -> int:
    if not word.isdecimal() or not 1 <= int(word) <= _MOST_JOBS:
        raise argparse.ArgumentTypeError(f"1 to {_MOST_JOBS} runs can train at once, and {word!r} is no such number")
    return int(word)


def parts_of(words: str | None) -> list[str]:
    """`heads, lens` -> its parts; none without words."""
    return [part.strip() for part in (words or "").split(",") if part.strip()]


def outputs_of(args: argparse.Namespace) -> Path:
    """The outputs folder that the command line means, absolute."""
    return (expanded(args.outputs) if args.outputs is not None else outputs_dir()).resolve()


def assignments_of(args: argparse.Namespace) -> list[str]:
    """All settings of the command line as `section.field=value`: the short words first, so that --set wins."""
    return _short_words(args, _SHORT_FOR) + args.assignments


def finetuning_assignments_of(args: argparse.Namespace) -> list[str]:
    """The same with the short words of fine-tuning."""
    return _short_words(args, _SHORT_FOR_TUNING) + assignments_of(args)


def _short_words(args: argparse.Namespace, meanings: Mapping[str, str]) -> list[str]:
    values = [(key, getattr(args, word, None)) for word, key in meanings.items()]
    return [f"{key}={value}" for key, value in values if value is not None]


def spoken(run: RunFolder) -> str:
    """How to name a run in a command."""
    return shlex.quote(short_name(run, outputs_dir()))
