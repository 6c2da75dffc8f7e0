"""The words and sentences of the corpus `stories`, with the weight of each.

In a sentence, `[word]` draws from the list of that name and remembers what it drew; `{word}` says again what is
remembered. Words of a list are drawn in proportion to their weights. No two ways of drawing give one text: that
makes the entropy of the text the entropy of the draws.
"""

from __future__ import annotations

from dataclasses import dataclass

# A few names are common and many are rare, as in life: the weight of the word at place i is 1 / (i + 5).
_GIRLS = "Lily Mia Anna Nora Ella Ruby Clara Grace Ivy Hazel Daisy Tess June Sara Poppy Kate Bea Olive Fay Willow"
_BOYS = "Tom Ben Sam Max Jack Leo Finn Dan Henry Adam Ned Oscar George Will Paul Carl Eli Rory Ian Zack"
_PETS = "Pip Moss Button Bramble Biscuit Pepper Socks Maple Waffle Crumb Pickle Nutmeg Dot Comet Bumble Thimble"


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


GIRLS = frozenset(_split(_GIRLS))
NAMES = tuple(name for pair in zip(_split(_GIRLS), _split(_BOYS), strict=True) for name in pair)
RANKED = frozenset({"hero", "pet"})  # lists with those weights; the words of all others are equally likely

WORDS: dict[str, tuple[str, ...]] = {
    "hero": NAMES,
    "pet": _split(_PETS),
    "animal": _split("dog cat pony goat duck rabbit hen mouse piglet lamb hedgehog squirrel"),
    "trait": _split("brave shy clever sleepy hungry gentle silly proud curious lazy"),
    "colour": _split("red blue green yellow white black silver golden purple brown"),
    "toy": _split("kite ball drum boat hat bell lamp book wagon flute puppet basket whistle ribbon cup rope"),
    "weather": _split("sunny windy cold warm foggy snowy cloudy rainy"),
    "place": (
        "the beach", "the farm", "the forest", "the river", "the market", "the old mill", "the hill", "the lake",
        "the garden", "the village", "the meadow", "the harbour", "the castle", "the orchard",
    ),
    "hidden": (
        "under a bush", "behind a rock", "in the long grass", "under the bridge", "in a hollow tree", "beside the well",
        "behind the shed", "in a muddy ditch", "under a pile of leaves", "between two stones",
    ),
    "search": (
        "near the gate", "along the wall", "at the old oak", "by the pond", "around the barn", "up the path",
        "inside a barrel", "near the fence",
    ),
    "food": (
        "bread and honey", "two ripe pears", "warm pies", "some nuts", "apple cake", "cheese and plums", "hot soup",
        "a bowl of berries", "sweet buns", "carrots", "pancakes", "toast and jam",
    ),
    "stranger": (
        "an old farmer", "a tired postman", "a kind baker", "a tall sailor", "a young shepherd", "a little girl",
        "a busy beekeeper", "a funny clown", "a quiet fisherman", "a merry piper",
    ),
    "greeting": (
        "waved to them", "told them a joke", "sang a song", "wished them luck", "asked the way", "gave them a smile",
        "was looking for a lost hen", "was in a hurry",
    ),
    "game": ("all morning", "for an hour", "again and again", "until lunch", "very carefully", "with great joy"),
    "move": ("ran", "danced", "jumped", "hopped", "rolled", "raced"),
    "sad": ("sad", "cross", "worried", "ready to cry", "very quiet", "upset"),
    "comfort": ("sat close", "told a story", "hummed a tune", "was kind", "made a funny face", "shared a blanket"),
    "look": ("laughed", "clapped", "smiled", "cheered", "stared", "giggled"),
    "promise": (
        "I will take good care of it", "This is the best day", "I like it very much", "We must not lose it",
        "It is my turn", "Look what I can do",
    ),
    "evening": ("When the sun went down", "At the end of the day", "When the stars came out", "Before supper"),
    "night": ("slept well", "dreamed of the sea", "told everyone about it", "fell asleep at once", "was happy"),
}  # fmt: skip

# Every story begins so; the toy is the hero's.
OPENING = (
    "[hero] and the [colour] [toy]\n"
    "Once upon a time {hero} had a {colour} {toy}. {His} best friend was a [trait] [animal] called [pet]. "
    "One [weather] day {hero} and {pet} the {animal} went to [place]. {He} took the {toy} along."
)


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


SCENES = (
    Scene("play", 3, ("hero",), "{hero} played with the {toy} [game]."),
    Scene("admire", 2, ("hero",), "{pet} saw the {colour} {toy} and [look]."),
    Scene("lend", 3, ("hero",), "{hero} let {pet} have the {toy}.", toy_goes_to="pet"),
    Scene("slip", 2, ("hero",), "But the {toy} slipped out of {his} hand and fell [hidden].", toy_goes_to="nobody"),
    Scene("romp", 3, ("pet",), "{pet} [move] about with the {toy}."),
    Scene("watch", 2, ("pet",), "{hero} saw {pet} with the {colour} {toy} and [look]."),
    Scene("return", 3, ("pet",), "Then {pet} gave the {toy} back to {hero}.", toy_goes_to="hero"),
    Scene("drop", 2, ("pet",), "But {pet} dropped the {toy} [hidden] and forgot it.", toy_goes_to="nobody"),
    Scene("speak", 3, ("hero", "pet"), '"[promise]," said {holder}.'),
    Scene("search", 4, ("nobody",), "They looked for the {toy} [search], but it was not there."),
    Scene("comfort", 3, ("nobody",), "{hero} was [sad], so {pet} the {trait} {animal} [comfort]."),
    Scene("find", 2, ("nobody",), "At last {hero} found the {toy} {hidden}.", toy_goes_to="hero"),
    Scene("sniff out", 2, ("nobody",), "At last {pet} found the {toy} {hidden}.", toy_goes_to="pet"),
    Scene("eat", 2, ("hero", "pet", "nobody"), "{hero} and {pet} sat down and ate [food]."),
    Scene("meet", 2, ("hero", "pet", "nobody"), "Near {place} they met [stranger], who [greeting]."),
    Scene("weather", 1, ("hero", "pet", "nobody"), "It was still {weather}."),
    Scene("home", 4, ("hero",), "[evening] {hero} carried the {colour} {toy} home and [night].", last=True),
    Scene("home with pet", 4, ("pet",), "[evening] {pet} carried the {toy} home for {hero}, who [night].", last=True),
    Scene("home without", 1, ("nobody",), "[evening] they went home without the {toy}, but {hero} [night].", last=True),
)  # fmt: skip
