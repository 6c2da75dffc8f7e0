"""Holm's correction over all tests of one seed, whatever claim they belong to.

A seed's models are asked for several claims at once, so each test counts for the others: the chance that any of them
is below its bound by luck stays as named. Seeds need no correction among themselves, since they have to agree, which is
stricter than one test of them all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from llmlab.studies.papers.agreement import SHARE_OF_SEEDS
from llmlab.studies.papers.statistics import holm

# By claim and seed, the p-values of its tests; None where nothing could be tested.
Tests: TypeAlias = Mapping[str, Mapping[int, tuple[float, ...] | None]]


def corrected(tests: Tests) -> dict[str, dict[int, tuple[float, ...] | None]]:
    """The same p-values after the correction, in the same places."""
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
