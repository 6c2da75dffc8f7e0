"""Reading code: which line of the lab's own source does what. The source is read when the question is made."""

from __future__ import annotations

import ast
import textwrap
from dataclasses import dataclass
from random import Random

from llmlab.core.errors import LabError
from llmlab.core.records import named_records
from llmlab.core.source_code import find_source
from llmlab.practice.kinds import Found, NothingToAsk, Words, choice, kind
from llmlab.practice.question import READ
from llmlab.practice.subject import Subject

_LONGEST = 110  # characters of a line that is shown


@dataclass(frozen=True)
class Line:
    """A line to find. symbol: FILE::NAME, as @code of pages. has: what no other line of it has. why: what is told.

    beside: the start of a line that could be meant as well, and is not offered; "" for none.
    """

    name: str
    concept: str
    panel: str
    asked: str
    symbol: str
    has: str
    why: str
    beside: str = ""


LINES = [*named_records(Line, "practice/lines.toml").values()]


def lines_of(symbol: str) -> list[str]:
    """The code of FILE::NAME by lines: no docstring, comments, blank lines. NothingToAsk when it is not there."""
    try:
        text = find_source(symbol).code
    except LabError as error:
        raise NothingToAsk(f"The source of {symbol} cannot be read.", error.why) from error
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef)
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    lines = textwrap.dedent("\n".join(text.splitlines()[body[0].lineno - 1 : node.end_lineno])).splitlines()
    code = (line.partition("  #")[0].strip() for line in lines)
    return [line for line in code if len(line) > 8 and not line.startswith("#")]


def _ask(line: Line) -> None:
    @kind(line.name, Words(line.concept, READ, line.panel, "{asked} (In `{symbol}`.)", "`{symbol}` in {path}. {why}"))
    def found(subject: Subject, random: Random) -> Found:
        lines = lines_of(line.symbol)
        right = next((one for one in lines if line.has in one), "")
        if not right:
            raise NothingToAsk(f"{line.symbol} has no such line.")
        others = [
            one[:_LONGEST] for one in lines if line.has not in one and not (line.beside and one.startswith(line.beside))
        ]
        path, _, name = line.symbol.partition("::")
        return choice(random, right[:_LONGEST], others, asked=line.asked, symbol=name, path=path, why=line.why)


for _line in LINES:
    _ask(_line)
