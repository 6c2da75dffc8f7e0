"""Many cases in one test hide none of those that fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from cases import each


def test_all_cases_are_tried_and_those_that_fail_are_named() -> None:
    tried = []

    @each(("number", "odd"), [(1, True), (2, True), (3, False), (4, False)])
    def test(number: int, odd: bool) -> None:
        tried.append(number)
        if number == 4:
            pytest.skip("too large")
        assert number % 2 == odd

    with pytest.raises(AssertionError, match=r"2 of 4 failed: \(2, True\), \(3, False\)$") as raised:
        test()
    assert tried == [1, 2, 3, 4]
    assert isinstance(raised.value.__cause__, AssertionError)


@each("number", [1, 2])
@each("name", ["a", "b"])
def test_cases_of_cases_have_the_fixtures_that_are_no_cases(number: int, name: str, tmp_path: Path) -> None:
    (tmp_path / f"{number}{name}").touch()
    assert len(list(tmp_path.iterdir())) == 2 * number - (name == "a")
