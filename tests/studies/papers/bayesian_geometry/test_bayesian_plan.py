"""The plan trains what claims need and no more; the picture as a whole needs both of its parts and one that works."""

from __future__ import annotations

from collections import Counter

import pytest

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.bayesian_geometry.plan import DEEP, SIZES, overall, planned_runs
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict


def groups(size: str, *claims: str, seeds: int = 0) -> dict[str, int]:
    """How many seeds there are of each group of runs."""
    return dict(Counter(run.group for run in planned_runs(size, claims, seeds)))


def test_each_claim_trains_what_it_is_read_on() -> None:
    assert groups("minutes", "calibration") == {"bijection": 5, "duplicates": 5, "hmm": 5}
    assert groups("minutes", "manifold") == groups("minutes", "keys", "causal") == {"duplicates": 5}
    assert groups("minutes", "alignment") == groups("minutes", "layers") == {DEEP: 4}
    rivals = {"bijection": 4, "bijection-lstm": 1, "bijection-mlp-prefix": 4, "bijection-mlp-position": 1}
    assert groups("minutes", "architecture") == rivals
    assert groups("hour", "architecture") == rivals | {"hmm": 4, "hmm-lstm": 4, "hmm-mlp-prefix": 4}
    assert groups("minutes", "calibration", "architecture")["bijection"] == 5
    assert groups("minutes", "focusing", "real-models") == {}
    assert groups("minutes", "layers", "keys", seeds=2) == {"duplicates": 2, DEEP: 2}


def test_the_papers_own_models_are_deep_enough_themselves() -> None:
    assert groups("paper", "alignment", "layers") == {"duplicates": 5}
    for size in SIZES.values():
        assert size.tasks[size.deep]["model.n_layer"] >= 6


def verdict(claim: str, word: str) -> Verdict:
    return Verdict(claim, word, Statistic("x", 0.0), "", 1, [1], PapersCriterion(None, ""), "")


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        ((SUPPORTED, SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE, SUPPORTED), "supported"),
        ((SUPPORTED, SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE, NOT_SUPPORTED), "open"),
        ((SUPPORTED, SUPPORTED, NOT_SUPPORTED, NOT_SUPPORTED, NOT_SUPPORTED), "not supported"),
        ((SUPPORTED, NOT_SUPPORTED, SUPPORTED, SUPPORTED, SUPPORTED), "not supported"),
        ((SUPPORTED, INCONCLUSIVE, SUPPORTED, SUPPORTED, SUPPORTED), "open"),
    ],
)
def test_the_whole_needs_manifold_keys_and_one_dynamic_claim(words: tuple[str, ...], whole: str) -> None:
    claims = ("manifold", "keys", "alignment", "focusing", "causal")
    said = overall([verdict(claim, word) for claim, word in zip(claims, words, strict=True)])
    assert said.startswith(f"The geometry as a whole: {whole}. ")


def test_what_was_not_asked_leaves_the_whole_open() -> None:
    assert overall([verdict("calibration", SUPPORTED)]) == ""
    said = overall([verdict("manifold", SUPPORTED), verdict("keys", SUPPORTED)])
    assert "as a whole: open." in said
    assert "alignment not judged" in said
