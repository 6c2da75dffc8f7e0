"""Counts and shapes of a GPT with these settings: parameters, widths, heads, positions."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

from llmlab.gpt.shapes import block_layers, embedding_parameters, feed_forward_dim, padded_vocab_size, parameter_count
from llmlab.practice.kinds import NOTHING, SETTINGS, Draft, NothingToAsk, choice, kind, shown, value
from llmlab.practice.question import KNOW
from llmlab.practice.subject import Subject


def head_dim(subject: Subject) -> int:
    return subject.model_settings.n_embd // subject.model_settings.n_head


def parameters(subject: Subject) -> int:
    return parameter_count(subject.model_settings, subject.vocab_size)


def matrices(subject: Subject, *, attention: bool | None = None) -> list[tuple[int, int]]:
    """Widths in and out of a block's matrices; of attention alone, or of the feed-forward alone."""
    layers = block_layers(subject.model_settings)
    return [(wide, out) for part, wide, out in layers if attention is None or part == attention]


def weights_in(pairs: list[tuple[int, int]]) -> tuple[int, str]:
    """How many weights matrices of these widths have, and the sum as it is written out."""
    return sum(a * b for a, b in pairs), " + ".join(f"{a:,} · {b:,}" for a, b in pairs)


@kind("block-weights", "feed-forward", KNOW, "parameters", SETTINGS)
def block_weights(subject: Subject, random: Random) -> Draft:
    total, sum_ = weights_in(matrices(subject))
    width = subject.model_settings.n_embd
    text = f"{subject.name} has d_model = {width}. How many weights do the matrices of one of its blocks have?"
    return value(text, total, f"Queries, keys and values; output; feed-forward: {sum_} = {total:,}.")


@kind("attention-weights", "attention", KNOW, "parameters", SETTINGS)
def attention_weights(subject: Subject, random: Random) -> Draft:
    total, sum_ = weights_in(matrices(subject, attention=True))
    text = (
        "How many weights do the matrices of attention have in one block "
        f"of {subject.name} (d_model = {subject.model_settings.n_embd})?"
    )
    return value(text, total, f"One matrix makes queries, keys and values, one the output: {sum_} = {total:,}.")


@kind("feed-forward-share", "feed-forward", KNOW, "parameters", SETTINGS)
def feed_forward_share(subject: Subject, random: Random) -> Draft:
    feed, _ = weights_in(matrices(subject, attention=False))
    all_, _ = weights_in(matrices(subject))
    text = f"Which share of the weights in the matrices of a block of {subject.name} is the feed-forward's?"
    return value(text, 100 * feed / all_, f"{feed:,} of {all_:,}.", unit="%", within=0, off=3)


@kind("embedding-share", "embeddings", KNOW, "parameters", SETTINGS)
def embedding_share(subject: Subject, random: Random) -> Draft:
    embedding, total = embedding_parameters(subject.model_settings, subject.vocab_size), parameters(subject)
    text = (
        f"{subject.name} has {total:,} parameters, {subject.vocab_size:,} tokens and d_model = "
        f"{subject.model_settings.n_embd}. Which share of the "
        "parameters is in its embeddings (tokens, positions, head)?"
    )
    return value(text, 100 * embedding / total, f"{embedding:,} of {total:,}.", unit="%", within=0, off=2)


@kind("all-parameters", "scaling-laws", KNOW, "parameters", SETTINGS)
def all_parameters(subject: Subject, random: Random) -> Draft:
    model, total = subject.model_settings, parameters(subject)
    block, _ = weights_in(matrices(subject))
    text = (
        f"{subject.name} has {model.n_layer} layers, d_model = {model.n_embd} and {subject.vocab_size:,} tokens. "
        "About how many parameters does it have?"
    )
    how = f"{model.n_layer} blocks of {block:,} weights each, the embeddings, the norms: {total:,}; 10 % off is right."
    return value(text, total, how, within=0.1)


