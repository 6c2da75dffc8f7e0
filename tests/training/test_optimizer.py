"""Which parameters decay, and that a step is AdamW's formula."""

from __future__ import annotations

import pytest
import torch
from small_models import COMBINATIONS, VOCAB, shape

from llmlab.core.settings import TrainSettings
from llmlab.gpt.model import GPT
from llmlab.training.optimizer import make_optimizer

TRAIN = TrainSettings(learning_rate=0.01, weight_decay=0.3, beta1=0.8, beta2=0.95)


@pytest.mark.parametrize("options", [COMBINATIONS[0], COMBINATIONS[-1]])
def test_matrices_decay_and_vectors_do_not(options: dict[str, object]) -> None:
    model = GPT(shape(**options), VOCAB)
    decaying, plain = make_optimizer(model, TRAIN).param_groups
    assert (decaying["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    ids = [{id(parameter) for parameter in group["params"]} for group in (decaying, plain)]
    for name, parameter in model.named_parameters():
        is_vector = name.endswith("bias") or "norm" in name
        assert [id(parameter) in group for group in ids] == [not is_vector, is_vector], name


def test_the_tied_embedding_is_updated_once() -> None:
    groups = make_optimizer(GPT(shape(), VOCAB), TRAIN).param_groups
    everything = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(everything) == len(set(everything)) == len(list(GPT(shape(), VOCAB).parameters()))


def test_two_steps_are_adamws_formula() -> None:
    torch.manual_seed(0)
    model = GPT(shape(bias=True), VOCAB)
    optimizer = make_optimizer(model, TRAIN)
    expected = {name: parameter.detach().double().clone() for name, parameter in model.named_parameters()}
    m = {name: torch.zeros_like(value) for name, value in expected.items()}
    v = {name: torch.zeros_like(value) for name, value in expected.items()}
    for t in (1, 2):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            g = parameter.grad.double()
            m[name] = 0.8 * m[name] + 0.2 * g
            v[name] = 0.95 * v[name] + 0.05 * g**2
            decay = 0.3 if parameter.dim() >= 2 else 0.0
            expected[name] -= 0.01 * decay * expected[name]
            expected[name] -= 0.01 * (m[name] / (1 - 0.8**t)) / ((v[name] / (1 - 0.95**t)).sqrt() + 1e-8)
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.double(), expected[name], atol=1e-6), name
