"""Taking a part out is what removing it from the model would do, and every layer must count for the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import lively, shape
from torch import Tensor, nn

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.synthetic.bijection import Bijection
from llmlab.data.synthetic.metrics import entropy
from llmlab.gpt.model import GPT, Block
from llmlab.studies.papers.bayesian_geometry.geometry import samples_of
from llmlab.studies.papers.bayesian_geometry.interventions import (
    Ablation,
    ablate,
    judge_layers,
    layers_verdict,
    scored_positions,
)

TASK = Bijection(8, 12, repeats=True)
SAMPLES = samples_of(TASK, 20)
ANSWERS = TASK.layout.answers


def some() -> GPT:
    return lively(shape(n_layer=3, n_head=2, block_size=23), 16).requires_grad_(False)


def error(model: GPT) -> float:
    stream = model.residual_stream(torch.tensor(SAMPLES.ids))
    logits: Tensor = (stream @ model.unembedding.T)[scored_positions(SAMPLES)][:, ANSWERS[0] : ANSWERS[1]]
    return float(np.abs(entropy(logits.double().softmax(-1).numpy()) - SAMPLES.entropy).mean())


def test_a_part_taken_out_is_a_model_without_it() -> None:
    found = ablate(some(), SAMPLES, ANSWERS)
    assert found.error == pytest.approx(error(some()), rel=1e-4)
    for layer in range(3):
        without = some()
        without.blocks = nn.ModuleList(block for at, block in enumerate(without.blocks) if at != layer)
        assert found.layers[layer] == pytest.approx(error(without), rel=1e-4)
        for head in range(2):
            silent = some()
            block = silent.blocks[layer]
            assert isinstance(block, Block)
            block.attention.out.weight[:, 16 * head : 16 * head + 16] = 0
            assert found.heads[layer][head] == pytest.approx(error(silent), rel=1e-4)
    assert found.factors == pytest.approx([one / found.error for one in found.layers])
    assert len({round(one, 6) for one in [*found.layers, *np.ravel(found.heads)]}) == 9


def test_a_layer_that_adds_nothing_is_not_missed() -> None:
    model = some()
    block = model.blocks[1]
    assert isinstance(block, Block)
    for part in (block.attention.out, block.feed_forward.down):
        for parameter in part.parameters():
            parameter.zero_()
    found = ablate(model, SAMPLES, ANSWERS)
    assert (found.factors[1], found.low[1], found.high[1]) == (1, 1, 1)
    assert found.head_factors[1] == [1, 1]
    assert found.low[0] < found.factors[0] < found.high[0]
    assert found.factors[0] != 1


FOUND = Ablation(0.02, [0.4, 0.3], [15.0, 10.1], [25.0, 20.0], [[0.1, 0.2], [0.02, 0.3]])


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ({}, SUPPORTED),
        ({"low": [15.0, 10.0]}, INCONCLUSIVE),
        ({"low": [15.0, 8.0], "high": [25.0, 10.1]}, INCONCLUSIVE),
        ({"low": [15.0, 8.0], "high": [25.0, 10.0]}, NOT_SUPPORTED),
        ({"error": 0.1}, SUPPORTED),
        ({"error": 0.1001}, INCONCLUSIVE),
    ],
)
def test_every_layer_must_be_missed_more_than_tenfold(values: dict[str, object], outcome: str) -> None:
    assert judge_layers(replace(FOUND, **values)) == outcome


def test_the_verdict_on_layers_needs_four_seeds_and_draws_layers_and_heads() -> None:
    found = layers_verdict(dict.fromkeys(range(4), FOUND), 100)
    assert (found.verdict, found.statistic.value) == (SUPPORTED, pytest.approx(15))
    assert found.papers_criterion.passes is True
    assert layers_verdict(dict.fromkeys(range(3), FOUND), 100).verdict == INCONCLUSIVE
    layers, heads = found.charts
    assert (layers.categories, layers.series[0].y) == (["layer 0", "layer 1"], pytest.approx([20, 15]))
    assert (heads.categories, heads.series[0].y) == (["0.0", "0.1", "1.0", "1.1"], pytest.approx([5, 10, 1, 15]))
    spared = replace(FOUND, layers=[0.4, 0.03], low=[15.0, 1.0], high=[25.0, 2.0])
    assert layers_verdict(dict.fromkeys(range(5), spared), 100).verdict == NOT_SUPPORTED


def test_random_weights_have_learned_nothing_that_a_layer_could_take_away() -> None:
    torch.manual_seed(0)
    found = ablate(GPT(shape(block_size=23), 16).eval().requires_grad_(False), SAMPLES, ANSWERS)
    assert judge_layers(found) == INCONCLUSIVE
