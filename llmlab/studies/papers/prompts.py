"""Texts of equal length and several kinds: what a model does on one kind of text may be that kind's own.

Prose (Austen), speech (Shakespeare) and stories come from the corpora that the lab has with it; records and code are
made up here. Every prompt begins where a paragraph, a story, a line does, as texts do in training; and with the
beginning-of-text token where the tokenizer puts one before every text.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from llmlab.core.errors import LabError
from llmlab.data.corpora import find_corpus
from llmlab.data.tokenizers import TextTokenizer

# Characters for a token: far more than any tokenizer needs for ordinary English (GPT-2's reads 4 to 5).
_CHARACTERS = 10
# Texts of a domain that are tried for each prompt: a vocabulary of characters may lack one that a text has.
_TRIES = 10
_CITIES = ("Lisbon", "Oslo", "Quito", "Nairobi", "Hanoi", "Perth", "Turin", "Cork")
_SKIES = ("rain", "clear", "fog", "snow", "wind")
_VERBS = ("count", "merge", "filter", "scale", "split", "total")
_NOUNS = ("rows", "words", "prices", "edges", "users", "names")


@dataclass(frozen=True)
class Prompts:
    """ids: prompts of one length. domains: of each, its kind of text."""

    ids: list[list[int]]
    domains: list[str]


def draw_prompts(tokenizer: TextTokenizer, tokens: int, each: int, seed: int = 0) -> Prompts:
    """`each` prompts of every domain that the tokenizer can read, all `tokens` long, no two alike.

    LabError when it can read none: the tokens of a task are no text.
    """
    ids: list[list[int]] = []
    domains: list[str] = []
    before = always_first(tokenizer)
    why = ""
    for domain, texts in DOMAINS.items():
        found: list[list[int]] = []
        source = texts(random.Random(f"{domain} {seed}"), tokens * _CHARACTERS)
        for _ in range(_TRIES * each):
            try:
                prompt = [*before, *tokenizer.encode(next(source))][:tokens]
            except LabError as error:
                why = str(error)
                continue
            if len(prompt) == tokens and prompt not in found:
                found.append(prompt)
            if len(found) == each:
                ids += found
                domains += [domain] * each
                break
    if not ids:
        raise LabError("It reads no ordinary text.", why, "Name a model of language.")
    return Prompts(ids, domains)


def always_first(tokenizer: TextTokenizer) -> list[int]:
    """The beginning-of-text token of a tokenizer that puts it before every text, else nothing."""
    if tokenizer.beginning is not None and getattr(tokenizer, "adds_bos", False):
        return [tokenizer.beginning]
    return []


def _from_corpus(name: str) -> Callable[[random.Random, int], Iterator[str]]:
    """Stretches of a corpus that begin after an empty line."""

    def texts(source: random.Random, characters: int) -> Iterator[str]:
        documents = _documents(name)
        while True:
            document = source.choice(documents)
            start = document.find("\n\n", source.randrange(max(1, len(document) - characters)))
            if start >= 0:
                yield document[start : start + characters].strip()

    return texts


@cache
def _documents(name: str) -> list[str]:
    return list(find_corpus(name).documents())


def _joined(pieces: Callable[[random.Random], Iterator[str]]) -> Callable[[random.Random, int], Iterator[str]]:
    """Texts of endless pieces, each text as long as is asked for or a little longer."""

    def texts(source: random.Random, characters: int) -> Iterator[str]:
        while True:
            text, more = "", pieces(source)
            while len(text) < characters:
                text += next(more)
            yield text

    return texts


def _stories(source: random.Random) -> Iterator[str]:
    """Stories one after the other, from the beginning of one."""
    stories = _documents("stories")
    start = source.randrange(len(stories))
    return itertools.cycle(stories[start:] + stories[:start])


def _records(source: random.Random) -> Iterator[str]:
    """Lines of a table with commas."""
    while True:
        day = f"2021-{source.randint(1, 12):02}-{source.randint(1, 28):02}"
        measured = f"{source.uniform(-9, 35):.1f},{source.randint(20, 99)}"
        yield f"{day},{source.choice(_CITIES)},{measured},{source.choice(_SKIES)}\n"


def _code(source: random.Random) -> Iterator[str]:
    """Short functions of Python."""
    while True:
        verb, noun, limit = source.choice(_VERBS), source.choice(_NOUNS), source.randint(2, 99)
        keep = source.choice(("found.append(one)", "found.append(one * 2)", "found.insert(0, one)"))
        head = f"def {verb}_{noun}({noun}, limit={limit}):\n    found = []\n    for one in {noun}:\n"
        yield f"{head}        if len(str(one)) < limit:\n            {keep}\n    return found\n\n\n"


DOMAINS: dict[str, Callable[[random.Random, int], Iterator[str]]] = {
    "prose": _from_corpus("austen"),
    "speech": _from_corpus("shakespeare"),
    "stories": _joined(_stories),
    "records": _joined(_records),
    "code": _joined(_code),
}
