"""`inspect` and `evolve`: looks inside a model, or all checkpoints of a run, while it reads a prompt."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmlab.cli import text
from llmlab.cli.question import Answered, add_out, add_prompt, add_target, add_what, likely, listed, values_of
from llmlab.cli.words import Commands, Parser, add_model, add_run, outputs_of

if TYPE_CHECKING:
    from llmlab.inspection.experiment_summary import EvolutionSummary
    from llmlab.inspection.summary import InspectionSummary

# Without --what: all that is small. Patterns and the whole stream take megabytes and are asked for by name.
_DEFAULT_WHAT = "heads,contributions,attribution,lens"
_ASKED = ("what", "position", "answer", "against", "top")

# What the scores of `llmlab.inspection.heads` are called.
_SCORES = {
    "previous": "previous-token",
    "first": "first-token",
    "induction": "induction",
    "duplicate": "duplicate-token",
}


def add_commands(commands: Commands) -> None:
    parser = commands.add("inspect", inspect, "look inside a model while it reads a prompt")
    add_model(parser)
    _add_question(parser, _DEFAULT_WHAT, "model")
    parser = commands.add("evolve", evolve, "ask all checkpoints of a run the same question")
    add_run(parser)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th checkpoint (default: 1)")
    _add_question(parser, "heads,lens", "last checkpoint")


def _add_question(parser: Parser, what: str, most_likely: str) -> None:
    add_prompt(parser)
    add_what(parser, what)
    add_target(parser, most_likely)
    add_out(parser, "tokens that the lens keeps")


def inspect(args: argparse.Namespace) -> int:
    answered = Answered(args, "inspection.safetensors")
    from llmlab.inspection.answers import ask  # brings torch
    from llmlab.inspection.summary import summarise

    with answered.progress as progress:
        ask(args.reference, "inspect", values_of(args, *_ASKED), answered.path, outputs_of(args), progress)
    return answered.report(summarise, _lines)


def evolve(args: argparse.Namespace) -> int:
    answered = Answered(args, "evolution.safetensors")
    from llmlab.inspection.evolve import evolve as evolve_run  # brings torch
    from llmlab.inspection.experiment_summary import summarise_evolution

    with answered.progress as progress:
        evolve_run(args.run, outputs_of(args), values_of(args, *_ASKED, "every"), answered.path, progress)
    return answered.report(summarise_evolution, _evolution_lines)


def _lines(summary: InspectionSummary) -> list[str]:
    lines = [
        f"{_asked(summary)}: {summary.family}, {summary.n_layer} layers",
        listed(summary.tokens),
        f"Next: {likely(summary.next)}",
    ]
    if summary.settled is not None:
        lines.append(f"The most likely next token is settled from {_row_name(summary.settled, summary.n_layer)} on.")
    if summary.attends:
        weights = ", ".join(
            f"{one.layer}.{one.head} {one.weight:.2f} to {_token(summary, one.key)}" for one in summary.attends
        )
        lines.append(f"Attention of {_token(summary, summary.position)}, the first token aside, layer.head: {weights}")
    for score, heads in summary.heads.items():
        if heads:  # a prompt of one token leaves a head no choice, so there is no score
            scores = ", ".join(f"{h.layer}.{h.head} {h.score:.2f}" for h in heads)
            lines.append(f"Strongest {_SCORES[score]} heads, as layer.head: {scores}")
    if summary.attribution:
        *largest, whole = summary.attribution
        bars = ", ".join(f"{bar.name.replace('_', '-')} {bar.value:+.2f}" for bar in largest)
        of = text.printable(repr(summary.answer))
        if summary.against:
            of += f" minus that of {text.printable(repr(summary.against))}"
        lines.append(f"Logit of {of}: {whole.value:+.2f}, the sum of all parts; largest: {bars}")
    return lines


def _asked(summary: InspectionSummary) -> str:
    """The model's reference; that of a run which trains does not say at which step it answered."""
    moving = summary.model.endswith("@live") and summary.step is not None
    return f"{summary.model}, step {summary.step:,}" if moving else summary.model


def _token(summary: InspectionSummary, position: int) -> str:
    """A token of the prompt with its position, since the same one may come twice."""
    return f"{text.printable(repr(summary.tokens[position]))} ({position})"


def _row_name(row: int, n_layer: int) -> str:
    """A row of the lens: the stream before or between the halves of a block, or the last one."""
    if row == 2 * n_layer:
        return "the end of the last layer"
    return f"{'before' if row % 2 == 0 else 'after'} the attention of layer {row // 2}"


def _evolution_lines(summary: EvolutionSummary) -> Iterator[str]:
    yield f"{summary.model}: {text.counted(len(summary.steps), 'checkpoint')}; {listed(summary.tokens)}"
    columns = {"step": [str(step) for step in summary.steps]}
    columns["validation"] = [text.loss(loss) for loss in summary.val_loss]
    for score, heads in summary.heads.items():
        columns[f"{score} (head)"] = [f"{one.score:.2f} ({one.layer}.{one.head})" if one else "-" for one in heads]
    for name, values in (("p(prompt)", summary.target_probability), ("logit", summary.attribution)):
        if values:
            columns[name] = [f"{value:.3f}" for value in values]
    yield from text.table([*columns], [*zip(*columns.values(), strict=True)], right=range(len(columns)))
