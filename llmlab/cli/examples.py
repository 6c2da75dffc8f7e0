"""`data`: examples as a model will read them, before anything is trained on them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby

from llmlab.cli import text
from llmlab.cli.output import print_answer, terminal_progress
from llmlab.cli.words import Commands, add_assignments, add_outputs, outputs_of
from llmlab.core.config import parse_assignments, with_values
from llmlab.core.errors import UsageError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.data.example_preview import IN_LOSS, MASKED, TRUNCATED, Preview, PreviewExample

_ROWS = 16  # bars of the histogram
_BAR = 40  # letters of its longest bar
_BAD_SHOWN = 20
_COLORS = {IN_LOSS: "\033[1;32m", MASKED: "\033[2m", TRUNCATED: "\033[9;31m"}  # bold green, dim, struck out in red
_PLAIN = "\033[0m"
# Without colours: what stands around the tokens.
_MARKS = {IN_LOSS: ("[[", "]]"), MASKED: ("", ""), TRUNCATED: ("{{", "}}")}


def add_commands(commands: Commands) -> None:
    parser = commands.add("data", data, "show examples token by token: in the loss, masked, truncated")
    parser.add_argument("source", metavar="SOURCE", help="examples to fine-tune on; see below")
    parser.add_argument("--model", metavar="REF", required=True, help="the model that will read them; see below")
    parser.add_argument("--example", metavar="N", type=int, default=1, help="which one to show (default: 1)")
    parser.add_argument("--max-length", metavar="N", help="tokens of an example that are read: data.max_length")
    add_assignments(parser, "change a setting of the fine-tuning run; again for each")
    add_outputs(parser)


def data(args: argparse.Namespace) -> int:
    values = {} if args.max_length is None else {"data.max_length": args.max_length}
    values |= {"data.source": args.source} | parse_assignments(args.assignments)
    settings = with_values(FinetuneSettings(), values)
    from llmlab.training.finetuning.preview import Previewer  # brings torch

    with terminal_progress(not args.json) as progress:
        place = args.example - 1
        preview = Previewer(outputs_of(args)).preview(args.model, settings.data, settings.train.seed, place, progress)
    if preview.example is not None and preview.example.place != place:
        raise UsageError(
            f"There is no example {args.example:,}.", f"{preview.source} has {preview.examples:,} that can be shown."
        )
    colors = sys.stdout.isatty() and "NO_COLOR" not in os.environ  # no-color.org
    return print_answer(args, asdict(preview), _lines(preview, colors))


def _lines(preview: Preview, colors: bool) -> Iterator[str]:
    yield preview.origin if preview.origin.endswith(preview.source) else f"{preview.source}: {preview.origin}"
    yield f"template: {preview.template}"
    yield from _sizes(preview)
    if preview.trouble is not None:
        yield from ("", f"Nothing can be trained with this. {' '.join(part for part in preview.trouble if part)}")
    if preview.example is not None:
        yield ""
        yield from _example(preview, preview.example, colors)
    if preview.lengths:
        yield ""
        yield from _histogram(preview)
    if preview.bad_total:
        yield ""
        yield from _bad(preview)


def _sizes(preview: Preview) -> Iterator[str]:
    if preview.trouble is None:
        yield f"{text.counted(preview.train, 'example')} to train on, {preview.held_out:,} held out"
    if preview.tokens:
        share = 100 * preview.trained / preview.tokens
        yield (
            f"{text.counted(preview.tokens, 'token')}, of which {preview.trained:,} ({share:.0f} %) are in the loss; "
            f"{100 * preview.filling:.0f} % of each batch is padding"
        )
    parts = [f"{text.counted(preview.cut, 'example')} truncated"] * bool(preview.cut)
    later = f"{text.counted(preview.left_out, 'example')} left out, since nothing of the answer is within"
    parts += [later] * bool(preview.left_out)
    yield f"at most {preview.max_length:,} tokens are read: {', '.join(parts) or 'none is longer'}"


def _example(preview: Preview, example: PreviewExample, colors: bool) -> Iterator[str]:
    yield (
        f"example {example.place + 1:,} of {preview.examples:,} (line {example.number:,}, {example.part}), "
        f"{text.counted(example.length, 'token')}:"
    )
    marks = {state: (color, _PLAIN) for state, color in _COLORS.items()} if colors else _MARKS
    words = []
    for state, tokens in groupby(example.tokens, key=lambda token: token.state):
        before, after = marks[state]
        # Each line by itself: a terminal's pager forgets colours at line ends.
        run = "|".join(text.printable(token.text) for token in tokens)
        words.append("\n".join(f"{before}{line}{after}" if line else "" for line in run.split("\n")))
    yield "|".join(words)
    left = example.length - len(example.tokens)
    if left > 0:
        yield f"... and {text.counted(left, 'token')} more"
    before, after = marks[IN_LOSS]
    legend = f"{before}in the loss{after}, {marks[MASKED][0]}masked{marks[MASKED][1]}"
    if any(token.state == TRUNCATED for token in example.tokens):
        legend += f", {marks[TRUNCATED][0]}truncated{marks[TRUNCATED][1]}"
    yield f"({legend}; | stands between tokens)"


def _histogram(preview: Preview) -> Iterator[str]:
    yield f"tokens of an example: {preview.shortest:,} to {preview.longest:,}, half of them up to {preview.median:,}"
    first = next(place for place, count in enumerate(preview.lengths) if count)
    each = -(-(len(preview.lengths) - first) // _ROWS)  # bins in one bar
    bars = [
        (place * preview.bin_width, sum(preview.lengths[place : place + each]))
        for place in range(first, len(preview.lengths), each)
    ]
    most = max(count for _, count in bars)
    label = len(f"{preview.longest + each * preview.bin_width:,}")
    marked = False
    for begin, count in bars:
        end = begin + each * preview.bin_width - 1
        if begin > preview.max_length and not marked:
            marked = True
            yield f"{'':>{2 * label + 3}} --- {preview.max_length:,}: longer examples are truncated ---"
        bar = "█" * (round(_BAR * count / most) or (1 if count else 0))
        yield f"{begin:>{label},} - {end:>{label},} {bar} {count:,}".rstrip()


def _bad(preview: Preview) -> Iterator[str]:
    shown = preview.bad[:_BAD_SHOWN]
    yield f"{text.counted(preview.bad_total, 'unusable line')}:"
    yield from text.table(("line", "why"), [(f"{number:,}", why) for number, why in shown], right=(0,))
    if preview.bad_total > len(shown):
        yield f"... and {preview.bad_total - len(shown):,} more"
