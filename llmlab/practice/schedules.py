"""Numbers of training that follow from its settings: the learning rate's course, weight decay, AdamW's first step."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from random import Random

from llmlab.practice.kinds import Found, NothingToAsk, choice, number_text, value
from llmlab.practice.subject import Subject
from llmlab.training.schedule import learning_rate


def warm_up_rate(subject: Subject, random: Random) -> Found:
    train = subject.settings.train
    if train.warmup_steps < 4:
        raise NothingToAsk("It has no warm-up.")
    step = train.warmup_steps // random.choice((2, 4))
    rate = learning_rate(step, train)
    naive = train.learning_rate * step / train.warmup_steps  # counted from 0, as most would
    facts = {"warmup": train.warmup_steps, "peak": train.learning_rate, "step": step, "rate": rate}
    return value(rate, within=0.05, off=1.01 * abs(rate - naive), **facts)


def half_way_rate(subject: Subject, random: Random) -> Found:
    train = replace(subject.settings.train, schedule="cosine")
    step = (train.warmup_steps + train.steps) // 2
    rate = learning_rate(step, train)
    facts = {"peak": train.learning_rate, "low": train.min_learning_rate, "warmup": train.warmup_steps}
    return value(rate, within=0.03, steps=train.steps, step=step, rate=rate, **facts)


def largest_fall(subject: Subject, random: Random) -> Found:
    train = replace(subject.settings.train, schedule="cosine", warmup_steps=0, steps=1000, min_learning_rate=0.0)
    marks = [round(train.steps * share) for share in (0, 0.25, 0.5, 0.75, 1)]
    rates = [learning_rate(min(step, train.steps), train) for step in marks]
    falls = [before - after for before, after in pairwise(rates)]
    assert sorted(falls, reverse=True)[:2] == sorted((falls[1], falls[2]), reverse=True)
    names = ("first", "second", "third", "last")
    said = ", ".join(f"{fall:.3g} in the {name}" for fall, name in zip(falls, names, strict=True))
    wrong = ["first and second", "third and last", "first and last"]
    return choice(random, "second and third", wrong, falls=said)


def decay_pull(subject: Subject, random: Random) -> Found:
    rate, decay, steps = subject.settings.train.learning_rate, subject.settings.train.weight_decay or 0.1, 1000
    left = 100 * (1 - rate * decay) ** steps
    return value(left, within=0.02, off=0.5, rate=rate, decay=decay, steps=steps, left=left)


def first_adam_step(subject: Subject, random: Random) -> Found:
    rate = subject.settings.train.learning_rate
    return value(rate, within=0.02, rate=rate, gradient=random.choice((0.002, 0.03, 0.5, 4.0)))


def adams_edge(subject: Subject, random: Random) -> Found:
    rate, beta = subject.settings.train.learning_rate, subject.settings.train.beta1
    if not rate:
        raise NothingToAsk("Its learning rate is zero.")
    edge = (2 + 2 * beta) / ((1 - beta) * rate)
    return value(edge, within=0.03, rate=rate, beta=beta, edge=number_text(edge))


def momentum_memory(subject: Subject, random: Random) -> Found:
    beta = subject.settings.train.beta2
    steps = math.log(0.5) / math.log(beta)
    return value(steps, within=0.06, beta=beta, steps=number_text(steps))


def clipped(subject: Subject, random: Random) -> Found:
    limit, norm = subject.settings.train.grad_clip or 1.0, random.choice((2.5, 4.0, 8.0))
    norm *= limit
    return value(limit / norm, within=0.02, norm=norm, limit=limit)
