"""What the claims about pretrained models share: texts, and parts that are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from llmlab.anatomy.capture import run
from llmlab.core.progress import Progress, quiet
from llmlab.data.synthetic.metrics import entropy
from llmlab.models.model import OpenModel
from llmlab.studies.papers.prompts import draw_prompts

# Gives what was made under a name before, or what is made now.
Keep: TypeAlias = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]


def at_once(_name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Remembers nothing."""
    return make()


# Ordinary texts -------------------------------------------------------------------------------------------------------

TOKENS = 32  # long enough to know what a text is about, short enough for two hundred of them
QUINTILES = 5
_DOMAIN = "prose"  # one author's, where a tokenizer reads it
_AT_ONCE = 16  # texts in one pass: only the next token is asked for


@dataclass(frozen=True)
class TextPrompts:
    """mixed: texts of all domains, as many in each quintile of the pool's entropy; mixed_domains: of each. alone:
    texts of one domain, none of them in the pool. domains: all there are. All are TOKENS long.
    """

    mixed: list[list[int]]
    mixed_domains: list[str]
    alone: list[list[int]]
    domain: str
    domains: list[str]


def text_prompts(opened: OpenModel, texts: int, pool: int, seed: int = 0, progress: Progress = quiet) -> TextPrompts:
    """`texts` mixed ones, a fifth from each quintile, and as many of one domain. pool: of each domain.

    LabError where the model's tokenizer reads no ordinary text.
    """
    found = draw_prompts(opened.tokenizer, TOKENS, pool + texts, seed)
    by_domain: dict[str, list[list[int]]] = {}
    for ids, name in zip(found.ids, found.domains, strict=True):
        by_domain.setdefault(name, []).append(ids)
    domains = list(by_domain)
    domain = _DOMAIN if _DOMAIN in domains else domains[0]
    everything = [(ids, name) for name in domains for ids in by_domain[name][:pool]]
    own = next_entropy(opened, [ids for ids, _ in everything], progress)
    mixed = [everything[place] for place in spread_over(own, texts, seed)]
    alone = by_domain[domain][pool:]
    return TextPrompts([ids for ids, _ in mixed], [name for _, name in mixed], alone, domain, domains)


def spread_over(entropy: np.ndarray, count: int, seed: int = 0) -> list[int]:
    """Places of `count` numbers, as many from each fifth of them by size, drawn at random in it."""
    random = np.random.default_rng(seed)
    fifths = np.array_split(np.argsort(entropy, kind="stable"), QUINTILES)
    shares = [part.shape[0] for part in np.array_split(np.arange(count), QUINTILES)]
    return [
        int(place) for fifth, share in zip(fifths, shares, strict=True) for place in random.permutation(fifth)[:share]
    ]


def next_entropy(opened: OpenModel, prompts: list[list[int]], progress: Progress = quiet) -> np.ndarray:
    """The model's entropy over the next token, in bits [N]. All prompts are of one length."""
    found = []
    for first in range(0, len(prompts), _AT_ONCE):
        progress("Choosing texts", first, len(prompts))
        logits = run(opened.model, opened.anatomy, torch.tensor(prompts[first : first + _AT_ONCE]), last=True)
        found.append(entropy(logits[:, -1].double().softmax(-1).cpu().numpy()))
    return np.concatenate(found)
