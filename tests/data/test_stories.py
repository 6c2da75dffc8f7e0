"""The stories' entropy is that of their text: every story is parsed back, and its probability worked out anew."""

from __future__ import annotations

import functools
import math
import random
import re

import numpy as np
import pytest

from llmlab.core.progress import quiet
from llmlab.core.settings import DataSettings
from llmlab.data import stories
from llmlab.data.dataset import load_dataset
from llmlab.data.stories import (
    GIRLS,
    OPENING,
    SCENES,
    WORDS,
    Scene,
    next_scenes,
    pronouns,
    stories_corpus,
    story_entropy,
    tell,
    word_shares,
)

Known = dict[str, str]


@functools.cache
def parts(template: str) -> list[str]:
    """What is written as it stands, and each [draw] and {what is known} by itself; the first may be empty."""
    return re.split(r"([\[{]\w+[\]}])", template)


def sentence_readings(text: str, template: str, known: Known) -> list[tuple[str, Known, float]]:
    """All ways to read `template` at the start of `text`: what is left, what is known then, and -ln p."""
    readings = [(text, known, 0.0)]
    for part in parts(template):
        following = []
        for rest, facts, nats in readings:
            name, drawn = part[1:-1], part.startswith("[")
            words = WORDS[name] if drawn else [facts[name] if part.startswith("{") else part]
            for word in filter(rest.startswith, words):
                after, cost = facts, 0.0
                if drawn:
                    after = {**facts, name: word} | (pronouns(word) if name == "hero" else {})
                    cost = -math.log(word_shares(name)[WORDS[name].index(word)])
                following.append((rest[len(word) :], after, nats + cost))
        readings = following
        if not readings:
            break
    return readings


def story_readings(text: str) -> list[float]:
    """-ln p of every way in which the model could have told exactly this story."""
    open_readings: list[tuple[str, Known, float, Scene | None, str]] = [
        (rest, known, nats, None, "hero") for rest, known, nats in sentence_readings(text, OPENING, {})
    ]
    finished = []
    while open_readings:
        text, known, nats, scene, toy_with = open_readings.pop()
        if scene is not None and scene.last:
            if text == "\n":
                finished.append(nats)
            continue
        known = {**known, "holder": known.get(toy_with, "nobody")}
        for after, share in next_scenes(scene, toy_with):
            for rest, facts, cost in sentence_readings(text, " " + after.text, known):
                open_readings.append((rest, facts, nats + cost - math.log(share), after, after.toy_goes_to or toy_with))
    return finished


@pytest.fixture(scope="module")
def surprises() -> np.ndarray:
    """-ln p of 1,500 stories; each must have exactly one reading."""
    source = random.Random(7)
    found = [story_readings(tell(source)) for _ in range(1500)]
    assert all(len(readings) == 1 for readings in found)
    return np.array([readings[0] for readings in found])


@pytest.mark.slow
def test_the_mean_surprise_of_stories_is_the_computed_entropy(surprises: np.ndarray) -> None:
    error = surprises.std() / math.sqrt(len(surprises))
    assert abs(surprises.mean() - story_entropy()) < 4 * error
    assert error < 0.015 * story_entropy()


def test_entropy_of_a_miniature_model_by_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = (
        Scene("drop", 2, ("hero",), "It fell [where].", toy_goes_to="nobody"),
        Scene("take", 1, ("hero",), "It is [how].", last=True),
        Scene("leave", 3, ("nobody",), "Gone.", last=True),
        Scene("look", 1, ("nobody",), "Here {where}.", toy_goes_to="hero"),
    )
    monkeypatch.setattr(stories, "SCENES", scenes)
    monkeypatch.setattr(stories, "OPENING", "[hero]:")
    monkeypatch.setattr(
        stories, "WORDS", {"hero": ("A", "B"), "where": ("left", "right", "up"), "how": ("red", "blue")}
    )
    story_entropy.cache_clear()
    try:
        computed = story_entropy()
    finally:
        story_entropy.cache_clear()
    # By hand. A visit with the hero goes to `drop` with 2/3, with ln 3 for the place, or ends with ln 2. After a
    # drop, 1/4 look and come back. So n = 1 / (1 - 2/3 * 1/4) = 1.2 choices with the hero, and 0.8 drops.
    hero = -(5 / 11) * math.log(5 / 11) - (6 / 11) * math.log(6 / 11)  # weights 1/5 and 1/6
    choice = -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)
    after = -(3 / 4) * math.log(3 / 4) - (1 / 4) * math.log(1 / 4)
    by_hand = hero + 1.2 * (choice + 2 / 3 * math.log(3) + 1 / 3 * math.log(2)) + 0.8 * after
    assert computed == pytest.approx(by_hand, rel=1e-12)


def test_no_list_holds_a_word_twice() -> None:
    assert all(len(set(words)) == len(words) for words in WORDS.values())
    assert all(sum(word_shares(name)) == pytest.approx(1) for name in WORDS)
    assert set(WORDS["hero"]) > GIRLS


def test_every_scene_can_be_reached_and_every_story_ends() -> None:
    told = " ".join(tell(random.Random(seed)) for seed in range(400))
    for scene in SCENES:
        fixed = max(re.split(r"[\[{]\w+[\]}]", scene.text), key=len)
        assert fixed in told, scene.name


def test_the_stories_are_the_same_every_time() -> None:
    one, other = stories_corpus().documents(), stories_corpus().documents()
    first = [next(one) for _ in range(50)]
    assert first == [next(other) for _ in range(50)]
    assert len(set(first)) == 50


def test_the_size_that_the_registry_states_is_right() -> None:
    corpus = stories_corpus()
    texts = list(corpus.documents())
    assert len(texts) == stories.STORIES
    assert sum(len(text.encode()) for text in texts) == corpus.bytes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "char"])
def test_the_floor_is_the_entropy_shared_among_a_storys_tokens(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stories, "STORIES", 1000)
    data = DataSettings(corpus="stories", tokenizer=kind)
    dataset = load_dataset(data, 64, quiet)
    total = len(dataset.train) + len(dataset.val)
    assert dataset.floor_loss == pytest.approx(story_entropy() / (total / stories.STORIES), rel=1e-3)
    assert 0 < dataset.floor_loss < dataset.unigram_loss / 3
