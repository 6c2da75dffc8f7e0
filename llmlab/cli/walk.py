"""`walk`: one prompt forwards or one sequence backwards through a model, stage by stage and number by number."""

from __future__ import annotations

import argparse
import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llmlab.cli import text
from llmlab.cli.output import print_answer, say, terminal_progress
from llmlab.cli.question import add_prompt, listed
from llmlab.cli.words import Commands, add_model, outputs_of
from llmlab.core.errors import UsageError, unknown
from llmlab.core.progress import Progress
from llmlab.models.live import still
from llmlab.models.reference import Reference, parse

if TYPE_CHECKING:
    from llmlab.models.model import OpenModel
    from llmlab.walk.forwards import Walk
    from llmlab.walk.stage import Array, Stage, Value

_BLOCKS = "▁▂▃▄▅▆▇█"
_STRIP = 48  # signs of a vector's picture
_WIDTH = 118


def add_commands(commands: Commands) -> None:
    parser = commands.add("walk", walk, "walk one prompt through a model, stage by stage")
    add_model(parser)
    add_prompt(parser, required=False)
    parser.add_argument("--layer", type=int, default=0, metavar="N", help="from 0 (default: 0)")
    parser.add_argument("--head", type=int, default=0, metavar="N", help="from 0 (default: 0)")
    parser.add_argument("--position", type=int, default=-1, metavar="N", help="from 0, negative from the end (-1)")
    parser.add_argument(
        "--key", type=int, metavar="N", help="the position whose score is written out (default: the most attended to)"
    )
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="of the draw (default: 1)")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="of the draw; 0 means all (default: 0)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="of the draw; 1 means all (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw (default: 0)")
    parser.add_argument(
        "--append", type=int, default=0, metavar="N", help="append N drawn tokens first, then walk behind them"
    )
    parser.add_argument("--cache", action="store_true", help="walk the last token with a KV cache, too")
    parser.add_argument(
        "--change", action="append", default=[], dest="changes", metavar="CHANGE", help="see below; again for each"
    )
    parser.add_argument(
        "--stage",
        action="append",
        default=[],
        dest="stages",
        metavar="NAME",
        help="this one alone, with all its numbers",
    )
    parser.add_argument("--backwards", action="store_true", help="walk back from the loss of the prompt as a sequence")
    parser.add_argument(
        "--weight",
        default="",
        metavar="NAME[I,J]",
        help="with --backwards: which (default: the largest gradient of up)",
    )
    said = "with --backwards: training sequence N of the run's next steps, from 0"
    parser.add_argument("--sequence", "--window", type=int, default=-1, metavar="N", help=said)
    parser.add_argument("--next", default="", metavar="TEXT", help="with --backwards: another sequence, measured too")


def walk(args: argparse.Namespace) -> int:
    named = parse(args.reference, outputs_of(args))
    _check_direction(args)
    reference = still(named)
    if reference != named:
        say(f"{named} trains: this is {reference}, its newest checkpoint.")
    from llmlab.models.source import open_model  # brings torch

    with terminal_progress(not args.json) as progress:
        opened = open_model(reference, outputs_of(args), progress)
        if args.backwards:
            stages, ids = _backwards(args, opened, reference, progress)
        else:
            stages, ids = _forwards(args, opened)
    shown = _chosen(stages, args.stages)
    tokens = [opened.tokenizer.token_text(id) for id in ids]
    value: dict[str, Any] = {
        "model": opened.reference,
        "token_ids": ids,
        "tokens": tokens,
        **{name: getattr(args, name) for name in ("layer", "head", "position")},
        "stages": [stage.as_dict() for stage in shown],
    }
    whole = bool(args.stages)
    lines = (line for number, stage in enumerate(stages, 1) if stage in shown for line in _lines(number, stage, whole))
    head = f"{opened.reference}, layer {args.layer}, head {args.head}; {listed(tokens)}"
    return print_answer(args, value, (head, *lines))


def _check_direction(args: argparse.Namespace) -> None:
    """UsageError for words of the other direction."""
    if args.backwards and (args.append or args.cache or args.changes):
        raise UsageError("--backwards cannot be combined with --append, --cache or --change.")
    if not args.backwards and (args.weight or args.next or args.sequence >= 0):
        raise UsageError("--weight, --sequence and --next only apply to a walk backwards.", "", "Add --backwards.")
    if (args.sequence < 0) != bool(args.prompt):
        raise UsageError("A walk takes a --prompt, or backwards a --sequence.", "", "Name one of them.")


def _forwards(args: argparse.Namespace, opened: OpenModel) -> tuple[list[Stage], list[int]]:
    from llmlab.walk.forwards import Walk
    from llmlab.walk.forwards import walk as walk_through

    names = ("layer", "head", "position", "key", "temperature", "top_k", "top_p", "seed", "beginning", "cache")
    asked = Walk(text=args.prompt, changes=tuple(args.changes), **{name: getattr(args, name) for name in names})
    asked = _appended(opened, asked, args.append)
    return walk_through(opened, asked), asked.token_ids(opened)


def _backwards(
    args: argparse.Namespace, opened: OpenModel, reference: Reference, progress: Progress
) -> tuple[list[Stage], list[int]]:
    from llmlab.walk.adamw import training_of
    from llmlab.walk.backwards import WalkBack, of_corpus, walk_back

    names = ("layer", "head", "position", "weight", "sequence", "next", "beginning")
    trained = training_of(reference, progress)
    asked = of_corpus(WalkBack(text=args.prompt, **{name: getattr(args, name) for name in names}), trained)
    return walk_back(opened, asked, trained), asked.token_ids(opened)


def _appended(opened: OpenModel, asked: Walk, count: int) -> Walk:
    """The same question behind `count` more tokens, each drawn by a walk of the last position."""
    from llmlab.walk.forwards import next_token

    if count < 0 or (count and asked.position != -1):
        why = "It takes 0 or more tokens, and no other --position than the last."
        raise UsageError("--append continues the prompt at its end.", why)
    for _ in range(count):
        ids = asked.token_ids(opened)
        asked = dataclasses.replace(
            asked,
            ids=(*ids, next_token(opened, dataclasses.replace(asked, cache=False))),
            beginning=False,
            drawn=asked.drawn + 1,
        )
    return asked


def _chosen(stages: Sequence[Stage], names: Sequence[str]) -> list[Stage]:
    known = [stage.name for stage in stages]
    for name in names:
        if name not in known:
            raise unknown("stage", name, known)
    return [stage for stage in stages if not names or stage.name in names]


def _lines(number: int, stage: Stage, whole: bool) -> Iterator[str]:
    shape = f"   {stage.values[0].name} {stage.values[0].shape_words}" if stage.values else ""
    yield ""
    yield f"{number:>2}  {stage.title}  ({stage.name}){shape}"
    was = f"before: {stage.was}" if stage.was else ""
    for words in (stage.formula, stage.numbers, was, stage.note, stage.reused):
        yield from _wrapped(text.printable(words))
    if stage.difference is not None:
        yield f"    recomputed: {stage.difference:.1g} from the model's numbers at most"
    for value in stage.values:
        yield from _value_lines(value, whole)
    if stage.code is not None:
        yield f"    {stage.code.file}:{stage.code.line}  {stage.code.text.splitlines()[0]}"
    yield from _wrapped(stage.why)


def _wrapped(words: str) -> list[str]:
    return textwrap.wrap(words, _WIDTH, initial_indent="    ", subsequent_indent="    ", break_long_words=False)


def _value_lines(value: Value, whole: bool) -> Iterator[str]:
    changed = f"  changed: {value.changed:,} of {value.array.size:,} numbers" if value.was is not None else ""
    picture = _strip(value.array) if value.array.ndim == 1 and value.array.size > 1 else ""
    yield f"    {text.printable(value.name)} {value.shape_words} {picture}{changed}".rstrip()
    if value.labels and value.array.ndim == 1 and (whole or value.array.size <= 12):
        pairs = zip(value.labels, value.array.tolist(), strict=True)
        yield from _wrapped(", ".join(f"{text.printable(label)} {_short(one)}" for label, one in pairs))
    elif whole:
        rows = value.array if value.array.ndim == 2 else value.array[None]
        for row in rows:
            yield from _wrapped(" ".join(f"{one:.6g}" for one in row.tolist()))


def _short(number: float) -> str:
    """Four digits; an id is whole."""
    return f"{number:.0f}" if float(number).is_integer() else f"{number:.4g}"


def _strip(x: Array) -> str:
    """A vector as a row of blocks; of a long one, its beginning."""
    import numpy as np

    shown = x[:_STRIP]
    finite = shown[np.isfinite(shown)]
    if not finite.size:
        return ""
    low, high = float(finite.min()), float(finite.max())
    span = (high - low) or 1.0
    signs = (
        _BLOCKS[round((one - low) / span * (len(_BLOCKS) - 1))] if np.isfinite(one) else " " for one in shown.tolist()
    )
    return "".join(signs) + ("…" if x.size > _STRIP else "")
