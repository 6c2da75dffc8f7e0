"""Pages are found by the words that say something of them."""

from __future__ import annotations

import re

from llmlab_gui.pages.library import load_all
from llmlab_gui.pages.page import Page
from llmlab_gui.pages.search import BEGINNING, counts_of, words_of


def test_a_word_that_every_page_has_ranks_none_before_another() -> None:
    texts = {"often": "run " * 60 + "stop", "answer": "run run stop stop", "neither": "run"}
    pages = [Page(name, name, text) for name, text in texts.items()]
    for typed in ("stop a run", "How do I stop the run?", "run stop"):
        assert list(counts_of(pages, words_of(typed))) == ["answer", "often"]
    assert words_of("Why is my loss not going down?") == ["loss", "down"]


def test_words_are_counted_where_they_begin_as_a_reader_sees_them() -> None:
    pages = load_all()
    for word in ("loss", "rate", "a", "k", "$", "_"):
        found = counts_of(pages, [word])
        for page in pages:
            seen = re.sub(r"\]\([^)\s]*\)", "]", page.text).lower()
            assert found.get(page.name, 0) == len(re.findall(BEGINNING + re.escape(word), seen)), (page.name, word)
