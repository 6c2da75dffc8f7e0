"""`exercise`: the pieces of a GPT, written by the learner, checked, and trained with."""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from llmlab.cli import text
from llmlab.cli import words as options
from llmlab.cli.follow import train
from llmlab.cli.output import DONE, FAILED, print_answer, say, terminal_progress
from llmlab.cli.progress import make_report
from llmlab.core.config import with_overrides
from llmlab.core.errors import LabError, UsageError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.presets import DEFAULT_PRESET, default_preset, of_preset
from llmlab.core.progress import Progress
from llmlab.core.settings import PretrainSettings
from llmlab.core.signs import minus
from llmlab.core.source_code import find_source
from llmlab.exercises.checker import PASSED, Answer, check
from llmlab.exercises.pieces import Piece, Workbook, all_pieces, find_piece
from llmlab.exercises.rebuilding import LENS, LORA, ON_A_MODEL, require_passed
from llmlab.models.reference import Reference, parse
from llmlab.store.run_folder import RunFolder

if TYPE_CHECKING:
    from llmlab.exercises.functions import Functions
    from llmlab.jobs.rebuilt import Beside
    from llmlab.models.model import OpenModel

_MARKS = {"new": "", "begun": "begun", "passed": "passed", "changed": "changed since it passed"}


def add_commands(commands: options.Commands) -> None:
    parser = commands.add("exercise", exercise, "rebuild a GPT piece by piece, and have it checked")
    parser.add_argument("action", metavar="ACTION", nargs="?", default="list", help=", ".join(_ACTIONS))
    parser.add_argument("names", metavar="PIECE", nargs="*", help="a piece; use: several")
    parser.add_argument("--hints", metavar="N", type=int, default=0, help="show: the first N of up to three hints")
    parser.add_argument("--preset", metavar="NAME", help=f"use: where to start from (default: {DEFAULT_PRESET})")
    parser.add_argument("--name", help="use: the run's id")
    parser.add_argument("--model", metavar="REF", help="use lora, logit-lens: a run or a model")
    parser.add_argument("--prompt", metavar="TEXT", help="use lora, logit-lens: what it reads")
    options.add_settings(parser)
    options.add_outputs(parser)


def exercise(args: argparse.Namespace) -> int:
    return options.action_of(args, _ACTIONS)(args, Workbook(options.outputs_of(args)))


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
    return print_answer(args, values, table)


def _start(args: argparse.Namespace, workbook: Workbook) -> int:
    piece = _one(args)
    begun = workbook.start(piece)
    path = workbook.file(piece)
    line = f"Wrote {path}." if begun else f"{piece.name} is started already: your file is {path}."
    lines = [line, f"Write in it, then: llmlab-run exercise check {piece.name}"]
    return print_answer(args, {"name": piece.name, "file": str(path), "begun": begun}, lines)


def _check(args: argparse.Namespace, workbook: Workbook) -> int:
    piece = _one(args)
    before = signal.signal(signal.SIGTERM, _ended)
    try:
        found = check(piece, workbook)
    finally:
        signal.signal(signal.SIGTERM, before)
    print_answer(args, found.as_json(), _lines(piece, found))
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
    return print_answer(args, values, lines)


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


# Used ---------------------------------------------------------------------------------------------------------------


def _use(args: argparse.Namespace, workbook: Workbook) -> int:
    """Trains with the pieces named, or with all that have passed; then the lab's own run, unless it is there."""
    alone = args.names[0] if len(args.names) == 1 and args.names[0] in ON_A_MODEL else ""
    if alone == LENS or (alone == LORA and args.prompt):
        return _on_a_model(args, workbook, alone)
    if not alone and (args.model or args.prompt):
        words = " or ".join(ON_A_MODEL)
        raise UsageError(f"--model and --prompt belong to {words}, used alone.", "", "Leave them out.")
    from llmlab.jobs.rebuilt import beside, make_ours, make_yours, twin_of  # with numpy, which help needs not
    from llmlab.store.history import read_history

    kind: type[PretrainSettings] | type[FinetuneSettings] = FinetuneSettings if alone else PretrainSettings
    preset = args.preset or default_preset(kind)
    assignments = options.finetuning_assignments_of(args) if alone else options.assignments_of(args)
    settings = with_overrides(of_preset(kind, preset), None, assignments)
    yours = make_yours(options.outputs_of(args), args.names, settings, name=args.name, preset=preset)
    say(f"Training with your {yours.info().settings.words.facts['yours']}. Copies are in {yours.pieces}.")
    code = train(yours, make_report(yours, args.json))
    if code != DONE:
        return code
    ours = twin_of(yours)
    if ours is None:
        say("Now the lab's own run of the same seed.")
        ours = make_ours(yours)
        code = train(ours, make_report(ours, args.json))
        if code != DONE:
            return code
    found = beside(read_history(yours), read_history(ours))
    return print_answer(args, {"yours": yours.id, "ours": ours.id, **vars(found)}, _lines_of_both(yours, ours, found))


