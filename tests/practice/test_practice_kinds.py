"""Every kind of question: its answer is what an independent computation gives."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from random import Random

import pytest
import torch
import torch.nn.functional as F
from small_runs import all_events, new_run, train_here
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from llmlab.core.paths import resources_dir
from llmlab.core.settings import ModelSettings
from llmlab.data.papers import list_papers
from llmlab.gpt.model import GPT, Rotary
from llmlab.practice import claims, predictions, readings, twin
from llmlab.practice.asking import handful
from llmlab.practice.claims import AGAINST, REFUTES, SUPPORTS, TEST
from llmlab.practice.deck import Record
from llmlab.practice.kinds import NOTHING, SETTINGS, NothingToAsk, all_kinds, kinds_for
from llmlab.practice.predictions import CHANGES
from llmlab.practice.question import CHOICE, HEAD, INTERVAL, LOOK_INSIDE, TRAINING, VALUE, WAYS, Question, mark
from llmlab.practice.source_lines import LINES, lines_of
from llmlab.practice.subject import Subject, subject_of
from llmlab.training.finetuning.lora import LoraLinear, insert
from llmlab.training.optimizer import make_optimizer

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    train_here(new_run(folder, model__n_layer=2, model__n_head=2, train__warmup_steps=4, train__grad_clip=0.5))
    return folder


@pytest.fixture(scope="module")
def subject(outputs: Path) -> Iterator[Subject]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twin, "STEPS", 3)
        patch.setattr(twin, "_HELD_OUT", 4)
        all_kinds()  # or a module that is imported only now would keep what is patched
        patch.setattr(readings, "_FOUND", 0.0)
        for least in ("_APART", "_COUNTS"):
            patch.setattr(predictions, least, 0.0)
        yield subject_of("run", outputs)


@pytest.fixture(scope="module")
def model(subject: Subject) -> GPT:
    assert isinstance(subject.opened.model, GPT)
    return subject.opened.model


def ask(subject: Subject, name: str, seed: int = 0) -> Question:
    return all_kinds()[name].ask(subject, seed)


def middle(question: Question) -> float:
    return (question.low + question.high) / 2


# All of them ------------------------------------------------------------------------------------------------------


def test_there_are_sixty_kinds_of_every_way_and_each_belongs_to_a_page() -> None:
    kinds = all_kinds().values()
    assert len(kinds) >= 60
    assert {kind.way for kind in kinds} == set(WAYS)
    pages = {path.stem for path in (resources_dir() / "concepts").glob("*.md")} | {LOOK_INSIDE}
    of_pages = [kind.concept for kind in kinds]
    assert {page for page in pages if of_pages.count(page) >= 2} == pages  # each page ends with two
    assert set(of_pages) == pages
    assert (resources_dir() / f"{LOOK_INSIDE}.md").is_file()


def test_every_question_has_one_answer_that_is_marked_right_and_others_that_are_not(subject: Subject) -> None:
    asked = set()
    for kind, seed in product(all_kinds().values(), SEEDS[:2]):
        try:
            question = kind.ask(subject, seed)
        except NothingToAsk:
            continue
        asked.add(kind.name)
        assert question.text, kind.name
        assert question.how, kind.name
        if question.form == CHOICE:
            marks = [mark(question, choice).right for choice in question.choices]
            assert len(set(question.choices)) == len(question.choices) >= 2, kind.name
            assert marks.count(True) == 1, kind.name
        elif question.form == HEAD:
            assert mark(question, question.right[0]).right, kind.name
            assert not mark(question, "9.9").right, kind.name
        elif question.form == INTERVAL:
            low, high = sorted((question.low * 0.5 - 1, question.low * 1.5 + 1))
            assert mark(question, f"{low}..{high}").held, kind.name
            assert not mark(question, f"{high}..{high + 1}").right, kind.name
        else:
            assert question.form == VALUE
            assert mark(question, f"{middle(question)!r}").right, kind.name
            assert not mark(question, f"{2 * question.high + 1}").right, kind.name
    left_out = set(all_kinds()) - asked
    assert len(left_out) <= 3, left_out


def test_the_smallest_run_is_asked_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin, "STEPS", 1)
    train_here(new_run(tmp_path, model__n_head=1, model__block_size=4, train__steps=1, train__warmup_steps=0))
    small = subject_of("run", tmp_path)
    asked = set()
    for kind in all_kinds().values():
        with contextlib.suppress(NothingToAsk):
            asked.add(kind.ask(small, 0).kind)
    assert {"largest-fall", "worst-predicted"} <= asked


def test_the_layer_that_settles_is_not_given_away_by_its_place(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.zeros(2 * 20 + 1, 1, 1, dtype=torch.long).numpy()
    ids[:21] = 1  # another token up to row 20, before layer 10
    all_kinds()  # or a module that is imported only now would keep what follows
    monkeypatch.setattr(readings, "needed", lambda *_: ids)
    asked = [ask(subject, "settled-after", seed) for seed in range(12)]
    assert {question.answer for question in asked} == {"after layer 10"}
    assert {len(question.choices) for question in asked} == {9}
    assert len({question.choices.index("after layer 10") for question in asked}) > 3


def test_equal_seeds_give_equal_questions(subject: Subject, outputs: Path) -> None:
    again, before = subject_of("run", outputs), {}
    for name in all_kinds():
        try:
            before[name] = ask(subject, name, 5).as_dict()
        except NothingToAsk:
            continue
        assert json.dumps(ask(again, name, 5).as_dict()) == json.dumps(before[name]), name
    assert any(ask(subject, name, 6).as_dict()["text"] != before[name]["text"] for name in before)


def test_without_a_run_there_are_questions_that_need_none(tmp_path: Path) -> None:
    nobody = subject_of("", tmp_path)
    for kind in all_kinds().values():
        assert nobody.has(kind.needs) == (kind.needs in (NOTHING, SETTINGS))
    assert ask(nobody, "kv-cache").form == VALUE
    assert ask(nobody, "what-refutes").model == ""


# Counts and shapes ------------------------------------------------------------------------------------------------


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


# Schedules --------------------------------------------------------------------------------------------------------


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


# Readings: everything computed again, from the model's own parts ---------------------------------------------------


class Pass:
    """A forward pass of the lab's GPT, written out: patterns by layer, streams, what each part adds."""

    @torch.no_grad()
    def __init__(self, model: GPT, ids: Tensor) -> None:
        time = len(ids)
        x = model.token_embedding(ids)[None]
        if model.settings.position == "learned":
            x = x + model.position_embedding.weight[:time]
        self.patterns, self.added, self.streams, self.by_head = [], [("embedding", x[0, -1])], [x[0]], {}
        future = torch.ones(time, time).triu(1).bool()
        self.norms: dict[str, float] = {}
        for layer, block in enumerate(model.blocks):
            attention = block.attention
            q, k, v = attention.heads(attention.qkv(block.attention_norm(x)))
            pattern = (q @ k.transpose(2, 3) * attention.scale).masked_fill(future, -math.inf).softmax(-1)
            self.patterns.append(pattern[0])
            z = (pattern @ v).transpose(1, 2).flatten(2)
            dim = attention.head_dim
            for head in range(attention.n_head):
                part = slice(head * dim, (head + 1) * dim)
                self.by_head[layer, head] = z[0, -1, part] @ attention.out.weight[:, part].T
            add = attention.out(z)
            self.added.append((f"attention of layer {layer}", add[0, -1]))
            x = x + add
            self.streams.append(x[0])
            add = block.feed_forward(block.feed_forward_norm(x))
            self.added.append((f"feed-forward of layer {layer}", add[0, -1]))
            x = x + add
            self.streams.append(x[0])
        self.logits = model.logits(model.final_norm(x))[0, :, : model.vocab_size]
        self.model = model

    @torch.no_grad()
    def read(self, row: int) -> Tensor:
        """Logits of the lens at the last position: streams 0, after layer 0, 1 ..."""
        return self.model.logits(self.model.final_norm(self.streams[2 * row][-1:]))[0, : self.model.vocab_size]

    @torch.no_grad()
    def bar(self, added: Tensor, id: int) -> float:
        """How much a vector at the last position adds to a token's logit, with the last norm's size frozen."""
        last, norm = self.streams[-1][-1], self.model.final_norm
        size = (
            (last - last.mean()).pow(2).mean().add(norm.EPS).sqrt()
            if norm.kind == "layernorm"
            else last.pow(2).mean().add(norm.EPS).sqrt()
        )
        centred = added - added.mean() if norm.kind == "layernorm" else added
        return float((centred / size * norm.weight) @ self.model.unembedding[id])


