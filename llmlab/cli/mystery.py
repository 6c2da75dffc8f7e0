"""`mystery`: find what is wrong with a run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from llmlab.cli import text
from llmlab.cli.follow import train
from llmlab.cli.output import DONE, print_answer, say, terminal_progress
from llmlab.cli.progress import Report, make_report
from llmlab.cli.words import Commands, action_of, add_outputs, outputs_of
from llmlab.core.errors import LabError, UsageError
from llmlab.mysteries import case as mysteries
from llmlab.mysteries.case import HEALTHY, MEASURE, QUESTIONS, Case, Score
from llmlab.mysteries.faults import Fault, faults
from llmlab.store.registry import resolve_run
from llmlab.store.run_folder import RunFolder

_PRICES = ", ".join(f"{what} ({cost})" for what, (cost, _) in QUESTIONS.items())


def add_commands(commands: Commands) -> None:
    parser = commands.add("mystery", mystery, "find what is wrong with a run", prices=_PRICES)
    parser.add_argument("action", metavar="ACTION", nargs="?", default="list", help=", ".join(_ACTIONS))
    parser.add_argument("rest", metavar="WORD", nargs="*", help="what the action is about")
    parser.add_argument(
        "--level", type=int, default=1, metavar="N", help="start: 1 loud, 2 middle, 3 quiet; default: 1"
    )
    parser.add_argument("--name", help="start: the run's id (default: mystery-1, mystery-2 ...)")
    parser.add_argument("--seed", type=int, metavar="N", help="start: seed of weights and batches (default: drawn)")
    parser.add_argument("--no-start", action="store_true", help="start: make its folder only; `resume` trains it later")
    parser.add_argument("--give-up", action="store_true", help="reveal: open the seal for the score of knowing nothing")
    add_outputs(parser)


def mystery(args: argparse.Namespace) -> int:
    return action_of(args, _ACTIONS)(args)


def _list(args: argparse.Namespace) -> int:
    _words(args, "list")
    rows: list[tuple[RunFolder, Case]] = []
    for run in mysteries.cases(outputs_of(args)):
        try:
            rows.append((run, mysteries.case_of(run)))
        except LabError as error:  # the others are there all the same
            say(str(error))
    values = [{"name": run.id, "state": run.status().state} | _plain(case) for run, case in rows]
    header = ("mystery", "level", "run", "left", "answer")
    cells = [
        (run.id, str(case.level), run.status().words, f"{case.left} of {case.budget}", _outcome(case))
        for run, case in rows
    ]
    none = ["There is no mystery yet. Start one: llmlab-run mystery start"]
    return print_answer(args, values, text.table(header, cells, right=(1,)) if rows else none)


def _start(args: argparse.Namespace) -> int:
    _words(args, "start")
    run = mysteries.start(outputs_of(args), args.level, args.name, args.seed)
    if args.no_start:
        return print_answer(args, {"name": run.id}, [f"Made {run.path}. Train it: llmlab-run resume {run.id}"])
    return _trained(args, run, f"What is wrong with it? llmlab-run mystery show {run.id}")


def _show(args: argparse.Namespace) -> int:
    run = _run(args, *_words(args, "show NAME"))
    case = mysteries.case_of(run)
    return print_answer(args, {"name": run.id} | _plain(case), _description(run, case))


def _ask(args: argparse.Namespace) -> int:
    name, what = _words(args, "ask NAME WHAT")
    run = _run(args, name)
    if what == MEASURE:
        return _measure(args, run)
    experiment = mysteries.ask(run, what)
    assert experiment is not None
    if experiment.status().state == "finished":
        return print_answer(args, {"name": experiment.id}, [f"It is there already: {experiment.id}"])
    return _trained(args, experiment, f"It is {QUESTIONS[what][1]}: {experiment.id}")


def _measure(args: argparse.Namespace, run: RunFolder) -> int:
    """The same of the healthy run, once it is there: some tell-tales are seen only beside it. Paid for afterwards."""
    mysteries.price(run, MEASURE)
    from llmlab.mysteries.readings import data_of, measures_of  # brings torch

    healthy = RunFolder(run.path.with_name(f"{run.id}-{HEALTHY}"))
    with terminal_progress(not args.json) as progress:
        data = data_of(run, progress)
        found = measures_of(run, data, progress)
        finished = healthy.path.is_dir() and healthy.status().state == "finished"
        beside = measures_of(healthy, data, progress) if finished else None
    mysteries.ask(run, MEASURE)
    values, lines = found.as_dict(), found.lines()
    if beside is not None:
        values["healthy"] = beside.as_dict()
        lines += ["", f"{healthy.id}, without a fault:", *beside.lines()]
    return print_answer(args, values, lines)


def _mark(args: argparse.Namespace) -> int:
    if len(args.rest) < 2:
        raise UsageError("Which mystery, and where?", "", 'llmlab-run mystery mark NAME loss@120 "falls too far"')
    run = _run(args, args.rest[0])
    case = mysteries.mark(run, args.rest[1], " ".join(args.rest[2:]))
    return print_answer(args, {"name": run.id} | _plain(case), _description(run, case))


def _answer(args: argparse.Namespace) -> int:
    name, words = _words(args, "answer NAME CAUSE=P,...")
    run = _run(args, name)
    case = mysteries.record_answer(run, mysteries.parse_answer(words, mysteries.case_of(run).candidates))
    lines = [_verdict(case), f"See it: llmlab-run mystery reveal {run.id}"]
    return print_answer(args, {"name": run.id} | _plain(case), lines)


def _reveal(args: argparse.Namespace) -> int:
    """Also trains the healthy run of the same seed, once."""
    run = _run(args, *_words(args, "reveal NAME"))
    if args.give_up and not mysteries.case_of(run).cause:
        mysteries.give_up(run)
    fault = mysteries.revealed(run)
    healthy = mysteries.ask(run, HEALTHY)
    assert healthy is not None
    if healthy.status().state != "finished":
        say(f"Training the healthy run of the same seed, {healthy.id}.")
        train(healthy, make_report(healthy, False) if not args.json else Report())
    case = mysteries.case_of(run)
    values = {"name": run.id, "healthy": healthy.id, "fault": asdict(fault)} | _plain(case)
    return print_answer(args, values, _page(run, healthy, case, fault))


def _scores(args: argparse.Namespace) -> int:
    _words(args, "scores")
    outputs = outputs_of(args)
    found, calibrated = mysteries.scores(outputs), mysteries.calibrated(outputs)
    header = ("mystery", "level", "cause", "most likely", "given", "bits", "chance", "spent")
    table = text.table(header, [_score_row(score) for score in found], right=(1, 4, 5, 6, 7))
    none = ["Nothing was answered yet. Start with: llmlab-run mystery start"]
    values = {"scores": [asdict(score) for score in found], "calibration": asdict(calibrated)}
    return print_answer(args, values, [*table, calibrated.verdict] if found else none)


_ACTIONS = {
    "list": _list,
    "start": _start,
    "show": _show,
    "ask": _ask,
    "mark": _mark,
    "answer": _answer,
    "reveal": _reveal,
    "scores": _scores,
}


def _trained(args: argparse.Namespace, run: RunFolder, then: str) -> int:
    """Trains a run to its end, and says what to do next. Returns the exit code."""
    code = train(run, make_report(run, args.json))
    if code == DONE:
        say(then)
    return code


def _run(args: argparse.Namespace, name: str) -> RunFolder:
    return resolve_run(name, outputs_of(args)).run


def _words(args: argparse.Namespace, usage: str) -> list[str]:
    if len(args.rest) != len(usage.split()) - 1:
        raise UsageError(f"mystery {args.action} takes other words.", "", f"Write llmlab-run mystery {usage}")
    return list(args.rest)


def _plain(case: Case) -> dict[str, Any]:
    return asdict(case) | {"left": case.left, "chance": case.chance}


def _outcome(case: Case) -> str:
    if case.bits is None:
        return "-"
    return f"{faults()[case.cause].title}; {case.bits:.2f} bits, chance {case.chance:.2f}"


def _verdict(case: Case) -> str:
    given = case.answer[case.cause] if case.answer else 0.0
    return (
        f"It was: {faults()[case.cause].title}. You gave it {100 * given:.0f} %, "
        f"a surprise of {case.bits:.2f} bits; a uniform guess has {case.chance:.2f}."
    )


def _description(run: RunFolder, case: Case) -> Iterator[str]:
    left = f"{case.left} of {case.budget} points left for experiments"
    yield f"{run.id}, level {case.level}, {run.status().words}; {left}"
    yield from text.table(("cause", "what it would be"), [(name, faults()[name].title) for name in case.candidates])
    for asked in case.asked:
        yield f"asked: {asked.what} ({asked.cost})" + (f", {asked.run}" if asked.run else "")
    for mark in case.marks:
        yield text.printable(f"evidence: {mark.where} {mark.note}".rstrip())
    if case.cause:
        yield _verdict(case)


def _page(run: RunFolder, healthy: RunFolder, case: Case, fault: Fault) -> Iterator[str]:
    yield _verdict(case)
    yield from text.hanging("What it changes: ", fault.changes)
    yield from text.hanging("Fastest tell-tale: ", fault.tell)
    if fault.right:
        right, broken = fault.lines()
        yield from ("", f"Right: {fault.right}", *_indented(right), "", f"Broken: {fault.broken}", *_indented(broken))
    yield ""
    losses = [_losses(each) for each in (run, healthy)]
    steps = sorted(set(losses[0]) & set(losses[1]))
    header = ("step", "validation loss here", f"in {healthy.id}")
    yield from text.table(header, [(str(s), *(text.loss(each[s]) for each in losses)) for s in steps], right=(0, 1, 2))


def _losses(run: RunFolder) -> dict[int, float]:
    from llmlab.store.history import read_history  # with numpy, which help needs not

    return {event.step: event.val_loss for event in read_history(run, every_step=False).evaluated}


def _indented(code: str) -> list[str]:
    return [f"    {line}".rstrip() for line in code.splitlines()]


def _score_row(score: Score) -> tuple[str, ...]:
    numbers = (f"{100 * score.given:.0f} %", f"{score.bits:.2f}", f"{score.chance:.2f}", str(score.spent))
    return (score.name, str(score.level), score.cause, score.best, *numbers)
