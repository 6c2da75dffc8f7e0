"""What a GPT with these settings costs: memory, arithmetic, tokens, and its loss before it has learned anything."""

from __future__ import annotations

import math
from random import Random

from llmlab.gpt.shapes import padded_vocab_size
from llmlab.practice.kinds import Facts, Found, NothingToAsk, choice, number_text, ordered, value
from llmlab.practice.shapes import head_dim, matrices, parameters, weights_in
from llmlab.practice.subject import Subject

_FLOAT = 4  # bytes of a number in fp32
_MB = 1e6


def _kv_dim(subject: Subject) -> int:
    model = subject.model_settings
    return (model.n_kv_head or model.n_head) * head_dim(subject)


def logits_memory(subject: Subject, random: Random) -> Found:
    batch, time = subject.settings.data.batch_size, subject.model_settings.block_size
    vocab = padded_vocab_size(subject.model_settings, subject.vocab_size)
    return value(batch * time * vocab * _FLOAT / _MB, within=0.1, batch=batch, time=time, vocab=vocab)


def kv_cache(subject: Subject, random: Random) -> Found:
    layers, width, tokens = subject.model_settings.n_layer, _kv_dim(subject), random.choice((128, 256, 1024, 4096))
    size = 2 * layers * width * tokens * _FLOAT
    return value(size / _MB, within=0.06, layers=layers, width=width, tokens=tokens, size=size)


def kv_cache_grouped(subject: Subject, random: Random) -> Found:
    heads = subject.model_settings.n_head
    groups = subject.model_settings.n_kv_head or heads
    return value(100 / groups, within=0.03, heads=heads, groups=groups)


def twice_the_context(subject: Subject, random: Random) -> Found:
    time = subject.model_settings.block_size
    right = "the scores of attention"
    wrong = [
        "the parameters of the blocks",
        "the products with the weight matrices",
        "the key-value cache",
        "the logits",
    ]
    return choice(random, right, wrong, time=time, twice=2 * time)


def forward_flops(subject: Subject, random: Random) -> Found:
    weights = subject.model_settings.n_layer * weights_in(matrices(subject))[0]
    return value(2 * weights, within=0.05, weights=weights, operations=2 * weights)


def training_flops(subject: Subject, random: Random) -> Found:
    total = parameters(subject)
    return value(6 * total, within=0.05, total=total, operations=6 * total)


def adamw_memory(subject: Subject, random: Random) -> Found:
    total = parameters(subject)
    return value(16 * total / _MB, within=0.05, total=total)


def adamw_state(subject: Subject, random: Random) -> Found:
    if subject.settings.train.optimizer != "adamw" or subject.settings.train.ema_decay:
        raise NothingToAsk("Its checkpoints hold other numbers.")
    return value(3, within=0)


def half_precision(subject: Subject, random: Random) -> Found:
    name, bits = random.choice((("bf16", 16), ("8 bits", 8), ("4 bits", 4)))
    total = parameters(subject)
    return value(total * bits / 8 / _MB, within=0.03, name=name, bits=bits, total=total)


def first_loss(subject: Subject, random: Random) -> Found:
    nats = math.log(subject.vocab_size)
    return value(nats, within=0, off=0.1, vocab=subject.vocab_size, nats=nats)


def bits_of_loss(subject: Subject, random: Random) -> Found:
    loss = random.choice((0.9, 1.4, 2.1, 2.8, 3.3))
    return value(loss / math.log(2), loss=loss, bits=loss / math.log(2))


def perplexity(subject: Subject, random: Random) -> Found:
    loss = random.choice((0.7, 1.1, 1.6, 2.3, 3.0))
    return value(math.exp(loss), within=0.06, loss=loss, exp=number_text(math.exp(loss)))


def tokens_a_step(subject: Subject, random: Random) -> Found:
    batch, accumulated = subject.settings.data.batch_size, subject.settings.train.grad_accum
    time = subject.model_settings.block_size
    facts: Facts = {"batch": batch, "accumulated": accumulated, "batches": "batch" if accumulated == 1 else "batches"}
    return value(batch * accumulated * time, within=0.01, time=time, tokens=batch * accumulated * time, **facts)


def twenty_tokens(subject: Subject, random: Random) -> Found:
    data, train, total = subject.settings.data, subject.settings.train, parameters(subject)
    each = data.batch_size * train.grad_accum * subject.model_settings.block_size
    return value(20 * total / each, within=0.05, total=total, each=each)


def attention_cost(subject: Subject, random: Random) -> Found:
    width, time = subject.model_settings.n_embd, subject.model_settings.block_size
    weights = weights_in(matrices(subject))[0]
    # Scores and their product with the values: 2 FLOPs for each of T · C numbers, twice, at the last position.
    scores, products = 4 * time * width, 2 * weights
    facts: Facts = {"weights": weights, "products": products, "scores": scores, "even": products / (4 * width)}
    return ordered(products <= scores, time=time, width=width, **facts)