def test_readings_are_those_of_a_pass_written_out(
    subject: Subject, model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    passages = {seed: subject.ids(Random(seed), 12) for seed in SEEDS}
    monkeypatch.setattr(Subject, "passage", property(lambda self: passages[self.seed]))  # one for all kinds
    for seed in SEEDS:
        ask(subject, "how-many-tokens", seed)
        ids = torch.tensor(subject.seen.metadata.token_ids)
        made, tokens = Pass(model, ids), subject.seen.metadata.tokens
        pairs = list(product(range(2), range(2)))
        by_row = {pair: made.patterns[pair[0]][pair[1]][1:] for pair in pairs}
        places = torch.arange(len(ids))
        behind = places[1:, None] - places
        entropies = {pair: float(-(rows * (rows + 1e-30).log()).sum(1).mean()) for pair, rows in by_row.items()}
        scores = {
            "previous-token-head": {pair: float(rows.diagonal().mean()) for pair, rows in by_row.items()},
            "first-token-head": {pair: float(rows[:, 0].mean()) for pair, rows in by_row.items()},
            "farthest-head": {pair: float((rows * behind).sum(1).mean()) for pair, rows in by_row.items()},
            "sharpest-head": {pair: -entropy for pair, entropy in entropies.items()},
            "widest-head": entropies,
        }
        answer = int(made.logits[-1].argmax())
        scores["carried-by-head"] = {pair: made.bar(added, answer) for pair, added in made.by_head.items()}
        for name, of_heads in scores.items():
            best = max(of_heads, key=lambda pair: of_heads[pair])
            assert f"{best[0]}.{best[1]}" in ask(subject, name, seed).right, name

        def text(id: int | Tensor) -> str:
            return repr(subject.opened.tokenizer.token_text(int(id)))

        reads = [int(made.read(row).argmax()) for row in range(3)]
        settled = next(row for row in range(3) if all(read == reads[-1] for read in reads[row:]))
        losses = F.cross_entropy(made.logits[:-1], ids[1:], reduction="none")
        worst = int(losses.argmax()) + 1
        chances = made.logits[-1].softmax(-1)
        bars = {name: made.bar(added, answer) for name, added in made.added}
        longest = max(made.added[1:], key=lambda pair: float(pair[1].norm()))[0]
        turns = [
            float(F.cosine_similarity(made.streams[2 * n][-1], made.streams[2 * n + 2][-1], dim=0)) for n in range(2)
        ]
        answers = {
            "settled-after": ("before layer 0", "after layer 0", "after layer 1")[settled],
            "lens-before-blocks": text(reads[0]),
            "most-likely-next": text(answer),
            "worst-predicted": f"{worst}: {tokens[worst]!r}",
            "carried-by": max(bars, key=lambda name: bars[name]),
            "loudest-part": longest,
            "turned-most": f"layer {turns.index(min(turns))}",
        }
        for name, expected in answers.items():
            assert ask(subject, name, seed).answer == expected, name
        growth = made.streams[-1].norm(dim=1).mean() / made.streams[0].norm(dim=1).mean()
        values = {
            "surest-share": 100 * float(chances.max()),
            "passage-loss": float(losses.mean()),
            "uncertainty": float((-(chances * chances.log()).sum()).exp()),
            "stream-growth": float(growth),
        }
        for name, number in values.items():
            assert middle(ask(subject, name, seed)) == pytest.approx(number, rel=1e-3), name
        for name in ("looked-at", "weight-on-first", "effective-tokens"):
            question = ask(subject, name, seed)
            layer, head = re.findall(r"head (\d+)\.(\d+)", question.text)[0]
            row = made.patterns[int(layer)][int(head)][-1]
            if name == "looked-at":
                assert question.answer == f"{int(row.argmax())}: {tokens[int(row.argmax())]!r}"
            else:
                number = float(row[0]) if name == "weight-on-first" else float((-(row * row.log()).sum()).exp())
                assert middle(question) == pytest.approx(number, rel=1e-3)
        early = ask(subject, "ranked-early", seed)
        row = 0 if "before layer 0" in early.text else 1
        rank = int((made.read(row) > made.read(row)[answer]).sum()) + 1
        assert early.how == f"The lens gives it rank {rank:,} there."
        assert early.choices[-1] == f"11 to {model.vocab_size}"  # no rank is behind the last token
        low, _, high = early.answer.partition(" to ")
        assert int(low) <= rank <= int(high or low)
        made_of = ask(subject, "how-many-tokens", seed)
        words = eval(made_of.text.split(" make of ")[1].rsplit(" (", 1)[0])
        assert str(len(subject.opened.tokenizer.encode(words))) == made_of.answer


def test_readings_of_one_day_are_of_different_passages(subject: Subject) -> None:
    names = ("most-likely-next", "passage-loss", "carried-by", "previous-token-head", "without-a-head")
    prompts = [ask(subject, name, 3).prompt for name in names]
    assert len(set(prompts)) == len(names)
    assert [ask(subject, name, 3).prompt for name in names] == prompts


def test_where_no_head_finds_repeats_none_is_asked_for(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "_FOUND", 0.1)
    assert float(subject.seen["heads/induction"].max()) < 0.1  # of a model that was trained for a few steps
    with pytest.raises(NothingToAsk):
        ask(subject, "induction-head")


def test_a_passage_is_no_row_of_spaces(outputs: Path) -> None:
    indented = subject_of("run", outputs)
    indented.__dict__["text"] = ("the king of the ring " + 30 * " ") * 40
    for seed in range(20):
        assert indented.opened.tokenizer.decode(indented.ids(Random(seed), 12)).strip()


def test_heads_that_find_repeats_are_found_on_repeats(subject: Subject, model: GPT) -> None:
    for name, shift in (("induction-head", 1), ("duplicate-head", 0)):
        scores = subject.seen[f"heads/{name.removesuffix('-head')}"]
        layer, head = divmod(int(scores.argmax()), 2)
        assert f"{layer}.{head}" in ask(subject, name).right, (name, shift)


# Predictions ------------------------------------------------------------------------------------------------------


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
            assert float(question.how.split()[-1].rstrip(".")) == pytest.approx(rise, abs=2e-4), name
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
        assert question.answer == f"{worst}: {subject.opened.tokenizer.token_text(ids[worst])!r}"
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


def test_an_interval_has_a_width_that_is_useful(subject: Subject) -> None:
    for name, kind in all_kinds().items():
        with contextlib.suppress(NothingToAsk):
            question = kind.ask(subject, 0)
            if question.form != INTERVAL or not question.useful:
                continue
            low = question.low - 0.4 * question.useful
            assert mark(question, f"{low}..{low + 0.9 * question.useful}").right, name
            wide = mark(question, f"{question.low - 1.1 * question.useful}..{question.low + 1e-9}")
            assert wide.held, name
            assert not wide.right, name


def test_every_second_question_is_about_the_model_itself(subject: Subject, tmp_path: Path) -> None:
    asked: list[str] = []
    for _ in range(6):  # as the window asks: one at a time
        asked.append(next(handful(subject, Record(), 1, 3, 0.0, without=asked)).kind)
    kinds = all_kinds()
    assert [kinds[name].own for name in asked[::2]] == [True] * 3
    assert len(set(asked)) == 6
    assert [question.kind for question in handful(subject, Record(), 6, 3, 0.0)] == asked
    due = Record(due={"perplexity": -2.0, "kv-cache": -1.0})
    second = [question.kind for question in handful(subject, due, 2, 3, 0.0)][1]
    assert second == "perplexity"  # what is due comes in between
    nobody = subject_of("", tmp_path)
    assert len(list(handful(nobody, Record(), 3, 3, 0.0, quick=True))) == 3


def test_nothing_is_trained_for_a_quick_question(subject: Subject) -> None:
    trained = {kind.name for kind in all_kinds().values() if kind.trains}
    assert trained == {change.name for change in CHANGES}
    page = {name for name in trained if all_kinds()[name].concept == "learning-rate"}
    left = {question.kind for question in handful(subject, Record(), 99, 0, 0.0, concept="learning-rate", quick=True)}
    assert len(page) == 2
    assert left
    assert not left & trained


def test_the_first_hours_page_asks_about_its_own_prompt_and_nowhere_else(subject: Subject, model: GPT) -> None:
    ids = subject.opened.tokenizer.encode("I pray you, sir, I pray")[-model.settings.block_size :]
    look, back = ask(subject, "first-look"), None
    assert subject.opened.tokenizer.decode(ids) == look.prompt
    with torch.no_grad():
        shares = model(torch.tensor([ids]))[0, -1].softmax(-1)
    best = float(shares.max())
    assert f"{100 * best:.2f} %" in look.how
    with contextlib.suppress(NothingToAsk):
        back = ask(subject, "first-look-back")
    if int(shares.argmax()) in ids:
        assert back is not None
        (first, second) = (float(share) for share in re.findall(r"from ([\d.]+) % to ([\d.]+) %", back.how)[0])
        assert first == pytest.approx(100 * best, abs=0.006)
        layer, head = map(int, re.search(r"Head (\d)\.(\d)", back.how).groups())  # type: ignore[union-attr]
        changed = copy.deepcopy(model)
        width = model.settings.n_embd // model.settings.n_head
        with torch.no_grad():
            changed.blocks[layer].attention.out.weight[:, head * width : (head + 1) * width] = 0
            after = float(changed(torch.tensor([ids]))[0, -1].softmax(-1)[int(shares.argmax())])
        assert second == pytest.approx(100 * after, abs=0.006)
    general = {kind.name for kind in kinds_for(subject)}
    assert not general & {"first-look", "first-look-back"}
    assert ask(subject, "most-likely-next").prompt != look.prompt


# Code, papers, runs -----------------------------------------------------------------------------------------------


def test_the_line_that_is_asked_for_is_the_only_one_of_its_function(subject: Subject) -> None:
    for line in LINES:
        assert sum(line.has in one for one in lines_of(line.symbol)) == 1, line.name
        question = ask(subject, line.name)
        assert [choice for choice in question.choices if line.has in choice] == [question.answer], line.name
    offered = {choice for seed in range(9) for choice in ask(subject, "line-causal", seed).choices}
    assert not [line for line in offered if line.startswith("mask =")]  # which is causal as well


def test_what_is_asked_about_a_claim_can_be_read_without_its_table(subject: Subject) -> None:
    """Of every claim, each question that can be made: its choices name what they are about, and one is right."""
    for paper, claim in [(one, claim) for one in list_papers() for claim in one.claims]:
        own = claim.practice
        assert own is not None, claim.id
        rights = {SUPPORTS: own.supports, REFUTES: own.refutes, AGAINST: own.against}
        if claim.sizes:
            rights[TEST] = own.tests
        else:
            assert not own.tests, claim.id
        for what, right in rights.items():
            draft = claims.ask(Random(0), what, paper, claim)
            assert draft.right == (right,), (claim.id, what)
            assert len(draft.choices) == (3 if what in (SUPPORTS, REFUTES) else 4), (claim.id, what)
            assert (own.claims or claim.statement) in draft.text
            assert not re.search(r"wind.tunnel|SULA", draft.text), claim.id  # the papers' own words for their tasks
            for one in draft.choices:
                assert not re.match(r"(It|They|This|These|Those|Neither|One of them|Less|Removing others)\b", one), one
                assert one.endswith("."), one
            if what != AGAINST:
                close, why = (own.flawed, own.flaw) if what == TEST else (own.neither, own.why)
                assert close in draft.choices
                assert close in draft.how
                assert why in draft.how


def test_the_longest_choice_is_no_more_often_right_than_others(subject: Subject) -> None:
    every = [claim.practice for paper in list_papers() for claim in paper.claims if claim.practice]
    longest = [max(("supports", "refutes", "neither"), key=lambda name: len(getattr(own, name))) for own in every]
    assert {name: longest.count(name) <= len(every) / 2 for name in set(longest)} == dict.fromkeys(set(longest), True)


def test_a_claim_that_practice_says_nothing_of_is_not_asked_about() -> None:
    paper = list_papers()[0]
    bare = replace(paper.claims[0], practice=None)
    with pytest.raises(NothingToAsk):
        claims.ask(Random(0), REFUTES, paper, bare)


def test_papers_are_asked_with_their_own_words(subject: Subject) -> None:
    every = [claim for paper in list_papers() for claim in paper.claims]
    for seed in SEEDS:
        for name, page in (("refutes-grokking", "grokking"), ("against-bayesian-reasoning", "bayesian-geometry")):
            (paper,) = [paper for paper in list_papers() if paper.name == page]
            assert paper.title in ask(subject, name, seed).text
        question = ask(subject, "whose-claim", seed)
        paper = next(paper for paper in list_papers() if paper.title == question.answer)
        assert any(claim.statement in question.text for claim in paper.claims)
        untested = ask(subject, "cannot-be-tested", seed)
        tested = {claim.statement: bool(claim.sizes) for claim in every}
        for choice in untested.choices:
            found = next(tested[statement] for statement in tested if statement.startswith(choice.removesuffix(" ...")))
            assert found == (choice != untested.answer)


def test_a_run_is_asked_about_what_its_events_say(subject: Subject) -> None:
    assert subject.run is not None
    events = all_events(subject.run)
    evaluated = [event for event in events if event["event"] == "evaluated"]
    steps = [event for event in events if event["event"] == "step"]
    losses = {event["step"]: event["val_loss"] for event in evaluated}
    asked = ask(subject, "loss-at-a-step")
    assert middle(asked) == pytest.approx(losses[int(asked.text.rsplit("step ", 1)[1].rstrip("?"))])
    assert middle(ask(subject, "best-step")) == min(losses, key=lambda step: losses[step])
    assert middle(ask(subject, "the-gap")) == pytest.approx(evaluated[-1]["val_loss"] - evaluated[-1]["train_loss"])
    rate = ask(subject, "rate-at-a-step")
    step = int(rate.text.rsplit("step ", 1)[1].rstrip("?"))
    assert middle(rate) == pytest.approx(next(event["lr"] for event in steps if event["step"] == step))
    read = ask(subject, "tokens-in-all")
    assert middle(read) == steps[-1]["tokens"]
    sequences, length, each, count = map(int, re.findall(r"[\d,]+", read.how.replace(",", "")))
    assert length == subject.settings.model.block_size
    assert (sequences * length, each * count) == (each, steps[-1]["tokens"])
    clipped = [event["grad_norm"] > 0.5 for event in steps]
    assert middle(ask(subject, "clipped-share")) == pytest.approx(100 * sum(clipped) / len(clipped))
    largest = max(steps, key=lambda event: event["grad_norm"])["step"]
    third = min(2, int(3 * (largest - 1) / (steps[-1]["step"] - 1)))
    assert (
        ask(subject, "largest-gradient").answer
        == ("in the first third", "in the second third", "in the last third")[third]
    )
    started = next(event for event in events if event["event"] == "started")
    bits = evaluated[-1]["val_loss"] / math.log(2) / started["bytes_per_token"]
    assert middle(ask(subject, "bits-a-byte")) == pytest.approx(bits)
    speeds = sorted(event["tokens_per_second"] for event in steps)
    assert speeds[0] <= middle(ask(subject, "how-fast")) <= speeds[-1]
    lowest, last = min(losses.values()), evaluated[-1]["val_loss"]
    ending = 0 if last == lowest else 1 if last / lowest < 1.01 else 2
    assert ask(subject, "overfits").choices.index(ask(subject, "overfits").answer) == ending
