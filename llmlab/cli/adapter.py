"""`adapter`: what fine-tuning changed, matrix by matrix."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmlab.cli import text
from llmlab.cli.output import print_answer, terminal_progress
from llmlab.cli.words import Commands, add_outputs, outputs_of
from llmlab.core.finetuning_settings import FULL

if TYPE_CHECKING:
    from llmlab.inspection.weight_change import Change, ModuleChange


def add_commands(commands: Commands) -> None:
    parser = commands.add("adapter", adapter, "show what fine-tuning changed")
    parser.add_argument("reference", metavar="REF", help="what was fine-tuned; see below")
    add_outputs(parser)


def adapter(args: argparse.Namespace) -> int:
    from llmlab.inspection.weight_change import change_of  # brings numpy, which `--help` should not wait for

    with terminal_progress(not args.json) as progress:
        change = change_of(args.reference, outputs_of(args), progress)
    return print_answer(args, _plain(change), _lines(change))


def _plain(change: Change) -> dict[str, object]:
    rows = [
        vars(row) | {"relative": row.relative, "effective_rank": row.effective_rank, "singular": list(row.singular)}
        for row in change.modules
    ]
    whole = {name: getattr(change, name) for name in ("model", "base", "method", "norm", "relative", "trained")}
    return whole | {"modules": rows, "notes": list(change.notes)}


def _lines(change: Change) -> Iterator[str]:
    on = f" on {change.base}" if change.base else ""
    yield text.printable(f"{change.model}: {change.method}{on}")
    header = ("layer", "module", "rank", "norm", "relative", "effective", "largest")
    yield from text.table(header, [_cells(row) for row in change.modules], right=(0, 2, 3, 4, 5, 6))
    relative = f", {change.relative:.3g} of what the matrices were" if change.relative is not None else ""
    kind = "parameters in matrices" if change.method == FULL else "parameters in the adapter"
    yield f"all together: norm {change.norm:.4g}{relative}; {change.trained:,} {kind}"
    yield from change.notes


def _cells(row: ModuleChange) -> tuple[str, ...]:
    return (
        "-" if row.layer < 0 else str(row.layer),
        text.printable(row.part),
        str(row.rank),
        f"{row.norm:.4g}",
        "-" if row.relative is None else f"{row.relative:.3g}",
        "-" if row.effective_rank is None else f"{row.effective_rank:.2f}",
        f"{row.singular[0]:.4g}" if row.singular else "-",
    )
