"""A reader's own paper: its questions, what is missing, answers put in place, files told of by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmlab.core.errors import LabError, UsageError
from llmlab.core.kinds import PAPERS
from llmlab.data.papers import PAPERS_DIR, read_paper
from llmlab.studies.papers.own import (
    CLAIM_QUESTIONS,
    NOTES_QUESTIONS,
    PAPER_QUESTIONS,
    OwnPaper,
    find_own_paper,
    note_parts,
    own_papers,
)
from llmlab.studies.papers.own_answers import add_claim, new_paper, write_answer, write_note

# As somebody types it: quotes, a backslash, lines, a header that is none.
HARD = 'It says "0.3 nats", and C:\\x.\n[[claims]]\ntest = "no"\n\tin all of 5 seeds \x7f'


def found(outputs: Path, name: str = "mine") -> OwnPaper:
    own = find_own_paper(name, outputs)
    assert own is not None
    return own


def fill(folder: Path, places: int = 1) -> None:
    """Answers every question of paper, claims and notes."""
    for field, words in (("title", "On Mirrors"), ("authors", "A. Reader"), ("year", "2020")):
        write_answer(folder, None, field, words)
    write_answer(folder, None, "links", "https://example.org/a https://example.org/b")
    for place in range(places):
        for field in CLAIM_QUESTIONS:
            write_answer(folder, place, field, f"an answer about {field}")
    notes = folder / "notes.md"
    notes.write_text(notes.read_text().replace("?\n", "?\n\nSomething.\n"))


def test_a_new_paper_asks_every_question_and_misses_every_answer(tmp_path: Path) -> None:
    folder = new_paper("mine", tmp_path)
    own = found(tmp_path)
    asked = [(one.claim, one.field) for one in own.missing if one.file == "claims.toml"]
    assert asked == [("", field) for field in PAPER_QUESTIONS] + [("claim-1", field) for field in CLAIM_QUESTIONS]
    assert [one.question for one in own.missing if one.file == "notes.md"] == list(NOTES_QUESTIONS)
    for one in own.missing:  # each where it says
        line = (folder / one.file).read_text().splitlines()[one.line - 1]
        assert line.startswith(f"{one.field} =" if one.file == "claims.toml" else f"## {one.question}")
        assert one.question in one.sentence
    assert own.standing == f"{len(own.missing)} answers missing"


def test_what_is_answered_is_missed_no_more_until_it_is_complete(tmp_path: Path) -> None:
    folder = new_paper("mine", tmp_path, "On Mirrors", "https://example.org/a")
    before = found(tmp_path)
    assert {"title", "links"}.isdisjoint(one.field for one in before.missing if not one.claim)
    assert before.paper.title == "On Mirrors"
    write_answer(folder, 0, "control", "Windows of the same size.")
    assert {one.field for one in before.missing if one.claim} - {
        one.field for one in found(tmp_path).missing if one.claim
    } == {"control"}
    fill(folder)
    assert found(tmp_path).missing == ()
    assert found(tmp_path).standing == "complete"


def test_a_complete_paper_is_one_as_the_labs_own(tmp_path: Path) -> None:
    fill(new_paper("mine", tmp_path))
    assert read_paper("mine", tmp_path / PAPERS) == found(tmp_path).paper


@pytest.mark.parametrize(
    ("answers", "field", "why"),
    [
        ({"control": "TODO"}, "control", "has no answer"),
        ({"test": "no"}, "test", "too short"),
        ({"supports": "Five of five seeds.", "refutes": "five of five Seeds."}, "refutes", "supports it, too"),
    ],
)
def test_an_answer_that_holds_nobody_to_anything_is_missing(
    tmp_path: Path, answers: dict[str, str], field: str, why: str
) -> None:
    folder = new_paper("mine", tmp_path)
    fill(folder)
    for name, words in answers.items():
        write_answer(folder, 0, name, words)
    (missing,) = found(tmp_path).missing
    assert missing.field == field
    assert why in missing.sentence


def test_an_answer_is_read_back_as_it_was_written_and_leaves_all_else_alone(tmp_path: Path) -> None:
    folder = new_paper("mine", tmp_path)
    assert add_claim(folder, "second") == 1
    path = folder / "claims.toml"
    path.write_text(path.read_text() + '# my remark\ncontested = """\nof three\nlines"""\n')
    before = path.read_text()
    for place, field in ((1, "statement"), (0, "test"), (1, "contested"), (0, "control"), (1, "statement")):
        write_answer(folder, place, field, HARD)
    first, second = found(tmp_path).paper.claims
    assert first.test == first.control == second.statement == second.contested == HARD.strip()
    assert first.statement == second.test == ""
    kept = [line for line in before.splitlines() if line.startswith("#")]
    assert [line for line in path.read_text().splitlines() if line.startswith("#")] == kept


def test_notes_are_read_back_as_they_were_written_and_leave_all_else_alone(tmp_path: Path) -> None:
    folder = new_paper("mine", tmp_path)
    path = folder / "notes.md"
    path.write_text(path.read_text() + "\n## Mine\n\nAs it was.\n### Smaller\nstill its own\n")
    for place, words in ((1, "Two lines,\n\nand a #hash"), (0, "An idea."), (2, "Nothing."), (1, "Other words")):
        before = {one.question: one.words for one in note_parts(path.read_text())}
        question = NOTES_QUESTIONS[place]
        assert write_note(folder, place, f" {words}\n", (question, before[question])) == words
        after = {one.question: one.words for one in note_parts(path.read_text())}
        assert after == before | {question: words}
    assert after["Mine"] == "As it was.\n### Smaller\nstill its own"
    assert {one.file for one in found(tmp_path).missing} == {"claims.toml"}
    kept = path.read_text()
    for heading in ("# another", "words\n## and one more"):
        with pytest.raises(UsageError, match="heading"):
            write_note(folder, 0, heading, (NOTES_QUESTIONS[0], "An idea."))
    with pytest.raises(UsageError, match="Another program"):
        write_note(folder, 0, "something else", (NOTES_QUESTIONS[0], "not what stands there"))
    assert path.read_text() == kept
    path.write_text("# Only a title\n")
    write_note(folder, 0, "An idea.", (NOTES_QUESTIONS[0], ""))
    assert path.read_text() == f"# Only a title\n\n## {NOTES_QUESTIONS[0]}\n\nAn idea.\n"


def test_an_answer_whose_place_is_in_doubt_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    folder = new_paper("mine", tmp_path)
    path = folder / "claims.toml"
    misleading = (
        '[paper]\ntitle = "a b"\n[[claims]]\nid = "one"\nstatement = """\n[[claims]]\n"""\n[[claims]]\nid = "two"\n'
    )
    path.write_text(misleading)
    with pytest.raises(UsageError, match="editor"):
        write_answer(folder, 1, "test", "this and that")
    for field, words in (("year", "20x"), ("links", "example.org"), ("title", "\ud800")):
        with pytest.raises(UsageError):
            write_answer(folder, None, field, words)
    assert path.read_text() == misleading


def test_two_claims_of_one_id_are_told_apart_and_told_of(tmp_path: Path) -> None:
    folder = new_paper("mine", tmp_path)
    with pytest.raises(UsageError, match="already"):
        add_claim(folder, "claim-1")
    add_claim(folder, "second")
    path = folder / "claims.toml"
    path.write_text(path.read_text().replace('"second"', '"claim-1"'))
    own = found(tmp_path)
    assert [claim.id for claim in own.paper.claims] == ["claim-1", "claim-2"]
    assert [one.claim for one in own.missing if one.field == "id"] == ["claim-2"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('statement = ""', "statement = no quotes", "line 2"),
        ('statement = ""', "statement = 3", "line 2"),
        ('statement = ""', 'statemnt = ""', "'statemnt'"),
        ("year = 0", 'year = "2020"', "Write a number"),
        ("[[claims]]", "[claims]", "two brackets"),
    ],
)
def test_a_broken_file_is_told_of_with_its_place_and_stays_in_the_list(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    folder = new_paper("mine", tmp_path)
    path = folder / "claims.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(LabError, match=r"claims\.toml") as told_of:
        find_own_paper("mine", tmp_path)
    assert told in str(told_of.value)
    (own,) = own_papers(tmp_path)
    assert own.standing == "cannot be read"
    assert own.paper.name == "mine"


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    folder = new_paper("mine", tmp_path)
    (tmp_path / PAPERS / "a-check").mkdir()
    before = (folder / "claims.toml").read_bytes()
    taken = next(path.parent.name for path in sorted(PAPERS_DIR.glob("*/claims.toml")))
    for name in ("mine", "a-check", taken, "../out", "", "a b"):
        with pytest.raises(UsageError):
            new_paper(name, tmp_path)
    with pytest.raises(UsageError, match="link"):
        new_paper("other", tmp_path, link="file:///x")
    assert (folder / "claims.toml").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / PAPERS).iterdir()) == ["a-check", "mine"]


def test_a_file_too_large_is_refused_and_stays_whole(tmp_path: Path) -> None:
    folder = new_paper("mine", tmp_path)
    path = folder / "claims.toml"
    path.write_bytes(path.read_bytes() + b"# " + b"x" * (1 << 20))
    before = path.read_bytes()
    for change in (lambda: write_answer(folder, 0, "test", "this and that"), lambda: add_claim(folder, "second")):
        with pytest.raises(UsageError, match="too large"):
            change()
    assert own_papers(tmp_path)[0].standing == "cannot be read"
    assert path.read_bytes() == before


def test_a_file_as_editors_on_windows_save_it_is_read_and_keeps_its_ends_of_lines(tmp_path: Path) -> None:
    folder = new_paper("mine", tmp_path)
    path = folder / "claims.toml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    write_answer(folder, 0, "test", HARD)
    add_claim(folder, "second")
    assert found(tmp_path).paper.claims[0].test == HARD.strip()
    assert path.read_bytes().count(b"\n") == path.read_bytes().count(b"\r\n") > 40


def test_an_answer_that_another_program_changed_is_not_written_over(tmp_path: Path) -> None:
    folder = new_paper("mine", tmp_path)
    path = folder / "claims.toml"
    kept = write_answer(folder, None, "authors", "A.\nReader ", ("mine", ""))
    assert write_answer(folder, None, "authors", "B. Reader", ("mine", kept)) == "B. Reader"
    path.write_text(path.read_text().replace("[[claims]]", '[[claims]]\nid = "before"\n\n[[claims]]'))
    before = path.read_text()
    for place, seen in ((None, ("mine", kept)), (0, ("claim-1", "")), (7, ("claim-1", ""))):
        with pytest.raises(UsageError, match="Another program"):
            write_answer(folder, place, "authors" if place is None else "test", "this and that", seen)
    assert path.read_text() == before
    write_answer(folder, 1, "test", "this and that", ("claim-1", ""))


def test_year_and_links_can_be_emptied_and_a_year_begins_with_no_zero(tmp_path: Path) -> None:
    folder = new_paper("mine", tmp_path, link="https://example.org/a")
    write_answer(folder, None, "year", "2020")
    with pytest.raises(UsageError, match="not a year"):
        write_answer(folder, None, "year", "0123")
    for field in ("year", "links"):
        write_answer(folder, None, field, "")
    assert (found(tmp_path).paper.year, found(tmp_path).paper.links) == (0, ())


def test_what_stands_under_a_smaller_heading_of_the_notes_counts(tmp_path: Path) -> None:
    folder = new_paper("mine", tmp_path)
    fill(folder)
    notes = folder / "notes.md"
    notes.write_text(notes.read_text().replace("\nSomething.", "\n### Part\n\nSomething."))
    assert found(tmp_path).missing == ()


def test_a_field_that_cannot_be_put_in_place_is_no_fault_of_the_file(tmp_path: Path) -> None:
    folder = new_paper("mine", tmp_path)
    path = folder / "claims.toml"
    path.write_text(path.read_text().replace("control =", '"control" ='))
    with pytest.raises(UsageError, match="editor"):
        write_answer(folder, 0, "control", "this and that")
    with pytest.raises(UsageError, match="half a character"):
        new_paper("other", tmp_path, "\udcff")


def test_an_answer_in_a_script_without_spaces_is_long_enough(tmp_path: Path) -> None:
    folder = new_paper("mine", tmp_path)
    fill(folder)
    write_answer(folder, 0, "control", "与同样大小的随机模型比较")
    assert found(tmp_path).missing == ()
