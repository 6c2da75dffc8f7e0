"""Relevant keys are what rules a value out; attention on them is the model's own, and a planted rise is found."""

from __future__ import annotations

from math import factorial, sqrt

import numpy as np
import pytest
import torch
from small_models import lively, shape
from torch import nn

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.synthetic.bijection import Bijection
from llmlab.gpt.model import GPT, Block
from llmlab.studies.papers.bayesian_geometry.alignment import (
    Alignment,
    alignment,
    alignment_verdict,
    judge_alignment,
    relevant_keys,
)
from llmlab.studies.papers.bayesian_geometry.geometry import samples_of

TASK = Bijection(8, 12, repeats=True)
SAMPLES = samples_of(TASK, 15)
# Uniform attention has mass 1; so much is on every relevant key when all are attended to alike, and nothing else.
LAYERS = 6


def made(masses: list[float], spread: float = 0.01, seed: int = 0) -> Alignment:
    noise = np.random.default_rng(seed).normal(0, spread, (30, len(masses)))
    return Alignment(np.array(masses) + noise - noise.mean(0), np.ones((len(masses), 2)), np.zeros(len(masses)), 2.6)


RISING = [1.0, 1.2, 1.4, 1.7, 1.9, 2.2]
RANDOM = [made([1.0] * LAYERS, 0.0, seed) for seed in range(10)]


def test_relevant_are_earlier_values_where_they_came_first() -> None:
    # k2 v5 k1 v4 k2 v5 k0 v3 k1: values are tokens 3 to 5
    ids = [2, 5, 1, 4, 2, 5, 0, 3, 1]
    found = relevant_keys(ids, [0, 2, 6, 8])
    assert [np.flatnonzero(row).tolist() for row in found] == [[], [1], [1, 3], [1, 3, 7]]


def test_as_many_values_are_relevant_as_the_posterior_rules_out() -> None:
    at = 0
    for ids, positions in zip(SAMPLES.ids, SAMPLES.positions, strict=True):
        for row in relevant_keys(ids, positions):
            assert np.log2(8 - row.sum()) == pytest.approx(SAMPLES.entropy[at])
            at += 1


