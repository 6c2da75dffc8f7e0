"""Attention that rests on the first token counts as focusing with that token, and as nothing without it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import each
from tiny_models import llama

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.tokenizers import CompactTokenizer
from llmlab.models.model import OpenModel
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.focusing import (
    Size,
    falls,
    focusing_verdict,
    judge_model,
    last_token_entropies,
    normalised_entropies,
    of_model,
)
from llmlab.studies.papers.bayesian_geometry.pretrained import QUINTILES, spread_over

T = 16


def resting_on(key: int, share: float) -> np.ndarray:
    """One head's pattern at the last of T tokens: `share` on one key, the rest alike on the others."""
    row = np.full(T, (1 - share) / (T - 1))
    row[key] = share
    return row[None]


UNIFORM = np.full((1, T), 1 / T)


def test_entropies_by_hand() -> None:
    assert normalised_entropies(UNIFORM) == pytest.approx((1, 1))
    assert normalised_entropies(resting_on(3, 1.0)) == pytest.approx((0, 0))
    halves = np.zeros((1, T))
    halves[0, [0, 5]] = 0.5
    assert normalised_entropies(halves) == pytest.approx((1 / 4, 0))  # one bit of log2 16
    # Two heads: the mean of their entropies, not the entropy of their mean.
    assert normalised_entropies(np.concatenate([resting_on(3, 1.0), resting_on(4, 1.0)])) == pytest.approx((0, 0))


def test_a_head_that_gives_the_others_nothing_is_left_out_of_what_they_get() -> None:
    sink = resting_on(0, 1.0)
    assert normalised_entropies(sink) == pytest.approx((0, 0))
    assert normalised_entropies(np.concatenate([sink, UNIFORM])) == pytest.approx((0.5, 1))


def test_a_pure_sink_is_focusing_only_with_the_first_token() -> None:
    layers = [normalised_entropies(rows) for rows in (UNIFORM, resting_on(0, 0.6), resting_on(0, 0.99))]
    everything, others = np.array(layers).T
    assert falls(everything[None])[0] > 0.9
    assert falls(others[None])[0] == pytest.approx(0)


def test_attention_that_chooses_among_the_others_is_focusing_both_ways() -> None:
    layers = np.array([normalised_entropies(rows) for rows in (UNIFORM, resting_on(4, 0.6), resting_on(4, 0.99))])
    assert falls(layers.T)[0] > 0.9
    assert falls(layers.T)[1] > 0.9


def test_falls_by_hand() -> None:
    entropies = np.array([[0.8, 0.6, 0.5, 0.4, 0.4, 0.4, 0.3, 0.2], [0.0, 1, 1, 1, 1, 1, 1, 1]])
    assert falls(entropies).tolist() == pytest.approx([0.75, 0])
    assert falls(entropies, quarters=True).tolist() == pytest.approx([1 - 0.25 / 0.7, -1])


def test_patterns_are_those_that_the_model_itself_gives_out() -> None:
    model = llama().requires_grad_(False)
    ids = [[5, 9, 3, 7, 1, 30, 12], [8, 8, 2, 40, 6, 11, 0]]
    found = last_token_entropies(model, ids)
    model.set_attn_implementation("eager")
    for prompt, one in enumerate(ids):
        patterns = model(torch.tensor([one]), output_attentions=True).attentions
        expected = [normalised_entropies(pattern[0, :, -1].double().numpy()) for pattern in patterns]
        assert np.allclose(found[:, prompt].T, expected, atol=1e-5)


def test_texts_are_spread_over_the_fifths_of_the_entropy() -> None:
    entropy = np.random.default_rng(0).normal(size=50)
    chosen = spread_over(entropy, 15)
    fifth = np.argsort(np.argsort(entropy)) // 10
    assert len(set(chosen)) == 15
    assert np.bincount(fifth[chosen]).tolist() == [3] * QUINTILES


# Verdict -----------------------------------------------------------------------------------------------------------

CHANCE = [0.01] * bounds.RANDOM_MODELS