@kind("one-more-layer", "scaling-laws", KNOW, "setup", SETTINGS)
def one_more_layer(subject: Subject, random: Random) -> Draft:
    model = subject.model_settings
    more = parameter_count(replace(model, n_layer=model.n_layer + 1), subject.vocab_size) - parameters(subject)
    text = f"How many parameters would one more layer add to {subject.name} (d_model = {model.n_embd})?"
    return value(text, more, f"Counted with {model.n_layer + 1} layers and with {model.n_layer}: {more:,} more.")


@kind("twice-as-wide", "scaling-laws", KNOW, "setup", SETTINGS)
def twice_as_wide(subject: Subject, random: Random) -> Draft:
    now, _ = weights_in(matrices(subject))
    wide = sum(
        a * b for _, a, b in block_layers(replace(subject.model_settings, n_embd=2 * subject.model_settings.n_embd))
    )
    text = f"By which factor would the weights in a block's matrices grow if d_model of {subject.name} were doubled?"
    how = f"Each matrix doubles in both of its dimensions: from {now:,} to {wide:,}, {wide / now:.3g} times."
    return value(text, wide / now, how, within=0.03)


def _feed_forward(subject: Subject) -> int:
    """Parameters of one block's feed-forward."""
    bias = subject.model_settings.bias
    return sum(wide * out + bias * out for wide, out in matrices(subject, attention=False))


@kind("experts-in-all", "mixtures-of-experts", KNOW, "parameters", SETTINGS)
def experts_in_all(subject: Subject, random: Random) -> Draft:
    experts, layers = random.choice((4, 8, 16, 64)), subject.model_settings.n_layer
    now, more = parameters(subject), layers * (experts - 1) * _feed_forward(subject)
    text = (
        f"Each feed-forward of {subject.name}, {layers} in number, becomes {experts} experts of the same size; routers "
        f"are left out. How many times its {now:,} parameters does it have then?"
    )
    how = f"{experts - 1} more feed-forwards of {_feed_forward(subject):,} in {layers} layers: {now + more:,} in all."
    return value(text, (now + more) / now, how, within=0.03)


@kind("experts-in-use", "mixtures-of-experts", KNOW, "parameters", SETTINGS)
def experts_in_use(subject: Subject, random: Random) -> Draft:
    experts, used = random.choice(((8, 1), (8, 2), (16, 2), (64, 4)))
    feeds = subject.model_settings.n_layer * _feed_forward(subject)
    rest = parameters(subject) - feeds
    text = (
        f"All feed-forwards of {subject.name} together have {feeds:,} of its {rest + feeds:,} parameters. Each becomes "
        f"{experts} experts of the same size, and a token uses {used} of them. Which share of all parameters is active "
        "for a token, without routers?"
    )
    how = f"({rest:,} + {used} · {feeds:,}) / ({rest:,} + {experts} · {feeds:,})."
    return value(text, 100 * (rest + used * feeds) / (rest + experts * feeds), how, unit="%", within=0.03, off=0.3)


@kind("slowest-pair", "long-context", KNOW, "attention", SETTINGS)
def slowest_pair(subject: Subject, random: Random) -> Draft:
    dim, time = head_dim(subject), subject.model_settings.block_size
    if dim % 2:
        raise NothingToAsk("Its heads cannot be cut into pairs.")
    angle = math.degrees(time * 10_000 ** (-(dim - 2) / dim))
    text = (
        f"Heads of {subject.name} have {dim} dimensions. With rotary positions of base 10,000, by how many degrees "
        f"does the slowest pair of dimensions turn over {time} tokens?"
    )
    how = f"{time} · 10,000 to the power of −{dim - 2}/{dim}, in degrees: {shown(angle)}."
    return value(text, angle, how, within=0.03)


