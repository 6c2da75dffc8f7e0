"""Small sums that a page is about, with numbers drawn anew: no model is needed."""

from __future__ import annotations

import math
from random import Random

from llmlab.core.signs import minus
from llmlab.gpt.shapes import parameter_count
from llmlab.notebook.scoring import brier
from llmlab.practice.kinds import Facts, Found, number_text, ordered, value
from llmlab.practice.subject import Subject


def brier_score(subject: Subject, random: Random) -> Found:
    confidence, right = random.choice((0.6, 0.7, 0.8, 0.9)), random.random() < 0.5
    came = "comes true" if right else "does not come true"
    return value(brier(confidence, right), confidence=confidence, sure=100 * confidence, came=came, right=int(right))


def bits_of_surprise(subject: Subject, random: Random) -> Found:
    chance = random.choice((0.5, 0.25, 0.2, 0.1, 0.05))
    bits = -math.log2(chance)
    return value(bits, within=0.03, chance=chance, percent=100 * chance, bits=bits)


def wider_at_eighty(subject: Subject, random: Random) -> Found:
    count, right = random.choice(((20, 10), (20, 20), (30, 24), (40, 24), (40, 40)))
    share = right / count
    # Two standard deviations of a share of `count` at 80 %.
    slack = 2 * math.sqrt(0.8 * 0.2 / count)
    place = 0 if share < 0.8 - slack else 2 if share > 0.8 + slack else 1
    return ordered(place, count=count, right=right, share=100 * share, slack=100 * slack)


def tokens_of_processes(subject: Subject, random: Random) -> Found:
    processes = random.choice((2, 4, 8))
    batch, time = subject.settings.data.batch_size, subject.model_settings.block_size
    return value(
        processes * batch * time, within=0.01, processes=processes, batch=batch, time=time, tokens=batch * time
    )


def bytes_of_gradients(subject: Subject, random: Random) -> Found:
    total = parameter_count(subject.model_settings, subject.vocab_size)
    return value(4 * total / 1e6, within=0.05, total=total, bytes=4 * total)


def masked_loss(subject: Subject, random: Random) -> Found:
    asked, answer = random.randrange(20, 60), random.randrange(5, 20)
    return value(100 * answer / (asked + answer), within=0.05, asked=asked, answer=answer, all=asked + answer)


def padded_batch(subject: Subject, random: Random) -> Found:
    lengths = [random.randrange(10, 80) for _ in range(4)]
    longest, filled = max(lengths), sum(lengths)
    share = 100 * (1 - filled / (len(lengths) * longest))
    return value(share, within=0.05, off=1, lengths=", ".join(map(str, lengths)), longest=longest, filled=filled)


def share_that_learns(subject: Subject, random: Random) -> Found:
    width, rank = random.choice((256, 512, 768, 1024)), random.choice((4, 8, 16))
    return value(100 * 2 * rank * width / width**2, within=0.05, width=width, rank=rank)


def state_of_adapters(subject: Subject, random: Random) -> Found:
    whole, learns = random.choice((135, 500, 1500)), random.choice((1, 5, 10))
    return value(12 * learns, within=0.05, whole=whole, learns=learns, full=12 * whole)


def forgotten_perplexity(subject: Subject, random: Random) -> Found:
    before, rise = random.choice((2.6, 3.1, 3.4)), random.choice((0.1, 0.2, 0.35, 0.5))
    return value(math.exp(rise), within=0.03, before=before, after=before + rise, factor=math.exp(rise))


def forgotten_more(subject: Subject, random: Random) -> Found:
    first, second = random.sample((0.04, 0.09, 0.17, 0.31), 2)
    a, b = random.sample((2.2, 2.9, 3.6), 2)
    return ordered(first < second, a=a, a_after=a + first, b=b, b_after=b + second, first=first, second=second)


def divergence_of_two(subject: Subject, random: Random) -> Found:
    p, q = random.choice(((0.9, 0.5), (0.8, 0.6), (0.5, 0.9), (0.7, 0.3)))
    nats = _divergence(p, q)
    return value(nats, within=0.05, p=p, q=q, not_p=1 - p, not_q=1 - q, nats=nats)


def divergence_both_ways(subject: Subject, random: Random) -> Found:
    p, q = random.choice(((0.99, 0.5), (0.5, 0.99), (0.9, 0.6), (0.6, 0.9)))
    there, back = _divergence(p, q), _divergence(q, p)
    return ordered(there < back, p=p, q=q, there=there, back=back)


