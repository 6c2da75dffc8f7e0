"""Questions about what a change does: each change is made again, in a copy or a twin."""

from __future__ import annotations

import copy
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from asked import ask, middle
from torch import Tensor

from llmlab.core.signs import quoted
from llmlab.gpt.model import GPT
from llmlab.practice import predictions, twin
from llmlab.practice.kinds import NothingToAsk
from llmlab.practice.question import TRAINING
from llmlab.practice.subject import Subject

SEEDS = (0, 1, 2)


def rise_words(rise: float) -> int:
    return 0 if rise < 0.01 else 1 if rise < 0.1 else 2 if rise < 1 else 3


def test_losses_after_a_change_are_those_of_a_model_with_other_weights(subject: Subject, model: GPT) -> None:
    """Each ablation again, by weights that are set to zero in a copy."""

    def loss(changed: GPT, ids: Tensor) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(changed(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()))

    for seed in SEEDS:
        for name in (
            "without-a-head",
            "twice-a-head",
            "without-attention",
            "half-a-layer",
            "without-feed-forward",
            "without-a-layer",
        ):
            question = ask(subject, name, seed)
            edit = question.how.split("`")[1]
            layer = int(edit.split(":")[-1].split(".")[0])
            changed = copy.deepcopy(model)
            block, factor = changed.blocks[layer], 2.0 if "scale:2" in edit else 0.5 if "scale" in edit else 0.0
            with torch.no_grad():
                if "head:" in edit:
                    dim = block.attention.head_dim
                    head = int(edit.rpartition(".")[2])
                    block.attention.out.weight[:, head * dim : (head + 1) * dim] *= factor
                else:
                    if "feed_forward" not in edit:
                        block.attention.out.weight *= factor
                    if "attention" not in edit:
                        block.feed_forward.down.weight *= factor
            rise = loss(changed, subject.measured) - loss(model, subject.measured)
            assert question.choices.index(question.answer) == rise_words(rise), (name, rise)
            said = question.how.removesuffix(" nats per token.").split()[-1]
            assert float(said.replace("−", "-")) == pytest.approx(rise, abs=2e-4), name
    ids = subject.measured
    with torch.no_grad():
        guesses = model(ids[:, :-1]).argmax(-1) == ids[:, 1:]
        sharp = F.cross_entropy(2 * model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        windows = [row[at : at + 5] for row in ids for at in range(ids.shape[1] - 4)]
        short = [F.cross_entropy(model(window[None, :4])[0, -1:], window[4:]) for window in windows]
    assert middle(ask(subject, "beats-its-own-choice", seed)) == pytest.approx(100 * float(guesses.float().mean()))
    assert middle(ask(subject, "short-memory", seed)) == pytest.approx(float(torch.stack(short).mean()), rel=1e-4)
    sharper = ask(subject, "sharper-softmax", seed)
    assert sharper.choices.index(sharper.answer) == rise_words(float(sharp) - loss(model, ids))


def test_the_token_that_counts_most_is_the_one_that_costs_most_when_it_is_replaced(
    subject: Subject, model: GPT
) -> None:
    def log_p(row: list[int]) -> Tensor:
        with torch.no_grad():
            return model(torch.tensor([row]))[0, -1].log_softmax(-1)

    for seed in range(6):  # in some of them a token that costs nearly as much could be offered as wrong
        question = ask(subject, "carrying-token", seed)
        ids = subject.passage
        answer = int(log_p(ids).argmax())
        draws = torch.Generator().manual_seed(seed)
        others = torch.randint(model.vocab_size, (len(ids) - 1, 4), generator=draws).tolist()
        costs = [
            float(log_p(ids)[answer])
            - sum(float(log_p([*ids[:at], other, *ids[at + 1 :]])[answer]) for other in row) / 4
            for at, row in enumerate(others)
        ]
        worst = costs.index(max(costs))
        assert question.answer == f"{worst}: {quoted(subject.opened.tokenizer.token_text(ids[worst]))}"
        for at in (int(one.partition(":")[0]) for one in question.choices):
            assert at == worst or costs[at] < costs[worst] / 2


def test_what_cannot_be_told_apart_is_not_asked(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    for least, names in (
        ("_APART", ("most-needed-layer", "attention-or-feed-forward")),
        ("_COUNTS", ("carrying-token",)),
    ):
        monkeypatch.setattr(predictions, least, 99.0)
        for name in names:
            with pytest.raises(NothingToAsk):
                ask(subject, name)


def test_rounding_the_weights_leaves_them_as_they_were(subject: Subject, model: GPT) -> None:
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    question = ask(subject, "rounded-weights", 3)
    bits = next(bits for bits in (8, 4, 3) if f"to {bits} bits" in question.text)
    levels = 2 ** (bits - 1) - 1
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for weight in changed.parameters():
            if weight.dim() == 2:
                for row in weight:
                    scale = row.abs().max() / levels
                    row.copy_((row / scale).round() * scale if scale else row)
        ids = subject.measured
        losses = [
            float(F.cross_entropy(one(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())) for one in (model, changed)
        ]
    assert question.choices.index(question.answer) == rise_words(losses[1] - losses[0])
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_two_twins_are_trained_with_one_progress_that_does_not_run_back(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, float, float]] = []
    monkeypatch.setattr(subject, "progress", lambda *news: told.append(news))
    subject.twins.clear()
    ask(subject, "one-layer-less", 11)
    for count in (2, 1):  # the second time only the one with the change is left to train
        training = [news for news in told if news[0].startswith(TRAINING)]
        assert [(done, total) for _, done, total in training] == [
            (step, count * twin.STEPS) for step in range(count * twin.STEPS)
        ]
        told.clear()
        ask(subject, "one-head", 11)


def test_cosines_of_an_embedding_are_those_of_its_pairs(subject: Subject, model: GPT) -> None:
    rows = model.token_embedding.weight.detach()[: model.vocab_size]
    cosines = [abs(float(F.cosine_similarity(a, b, dim=0))) for a, b in combinations(rows, 2)]
    question = ask(subject, "embedding-cosines")
    assert middle(question) == pytest.approx(sum(cosines) / len(cosines), rel=1e-4)
    drawn = F.normalize(torch.randn(4000, 2, rows.shape[1], generator=torch.Generator().manual_seed(0)), dim=2)
    expected = float(drawn.prod(1).sum(1).abs().mean())
    assert float(question.text.split("dimensions: ")[1].rstrip(".)")) == pytest.approx(expected, abs=0.012)


def test_later_tokens_are_compared_with_earlier_ones(subject: Subject, model: GPT) -> None:
    question = ask(subject, "later-is-easier")
    ids = subject.measured  # of that question's seed
    quarter = (ids.shape[1] - 1) // 4
    with torch.no_grad():
        p = model(ids[:, :-1]).softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    first, last = p[:, :quarter].log().mean(), p[:, -quarter:].log().mean()
    assert middle(question) == pytest.approx(float(first - last), rel=1e-3, abs=1e-4)


def test_a_twin_learns_alike_for_equal_seeds_and_diverges_at_a_rate_beyond_all(subject: Subject) -> None:
    subject.seed = 0
    plain = twin.twin_loss(subject)
    assert plain == twin.twin_loss(subject)
    assert plain < twin.twin_loss(subject, learning_rate=0.0, min_learning_rate=0.0)
    assert twin.twin_loss(subject, learning_rate=1e9, min_learning_rate=1e9, grad_clip=0.0) > plain + 1
