"""`practice`: questions computed from a model or a run, marked, and asked again when they are due."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

from llmlab.cli import text
from llmlab.cli.output import DONE, print_answer, print_json, say, terminal_progress
from llmlab.cli.words import Commands, add_outputs, outputs_of
from llmlab.core.errors import UsageError
from llmlab.practice.deck import HANDFUL, Deck, Record, Tally, when_words
from llmlab.practice.question import CHOICE, INTERVAL, Marked, Question, interval_words, mark


def add_commands(commands: Commands) -> None:
    parser = commands.add("practice", practice, "be asked about your own model and run")
    parser.add_argument("model", metavar="REF", nargs="?", default="", help="a model or run (default: the newest run)")
    parser.add_argument("--kind", default="", help="only questions of this kind (see --list)")
    parser.add_argument("--concept", default="", help="only questions that belong to this page of Learn")
    parser.add_argument("--count", type=int, default=HANDFUL, help=f"how many (default: {HANDFUL})")
    parser.add_argument("--seed", type=int, default=None, help="equal seeds give equal questions (default: the day)")
    parser.add_argument("--list", action="store_true", help="list the kinds of question")
    parser.add_argument("--progress", action="store_true", help="what was answered so far, and what is due")
    add_outputs(parser)


def practice(args: argparse.Namespace) -> int:
    deck = Deck(outputs_of(args))
    if args.list:
        return _list(args)
    if args.progress:
        return _progress(args, deck.read())
    if args.count < 1:
        raise UsageError(f"--count cannot be {args.count}.", "It begins at 1.")
    from llmlab.practice.kinds import handful
    from llmlab.practice.subject import subject_of

    now = time.time()
    seed = int(now // 86400) if args.seed is None else args.seed
    with terminal_progress() as progress:
        subject = subject_of(args.model, outputs_of(args), progress)
        asked = handful(subject, deck.read(), args.count, seed, now, concept=args.concept, kind=args.kind)
        if args.json:
            print_json([question.as_dict() for question in asked])
            return DONE
        first = next(asked, None)
    if first is None:
        why = "Its kinds need a model or a run that this is not." if args.concept or args.kind else ""
        raise UsageError("There is nothing to ask.", why, "Train a run first: llmlab-run pretrain")
    _ask_all(deck, first, asked)
    return DONE


def _ask_all(deck: Deck, first: Question, rest: Iterator[Question]) -> None:
    """Asks until there are no more, or the input ends."""
    question: Question | None = first
    right = count = 0
    while question is not None:
        print("\n".join(_lines_of(question)))
        given = _read(question)
        if given is None:
            break
        marked = mark(question, given) if given else Marked(False, "")
        deck.add(question, marked)
        right, count = right + marked.right, count + 1
        print("Right. " if marked.right else "Too wide. " if marked.held else "Not right. " if given else "", end="")
        print(f"The answer: {question.answer.removesuffix('.')}.")
        if question.form == INTERVAL and (widths := interval_words(question, marked)):
            print(widths)
        print(f"{question.how}\n(Page: {question.concept}; panel: {question.panel}.)\n")
        with terminal_progress() as progress:
            progress("Making the next question", 0, 0)
            question = next(rest, None)
    record = deck.read()
    now = time.time()
    due = [when for when in record.due.values() if when > now]
    again = f" The next one comes back {when_words(min(due), now)}." if due else ""
    say(f"{right} of {count} right.{again}")


def _lines_of(question: Question) -> Iterator[str]:
    yield f"[{question.way}] {question.text}"
    if question.form == CHOICE:
        yield from (f"  {number}. {text.printable(one)}" for number, one in enumerate(question.choices, 1))


def _read(question: Question) -> str | None:
    """An answer that can be marked, "" for none, None when the input ends."""
    while True:
        print(f"Your answer ({question.expects}): ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            print()
            return None
        given = line.strip()
        try:
            if given:
                mark(question, given)
        except UsageError as error:
            say(f"{error}")
            continue
        return given


def _list(args: argparse.Namespace) -> int:
    from llmlab.practice.kinds import all_kinds

    kinds = all_kinds().values()
    rows = [(kind.name, kind.way, kind.concept, kind.panel, kind.needs) for kind in kinds]
    header = ("kind", "way", "page", "panel", "needs")
    plain = [dict(zip(header, row, strict=True)) for row in rows]
    return print_answer(args, plain, text.table(header, rows))


def _progress(args: argparse.Namespace, record: Record) -> int:
    now = time.time()
    due = sum(when <= now for when in record.due.values())
    concepts, ways, calibrated = record.by_concept(), record.by_way(), record.calibration()
    widths = record.widths()
    plain = {
        "answered": len(record.answers),
        "due": due,
        "concepts": {name: vars(tally) for name, tally in concepts.items()},
        "ways": {name: vars(tally) for name, tally in ways.items()},
        "intervals": {
            "count": calibrated.count,
            "right": calibrated.right,
            "verdict": calibrated.verdict,
            "too_wide": widths.wide,
            "scores": widths.over_time,
        },
    }
    header = ("", "answered", "right", "kinds", "right last time")
    lines = [
        *text.table(header, _rows(ways)),
        "",
        *text.table(header, _rows(concepts)),
        "",
        f"{text.counted(due, 'kind')} due. Intervals at 80 %: {calibrated.verdict} {widths.verdict}",
    ]
    return print_answer(args, plain, lines if record.answers else ["Nothing was answered yet: llmlab-run practice"])


def _rows(tallies: dict[str, Tally]) -> list[tuple[str, ...]]:
    return [(name, f"{t.answered}", f"{t.right}", f"{t.kinds}", f"{t.now_right}") for name, t in tallies.items()]
