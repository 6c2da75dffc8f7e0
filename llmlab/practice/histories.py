"""What one's own run did: its losses, its best step, its speed, read from its events."""

from __future__ import annotations

import math
from random import Random

import numpy as np

from llmlab.practice.kinds import NAT, PERCENT, Facts, Found, NothingToAsk, interval, number_text, ordered, value
from llmlab.practice.subject import Subject


def _evaluations(subject: Subject, least: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, training and validation losses that are finite. NothingToAsk where there are fewer than `least`."""
    rows = subject.history.evaluations
    steps, train, val = (np.array(rows[name]) for name in ("step", "train_loss", "val_loss"))
    kept = np.isfinite(train) & np.isfinite(val)
    if kept.sum() < least:
        raise NothingToAsk("It was evaluated too seldom.")
    return steps[kept], train[kept], val[kept]


def _column(subject: Subject, name: str) -> tuple[np.ndarray, np.ndarray]:
    columns = subject.history.step_columns
    steps, values = np.array(columns["step"]), np.array(columns[name])
    kept = np.isfinite(values)
    if kept.sum() < 5:
        raise NothingToAsk("It took too few steps.")
    return steps[kept], values[kept]


def loss_at_a_step(subject: Subject, random: Random) -> Found:
    steps, _, val = _evaluations(subject)
    at = random.randrange(1, len(steps) - 1)
    facts: Facts = {"first": val[0], "begin": steps[0], "last": val[-1], "end": steps[-1], "step": steps[at]}
    return interval(float(val[at]), useful=abs(float(val[0] - val[-1])) / 2, loss=val[at], **facts)


def best_step(subject: Subject, random: Random) -> Found:
    steps, _, val = _evaluations(subject)
    best = int(steps[val.argmin()])
    return value(best, within=0.01, loss=val.min(), best=best)


def the_gap(subject: Subject, random: Random) -> Found:
    _, train, val = _evaluations(subject, 1)
    return interval(float(val[-1] - train[-1]), useful=NAT / 2, val=val[-1], train=train[-1])


def half_of_the_fall(subject: Subject, random: Random) -> Found:
    steps, _, val = _evaluations(subject)
    if val[-1] >= val[0]:
        raise NothingToAsk("Its loss did not fall.")
    middle = (val[0] + val[-1]) / 2
    after = int(np.argmax(val <= middle))
    near = slice(after - 1, after + 1)
    at = float(np.interp(-middle, -val[near], steps[near]))  # the evaluations may lie far apart
    share = 100 * (at - steps[0]) / (steps[-1] - steps[0])
    facts: Facts = {"first": val[0], "begin": steps[0], "last": val[-1], "end": steps[-1], "middle": middle, "at": at}
    facts |= {
        "before": val[after - 1],
        "before_step": steps[after - 1],
        "after": val[after],
        "after_step": steps[after],
    }
    return interval(float(share), useful=PERCENT, **facts)


def overfits(subject: Subject, random: Random) -> Found:
    _, _, val = _evaluations(subject)
    rise = float(val[-1] / val.min() - 1)
    return ordered(0 if rise == 0 else 1 if rise < 0.01 else 2, lowest=val.min(), last=val[-1])


def rate_at_a_step(subject: Subject, random: Random) -> Found:
    steps, rates = _column(subject, "lr")
    at = random.randrange(len(steps))
    train = subject.settings.train
    facts: Facts = {"schedule": train.schedule, "steps": train.steps, "warmup": train.warmup_steps}
    facts |= {"peak": train.learning_rate, "low": train.min_learning_rate}
    return value(float(rates[at]), within=0.15, step=steps[at], rate=rates[at], **facts)


def largest_gradient(subject: Subject, random: Random) -> Found:
    steps, norms = _column(subject, "grad_norm")
    at = int(norms.argmax())
    third = 3 * (steps[at] - steps[0]) / max(1.0, steps[-1] - steps[0])
    return ordered(min(2, int(third)), norm=norms[at], step=steps[at], steps=steps[-1])


def clipped_share(subject: Subject, random: Random) -> Found:
    limit = subject.settings.train.grad_clip
    _, norms = _column(subject, "grad_norm")
    if not limit:
        raise NothingToAsk("Its gradients were not clipped.")
    above = norms > limit
    return interval(100 * float(above.mean()), useful=PERCENT, limit=limit, clipped=above.sum(), recorded=len(norms))


def how_fast(subject: Subject, random: Random) -> Found:
    _, speeds = _column(subject, "tokens_per_second")
    speed = float(np.median(speeds))
    return interval(speed, speed=number_text(speed))


def tokens_in_all(subject: Subject, random: Random) -> Found:
    steps, tokens = _column(subject, "tokens")
    each, settings = tokens[-1] / max(1.0, steps[-1]), subject.settings
    counted = f"{each:,.0f} a step, on average."
    if each == settings.tokens_per_step:
        sequences, time = each / settings.model.block_size, settings.model.block_size
        counted = f"{sequences:,.0f} sequences of {time} tokens in each step: {each:,.0f} · {steps[-1]:,.0f}."
    return value(float(tokens[-1]), within=0.1, steps=steps[-1], counted=counted)


def beyond_counting(subject: Subject, random: Random) -> Found:
    counted = getattr(subject.history.started, "unigram_loss", None)
    steps, _, val = _evaluations(subject)
    if not counted or (val > counted).all() or val[0] <= counted:  # a branch may begin below
        raise NothingToAsk("It is not known how far counting tokens would come.")
    first = int(steps[np.argmax(val <= counted)])
    return interval(first, useful=float(steps[-1]) / 2, counted=counted, first=first)


def bits_a_byte(subject: Subject, random: Random) -> Found:
    _, _, val = _evaluations(subject, 1)
    each = getattr(subject.history.started, "bytes_per_token", None)
    if not each:
        raise NothingToAsk("How long its tokens are was not recorded.")
    bits = float(val[-1]) / math.log(2) / each
    return value(bits, within=0.04, loss=val[-1], each=each, bytes="byte" if each == 1 else "bytes", bits=bits)
