"""`compare`: two models, or two checkpoints, on one prompt."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from llmlab.cli import text
from llmlab.cli.experiment import Experiment, likely, listed, parts_of
from llmlab.cli.inspect import add_out, add_prompt
from llmlab.cli.words import Commands, add_outputs, outputs_of

if TYPE_CHECKING:
    from llmlab.inspection.experiment_summary import ComparisonSummary

_DEFAULT_WHAT = "attention,residual"

_DETAILS = """REF_A and REF_B as for `llmlab-run inspect`. One model is in memory at a time.

--what, separated by commas: attention, heads, residual, contributions, rollout. The predictions are always compared.
Models that cut the prompt into different tokens are refused; with --align they are compared where a token of both
ends at the same character.

It writes DIR/comparison.safetensors (difference/..., cosine/..., cka/..., kl) and DIR/summary.json.

examples:
  llmlab-run compare bar@250 bar@final --prompt "The king said to the queen" --out compared
  llmlab-run compare base/ base/+adapter/ --prompt "The capital of France is" --what residual --out compared"""


def add_commands(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add("compare", compare, "compare two models, or two checkpoints, on one prompt", _DETAILS)
    parser.add_argument("reference_a", metavar="REF_A", help="a run or a model")
    parser.add_argument("reference_b", metavar="REF_B", help="another one")
    add_outputs(parser)
    add_prompt(parser)
    parser.add_argument("--what", default=_DEFAULT_WHAT, help=f"parts, separated by commas (default: {_DEFAULT_WHAT})")
    parser.add_argument("--align", action="store_true", help="compare different tokens where they end together")
    parser.add_argument("--top", type=int, default=5, help="likeliest tokens kept at each place (default: 5)")
    parser.add_argument("--plots", action="store_true", help="figures too, as PNG and SVG")
    add_out(parser)


def compare(args: argparse.Namespace) -> int:
    """Compares, writes the archive and says what was found."""
    experiment = Experiment(args, "comparison.safetensors")
    from llmlab.inspection.compare import compare as compare_models  # brings torch
    from llmlab.inspection.experiment_summary import summarise_comparison

    values: dict[str, Any] = {
        "text": args.prompt,
        "beginning": args.beginning,
        "what": parts_of(args.what),
        "align": args.align,
        "top": args.top,
    }
    with experiment.progress() as progress:
        compare_models(args.reference_a, args.reference_b, outputs_of(args), values, experiment.path, progress)
    return experiment.report(summarise_comparison, _lines)


def _lines(summary: ComparisonSummary) -> list[str]:
    lines = [f"{summary.model} against {summary.model_b}: {listed(summary.tokens)}"]
    if summary.identical:
        return [*lines, "Nothing differs: every difference is exactly zero."]
    for named, by_point in (("cosine", summary.cosine), ("CKA", summary.cka)):
        if values := by_point.get("post_ffn"):
            shown = " ".join("-" if value is None else f"{value:.3f}" for value in values)
            lines.append(f"Stream after each layer, {named}: {shown}")
    if summary.kl:
        furthest = max(range(len(summary.kl)), key=summary.kl.__getitem__)
        mean = sum(summary.kl) / len(summary.kl)
        lines.append(
            f"KL(A || B) {mean:.4f} nats in the mean, at most {summary.kl[furthest]:.4f} after token {furthest} "
            f"({text.printable(repr(summary.tokens[furthest]))})"
        )
    lines.append(f"They expect different tokens after {len(summary.disagreements)} of {len(summary.tokens)} tokens.")
    for found in summary.disagreements[-3:]:
        lines.append(
            f"  {found.position} {text.printable(repr(found.token))}: {likely([found.a])} / {likely([found.b])}"
        )
    return lines
