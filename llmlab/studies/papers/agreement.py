"""From what each seed or model says to one word, for all papers alike. No torch.

A claim about trained models is judged seed by seed, and one about pretrained ones model by model; enough of them must
say the same, or it is inconclusive.

A seed's models are asked for several claims at once, so p-values are corrected over all tests of one seed (Holm): the
chance that any of them is below its bound by luck stays as named. Seeds need no correction among themselves, since they
have to agree, which is stricter than one test of them all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED

# All three are choices of this lab, made before any run was judged.
# At least four seeds, and four in five of them, must say the same.
SEEDS_AGREEING = 4
SHARE_OF_SEEDS = 0.8
# So many of the models that were asked must say the same.
SHARE_OF_MODELS = 0.8


@dataclass(frozen=True)
class Agreed:
    """What seeds, or models, say together. sentence: how they are divided. seeds: of what was trained or drawn."""

    word: str
    sentence: str
    seeds: list[int]


def of_seeds(outcomes: Mapping[int, str]) -> Agreed:
    """Of a claim that is judged seed by seed. outcomes: words by seed."""
    words = list(outcomes.values())
    return Agreed(by_seeds(words), seeds_sentence(words), list(outcomes))


def of_models(outcomes: Sequence[tuple[str, str]], refused: Mapping[str, str], seeds: Iterable[int] = ()) -> Agreed:
    """Of a claim that is judged model by model. outcomes, refused: as in `models_sentence`."""
    words = [word for _, word in outcomes]
    return Agreed(by_models(words), models_sentence(outcomes, refused), sorted({*seeds}))


def by_seeds(outcomes: Sequence[str]) -> str:
    """One word from those of the seeds."""
    word, count = _most(outcomes)
    return word if count >= _seeds_needed(len(outcomes)) else INCONCLUSIVE


def by_models(outcomes: Sequence[str]) -> str:
    """One word from those of the models."""
    word, count = _most(outcomes)
    return word if count >= SHARE_OF_MODELS * len(outcomes) else INCONCLUSIVE


def seeds_sentence(outcomes: Sequence[str]) -> str:
    """How the seeds are divided, and whether there are enough of them."""
    counts, seeds = Counter(outcomes), len(outcomes)
    said = ", ".join(f"{counts[word]} {word}" for word in (SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE) if counts[word])
    few = "" if seeds >= SEEDS_AGREEING else " Too few seeds were trained for any other verdict."
    named = "1 seed" if seeds == 1 else f"{seeds} seeds"
    return f"Of {named}: {said or 'none judged'}; a verdict needs {_seeds_needed(seeds)}.{few}"


def models_sentence(outcomes: Sequence[tuple[str, str]], refused: Mapping[str, str]) -> str:
    """Which models say what, and which could not be asked. outcomes: name and word; refused: by name, a sentence."""
    said = []
    for word in (SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE):
        if names := [name for name, outcome in outcomes if outcome == word]:
            said.append(f"{word} in {', '.join(names)}")
    words = f"{'; '.join(said)}." if said else "No model could be asked."
    if len(outcomes) > 1:
        words += f" A verdict needs {math.ceil(SHARE_OF_MODELS * len(outcomes))} of {len(outcomes)}."
    elif outcomes:
        words += " It rests on this one model: choose more under Models (--model in a terminal)."
    left_out = [f"{name} was left out: {why}" for name, why in refused.items()]
    return " ".join([f"{words[:1].upper()}{words[1:]}", *left_out])


def interval_sentence(models: int) -> str:
    """Of what the interval of a verdict on so many models is."""
    return f"The interval is {'over prompts' if models == 1 else 'from the least to the most'}."


def _most(outcomes: Sequence[str]) -> tuple[str, int]:
    """The word that is said most often, and how often."""
    return Counter(outcomes).most_common(1)[0] if outcomes else (INCONCLUSIVE, 0)


def _seeds_needed(seeds: int) -> int:
    return max(SEEDS_AGREEING, math.ceil(SHARE_OF_SEEDS * seeds))


# p-values -------------------------------------------------------------------------------------------------------------

# By claim and seed, the p-values of its tests; None where nothing could be tested.
Tests: TypeAlias = Mapping[str, Mapping[int, tuple[float, ...] | None]]


def corrected(tests: Tests) -> dict[str, dict[int, tuple[float, ...] | None]]:
    """The same p-values after the correction, in the same places."""
    from llmlab.studies.papers.statistics import holm  # brings numpy, which `--help` should not wait for

    after: dict[str, dict[int, tuple[float, ...] | None]] = {claim: dict(seeds) for claim, seeds in tests.items()}
    for seed in {seed for seeds in tests.values() for seed in seeds}:
        tested = [(claim, p) for claim, seeds in tests.items() if (p := seeds.get(seed)) is not None]
        values = iter(holm([one for _, p in tested for one in p]))
        for claim, p in tested:
            after[claim][seed] = tuple(next(values) for _ in p)
    return after


def agreed(p: Sequence[float]) -> float | None:
    """The p that as many seeds stay below as a verdict needs; None without any."""
    return sorted(p)[max(0, math.ceil(SHARE_OF_SEEDS * len(p)) - 1)] if p else None