def test_mass_and_cosines_are_those_of_the_models_own_attention() -> None:
    model = lively(shape(n_kv_head=2, block_size=23), 16).requires_grad_(False)
    found = alignment(model, SAMPLES)
    mass, gap, most = np.zeros((15, 2, 4)), [], []
    for sequence, (ids, positions) in enumerate(zip(SAMPLES.ids, SAMPLES.positions, strict=True)):
        stream = model.token_embedding(torch.tensor(ids)[None]) + model.position_embedding.weight[:23]
        for layer, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            query, key, _ = block.attention.qkv(block.attention_norm(stream))[0].split([32, 16, 16], -1)
            for head in range(4):
                q, k = query[:, 8 * head : 8 * head + 8], key[:, 8 * (head // 2) : 8 * (head // 2) + 8]
                masses = []
                for position in positions[1:]:
                    near = [at for at in range(1, position, 2) if ids[at] not in ids[1:at:2]]
                    far = [at for at in range(position + 1) if at not in near]
                    weight = (q[position] @ k[: position + 1].T / sqrt(8)).softmax(0)
                    masses.append(float(weight[near].sum()) * (position + 1) / len(near))
                    cosine = nn.functional.cosine_similarity(q[position][None], k)
                    gap.append((sequence, layer, float(cosine[near].mean() - cosine[far].mean())))
                    most.append((sequence, (position + 1) / len(near)))
                mass[sequence, layer, head] = np.mean(masses)
            stream = block(stream)
    assert np.allclose(found.mass, mass.mean(2), atol=1e-5)
    assert np.allclose(found.heads, mass.mean(0), atol=1e-5)
    for layer in range(2):
        own = [np.mean([one for s, at, one in gap if (s, at) == (sequence, layer)]) for sequence in range(15)]
        assert found.gap[layer] == pytest.approx(np.mean(own), abs=1e-5)
    assert found.most == pytest.approx(np.mean([np.mean([one for s, one in most if s == n]) for n in range(15)]))


def reading_values(strengths: list[float]) -> GPT:
    """Blocks that add nothing to the stream; their only head asks for value tokens, more or less sharply."""
    model = GPT(shape(n_layer=len(strengths), n_head=1, n_embd=8, block_size=23, bias=False), 16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.token_embedding.weight[:8, 0] = 1  # keys
        model.token_embedding.weight[8:, 1] = 1  # values
        for block, strength in zip(model.blocks, strengths, strict=True):
            assert isinstance(block, Block)
            block.attention_norm.weight.fill_(1)
            block.attention.qkv.weight[0, 0] = strength  # a key token's query
            block.attention.qkv.weight[8, 1] = 1  # a value token's key
    return model.eval().requires_grad_(False)


def test_a_planted_rise_is_found_and_even_attention_is_none() -> None:
    found = alignment(reading_values([0.0, 0.5, 1.0, 2.0, 4.0, 9.0]), SAMPLES)
    assert found.by_layer[0] == pytest.approx(1)
    assert found.rho == pytest.approx(1)
    assert found.p == pytest.approx(1 / factorial(LAYERS))
    # In the end all attention is on values, new ones and repeats alike: (2 j + 1) / j at the j-th pair.
    last = np.mean(
        [np.mean([(position + 1) / (position // 2) for position in positions[1:]]) for positions in SAMPLES.positions]
    )
    assert found.by_layer[-1] == pytest.approx(last, rel=1e-3)
    assert found.gap[-1] > 0.5
    even = alignment(reading_values([0.0] * LAYERS), SAMPLES)
    assert even.by_layer == pytest.approx(np.ones(LAYERS))
    assert judge_alignment(even, 1.0, RANDOM) == NOT_SUPPORTED


@pytest.mark.parametrize(
    ("masses", "p", "outcome"),
    [
        (RISING, 0.0499, SUPPORTED),
        (RISING, 0.05, INCONCLUSIVE),
        ([*RISING[:5], 2.0001], 0.01, SUPPORTED),
        ([*RISING[:5], 1.99], 0.01, INCONCLUSIVE),
        ([1.2, 1.0, 1.6, 1.4, 1.9, 2.2], 0.01, SUPPORTED),  # rho .89
        ([1.6, 1.2, 1.0, 1.8, 1.4, 2.2], 0.01, INCONCLUSIVE),  # rho .43
        ([2.2, 1.9, 1.7, 1.4, 1.2, 2.1], 0.01, NOT_SUPPORTED),  # it falls
    ],
)
def test_alignment_turns_at_its_bounds(masses: list[float], p: float, outcome: str) -> None:
    assert judge_alignment(made(masses, 0.0), p, RANDOM) == outcome


def test_random_weights_that_rise_as_much_refute_it_and_too_few_leave_it_open() -> None:
    found = made(RISING, 0.0)
    assert judge_alignment(found, 0.01, [made(RISING, 0.0)] * 10) == NOT_SUPPORTED
    assert judge_alignment(found, 0.01, RANDOM[:9]) == INCONCLUSIVE
    assert judge_alignment(found, 0.01, [made([2.3] * LAYERS, 0.0)] * 10) == INCONCLUSIVE


def test_the_verdict_needs_four_seeds_and_shows_them() -> None:
    trained = {seed: made(RISING, seed=seed) for seed in range(5)}
    found = alignment_verdict(trained, RANDOM, dict.fromkeys(range(5), (0.01,)))
    assert (found.verdict, found.p, found.n) == (SUPPORTED, 0.01, 30)
    assert found.statistic.value == pytest.approx(1)
    mass = {one.name: one for one in found.charts[0].series}
    assert mass["seed 0"].y == pytest.approx(RISING)
    assert all(
        low < value < high for low, value, high in zip(mass["seed 0"].low, RISING, mass["seed 0"].high, strict=True)
    )
    assert mass["uniform"].y == mass["random weights"].y == [1.0] * LAYERS
    assert len(found.tables[0].rows) == 15
    level = [made([1.001, *[1.0] * (LAYERS - 1)], 0.0)] * len(RANDOM)
    said = alignment_verdict(trained, level, dict.fromkeys(range(5), (0.01,))).reason
    assert "random weights change it by 0.00 to 0.00" in said
    few = {seed: trained[seed] for seed in range(3)}
    assert alignment_verdict(few, RANDOM, dict.fromkeys(range(3), (0.01,))).verdict == INCONCLUSIVE
    flat = {seed: made([1.0, 1.1, 0.9, 1.0, 1.1, 0.95], 0.0, seed) for seed in range(5)}
    assert alignment_verdict(flat, RANDOM, dict.fromkeys(range(5), (0.6,))).verdict == NOT_SUPPORTED
