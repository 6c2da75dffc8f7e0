"""A paper, its claims, and what a check of them found: the files that core, command line and window share. No torch.

resources/papers/<name>/
    claims.toml    [paper] title, authors, year, links; one [[claims]] table a claim, with the fields of `Claim`
    notes.md       what the paper says, what is contested, what the lab cannot test, in the lab's own words

outputs/papers/<id>/verdict.json is a `CheckResult`: the verdicts of one check with all that repeats it.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmlab.core.charts import Chart, Table
from llmlab.core.config import read_toml
from llmlab.core.errors import LabError, UsageError
from llmlab.core.files import read_json, write_json
from llmlab.core.paths import resources_dir
from llmlab.core.records import from_plain

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = VERDICTS = ("supported", "not supported", "inconclusive")
SIZES = ("minutes", "hour", "paper")
CHECK_FORMAT = 1


@dataclass(frozen=True)
class Claim:
    """One thing that a paper says, and how it is put to the test. All texts are sentences for the learner.

    id: short and unique within the paper. statement: the claim, with the paper's numbers. where: sections or figures.
    supports, refutes: what would. test: what the lab does. papers_criterion: when the paper itself calls it shown, ""
    where it names no such bound. contested: what others, or the paper itself, hold against it, "" where nothing is
    known. sizes: the sizes of a check that test it, of SIZES; none where the lab has no test for it.
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
    sizes: tuple[str, ...] = ()


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
            raise UsageError(f"{self.name} has no claim {id!r}.", f"It has: {', '.join(known)}.", _nearest(id, known))
        return known[id]


def papers_dir() -> Path:
    """The folder of papers that come with the lab."""
    return resources_dir() / "papers"


def list_papers(folder: Path | None = None) -> list[Paper]:
    """All papers, by name. folder: where they are, the lab's own unless given. UsageError for a damaged one."""
    folder = folder if folder is not None else papers_dir()
    return [read_paper(path.parent.name, folder) for path in sorted(folder.glob("*/claims.toml"))]


def readable_papers(folder: Path | None = None) -> tuple[list[Paper], list[LabError]]:
    """The papers that can be read, by name, and what is wrong with the others."""
    folder = folder if folder is not None else papers_dir()
    papers, errors = [], []
    for path in sorted(folder.glob("*/claims.toml")):
        try:
            papers.append(read_paper(path.parent.name, folder))
        except LabError as error:
            errors.append(error)
    return papers, errors


def read_paper(name: str, folder: Path | None = None) -> Paper:
    """One paper. UsageError with the nearest name where there is none such, and for files that are not as described."""
    folder = folder if folder is not None else papers_dir()
    known = [path.parent.name for path in sorted(folder.glob("*/claims.toml"))]
    if name not in known:
        raise UsageError(f"There is no paper {name!r}.", f"There are: {', '.join(known)}.", _nearest(name, known))
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
        raise UsageError(f"The notes of {name} could not be read.", str(error)) from error
    ids = [claim.id for claim in claims]
    if not ids or len(set(ids)) < len(ids):
        raise UsageError(f"{path} does not describe a paper.", "It needs claims, each with an id of its own.")
    return paper


def _claim(row: Mapping[str, Any]) -> Claim:
    known = [field.name for field in dataclasses.fields(Claim)]
    if wrong := [name for name in row if name not in known]:
        raise ValueError(f"a claim has no {wrong[0]!r}. {_nearest(wrong[0], known)}".strip())
    texts = {name: _text(row, name) for name in row if name != "sizes"}
    sizes = tuple(row.get("sizes", ()))
    if wrong := [size for size in sizes if size not in SIZES]:
        raise ValueError(f"a check has no size {wrong[0]!r}")
    return Claim(**texts, sizes=sizes)


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is {value!r:.100}")
    return value.strip()


def _nearest(name: str, known: Any) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {nearest[0]}?" if nearest else ""


# What a check found ------------------------------------------------------------------------------------------------


@dataclass
class Statistic:
    """The number that a verdict rests on most. value: None where it could not be computed. unit: "" for a share."""

    name: str
    value: float | None
    unit: str = ""


@dataclass
class PapersCriterion:
    """What the paper's own bound says of the same data. passes: None where it names none, or cannot be applied."""

    passes: bool | None
    words: str


@dataclass
class Verdict:
    """What a check says about one claim.

    claim: its id. verdict: one of VERDICTS. interval: [low, high] of the statistic, 95 % unless the reason says
    otherwise. p: after Holm's correction over all tests of one seed or model, whatever claim they belong to, and of
    those the one that as many stay below as a verdict needs; None where no test was made. threshold: the bound in
    words. n: what was counted (samples, prompts, layers), as `reason` says. reason: sentences.
    charts, tables: what it rests on, to be looked at. evidence: plain numbers by name that neither of them holds.
    """

    claim: str
    verdict: str
    statistic: Statistic
    threshold: str
    n: int
    seeds: list[int]
    papers_criterion: PapersCriterion
    reason: str
    interval: list[float] | None = None
    p: float | None = None
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict is {self.verdict!r:.100}")


@dataclass
class CheckResult:
    """verdict.json of a check.

    command: repeats it. versions: by package. seconds: of all its work together. models: those that were named.
    overall: what the verdicts say together of the paper's main idea; "" where each claim stands for itself.
    """

    paper: str
    size: str
    verdicts: list[Verdict]
    command: str
    seeds: list[int]
    versions: dict[str, str]
    hardware: dict[str, str]
    seconds: float
    overall: str = ""
    models: list[str] = field(default_factory=list)
    format: int = CHECK_FORMAT

    @property
    def each(self) -> str:
        """The verdicts one by one, in a line."""
        return "; ".join(f"{one.claim}: {one.verdict}" for one in self.verdicts)


def write_result(path: Path, result: CheckResult) -> None:
    """Replaces verdict.json. ValueError when a number in it is not finite."""
    write_json(path, dataclasses.asdict(result))


def read_result(path: Path) -> CheckResult:
    """Reads verdict.json; LabError when it is missing or damaged."""
    values = read_json(path)
    try:
        if values is None:
            raise ValueError("it is missing, or not JSON")
        return from_plain(CheckResult, values)
    except (ValueError, TypeError) as error:
        raise LabError(f"{path} holds no verdicts.", f"{error}.", "Let the check go on, or run it again.") from error
