"""What byte pair encoding must do."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

from llmlab.data.gpt2_vocabulary import byte_symbols, gpt2_encoding, gpt2_merges
from llmlab.exercises.parts import Case, Draw, Mistake, Part

Merges = dict[tuple[int, int], int]
_WORDS = ("unbelievable", " indistinguishable", " Shakespeare", "learning", " antidisestablishmentarianism", " naïve")


def merge(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    merged: list[int] = []
    for id in ids:
        if merged and (merged[-1], id) == pair:
            merged[-1] = new
        else:
            merged.append(id)
    return merged


def encode(ids: list[int], merges: Merges) -> list[int]:
    return _encoded(ids, merges, min, merge)


def _encoded(ids, merges, choose, merging, turns=1000):  # type: ignore[no-untyped-def]
    for _ in range(turns):
        pairs = [pair for pair in pairwise(ids) if pair in merges]
        if not pairs:
            break
        pair = choose(pairs, key=merges.__getitem__)
        ids = merging(ids, pair, merges[pair])
    return list(ids)


@cache
def _gpt2() -> Merges:
    ids = {symbol: place for place, symbol in enumerate(byte_symbols().values())}
    merges: Merges = {}
    for place, (first, second) in enumerate(gpt2_merges()):
        ids[first + second] = 256 + place
        merges[ids[first], ids[second]] = 256 + place
    return merges


def _bytes_of(word: str) -> list[int]:
    places = {byte: place for place, byte in enumerate(byte_symbols())}
    return [places[byte] for byte in word.encode()]


def _pairs(draw: Draw) -> tuple[object, ...]:
    return draw.ids(3, 30).tolist(), (1, 2), 9


def _texts(draw: Draw) -> tuple[object, ...]:
    ids = draw.ids(3, 30).tolist()
    pairs = [(0, 1), (1, 2), (3, 2), (0, 0), (4, 0), (3, 4), (2, 5), (6, 1)]
    return ids, {pair: 3 + place for place, pair in enumerate(pairs)}


def _from_the_right(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    return merge(ids[::-1], pair[::-1], new)[::-1]


def _first_only(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    for i in range(len(ids) - 1):
        if (ids[i], ids[i + 1]) == pair:
            return [*ids[:i], new, *ids[i + 2 :]]
    return list(ids)


def _either_way(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    merged, i = [], 0
    while i < len(ids):
        fits = i + 1 < len(ids) and (ids[i], ids[i + 1]) in (pair, pair[::-1])
        merged.append(new if fits else ids[i])
        i += 2 if fits else 1
    return merged


def _overlapping(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    merged = []
    for i, id in enumerate(ids):
        if (id, *ids[i + 1 : i + 2]) == pair:
            merged.append(new)
        elif i == 0 or (ids[i - 1], id) != pair:
            merged.append(id)
    return merged


def _second_stays(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    return [new if (id, *ids[i + 1 : i + 2]) == pair else id for i, id in enumerate(ids)]


def _one_pass(ids: list[int], merges: Merges) -> list[int]:
    for pair in sorted({*pairwise(ids)} & merges.keys(), key=merges.__getitem__):
        ids = merge(ids, pair, merges[pair])
    return ids


def _leftmost(ids: list[int], merges: Merges) -> list[int]:
    return _encoded(ids, merges, lambda pairs, key: pairs[0], merge)


PARTS = (
    Part(
        "merge",
        merge,
        _pairs,
        gradient=False,
        by_hand=(Case("1 2 1 2 3 with (1, 2) as 9", ([1, 2, 1, 2, 3], (1, 2), 9), [9, 9, 3]),),
        edges=(
            Case("1 1 1 with (1, 1) as 9", ([1, 1, 1], (1, 1), 9), [9, 1]),
            Case("no ids", ([], (1, 2), 9), []),
            Case("the pair at the end", ([3, 1, 2], (1, 2), 9), [3, 9]),
            Case("half of the pair at the end", ([1, 2, 1], (1, 2), 9), [9, 1]),
        ),
        mistakes=(
            Mistake("the first occurrence only", "Every occurrence of the pair is replaced.", _first_only),
            Mistake("the second of the pair stays", "Both become one id.", _second_stays),
            Mistake(
                "pairs overlap",
                "After a match the next one begins behind it: 1 1 1 has one pair.",
                _overlapping,
            ),
            Mistake(
                "the pair is removed",
                "It is replaced by the new id.",
                lambda ids, pair, new: [id for id in merge(ids, pair, new) if id != new],
            ),
            Mistake("either order", "(1, 2) and (2, 1) are different pairs.", _either_way),
            Mistake("from right to left", "Where pairs overlap, the left one is merged.", _from_the_right),
        ),
    ),
    Part(
        "encode",
        encode,
        _texts,
        gradient=False,
        by_hand=(Case("0 1 2 with (1, 2) before (0, 1)", ([0, 1, 2], {(1, 2): 3, (0, 1): 4}), [0, 3]),),
        edges=(
            Case("no ids", ([], {(1, 2): 3}), []),
            Case("one id", ([1], {(1, 2): 3}), [1]),
            *(Case(f"{word!r} with GPT-2's merges", (_bytes_of(word), _gpt2()), None) for word in _WORDS),
        ),
        mistakes=(
            Mistake("the leftmost pair first", "The pair that was learned first is merged first.", _leftmost),
            Mistake(
                "the latest merge first",
                "The smallest new id was learned first.",
                lambda ids, merges: _encoded(ids, merges, max, merge),
            ),
            Mistake(
                "one merge only",
                "Merging goes on until no pair fits.",
                lambda ids, merges: _encoded(ids, merges, min, merge, 1),
            ),
            Mistake(
                "pairs that a merge has made are not seen",
                "Look for pairs again after each merge.",
                _one_pass,
            ),
            Mistake("nothing is merged", "Merge while a pair fits.", lambda ids, merges: list(ids)),
        ),
    ),
)


def gpt2_ids(word: str) -> list[int]:
    """GPT-2's own ids of a word."""
    return gpt2_encoding().encode(word)
