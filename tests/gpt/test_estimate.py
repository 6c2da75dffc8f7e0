"""Estimates made without torch agree with what a model really has."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_models import VOCAB, shape

from llmlab.gpt.estimate import estimate, flops_per_token
from llmlab.gpt.model import GPT
from llmlab.settings import PretrainSettings, load_preset


def test_parameters_and_checkpoint_are_the_models() -> None:
    settings = replace(PretrainSettings(), model=shape(bias=True, activation="swiglu", n_kv_head=2))
    expected = estimate(settings, VOCAB)
    parameters = list(GPT(settings.model, VOCAB).parameters())
    assert expected.parameters == sum(parameter.numel() for parameter in parameters)
    assert expected.checkpoint_bytes == 12 * expected.parameters  # fp32 weights and AdamW's two moments
    assert expected.embedding_parameters == (VOCAB + 12) * 32


def test_flops_are_six_a_weight_that_multiplies_and_attentions_own() -> None:
    model = shape()
    matrices = 2 * (32 * 96 + 32 * 32 + 2 * 32 * 128) + VOCAB * 32
    norms = 32 * (2 * 2 + 1)
    attention = 12 * 2 * 32 * 12
    # Norm weights multiply as well; they are a thousandth of it.
    assert flops_per_token(model, VOCAB) == pytest.approx(6 * (matrices + norms) + attention, rel=1e-9)


def test_twice_the_batch_is_twice_the_work() -> None:
    settings = load_preset("nano").settings
    double = replace(settings, data=replace(settings.data, batch_size=2 * settings.data.batch_size))
    assert estimate(double).flops_per_step == 2 * estimate(settings).flops_per_step
    assert estimate(double).memory_bytes > estimate(settings).memory_bytes
    assert estimate(double).parameters == estimate(settings).parameters


@pytest.mark.parametrize("name", ["baby", "nano"])
def test_memory_covers_weights_gradients_and_moments(name: str) -> None:
    expected = estimate(load_preset(name).settings)
    assert expected.memory_bytes > 4 * torch.finfo(torch.float32).bits // 8 * expected.parameters
    assert expected.minutes > 0
