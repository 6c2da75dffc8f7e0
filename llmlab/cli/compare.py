"""`compare`: two models, or two checkpoints, on one prompt."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from llmlab.cli import text
from llmlab.cli.question import Answered, add_out, add_prompt, add_what, likely, listed, values_of
from llmlab.cli.words import Commands, add_outputs, outputs_of
from llmlab.core.errors import UsageError
from llmlab.core.paths import expanded

if TYPE_CHECKING:
    from llmlab.inspection.experiment_summary import ComparisonSummary


def add_commands(commands: Commands) -> None:
    parser = commands.add("compare", compare, "compare two models, or two checkpoints, on one prompt")
    parser.add_argument("reference_a", metavar="REF_A", help="a run, a model, or a saved inspection")
    parser.add_argument("reference_b", metavar="REF_B", help="another one")
    add_outputs(parser)
    add_prompt(parser, required=False, help="the text that both read; saved inspections have theirs")
    add_what(parser, "attention,residual")
    parser.add_argument("--align", action="store_true", help="compare different tokens where they end together")
    add_out(parser, "most likely tokens kept")


def compare(args: argparse.Namespace) -> int:
    saved = _saved(args)
    if saved is None and not args.prompt:
        raise UsageError("There is no prompt.", "", 'Name the text that both models read: --prompt "The king"')
    answered = Answered(args, "comparison.safetensors")
    from llmlab.inspection.experiment_summary import summarise_comparison

    with answered.progress as progress:
        if saved is not None:
            from llmlab.inspection.differences import compare_archives

            compare_archives(*saved, answered.path, progress, align=args.align)
        else:
            from llmlab.inspection.compare import compare as compare_models  # brings torch

            values = values_of(args, "what", "align", "top")
            compare_models(args.reference_a, args.reference_b, outputs_of(args), values, answered.path, progress)
    return answered.report(summarise_comparison, _lines)


def _saved(args: argparse.Namespace) -> tuple[Path, Path] | None:
    """Both references as files of `inspect`; None where they are models."""
    paths = [expanded(reference) for reference in (args.reference_a, args.reference_b)]
    archives = [path.suffix == ".safetensors" and path.is_file() for path in paths]
    if any(archives) and not all(archives):
        raise UsageError("One is a saved inspection and the other is not.", "", "Inspect the other one first.")
    if any(archives) and expanded(args.out).resolve() in {path.resolve().parent for path in paths}:
        raise UsageError(f"What is in {args.out} is what is compared.", "", "Choose another --out.")
    return (paths[0], paths[1]) if all(archives) else None


def _lines(summary: ComparisonSummary) -> list[str]:
    lines = [f"{summary.model} against {summary.model_b}: {listed(summary.tokens)}"]
    if summary.identical:
        return [*lines, "Nothing differs: every difference is exactly zero."]
    for named, by_point in (("cosine", summary.cosine), ("CKA", summary.cka)):
        if values := by_point.get("post_ffn"):
            shown = " ".join("-" if value is None else f"{value:.3f}" for value in values)
            lines.append(f"Residual stream after each layer, {named}: {shown}")
    if summary.kl:
        furthest = max(range(len(summary.kl)), key=summary.kl.__getitem__)
        mean = sum(summary.kl) / len(summary.kl)
        lines.append(
            f"KL(A || B) {mean:.4f} nats in the mean, at most {summary.kl[furthest]:.4f} after token {furthest} "
            f"({text.printable(repr(summary.tokens[furthest]))})"
        )
    if not summary.predicted:
        return lines
    lines.append(
        f"Their most likely next tokens differ at {len(summary.disagreements)} of {len(summary.tokens)} positions."
    )
    for found in summary.disagreements[-3:]:
        lines.append(
            f"  {found.position} {text.printable(repr(found.token))}: {likely([found.a])} / {likely([found.b])}"
        )
    return lines
