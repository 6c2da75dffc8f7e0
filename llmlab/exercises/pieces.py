"""The pieces that a GPT is rebuilt from: their pages, their skeletons, and the files that people write. No torch.

A piece is a folder of resources/exercises, `05-attention`, in the order in which they are written:

    page.md      what is wanted; under `## Hints` up to three of them, and under `## Ours` the lab's own code
    skeleton.py  where the learner begins: signature, shapes, an example; no solution
    checks.py    what the piece must do: PARTS (`llmlab.exercises.parts`)
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from llmlab.core.errors import LabError, UsageError, explained, unknown
from llmlab.core.files import locked, open_file, read_json, sha256_of, write_json
from llmlab.core.paths import resources_dir

CHECKS = "checks.py"
_FOLDER = re.compile(r"\d\d-([a-z-]+)")
_LARGEST_FILE = 1_000_000  # bytes; a piece is written by hand


@dataclass(frozen=True)
class Piece:
    """One piece by its folder; its files are read when they are asked for."""

    name: str
    folder: Path

    @cached_property
    def _sections(self) -> dict[str, str]:
        """The page's text by its `## ` headings; "" for what stands before the first of the two that are set apart."""
        found, title = {"": ""}, ""
        for line in (self.folder / "page.md").read_text(encoding="utf-8").splitlines(keepends=True):
            if line.strip() in ("## Hints", "## Ours"):
                title = line.strip()[3:]
                found[title] = ""
            else:
                found[title] += line
        return found

    @property
    def title(self) -> str:
        return self.page.splitlines()[0].removeprefix("# ")

    @property
    def page(self) -> str:
        """What is wanted, as Markdown; without hints and solution."""
        return self._sections[""].strip() + "\n"

    @property
    def hints(self) -> list[str]:
        """One after the other says more."""
        return [
            text.strip() for text in re.split(r"^\d\. ", self._sections.get("Hints", ""), flags=re.M) if text.strip()
        ]

    @property
    def ours(self) -> str:
        """What the lab has in its place, as Markdown with `@code` lines."""
        return self._sections.get("Ours", "").strip() + "\n"

    @property
    def skeleton(self) -> str:
        return (self.folder / "skeleton.py").read_text(encoding="utf-8")


def all_pieces() -> list[Piece]:
    """Every piece, in the order in which they build a GPT."""
    folders = sorted((resources_dir() / "exercises").glob("[0-9][0-9]-*"))
    return [Piece(found[1], folder) for folder in folders if (found := _FOLDER.fullmatch(folder.name))]


def find_piece(name: str) -> Piece:
    """The piece of that name; UsageError with the nearest where there is none."""
    pieces = {piece.name: piece for piece in all_pieces()}
    if name not in pieces:
        raise unknown("piece", name, pieces)
    return pieces[name]


@dataclass(frozen=True)
class Workbook:
    """The files that the learner writes, in outputs/exercises, and which of them have passed."""

    outputs: Path

    @property
    def folder(self) -> Path:
        return self.outputs / "exercises"

    def file(self, piece: Piece) -> Path:
        return self.folder / f"{piece.name}.py"

    def start(self, piece: Piece) -> bool:
        """Writes the skeleton, unless there is a file already: that is never touched. Whether it did."""
        path = self.file(piece)
        with explained(f"{path} could not be written."):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(piece.skeleton)
            except FileExistsError:
                return False
            except OSError:  # a full disk: half a skeleton would count as begun
                path.unlink(missing_ok=True)
                raise
        return True

    def require(self, piece: Piece) -> Path:
        """The file of a piece that was started. UsageError where there is none, LabError where it cannot be one."""
        path = self.file(piece)
        if not path.exists():
            raise UsageError(
                f"{piece.name} is not started.", f"There is no {path}.", f"llmlab-run exercise start {piece.name}"
            )
        with explained(f"{path} could not be read."), open_file(path) as file:
            if file.seek(0, os.SEEK_END) > _LARGEST_FILE:
                raise LabError(f"{path} is not checked.", "It is larger than a megabyte.")
        return path

    def state(self, piece: Piece) -> str:
        """`new`: not started. `begun`: it has not passed as it stands. `passed`, or `changed` since it passed."""
        path = self.file(piece)
        passed = self._passed().get(piece.name)
        try:
            size = path.stat().st_size
            if not isinstance(passed, str):
                return "begun"
            same = size <= _LARGEST_FILE and sha256_of(path) == passed
        except OSError:
            return "new"
        return "passed" if same else "changed"

    def record(self, piece: Piece, digest: str, passed: bool) -> None:
        """Keeps that a file of this digest has passed. What passed before stays when another version fails."""
        if passed:
            with (
                contextlib.suppress(OSError, LabError),  # the answer was given; only the list forgets it
                locked(self.folder / ".passed.lock", "the list"),  # a terminal may check another piece now
            ):
                write_json(self.folder / "passed.json", self._passed() | {piece.name: digest})

    def _passed(self) -> dict[str, object]:
        return read_json(self.folder / "passed.json") or {}
