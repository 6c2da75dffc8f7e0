"""Short children's stories from a known probability model, so that the lowest possible loss is known.

A story draws its hero, pet, toy, weather and place once and names them again and again; the toy changes hands,
gets lost and is found where it was lost. What was drawn once is free ever after for a model that looks back, and
costs again each time for one that only counts neighbouring words.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import numpy as np

from llmlab.core.config import read_toml
from llmlab.core.paths import resources_dir
from llmlab.data.corpus import Corpus, Piece

STORIES = 5000  # 2.5 MB of text, told in half a second
_SEED = 1909
_TEXT_BYTES = 2_469_990
_PART = re.compile(r"([\[{])(\w+)[\]}]")  # [a draw] or {a recall}


@dataclass(frozen=True)
class Scene:
    """One step of a story. It can follow any other scene (not itself) where the toy is with one of `toy_with`.

    weight: how likely it is among the scenes that can come next. toy_goes_to: who has the toy afterwards; empty
    for no change. last: the story ends with it. `{holder}` is the name of whoever has the toy.
    """

    name: str
    weight: float
    toy_with: tuple[str, ...]  # of "hero", "pet", "nobody"
    text: str
    toy_goes_to: str = ""
    last: bool = False


_TEXTS = read_toml(resources_dir() / "corpora" / "stories.toml")
OPENING: str = _TEXTS["opening"]  # of every story; the toy is the hero's
SCENES = tuple(Scene(**{**row, "toy_with": tuple(row["toy_with"])}) for row in _TEXTS["scenes"])
WORDS: dict[str, tuple[str, ...]] = {name: tuple(words) for name, words in _TEXTS["words"].items()}
GIRLS = frozenset(_TEXTS["girls"])
# Lists of which the word at place i has the weight 1 / (i + 5); the words of all others are equally likely.
RANKED = frozenset(_TEXTS["ranked"])


@dataclass(frozen=True)
class StoriesCorpus(Corpus):
    """The same stories every time."""

    def here(self) -> bool:
        return True

    def pieces(self) -> Iterator[Piece]:
        source = random.Random(_SEED)
        for _ in range(STORIES):
            yield Piece(tell(source), starts_document=True)

    def content_key(self) -> str:
        model = repr((_SEED, STORIES, WORDS, OPENING, SCENES, sorted(RANKED), sorted(GIRLS)))
        return hashlib.sha256(model.encode()).hexdigest()

    def document_entropy(self) -> float:
        return story_entropy()


def stories_corpus() -> StoriesCorpus:
    """The corpus `stories`."""
    return StoriesCorpus(
        name="stories",
        title="Stories",
        description="5,000 short children's stories from a known probability model: the loss chart can draw the "
        "lowest loss that any model can reach.",
        kind="generated",
        licence="MIT, as the lab",
        origin="told by llmlab/data/stories.py",
        bytes=_TEXT_BYTES,
    )


def tell(source: random.Random) -> str:
    """One story, drawn from the model."""
    known: dict[str, str] = {}
    sentences = [_say(OPENING, known, source)]
    scene, toy_with = None, "hero"
    while scene is None or not scene.last:
        known["holder"] = known.get(toy_with, "nobody")
        following = next_scenes(scene, toy_with)
        scene = source.choices([each for each, _ in following], [share for _, share in following])[0]
        sentences.append(_say(scene.text, known, source))
        toy_with = scene.toy_goes_to or toy_with
    return " ".join(sentences) + "\n"


def next_scenes(scene: Scene | None, toy_with: str) -> list[tuple[Scene, float]]:
    """The scenes that can follow `scene` (None: the opening), each with its probability."""
    possible = [each for each in SCENES if toy_with in each.toy_with and each is not scene]
    total = sum(each.weight for each in possible)
    return [(each, each.weight / total) for each in possible]


def word_shares(name: str) -> list[float]:
    """The probability of each word in the list `name`."""
    weights = [1 / (place + 5) if name in RANKED else 1.0 for place in range(len(WORDS[name]))]
    total = sum(weights)
    return [weight / total for weight in weights]


@cache
def story_entropy() -> float:
    r"""Entropy of one story in nats, exactly.

    The scenes are a Markov chain whose state is (scene, who has the toy). With Q the probabilities of going from
    state to state and v the expected number of visits, v = first + Q^T v. Each visit adds the entropy of the
    scene's draws and of choosing what comes next, and the opening adds its own:

        H = H(opening) + H(first) + sum_s v_s (H(draws of s) + H(next | s))

    The text tells every draw apart, so this is the entropy of the text.
    """
    states = sorted({(scene, toy_with) for scene in SCENES for toy_with in _toy_after(scene)}, key=repr)
    place = {state: index for index, state in enumerate(states)}
    go = np.zeros((len(states), len(states)))
    each = np.zeros(len(states))
    for (scene, toy_with), row in place.items():
        each[row] = _draws_entropy(scene.text)
        if not scene.last:
            following = next_scenes(scene, toy_with)
            each[row] += _entropy([share for _, share in following])
            for after, share in following:
                go[row, place[after, after.toy_goes_to or toy_with]] += share
    first = np.zeros(len(states))
    for after, share in next_scenes(None, "hero"):
        first[place[after, after.toy_goes_to or "hero"]] += share
    visits = np.linalg.solve(np.eye(len(states)) - go.T, first)
    start = _draws_entropy(OPENING) + _entropy([share for _, share in next_scenes(None, "hero")])
    return float(start + visits @ each)


def _toy_after(scene: Scene) -> tuple[str, ...]:
    return (scene.toy_goes_to,) if scene.toy_goes_to else scene.toy_with


def _draws_entropy(text: str) -> float:
    return sum(_entropy(word_shares(name)) for bracket, name in _PART.findall(text) if bracket == "[")


def _entropy(shares: list[float]) -> float:
    return -sum(share * math.log(share) for share in shares)


def _say(text: str, known: dict[str, str], source: random.Random) -> str:
    """A sentence with its draws made and remembered in `known`, and its recalls filled in."""

    def word(part: re.Match[str]) -> str:
        bracket, name = part.groups()
        if bracket == "[":
            known[name] = source.choices(WORDS[name], cum_weights=_cumulative(name))[0]
            if name == "hero":
                known.update(pronouns(known["hero"]))
        return known[name]

    return _PART.sub(word, text)


def pronouns(hero: str) -> dict[str, str]:
    """What `{his}`, `{His}` and `{He}` say for this hero."""
    return {"his": "her", "His": "Her", "He": "She"} if hero in GIRLS else {"his": "his", "His": "His", "He": "He"}


@cache
def _cumulative(name: str) -> list[float]:
    return list(accumulate(word_shares(name)))
