"""What one's own run did: its losses, its best step, its speed, read from its events."""

from __future__ import annotations

import math
from random import Random

import numpy as np

from llmlab.practice.kinds import NAT, PERCENT, RUN, Draft, NothingToAsk, interval, kind, ordered, shown, value
from llmlab.practice.question import KNOW, PREDICT, READ
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


@kind("loss-at-a-step", "loss-curves", PREDICT, "loss", RUN)
def loss_at_a_step(subject: Subject, random: Random) -> Draft:
    steps, _, val = _evaluations(subject)
    at = random.randrange(1, len(steps) - 1)
    text = (
        f"{subject.name} had a validation loss of {val[0]:.2f} at step "
        f"{steps[0]:,.0f} and of {val[-1]:.2f} at step {steps[-1]:,.0f}. "
        f"What was it at step {steps[at]:,.0f}?"
    )
    how, fall = f"Evaluated there: {val[at]:.4f}.", abs(float(val[0] - val[-1]))
    return interval(text, float(val[at]), how, unit="nats", useful=fall / 2)


@kind("best-step", "checkpoints", READ, "loss", RUN)
def best_step(subject: Subject, random: Random) -> Draft:
    steps, _, val = _evaluations(subject)
    best = int(steps[val.argmin()])
    text = f"At which step was the validation loss of {subject.name} lowest?"
    return value(text, best, f"{val.min():.4f} at step {best:,}; @best is its checkpoint.", within=0.01)


@kind("the-gap", "loss-curves", READ, "loss", RUN)
def the_gap(subject: Subject, random: Random) -> Draft:
    _, train, val = _evaluations(subject, 1)
    gap = float(val[-1] - train[-1])
    text = f"At its last evaluation, by how much is the validation loss of {subject.name} above its training loss?"
    return interval(text, gap, f"{val[-1]:.4f} − {train[-1]:.4f}.", unit="nats", useful=NAT / 2)


@kind("half-of-the-fall", "loss-curves", PREDICT, "loss", RUN)
def half_of_the_fall(subject: Subject, random: Random) -> Draft:
    steps, _, val = _evaluations(subject)
    if val[-1] >= val[0]:
        raise NothingToAsk("Its loss did not fall.")
    middle = (val[0] + val[-1]) / 2
    after = int(np.argmax(val <= middle))
    near = slice(after - 1, after + 1)
    at = float(np.interp(-middle, -val[near], steps[near]))  # the evaluations may lie far apart
    share = 100 * (at - steps[0]) / (steps[-1] - steps[0])
    text = (
        f"The validation loss of {subject.name} fell from {val[0]:.2f} at step {steps[0]:,.0f} to {val[-1]:.2f} at "
        f"step {steps[-1]:,.0f}. After which share of these steps was half of that fall done?"
    )
    how = (
        f"From {val[after - 1]:.2f} at step {steps[after - 1]:,.0f} to {val[after]:.2f} at step {steps[after]:,.0f}, "
        f"a straight line passes {middle:.2f} at step {at:,.0f}."
    )
    return interval(text, float(share), how, unit="%", useful=PERCENT)


@kind("overfits", "loss-curves", READ, "loss", RUN)
def overfits(subject: Subject, random: Random) -> Draft:
    _, _, val = _evaluations(subject)
    rise = float(val[-1] / val.min() - 1)
    choices = ("it was lowest at the end", "it rose again by less than 1 %", "it rose again by more than 1 %")
    text = f"What did the validation loss of {subject.name} do at the end?"
    right = choices[0 if rise == 0 else 1 if rise < 0.01 else 2]
    return ordered(text, choices, right, f"Lowest {val.min():.4f}, last {val[-1]:.4f}.")


@kind("rate-at-a-step", "learning-rate", KNOW, "learning_rate", RUN)
def rate_at_a_step(subject: Subject, random: Random) -> Draft:
    steps, rates = _column(subject, "lr")
    at = random.randrange(len(steps))
    train = subject.settings.train
    text = (
        f"{subject.name}: {train.schedule} schedule over {train.steps:,} steps, "
        f"{train.warmup_steps} of warm-up, from {train.learning_rate:g} to "
        f"{train.min_learning_rate:g}. What was the learning rate of step {steps[at]:,.0f}?"
    )
    return value(text, float(rates[at]), f"It was recorded: {rates[at]:.4g}.", within=0.15)


