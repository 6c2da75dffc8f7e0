"""What a GPT with these settings costs: memory, arithmetic, tokens, and its loss before it has learned anything."""

from __future__ import annotations

import math
from random import Random

from llmlab.gpt.shapes import padded_vocab_size
from llmlab.practice.kinds import SETTINGS, Draft, NothingToAsk, choice, kind, ordered, shown, value
from llmlab.practice.question import KNOW
from llmlab.practice.shapes import head_dim, matrices, parameters, weights_in
from llmlab.practice.subject import Subject

_FLOAT = 4  # bytes of a number in fp32
_MB = 1e6


def _kv_dim(subject: Subject) -> int:
    model = subject.model_settings
    return (model.n_kv_head or model.n_head) * head_dim(subject)


@kind("logits-memory", "loss", KNOW, "setup", SETTINGS)
def logits_memory(subject: Subject, random: Random) -> Draft:
    model, batch = subject.model_settings, subject.settings.data.batch_size
    vocab = padded_vocab_size(model, subject.vocab_size)
    numbers = batch * model.block_size * vocab
    text = (
        f"How much memory would all logits of one batch of {subject.name} take in fp32: {batch} sequences of "
        f"{model.block_size} tokens, {vocab:,} tokens in the vocabulary?"
    )
    how = f"{batch} · {model.block_size} · {vocab:,} numbers of 4 bytes."
    return value(text, numbers * _FLOAT / _MB, how, unit="MB", within=0.1)


@kind("kv-cache", "sampling", KNOW, "parameters", SETTINGS)
def kv_cache(subject: Subject, random: Random) -> Draft:
    model, tokens = subject.model_settings, random.choice((128, 256, 1024, 4096))
    size = 2 * model.n_layer * _kv_dim(subject) * tokens * _FLOAT
    text = (
        f"{subject.name} has {model.n_layer} layers, and {_kv_dim(subject)} key components per token in all heads. "
        f"How much memory would its key-value cache take in fp32 for {tokens:,} tokens?"
    )
    how = f"2 (key and value) · {model.n_layer} layers · {_kv_dim(subject)} · {tokens:,} tokens · 4 bytes = {size:,}."
    return value(text, size / _MB, how, unit="MB", within=0.06)


@kind("kv-cache-grouped", "sampling", KNOW, "setup", SETTINGS)
def kv_cache_grouped(subject: Subject, random: Random) -> Draft:
    model = subject.model_settings
    has = model.n_kv_head or model.n_head
    text = (
        f"{subject.name} has {model.n_head} query heads and {has} key-value heads. With a single key-value head "
        "instead, which share of its key-value cache would be left?"
    )
    return value(text, 100 / has, f"Its size follows the key-value heads: 1 of {has}.", unit="%", within=0.03)


@kind("twice-the-context", "attention", KNOW, "setup", SETTINGS)
def twice_the_context(subject: Subject, random: Random) -> Draft:
    time = subject.model_settings.block_size
    right = "the scores of attention"
    wrong = [
        "the parameters of the blocks",
        "the products with the weight matrices",
        "the key-value cache",
        "the logits",
    ]
    text = (
        f"The context of {subject.name} doubles, from {time} to "
        f"{2 * time} tokens. What grows fourfold for one sequence?"
    )
    how = "Scores are one for each pair of positions, T · T; everything else grows as T or not at all."
    return choice(random, text, right, wrong, how)


@kind("forward-flops", "scaling-laws", KNOW, "throughput", SETTINGS)
def forward_flops(subject: Subject, random: Random) -> Draft:
    weights = subject.model_settings.n_layer * weights_in(matrices(subject))[0]
    text = (
        f"The blocks of {subject.name} have {weights:,} weights in their matrices. How many floating-point operations "
        "do these matrices take for one token, in a forward pass?"
    )
    how = f"Each weight is multiplied and added once: 2 · {weights:,} = {2 * weights:,}."
    return value(text, 2 * weights, how, within=0.05)


@kind("training-flops", "backpropagation", KNOW, "throughput", SETTINGS)
def training_flops(subject: Subject, random: Random) -> Draft:
    total = parameters(subject)
    text = (
        f"{subject.name} has {total:,} parameters. By the usual rule, how "
        "many floating-point operations does training take per token?"
    )
    how = f"2 for each parameter forwards and 4 backwards: 6 · {total:,} = {6 * total:,}."
    return value(text, 6 * total, how, within=0.05)


@kind("adamw-memory", "optimisation", KNOW, "setup", SETTINGS)
def adamw_memory(subject: Subject, random: Random) -> Draft:
    total = parameters(subject)
    text = (
        f"{subject.name} has {total:,} parameters. Trained with AdamW in fp32, how "
        "much memory do weights, gradients and the optimizer's state take together?"
    )
    how = f"4 numbers a parameter (weight, gradient, two moments) of 4 bytes: 16 · {total:,} bytes."
    return value(text, 16 * total / _MB, how, unit="MB", within=0.05)