@kind("reach-of-windows", "long-context", KNOW, "attention", SETTINGS)
def reach_of_windows(subject: Subject, random: Random) -> Draft:
    window, layers = random.choice((4, 8, 16, 32)), subject.model_settings.n_layer
    text = (
        f"In each of the {layers} layers of {subject.name}, let a position see itself and the {window} tokens before "
        "it. From how many tokens back can something reach a prediction at most?"
    )
    return value(text, layers * window, f"{window} further with each layer: {layers} · {window}.", within=0)


@kind("head-width", "attention", KNOW, "attention", SETTINGS)
def head_width(subject: Subject, random: Random) -> Draft:
    model = subject.model_settings
    text = f"{subject.name} has d_model = {model.n_embd} and {model.n_head} heads. How many dimensions has a query?"
    return value(text, head_dim(subject), f"{model.n_embd} / {model.n_head} = {head_dim(subject)}.", within=0)


@kind("query-shape", "forward-pass", KNOW, "attention", SETTINGS)
def query_shape(subject: Subject, random: Random) -> Draft:
    model, batch = subject.model_settings, subject.settings.data.batch_size
    heads, time, dim = model.n_head, model.block_size, head_dim(subject)
    right = f"[{batch}, {heads}, {time}, {dim}]"
    shapes = [
        (batch, time, time, heads),
        (batch, heads, time, time),
        (batch, dim, time, heads * 2),
        (heads, batch, dim, time),
    ]
    text = (
        f"A batch of {batch} sequences of {time} tokens goes through {subject.name}. What is the shape of its queries?"
    )
    how = f"[batch, head, time, dimensions of a head], with {model.n_embd} / {heads} = {dim} dimensions."
    return choice(random, text, right, [str(list(shape)) for shape in shapes], how)


@kind("numbers-of-queries", "notation", KNOW, "walk", SETTINGS)
def numbers_of_queries(subject: Subject, random: Random) -> Draft:
    model, batch, time = subject.model_settings, random.choice((2, 4, 8)), random.choice((16, 32, 64))
    text = (
        f"{subject.name} has C = {model.n_embd} and H = {model.n_head}. For B = {batch} sequences of T = {time} tokens "
        "the queries of one block have the shape [B, H, T, D]. How many numbers are they?"
    )
    how = f"D = C / H, so B · H · T · D = B · T · C = {batch} · {time} · {model.n_embd}."
    return value(text, batch * time * model.n_embd, how, within=0.01)


# What papers and libraries call a size, and the lab's setting of it.
_NAMES = {
    "d_model": "model.n_embd",
    "num_hidden_layers": "model.n_layer",
    "num_attention_heads": "model.n_head",
    "num_key_value_heads": "model.n_kv_head",
    "n_ctx": "model.block_size",
}


@kind("setting-of-a-name", "notation", KNOW, "setup", NOTHING)
def setting_of_a_name(subject: Subject, random: Random) -> Draft:
    name = random.choice(sorted(_NAMES))
    text = f"A paper or a library names the size `{name}`. Which setting of this lab is that?"
    how = "The page has a table of all sizes, with what papers, libraries and this lab call them."
    return choice(random, text, _NAMES[name], list(_NAMES.values()), how)


@kind("logits-shape", "forward-pass", KNOW, "samples", SETTINGS)
def logits_shape(subject: Subject, random: Random) -> Draft:
    model, batch = subject.model_settings, subject.settings.data.batch_size
    vocab, time, width = padded_vocab_size(model, subject.vocab_size), model.block_size, model.n_embd
    right = str([batch, time, vocab])
    wrong = [str(list(shape)) for shape in ((batch, vocab), (batch, time, width), (batch, time, time), (time, vocab))]
    text = (
        f"A batch of {batch} sequences of {time} tokens goes through {subject.name}. What is the shape of its logits?"
    )
    return choice(random, text, right, wrong, "Every position guesses its next token: [batch, time, vocabulary].")


