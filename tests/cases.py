"""Many cases in one test."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest


def each(names: str | tuple[str, ...], cases: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """In place of `pytest.mark.parametrize`, where a case takes milliseconds: a test of its own for it takes as many.

    All cases are tried; the failure says of each that failed what it is and why, and is raised from the first one's.
    Fixtures are made once for all of them.
    """
    wanted, given = ([names], [(case,) for case in cases]) if isinstance(names, str) else (list(names), list(cases))
    assert given, "no case, so nothing would be tested"

    def of(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def all_cases(**fixtures: Any) -> None:
            failed: list[tuple[str, BaseException]] = []
            skipped: list[BaseException] = []
            for number, case in enumerate(given):
                try:
                    test(**fixtures, **dict(zip(wanted, case, strict=True)))
                except pytest.skip.Exception as reason:
                    skipped.append(reason)
                except (Exception, SystemExit, pytest.fail.Exception) as error:
                    why = f"{type(error).__name__}: {error}"
                    failed.append((f"case {number}, {case!r:.200}: {why:.400}", error))
            if failed:
                told = "\n".join(words for words, _ in failed)
                raise AssertionError(f"{len(failed)} of {len(given)} failed:\n{told}") from failed[0][1]
            if len(skipped) == len(given):
                raise skipped[0]

        asked = inspect.signature(test)
        kept = [asked.parameters[name] for name in asked.parameters if name not in wanted]
        all_cases.__signature__ = asked.replace(parameters=kept)
        return all_cases

    return of
