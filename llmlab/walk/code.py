"""The lines of code that do a stage: of the lab's own GPT, or of the transformers file that the model comes from."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

import llmlab
from llmlab.walk.stage import Code

_ROOT = Path(llmlab.__file__).resolve().parent.parent


def code_of(thing: Any, *wanted: str) -> Code | None:
    """The first lines of a class, function or method that hold one of `wanted`, tried in order.

    A statement that goes on over several lines is whole. None where the source is not at hand, or has no such line.
    """
    try:
        thing = inspect.unwrap(thing)
        lines, first = inspect.getsourcelines(thing)
        path = Path(inspect.getsourcefile(thing) or "").resolve()
    except (OSError, TypeError):
        return None
    for word in wanted:
        for at, line in enumerate(lines):
            if word in line and not line.lstrip().startswith(("#", '"', "def ")):
                text = textwrap.dedent("".join(_statement(lines, at))).rstrip()
                return Code(_name(path), first + at, text)
    return None


def _statement(lines: list[str], at: int) -> list[str]:
    """From a line on until its brackets are closed."""
    depth = 0
    for end, line in enumerate(lines[at:], at):
        depth += sum(line.count(sign) for sign in "([{") - sum(line.count(sign) for sign in ")]}")
        if depth <= 0:
            return lines[at : end + 1]
    return lines[at:]


def _name(path: Path) -> str:
    """A file's name from the package on: as in the checkout, or below site-packages."""
    if path.is_relative_to(_ROOT / "llmlab"):
        return path.relative_to(_ROOT).as_posix()
    parts = path.parts
    for package in ("transformers", "peft", "torch"):
        if package in parts:
            return "/".join(parts[parts.index(package) :])
    return path.name
