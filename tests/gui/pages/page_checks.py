"""Checks the pages: dead links, code that is gone, missing parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from llmlab.core.errors import LabError, UsageError
from llmlab.core.paths import resources_dir
from llmlab.core.source_code import find_source
from llmlab_gui.pages.links import FILE, PAGE, read_link
from llmlab_gui.pages.page import CONCEPTS, FIRST_HOUR, HOW_TO, Page, anchor_of, figures_of, links_of

_PARTS = {"code": "lines of our own code", "question": "question", "run": "run that answers"}
# What a page of each group cannot do without.
_NEEDED = {FIRST_HOUR: ("question", "run"), CONCEPTS: ("code", "question", "run"), HOW_TO: ("code",)}


def check_pages(pages: Sequence[Page]) -> list[str]:
    """Error in these pages, one sentence each; their links to pages lead to each other."""
    known = {page.name: page for page in pages}
    problems = [f"{page.name}.md: {problem}" for page in pages for problem in _problems(page, known)]
    hour = [page for page in pages if page.group == FIRST_HOUR]
    return problems + [
        f"{page.name}.md: does not lead to {following.name}."
        for page, following in pairwise(hour)
        if f"concept:{following.name}" not in links_of(page.text)
    ]


def _problems(page: Page, known: Mapping[str, Page]) -> Iterator[str]:
    blocks = page.blocks
    if not page.text.startswith("# "):
        yield "does not begin with its title."
    for kind in _NEEDED.get(page.group, ()):
        if not any(block.kind == kind for block in blocks):
            yield f"has no {_PARTS[kind]}."
    for block in blocks:
        if block.kind == "code":
            try:
                find_source(block.text)
            except LabError as error:
                yield str(error)
        else:
            yield from filter(None, (_dead_link(link, page, known) for link in links_of(block.text)))
            yield from (f"{name} is no figure." for name in figures_of(block.text) if not _is_ours(page, name))


def _dead_link(url: str, page: Page, known: Mapping[str, Page]) -> str | None:
    try:
        link = read_link(url)
    except UsageError as error:
        return f"{url}: {error}"
    if link.kind == PAGE:
        name, _, term = link.target.partition("#")
        if name not in known:
            return f"{url} names no page."
        if term and term not in map(anchor_of, known[name].terms):
            return f"{url} names no term."
    if link.kind == FILE and not _is_ours(page, link.target.partition("#")[0]):
        return f"{url} names no file."
    return None


def _is_ours(page: Page, name: str) -> bool:
    """Whether a file that a page names is there, and comes with the lab."""
    path = (page.folder / name).resolve()
    return path.is_file() and path.is_relative_to(resources_dir().resolve())
