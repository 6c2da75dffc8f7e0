"""`evolve`: one question asked of all checkpoints of a run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llmlab.cli import text
from llmlab.cli.question import Answered, add_out, add_prompt, add_target, listed, parts_of
from llmlab.cli.words import Commands, add_run, outputs_of

if TYPE_CHECKING:
    from llmlab.inspection.experiment_summary import EvolutionSummary

_DEFAULT_WHAT = "heads,lens"

_DETAILS = """--what as for `llmlab-run inspect`, separated by commas. One checkpoint is in memory at a time; damaged
ones are left out and named. More checkpoints are kept with --set checkpoints.keep_last=100 when the run begins.

It writes DIR/evolution.safetensors, the tensors of an inspection with a leading axis of steps, and DIR/summary.json.

examples:
  llmlab-run evolve bar --prompt "The king said to the queen" --what heads,lens --out grown
  llmlab-run evolve bar --prompt "one two three one two" --what heads,attention --every 2 --out grown"""


def add_commands(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add("evolve", evolve, "ask all checkpoints of a run the same question", _DETAILS)
    add_run(parser)
    add_prompt(parser)
    parser.add_argument("--what", default=_DEFAULT_WHAT, help=f"parts, separated by commas (default: {_DEFAULT_WHAT})")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th checkpoint (default: 1)")
    add_target(parser, "last checkpoint")
    parser.add_argument("--top", type=int, default=5, help="tokens that the lens keeps at each position (default: 5)")
    add_out(parser)


def evolve(args: argparse.Namespace) -> int:
    """Asks every checkpoint, writes the archive and says what was found."""
    answered = Answered(args, "evolution.safetensors")
    from llmlab.inspection.evolve import evolve as evolve_run  # brings torch
    from llmlab.inspection.experiment_summary import summarise_evolution

    values: dict[str, Any] = {
        "text": args.prompt,
        "beginning": args.beginning,
        "what": parts_of(args.what),
        "every": args.every,
        "position": args.position,
        "answer": args.answer,
        "against": args.against,
        "top": args.top,
    }
    with answered.progress() as progress:
        evolve_run(args.run, outputs_of(args), values, answered.path, progress)
    return answered.report(summarise_evolution, _lines)


def _lines(summary: EvolutionSummary) -> list[str]:
    lines = [f"{summary.model}: {text.counted(len(summary.steps), 'checkpoint')}; {listed(summary.tokens)}"]
    header = ["step", "validation"]
    columns: list[list[str]] = [[str(step) for step in summary.steps], [text.loss(loss) for loss in summary.val_loss]]
    for score, heads in summary.heads.items():
        header.append(f"{score} (head)")
        columns.append([f"{head.score:.2f} ({head.layer}.{head.head})" if head else "-" for head in heads])
    for name, values in (("p(prompt)", summary.target_probability), ("logit", summary.attribution)):
        if values:
            header.append(name)
            columns.append([f"{value:.3f}" for value in values])
    return [*lines, *_table(header, columns)]


def _table(header: list[str], columns: list[list[str]]) -> Iterator[str]:
    return text.table(header, list(zip(*columns, strict=True)), right=tuple(range(len(header))))
