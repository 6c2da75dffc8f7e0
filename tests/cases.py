"""Many cases in one test."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest


def each(names: str | tuple[str, ...], cases: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """In place of `pytest.mark.parametrize`, where a case takes milliseconds: a test of its own for it takes as many.

    All cases are tried; the failure names those that failed, and is raised from the first one's.
    """
    wanted, given = ([names], [(case,) for case in cases]) if isinstance(names, str) else (list(names), list(cases))

    def of(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def all_cases(**fixtures: Any) -> None:
            failed: dict[str, BaseException] = {}
            for case in given:
                try:
                    test(**fixtures, **dict(zip(wanted, case, strict=True)))
                except pytest.skip.Exception:
                    pass
                except (Exception, pytest.fail.Exception) as error:
                    failed[repr(case)] = error
            if failed:
                raise AssertionError(f"{len(failed)} of {len(given)} failed: {', '.join(failed)}") from next(
                    iter(failed.values())
                )

        asked = inspect.signature(test)
        kept = [asked.parameters[name] for name in asked.parameters if name not in wanted]
        all_cases.__signature__ = asked.replace(parameters=kept)  # type: ignore[attr-defined]
        return all_cases

    return of
