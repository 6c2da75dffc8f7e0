"""Questions that are sums: counts, shapes, costs and schedules are those of a real model, or of another way to them."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from asked import ask, middle
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from llmlab.core.paths import resources_dir
from llmlab.core.settings import ModelSettings
from llmlab.gpt.model import GPT, Rotary
from llmlab.practice.question import CHOICE, mark
from llmlab.practice.subject import Subject
from llmlab.training.finetuning.lora import LoraLinear, insert
from llmlab.training.optimizer import make_optimizer

SEEDS = (0, 1, 2)


def fresh(settings: ModelSettings, vocab: int) -> GPT:
    return GPT(settings, vocab)


def count(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def matrices(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters() if weight.dim() == 2)


def cache_of(model: GPT, tokens: int) -> int:
    """Numbers of all keys and values of so many tokens, had from one token."""
    attention = [block.attention for block in model.blocks]
    kept = [a.heads(a.qkv(torch.zeros(1, 1, model.settings.n_embd)))[1:] for a in attention]
    return tokens * sum(keys.numel() + values.numel() for keys, values in kept)


def flops(part: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        part()
    return counter.get_total_flops()


def adam_bytes(subject: Subject, model: GPT) -> tuple[int, int, int]:
    """Of weights, gradients and the optimizer's two moments, after a step."""
    learner = copy.deepcopy(model).train()
    optimizer = make_optimizer(learner, subject.settings.train)
    ids = torch.zeros(1, 4, dtype=torch.long)
    learner.loss(ids, ids).backward()
    optimizer.step()
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    weights = list(learner.parameters())
    return (
        4 * count(learner),
        sum(4 * w.grad.numel() for w in weights if w.grad is not None),
        sum(4 * m.numel() for m in moments),
    )


def lora_count(subject: Subject, rank: int) -> int:
    learner = GPT(subject.model_settings, subject.vocab_size)
    layers = [name for name, part in learner.named_modules() if isinstance(part, torch.nn.Linear)]
    insert(learner, rank, 1.0, 0.0, [name for name in layers if ".attention." in name])
    adapters = [part for part in learner.modules() if isinstance(part, LoraLinear)]
    return sum(part.lora_A.weight.numel() + part.lora_B.weight.numel() for part in adapters)


def test_counts_are_those_of_the_real_model(subject: Subject, model: GPT) -> None:
    settings, vocab, block = model.settings, model.vocab_size, model.blocks[0]
    embeddings = [part for part in model.children() if isinstance(part, torch.nn.Embedding)]
    linear = [part for part in block.modules() if isinstance(part, torch.nn.Linear)]
    ids = torch.zeros(subject.settings.data.batch_size, settings.block_size, dtype=torch.long)
    weights, gradients, moments = adam_bytes(subject, model)
    batch = subject.settings.tokens_per_step
    expected: dict[str, float] = {
        "block-weights": matrices(block),
        "attention-weights": matrices(block.attention),
        "feed-forward-share": 100 * matrices(block.feed_forward) / matrices(block),
        "embedding-share": 100 * sum(count(part) for part in embeddings) / count(model),
        "all-parameters": count(model),
        "one-more-layer": count(fresh(replace(settings, n_layer=settings.n_layer + 1), vocab)) - count(model),
        "twice-as-wide": matrices(fresh(replace(settings, n_embd=2 * settings.n_embd), vocab).blocks[0])
        / matrices(block),
        "head-width": block.attention.heads(torch.zeros(1, 1, sum(block.attention.dims)))[0].shape[-1],
        "logits-memory": model(ids).numel() * 4 / 1e6,
        "kv-cache-grouped": 100 * cache_of(fresh(replace(settings, n_kv_head=1), vocab), 1) / cache_of(model, 1),
        "twice-the-context-grows": count(fresh(replace(settings, block_size=2 * settings.block_size), vocab))
        - count(model),
        "forward-flops": len(model.blocks)
        * sum(flops(lambda part=part: part(torch.zeros(1, part.in_features))) for part in linear),
        "training-flops": 6 * count(model),
        "adamw-memory": (weights + gradients + moments) / 1e6,
        "adamw-state": (weights + moments) / weights,
        "norm-parameters": sum(w.numel() for name, w in model.named_parameters() if "norm" in name),
        "vocabulary-doubled": count(fresh(settings, 2 * model.token_embedding.num_embeddings)) - count(model),
        "tokens-a-step": batch,
        "twenty-tokens": 20 * count(model) / batch,
        "hidden-width": block.feed_forward.down.in_features,
    }
    for name, value in expected.items():
        assert middle(ask(subject, name)) == pytest.approx(value, rel=1e-6), name
    assert ask(subject, "query-shape").answer == str(list(_queries(model, ids).shape))
    question = ask(subject, "numbers-of-queries")
    batch, time = (int(n) for n in re.findall(r"[BT] = (\d+)", question.text))
    assert middle(question) == _queries(model, torch.zeros(batch, time, dtype=torch.long)).numel()
    assert ask(subject, "logits-shape").answer == str(list(model(ids).shape))


