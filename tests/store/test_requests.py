"""Requests arrive once, in order, and nothing in the folder can hurt whoever trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmlab.store import requests
from llmlab.store.requests import Request


def test_requests_are_taken_once_in_the_order_in_which_they_were_sent(tmp_path: Path) -> None:
    folder = tmp_path / "requests"
    for name in ("pause", "save", "resume"):
        requests.send(folder, name)
    requests.send(folder, "sample", prompts=["a", "b"])
    taken = requests.take(folder)
    assert taken == [Request("pause"), Request("save"), Request("resume"), Request("sample", {"prompts": ["a", "b"]})]
    assert requests.take(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"5",
        b'{"request": "rm -rf"}',
        b'{"request": ["stop"]}',
        b'{"request": {"a": 1}}',
        b'{"options": {}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_request_is_removed_and_left_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "1.json").write_bytes(content)
    requests.send(tmp_path, "save")
    assert requests.take(tmp_path) == [Request("save")]
    assert list(tmp_path.iterdir()) == []


def test_options_of_the_wrong_kind_count_as_none(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text(json.dumps({"request": "sample", "options": ["not", "a", "mapping"]}))
    assert requests.take(tmp_path) == [Request("sample")]


def test_a_folder_named_like_a_request_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "0.json" / "inside").mkdir(parents=True)
    requests.send(tmp_path, "stop")
    assert requests.take(tmp_path) == [Request("stop")]
    assert requests.take(tmp_path) == []


def test_a_request_that_is_still_being_written_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / ".tmp-1.json-ab12cd34").write_text('{"request": "st')
    assert requests.take(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 1


def test_no_folder_holds_no_requests(tmp_path: Path) -> None:
    assert requests.take(tmp_path / "gone") == []


def test_clearing_leaves_nothing(tmp_path: Path) -> None:
    requests.send(tmp_path, "stop")
    requests.clear(tmp_path)
    assert requests.take(tmp_path) == []