def _on_a_model(args: argparse.Namespace, workbook: Workbook, name: str) -> int:
    """The learner's lens or adapters, in this process, which runs their code."""
    if not (args.model and args.prompt):
        do = f'llmlab-run exercise use {name} --model RUN --prompt "The king"'
        raise UsageError(f"{name} is used on a model and a prompt.", "", do)
    require_passed(workbook, name)
    from llmlab.exercises.functions import load_functions  # brings torch

    reference = parse(args.model, options.outputs_of(args))
    with _printing_aside():
        functions = load_functions(name, workbook.file(find_piece(name)))
    with terminal_progress(not args.json) as progress:
        return (_lens if name == LENS else _lora)(args, reference, functions, progress)


def _lens(args: argparse.Namespace, reference: Reference, functions: Functions, progress: Progress) -> int:
    from llmlab.exercises.on_a_model import lens_beside_ours
    from llmlab.models.source import open_model

    opened = open_model(reference, options.outputs_of(args), progress)
    with _printing_aside():
        found = lens_beside_ours(opened, opened.tokenizer.encode(args.prompt), functions["logit_lens"])
    rows = [
        (
            str(row.layer),
            f"{_token(opened, row.yours)} {row.your_probability:.4f}",
            f"{_token(opened, row.ours)} {row.our_probability:.4f}",
            f"{row.apart:.1g}",
        )
        for row in found
    ]
    table = text.table(("after layer", "yours", "ours", "largest difference"), rows, right=(0, 3))
    named = [
        vars(row) | {"your_token": _token(opened, row.yours), "our_token": _token(opened, row.ours)} for row in found
    ]
    return print_answer(args, {"model": opened.reference, "rows": named}, table)


def _lora(args: argparse.Namespace, reference: Reference, functions: Functions, progress: Progress) -> int:
    from llmlab.exercises.on_a_model import lora_beside_ours, open_both

    base, fine_tuned, adapters = open_both(reference, progress)
    with _printing_aside():
        found = lora_beside_ours(base, fine_tuned, adapters, fine_tuned.tokenizer.encode(args.prompt), functions)
    rows = [(_token(fine_tuned, id), *(f"{p:.4f}" for p in probabilities)) for id, *probabilities in found.rows]
    lines = [
        *text.table(("next token", "yours", "ours", "without the adapters"), rows, right=(1, 2, 3)),
        f"Your lora computed {found.layers} layers. Probabilities differ by at most {found.apart:.1g}, "
        f"weights of your merged matrices by {found.merged:.1g}.",
    ]
    tokens = [_token(fine_tuned, id) for id, *_ in found.rows]
    return print_answer(args, {"model": fine_tuned.reference, **vars(found), "tokens": tokens}, lines)


def _printing_aside() -> contextlib.AbstractContextManager[object]:
    """What the learner's code prints is a remark: the answer on stdout may be JSON."""
    return contextlib.redirect_stdout(sys.stderr)


def _token(opened: OpenModel, id: int) -> str:
    return text.printable(repr(opened.tokenizer.token_text(id)))


def _lines_of_both(yours: RunFolder, ours: RunFolder, found: Beside) -> Iterator[str]:
    yield ""
    rows = [
        (f"{step:,}", f"{mine:.4f}", f"{theirs:.4f}", minus(f"{mine - theirs:+.4f}"))
        for step, mine, theirs in found.losses
    ]
    yield from text.table(("step", f"yours ({yours.id})", f"ours ({ours.id})", "difference"), rows)
    if found.our_speed:
        share = found.your_speed / found.our_speed
        yield f"Speed: yours {found.your_speed:,.0f} tokens/s, ours {found.our_speed:,.0f}: {share:.2f} times as fast."


_ACTIONS = {"list": _list, "start": _start, "check": _check, "show": _show, "use": _use}
