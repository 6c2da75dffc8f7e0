"""The papers that come with the lab, and what they claim. No torch.

resources/papers/<name>/
    claims.toml    [paper] title, authors, year, links; one [[claims]] table a claim, with the fields of `Claim`; under
                   it [claims.practice], with those of `Choices`
    notes.md       what the paper says, what is contested, what the lab cannot test, in the lab's own words
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.core.config import read_toml
from llmlab.core.errors import LabError, UsageError, did_you_mean
from llmlab.core.paths import resources_dir

# What a check can say of a claim, and how much it trains.
SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = VERDICTS = ("supported", "not supported", "inconclusive")
SIZES = ("minutes", "hour", "paper")
PAPERS_DIR = resources_dir() / "papers"


@dataclass(frozen=True)
class Choices:
    """Results and experiments to tell apart, which Practice asks about: sentences that can be read without the others.

    supports, refutes, neither: a result of each sort; why: what `neither` leaves open. against: what is held against
    the claim. tests: the experiment, with its control; flawed: the same with something amiss, and flaw what; all three
    "" where the lab has no test. claims: what the paper claims, where its statement cannot be read alone.
    """

    supports: str
    refutes: str
    neither: str
    why: str
    against: str
    tests: str = ""
    flawed: str = ""
    flaw: str = ""
    claims: str = ""


@dataclass(frozen=True)
class Claim:
    """One thing that a paper says, and how it is put to the test. All texts are sentences for the learner.

    id: short and unique within the paper. statement: the claim, with the paper's numbers. where: sections or figures.
    supports, refutes: what would. test: what the lab does. papers_criterion: when the paper itself calls it shown, ""
    where it names no such bound. contested: what others, or the paper itself, hold against it, "" where nothing is
    known. about, measured, control: of which models and data, by which quantity, against what, "" where the statement
    says it. sizes: the sizes of a check that test it, of SIZES; none where the lab has no test for it. practice: None
    where Practice asks nothing about it.
    """

    id: str
    title: str
    statement: str
    where: str
    supports: str
    refutes: str
    test: str
    papers_criterion: str = ""
    contested: str = ""
    about: str = ""
    measured: str = ""
    control: str = ""
    sizes: tuple[str, ...] = ()
    practice: Choices | None = None


@dataclass(frozen=True)
class Paper:
    """A paper with its claims. name: of its folder. notes: Markdown. links: addresses."""

    name: str
    title: str
    authors: str
    year: int
    links: tuple[str, ...]
    notes: str
    claims: tuple[Claim, ...]

    def claim(self, id: str) -> Claim:
        """The claim of that id; UsageError with the nearest one."""
        known = {claim.id: claim for claim in self.claims}
        if id not in known:
            hint = did_you_mean(id, known, cutoff=0.5)
            raise UsageError(f"{self.name} has no claim {id!r}.", f"It has: {', '.join(known)}.", hint)
        return known[id]


def list_papers(folder: Path = PAPERS_DIR) -> list[Paper]:
    """All papers, by name. folder: where they are. UsageError for a damaged one."""
    return [read_paper(path.parent.name, folder) for path in sorted(folder.glob("*/claims.toml"))]


def readable_papers() -> tuple[list[Paper], list[LabError]]:
    """The papers that can be read, by name, and what is wrong with the others."""
    papers, errors = [], []
    for path in sorted(PAPERS_DIR.glob("*/claims.toml")):
        try:
            papers.append(read_paper(path.parent.name))
        except LabError as error:
            errors.append(error)
    return papers, errors


def read_paper(name: str, folder: Path = PAPERS_DIR) -> Paper:
    """One paper. UsageError with the nearest name where there is none such, and for files that are not as described."""
    known = [path.parent.name for path in sorted(folder.glob("*/claims.toml"))]
    if name not in known:
        hint = did_you_mean(name, known, cutoff=0.5)
        raise UsageError(f"There is no paper {name!r}.", f"There are: {', '.join(known)}.", hint)
    path = folder / name / "claims.toml"
    values = read_toml(path)
    try:
        notes = (folder / name / "notes.md").read_text(encoding="utf-8")
        about = values["paper"]
        claims = tuple(_claim(row) for row in values["claims"])
        paper = Paper(
            name=name,
            title=_text(about, "title"),
            authors=_text(about, "authors"),
            year=int(about["year"]),
            links=tuple(map(str, about["links"])),
            notes=notes,
            claims=claims,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} does not describe a paper.", f"{type(error).__name__}: {error}.") from error
    except OSError as error:
        raise UsageError(f"The notes of {name} could not be read.", f"{error}.", "Put it back.") from error
    ids = [claim.id for claim in claims]
    if not ids or len(set(ids)) < len(ids):
        raise UsageError(f"{path} does not describe a paper.", "It needs claims, each with an id of its own.")
    return paper


def _claim(row: Mapping[str, Any]) -> Claim:
    texts, sizes = _texts(row, Claim, "sizes", "practice"), tuple(row.get("sizes", ()))
    if wrong := [size for size in sizes if size not in SIZES]:
        raise ValueError(f"a check has no size {wrong[0]!r}")
    practice = Choices(**_texts(row["practice"], Choices)) if "practice" in row else None
    return Claim(**texts, sizes=sizes, practice=practice)


def _texts(row: Mapping[str, Any], of: type, *others: str) -> dict[str, str]:
    """The texts of a table, named as the fields of a dataclass, but for `others`."""
    known = [field.name for field in dataclasses.fields(of)]
    if wrong := [name for name in row if name not in known]:
        raise ValueError(f"a claim has no {wrong[0]!r}. {did_you_mean(wrong[0], known, cutoff=0.5)}".strip())
    return {name: _text(row, name) for name in row if name not in others}


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is {value!r:.100}")
    return value.strip()
