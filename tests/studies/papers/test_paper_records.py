"""Papers are read as they are written, damaged ones are refused with the place, and verdicts survive their file."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
from pathlib import Path

import pytest

from llmlab.core.charts import Chart, Table
from llmlab.core.config import read_toml
from llmlab.core.errors import LabError, UsageError
from llmlab.data.papers import INCONCLUSIVE, PAPERS_DIR, SUPPORTED, list_papers, read_paper
from llmlab.studies.papers.bayesian_geometry.beliefs import Criterion
from llmlab.studies.papers.records import (
    MOST_BYTES,
    CheckResult,
    PapersCriterion,
    Statistic,
    Verdict,
    read_result,
    write_result,
)
from llmlab.studies.papers.texts import PaperTexts
from llmlab.studies.report import _table

CLAIMS = """
[paper]
title = "On Mirrors"
authors = "A. Reader"
year = 2020
links = ["https://example.org/mirrors"]

[[claims]]
id = "flat"
title = "Flat mirrors are fair"
statement = "A flat mirror keeps sizes."
where = "Section 2"
supports = "Equal sizes."
refutes = "Unequal sizes."
test = "A ruler."
sizes = ["minutes"]
"""


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    (tmp_path / "mirrors").mkdir()
    (tmp_path / "mirrors" / "claims.toml").write_text(CLAIMS)
    (tmp_path / "mirrors" / "notes.md").write_text("# On Mirrors\n")
    return tmp_path


def verdict(**changes: object) -> Verdict:
    values = {
        "claim": "flat",
        "verdict": SUPPORTED,
        "statistic": Statistic("difference", 0.25, "mm"),
        "threshold": "at most 1 mm",
        "n": 3,
        "seeds": [1, 2],
        "papers_criterion": PapersCriterion(None, "It names none."),
        "reason": "The sizes were equal.",
        "interval": (0.1, 0.4),
        "evidence": {"sizes": [1.0, 1.25]},
    }
    return Verdict(**(values | changes))


def test_per_cent_are_written_with_a_space_in_all_that_is_read_of_a_verdict() -> None:
    said = verdict(
        reason="6.0% of it; at most 7%.",
        threshold="at least 90%",
        papers_criterion=PapersCriterion(True, "above 30%"),
        tables=[Table("Shares", ["layer", "share"], [["0", "4%"], ["100 %", "-"]])],
    )
    assert said.reason == "6.0 % of it; at most 7 %."
    assert said.threshold == "at least 90 %"
    assert said.papers_criterion.words == "above 30 %"
    assert said.tables[0].rows == [["0", "4 %"], ["100 %", "-"]]


def result(*verdicts: Verdict) -> CheckResult:
    return CheckResult("mirrors", "minutes", list(verdicts), "look", [1, 2], {"torch": "2"}, {"processor": "x"}, 4.5)


def test_a_paper_is_read_with_its_claims_and_notes(papers: Path) -> None:
    (paper,) = list_papers(papers)
    assert (paper.name, paper.title, paper.year, paper.links) == (
        "mirrors",
        "On Mirrors",
        2020,
        ("https://example.org/mirrors",),
    )
    assert paper.notes == "# On Mirrors\n"
    assert paper.claim("flat").sizes == ("minutes",)
    assert paper.claim("flat").contested == ""


def test_the_nearest_paper_and_claim_are_named(papers: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean mirrors"):
        read_paper("mirors", papers)
    with pytest.raises(UsageError, match="Did you mean flat"):
        read_paper("mirrors", papers).claim("flatt")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('where = "Section 2"', 'were = "Section 2"', "Did you mean where"),
        ('where = "Section 2"\n', "", "where"),
        ('test = "A ruler."', "test = 3", "test is 3"),
        ('sizes = ["minutes"]', 'sizes = ["minute"]', "no size 'minute'"),
        ("year = 2020\n", "", "year"),
        ("[[claims]]", "[claims]", "a claim has no"),
        ("[paper]", "[papers]", "paper"),
        ('id = "flat"', 'id = "flat', "not valid TOML"),
    ],
)
def test_a_damaged_table_is_refused_with_its_reason(papers: Path, old: str, new: str, why: str) -> None:
    path = papers / "mirrors" / "claims.toml"
    path.write_text(CLAIMS.replace(old, new))
    with pytest.raises(UsageError, match=why):
        read_paper("mirrors", papers)


def test_two_claims_of_one_id_are_refused(papers: Path) -> None:
    path = papers / "mirrors" / "claims.toml"
    path.write_text(CLAIMS + CLAIMS[CLAIMS.index("[[claims]]") :])
    with pytest.raises(UsageError, match="an id of its own"):
        read_paper("mirrors", papers)


def test_verdicts_survive_their_file(tmp_path: Path) -> None:
    written = result(verdict(), verdict(verdict=INCONCLUSIVE, interval=None, p=0.02, statistic=Statistic("rho", None)))
    write_result(tmp_path / "verdict.json", written)
    assert read_result(tmp_path / "verdict.json") == written


def test_a_number_that_is_none_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_result(tmp_path / "verdict.json", result(verdict(p=math.nan)))
    assert list(tmp_path.iterdir()) == []


def test_a_verdict_is_one_of_three_words(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    write_result(path, result(verdict()))
    values = json.loads(path.read_text())
    values["verdicts"][0]["verdict"] = "true"
    path.write_text(json.dumps(values))
    with pytest.raises(LabError, match="holds no verdicts"):
        read_result(path)
    with pytest.raises(LabError, match="missing"):
        read_result(tmp_path / "nothing.json")


@pytest.mark.parametrize("interval", [[0.5], [0.1, 0.2, 0.3], [0.1, "0.2"], 0.5, {}])
def test_an_interval_has_two_ends(tmp_path: Path, interval: object) -> None:
    path = tmp_path / "verdict.json"
    write_result(path, result(verdict()))
    values = json.loads(path.read_text())
    values["verdicts"][0]["interval"] = interval
    path.write_text(json.dumps(values))
    with pytest.raises(LabError, match="holds no verdicts") as raised:
        read_result(path)
    assert "interval is" in raised.value.why


def test_a_file_that_is_larger_than_verdicts_are_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    write_result(path, result(verdict()))
    with path.open("ab") as file:
        file.write(b" " * (MOST_BYTES - path.stat().st_size))
        file.flush()
        assert read_result(path) == result(verdict())
        file.write(b" ")
    with pytest.raises(LabError, match="more than any check writes"):
        read_result(path)


# The papers that come with the lab ---------------------------------------------------------------------------------


def test_the_papers_that_come_with_the_lab_are_whole() -> None:
    papers = {paper.name: paper for paper in list_papers()}
    assert set(papers) >= {"bayesian-geometry", "induction-heads", "grokking", "attention-sinks"}
    for paper in papers.values():
        assert paper.notes.startswith("# ")
        assert "contested" in paper.notes
        assert all(link.startswith("https://") for link in paper.links)
        assert all(claim.contested for claim in paper.claims)
        # What the lab does not test says so.
        untested = [claim.test for claim in paper.claims if not claim.sizes]
        assert all(re.search("no verdict|no test|cannot test|not have", test) for test in untested)


def test_a_bar_in_a_cell_of_a_report_does_not_end_it() -> None:
    assert _table(["model", "|rho|"], [["a|b", "0.9"]]) == "| model | \\|rho\\| |\n| --- | --- |\n| a\\|b | 0.9 |"


# Lines of an entry of verdicts.toml, by the table that it is in; a sentence of [says] has none.
READ = {
    "claims": {"statistic", "unit", "threshold", "paper"},
    "charts": {field.name for field in dataclasses.fields(Chart)},
    "criteria": {field.name for field in dataclasses.fields(Criterion)},
}


@pytest.mark.parametrize("file", sorted(PAPERS_DIR.glob("*/verdicts.toml")), ids=lambda file: file.parent.name)
def test_every_entry_of_the_verdicts_texts_is_said_and_no_line_of_it_goes_unread(file: Path) -> None:
    folder = Path(inspect.getfile(PaperTexts)).parent / file.parent.name.replace("-", "_")
    code = "".join(path.read_text() for path in folder.glob("*.py"))
    for table, entries in read_toml(file).items():
        assert [name for name in entries if not re.search(rf"[\"']{name}[\"']", code)] == [], table
        assert {line for entry in entries.values() if table != "says" for line in entry} <= READ.get(table, set())
