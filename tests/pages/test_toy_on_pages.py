"""What the concept pages say of the toy in words and tables: each number is computed again, on the toy itself."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter

import pytest
import torch
from concept_pages import ids_of, losses_of, page, rows_of
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cosine_similarity, gelu
from torch.utils.flop_counter import FlopCounterMode

from llmlab.gpt.model import GPT, Block, Rotary
from llmlab.gpt.toy import IDS, TARGETS, WORDS, toy_model
from llmlab.inspection.compare import divergence
from llmlab.inspection.differences import linear_cka
from llmlab.notebook.scoring import brier

_OTHER = [0, 4, 2, 3, 0, 1]  # the mat sat on the cat
_OTHER_IDS, _OTHER_TARGETS = torch.tensor([_OTHER[:-1]]), torch.tensor([_OTHER[1:]])
_SAID = re.compile(r"[−+]?\d[\d,]*(?:\.\d+)?")


def numbers_after(name: str, beginning: str) -> list[float]:
    """The numbers of a page from these words to the end of the line."""
    ((rest),) = re.findall(re.escape(beginning) + "(.*)", page(name))
    return numbers_in(rest)


def numbers_in(text: str) -> list[float]:
    return [float(number.replace("−", "-").replace(",", "")) for number in _SAID.findall(text)]


def block_of(toy: GPT, layer: int) -> Block:
    block = toy.blocks[layer]
    assert isinstance(block, Block)
    return block


def embedded(toy: GPT) -> Tensor:
    return toy.token_embedding(IDS) + toy.position_embedding.weight  # [1, 5, C]


def minus(number: float, digits: int) -> str:
    """As a page writes it."""
    return f"{number:.{digits}f}".replace("-", "−")


@torch.no_grad()
def test_one_text_has_a_score_of_learning_in_the_context_that_all_texts_do_not_have() -> None:
    toy = toy_model()
    (first, *_, last) = losses_of(toy, IDS, TARGETS)[0].tolist()
    every = torch.tensor(list(itertools.product(range(6), repeat=6)))
    losses = losses_of(toy, every[:, :-1], every[:, 1:])
    mean = float((losses[:, -1] - losses[:, 0]).mean())
    said = numbers_after("in-context-learning", 'the last token of "the cat sat on the mat" costs ')
    assert said == [round(last, 2), round(first, 2), round(last - first, 2), len(every), round(mean, 2)]


@torch.no_grad()
def test_the_toys_scores_of_induction() -> None:
    toy = toy_model()
    x, patterns = embedded(toy), []
    for layer, block in enumerate(toy.blocks):
        q, k, _ = block_of(toy, layer).attention.heads(block.attention.qkv(block.attention_norm(x)))
        patterns += list((q @ k.mT / 2**0.5)[0, :, 4].softmax(-1))  # the last position sees all
        x = block(x)
    duplicate, induction = rows_of("induction-heads", "layer.head")
    assert duplicate == ["duplicate, A at 4, 0", *(f"{row[0]:.2f}" for row in patterns)]
    assert induction == ["induction, A at 4, 1", *(f"{row[1]:.2f}" for row in patterns)]
    assert [WORDS[id] for id in IDS[0, [0, 1, 4]]] == ["the", "cat", "the"]


def test_what_a_longer_text_would_be_to_the_toy() -> None:
    turned = Rotary(head_dim=2, block_size=6)
    torch.testing.assert_close(turned.cos[:, 0], torch.arange(6).float().cos())  # one radian per position
    assert "interpolated with s = 2 it is 2.5" in page("long-context")
    weights, layers, width, time = sum(weight.numel() for weight in toy_model().parameters()), 2, 4, 5
    work = 2 * weights + 4 * layers * width * time
    share = lambda time: 4 * layers * width * time / (2 * weights + 4 * layers * width * time)  # noqa: E731
    said = numbers_after("long-context", "In the toy N is ")
    assert said == [weights, 2, weights, 4, 2, 4, 5, work, round(100 * share(5)), round(100 * share(1000))]


def test_the_toy_learns_its_text_by_heart() -> None:
    toy, measured = toy_model(), []
    optimizer = torch.optim.SGD(toy.parameters(), lr=0.1)
    shown = (0, 3, 10, 30, 300)
    for step in range(shown[-1] + 1):
        loss = toy.loss(IDS, TARGETS)
        if step in shown:
            measured.append((loss.item(), toy.loss(_OTHER_IDS, _OTHER_TARGETS).item()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert f"| steps | {' | '.join(map(str, shown))} |" in page("loss-curves")
    for (_, *row), found in zip(rows_of("loss-curves", "steps"), zip(*measured, strict=True), strict=True):
        assert [float(cell) for cell in row] == pytest.approx(found, abs=0.011)


def test_the_mean_of_two_ranks_gradients_is_that_of_one_process() -> None:
    both = torch.cat([IDS, _OTHER_IDS]), torch.cat([TARGETS, _OTHER_TARGETS])
    found = []
    for ids, targets in ((IDS, TARGETS), (_OTHER_IDS, _OTHER_TARGETS), both):
        toy = toy_model()
        loss = toy.loss(ids, targets)
        loss.backward()
        found.append((loss.item(), toy.blocks[0].feed_forward.up.weight.grad[3]))
    torch.testing.assert_close((found[0][1] + found[1][1]) / 2, found[2][1])
    for (_, said, four), (loss, gradient) in zip(rows_of("many-processes", "process"), found, strict=True):
        assert numbers_in(said) == [round(loss, 2)]
        assert numbers_in(four) == [round(number, 4) for number in gradient.tolist()]


def test_what_a_step_is_in_bf16() -> None:
    toy = toy_model()
    toy.loss(IDS, TARGETS).backward()
    before = [weight.detach().clone() for weight in toy.parameters()]
    torch.optim.AdamW(toy.parameters(), lr=0.001, weight_decay=0).step()
    moved = {}
    for (name, after), weight in zip(toy.named_parameters(), before, strict=True):
        step, rounded = (after - weight).detach(), weight.bfloat16()
        moved[name] = (weight, step, ((rounded + step).bfloat16() - rounded).float())
    weight, step, in_bf16 = (part[3].tolist() for part in moved["blocks.0.feed_forward.up.weight"])
    stay = sum(int((part == 0).sum()) for _, _, part in moved.values())
    said = numbers_after("mixed-precision", "moves four weights of [the toy](concept:forward-pass), ")
    assert said[:4] == [round(number, 3) for number in weight]
    assert [said[4]] * 4 == [round(abs(number), 4) for number in step]
    assert said[6:10] == [round(abs(number), 4) for number in in_bf16]  # 5: the 16 of bf16
    assert said[10:] == [sum(one.numel() for one in before), stay]


@torch.no_grad()
def test_two_experts_and_a_router_of_two_of_the_toys_words() -> None:
    toy = toy_model()
    block = block_of(toy, 0)
    x = embedded(toy)
    x = block.feed_forward_norm(x + block.attention(block.attention_norm(x)))[0]  # [5, C]
    p = (x @ toy.token_embedding.weight[[WORDS.index("the"), WORDS.index("sat")]].T).softmax(-1)  # [5, 2]
    sizes = {name: weight.numel() for name, weight in toy.named_parameters()}
    one = sum(number for name, number in sizes.items() if "feed_forward." in name)
    rest = sum(sizes.values()) - one
    said = numbers_after("mixtures-of-experts", "[the toy](concept:forward-pass) would have ")
    assert said == [rest, 2, one, rest + 2 * one, rest + one]
    f, P = torch.bincount(p.argmax(-1), minlength=2) / 5, p.mean(0)
    said = numbers_after("mixtures-of-experts", "At the five positions, p of the first expert is ")
    expected = [*p[:, 0].tolist(), *f.tolist(), *P.tolist(), float(2 * (f * P).sum())]
    assert said == [round(number, 2) for number in expected]


def test_a_bigram_of_the_toys_text() -> None:
    text = [*IDS[0].tolist(), TARGETS[0, -1].item()]
    ones, before, pairs = Counter(text), Counter(text[:-1]), Counter(itertools.pairwise(text))
    unigram = {id: (ones[id] + 1 / 6) / (len(text) + 1) for id in range(6)}
    bigram = {pair: (count + unigram[pair[1]]) / (before[pair[0]] + 1) for pair, count in pairs.items()}
    loss = -sum(math.log(bigram[pair]) for pair in itertools.pairwise(text)) / 5
    said = numbers_after("n-grams", "The unigram gives ")
    assert said[:6] == [2, 1, 6, 7, round(unigram[0], 2), round(unigram[4], 2)]
    assert said[6] == round(unigram[5], 2)
    assert said[7:] == [1, 0.17, 2, 1, round(bigram[0, 4], 2), round(loss, 2), 1.62]
    assert f"{toy_model().loss(IDS, TARGETS):.2f}" == "1.62"


def test_the_sizes_of_the_toy() -> None:
    toy = toy_model()
    q = block_of(toy, 0).attention.heads(block_of(toy, 0).attention.qkv(embedded(toy)))[0]  # [B, H, T, D]
    vocabulary, width = toy.token_embedding.weight.shape
    hidden = len(block_of(toy, 0).feed_forward.up.weight)
    said = numbers_after("notation", "In [the toy](concept:forward-pass), ")
    assert said == [q.shape[0], q.shape[2], vocabulary, width, len(toy.blocks), q.shape[1], q.shape[3], 4, hidden]


@torch.no_grad()
def test_the_toys_choices_as_predictions() -> None:
    p = toy_model()(IDS)[0].softmax(-1)
    said = numbers_after("predicting", "[the toy](concept:forward-pass) chooses ")
    for position, (stated, cost, bits), digits in ((4, said[:3], 2), (2, [*said[3:5], said[6]], 1)):
        confidence, choice = p[position].max(-1)
        right, c = bool(choice == TARGETS[0, position]), float(confidence)
        assert [round(100 * c), round(brier(c, right), 2)] == [stated, cost]
        assert round(-math.log2(c if right else (1 - c) / 5), digits) == bits
    assert said[5] == round(100 * float(1 - p[2].max()) / 5)


@torch.no_grad()
def test_a_probe_of_the_toy_reads_every_label() -> None:
    toy = toy_model()
    x = torch.cat([toy.blocks[0](embedded(toy))[0], torch.ones(5, 1)], 1).double()  # [5, 5]: the one is for b
    read = 0
    for label in itertools.product((-1.0, 1.0), repeat=5):
        y = torch.tensor(label, dtype=torch.float64)
        read += int(((x @ torch.linalg.solve(x, y)).sign() == y).all())
    assert f"four weights and b read all 2⁵ = {read} ways to label the five positions without an error." in page(
        "probes-and-steering"
    )


def test_the_operations_of_a_step_of_the_toy() -> None:
    toy = toy_model()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:  # it does not know the fused kernel
        toy.loss(IDS, TARGETS).backward()
    number = sum(weight.numel() for weight in toy.parameters())
    without = toy.position_embedding.weight.numel() + sum(w.numel() for w in toy.parameters() if w.dim() == 1)
    matrices, attention = 6 * (number - without) * 5, 2 * 3 * 2 * (2 * 5 * 5 * 4)  # layers, passes, products
    assert counted.get_total_flops() == matrices + attention
    said = numbers_after("scaling-laws", "A step of [the toy](concept:forward-pass), with N = ")
    assert said == [number, 5, 6, 6 * number * 5, matrices + attention, matrices, without, attention]


@torch.no_grad()
def test_the_toys_words_are_not_orthogonal() -> None:
    E = toy_model().token_embedding.weight
    cosines = cosine_similarity(E[:, None], E[None], dim=-1)  # [6, 6]
    others = cosines[~torch.eye(6, dtype=torch.bool)]
    said = numbers_after("superposition", "is at least √((6 − 4) / (4 · 5)) = ")
    found = [math.sqrt((6 - 4) / (4 * 5)), float(others.square().mean().sqrt()), float(cosines[0, 1])]
    assert [said[0], *said[2:]] == [round(number, 2) for number in found]  # 1: the year of the bound


@torch.no_grad()
def test_a_mask_leaves_the_loss_of_the_answer() -> None:
    *question, answer = losses_of(toy_model(), IDS, TARGETS)[0].tolist()
    said = ", ".join(f"{loss:.2f}" for loss in question)
    mean = (sum(question) + answer) / 5
    text = page("chat-templates")
    assert f"{said} and {answer:.2f}, with a mean of {mean:.2f}" in text
    assert f'the question and "mat" the answer: with the mask, the loss is {answer:.2f}.' in text


@torch.no_grad()
def test_how_far_the_toy_is_from_others() -> None:
    toy = toy_model()
    a = toy(IDS)[0, -1].numpy()
    block_of(toy, 1).attention.out.weight[:, :2] = 0  # what head 0 writes
    b = toy(IDS)[0, -1].numpy()
    text = page("comparing-models")
    assert f"KL(A ‖ B) is {divergence(a, b):.3f} nats, and KL(B ‖ A) {divergence(b, a):.3f}." in text
    streams = []
    for seed in range(101):
        toy = toy_model(seed)
        first, second = toy.blocks
        streams.append(second(first(embedded(toy)))[0].numpy())
    alike = [linear_cka(streams[0], other) for other in streams[1:]]
    assert f"CKA of {sum(alike) / 100:.2f} on average, and of up to {max(alike):.2f}." in text


@torch.no_grad()
def test_a_temperature_brings_out_what_is_unlikely() -> None:
    teacher, student = (toy_model(seed)(IDS)[0, -1] for seed in (0, 1))
    _, *columns = zip(*rows_of("distillation", "τ"), strict=True)
    for tau, said in zip((1, 2, 4), columns, strict=True):
        p = (teacher / tau).softmax(-1)
        kl = divergence((teacher / tau).numpy(), (student / tau).numpy())
        cat, mat = p[WORDS.index("cat")], p[WORDS.index("mat")]
        assert said == (f"{mat:.2f}", f"{cat:.2f}", f"{kl:.3f}", f"{tau**2 * kl:.2f}")


@torch.no_grad()
def test_the_shortest_exact_fit_is_shorter_with_more_neurons() -> None:
    toy = toy_model().double()
    block = block_of(toy, 0)
    x = embedded(toy)
    x = block.feed_forward_norm(x + block.attention(block.attention_norm(x)))
    neurons = gelu(block.feed_forward.up(x), approximate="tanh")[0]  # [5, 16]
    y = (TARGETS[0] == WORDS.index("the")).double()
    errors, lengths = rows_of("double-descent", "P")
    for P, error, length in zip((4, 5, 10, 16), errors[1:], lengths[1:], strict=True):
        w = torch.linalg.pinv(neurons[:, :P]) @ y
        assert f"{(neurons[:, :P] @ w - y).square().mean():.3f}" == error
        assert f"{w.norm():.1f}" == length


@torch.no_grad()
def test_the_sum_and_the_mean_choose_different_answers() -> None:
    toy, prompt = toy_model(), "on the"

    def of(answer: str) -> tuple[float, float]:
        ids = ids_of(f"{prompt} {answer}")[0]
        given = ids_of(prompt).shape[1]
        p = toy(ids[None])[0, given - 1 : -1].log_softmax(-1)
        each = p.gather(1, ids[given:, None])
        return float(each.sum()), float(each.mean())

    (one, _), (two, mean) = of("."), of("mat .")
    assert two < one < mean
    said = f'"." a log probability of {minus(one, 2)}, and "mat ." {minus(two, 2)}, which is {minus(mean, 2)} per token'
    assert said in page("evaluation")


@torch.no_grad()
def test_the_toys_attention_in_two_blocks() -> None:
    toy = toy_model()
    block = block_of(toy, 0)
    x = embedded(toy)
    q, k, v = (part[0, 0] for part in block.attention.heads(block.attention.qkv(block.attention_norm(x))))
    scores = k @ q[-1] / 2**0.5
    m, total, o, found = torch.tensor(-torch.inf), torch.zeros(()), torch.zeros(2), []
    for keys in ([3, 4], [0, 1, 2]):
        larger = torch.maximum(m, scores[keys].max())
        old, new, m = (m - larger).exp(), (scores[keys] - larger).exp(), larger
        total, o = old * total + new.sum(), old * o + new @ v[keys]
        numbers = (m[None], total[None], o, o / total)
        cells = [", ".join(minus(number, 2) for number in part.tolist()) for part in numbers]
        found.append([", ".join(map(str, keys)), *cells])
    torch.testing.assert_close(o / total, scores.softmax(-1) @ v)
    assert found == rows_of("flash-attention", "after keys")


def test_how_much_two_texts_of_the_toys_words_share() -> None:
    text = [*IDS[0].tolist(), TARGETS[0, -1].item()]
    one, two = (set(itertools.pairwise(ids)) for ids in (text, _OTHER))
    shared, all_rows = len(one & two), len(one | two)
    assert f"share {shared} of {all_rows}, so J is {shared / all_rows:.2f}." in page("data-quality")


@torch.no_grad()
def test_how_uncertain_the_toy_is() -> None:
    p = toy_model()(IDS)[0, -1].softmax(-1)
    bits = -(p * p.log2()).sum()
    assert f'after "the cat sat on the" has an entropy of {bits:.2f} bits.' in page("bayesian-reasoning")
