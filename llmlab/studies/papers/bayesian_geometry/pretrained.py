"""What the claims about pretrained models share: texts, parts that are kept, how models are told of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from llmlab.anatomy.capture import run
from llmlab.core.progress import Progress, quiet
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.synthetic.metrics import entropy
from llmlab.models.model import OpenModel
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.prompts import draw_prompts
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict

# Gives what was made under a name before, or what is made now.
Keep: TypeAlias = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]


def at_once(_name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Remembers nothing."""
    return make()


def parts(counts: Sequence[int], progress: Progress) -> list[Progress]:
    """The progress of each part of the work, in prompts read."""

    def of_part(before: int, count: int) -> Progress:
        return lambda what, done, total: progress(what, before + count * (done / total if total else 0), sum(counts))

    return [of_part(sum(counts[:number]), count) for number, count in enumerate(counts)]


def models_sentence(names: Sequence[str], outcomes: Sequence[str], refused: Mapping[str, str]) -> str:
    """Which models say what, and why some were not asked."""
    said = "; ".join(
        f"{word}: {', '.join(name for name, one in zip(names, outcomes, strict=True) if one == word)}"
        for word in (SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE)
        if word in outcomes
    )
    sentences = [f"{said[:1].upper()}{said[1:]}."] if said else []
    return " ".join([*sentences, *(f"Not asked: {name}. {why}" for name, why in refused.items())])


def nothing_measured(claim: str, statistic: str, threshold: str, refused: Mapping[str, str]) -> Verdict:
    """The verdict where no model could be asked."""
    reason = f"No model could be asked. {models_sentence([], [], refused)}".strip()
    criterion = PapersCriterion(None, "Nothing was measured.")
    return Verdict(claim, INCONCLUSIVE, Statistic(statistic, None), threshold, 0, [], criterion, reason)


def highest(untrained: Sequence[float]) -> float | None:
    """The percentile of models with random weights that a trained one must exceed; None with too few of them."""
    if len(untrained) < bounds.RANDOM_MODELS:
        return None
    return float(np.percentile(untrained, bounds.RANDOM_PERCENTILE, method="higher"))


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
    domains = list(dict.fromkeys(found.domains))
    domain = _DOMAIN if _DOMAIN in domains else domains[0]
    by_domain = {
        name: [ids for ids, kind in zip(found.ids, found.domains, strict=True) if kind == name] for name in domains
    }
    everything = [(ids, name) for name in domains for ids in by_domain[name][:pool]]
    own = next_entropy(opened, [ids for ids, _ in everything], progress)
    chosen = spread_over(own, texts, seed)
    return TextPrompts(
        mixed=[everything[place][0] for place in chosen],
        mixed_domains=[everything[place][1] for place in chosen],
        alone=by_domain[domain][pool:],
        domain=domain,
        domains=domains,
    )


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
