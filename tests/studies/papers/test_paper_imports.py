"""No paper leans on another one, and each has what a plan asks of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import llmlab.studies.papers
from llmlab.studies.papers.checks import PLANS

PAPERS = {path.parent.name: path.parent for path in Path(llmlab.studies.papers.__path__[0]).glob("*/__init__.py")}


def imported(package: Path) -> Iterator[str]:
    """All modules that a package's files name in imports, wherever these stand."""
    for path in package.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", PAPERS)
def test_what_two_papers_need_is_in_neither(name: str) -> None:
    others = tuple(f"llmlab.studies.papers.{other}." for other in PAPERS.keys() - {name})
    assert others
    assert not [module for module in imported(PAPERS[name]) if f"{module}.".startswith(others)]


@pytest.mark.parametrize("name", PLANS)
def test_the_module_that_a_plan_names_measures_and_judges(name: str) -> None:
    judge = import_module(PLANS[name].judge)
    assert callable(judge.measure)
    assert callable(judge.early)
    assert callable(judge.late)
