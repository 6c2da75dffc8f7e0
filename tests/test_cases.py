"""Many cases in one test hide none of those that fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cases import each


def test_all_cases_are_tried_and_each_that_fails_is_named_with_its_reason() -> None:
    tried = []

    @each(("number", "odd"), [(1, True), (2, True), (3, False), (4, False), (5, True)])
    def test(number: int, odd: bool) -> None:
        tried.append(number)
        if number == 4:
            pytest.skip("too large")
        if number == 5:
            sys.exit("as argparse does")
        assert number % 2 == odd, "no"

    said = r"^3 of 5 failed:\ncase 1, \(2, True\): AssertionError: no\n[^\n]*\ncase 2, \(3, False\): .*\n.*\n"
    with pytest.raises(AssertionError, match=said + r"case 4, \(5, True\): SystemExit: as argparse does$") as raised:
        test()
    assert tried == [1, 2, 3, 4, 5]
    assert isinstance(raised.value.__cause__, AssertionError)


def test_none_passes_where_nothing_is_tested() -> None:
    with pytest.raises(AssertionError, match="no case"):
        each("number", [])
    with pytest.raises(pytest.skip.Exception, match="not here"):
        each("number", [1, 2])(lambda number: pytest.skip("not here"))()


@each("number", [1, 2])
@each("name", ["a", "b"])
def test_cases_of_cases_have_the_fixtures_that_are_no_cases(number: int, name: str, tmp_path: Path) -> None:
    (tmp_path / f"{number}{name}").touch()
    assert len(list(tmp_path.iterdir())) == 2 * number - (name == "a")