def _queries(model: GPT, ids: Tensor) -> Tensor:
    attention = model.blocks[0].attention
    return attention.heads(attention.qkv(model.token_embedding(ids)))[0]


def test_counts_that_are_drawn_are_those_of_what_was_drawn(subject: Subject, model: GPT) -> None:
    for seed in SEEDS:
        cached = ask(subject, "kv-cache", seed)
        tokens = next(n for n in (128, 256, 1024, 4096) if f"for {n:,} tokens" in cached.text)
        assert middle(cached) == pytest.approx(cache_of(model, tokens) * 4 / 1e6)
        pattern = ask(subject, "pattern-numbers", seed)
        tokens = next(n for n in (16, 32, 64, 100) if f"of {n} tokens" in pattern.text)
        assert middle(pattern) == torch.ones(tokens, tokens).tril().sum()
        half = ask(subject, "half-precision", seed)
        bits = next(bits for words, bits in (("bf16", 16), ("8 bits", 8), ("4 bits", 4)) if words in half.text)
        assert middle(half) == pytest.approx(count(model) * bits / 8 / 1e6)
        lora = ask(subject, "lora-parameters", seed)
        rank = next(rank for rank in (2, 4, 8, 16) if f"rank {rank} " in lora.text)
        assert middle(lora) == lora_count(subject, rank)
        bits_ = ask(subject, "bits-of-loss", seed)
        assert any(middle(bits_) == pytest.approx(math.log2(math.exp(loss))) for loss in (0.9, 1.4, 2.1, 2.8, 3.3))
        even = round(middle(ask(subject, "perplexity", seed)), 9)
        assert any(math.log(even) == pytest.approx(loss) for loss in (0.7, 1.1, 1.6, 2.3, 3.0))
    untrained = fresh(model.settings, model.vocab_size)
    ids = torch.randint(model.vocab_size, (16, 17), generator=torch.Generator().manual_seed(0))
    assert (
        ask(subject, "first-loss").low
        < float(untrained.loss(ids[:, :-1], ids[:, 1:]).detach())
        < ask(subject, "first-loss").high
    )


def test_attention_grows_fourfold_and_costs_more_than_the_matrices_beyond_the_length_that_is_named(
    subject: Subject,
) -> None:
    def scores(time: int) -> int:
        query = torch.zeros(1, 1, time, 8)
        return flops(lambda: query @ query.transpose(2, 3)) // 16  # 2 · D for each score

    assert scores(32) == 4 * scores(16)
    assert ask(subject, "twice-the-context").answer == "the scores of attention"
    question, width = ask(subject, "attention-cost"), subject.model_settings.n_embd
    time = subject.model_settings.block_size
    last, all_ = torch.zeros(1, width), torch.zeros(time, width)
    scored = flops(lambda: last @ all_.T) + flops(lambda: torch.zeros(1, time) @ all_)
    linear = [
        part for part in subject.opened.model.get_submodule("blocks.0").modules() if isinstance(part, torch.nn.Linear)
    ]
    products = sum(flops(lambda part=part: part(torch.zeros(1, part.in_features))) for part in linear)
    assert question.answer == ("the weight matrices" if products > scored else "scores and weighted values")


