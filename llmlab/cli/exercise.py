"""`exercise`: the pieces of a GPT, written by the learner, checked, and trained with."""

from __future__ import annotations

import argparse
import re
import signal
from collections.abc import Iterator
from typing import NoReturn

from llmlab.cli import text
from llmlab.cli.output import DONE, FAILED, answer
from llmlab.cli.words import Commands, action_of, add_outputs, add_settings, outputs_of
from llmlab.core.errors import LabError, UsageError
from llmlab.core.presets import DEFAULT_PRESET
from llmlab.core.source_code import find_source
from llmlab.exercises.checker import PASSED, Answer, check
from llmlab.exercises.pieces import Piece, Workbook, all_pieces, find_piece

_MARKS = {"new": "", "begun": "begun", "passed": "passed", "changed": "changed since it passed"}


def add_commands(commands: Commands) -> None:
    parser = commands.add("exercise", exercise, "rebuild a GPT piece by piece, and have it checked")
    parser.add_argument("action", metavar="ACTION", nargs="?", default="list", help=", ".join(_ACTIONS))
    parser.add_argument("names", metavar="PIECE", nargs="*", help="a piece; use: several")
    parser.add_argument("--hints", metavar="N", type=int, default=0, help="show: the first N of up to three hints")
    parser.add_argument("--preset", metavar="NAME", help=f"use: where to start from (default: {DEFAULT_PRESET})")
    parser.add_argument("--name", help="use: the run's id")
    parser.add_argument("--model", metavar="REF", help="use lora, logit-lens: a run or a model")
    parser.add_argument("--prompt", metavar="TEXT", help="use lora, logit-lens: what it reads")
    add_settings(parser)
    add_outputs(parser)


def exercise(args: argparse.Namespace) -> int:
    return action_of(args, _ACTIONS)(args, Workbook(outputs_of(args)))


def _one(args: argparse.Namespace) -> Piece:
    if len(args.names) != 1:
        raise UsageError(f"exercise {args.action} takes the name of one piece.", "", "`llmlab-run exercise list`")
    return find_piece(args.names[0])


def _list(args: argparse.Namespace, workbook: Workbook) -> int:
    rows = [(piece, workbook.state(piece)) for piece in all_pieces()]
    values = [
        {"name": piece.name, "title": piece.title, "state": state, "file": str(workbook.file(piece))}
        for piece, state in rows
    ]
    table = text.table(("piece", "", "state"), [(piece.name, piece.title, _MARKS[state]) for piece, state in rows])
    return answer(args, values, table)


def _start(args: argparse.Namespace, workbook: Workbook) -> int:
    piece = _one(args)
    begun = workbook.start(piece)
    path = workbook.file(piece)
    line = f"Wrote {path}." if begun else f"{piece.name} is started already: your file is {path}."
    lines = [line, f"Write in it, then: llmlab-run exercise check {piece.name}"]
    return answer(args, {"name": piece.name, "file": str(path), "begun": begun}, lines)


def _check(args: argparse.Namespace, workbook: Workbook) -> int:
    piece = _one(args)
    before = signal.signal(signal.SIGTERM, _ended)
    try:
        found = check(piece, workbook)
    finally:
        signal.signal(signal.SIGTERM, before)
    answer(args, found.as_json(), _lines(piece, found))
    return DONE if found.passed else FAILED


def _ended(number: int, frame: object) -> NoReturn:
    """The window ends a check that has no use any more: what the learner's code has started ends with it."""
    raise SystemExit(128 + number)


def _lines(piece: Piece, found: Answer) -> Iterator[str]:
    signs = {PASSED: "ok", "failed": "NO", "waits": "  "}
    for step in found.steps:
        yield f"{signs[step.state]}  {step.title}"
        if step.fact:
            yield f"    {step.fact}"
    if found.mistake:
        yield f"    A known mistake has this result: {found.mistake}. {found.why}"
    if found.printed.strip():
        yield "It printed:"
        yield from (f"    {line}" for line in found.printed.rstrip().splitlines())
    if found.passed:
        yield f"{piece.name} passes. Ours beside yours: llmlab-run exercise show {piece.name}"
    elif not found.mistake:
        yield f"A hint: llmlab-run exercise show {piece.name} --hints 1"


def _show(args: argparse.Namespace, workbook: Workbook) -> int:
    piece = _one(args)
    state = workbook.state(piece)
    hints = piece.hints[: max(0, args.hints)]
    ours = piece.ours if state == "passed" else ""
    values = {
        "name": piece.name,
        "title": piece.title,
        "state": state,
        "file": str(workbook.file(piece)),
        "page": piece.page,
        "hints": hints,
        "ours": ours,
    }
    lines = [piece.page.rstrip(), *(f"\nHint {number}: {hint}" for number, hint in enumerate(hints, 1))]
    if ours:
        lines += ["\n# Yours\n", workbook.require(piece).read_text(encoding="utf-8", errors="replace").rstrip()]
        lines += ["\n# Ours\n", *_with_code(ours)]
    return answer(args, values, lines)


def _with_code(page: str) -> Iterator[str]:
    for line in page.rstrip().splitlines():
        reference = re.fullmatch(r"@code (\S+)", line)
        if reference is None:
            yield line
            continue
        try:
            source = find_source(reference[1])
        except LabError as error:
            yield str(error)
            continue
        yield f"{source.path}, lines {source.first_line} to {source.last_line}:\n\n{source.code}"


def _use(args: argparse.Namespace, workbook: Workbook) -> int:
    from llmlab.cli.exercise_use import use  # with numpy, which help needs not

    return use(args)


_ACTIONS = {"list": _list, "start": _start, "check": _check, "show": _show, "use": _use}
