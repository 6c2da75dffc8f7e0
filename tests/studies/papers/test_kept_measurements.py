"""What a check has measured is kept by name: it is made once, and again only where its file says nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmlab.core.errors import LabError
from llmlab.studies.papers.interface import Check


@pytest.fixture
def check(tmp_path: Path) -> Check:
    return Check(["keys"], "minutes", [], tmp_path, tmp_path / "measurements")


def counting(values: dict[str, Any], made: list[int]) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        made.append(1)
        return values

    return make


def test_a_measurement_is_made_once_and_again_where_its_file_is_damaged(check: Check) -> None:
    made: list[int] = []
    values = {"error": 0.1 + 0.2, "heads": [[1.0, 2.0]], "p": None}
    for _ in range(3):
        assert check.kept("seed 1", counting(values, made)) == values
    assert len(made) == 1
    (path,) = check.measurements.iterdir()
    assert json.loads(path.read_bytes()) == values  # every digit
    path.write_text('{"error": 0.3')
    assert check.kept("seed 1", counting(values, made)) == values
    assert len(made) == 2


def test_names_that_read_alike_as_files_are_kept_apart(check: Check) -> None:
    names = ("a b", "a/b", "a-b", "a.b", "a b ", "x" * 80, "x" * 81, "../a-b")
    for place, name in enumerate(names):
        assert check.kept(name, counting({"place": place}, [])) == {"place": place}
    for place, name in enumerate(names):
        assert check.kept(name, dict) == {"place": place}
    assert len({path.name for path in check.measurements.iterdir()}) == len(names)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_a_sentence_and_leaves_nothing(check: Check, value: float) -> None:
    with pytest.raises(LabError, match="seed 1 gives no numbers to judge"):
        check.kept("seed 1", lambda: {"heads": [[0.0, value]]})
    assert list(check.measurements.iterdir()) == []
