"""The built-in examples: short requests whose answers a program can check. Made here, the same every time.

Ten kinds, so that a model can learn some of them early (repeating, first word, extraction) and others hardly at
all (sums): what a few hundred steps change is then visible as a number. Words are common English ones of one or
two tokens in most vocabularies; prompts stay below 40 tokens of GPT-2. No torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeAlias

# Drawn once; changing it, or anything below, makes another data set, and scores can no longer be compared.
_SEED = 20
_EACH = 60  # of every kind: 600 in all
_TRIES = 100  # until a kind is called too small for so many different requests

_POOLS = {
    "names": (
        "Anna Ben Clara David Emma Frank Grace Henry Ida Jack Kate Leo Mary Nora Oscar Paul Rose Sam Tom Vera Will Zoe"
    ),
    "cities": "Athens Berlin Boston Cairo Dublin Geneva Lima London Madrid Oslo Paris Prague Rome Tokyo Vienna",
    "things": (
        "apples bags balls bells books boxes cups flags hats keys lamps maps nuts pens plates rings shoes stones toys"
    ),
    "colors": "black blue brown gray green orange pink red white yellow",
    "words": (
        "arm bird boat bread cat chair cloud cow dog door egg farm fire fish flower garden glass gold hand hill "
        "horse house ice island king lake leaf letter light milk moon mountain mouse night oil paper queen rain "
        "river road salt sea ship silver sky snow song spring star stone sun table tree wall water wind window "
        "winter wood"
    ),
    "months": "January February March April May June July August September October November December",
    "numbers": (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty"
    ),
}
_NAMES, _CITIES, _THINGS, _COLORS, _WORDS, _MONTHS, _NUMBERS = (pool.split() for pool in _POOLS.values())

Maker: TypeAlias = Callable[[random.Random], tuple[str, str]]


def task_rows() -> list[dict[str, Any]]:
    """The rows: instruction, output, kind, check. Every request is there once; kinds take turns in a drawn order."""
    rows: list[dict[str, Any]] = []
    for kind, make in _KINDS.items():
        draw = random.Random(f"{_SEED} {kind}")
        made: dict[str, str] = {}
        tries = 0
        while len(made) < _EACH:
            request, answer = make(draw)
            tries = 0 if request not in made else tries + 1
            if tries > _TRIES:
                raise AssertionError(f"there are fewer than {_EACH} requests of the kind {kind}")
            made[request] = answer
        rows += [
            {"instruction": request, "output": answer, "kind": kind, "check": "exact"}
            for request, answer in made.items()
        ]
    random.Random(_SEED).shuffle(rows)
    return rows


def _repeat(draw: random.Random) -> tuple[str, str]:
    words = " ".join(draw.sample(_WORDS, draw.randint(1, 3)))
    return f"Repeat: {words}", words


def _first_word(draw: random.Random) -> tuple[str, str]:
    words = draw.sample(_WORDS, 3)
    return f"Which word comes first? {' '.join(words)}", words[0]


def _last_word(draw: random.Random) -> tuple[str, str]:
    words = draw.sample(_WORDS, 3)
    return f"Which word comes last? {' '.join(words)}", words[-1]


def _extract_name(draw: random.Random) -> tuple[str, str]:
    name, city, month = draw.choice(_NAMES), draw.choice(_CITIES), draw.choice(_MONTHS)
    return f"Who went? {name} went to {city} in {month}.", name


def _extract_place(draw: random.Random) -> tuple[str, str]:
    name, city, month = draw.choice(_NAMES), draw.choice(_CITIES), draw.choice(_MONTHS)
    return f"Where to? {name} went to {city} in {month}.", city


def _extract_number(draw: random.Random) -> tuple[str, str]:
    name, color, thing = draw.choice(_NAMES), draw.choice(_COLORS), draw.choice(_THINGS)
    number = draw.randint(2, 20)
    return f"How many {thing}? {name} has {number} {color} {thing}.", str(number)


def _extract_date(draw: random.Random) -> tuple[str, str]:
    name, city = draw.choice(_NAMES), draw.choice(_CITIES)
    date = f"{draw.randint(1, 28)} {draw.choice(_MONTHS)}"
    return f"On which day? {name} came to {city} on {date}.", date


def _sort(draw: random.Random) -> tuple[str, str]:
    if draw.random() < 0.5:
        words = draw.sample(_WORDS, 3)
        return f"Sort from A to Z: {' '.join(words)}", " ".join(sorted(words))
    numbers = draw.sample(range(1, 21), 3)
    return f"Sort from small to large: {' '.join(map(str, numbers))}", " ".join(map(str, sorted(numbers)))


def _count_or_reverse(draw: random.Random) -> tuple[str, str]:
    words = draw.sample(_WORDS, draw.randint(2, 5))
    if draw.random() < 0.5:
        return f"Count the words: {' '.join(words)}", str(len(words))
    words = words[:3]
    return f"Reverse the order: {' '.join(words)}", " ".join(reversed(words))


def _sum(draw: random.Random) -> tuple[str, str]:
    first, second = draw.randint(0, 10), draw.randint(0, 10)
    if draw.random() < 0.5:
        return f"What is {_NUMBERS[first]} plus {_NUMBERS[second]}?", _NUMBERS[first + second]
    high, low = max(first, second), min(first, second)
    return f"What is {_NUMBERS[high]} minus {_NUMBERS[low]}?", _NUMBERS[high - low]


_KINDS: dict[str, Maker] = {
    "repeat": _repeat,
    "first word": _first_word,
    "last word": _last_word,
    "name": _extract_name,
    "place": _extract_place,
    "number": _extract_number,
    "date": _extract_date,
    "sorting": _sort,
    "counting and reversing": _count_or_reverse,
    "sums": _sum,
}
