"""Previews of examples without a tokenizer: twenty examples, one word a token, of which the last three are trained on.

A source that speaks of "bad" has lines of no use, one that speaks of "none" nothing to train on.
"""

from __future__ import annotations

from typing import Any

from llmlab.data.example_preview import (
    HELD_OUT,
    IN_LOSS,
    MASKED,
    TRAIN,
    TRUNCATED,
    Preview,
    PreviewExample,
    PreviewToken,
)

EXAMPLES = 20
LENGTHS = (0,) * 8 + (5, 9, 3, 2, 0, 0, 1)
BAD = tuple((number, f"Line {number} is not JSON.") for number in (4, 9, 12))


def preview(request: dict[str, Any]) -> Preview:
    """The answer to a request of the protocol."""
    settings = request["settings"]
    place = min(max(request["place"], 0), EXAMPLES - 1)
    longest = settings["max_length"]
    words = f"User: {settings['source']} number {place + 1}\n of many\n Assistant: the right answer".split(" ")
    tokens = []
    for number, word in enumerate(words):
        state = TRUNCATED if number >= longest else IN_LOSS if number >= len(words) - 3 else MASKED
        tokens.append(PreviewToken(100 + number, word if number == 0 else f" {word}", state))
    part = HELD_OUT if place % 10 == 9 else TRAIN
    trouble = ("All examples are too long.", "The shortest has 8 tokens.", "Raise data.max_length.")
    return Preview(
        source=settings["source"],
        origin="made up",
        template=f"made up, for {request['model']}",
        examples=EXAMPLES,
        train=18,
        held_out=2,
        cut=1 if longest < 14 else 0,
        longer=1 if longest < 14 else 0,
        tokens=200,
        trained=60,
        filling=0.25,
        max_length=longest,
        context=1024,
        shortest=8,
        median=9,
        longest=14,
        bin_width=1,
        lengths=LENGTHS,
        bad=BAD if "bad" in settings["source"] else (),
        bad_total=len(BAD) if "bad" in settings["source"] else 0,
        trouble=trouble if "none" in settings["source"] else None,
        example=PreviewExample(place, place + 1, part, len(tokens), tuple(tokens)),
    )
