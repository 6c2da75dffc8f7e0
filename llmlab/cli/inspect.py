"""`inspect`: looks inside a model while it reads a prompt."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from llmlab.cli import text
from llmlab.cli.question import Answered, add_model, add_out, add_prompt, add_target, likely, listed, parts_of
from llmlab.cli.words import Commands, outputs_of

if TYPE_CHECKING:
    from llmlab.inspection.summary import InspectionSummary

# Without --what: all that is small. Patterns and the whole stream take megabytes and are asked for by name.
_DEFAULT_WHAT = "heads,contributions,attribution,lens"

# What the scores of `llmlab.inspection.heads` are called.
_SCORES = {
    "previous": "previous-token",
    "first": "first-token",
    "induction": "induction",
    "duplicate": "duplicate-token",
}

_DETAILS = """REF is a run (bar, bar@final, bar@best, bar@150, bar@live while it trains, or its folder), a Hugging
Face folder or hub name, a GGUF file, or BASE+ADAPTER; `llmlab-run models` lists what is here.

--what, separated by commas:
  attention      the patterns of all heads [head, query, key], one tensor a layer
  heads          entropy, previous-token, first-token, induction and duplicate-token scores, distance, thumbnails
  residual       the residual stream before, between and after the two halves of each block, and what each adds
  contributions  norms, cosines, shares
  attribution    how much each part speaks for --answer (minus --against), summing to its logit
  lens           what each layer would predict
  rollout        attention rollout

It writes DIR/inspection.safetensors and DIR/summary.json.

examples:
  llmlab-run inspect bar --prompt "The king said to the queen" --what attention,heads --out seen
  llmlab-run inspect bar@best --prompt "To be, or not to" --answer " be" --what attribution,lens --out seen --plots
  llmlab-run inspect my-model/ --prompt "The capital of France is" --answer " Paris" --against " Rome" --out seen"""


def add_commands(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add("inspect", inspect, "look inside a model while it reads a prompt", _DETAILS)
    add_model(parser)
    add_prompt(parser)
    parser.add_argument("--what", default=_DEFAULT_WHAT, help=f"parts, separated by commas (default: {_DEFAULT_WHAT})")
    add_target(parser, "model")
    parser.add_argument("--top", type=int, default=5, help="tokens that the lens keeps at each position (default: 5)")
    add_out(parser)


def inspect(args: argparse.Namespace) -> int:
    """Opens the model, asks, writes the archive and says what was found."""
    answered = Answered(args, "inspection.safetensors")
    from llmlab.inspection.answers import ask  # brings torch
    from llmlab.inspection.summary import summarise

    values: dict[str, Any] = {
        "text": args.prompt,
        "beginning": args.beginning,
        "what": parts_of(args.what),
        "position": args.position,
        "answer": args.answer,
        "against": args.against,
        "top": args.top,
    }
    with answered.progress() as progress:
        ask(args.reference, "inspect", values, answered.path, outputs_of(args), progress)
    return answered.report(summarise, _lines)


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
