"""What was done of the paths: outputs/learning.json, in which each row is only ever added.

A station is done when its page was read through to its end and one of its questions was answered, rightly or wrongly;
or when it was marked by hand. An answer that was given on a page counts for that station alone, one that was given in
Practice wherever its question is asked. Nothing is counted for its own sake: no points, no
streaks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmlab.core.records import Rows
from llmlab.learning.recall import tries
from llmlab.learning.stations import LearningPath, Station, learning_paths
from llmlab.practice.deck import Answer, Deck

FILE = "learning.json"
# What a row says: a page was read to its end, a station was marked as done, opened again, or is as it was before it was
# opened last, a path was begun anew.
READ, MARKED, OPENED, RESTORED, BEGUN = EVENTS = ("read", "marked", "opened", "restored", "begun")


@dataclass(frozen=True)
class State:
    """How it stands with one station."""

    read: bool = False
    answered: bool = False
    marked: bool = False
    again: bool = False  # it was done, and opened again

    @property
    def done(self) -> bool:
        return self.marked or (self.read and self.answered)

    @property
    def words(self) -> str:
        """The same in a few words; "" where nothing was done yet."""
        if self.read and self.answered:
            return "done"
        if self.marked:
            return "marked as done"
        if self.read:
            return "page read, question open"
        if self.answered:
            return "question answered, page not read through"
        return "open again" if self.again else ""


@dataclass(frozen=True)
class PathState:
    """How it stands with one path. explained: whether the whole was explained, and held against the checklist."""

    path: LearningPath
    stations: tuple[State, ...]
    explained: bool = False

    @property
    def done(self) -> int:
        """Stations that are done, the explanation among them."""
        return sum(state.done for state in self.stations) + self.explained

    @property
    def of(self) -> int:
        """Stations in all, the explanation among them."""
        return len(self.stations) + 1

    def next(self, after: int = -1) -> Station | None:
        """The first station behind that place that is not done; None where the explanation comes next."""
        open_ones = (
            one
            for one, state in zip(self.path.stations[after + 1 :], self.stations[after + 1 :], strict=True)
            if not state.done
        )
        return next(open_ones, None)


Standing = Mapping[str, PathState]  # of all paths, by name


class StationLog:
    """What was done, in an outputs folder. Cheap to make; reads nothing until asked."""

    def __init__(self, outputs: Path) -> None:
        self._outputs = outputs
        self._rows = Rows(outputs / FILE, "stations", _is_event)

    def standing(self) -> Standing:
        """How it stands now. LabError when a file is damaged: it is left as it is."""
        events, answers = self._rows.read(), Deck(self._outputs).answers()
        return {
            name: _path_state(
                path,
                events,
                answers,
                [one.time for one in tries(self._outputs, path) if one.ticked and one.text.strip()],
            )
            for name, path in learning_paths().items()
        }

    def add(self, what: str, path: str = "", pages: Sequence[str] = ("",), now: float | None = None) -> None:
        """Writes down one of EVENTS. LabError when that cannot be done; nothing that was there is lost."""
        assert what in EVENTS
        moment = time.time() if now is None else now
        self._rows.add(*({"what": what, "path": path, "page": page, "time": moment} for page in pages))


def untouched() -> Standing:
    """How it stands where nothing was done."""
    return {name: _path_state(path, [], [], []) for name, path in learning_paths().items()}


def _path_state(
    path: LearningPath, events: Sequence[Mapping[str, Any]], answers: Sequence[Answer], explained: Sequence[float]
) -> PathState:
    begun = _last(events, BEGUN, path.name)

    def state(station: Station, since: float) -> State:
        return State(
            read=_last(events, READ, "", station.page) > since,
            answered=any(
                one.concept == station.concept and one.page in ("", station.page) and one.given and one.time > since
                for one in answers
            ),
            marked=_last(events, MARKED, path.name, station.page) > since,
        )

    states = []
    for station in path.stations:
        before = state(station, begun)
        now = state(station, max(begun, _opened(events, path.name, station.page)))
        states.append(replace(now, again=before.done and not now.done))
    return PathState(path, tuple(states), any(moment > begun for moment in explained))


def _opened(events: Sequence[Mapping[str, Any]], path: str, page: str) -> float:
    """When that station was opened again, as far as it was not taken back; -1 for never."""
    times: list[float] = []
    for one in events:
        if (one["path"], one["page"]) == (path, page):
            if one["what"] == OPENED:
                times.append(one["time"])
            elif one["what"] == RESTORED:
                del times[-1:]
    return max(times, default=-1.0)


def _last(events: Sequence[Mapping[str, Any]], what: str, path: str, page: str = "") -> float:
    """When that was written down last; -1 for never."""
    times = (one["time"] for one in events if (one["what"], one["path"], one["page"]) == (what, path, page))
    return max(times, default=-1.0)


def _is_event(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("time"), (int, float))
        and 0 <= row["time"] < math.inf
        and all(isinstance(row.get(name), str) for name in ("what", "path", "page"))
    )