@each(
    ("fall", "interval", "untrained", "outcome"),
    [
        (0.30, [0.001, 0.5], CHANCE, SUPPORTED),
        (0.30, [0.0, 0.6], CHANCE, INCONCLUSIVE),
        (0.299, [0.2, 0.4], CHANCE, INCONCLUSIVE),
        (0.299, [0.0, 0.6], CHANCE, NOT_SUPPORTED),
        (0.5, [0.4, 0.6], [0.5] * bounds.RANDOM_MODELS, NOT_SUPPORTED),
        (0.5, [0.4, 0.6], [0.49] * bounds.RANDOM_MODELS, SUPPORTED),
        (0.5, [0.4, 0.6], [*CHANCE[1:], 0.5], NOT_SUPPORTED),  # the largest of them counts
        (0.5, [0.4, 0.6], CHANCE[1:], INCONCLUSIVE),
        (-0.2, [-0.3, -0.1], CHANCE, NOT_SUPPORTED),
    ],
)
def test_a_model_turns_at_the_bounds(fall: float, interval: list[float], untrained: list[float], outcome: str) -> None:
    assert judge_model({"fall": fall, "interval": interval, "untrained": untrained}) == outcome


def measured(fall: float, others: float, name: str = "model") -> dict[str, Any]:
    """What `of_model` gives, for a model of two layers."""

    def way(fell: float) -> dict[str, Any]:
        layers = [0.9, 0.9 * (1 - fell)]
        ends = {"low": layers, "high": layers, "interval": [fell - 0.01, fell + 0.01], "quarters": fell}
        return ends | {"layers": layers, "fall": fell, "untrained": CHANCE, "untrained_layers": [1.0, 1.0]}

    about = {"model": name, "reference": name, "seed": 0, "prompts": 75, "tokens": 32}
    return about | {"all": way(fall), "others": way(others)}


def test_a_sink_passes_the_papers_criterion_and_not_ours() -> None:
    found = focusing_verdict([measured(0.8, 0.0)], {})
    assert found.verdict == NOT_SUPPORTED
    assert found.papers_criterion.passes is True
    assert "The difference is attention that rests on the first token" in found.papers_criterion.words
    assert "The difference" not in focusing_verdict([measured(0.8, 0.8)], {}).papers_criterion.words
    assert [series.y[1] < 0.5 for series in found.charts[0].series[:2]] == [True, False]


def test_models_must_agree() -> None:
    sharp, blunt = measured(0.8, 0.5), measured(0.8, 0.0)
    assert focusing_verdict([sharp], {}).verdict == SUPPORTED
    assert focusing_verdict([sharp] * 4 + [blunt], {}).verdict == SUPPORTED
    assert focusing_verdict([sharp, blunt], {}).verdict == INCONCLUSIVE
    charts = focusing_verdict([sharp, blunt], {}).charts
    assert len({chart.name for chart in charts}) == 2


@pytest.mark.slow
def test_a_model_is_measured_from_its_texts_to_its_verdict() -> None:
    tokenizer = CompactTokenizer(range(8000))
    model = llama(vocab_size=tokenizer.vocab_size).requires_grad_(False)
    opened = OpenModel("tiny", "tiny", "huggingface", model, tokenizer)
    found = of_model(lambda: opened, Size(texts=5, pool=2, untrained=1))
    assert (found["prompts"], found["tokens"], len(found["all"]["layers"])) == (5, 32, 2)
    assert len(found["others"]["untrained"]) == bounds.RANDOM_MODELS
    assert max(map(abs, found["others"]["untrained"])) < 0.05  # nearly uniform in every layer
    assert focusing_verdict([found], {}).verdict != SUPPORTED


def test_without_a_model_that_could_be_asked_nothing_is_said() -> None:
    found = focusing_verdict([], {"broken": "It is damaged."})
    assert (found.verdict, found.statistic.value) == (INCONCLUSIVE, None)
    assert "broken was left out: It is damaged." in found.reason
