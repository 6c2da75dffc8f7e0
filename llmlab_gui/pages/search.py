"""Searching pages: the words that count of what was typed, and the pages that have them where a reader sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmlab_gui.pages.page import Page

# Words that every page has, and that no question is about.
_SMALL = re.compile(
    "a|an|and|are|as|at|be|by|can|do|does|for|from|how|i|in|is|it|its|me|my|of|on|or|that|the|this|to|up|was|we|what|"
    "when|where|which|why|will|with|you|your"
)
BEGINNING = r"(?<![^\W_])"  # of a word; the parts of learning_rate are words
_TARGET = re.compile(r"\]\([^)\s]*\)")  # where a link or a figure leads, which no reader sees


def words_of(typed: str) -> list[str]:
    """In lower case, each once, without the small ones."""
    words = dict.fromkeys(word.strip("?!.,;:") or word for word in typed.lower().split())
    return [word for word in words if not _SMALL.fullmatch(word)]


def counts_of(pages: Sequence[Page], words: Sequence[str]) -> dict[str, int]:
    """How often words of each page begin with these, by its name, for the pages that have all of them.

    Pages come first whose title has most of them.
    """
    patterns = [re.compile(BEGINNING + re.escape(word)) for word in words]
    found: list[tuple[int, str, int]] = []
    for page in pages:
        seen = _TARGET.sub("]", page.text).lower()
        counts = [len(pattern.findall(seen)) for pattern in patterns]
        if all(counts):
            titled = sum(bool(pattern.search(page.title.lower())) for pattern in patterns)
            found.append((titled, page.name, sum(counts)))
    return {name: count for _, name, count in sorted(found, key=lambda one: -one[0])}
