"""The paths through Learn, from resources/paths/*.toml: each some ten stations, and the whole explained at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from llmlab.core.config import read_toml
from llmlab.core.errors import UsageError
from llmlab.core.paths import resources_dir
from llmlab.core.records import from_plain


@dataclass(frozen=True)
class Station:
    """A page, something to do in a panel, and a question.

    asks: what the page answers. do: Markdown, with links into the lab. questions: the concept page whose questions are
    asked; "" for those of the page itself.
    """

    page: str
    asks: str
    do: str
    questions: str = ""

    @property
    def concept(self) -> str:
        """The concept page to which its questions belong."""
        return self.questions or self.page


@dataclass(frozen=True)
class Point:
    """What an explanation of the whole should have, in one sentence, and the stations that explain it."""

    belongs: str
    pages: list[str]


@dataclass(frozen=True)
class Explain:
    """The last station. ask: what is to be written from memory."""

    ask: str
    points: list[Point]


@dataclass(frozen=True)
class LearningPath:
    """name: as commands and links write it. about: what it is about, in one sentence."""

    name: str
    title: str
    about: str
    stations: list[Station]
    explain: Explain = field(default_factory=lambda: Explain("", []))

    def place(self, page: str) -> int | None:
        """Where a page is among the stations, from 0; None where it is none of them."""
        return next((place for place, station in enumerate(self.stations) if station.page == page), None)


@lru_cache(maxsize=1)
def learning_paths() -> dict[str, LearningPath]:
    """All of them by name, in the order in which they are best walked."""
    files = sorted((resources_dir() / "paths").glob("*.toml"))
    named = ((file.stem.partition("-")[2], file) for file in files)  # 1-text-to-text.toml
    return {name: from_plain(LearningPath, {"name": name, **read_toml(file)}) for name, file in named}


def path_named(name: str) -> LearningPath:
    """UsageError where there is none of that name."""
    paths = learning_paths()
    if name not in paths:
        raise UsageError(f"There is no path {name!r}.", f"There are: {', '.join(paths)}.")
    return paths[name]


def questions_of(page: str) -> str:
    """The concept page whose questions a station asks; "" for a page of no path."""
    stations = (station for path in learning_paths().values() for station in path.stations)
    return next((station.concept for station in stations if station.page == page), "")


def beside(concepts: Sequence[str]) -> list[str]:
    """Of these concept pages, those that are on no path."""
    on_paths = {name for path in learning_paths().values() for one in path.stations for name in (one.page, one.concept)}
    return [name for name in concepts if name not in on_paths]
