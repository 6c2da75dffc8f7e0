"""All pages of Learn, group by group, in the order in which they are best read."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from llmlab.core.config import read_toml
from llmlab.core.paths import resources_dir
from llmlab_gui.pages.page import (
    CONCEPTS,
    FIRST_HOUR,
    GLOSSARY,
    HOW_TO,
    HOW_TO_READ,
    READINGS,
    RESULTS,
    Page,
    anchor_of,
    read_page,
)
from llmlab_gui.pages.papers import load_paper_pages
from llmlab_gui.pages.paths import load_path_pages

# Which results and guides come before the others, and in which order concept pages are best read; a page that is not
# named there follows, by name.
_ORDER = read_toml(resources_dir() / "reading-order.toml")
READ_FIRST, READING_ORDER = tuple(_ORDER["first"]), tuple(_ORDER["concepts"])


def load_all() -> list[Page]:
    """Every page that comes with the lab, group by group."""
    root = resources_dir()
    results = load_tree(root / "results", "results", RESULTS)
    pages = [
        *load_first_hour(),
        *load_pages(),
        *load_glossary(),
        *load_tree(root / "how-to-read", "how-to-read", HOW_TO_READ),
        *load_tree(root / "readings", "readings", READINGS),
        *load_paper_pages(results),
        *results,
        *load_tree(root / "guides", "guides", HOW_TO),
    ]
    return [*load_path_pages(pages), *pages]


def load_first_hour() -> list[Page]:
    """The pages to begin with, in their order."""
    return load_tree(resources_dir() / "first-hour", "first-hour", FIRST_HOUR)


def load_pages(folder: Path | None = None) -> list[Page]:
    """The concept pages of a folder, the lab's own if None, in reading order; an unreadable file is left out."""
    order = {name: place for place, name in enumerate(READING_ORDER)}
    paths = (folder or resources_dir() / "concepts").glob("*.md")
    in_order = sorted(paths, key=lambda path: (order.get(path.stem, len(order)), path.stem))
    return [page for path in in_order if (page := read_page(path, path.stem, CONCEPTS))]


def load_glossary() -> list[Page]:
    """The page of terms; none where it cannot be read."""
    page = read_page(resources_dir() / "glossary.md", "glossary", GLOSSARY)
    return [page] if page else []


@cache
def _terms() -> tuple[dict[str, str], re.Pattern[str]]:
    """The anchor of each term, and what finds them: of `counterfactual token` and `token` the longer one."""
    anchors = {term.lower(): anchor_of(term) for page in load_glossary() for term in page.terms}
    words = "|".join(re.escape(term) for term in sorted(anchors, key=len, reverse=True)) or "(?!)"
    return anchors, re.compile(rf"(?<![\w-])({words})(s?)(?![\w-]|\.\w)", re.IGNORECASE)


def with_terms(text: str) -> str:
    """A panel's line with each term of the glossary, where it comes first, linked to its entry."""
    anchors, pattern = _terms()
    linked: set[str] = set()

    def link(found: re.Match[str]) -> str:
        anchor = anchors[found[1].lower()]
        if anchor in linked:
            return found[0]
        linked.add(anchor)
        return f'<a href="glossary:{anchor}">{found[0]}</a>'

    return pattern.sub(link, text)


def load_tree(folder: Path, name: str, group: str) -> list[Page]:
    """The pages of a folder and of those in it, each named by its way from there: those of the folder itself first."""

    def place(page: tuple[Path, str]) -> tuple[int, int, str]:
        path, full_name = page
        first = READ_FIRST.index(full_name) if full_name in READ_FIRST else len(READ_FIRST)
        return first, len(path.relative_to(folder).parts), str(path)

    found = ((path, f"{name}/{path.relative_to(folder).with_suffix('').as_posix()}") for path in folder.rglob("*.md"))
    in_order = sorted(found, key=place)
    return [page for path, full_name in in_order if (page := read_page(path, full_name, group))]
