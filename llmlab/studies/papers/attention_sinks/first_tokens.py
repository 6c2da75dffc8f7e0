"""Is it the place or the token? The same prompts with other first tokens, and the same tokens at another place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from llmlab.anatomy.anatomy import anatomy_of
from llmlab.anatomy.capture import run
from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, quiet
from llmlab.studies.papers.attention_sinks.reading import Array, Shares, in_upper_half, watched_layers
from llmlab.studies.papers.prompts import Prompts, always_first

if TYPE_CHECKING:
    from llmlab.data.tokenizers import TextTokenizer

OWN, BEGINNING = "the text's own", "beginning of text"
# Marks and words, frequent and rare, of which each tokenizer's first token is taken.
WORDS = {"line break": "\n", "The": "The", "full stop": ".", "7": "7", "Zebra": "Zebra", "brace": "{"}
_DIGITS = 6


@dataclass
class FirstTokens:
    """Attention to one place, mean over heads in the upper half of the layers, by token [tokens, P].

    names: of the tokens, beginning with the text's own (what the tokenizer puts before every text, where it does).
    first: on the first place, where the token stands there. moved: on `place`, where it stands there instead; of the
    text's own, what that place has anyway. tokens: of a prompt.
    """

    names: list[str]
    place: int
    tokens: int
    first: list[list[float]]
    moved: list[list[float]]


def candidates(tokenizer: TextTokenizer) -> dict[str, int]:
    """What can be put first: the first token of each of WORDS, and the beginning of text. No two alike.

    Words that it cannot read are left out, and a beginning that stands before every text anyway.
    """
    found: dict[str, int] = {}
    own = always_first(tokenizer)
    for name, word in WORDS.items():
        try:
            ids = tokenizer.encode(word)
        except LabError:  # a vocabulary of characters that lacks it
            continue
        if ids and ids[0] not in [*own, *found.values()]:
            found[name] = ids[0]
    if tokenizer.beginning is not None and tokenizer.beginning not in [*own, *found.values()]:
        found[BEGINNING] = tokenizer.beginning
    return found


def put_first(model: nn.Module, prompts: Prompts, tokens: dict[str, int], progress: Progress = quiet) -> FirstTokens:
    """Two passes a prompt and token. tokens: by name. LabError where the model's attention cannot be watched."""
    anatomy = anatomy_of(model)
    layers = watched_layers(anatomy)
    upper = [layers[place] for place in in_upper_half(layers, anatomy.n_layer)]
    time = len(prompts.ids[0])
    elsewhere = time // 4

    def shares(ids: list[int]) -> Array:
        """On the first place, and on the other one."""
        observer = Shares(anatomy, time, (0, elsewhere))
        run(model, anatomy, ids, [observer], last=True)
        found: Array = observer.results()[:, upper].mean((1, 2))
        return found

    first, moved = [], []
    for done, ids in enumerate(prompts.ids):
        rows = [shares(ids)]
        for number, id in enumerate(tokens.values()):
            progress("Putting other tokens first", done * len(tokens) + number, len(prompts.ids) * len(tokens))
            at_first, at_other = list(ids), list(ids)
            at_first[0] = at_other[elsewhere] = id
            rows.append(np.array([shares(at_first)[0], shares(at_other)[1]]))
        by_token = np.stack(rows)  # [tokens, 2]
        first.append(by_token[:, 0])
        moved.append(by_token[:, 1])
    return FirstTokens(
        names=[OWN, *tokens],
        place=elsewhere,
        tokens=time,
        first=np.stack(first, 1).astype(float).round(_DIGITS).tolist(),
        moved=np.stack(moved, 1).astype(float).round(_DIGITS).tolist(),
    )
