"""`learn`: the paths through the pages of Learn, and how far you are."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Any

from llmlab.cli import text
from llmlab.cli.output import print_answer
from llmlab.cli.words import Commands, add_outputs, outputs_of
from llmlab.core.errors import UsageError
from llmlab.learning.progress import BEGUN, MARKED, OPENED, PathState, StationLog
from llmlab.learning.stations import learning_paths, path_named

_LINK = re.compile(r"\[(.+?)\]\(.+?\)")


def add_commands(commands: Commands) -> None:
    parser = commands.add("learn", learn, "paths through the pages, and how far you are")
    parser.add_argument("path", metavar="PATH", nargs="?", default="", help="list its stations")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--done", metavar="PAGE", help="mark a station as done")
    what.add_argument("--open", metavar="PAGE", help="the opposite: it is to be done again")
    what.add_argument("--anew", action="store_true", help="begin the path anew; nothing that you wrote is deleted")
    add_outputs(parser)


def learn(args: argparse.Namespace) -> int:
    log = StationLog(outputs_of(args))
    if not args.path:
        if args.done or args.open or args.anew:
            raise UsageError("Which path is meant?", "", f"There are: {', '.join(learning_paths())}.")
        states = log.standing().values()
        return print_answer(args, [_plain(state) for state in states], _overview(list(states)))
    path = path_named(args.path)
    if page := args.done or args.open:
        if path.place(page) is None:
            there = ", ".join(station.page for station in path.stations)
            raise UsageError(f"{path.title} has no station {page!r}.", f"There are: {there}.")
        log.add(MARKED if args.done else OPENED, path.name, [page])
    elif args.anew:
        log.add(BEGUN, path.name)
    state = log.standing()[path.name]
    return print_answer(args, _plain(state), _stations(state))


def _overview(states: list[PathState]) -> Iterator[str]:
    header = ("path", "done", "next", "what it is about")
    rows = [(one.path.name, f"{one.done} of {one.of}", _next(one), one.path.about) for one in states]
    return text.table(header, rows)


def _stations(state: PathState) -> Iterator[str]:
    yield f"{state.path.title}. {state.path.about}"
    yield ""
    rows = [
        (f"{number}", station.page, how.words or ("next" if station.page == _next(state) else "open"), station.asks)
        for number, (station, how) in enumerate(zip(state.path.stations, state.stations, strict=True), 1)
    ]
    explained = "done" if state.explained else "next" if state.next() is None else "open"
    rows.append((f"{state.of}", "explain it back", explained, "In the window: the whole, from memory."))
    yield from text.table(("", "station", "", "what it answers"), rows, right=(0,))
    upcoming = state.next()
    if upcoming is not None:
        yield ""
        yield from text.hanging("To do: ", _LINK.sub(r"\1", upcoming.do))
        yield f"Asks: llmlab-run practice --concept {upcoming.concept}"


def _next(state: PathState) -> str:
    station = state.next()
    return station.page if station is not None else "" if state.explained else "explain it back"


def _plain(state: PathState) -> dict[str, Any]:
    stations = [
        {
            "page": station.page,
            "asks": station.asks,
            "do": station.do,
            "questions": station.concept,
            "read": how.read,
            "answered": how.answered,
            "marked": how.marked,
            "done": how.done,
        }
        for station, how in zip(state.path.stations, state.stations, strict=True)
    ]
    plain = {"name": state.path.name, "title": state.path.title, "about": state.path.about, "stations": stations}
    return {**plain, "explained": state.explained, "next": _next(state)}