def test_sums_are_those_that_another_way_gives(subject: Subject) -> None:
    for seed in range(6):
        numbers = {name: [float(n) for n in re.findall(r"[\d.]*\d", ask(subject, name, seed).text)] for name in SUMS}
        for name, way in SUMS.items():
            question = ask(subject, name, seed)
            got = question.answer if question.form == CHOICE else middle(question)
            assert got == (
                way(*numbers[name]) if question.form == CHOICE else pytest.approx(way(*numbers[name]), rel=1e-3)
            )
        score = ask(subject, "brier-score", seed)
        stated = float(re.findall(r"(\d+) %", score.text)[0]) / 100
        assert middle(score) == pytest.approx((1 - stated) ** 2 if "it comes true" in score.text else stated**2)
        after = ask(subject, "after-one", seed)
        kept = getattr(torch, {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[after.text.split()[0]])
        assert middle(after) == torch.finfo(kept).eps
    model = subject.opened.model
    assert isinstance(model, GPT)
    attention, width = model.blocks[0].attention, model.settings.n_embd
    dim = attention.head_dim
    query, key, value = (part[:dim] for part in attention.qkv.weight.detach().split(attention.dims))
    circuit = attention.out.weight.detach()[:, :dim] @ value
    assert middle(ask(subject, "rank-of-a-circuit")) == torch.linalg.matrix_rank(query.T @ key)
    assert middle(ask(subject, "size-of-a-circuit")) == circuit.numel() == width**2
    stream = torch.zeros(subject.settings.data.batch_size, model.settings.block_size, width, dtype=torch.bfloat16)
    assert middle(ask(subject, "half-the-bytes")) == pytest.approx(stream.numel() * stream.element_size() / 1e3)
    drawn = F.normalize(torch.randn(4000, 2, width, generator=torch.Generator().manual_seed(0)), dim=2)
    expected = float(drawn.prod(1).sum(1).square().mean().sqrt())
    assert middle(ask(subject, "random-cosine")) == pytest.approx(expected, rel=0.05)
    question = ask(subject, "bytes-of-patterns")
    tokens = next(n for n in (1024, 4096, 16384) if f"of {n:,} tokens" in question.text)
    small = torch.empty(attention.n_head, tokens // 64, tokens // 64)
    assert middle(question) == pytest.approx(small.nbytes * 64**2 / 1e6)
    question = ask(subject, "probe-parameters")
    probe = torch.nn.Linear(width, int(question.text.split("which of ")[1].split()[0]))
    assert middle(question) == count(probe)
    total = count(subject.opened.model)
    assert middle(ask(subject, "bytes-of-gradients")) == pytest.approx(4 * total / 1e6)


def divergence(p: float, q: float) -> float:
    one, other = torch.tensor([p, 1 - p]), torch.tensor([q, 1 - q])
    return float(F.kl_div(other.log(), one, reduction="sum"))


def lora_share(rank: float, width: float, _: float) -> float:
    layer = torch.nn.Linear(int(width), int(width), bias=False)
    adapted = LoraLinear(layer, (int(width), int(width)), int(rank), 1.0, 0.0)
    return 100 * sum(w.numel() for w in adapted.parameters() if w.requires_grad) / layer.weight.numel()


def swing(rate: float, curvature: float, steps: int) -> float:
    """How far from the floor of ½ · curvature · w² a weight is that was 1 away."""
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        (slope,) = torch.autograd.grad(curvature * weight**2 / 2, weight)
        weight = (weight - rate * slope).detach().requires_grad_()
    return abs(float(weight.detach()))


SUMS: dict[str, Callable[..., float | str]] = {
    "bits-of-surprise": lambda percent: math.log2(100 / percent),
    "tokens-of-processes": lambda *n: math.prod(n),
    "masked-loss": lambda asked, answer: 100 * sum([0] * int(asked) + [1] * int(answer)) / (asked + answer),
    "padded-batch": lambda *n: 100 * sum(max(n) - one for one in n) / (len(n) * max(n)),
    "share-that-learns": lora_share,
    "state-of-adapters": lambda _, learns, bits: 3 * learns * bits / 8,
    "forgotten-perplexity": lambda before, after: math.exp(after) / math.exp(before),
    "forgotten-more": lambda a, b, c, d: "A" if b - a > d - c else "B",
    "divergence-of-two": divergence,
    "divergence-both-ways": lambda p, q: "KL(A ‖ B)" if divergence(p, q) > divergence(q, p) else "KL(B ‖ A)",
    "swing-at-a-rate": lambda rate, curvature, steps: swing(rate, curvature, int(steps)),
    "shortest-fit": lambda a, b, target: float(torch.linalg.pinv(torch.tensor([[a, b]])).norm() * target),
    "softened-target": lambda rare, tau: float((torch.tensor([rare, 1 - rare]).log() / tau).softmax(0)[0]),
    "periodic-checkpoints": lambda steps, every: sum(step % every == 0 for step in range(1, int(steps) + 1)),
    "on-the-circle": lambda count, *_: float(torch.polar(torch.ones(()), torch.tensor(2 * math.pi / count)).real),
    "two-blocks-of-a-softmax": lambda a, _, first, b, __, second, largest: (
        first * math.exp(a - largest) + second * math.exp(b - largest)
    ),
    "rule-of-succession": lambda _, __, thrown, ones: float(torch.distributions.Beta(1 + ones, 1 + thrown - ones).mean),
    "above-the-majority": lambda majority, right: 100 - 100 * (100 - right) / (100 - majority),
    "times-read": lambda share, source, budget: budget * share / source / 100,
    "found-by-bands": lambda alike, bands, rows: 100 * (1 - math.prod([1 - alike**rows] * int(bands))),
    "wider-at-eighty": lambda count, _, held: {0.5: "wider", 0.6: "wider", 0.8: "as they are", 1.0: "narrower"}[
        held / count
    ],
}


def test_noise_is_fitted_worst_where_features_are_as_many_as_examples(subject: Subject) -> None:
    draws = torch.Generator().manual_seed(0)
    for seed in range(6):
        question = ask(subject, "noise-of-a-fit", seed)
        examples, _, features, _ = (int(n) for n in re.findall(r"\d+", question.text))
        fits = torch.linalg.pinv(torch.randn(300, examples, features, generator=draws))
        noise = torch.randn(300, examples, 1, generator=draws)
        assert middle(question) == pytest.approx(float((fits @ noise).square().sum() / 300), rel=0.2)


def test_experts_are_counted_and_share_what_else_the_model_has(subject: Subject, model: GPT) -> None:
    feeds = sum(count(block.feed_forward) for block in model.blocks)
    for seed in SEEDS:
        in_all, in_use = ask(subject, "experts-in-all", seed), ask(subject, "experts-in-use", seed)
        experts = int(re.findall(r"becomes (\d+)", in_all.text)[0])
        assert middle(in_all) == pytest.approx((count(model) + (experts - 1) * feeds) / count(model))
        experts, used = (int(n) for n in re.findall(r"becomes (\d+) .* uses (\d+)", in_use.text)[0])
        active, whole = (count(model) + (number - 1) * feeds for number in (used, experts))
        assert middle(in_use) == pytest.approx(100 * active / whole)


def test_far_positions_turn_and_reach_as_the_questions_say(subject: Subject, model: GPT) -> None:
    settings = model.settings
    dim, time = settings.n_embd // settings.n_head, settings.block_size
    rotary = Rotary(dim, 2)
    one = torch.atan2(rotary.sin[1, dim // 2 - 1], rotary.cos[1, dim // 2 - 1])  # from one token to the next
    assert middle(ask(subject, "slowest-pair")) == pytest.approx(math.degrees(time * one), rel=1e-5)
    question = ask(subject, "reach-of-windows")
    window = int(re.findall(r"the (\d+) tokens before", question.text)[0])
    far = settings.n_layer * window + 9
    position = torch.arange(far)
    back = position[:, None] - position
    seen = torch.linalg.matrix_power(((back >= 0) & (back <= window)).double(), settings.n_layer)[-1] > 0
    assert middle(question) == far - 1 - int(seen.nonzero()[0])


def test_a_teachers_probabilities_take_the_bytes_that_are_named(subject: Subject) -> None:
    question = ask(subject, "stored-targets")
    millions = int(re.findall(r"(\d+) million", question.text)[0])
    one = torch.zeros(subject.vocab_size, dtype=torch.float16).nbytes
    assert middle(question) == pytest.approx(one * millions * 1e6 / 1e9)


def test_a_size_has_the_setting_that_the_page_of_symbols_names(subject: Subject) -> None:
    rows = (resources_dir() / "concepts" / "notation.md").read_text(encoding="utf-8").splitlines()
    for seed in range(9):
        question = ask(subject, "setting-of-a-name", seed)
        name = question.text.split("`")[1]
        (row,) = [row for row in rows if re.search(rf"`model\..*\b{name}\b", row)]
        assert f"`{question.answer}`" in row


def test_rates_and_steps_are_those_that_the_optimizer_takes(subject: Subject) -> None:
    train = subject.settings.train
    assert middle(ask(subject, "half-way-rate")) == pytest.approx(
        (train.learning_rate + train.min_learning_rate) / 2, rel=0.03
    )
    warm = ask(subject, "warm-up-rate")
    steps = int(warm.text.rsplit("after ", 1)[1].split()[0])
    rising = torch.linspace(0, train.learning_rate, train.warmup_steps + 2)[1:]
    assert middle(warm) == pytest.approx(float(rising[steps]))
    assert mark(warm, f"{train.learning_rate * steps / train.warmup_steps}").right  # counted from 0
    assert ask(subject, "largest-fall").answer == "second and third"

    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.AdamW([weight], lr=train.learning_rate, weight_decay=train.weight_decay or 0.1)
    for _ in range(1000):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    assert middle(ask(subject, "decay-pull")) == pytest.approx(100 * float(weight[0, 0].detach()), rel=1e-3)

    for gradient in (0.002, 4.0):
        weight = torch.nn.Parameter(torch.zeros(1))
        weight.grad = torch.full_like(weight, gradient)
        torch.optim.AdamW([weight], lr=train.learning_rate, weight_decay=0.0).step()
        assert middle(ask(subject, "first-adam-step")) == pytest.approx(abs(float(weight.detach())), rel=1e-4)

    kept = steps = 1
    while kept * train.beta2 > 0.5:
        kept, steps = kept * train.beta2, steps + 1
    assert ask(subject, "momentum-memory").low < steps < ask(subject, "momentum-memory").high

    edge, beta = middle(ask(subject, "adams-edge")), train.beta1
    for curvature, grows in ((0.98 * edge, False), (1.02 * edge, True)):
        mean, weight, far = 0.0, 1.0, []
        for _ in range(2000):
            mean = beta * mean + (1 - beta) * curvature * weight
            weight -= train.learning_rate * mean
            far.append(abs(weight))
        assert (max(far[-50:]) > max(far[:50])) == grows

    question = ask(subject, "clipped")
    norm = float(question.text.split("norm of ")[1].split(",")[0])
    weight = torch.nn.Parameter(torch.zeros(4))
    weight.grad = torch.full_like(weight, norm / 2)
    torch.nn.utils.clip_grad_norm_([weight], train.grad_clip)
    assert middle(question) == pytest.approx(float(weight.grad[0]) / (norm / 2), rel=1e-3)
