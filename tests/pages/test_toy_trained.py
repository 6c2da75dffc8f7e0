"""What the concept pages say of the toy after some steps: each number is computed again, on the toy itself."""

from __future__ import annotations

import copy

import pytest
import torch
from concept_pages import ids_of, losses_of, page, rows_of
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from llmlab.gpt.model import GPT
from llmlab.gpt.toy import IDS, TARGETS, toy_model


def flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def step(toy: GPT, optimizer: torch.optim.Optimizer, ids: Tensor = IDS, targets: Tensor = TARGETS) -> None:
    optimizer.zero_grad()
    toy.loss(ids, targets).backward()
    optimizer.step()


def descended(rate: float, steps: int) -> GPT:
    """The toy after plain gradient descent on its text."""
    toy = toy_model().double()
    optimizer = torch.optim.SGD(toy.parameters(), rate)
    for _ in range(steps):
        step(toy, optimizer)
    return toy


def test_a_checkpoint_of_the_toy_needs_its_averages() -> None:
    def started(toy: GPT) -> torch.optim.AdamW:
        return torch.optim.AdamW(toy.parameters(), lr=0.01)

    toy = toy_model()
    optimizer = started(toy)
    for _ in range(5):
        step(toy, optimizer)
    held = [value for state in optimizer.state.values() for key, value in state.items() if key != "step"]
    weights, averages = (sum(part.nbytes for part in parts) for parts in (toy.parameters(), held))
    saved = copy.deepcopy((toy.state_dict(), optimizer.state_dict()))
    ends = [(toy, optimizer)]
    for whole in (True, False):
        resumed = toy_model()
        resumed.load_state_dict(saved[0])
        ends.append((resumed, started(resumed)))
        if whole:
            ends[-1][1].load_state_dict(saved[1])
    found = []
    for model, its in ends:
        for _ in range(5):
            step(model, its)
        found.append(f"{model.loss(IDS, TARGETS):.3f}")
    assert found[0] == found[1]
    text = page("checkpoints")
    assert f"P is {weights // 4}: {weights:,} bytes of weights and {averages:,} of averages" in text
    assert f"loss is {found[0]}, as without a break. Resumed from the weights alone, it is {found[2]}:" in text


def test_the_noise_scale_of_the_toys_five_exercises() -> None:
    def gradients(toy: GPT) -> list[Tensor]:
        of_weights = list(toy.parameters())
        return [
            flat(torch.autograd.grad(loss, of_weights, retain_graph=True)) for loss in losses_of(toy, IDS, TARGETS)[0]
        ]

    said = []
    for toy in (toy_model(), descended(0.05, 100)):
        rows = gradients(toy)
        mean = sum(rows) / 5
        trace, signal = sum(float((row - mean).square().sum()) / 5 for row in rows), float(mean.square().sum())
        said.append((f"{signal:.2f}", f"{trace:.1f}", f"{trace / signal:.1f}"))
    (signal, trace, scale), later = said
    text = page("critical-batch-size")
    assert f"|G|² is {signal}; around it, tr(Σ) is {trace}. So B_noise is {scale} exercises." in text
    assert f"B_noise is {later[2]} after 100 steps at a rate of 0.05" in text


@pytest.mark.slow
def test_the_toys_sharpness_stays_about_the_edge_of_its_rate() -> None:
    toy, rate, found = toy_model().double(), 0.02, []
    weights = list(toy.parameters())
    optimizer = torch.optim.SGD(weights, rate)
    v = torch.ones(sum(weight.numel() for weight in weights)).double()  # from the steps before, it is nearly right
    for at in range(151):
        if at % 25 == 0:
            with sdpa_kernel(SDPBackend.MATH):  # the only one with a second derivative
                slope = flat(torch.autograd.grad(toy.loss(IDS, TARGETS), weights, create_graph=True))
                for _ in range(12):
                    v = flat(torch.autograd.grad(slope, weights, v / v.norm(), retain_graph=True))
            found.append(f"{v.norm():.0f}")
        step(toy, optimizer)
    before, first, *more, last = found
    assert 2 / rate == 100
    assert (
        f"S is {before} before training. A rate of 0.02 has its edge at 100. With it, S is {first} after 25 steps, "
        f"and after each 25 more {', '.join(more)} and {last}:"
    ) in page("edge-of-stability")


def test_a_loss_falls_before_the_score_rises() -> None:
    toy, seen = toy_model(), []
    optimizer = torch.optim.AdamW(toy.parameters(), lr=0.01)
    for _ in range(41):
        logits = toy(IDS)[0].detach()
        right = logits.argmax(-1) == TARGETS[0]
        least = float(logits.softmax(-1)[torch.arange(5), TARGETS[0]].min())
        seen.append((f"{toy.loss(IDS, TARGETS):.2f}", int(right.sum()), f"{least:.2f}"))
        step(toy, optimizer)
    assert {score for _, score, _ in seen[:21]} == {3}
    loss, score, least = seen[40]
    assert score == 5
    text = page("fine-tuning")
    assert f"falls from {seen[0][0]} to {seen[20][0]}, and after each of them it is right at 3 of its 5" in text
    assert f"with a loss of {loss}, it is right at all five, at one of them with a probability of {least}." in text


def test_what_the_toy_forgets() -> None:
    toy = descended(0.1, 100)
    text = ids_of("the cat . on the mat")
    ids, targets = text[:, :-1], text[:, 1:]
    optimizer, seen = torch.optim.SGD(toy.parameters(), 0.05), []
    for _ in range(61):
        seen.append((toy.loss(ids, targets).item(), toy.loss(IDS, TARGETS).item()))
        step(toy, optimizer, ids, targets)
    *_, target, general = rows_of("forgetting", "step")
    for row, which in ((target, 0), (general, 1)):
        assert row[1:] == [f"{seen[at][which]:.3f}" for at in (0, 1, 2, 5, 10, 20, 60)]
    first, last = ([abs(seen[a][which] - seen[b][which]) for which in (0, 1)] for a, b in ((0, 1), (20, 60)))
    said = f"first gains {first[0]:.2f} for {first[1]:.3f}, and its last forty {last[0]:.2f} for {last[1]:.2f}."
    assert f"The toy's {said}" in page("forgetting")
