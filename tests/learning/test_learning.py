"""Paths through the pages: their stations, when one is done, and what is explained from memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llmlab.cli.main import main
from llmlab.core.errors import LabError
from llmlab.learning.progress import BEGUN, MARKED, OPENED, READ, RESTORED, PathState, StationLog
from llmlab.learning.recall import Try, new_try, save, tries
from llmlab.learning.stations import LearningPath, beside, learning_paths
from llmlab.practice.deck import Deck
from llmlab.practice.kinds import all_kinds
from llmlab.practice.question import VALUE, Marked, Question

NAME = "text-to-text"


def the_path() -> LearningPath:
    return learning_paths()[NAME]


def state_of(outputs: Path, name: str = NAME) -> PathState:
    return StationLog(outputs).standing()[name]


def answered(outputs: Path, concept: str, now: float, given: str = "3", page: str = "") -> None:
    question = Question(
        form=VALUE,
        text="How much?",
        answer="4",
        how="Counted.",
        low=4,
        high=4,
        kind="k",
        way="know",
        concept=concept,
        panel="loss",
    )
    Deck(outputs).add(question, Marked(False, given), now, page)


def test_each_path_has_about_ten_stations_and_a_checklist_that_its_pages_explain() -> None:
    assert list(learning_paths()) == ["text-to-text", "why-it-learns", "reading-a-paper"]
    for path in learning_paths().values():
        assert 9 <= len(path.stations) <= 12
        pages = [station.page for station in path.stations]
        points = path.explain.points
        assert 8 <= len(points) <= 14
        assert {page for point in points for page in point.pages} == set(pages)  # each station has a point
        assert len({point.belongs for point in points}) == len(points)
        assert all(point.belongs.endswith(".") for point in points)
        assert all(station.asks.endswith("?") for station in path.stations)


def test_no_page_is_a_station_twice() -> None:
    pages = [station.page for path in learning_paths().values() for station in path.stations]
    assert len(set(pages)) == len(pages)


def test_each_station_has_two_questions_of_practice() -> None:
    kinds = [kind.concept for kind in all_kinds().values()]
    asked = [station.concept for path in learning_paths().values() for station in path.stations]
    assert [concept for concept in asked if kinds.count(concept) < 2] == []


def test_a_station_is_done_when_its_page_was_read_and_a_question_answered(tmp_path: Path) -> None:
    log = StationLog(tmp_path)
    first = the_path().stations[0].page
    assert state_of(tmp_path).stations[0].words == ""
    log.add(READ, pages=[first], now=10)
    assert state_of(tmp_path).stations[0].words == "page read, question open"
    answered(tmp_path, first, 20, given="")  # to give up is no answer
    assert state_of(tmp_path).done == 0
    answered(tmp_path, first, 30)  # wrong, which counts
    assert state_of(tmp_path).stations[0].words == "done"
    assert state_of(tmp_path).done == 1
    assert state_of(tmp_path).next() is the_path().stations[1]


def test_an_answer_on_a_page_counts_for_its_station_and_one_of_practice_for_all_that_ask_it(tmp_path: Path) -> None:
    shared = "attention-patterns"
    of_both = [
        (name, path.place(station.page))
        for name, path in learning_paths().items()
        for station in path.stations
        if station.concept == shared
    ]
    assert len(of_both) == 2

    def done() -> list[bool]:
        return [state_of(tmp_path, name).stations[place or 0].answered for name, place in of_both]

    answered(tmp_path, shared, 10, page="first-hour/1-train")
    assert done() == [False, False]
    answered(tmp_path, shared, 10, page=shared)
    assert done() == [True, False]
    answered(tmp_path, shared, 10)
    assert done() == [True, True]


def test_what_was_marked_by_hand_says_so_and_can_be_opened_again(tmp_path: Path) -> None:
    log = StationLog(tmp_path)
    page = the_path().stations[2].page
    log.add(MARKED, NAME, [page], now=10)
    assert state_of(tmp_path).stations[2].words == "marked as done"
    log.add(OPENED, NAME, [page], now=20)
    assert not state_of(tmp_path).stations[2].done
    assert state_of(tmp_path).stations[2].words == "open again"
    log.add(OPENED, NAME, [the_path().stations[3].page], now=20)
    assert state_of(tmp_path).stations[3].words == ""  # it was never done
    log.add(READ, pages=[page], now=5)  # before it was opened again
    answered(tmp_path, page, 5)
    assert not state_of(tmp_path).stations[2].done
    log.add(RESTORED, NAME, [page], now=30)  # it was opened by mistake
    assert state_of(tmp_path).stations[2].words == "done"
    log.add(OPENED, NAME, [page], now=40)
    assert not state_of(tmp_path).stations[2].done
    log.add(OPENED, NAME, [page], now=60)
    log.add(RESTORED, NAME, [page], now=70)  # it takes back the last opening alone
    assert not state_of(tmp_path).stations[2].done


def test_a_path_that_is_begun_anew_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    log = StationLog(tmp_path)
    log.add(MARKED, NAME, [the_path().stations[0].page], now=10)
    log.add(MARKED, "why-it-learns", ["loss"], now=10)
    log.add(BEGUN, NAME, now=20)
    assert state_of(tmp_path).done == 0
    assert state_of(tmp_path, "why-it-learns").done == 1


def test_a_damaged_file_is_said_and_left_as_it_is(tmp_path: Path) -> None:
    log = StationLog(tmp_path)
    endless = '{"format": 1, "stations": [{"what": "marked", "path": "p", "page": "loss", "time": Infinity}]}'
    for damaged in (endless, "[]", '{"format": 1, "stations": [{"what": 1}]}', '{"format": 2, "stations": []}', "{"):
        (tmp_path / "learning.json").write_text(damaged)
        for ask in (log.standing, lambda: log.add(READ, pages=["loss"])):
            with pytest.raises(LabError):
                ask()
        assert (tmp_path / "learning.json").read_text() == damaged
    half = '{"format": 1, "stations": [{"what": "read", "path": "", "page": "\\ud800", "time": 1}]}'
    (tmp_path / "learning.json").write_text(half)  # half a character: read, and not written
    assert log.standing()[NAME].done == 0
    with pytest.raises(LabError, match="could not be saved"):
        log.add(READ, pages=["loss"])
    assert (tmp_path / "learning.json").read_text() == half


@pytest.mark.parametrize("text", ["", "One.\n\nTwo.", "Ends with lines\n\n", "# A heading\n\nBegun early.\n- [x] mine"])
def test_an_explanation_comes_back_as_it_was_written(tmp_path: Path, text: str) -> None:
    path = the_path()
    draft = replace(new_try(tmp_path, path, 1e9), text=text)
    draft = save(draft, path)
    (found,) = tries(tmp_path, path)
    assert (found.text, found.uncovered, found.time) == (text, False, 1e9)
    had = {point.belongs: place % 2 == 0 for place, point in enumerate(path.explain.points)}
    save(replace(draft, had=had), path)
    (found,) = tries(tmp_path, path)
    assert (found.text, found.had) == (text, had)
    assert found.missing(path.explain.points) == path.explain.points[1::2]
    assert state_of(tmp_path).explained is bool(text)  # ticks without a text are none


def test_a_second_try_has_a_file_of_its_own_and_what_is_no_try_is_passed_over(tmp_path: Path) -> None:
    path = the_path()
    for text in ("first", "second"):
        save(replace(new_try(tmp_path, path, 1e9), text=text), path)
    (tmp_path / "explained" / f"{NAME}-notes.md").write_text("mine")
    (tmp_path / "explained" / f"{NAME}-2026-01-01-000000.md").write_bytes(b"\xff")
    assert [one.text for one in tries(tmp_path, path)] == ["first", "second"]


def test_what_another_program_wrote_into_the_file_is_not_lost(tmp_path: Path) -> None:
    path = the_path()
    draft = save(replace(new_try(tmp_path, path, 1e9), text="mine"), path)
    draft.file.write_text("theirs")
    longer = save(replace(draft, text="mine, longer"), path)
    assert draft.file.read_text() == "theirs"
    assert [one.text for one in tries(tmp_path, path)] == ["theirs", "mine, longer"]
    assert save(replace(longer, text="mine, longest"), path).file == longer.file


def test_an_explanation_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "explained").write_text("a file")
    with pytest.raises(LabError, match="Copy your text"):
        save(Try(tmp_path / "explained" / "x.md", 0, "mine"), the_path())


def test_pages_beside_the_paths_are_those_of_no_station() -> None:
    assert beside(["tokens", "checkpoints", "qk-and-ov"]) == ["checkpoints"]


def test_the_terminal_lists_marks_and_begins_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--outputs", str(tmp_path)]
    assert main(["learn", *where]) == 0
    assert "text-to-text     0 of 12  tokens" in capsys.readouterr().out
    assert main(["learn", NAME, "--done", "tokens", *where]) == 0
    shown = capsys.readouterr().out
    assert "marked as done" in shown
    assert "To do: Open Embedding geometry and look" in shown
    assert "llmlab-run practice --concept embeddings" in shown
    assert main(["learn", NAME, "--json", *where]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert [one["done"] for one in plain["stations"]].count(True) == 1
    assert plain["next"] == "embeddings"
    assert main(["learn", NAME, "--anew", *where]) == 0
    assert state_of(tmp_path).done == 0
    for wrong in (["learn", "gone"], ["learn", NAME, "--done", "gone"], ["learn", "--anew"]):
        assert main([*wrong, *where]) == 2
