"""Numbers of training that follow from its settings: the learning rate's course, weight decay, AdamW's first step."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from random import Random

from llmlab.practice.kinds import SETTINGS, Draft, NothingToAsk, choice, kind, shown, value
from llmlab.practice.question import KNOW
from llmlab.practice.subject import Subject
from llmlab.training.schedule import learning_rate


@kind("warm-up-rate", "learning-rate", KNOW, "learning_rate", SETTINGS)
def warm_up_rate(subject: Subject, random: Random) -> Draft:
    train = subject.settings.train
    if train.warmup_steps < 4:
        raise NothingToAsk("It has no warm-up.")
    step = train.warmup_steps // random.choice((2, 4))
    rate = learning_rate(step, train)
    text = (
        f"{subject.name} warms up over {train.warmup_steps} steps to a learning "
        f"rate of {train.learning_rate:g}. What is it after {step} steps?"
    )
    how = f"{train.learning_rate:g} · ({step} + 1) / ({train.warmup_steps} + 1) = {rate:.4g}."
    naive = train.learning_rate * step / train.warmup_steps  # counted from 0, as most would
    return value(text, rate, how, within=0.05, off=1.01 * abs(rate - naive))


@kind("half-way-rate", "learning-rate", KNOW, "learning_rate", SETTINGS)
def half_way_rate(subject: Subject, random: Random) -> Draft:
    train = replace(subject.settings.train, schedule="cosine")
    step = (train.warmup_steps + train.steps) // 2
    rate = learning_rate(step, train)
    text = (
        f"A cosine takes the learning rate from {train.learning_rate:g} at step {train.warmup_steps} to "
        f"{train.min_learning_rate:g} at step {train.steps:,}. What is it at step {step:,}, half-way?"
    )
    return value(text, rate, f"Half-way the cosine is 0: the mean of both, {rate:.4g}.", within=0.03)


@kind("largest-fall", "learning-rate", KNOW, "learning_rate", SETTINGS)
def largest_fall(subject: Subject, random: Random) -> Draft:
    train = replace(subject.settings.train, schedule="cosine", warmup_steps=0, steps=1000, min_learning_rate=0.0)
    marks = [round(train.steps * share) for share in (0, 0.25, 0.5, 0.75, 1)]
    rates = [learning_rate(min(step, train.steps), train) for step in marks]
    falls = [before - after for before, after in pairwise(rates)]
    names = ["first", "second", "third", "last"]
    text = (
        "The learning rate of a cosine schedule without warm-up: in which two of its four quarters does it fall most?"
    )
    right = "second and third"
    assert sorted(falls, reverse=True)[:2] == sorted((falls[1], falls[2]), reverse=True)
    how = (
        "It falls by "
        + ", ".join(f"{fall:.3g} in the {name}" for fall, name in zip(falls, names, strict=True))
        + " quarter."
    )
    return choice(random, text, right, ["first and second", "third and last", "first and last"], how)


@kind("decay-pull", "optimisation", KNOW, "setup", SETTINGS)
def decay_pull(subject: Subject, random: Random) -> Draft:
    train = subject.settings.train
    decay = train.weight_decay or 0.1
    steps = 1000
    left = (1 - train.learning_rate * decay) ** steps
    text = (
        f"AdamW with a constant learning rate of {train.learning_rate:g} "
        f"and a weight decay of {decay:g}: which share of a "
        f"weight whose gradient stays zero is left after {steps:,} steps?"
    )
    how = (
        f"Each step multiplies it by 1 − {train.learning_rate:g} · "
        f"{decay:g}: to the power {steps:,}, {100 * left:.2f} %."
    )
    return value(text, 100 * left, how, unit="%", within=0.02, off=0.5)


@kind("first-adam-step", "optimisation", KNOW, "parameters", SETTINGS)
def first_adam_step(subject: Subject, random: Random) -> Draft:
    rate, gradient = subject.settings.train.learning_rate, random.choice((0.002, 0.03, 0.5, 4.0))
    text = (
        f"The first step of AdamW, at a learning rate of {rate:g}, without decay: how far does a weight move whose "
        f"gradient is {gradient:g}?"
    )
    how = f"m / (1 − β₁) is the gradient and √(v / (1 − β₂)) its size, so their ratio is 1, whatever it is: {rate:g}."
    return value(text, rate, how, within=0.02)


@kind("adams-edge", "edge-of-stability", KNOW, "learning_rate", SETTINGS)
def adams_edge(subject: Subject, random: Random) -> Draft:
    rate, beta = subject.settings.train.learning_rate, subject.settings.train.beta1
    if not rate:
        raise NothingToAsk("Its learning rate is zero.")
    edge = (2 + 2 * beta) / ((1 - beta) * rate)
    text = (
        f"AdamW with a learning rate of {rate:g} and β₁ = {beta:g} trains on a whole training set. Beyond which "
        "curvature, of the Hessian with each row divided by the root of its mean of squares, do its steps swing wider "
        "and wider?"
    )
    how = f"(2 + 2 · {beta:g}) / ((1 − {beta:g}) · {rate:g}) = {shown(edge)}; without β₁ it would be 2 / {rate:g}."
    return value(text, edge, how, within=0.03)


@kind("momentum-memory", "optimisation", KNOW, "setup", SETTINGS)
def momentum_memory(subject: Subject, random: Random) -> Draft:
    beta = subject.settings.train.beta2
    steps = math.log(0.5) / math.log(beta)
    text = (
        "AdamW's mean of squared gradients forgets with β₂ = "
        f"{beta:g}. After how many steps does a gradient count half?"
    )
    return value(text, steps, f"ln 0.5 / ln {beta:g} = {shown(steps)}.", within=0.06)


@kind("clipped", "optimisation", KNOW, "learning_rate", SETTINGS)
def clipped(subject: Subject, random: Random) -> Draft:
    limit, norm = subject.settings.train.grad_clip or 1.0, random.choice((2.5, 4.0, 8.0))
    norm *= limit
    text = (
        f"The gradient has a norm of {norm:g}, and gradients are clipped "
        f"at {limit:g}. By which factor is each of its numbers multiplied?"
    )
    return value(text, limit / norm, f"{limit:g} / {norm:g}: its direction stays.", within=0.02)