@kind("largest-gradient", "optimisation", READ, "learning_rate", RUN)
def largest_gradient(subject: Subject, random: Random) -> Draft:
    steps, norms = _column(subject, "grad_norm")
    at = int(norms.argmax())
    third = 3 * (steps[at] - steps[0]) / max(1.0, steps[-1] - steps[0])
    choices = ("in the first third", "in the second third", "in the last third")
    text = f"When was the norm of the gradient of {subject.name} largest?"
    return ordered(
        text, choices, choices[min(2, int(third))], f"{norms[at]:.3g} at step {steps[at]:,.0f} of {steps[-1]:,.0f}."
    )


@kind("clipped-share", "optimisation", PREDICT, "learning_rate", RUN)
def clipped_share(subject: Subject, random: Random) -> Draft:
    limit = subject.settings.train.grad_clip
    _, norms = _column(subject, "grad_norm")
    if not limit:
        raise NothingToAsk("Its gradients were not clipped.")
    share = 100 * float((norms > limit).mean())
    text = (
        f"{subject.name} clipped gradients at a norm of {limit:g}. In "
        "which share of its recorded steps was there something to clip?"
    )
    how = f"{(norms > limit).sum()} of {len(norms)} recorded norms are above {limit:g}."
    return interval(text, share, how, unit="%", useful=PERCENT)


@kind("how-fast", "optimisation", PREDICT, "throughput", RUN)
def how_fast(subject: Subject, random: Random) -> Draft:
    _, speeds = _column(subject, "tokens_per_second")
    speed = float(np.median(speeds))
    text = f"How many tokens a second did {subject.name} train on?"
    return interval(text, speed, f"The median of its recorded speeds: {shown(speed)}.", unit="tokens/s")


@kind("tokens-in-all", "tokens", READ, "throughput", RUN)
def tokens_in_all(subject: Subject, random: Random) -> Draft:
    steps, tokens = _column(subject, "tokens")
    text = f"How many tokens has {subject.name} read in its {steps[-1]:,.0f} steps?"
    each, settings = tokens[-1] / max(1.0, steps[-1]), subject.settings
    how = f"{each:,.0f} a step, on average."
    if each == settings.tokens_per_step:
        sequences, time = each / settings.model.block_size, settings.model.block_size
        how = f"{sequences:,.0f} sequences of {time} tokens in each step: {each:,.0f} · {steps[-1]:,.0f}."
    return value(text, float(tokens[-1]), how, within=0.1)


@kind("beyond-counting", "n-grams", READ, "loss", RUN)
def beyond_counting(subject: Subject, random: Random) -> Draft:
    counted = getattr(subject.history.started, "unigram_loss", None)
    steps, _, val = _evaluations(subject)
    if not counted or (val > counted).all():
        raise NothingToAsk("It is not known how far counting tokens would come.")
    first = int(steps[np.argmax(val <= counted)])
    text = (
        f"A prediction that knows only how frequent each token is has a loss of {counted:.2f} nats on the text of "
        f"{subject.name}. By which step was the validation loss of the run below that?"
    )
    how = f"The first evaluation at or below {counted:.3f} was at step {first:,}."
    return interval(text, first, how, unit="steps", useful=float(steps[-1]) / 2)


@kind("bits-a-byte", "evaluation", KNOW, "loss", RUN)
def bits_a_byte(subject: Subject, random: Random) -> Draft:
    _, _, val = _evaluations(subject, 1)
    each = getattr(subject.history.started, "bytes_per_token", None)
    if not each:
        raise NothingToAsk("How long its tokens are was not recorded.")
    bits = float(val[-1]) / math.log(2) / each
    text = (
        f"At its last evaluation {subject.name} had a loss of {val[-1]:.3f} nats per token, and a token is "
        f"{each:.3g} {'byte' if each == 1 else 'bytes'} long, on average. How many bits per byte is that?"
    )
    return value(text, bits, f"{val[-1]:.3f} / ln 2 / {each:.3g} = {bits:.3f}.", within=0.04)
