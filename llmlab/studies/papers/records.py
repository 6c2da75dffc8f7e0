"""What a check found: outputs/papers/<id>/verdict.json, its verdicts with all that repeats it. No torch."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmlab.core.charts import Chart, Table
from llmlab.core.errors import LabError
from llmlab.core.files import read_json, write_json
from llmlab.core.records import from_plain
from llmlab.data.papers import VERDICTS
from llmlab.studies.plans.records import ExperimentFolder

CHECK_FORMAT = 1
# Verdicts with all their charts take less than a megabyte; a file of someone else's must not fill the memory.
MOST_BYTES = 32 << 20
_PER_CENT = re.compile(r"(?<=\d)%")


@dataclass
class Statistic:
    """The number that a verdict rests on most. value: None where it could not be computed. unit: "" for a ratio."""

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

    claim: its id. verdict: one of VERDICTS. interval: low and high of the statistic, 95 % unless the reason says
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
    interval: tuple[float, float] | None = None
    p: float | None = None
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict is {self.verdict!r:.100}")
        self.threshold, self.reason = spaced(self.threshold), spaced(self.reason)
        self.papers_criterion = dataclasses.replace(self.papers_criterion, words=spaced(self.papers_criterion.words))
        self.tables = [
            dataclasses.replace(table, rows=[[spaced(cell) for cell in row] for row in table.rows])
            for table in self.tables
        ]


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


def spaced(text: str) -> str:
    """`60%`, as Python formats a share, is `60 %` wherever people read it."""
    return _PER_CENT.sub(" %", text)


def write_result(path: Path, result: CheckResult) -> None:
    """Replaces verdict.json. ValueError when a number in it is not finite."""
    write_json(path, dataclasses.asdict(result))


def read_result(path: Path) -> CheckResult:
    """Reads verdict.json; LabError when it is missing, damaged, or larger than any check writes."""
    with contextlib.suppress(OSError):  # what has no size is missing, which is said below
        if (size := path.stat().st_size) > MOST_BYTES:
            why = f"It has {size / 1e6:,.0f} MB, more than any check writes."
            raise LabError(f"{path} is not read.", why, "Run the check again.")
    values = read_json(path)
    try:
        if values is None:
            raise ValueError("it is missing, or not JSON")
        return from_plain(CheckResult, values)
    except (ValueError, TypeError) as error:
        raise LabError(f"{path} holds no verdicts.", f"{error}.", "Resume the check, or run it again.") from error


def read_verdicts(folder: ExperimentFolder) -> CheckResult | None:
    """What a check says so far; None before its first verdict. LabError as `read_result`."""
    return read_result(folder.results_json) if os.path.exists(folder.results_json) else None