@kind("pattern-numbers", "attention-patterns", KNOW, "attention", SETTINGS)
def pattern_numbers(subject: Subject, random: Random) -> Draft:
    model, tokens = subject.model_settings, random.choice((16, 32, 64, 100))
    allowed = tokens * (tokens + 1) // 2
    text = f"A prompt of {tokens} tokens: how many weights of one head's attention pattern can be other than zero?"
    how = f"Query i sees i keys: 1 + 2 + ... + {tokens} = {allowed:,}, each of {model.n_head} heads."
    return value(text, allowed, how, within=0.01)


@kind("twice-the-context-grows", "embeddings", KNOW, "setup", SETTINGS)
def twice_the_context_grows(subject: Subject, random: Random) -> Draft:
    model = subject.model_settings
    doubled = parameter_count(replace(model, block_size=2 * model.block_size), subject.vocab_size)
    more = doubled - parameters(subject)
    text = (
        f"{subject.name} has {model.position} positions, d_model = {model.n_embd} and a context of {model.block_size} "
        f"tokens. How many parameters does a context of {2 * model.block_size} add?"
    )
    why = "a vector for each new position" if model.position == "learned" else "rotary positions are not learned"
    return value(text, more, f"{more:,}: {why}.", within=0)


@kind("lora-parameters", "lora", KNOW, "finetune_setup", SETTINGS)
def lora_parameters(subject: Subject, random: Random) -> Draft:
    model, rank = subject.model_settings, random.choice((2, 4, 8, 16))
    pairs = matrices(subject, attention=True)
    each = sum(rank * (a + b) for a, b in pairs)
    sizes = " and ".join(f"{a:,} to {b:,}" for a, b in pairs)
    text = (
        f"LoRA of rank {rank} on attention's matrices of {subject.name} "
        f"({model.n_layer} layers; {sizes}): how many parameters learn?"
    )
    how = f"Rank · (dimensions in + out) for each matrix: {each:,} a layer, {model.n_layer * each:,} in all."
    return value(text, model.n_layer * each, how)


@kind("norm-parameters", "residual-stream", KNOW, "parameters", SETTINGS)
def norm_parameters(subject: Subject, random: Random) -> Draft:
    model = subject.model_settings
    biased = model.bias and model.norm == "layernorm"
    each = model.n_embd * (2 if biased else 1)
    count = (2 * model.n_layer + 1) * each
    text = (
        f"{subject.name} has {model.n_layer} layers and d_model = {model.n_embd}. Its pre-norm blocks have two norms "
        f"each, and one follows the last; each norm has a scale{' and a shift' if biased else ''} per dimension. How "
        "many parameters do these norms have?"
    )
    how = f"(2 · {model.n_layer} + 1) norms of {each} parameters each."
    return value(text, count, how, within=0)


@kind("vocabulary-doubled", "tokens", KNOW, "setup", SETTINGS)
def vocabulary_doubled(subject: Subject, random: Random) -> Draft:
    model = subject.model_settings
    vocab = padded_vocab_size(model, subject.vocab_size)
    more = vocab * model.n_embd * (2 if model.untied_head else 1)
    tied = "has a head of its own" if model.untied_head else "ties its head to the token embedding"
    text = (
        f"{subject.name} has {vocab:,} rows of {model.n_embd} numbers in its token "
        f"embedding, and {tied}. How many parameters does twice the vocabulary add?"
    )
    return value(
        text, more, f"{vocab:,} more rows of {model.n_embd}{', in both matrices' if model.untied_head else ''}."
    )


@kind("hidden-width", "feed-forward", KNOW, "parameters", SETTINGS)
def hidden_width(subject: Subject, random: Random) -> Draft:
    model = subject.model_settings
    hidden = feed_forward_dim(model)
    text = (
        f"{subject.name} has d_model = {model.n_embd} and {model.activation}. "
        "How many neurons does the feed-forward of one block have?"
    )
    why = (
        "8/3 of d_model, up to a multiple of 8, as SwiGLU has three matrices"
        if model.activation == "swiglu"
        else "4 times d_model"
    )
    return value(text, hidden, f"{hidden:,}: {why}.", within=0.01)