@kind("adamw-state", "optimisation", KNOW, "parameters", SETTINGS)
def adamw_state(subject: Subject, random: Random) -> Draft:
    if subject.settings.train.optimizer != "adamw" or subject.settings.train.ema_decay:
        raise NothingToAsk("Its checkpoints hold other numbers.")
    text = (
        f"A checkpoint of {subject.name} that training can resume from holds AdamW's "
        "state beside the weights. How many times as large as the weights alone are both together?"
    )
    return value(
        text, 3, "Weights, and two moments for each: m, the mean gradient, and v, that of its square.", within=0
    )


@kind("half-precision", "quantisation", KNOW, "checkpoints", SETTINGS)
def half_precision(subject: Subject, random: Random) -> Draft:
    name, bits = random.choice((("bf16", 16), ("8 bits", 8), ("4 bits", 4)))
    total = parameters(subject)
    text = f"{subject.name} has {total:,} parameters. How large are they in {name}, scales left out?"
    how = f"{total:,} · {bits} / 8 bytes."
    return value(text, total * bits / 8 / _MB, how, unit="MB", within=0.03)


@kind("first-loss", "loss", KNOW, "loss", SETTINGS)
def first_loss(subject: Subject, random: Random) -> Draft:
    vocab = subject.vocab_size
    text = f"{subject.name} chooses among {vocab:,} tokens. What is its loss before the first step, in nats per token?"
    how = f"All tokens are about equally likely: ln {vocab:,} = {math.log(vocab):.3f}."
    return value(text, math.log(vocab), how, within=0, off=0.1)


@kind("bits-of-loss", "loss", KNOW, "loss", SETTINGS)
def bits_of_loss(subject: Subject, random: Random) -> Draft:
    loss = random.choice((0.9, 1.4, 2.1, 2.8, 3.3))
    text = f"A model has a validation loss of {loss} nats per token. How many bits per token is that?"
    return value(text, loss / math.log(2), f"{loss} / ln 2 = {loss / math.log(2):.3f}.")


@kind("perplexity", "loss", KNOW, "loss", SETTINGS)
def perplexity(subject: Subject, random: Random) -> Draft:
    loss = random.choice((0.7, 1.1, 1.6, 2.3, 3.0))
    text = f"A loss of {loss} nats per token: as uncertain as a choice among how many equally likely tokens?"
    return value(text, math.exp(loss), f"exp({loss}) = {shown(math.exp(loss))}.", within=0.06)


@kind("tokens-a-step", "critical-batch-size", KNOW, "setup", SETTINGS)
def tokens_a_step(subject: Subject, random: Random) -> Draft:
    data, train, time = subject.settings.data, subject.settings.train, subject.model_settings.block_size
    tokens = data.batch_size * train.grad_accum * time
    text = (
        f"{subject.name} was set up with {data.batch_size} sequences a batch, {train.grad_accum} "
        f"{'batch' if train.grad_accum == 1 else 'batches'} a step and "
        f"a context of {time}. How many tokens does a step learn from?"
    )
    return value(text, tokens, f"{data.batch_size} · {train.grad_accum} · {time} = {tokens:,}.", within=0.01)


@kind("twenty-tokens", "scaling-laws", KNOW, "setup", SETTINGS)
def twenty_tokens(subject: Subject, random: Random) -> Draft:
    data, train, total = subject.settings.data, subject.settings.train, parameters(subject)
    each = data.batch_size * train.grad_accum * subject.model_settings.block_size
    text = (
        f"{subject.name} has {total:,} parameters and learns from {each:,} tokens a step. After how many steps has it "
        "read 20 tokens per parameter?"
    )
    return value(text, 20 * total / each, f"20 · {total:,} / {each:,}.", within=0.05)


@kind("attention-cost", "attention", KNOW, "throughput", SETTINGS)
def attention_cost(subject: Subject, random: Random) -> Draft:
    model = subject.model_settings
    weights, time = weights_in(matrices(subject))[0], model.block_size
    # Scores and their product with the values: 2 FLOPs for each of T · C numbers, twice, at the last position.
    scores, products = 4 * time * model.n_embd, 2 * weights
    even = products / (4 * model.n_embd)
    answer = "the weight matrices" if products > scores else "scores and weighted values"
    text = f"The last of {time} tokens goes through a block of {subject.name}. Which takes more arithmetic?"
    how = (
        f"Matrices: 2 · {weights:,} = {products:,} operations. "
        f"Scores and weighted values: 4 · {time} · {model.n_embd} = "
        f"{scores:,}. They are even at {even:,.0f} tokens."
    )
    return ordered(text, ("the weight matrices", "scores and weighted values"), answer, how)
