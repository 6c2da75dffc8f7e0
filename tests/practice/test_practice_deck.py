"""Marks, the store of answers, when a kind comes back, and asking in the terminal."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from random import Random

import pytest
from cases import each

from llmlab.cli.main import main
from llmlab.core.errors import LabError, UsageError
from llmlab.core.records import from_plain
from llmlab.practice.deck import Answer, Deck, Record, due_times, when_words
from llmlab.practice.question import (
    CHOICE,
    HEAD,
    INTERVAL,
    VALUE,
    Marked,
    Question,
    interval_words,
    mark,
    number,
)

DAY = 86400.0


def asked(form: str = VALUE, **changes: object) -> Question:
    values = {
        "kind": "kv-cache",
        "way": "know",
        "concept": "attention",
        "panel": "parameters",
        "form": form,
        "text": "How much?",
        "answer": "4 MB",
        "how": "Counted.",
        "low": 3.9,
        "high": 4.1,
    }
    return Question(**(values | changes))


def answer(kind: str, right: bool, day: float, **changes: object) -> Answer:
    values = {"way": "know", "concept": "attention", "form": VALUE, "given": "1", "answer": "2"}
    return Answer(kind=kind, right=right, time=day * DAY, **(values | changes))


@each(
    ("text", "unit", "value"),
    [
        ("1,234", "", 1234),
        ("1,234.5", "", 1234.5),
        ("1.2k", "", 1200),
        ("1.2k parameters", "", 1200),
        ("3 million", "", 3e6),
        ("3.5 M", "", 3.5e6),
        ("1.5 MFLOPs", "", 1.5e6),
        ("32 dimensions", "", 32),
        ("6 MB", "MB", 6),
        ("6 M", "MB", 6),
        ("1.5 GB", "MB", 1500),
        ("500 kB", "MB", 0.5),
        ("1.5 MB", "kB", 1500),
        ("6 G", "GB", 6),
        ("600 MB", "GB", 0.6),
        ("3,226,112 B", "MB", 3.226112),
        ("2 MiB", "MB", 2.097152),
        ("2k tokens/s", "tokens/s", 2000),
        ("1 step", "steps", 1),
        ("40 %", "%", 40),
        ("40 %", "", 0.4),
        ("3e5", "", 3e5),
        ("-2", "", -2),
        ("−2", "", -2),
        (".5", "", 0.5),
        ("1/128", "", 1 / 128),
        ("14/41", "%", 1400 / 41),
        ("14/41 %", "%", 14 / 41),
        ("-3 / 2 steps", "steps", -1.5),
        ("1/2 million", "", 5e5),
        ("1/2 G", "MB", 500),
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, unit: str, value: float) -> None:
    assert number(text, unit) == pytest.approx(value)


@each(
    ("text", "unit"),
    [
        ("1,5", ""),
        ("1 234", ""),
        ("2..5", ""),
        ("1/0", ""),
        ("1/128k", ""),
        ("1/2 M", "steps"),
        ("1/2/3", ""),
        ("40 %", "MB"),
        ("3 apples", "steps"),
        ("", ""),
    ],
)
def test_what_could_be_meant_otherwise_is_no_number(text: str, unit: str) -> None:
    with pytest.raises(UsageError):
        number(text, unit)


def test_answers_are_marked_and_what_cannot_be_one_is_said() -> None:
    assert mark(asked(), "4").right
    assert not mark(asked(), "5").right
    choice = asked(CHOICE, choices=("a", "b"), right=("b",))
    assert mark(choice, "2").right
    assert mark(choice, "b").right
    assert not mark(choice, "1").right
    share = asked(low=32.0, high=36.0, unit="%")
    assert [mark(share, given).right for given in ("34", "0.34", "0.34 %", "0.34 percent")] == [
        True,
        True,
        False,
        False,
    ]
    head = asked(HEAD, right=("2.1", "0.0"))
    assert mark(head, "02.1").right
    assert not mark(head, "1.1").right
    interval = asked(INTERVAL, low=4.0, high=4.0)
    assert mark(interval, "3..5").right
    assert mark(interval, "3 to 5") == mark(interval, "3..5")
    assert mark(interval, "-1.5 to -0.5") == mark(interval, "-1.5..-0.5")
    assert mark(interval, "5..7").missed == pytest.approx(0.5)
    for question, wrong in ((asked(), "much"), (choice, "3"), (head, "2"), (interval, "5..3"), (interval, "4")):
        with pytest.raises(UsageError):
            mark(question, wrong)


@each(
    ("low", "high", "said"),
    [
        (4.0, 4.0, "exactly"),
        (2 * 0.95, 2 * 1.05, "within 5 %"),
        (-3.03, -2.97, "within 1 %"),
        (4.33, 4.53, "within 0.1"),
    ],
)
def test_how_far_a_number_may_be_from_the_answer_is_said_without_it(low: float, high: float, said: str) -> None:
    assert asked(low=low, high=high).expects == f"a number, {said}"


def test_an_interval_that_is_too_wide_holds_the_value_and_is_not_right() -> None:
    question = asked(INTERVAL, low=4.0, high=4.0, useful=2.0, unit="nats")
    good, wide, off = (mark(question, given) for given in ("3..5", "0..100", "5..7"))
    assert [(one.right, one.held) for one in (good, wide, off)] == [(True, True), (False, True), (False, False)]
    assert good.score == pytest.approx(1.0)  # as wide as is useful
    assert wide.score == pytest.approx(50.0)
    assert off.score == pytest.approx((2 + 10 * 1) / 2)  # Gneiting and Raftery: the width, and 2 / (1 - 0.8) times 1
    assert "too wide to be useful: 100 nats. 2 nats would do." in interval_words(question, wide)
    assert "0.5 widths of your interval outside" in interval_words(question, off)
    assert interval_words(question, mark(question, "3.5..4.5")).startswith("Interval score: 0.50")
    assert "counts as" not in interval_words(question, good)
    assert interval_words(question, wide).endswith("It counts as 5 in the mean.")
    narrow = asked(INTERVAL, low=3.0, high=3.0, useful=1.0)
    wide = asked(INTERVAL, low=3.0, high=3.0, useful=1.0, unit="nats")
    assert "1 nat would do." in interval_words(wide, mark(wide, "0..9"))
    long = asked(INTERVAL, low=300.0, high=300.0, useful=1000.0, unit="steps")
    assert "at 1,000 steps wide" in interval_words(long, mark(long, "0..1000"))
    assert mark(narrow, "2.2..3.2").right  # whose width is 1.0000000000000002


def test_calibration_counts_what_was_held_and_widths_what_was_useful(tmp_path: Path) -> None:
    deck = Deck(tmp_path)
    question = asked(INTERVAL, low=4.0, high=4.0, useful=2.0)
    for place, given in enumerate(("3..5", "0..100", "5..7")):
        deck.add(question, mark(question, given), now=place * DAY)
    old = json.loads(deck.path.read_text())
    old["answers"].append({k: v for k, v in old["answers"][0].items() if k not in ("held", "score", "how")})
    deck.path.write_text(json.dumps(old))
    record = deck.read()
    assert (record.calibration().right, record.calibration().count) == (3, 4)  # one is from before it was kept
    widths = record.widths()
    assert (widths.wide, widths.count) == (1, 4)
    assert widths.over_time == pytest.approx((1.0, 3.0, 11 / 3))  # scores 1, 50 and 6, two of them too large
    assert "3.67" in widths.verdict
    assert "1 of 4 intervals was too wide" in widths.verdict
    assert record.by_way()["know"].right == 2
    assert Record().widths().verdict == "No interval has a score yet."
    deck.add(question, Marked(False, ""), now=9 * DAY)  # "I don't know" states no interval
    record = deck.read()
    assert (record.calibration().count, record.widths().count) == (4, 4)
    assert record.by_way()["know"].answered == 5


def test_a_question_survives_json() -> None:
    for question in (asked(), asked(CHOICE, choices=("a", "b"), right=("b",))):
        assert from_plain(Question, json.loads(json.dumps(question.as_dict()))) == question


def test_what_was_missed_comes_back_before_what_was_right() -> None:
    due = due_times([answer("right", True, 0), answer("wrong", False, 0)])
    assert DAY / 2 < due["wrong"] <= 1.5 * DAY < due["right"]
    again = due_times([answer("right", True, 0), answer("right", True, due["right"] / DAY)])
    assert again["right"] - due["right"] > due["right"]  # known twice, it comes back later still
    second = due["right"] / DAY
    missed = due_times([answer("right", True, 0), answer("right", False, second)])
    assert missed["right"] - due["right"] < due["right"]  # and missed, sooner than at first
    assert when_words(due["wrong"], 0.0) == "tomorrow"


def test_due_kinds_are_asked_first_then_new_ones() -> None:
    record = Record(due={"old": 1.0, "older": 0.0, "later": 99.0})
    chosen = record.choose(["later", "old", "older", "new"], 4, 10.0, Random(0))
    assert chosen == ["older", "old", "new", "later"]


def test_answers_are_kept_with_what_others_wrote_beside_them(tmp_path: Path) -> None:
    deck = Deck(tmp_path)
    assert deck.read() == Record()
    deck.add(asked(), mark(asked(), "4"), now=0.0)
    values = json.loads(deck.path.read_text())
    values["answers"][0]["of a later version"] = 1
    deck.path.write_text(json.dumps(values))
    deck.add(asked(INTERVAL, low=4.0, high=4.0), mark(asked(INTERVAL, low=4.0, high=4.0), "5..7"), now=DAY)
    kept = json.loads(deck.path.read_text())["answers"]
    assert [row["right"] for row in kept] == [True, False]
    assert kept[0]["of a later version"] == 1
    record = deck.read()
    assert record.by_concept()["attention"].answered == 2
    assert record.by_way()["know"].now_right == 0  # the last answer of the kind was wrong
    assert record.calibration().count == 1
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["practice.json"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"format": 9, "answers": []}',
        '{"answers": [{"kind": 1}]}',
        "[]",
        *(
            '{"format": 1, "answers": [{"kind": "a", "way": "know", "concept": "b", "form": "number", "given": "1", '
            f'"answer": "2", "right": true, "time": {time}}}]}}'
            for time in ("NaN", "1e300", "-1e300", '1, "held": "no"', '1, "score": NaN')
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    deck = Deck(tmp_path)
    deck.path.write_text(text)
    with pytest.raises(LabError):
        deck.read()
    with pytest.raises(LabError):
        deck.add(asked(), mark(asked(), "4"))
    assert deck.path.read_text() == text


def test_the_terminal_asks_marks_and_keeps(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["practice", "--json", "--kind", "perplexity", "--seed", "1"]) == 0
    (question,) = json.loads(capsys.readouterr().out)
    right = (question["low"] + question["high"]) / 2
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"much\n{right}\n"))
    assert main(["practice", "--kind", "perplexity", "--seed", "1"]) == 0
    said = capsys.readouterr()
    assert "Right. The answer: " in said.out
    assert question["how"] in said.out
    assert "is not a number" in said.err
    assert "1 of 1 right" in said.err
    assert main(["practice", "--progress", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ways"]["know"] == {
        "answered": 1,
        "right": 1,
        "kinds": 1,
        "now_right": 1,
    }
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))  # one is given up, and the input ends; none of them trains
    assert main(["practice", "--count", "2", "--concept", "tokens", "--seed", "1"]) == 0
    assert [row.right for row in Deck(outputs).read().answers] == [True, False]
    for wrong in (["--kind", "no"], ["--concept", "no"], ["--kind", "without-a-head"], ["--count", "0"], ["nothing"]):
        assert main(["practice", *wrong]) == 2
    capsys.readouterr()
    assert main(["practice", "--list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) >= 60
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n"))
    assert main(["practice", "--kind", "what-refutes"]) == 0
    assert ".." not in capsys.readouterr().out  # its answer is a sentence already
