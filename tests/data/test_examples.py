"""Reading examples: four kinds of rows from three kinds of files, and what is wrong with a line, line by line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from fakes import CancelAfter
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

from llmlab.core.errors import Cancelled, LabError, UsageError
from llmlab.core.progress import quiet
from llmlab.data import example_files
from llmlab.data.examples import Example, Message, Source, content_of, read_source, split_examples


def read(source: Path | str, max_examples: int = 0) -> Source:
    return read_source(str(source), quiet, max_examples)


def jsonl(path: Path, *lines: Any) -> Path:
    """Each line as JSON; text and bytes as they are."""
    whole = b"".join(
        (line if isinstance(line, bytes) else line.encode() if isinstance(line, str) else json.dumps(line).encode())
        + b"\n"
        for line in lines
    )
    path.write_bytes(whole)
    return path


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        return jsonl(path, *rows)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def turns(*contents: str) -> tuple[Message, ...]:
    return tuple(Message(("user", "assistant")[place % 2], content) for place, content in enumerate(contents))


ROWS: dict[str, tuple[list[dict[str, Any]], list[tuple[Message, ...]]]] = {
    "instruction": (
        [
            {"instruction": "Sort", "input": "b a, é", "output": "a b"},
            {"instruction": "Say it", "input": "", "output": "it\nnow"},
        ],
        [turns("Sort\n\nb a, é", "a b"), turns("Say it", "it\nnow")],
    ),
    "prompt": ([{"prompt": "2 + 2 =", "completion": "4"}], [turns("2 + 2 =", "4")]),
    "text": ([{"text": "Once."}, {"text": "Upon."}], [(Message("text", "Once."),), (Message("text", "Upon."),)]),
}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("kind", ROWS)
def test_each_kind_of_row_is_read_from_each_kind_of_file(tmp_path: Path, kind: str, suffix: str) -> None:
    rows, expected = ROWS[kind]
    found = read(table(tmp_path / f"rows{suffix}", rows))
    assert [example.messages for example in found.examples] == expected
    assert [example.number for example in found.examples] == list(range(1, len(rows) + 1))
    assert found.bad == ()


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_conversations_are_read_with_all_their_turns(tmp_path: Path, suffix: str) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "See you"},
    ]
    [example] = read(table(tmp_path / f"rows{suffix}", [{"messages": messages}])).examples
    assert [vars(message) for message in example.messages] == messages
    assert (example.question, example.answer) == ("Bye", "See you")


BAD = [
    (b'{"text": ', "not JSON"),
    (b'"text"', "not an object"),
    (b'{"text": "\xff"}', "not UTF-8"),
    ({"foo": 1}, "none of the columns"),
    ({"text": "  "}, "text is empty"),
    ({"text": ["a"]}, "text is not text"),
    ({"instruction": "a"}, "no answer"),
    ({"instruction": "a", "output": ""}, "output is empty"),
    ({"prompt": "a", "completion": None}, "no answer"),
    ({"messages": []}, "not a list of turns"),
    ({"messages": "hi"}, "not a list of turns"),
    ({"messages": [{"role": "user", "content": "a"}]}, "no message of the assistant"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "role 'tool'"),
    ({"messages": [{"role": "user", "content": None}]}, "content of message 1 is not text"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}, "answer in message 2"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "only be the first"),
    (b'{"text": "half \\ud83d"}', "half a character"),
    ({"prompt": "a", "completion": "b", "check": "later"}, "check is 'later'"),
]


@pytest.mark.parametrize(("line", "why"), BAD, ids=[why for _, why in BAD])
def test_a_bad_line_is_named_and_the_others_are_read(tmp_path: Path, line: Any, why: str) -> None:
    good = {"prompt": "a", "completion": "b"}
    found = read(jsonl(tmp_path / "rows.jsonl", good, "", line, good))
    assert [example.number for example in found.examples] == [1, 4]
    [bad] = found.bad
    assert bad.number == 3
    assert why in bad.why
    assert bad.why.endswith(".")


def test_a_row_of_a_csv_with_too_many_cells_is_named_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('prompt,completion\na,b\na,b,c\n"a\nb",c\nx\n', encoding="utf-8")
    found = read(path)
    assert [(line.number, line.why) for line in found.bad] == [
        (2, "It has 3 cell(s) where the header has 2."),
        (4, "It has 1 cell(s) where the header has 2."),
    ]
    assert [example.question for example in found.examples] == ["a", "a\nb"]


def test_a_number_as_an_answer_is_read_as_text(tmp_path: Path) -> None:
    [example] = read(jsonl(tmp_path / "rows.jsonl", {"prompt": "2 + 2 =", "completion": 4})).examples
    assert example.answer == "4"


def _missing(folder: Path) -> str:
    return str(folder / "nothing.jsonl")


def _empty(folder: Path) -> str:
    return str(jsonl(folder / "rows.jsonl"))


def _columns(folder: Path) -> str:
    return str(jsonl(folder / "rows.jsonl", {"question": "a", "reply": "b"}))


def _unanswered(folder: Path) -> str:
    return str(jsonl(folder / "rows.jsonl", *[{"messages": [{"role": "user", "content": "a"}]}] * 5))


def _suffix(folder: Path) -> str:
    path = folder / "rows.xml"
    path.write_text("<a/>", encoding="utf-8")
    return str(path)


def _not_parquet(folder: Path) -> str:
    path = folder / "rows.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    return str(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_missing, "It is neither a file here"),
        (lambda folder: str(folder), "is a folder"),
        (_empty, "is empty"),
        (_columns, "Its columns are question, reply"),
        (_unanswered, r"None of its 5 line\(s\) can be used \(line 1: It has no answer"),
        (_suffix, r"It reads \.jsonl, \.csv, \.parquet"),
        (_not_parquet, "is not a readable Parquet file"),
        (lambda folder: "someone/data", "HF_HUB_OFFLINE is set"),
        (lambda folder: "", "There are no examples"),
    ],
)
def test_what_cannot_be_learned_from_is_said_in_a_sentence(
    tmp_path: Path, make: Callable[[Path], str], words: str
) -> None:
    with pytest.raises(LabError, match=words) as raised:
        read(make(tmp_path))
    assert raised.value.do


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a network were there; at the hub's address nobody answers."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


@pytest.mark.timeout(25)  # the hub's own client would try for half a minute
@pytest.mark.usefixtures("online")
def test_a_hub_that_does_not_answer_is_said_within_seconds() -> None:
    with pytest.raises(LabError, match=r"The data set someone/data could not be loaded from the hub\. .*refused"):
        read("someone/data")


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize(("max_examples", "streamed"), [(0, False), (2, True)])
def test_rows_of_the_hub_are_read_as_those_of_a_file(
    monkeypatch: pytest.MonkeyPatch, max_examples: int, streamed: bool
) -> None:
    import datasets  # it takes a second

    asked: list[Any] = []

    def load_dataset(name: str, configuration: str | None, **options: Any) -> datasets.Dataset:
        asked.append((name, configuration, options))
        rows = [{"instruction": "a", "output": "b"}, {"instruction": "c", "output": ""}, {"instruction": "d"}]
        return datasets.Dataset.from_list([*rows, {"instruction": "e", "output": "f"}])

    monkeypatch.setattr(example_files, "hub_silence", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = read("someone/data:main", max_examples)
    safe = {"revision": None, "trust_remote_code": False}  # no program of a set is ever run
    assert asked == [("someone/data", "main", {"split": "train", "streaming": streamed, **safe})]
    assert [(example.number, example.answer) for example in found.examples] == [(1, "b"), (4, "f")]
    assert [line.number for line in found.bad] == [2, 3]
    assert found.origin == "https://huggingface.co/datasets/someone/data"


def test_reading_ends_when_it_is_no_longer_wanted() -> None:
    with pytest.raises(Cancelled):
        read_source("tasks", CancelAfter())


def test_no_more_examples_are_read_than_asked_for(tmp_path: Path) -> None:
    rows = [{"prompt": str(place), "completion": "b"} for place in range(20)]
    assert len(read(jsonl(tmp_path / "rows.jsonl", *rows), 7).examples) == 7
    assert len(read("tasks", 5).examples) == 5


def test_a_sources_hash_changes_with_its_content(tmp_path: Path) -> None:
    one = read(jsonl(tmp_path / "a.jsonl", {"text": "a"})).sha256
    assert read(jsonl(tmp_path / "b.jsonl", {"text": "a"})).sha256 == one
    assert read(jsonl(tmp_path / "a.jsonl", {"text": "b"})).sha256 != one


EXAMPLES = st.lists(st.integers(0, 30), min_size=2, max_size=40).filter(lambda contents: len(set(contents)) > 1)


@given(contents=EXAMPLES, fraction=st.floats(0.01, 0.5), seed=st.integers(0, 5))
def test_a_split_has_each_example_once_and_what_is_the_same_on_one_side(
    contents: list[int], fraction: float, seed: int
) -> None:
    examples = [Example(number, turns(str(content), "b")) for number, content in enumerate(contents, start=1)]
    train, held_out = split_examples(examples, fraction, seed)
    assert sorted(example.number for example in train + held_out) == [example.number for example in examples]
    assert train
    assert held_out
    assert {content_of(example) for example in train}.isdisjoint(content_of(example) for example in held_out)
    shuffled = sorted(examples, key=lambda example: example.number * 7919 % 101)
    assert {example.number for example in split_examples(shuffled, fraction, seed)[1]} == {
        example.number for example in held_out
    }


def test_the_held_out_share_is_the_one_that_was_asked_for_and_depends_on_the_seed() -> None:
    examples = read("tasks").examples
    parts = [{example.number for example in split_examples(examples, 0.1, seed)[1]} for seed in (1, 2)]
    assert [len(part) for part in parts] == [60, 60]
    assert parts[0] != parts[1]


def test_examples_that_all_say_the_same_cannot_be_split() -> None:
    with pytest.raises(LabError, match="cannot be split"):
        split_examples([Example(number, turns("a", "b")) for number in (1, 2, 3)], 0.1, 0)


def test_an_unknown_name_is_wrong_use() -> None:
    with pytest.raises(UsageError):
        read("taks")
