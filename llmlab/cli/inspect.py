"""`inspect`: looks inside a model while it reads a prompt."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.cli import text
from llmlab.cli.output import DONE, print_json
from llmlab.cli.task import terminal_progress
from llmlab.cli.words import Commands, Parser, add_outputs, outputs_of
from llmlab.errors import LabError, UsageError
from llmlab.files import write_json
from llmlab.paths import expanded

if TYPE_CHECKING:
    from llmlab.inspection.summary import Summary

# Without --what: all that is small. Patterns and the whole stream take megabytes and are asked for by name.
_DEFAULT_WHAT = "heads,contributions,attribution,lens"

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
    parser.add_argument(
        "--position", type=int, default=-1, help="the token whose prediction is explained (default: -1)"
    )
    parser.add_argument("--answer", default="", help="the token looked for (default: the model's likeliest)")
    parser.add_argument("--against", default="", help="another one: the difference of the two logits is explained")
    parser.add_argument("--top", type=int, default=5, help="tokens that the lens keeps at each place (default: 5)")
    parser.add_argument("--plots", action="store_true", help="figures too, as PNG and SVG")
    add_out(parser)


def add_model(parser: Parser) -> None:
    """REF and --outputs."""
    parser.add_argument("reference", metavar="REF", help="a run or a model; see below")
    add_outputs(parser)


def add_prompt(parser: Parser) -> None:
    """--prompt and --beginning."""
    parser.add_argument("--prompt", required=True, help="the text that the model reads")
    parser.add_argument("--beginning", action="store_true", help="put the beginning-of-text token before it")


def add_out(parser: Parser) -> None:
    """--out."""
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the results")


def out_of(args: argparse.Namespace) -> Path:
    """The folder of --out, made if need be. UsageError when it is a file."""
    out = expanded(args.out).resolve()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out} cannot be a folder for the results.", f"{error.strerror}.") from error
    return out


def inspect(args: argparse.Namespace) -> int:
    """Opens the model, asks, writes the archive and says what was found."""
    from llmlab.inspection.archive import read_archive
    from llmlab.inspection.ask import ask  # brings torch
    from llmlab.inspection.summary import summarise

    out = out_of(args)
    values: dict[str, Any] = {
        "text": args.prompt,
        "beginning": args.beginning,
        "what": [part.strip() for part in args.what.split(",") if part.strip()],
        "position": args.position,
        "answer": args.answer,
        "against": args.against,
        "top": args.top,
    }
    begin = time.perf_counter()
    with terminal_progress(not args.json) as progress:
        path = ask(args.reference, "inspect", values, out / "inspection.safetensors", outputs_of(args), progress)
    archive = read_archive(path)
    summary = summarise(archive)
    figures: list[Path] = []
    if args.plots:
        from llmlab.inspection.plots import plot_inspection

        figures = plot_inspection(archive, out)
    seconds = time.perf_counter() - begin
    try:
        write_json(out / "summary.json", summary.as_dict() | {"seconds": seconds, "figures": [f.name for f in figures]})
    except OSError as error:
        raise LabError(f"{out / 'summary.json'} could not be written.", f"{error.strerror or error}.") from error
    if args.json:
        print_json(summary.as_dict() | {"archive": str(path), "seconds": seconds})
    else:
        _print(summary, path, figures, seconds)
    return DONE


def _print(summary: Summary, path: Path, figures: list[Path], seconds: float) -> None:
    print(f"{summary.model}: {summary.family}, {summary.n_layer} layers")
    print(f"{len(summary.tokens)} tokens: {text.printable(' | '.join(summary.tokens))}")
    likely = ", ".join(f"{text.printable(repr(c.token))} {c.probability:.1%}" for c in summary.next)
    print(f"Next: {likely}")
    if summary.settled is not None:
        print(f"The likeliest next token is settled from {_row_name(summary.settled, summary.n_layer)} on.")
    for score, heads in summary.heads.items():
        listed = ", ".join(f"{h.layer}.{h.head} {h.score:.2f}" for h in heads)
        print(f"Strongest {score} heads (layer.head): {listed}")
    if summary.attribution:
        print("Logit by part: " + ", ".join(f"{bar.name} {bar.value:+.2f}" for bar in summary.attribution))
    for note in summary.notes:
        print(f"Note: {note}")
    print(f"{path} ({text.size(summary.bytes)}), {seconds:.1f} s" + (f", {len(figures)} figures" if figures else ""))


def _row_name(row: int, n_layer: int) -> str:
    """A row of the lens: the stream before or between the halves of a block, or the last one."""
    if row == 2 * n_layer:
        return "the last layer"
    return f"{'before' if row % 2 == 0 else 'after'} the attention of layer {row // 2}"
