"""The whole explained from memory: the learner's own words as Markdown in outputs/explained/, one file for each try.

A try is a draft until its checklist is uncovered; then the checklist stands under the text, each point ticked or not:

    # From text to text, explained from memory

    Begun 2026-11-30 18:12.

    Text is split into tokens ...

    ## What belongs there

    - [x] Text is split into tokens of a fixed vocabulary, and each token is replaced by its id.
    - [ ] Each id selects a row of the embedding table, a vector of C learned components.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from llmlab.core.errors import LabError
from llmlab.core.files import open_file, write_atomic
from llmlab.learning.stations import LearningPath, Point

FOLDER = "explained"
_BELONGS = "## What belongs there"
_POINT = re.compile(r"^- \[([ xX])\] (.+)$", re.MULTILINE)
_HEAD = re.compile(r"\A# [^\n]*\n\nBegun [^\n]*\n\n?")
_STAMP = "%Y-%m-%d-%H%M%S"


@dataclass(frozen=True)
class Try:
    """One explanation. time: when it was begun, Unix seconds. had: by point, whether the text has it; empty before the
    checklist was uncovered. held: all of its file when it was last read or written, None before there was one."""

    file: Path
    time: float
    text: str
    had: Mapping[str, bool] = field(default_factory=dict)
    held: str | None = None

    @property
    def uncovered(self) -> bool:
        """Whether its checklist was seen: from then on the text stays as it is."""
        return bool(self.had)

    @property
    def ticked(self) -> int:
        """How many points it has, by its writer's judgement."""
        return sum(self.had.values())

    def missing(self, points: Sequence[Point]) -> list[Point]:
        """The points that it lacks, also those that were added to the checklist since."""
        return [point for point in points if not self.had.get(point.belongs, False)]


def tries(outputs: Path, path: LearningPath) -> list[Try]:
    """All explanations of that path, the oldest first. A file that is no text is passed over, and left as it is."""
    found = []
    for file in sorted((outputs / FOLDER).glob(f"{path.name}-*.md")):
        try:
            began = datetime.strptime(file.stem.removeprefix(f"{path.name}-"), _STAMP)
            with open_file(file) as opened:
                found.append(_read(file, began.timestamp(), opened.read().decode()))
        except (OSError, ValueError, OverflowError):
            continue
    return found


def new_try(outputs: Path, path: LearningPath, now: float) -> Try:
    """An empty one, whose file is made when it is saved first; never one that is there already."""
    return _unused(outputs / FOLDER, path, now)


def save(written: Try, path: LearningPath) -> Try:
    """Writes a try into its file -> the same, knowing what its file holds now.

    Where another program has changed the file meanwhile, it is left as it is, and the try gets a new one. LabError when
    it cannot be written.
    """
    file = written.file
    try:
        if (file.read_bytes().decode(errors="replace") if file.exists() else None) != written.held:
            fresh = _unused(file.parent, path, written.time)
            file, written = fresh.file, replace(written, file=fresh.file, time=fresh.time)
        whole = _whole(written, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, whole.encode(), durable=written.uncovered)  # a draft is written every second
    except (OSError, ValueError) as error:
        raise LabError(
            "Your explanation was not saved.", f"{file}: {error}.", "Copy your text before you go."
        ) from error
    return replace(written, held=whole)


def _unused(folder: Path, path: LearningPath, moment: float) -> Try:
    while (file := folder / f"{path.name}-{datetime.fromtimestamp(moment):{_STAMP}}.md").exists():
        moment += 1
    return Try(file, moment, "")


def _whole(written: Try, path: LearningPath) -> str:
    began = f"{datetime.fromtimestamp(written.time):%Y-%m-%d %H:%M}"
    parts = [f"# {path.title}, explained from memory", f"Begun {began}.", written.text]
    if written.had:
        parts += [_BELONGS, "\n".join(f"- [{'x' if had else ' '}] {belongs}" for belongs, had in written.had.items())]
    return "\n\n".join(parts) + "\n"


def _read(file: Path, began: float, whole: str) -> Try:
    text, heading, checklist = _HEAD.sub("", whole, count=1).rpartition(f"\n\n{_BELONGS}\n")
    points = {belongs: mark != " " for mark, belongs in _POINT.findall(checklist)} if heading else {}
    if not points:  # a draft, whatever it says
        return Try(file, began, _HEAD.sub("", whole, count=1).removesuffix("\n"), held=whole)
    return Try(file, began, text, points, whole)