def _divergence(p: float, q: float) -> float:
    """KL of two choices between two tokens, in nats."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def periodic_checkpoints(subject: Subject, random: Random) -> Found:
    steps = subject.settings.train.steps
    every = max(1, steps // random.randrange(3, 9) - 1)
    return value(steps // every, within=0, steps=steps, every=every)


def after_one(subject: Subject, random: Random) -> Found:
    name, bits = random.choice((("bf16", 7), ("fp16", 10), ("fp32", 23)))
    return value(2.0**-bits, name=name, bits=bits, apart=2.0**-bits)


def half_the_bytes(subject: Subject, random: Random) -> Found:
    model, batch = subject.model_settings, subject.settings.data.batch_size
    numbers = batch * model.block_size * model.n_embd
    return value(2 * numbers / 1e3, within=0.05, batch=batch, time=model.block_size, width=model.n_embd)


def swing_at_a_rate(subject: Subject, random: Random) -> Found:
    curvature, rate = random.choice(((20, 0.04), (20, 0.12), (50, 0.03), (50, 0.05), (100, 0.018)))
    steps, each = 3, 1 - rate * curvature
    factor = abs(each) ** steps
    facts: Facts = {"each": number_text(each), "factor": number_text(factor)}
    return value(factor, within=0.03, rate=rate, curvature=curvature, steps=steps, **facts)


def shortest_fit(subject: Subject, random: Random) -> Found:
    first, second, length = random.choice(((3, 4, 5), (6, 8, 10), (5, 12, 13), (8, 15, 17)))
    target = length * random.choice((2, 3, 5))
    return value(target / length, within=0.01, first=first, second=second, target=target, length=length)


def noise_of_a_fit(subject: Subject, random: Random) -> Found:
    examples, features = 40, random.choice((20, 30, 50, 80, 160))
    smaller, larger = sorted((examples, features))
    error = smaller / (larger - smaller - 1)  # E tr((XᵀX)⁻¹) of a normal X, or of XXᵀ
    return value(error, within=0.05, examples=examples, features=features, smaller=smaller, larger=larger)


def softened_target(subject: Subject, random: Random) -> Found:
    rare, tau = random.choice((0.01, 0.02, 0.05, 0.1)), random.choice((2, 4))
    odds = (rare / (1 - rare)) ** (1 / tau)
    return value(odds / (1 + odds), within=0.05, rare=rare, rest=1 - rare, tau=tau, odds=odds)


def stored_targets(subject: Subject, random: Random) -> Found:
    millions, vocab = random.choice((1, 10, 100)), subject.vocab_size
    return value(2 * vocab * millions / 1e3, within=0.05, millions=millions, vocab=vocab, each=2 * vocab / 1e3)


def rank_of_a_circuit(subject: Subject, random: Random) -> Found:
    model = subject.model_settings
    rank = model.n_embd // model.n_head
    return value(rank, within=0, width=model.n_embd, heads=model.n_head, rank=rank)


def size_of_a_circuit(subject: Subject, random: Random) -> Found:
    width = subject.model_settings.n_embd
    return value(width**2, within=0.01, width=width)


def random_cosine(subject: Subject, random: Random) -> Found:
    width = subject.model_settings.n_embd
    return value(width**-0.5, within=0.06, width=width, cosine=width**-0.5)


def on_the_circle(subject: Subject, random: Random) -> Found:
    count = random.choice((3, 5, 6, 8))
    read = math.cos(2 * math.pi / count)
    return value(read, within=0.03, count=count, read=read)


def bytes_of_patterns(subject: Subject, random: Random) -> Found:
    heads, tokens = subject.model_settings.n_head, random.choice((1024, 4096, 16384))
    return value(4 * heads * tokens**2 / 1e6, within=0.06, heads=heads, tokens=tokens)


def two_blocks_of_a_softmax(subject: Subject, random: Random) -> Found:
    first, second = random.choice(((0.0, 2.0), (1.0, 3.0), (2.0, 1.0), (3.0, 1.0)))
    sums = [random.choice((1.5, 2.0, 2.5)) for _ in range(2)]
    largest = max(first, second)
    total = sums[0] * math.exp(first - largest) + sums[1] * math.exp(second - largest)
    facts: Facts = {"first": first, "first_sum": sums[0], "second": second, "second_sum": sums[1], "largest": largest}
    of_first, of_second = (minus(f"{one - largest:g}") for one in (first, second))
    return value(total, within=0.03, total=total, of_first=of_first, of_second=of_second, **facts)


def rule_of_succession(subject: Subject, random: Random) -> Found:
    thrown = random.choice((4, 6, 8, 10))
    ones = random.randrange(thrown + 1)
    return value((ones + 1) / (thrown + 2), thrown=thrown, ones=ones, above=ones + 1, below=thrown + 2)


def probe_parameters(subject: Subject, random: Random) -> Found:
    width, labels = subject.model_settings.n_embd, random.choice((5, 12, 17, 40))
    return value(labels * (width + 1), within=0, labels=labels, width=width)


def above_the_majority(subject: Subject, random: Random) -> Found:
    majority, right = random.choice(((60, 84), (70, 79), (80, 90), (90, 92), (50, 80)))
    share = 100 * (right - majority) / (100 - majority)
    facts: Facts = {"majority": majority, "right": right, "without": 100 - majority, "left": 100 - right}
    return value(share, within=0.03, share=number_text(share), **facts)


def times_read(subject: Subject, random: Random) -> Found:
    share, source, budget = random.choice((5, 10, 20)), random.choice((2, 5, 20)), random.choice((100, 300, 1000))
    of_one = share / 100
    return value(of_one * budget / source, within=0.03, share=share, of_one=of_one, source=source, budget=budget)


def found_by_bands(subject: Subject, random: Random) -> Found:
    alike, rows, bands = random.choice((0.4, 0.6, 0.8)), random.choice((4, 5, 8)), random.choice((10, 14, 20))
    found = 100 * (1 - (1 - alike**rows) ** bands)
    return value(found, within=0.05, off=0.1, alike=alike, rows=rows, bands=bands, found=found)
