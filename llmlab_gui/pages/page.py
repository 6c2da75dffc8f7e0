"""A page of Learn, read into blocks. There are groups of them:

    Paths        resources/paths/*.toml       named paths, paths/text-to-text (paths.py)
    First hour   resources/first-hour/*.md    named first-hour/1-train
    Concepts     resources/concepts/*.md      named attention
    Glossary     resources/glossary.md        named glossary
    How to read  resources/how-to-read/*.md   named how-to-read/1-loss-curve
    Readings     resources/readings/*.md      named readings/1-attention
    Papers       resources/papers/*/notes.md  named papers/grokking (papers.py)
    Results      resources/results/**/*.md    named results/experiments, results/experiments/forgetting/report
    How to       resources/guides/*.md        named guides/corpus

A page is Markdown, with three kinds of lines of its own, each a paragraph:

    @code llmlab/gpt/model.py::GPT.forward      the live source of that symbol
    ? What happens to the loss when ...         a question to predict first
    ! [Train it](lab:run?preset=baby&...)       the run that answers it

A paragraph that begins with bold words, as each entry of the glossary does, is led to by these: `glossary#head-output`.
Where links can lead is in links.py. Formulas are LaTeX in a ```math fence (formulas.py); short ones are plain text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

PATHS, FIRST_HOUR, CONCEPTS, GLOSSARY, HOW_TO_READ, READINGS, PAPERS, RESULTS, HOW_TO = GROUPS = (
    "Paths",
    "First hour",
    "Concepts",
    "Glossary",
    "How to read",
    "Readings",
    "Papers",
    "Results",
    "How to",
)
FIRST_PAGE = "first-hour/1-train"
_BOLD = re.compile(r"^\*\*(.+?)\*\*", re.MULTILINE)
_ENTRY = re.compile(r"^\*\*(.+?)\*\*(?: \((.+?)\))?: (.+)", re.MULTILINE)
_LINK = re.compile(r"\[(.+?)\]\(.+?\)")
_MARKS = {"@code ": "code", "? ": "question", "! ": "run"}


@dataclass(frozen=True)
class Block:
    """kind: `prose`, `question` and `run` hold Markdown; `code` holds `path::Symbol.method`."""

    kind: str
    text: str


_CAME = "For this page"  # what came of a question begins with these words
REVEAL = "reveal:"  # the link in place of what is hidden, with its number on the page
_ENDS = ("#", "? ", "! ", "@code ")  # lines that end what came of a question
_ENDS_OF_HOUR = ("Next:", "## Where to go")  # the same on a page of the first hour, whose later sections tell it, too


def without_outcomes(page: Page, shown: Collection[int] = ()) -> Page:
    """A page whose questions are still open: what came of each is behind a link.

    That is the rest of the paragraph from its words on, with the tables and paragraphs under it. shown: the numbers of
    those that are seen, counted from 0 down the page.
    """
    ends = _ENDS_OF_HOUR if page.group == FIRST_HOUR else _ENDS
    lines, count, hidden, fenced = [], 0, False, False
    for line in page.text.split("\n"):
        fenced ^= line.startswith("```")
        if hidden and not fenced and line.startswith(ends):
            hidden = False
        before, came, _ = line.partition(_CAME)
        if came and not hidden and not fenced and (not before or before.startswith("! ")):
            hidden = count not in shown
            lines.append(f"{before}[Show what came out]({REVEAL}{count})\n" if hidden else line)
            count += 1
        elif not hidden:
            lines.append(line)
    return replace(page, text="\n".join(lines))


@dataclass(frozen=True)
class Entry:
    """One term of the glossary. also: its other names, "" for none. meaning: what stands behind it, without links."""

    term: str
    also: str
    meaning: str


@dataclass(frozen=True)
class Page:
    """One page. name: as in `concept:<name>`. group: one of GROUPS. folder: where figures and relative links begin."""

    name: str
    title: str
    text: str
    group: str = CONCEPTS
    folder: Path = field(default_factory=Path)

    @property
    def blocks(self) -> list[Block]:
        """The page cut at its own kinds of lines; fenced code is left alone."""
        return list(_blocks(self.text))

    @property
    def terms(self) -> list[str]:
        """The bold words that its paragraphs begin with."""
        return _BOLD.findall(self.text)

    @property
    def entries(self) -> list[Entry]:
        """The paragraphs that say what a term means."""
        return [Entry(term, also, _LINK.sub(r"\1", meaning)) for term, also, meaning in _ENTRY.findall(self.text)]


def anchor_of(term: str) -> str:
    """As links write it: `Head output` is head-output."""
    return re.sub(r"\W+", "-", term.lower()).strip("-")


def read_page(path: Path, name: str, group: str) -> Page | None:
    """The page in that file, its title the first heading; None when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    heading = re.search(r"^# (.+)$", text, re.MULTILINE)
    return Page(name, heading[1].strip() if heading else path.stem, text, group, path.parent)


def page_at(page: Page, target: str, pages: Sequence[Page]) -> Page | None:
    """The page that `experiments/scaling/report.md`, written in `page`, leads to; None when it is none of `pages`."""
    path = (page.folder / target.partition("#")[0]).resolve()
    files = {(other.folder / _file_name(other)).resolve(): other for other in pages}
    return files.get(path)


def _file_name(page: Page) -> str:
    return "notes.md" if page.group == PAPERS else f"{page.name.rpartition('/')[2]}.md"


@lru_cache(maxsize=1)
def markdown() -> MarkdownIt:
    """The Markdown that pages are written in: CommonMark and tables, no HTML."""
    from markdown_it import MarkdownIt  # here, not above: the window opens without it

    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _blocks(text: str) -> Iterator[Block]:
    prose: list[str] = []
    lines = iter(text.splitlines())
    fenced = False
    for line in lines:
        fenced ^= line.startswith("```")
        mark = next((mark for mark in _MARKS if line.startswith(mark)), None)
        if fenced or mark is None:
            prose.append(line)
            continue
        if any(part.strip() for part in prose):
            yield Block("prose", "\n".join(prose).strip("\n"))
        prose = []
        paragraph = [line[len(mark) :]]
        if mark != "@code ":
            for more in lines:  # a call-out reaches to the end of its paragraph
                if not more.strip():
                    break
                paragraph.append(more)
        yield Block(_MARKS[mark], "\n".join(paragraph).strip())
    if any(part.strip() for part in prose):
        yield Block("prose", "\n".join(prose).strip("\n"))


def links_of(text: str) -> list[str]:
    """Where the links of a text lead."""
    return [target for kind, target in _targets(text) if kind == "link_open"]


def figures_of(text: str) -> list[str]:
    """The files of its figures, as the text names them."""
    return [target for kind, target in _targets(text) if kind == "image"]


@lru_cache(maxsize=1024)  # the checks ask twice of each text, and a page in sight at each new width
def _targets(text: str) -> tuple[tuple[str, str], ...]:
    """What links and figures lead to, in markdown-it's words for the two."""
    parts = (child for token in markdown().parse(text) for child in token.children or ())
    return tuple((part.type, str(part.attrs.get("href", part.attrs.get("src", "")))) for part in parts)
