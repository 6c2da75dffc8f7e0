"""Which parameters decay, that a step is AdamW's formula, and that Muon takes the matrices inside the blocks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_models import COMBINATIONS, VOCAB, shape

from llmlab.core.settings import PretrainTrainSettings, TrainSettings
from llmlab.gpt.model import GPT
from llmlab.training.muon import POLYNOMIALS
from llmlab.training.optimizer import is_muons, make_optimizer, make_pretraining_optimizer, set_learning_rates

TRAIN = TrainSettings(learning_rate=0.01, weight_decay=0.3, beta1=0.8, beta2=0.95)
MUON = PretrainTrainSettings(
    learning_rate=0.01,
    weight_decay=0.3,
    beta1=0.8,
    beta2=0.95,
    warmup_steps=0,
    optimizer="muon",
    muon_learning_rate=0.1,
)


@pytest.mark.parametrize("options", [COMBINATIONS[0], COMBINATIONS[-1]])
def test_matrices_decay_and_vectors_do_not(options: dict[str, object]) -> None:
    model = GPT(shape(**options), VOCAB)
    decaying, plain = make_optimizer(model, TRAIN).param_groups
    assert (decaying["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    ids = [{id(parameter) for parameter in group["params"]} for group in (decaying, plain)]
    for name, parameter in model.named_parameters():
        is_vector = name.endswith(("bias", "value_mix")) or "norm" in name
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


@pytest.mark.parametrize("options", [COMBINATIONS[0], COMBINATIONS[-1]])
def test_muon_has_every_matrix_inside_the_blocks_and_adamw_all_else(options: dict[str, object]) -> None:
    model = GPT(shape(**options), VOCAB)
    groups = make_pretraining_optimizer(model, MUON).param_groups
    muons = {id(p) for group in groups if is_muons(group) for p in group["params"]}
    everything = [id(p) for group in groups for p in group["params"]]
    assert len(everything) == len(set(everything)) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        is_matrix = name.startswith("blocks.") and name.endswith("weight") and "norm" not in name
        assert (id(parameter) in muons) == is_matrix, name


@pytest.mark.parametrize(("iterations", "heads"), [(5, False), (3, True)])
def test_two_steps_of_muon_are_its_formula_and_the_rest_is_as_with_adamw_alone(iterations: int, heads: bool) -> None:
    torch.manual_seed(0)
    settings = replace(MUON, muon_iterations=iterations, muon_heads=heads)
    model, twin = GPT(shape(bias=True), VOCAB), GPT(shape(bias=True), VOCAB)
    twin.load_state_dict(model.state_dict())
    optimizer, plain = make_pretraining_optimizer(model, settings), make_optimizer(twin, TRAIN)
    expected = {name: parameter.detach().double().clone() for name, parameter in model.named_parameters()}
    average = {name: torch.zeros_like(value) for name, value in expected.items()}
    twins = dict(twin.named_parameters())
    muons = {p for group in optimizer.param_groups if is_muons(group) for p in group["params"]}
    for step in range(2):
        assert set_learning_rates(optimizer, step, MUON) == set_learning_rates(plain, step, MUON)
        rate = next(group["lr"] for group in optimizer.param_groups if is_muons(group))
        assert rate == pytest.approx(10 * plain.param_groups[0]["lr"])
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            twins[name].grad = parameter.grad.clone()
            g = parameter.grad.double()
            average[name] = 0.95 * average[name] + 0.05 * g
            if parameter in muons:
                parts = len(g) // (shape().n_embd // shape().n_head) if heads and "qkv" in name else 1
                ahead = (0.05 * g + 0.95 * average[name]).chunk(parts)  # Nesterov's
                towards = torch.cat([_newton_schulz(part, iterations) for part in ahead])
                scale = max(1.0, ahead[0].shape[0] / ahead[0].shape[1]) ** 0.5
                expected[name] -= rate * 0.3 * expected[name] + rate * scale * towards
        optimizer.step()
        plain.step()
    for name, parameter in model.named_parameters():
        if parameter in muons:
            assert torch.allclose(parameter.double(), expected[name], atol=1e-5), name
        else:
            assert torch.equal(parameter, twins[name]), name


def test_muon_moves_every_direction_about_equally_far() -> None:
    model = GPT(shape(), VOCAB)
    optimizer = make_pretraining_optimizer(model, MUON)
    set_learning_rates(optimizer, 0, MUON)
    weight = model.blocks[0].attention.out.weight
    before = weight.detach().clone() * (1 - 0.1 * 0.3)
    u, _, v = torch.linalg.svd(torch.randn_like(weight))
    weight.grad = u @ torch.diag(torch.linspace(1, 0.05, len(u))) @ v
    optimizer.step()
    moved = torch.diag(u.T @ (before - weight.detach()) @ v.T) / 0.1  # along each direction of the gradient
    assert 0.6 < moved.min() < moved.max() < 1.3


def _newton_schulz(gradient: torch.Tensor, iterations: int) -> torch.Tensor:
    """Every singular value s of a matrix of norm one becomes a s + b s^3 + c s^5, by its SVD."""
    u, s, v = torch.linalg.svd(gradient / gradient.norm(), full_matrices=False)
    for a, b, c in POLYNOMIALS[:iterations]:
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ v
