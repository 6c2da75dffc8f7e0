"""Which parameters decay, that a step is AdamW's formula, and that Muon takes the matrices inside the blocks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from concept_pages import rows_of, written
from small_models import COMBINATIONS, VOCAB, shape, some_ids

from llmlab.core.run_settings import TrainSettings
from llmlab.core.settings import PretrainTrainSettings
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


def test_training_equals_torchs_own_adamw() -> None:
    def torchs(model: GPT) -> torch.optim.Optimizer:
        groups = [
            {"params": group["params"], "weight_decay": group["weight_decay"]}
            for group in make_optimizer(model, TRAIN).param_groups
        ]
        return torch.optim.AdamW(groups, lr=TRAIN.learning_rate, betas=(TRAIN.beta1, TRAIN.beta2), fused=True)

    trained = []
    for make in (lambda model: make_optimizer(model, TRAIN), torchs):
        torch.manual_seed(0)
        model = GPT(shape(), VOCAB)
        optimizer = make(model)
        for _ in range(3):
            optimizer.zero_grad(set_to_none=True)
            ids = some_ids(8)[None]
            model.loss(ids, ids).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        trained.append(list(model.parameters()))
    assert all(map(torch.equal, *trained))


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


def test_with_mup_the_rate_of_hidden_matrices_falls_as_the_width_grows_and_their_decay_a_step_stays() -> None:
    wide = GPT(shape(bias=True, value_residual=True, mup_base_width=8), VOCAB)  # four times the base
    for train, share in (
        (PretrainTrainSettings(learning_rate=0.01, weight_decay=0.3, warmup_steps=0), 0.25),
        (MUON, 1),
    ):
        optimizer = make_pretraining_optimizer(wide, train)
        rate = set_learning_rates(optimizer, 0, train)
        of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        assert len(of) == len(list(wide.parameters()))
        for name, parameter in wide.named_parameters():
            group, hidden = of[id(parameter)], name.startswith("blocks.") and parameter.dim() == 2
            assert group["lr"] == ((share * rate if share < 1 else MUON.muon_learning_rate) if hidden else rate), name
            decay = 0.0 if parameter.dim() < 2 else 0.3
            assert group["weight_decay"] == (decay / share if hidden else decay), name


def test_at_its_base_width_with_heads_of_64_mup_is_the_model_without() -> None:
    losses = []
    for base in (0, 128):
        torch.manual_seed(0)
        model = GPT(shape(n_head=2, n_embd=128, mup_base_width=base), VOCAB)
        losses.append(_losses(model, PretrainTrainSettings(warmup_steps=0), steps=3))
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("optimizer", "growth"), [("adamw", 20), pytest.param("muon", 1.5, marks=pytest.mark.slow)])
def test_with_mup_activations_change_alike_at_every_width_and_without_the_more_the_wider(
    optimizer: str, growth: float
) -> None:
    """The coordinate check of Yang et al. 2022, appendix D.1: five steps at widths 32 to 256, with Muon to 128."""
    train = PretrainTrainSettings(learning_rate=0.01, muon_learning_rate=0.05, warmup_steps=0, optimizer=optimizer)
    widths = (32, 64, 128, 256) if optimizer == "adamw" else (32, 64, 128)
    with_mup, without = ([_changes(width, base, train) for width in widths] for base in (32, 0))
    for part in with_mup[0]:
        level, grown = ([of_width[part] for of_width in table] for table in (with_mup, without))
        assert max(level) < 3 * min(level), (part, level)
        assert grown[-1] > (2 if part == "logits" else growth) * grown[0], (part, grown)
    if optimizer == "adamw":
        for (_, *cells), table in zip(rows_of("learning-rate", "width"), (without, with_mup), strict=True):
            changes = [of_width["blocks.0.attention"] for of_width in table]
            assert cells == [written(change, cell) for change, cell in zip(changes, cells, strict=True)]


def _changes(width: int, base: int, train: PretrainTrainSettings) -> dict[str, float]:
    """Mean absolute change in five steps on one batch: of what each part adds to the stream, and of the logits."""
    torch.manual_seed(0)
    model = GPT(shape(n_embd=width, mup_base_width=base), VOCAB)
    ids = some_ids(2, 9)
    outputs: list[dict[str, torch.Tensor]] = []
    for name, module in model.named_modules():
        if name.endswith(("attention", "feed_forward")):
            module.register_forward_hook(lambda _, __, y, name=name: outputs[-1].__setitem__(name, y.detach()))
    optimizer = make_pretraining_optimizer(model, train)
    for step in range(6):
        outputs.append({})
        set_learning_rates(optimizer, step, train)
        optimizer.zero_grad()
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
        outputs[-1]["logits"] = model(ids[:, :-1]).detach()
        optimizer.step()
    return {name: (outputs[-1][name] - outputs[0][name]).abs().mean().item() for name in outputs[0]}


def _losses(model: GPT, train: PretrainTrainSettings, steps: int) -> list[float]:
    """Of each step, on sequences that differ."""
    optimizer = make_pretraining_optimizer(model, train)
    losses = []
    for step in range(steps):
        set_learning_rates(optimizer, step, train)
        ids = some_ids(8, 13, seed=step)
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


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
