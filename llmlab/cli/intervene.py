"""`intervene`: ablates or patches parts of a model and shows what that does to its prediction."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from llmlab.cli import text
from llmlab.cli.question import Answered, add_out, add_prompt, add_target, likely, listed, values_of
from llmlab.cli.words import Commands, add_model, outputs_of
from llmlab.core.errors import UsageError

if TYPE_CHECKING:
    from llmlab.inspection.experiment_summary import Aim, InterventionSummary, SweepSummary


def add_commands(commands: Commands) -> None:
    parser = commands.add("intervene", intervene, "ablate or patch parts of a model")
    add_model(parser)
    add_prompt(parser)
    parser.add_argument("--source", default="", help="the prompt that is patched from")
    add_target(parser, "model")
    says = {"zero": "set a part to 0", "mean": "replace a part by its mean", "patch": "replace a part by the source's"}
    for action, said in (says | {"scale": "multiply a part"}).items():
        metavar, written = ("PART=FACTOR", _scaling) if action == "scale" else ("PART", f"{action} {{}}".format)
        parser.add_argument(f"--{action}", metavar=metavar, dest="edits", action="append", type=written, help=said)
    parser.add_argument("--sweep", metavar="OVER", default="", help="layer,position or layer,head")
    parser.add_argument("--point", default="", help="of a sweep over positions (default: pre_attn)")
    parser.add_argument("--ablate", choices=("zero", "mean"), help="a sweep that ablates instead of patching")
    parser.add_argument("--align", default="", help="positions of prompt and source: start, end, or 3=4,5=6")
    parser.add_argument(
        "--reference", metavar="TEXT", dest="averaged", default="", help="text that means are taken over"
    )
    add_out(parser, "most likely tokens kept")


def _scaling(words: str) -> str:
    part, _, factor = words.rpartition("=")
    return f"scale:{factor} {part}"


def intervene(args: argparse.Namespace) -> int:
    question, own = _question(args)
    answered = Answered(args, "intervention.safetensors")
    from llmlab.inspection.answers import ask  # brings torch
    from llmlab.inspection.experiment_summary import summarise_intervention, summarise_sweep

    values = values_of(args, "source", "answer", "against", "position", "align") | {"reference": args.averaged} | own
    with answered.progress as progress:
        ask(args.reference, question, values, answered.path, outputs_of(args), progress)
    if question == "sweep":
        return answered.report(summarise_sweep, _sweep_lines)
    return answered.report(summarise_intervention, _intervention_lines)


def _question(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """What is asked, and the values that are its alone."""
    if args.edits and args.sweep:
        raise UsageError("Single interventions and a sweep are two questions.", "", "Ask one after the other.")
    if args.edits:
        return "intervene", {"edits": args.edits, "top": args.top}
    if not args.sweep:
        raise UsageError("There is nothing to change.", "", "Name a part (--zero head:3.2), or --sweep layer,position")
    own = {"over": args.sweep, "action": args.ablate or "patch"}
    return "sweep", own | ({"point": args.point} if args.point else {})


def _intervention_lines(summary: InterventionSummary) -> list[str]:
    aim = summary.aim
    return [
        f"{summary.model}: {listed(summary.tokens)}",
        f"Changed: {', '.join(summary.changes)}",
        f"{_aimed(aim)}: {aim.before:+.3f} -> {summary.after:+.3f}{_sourced(aim)}",
        f"Before: {likely(summary.next_before)}",
        f"After:  {likely(summary.next_after)}",
        f"KL(before || after) {summary.kl:.4f} nats there, {summary.kl_mean:.4f} in the mean over all tokens",
    ]


def _sweep_lines(summary: SweepSummary) -> list[str]:
    aim = summary.aim
    where = f" of {summary.point}" if summary.point else ""
    unit = "0 as in the prompt, 1 as in the source" if summary.effect == "normalised" else "in logits"
    lines = [
        f"{summary.model}: {listed(summary.tokens)}",
        f"{_aimed(aim)}: {aim.before:+.3f}{_sourced(aim)}",
        f"Strongest effects of {summary.action} over {summary.over}{where} ({unit}):",
    ]
    for cell in summary.strongest:
        place = f"token {cell.index} {text.printable(repr(cell.token))}" if cell.token else f"head {cell.index}"
        lines.append(f"  layer {cell.layer}, {place}: {cell.effect:+.3f} ({cell.logit_difference:+.3f})")
    return lines


def _aimed(aim: Aim) -> str:
    against = f" minus that of {text.printable(repr(aim.against))}" if aim.against else ""
    return f"Logit of {text.printable(repr(aim.answer))}{against} after token {aim.position}"


def _sourced(aim: Aim) -> str:
    return "" if aim.source is None else f" (source: {aim.source:+.3f})"
