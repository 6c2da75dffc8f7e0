"""Searching pages: the words that count of what was typed, and the pages that have them where a reader sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from llmlab_gui.pages.page import Page

# Words that every page has, and that no question is about.
SMALL = frozenset(
    re.findall(
        r"\S+",
        "a an and are as at be by can cannot can't do does doesn't don't for from get gets go goes going how i if in "
        "is isn't it its many me much my no not of on one or over so take that the this to too up was we what when "
        "where which why will with won't you your",
    )
)
BEGINNING = r"(?<![^\W_])"  # of a word; the parts of learning_rate are words
_TARGET = re.compile(r"\]\([^)\s]*\)")  # where a link or a figure leads, which no reader sees


def words_of(typed: str) -> list[str]:
    """In lower case, each once, without the small ones."""
    words = dict.fromkeys(word.strip("?!.,;:") or word for word in typed.lower().split())
    return [word for word in words if word not in SMALL]


def counts_of(pages: Sequence[Page], words: Sequence[str]) -> dict[str, int]:
    """How often words of each page begin with these, by its name, for the pages that have all of them.

    Pages come first whose title has most of them, then those that most often have the word that they have least: what
    every page has says little.
    """
    # As `BEGINNING` would find them, in a tenth of the time: what is looked for first is a plain string.
    patterns = [re.compile(rf"{(one := re.escape(word))}(?<![^\W_]{one})") for word in words]
    found: list[tuple[int, int, int, str]] = []
    for page in pages:
        counts = [len(pattern.findall(_seen(page.text))) for pattern in patterns]
        if all(counts):
            titled = sum(bool(pattern.search(page.title.lower())) for pattern in patterns)
            found.append((titled, min(counts), sum(counts), page.name))
    return {name: count for *_, count, name in sorted(found, key=lambda one: one[:3], reverse=True)}


@cache
def _seen(text: str) -> str:
    """What a reader sees of it, in lower case: each key that is typed searches it."""
    return _TARGET.sub("]", text).lower()
