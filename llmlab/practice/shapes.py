"""Counts and shapes of a GPT with these settings: parameters, widths, heads, positions."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

from llmlab.gpt.shapes import block_layers, embedding_parameters, feed_forward_dim, padded_vocab_size, parameter_count
from llmlab.practice.kinds import Facts, Found, NothingToAsk, choice, number_text, value
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


def block_weights(subject: Subject, random: Random) -> Found:
    total, written = weights_in(matrices(subject))
    return value(total, width=subject.model_settings.n_embd, sum=written, total=total)


def attention_weights(subject: Subject, random: Random) -> Found:
    total, written = weights_in(matrices(subject, attention=True))
    return value(total, width=subject.model_settings.n_embd, sum=written, total=total)


def feed_forward_share(subject: Subject, random: Random) -> Found:
    feed, _ = weights_in(matrices(subject, attention=False))
    all_, _ = weights_in(matrices(subject))
    return value(100 * feed / all_, within=0, off=3, feed=feed, all=all_)


def embedding_share(subject: Subject, random: Random) -> Found:
    embedding, total = embedding_parameters(subject.model_settings, subject.vocab_size), parameters(subject)
    facts: Facts = {"vocab": subject.vocab_size, "width": subject.model_settings.n_embd}
    return value(100 * embedding / total, within=0, off=2, embedding=embedding, total=total, **facts)


def all_parameters(subject: Subject, random: Random) -> Found:
    model, total = subject.model_settings, parameters(subject)
    facts: Facts = {"layers": model.n_layer, "width": model.n_embd, "vocab": subject.vocab_size}
    return value(total, within=0.1, total=total, block=weights_in(matrices(subject))[0], **facts)


def one_more_layer(subject: Subject, random: Random) -> Found:
    model = subject.model_settings
    more = parameter_count(replace(model, n_layer=model.n_layer + 1), subject.vocab_size) - parameters(subject)
    return value(more, width=model.n_embd, layers=model.n_layer, with_it=model.n_layer + 1, more=more)


def twice_as_wide(subject: Subject, random: Random) -> Found:
    now, _ = weights_in(matrices(subject))
    wider = replace(subject.model_settings, n_embd=2 * subject.model_settings.n_embd)
    wide = sum(a * b for _, a, b in block_layers(wider))
    return value(wide / now, within=0.03, now=now, wide=wide, factor=wide / now)


def _feed_forward(subject: Subject) -> int:
    """Parameters of one block's feed-forward."""
    bias = subject.model_settings.bias
    return sum(wide * out + bias * out for wide, out in matrices(subject, attention=False))


def experts_in_all(subject: Subject, random: Random) -> Found:
    experts, layers = random.choice((4, 8, 16, 64)), subject.model_settings.n_layer
    now, feed = parameters(subject), _feed_forward(subject)
    all_ = now + layers * (experts - 1) * feed
    facts: Facts = {"layers": layers, "experts": experts, "more": experts - 1, "feed": feed}
    return value(all_ / now, within=0.03, now=now, all=all_, **facts)


def experts_in_use(subject: Subject, random: Random) -> Found:
    experts, used = random.choice(((8, 1), (8, 2), (16, 2), (64, 4)))
    feeds = subject.model_settings.n_layer * _feed_forward(subject)
    rest = parameters(subject) - feeds
    share = 100 * (rest + used * feeds) / (rest + experts * feeds)
    return value(share, within=0.03, off=0.3, feeds=feeds, all=rest + feeds, experts=experts, used=used, rest=rest)


def slowest_pair(subject: Subject, random: Random) -> Found:
    dim, time = head_dim(subject), subject.model_settings.block_size
    if dim % 2:
        raise NothingToAsk("Its heads cannot be cut into pairs.")
    angle = math.degrees(time * 10_000 ** (-(dim - 2) / dim))
    return value(angle, within=0.03, dim=dim, time=time, below=dim - 2, angle=number_text(angle))


def reach_of_windows(subject: Subject, random: Random) -> Found:
    window, layers = random.choice((4, 8, 16, 32)), subject.model_settings.n_layer
    return value(layers * window, within=0, layers=layers, window=window)


def head_width(subject: Subject, random: Random) -> Found:
    model, dim = subject.model_settings, head_dim(subject)
    return value(dim, within=0, width=model.n_embd, heads=model.n_head, dim=dim)


def query_shape(subject: Subject, random: Random) -> Found:
    model, batch = subject.model_settings, subject.settings.data.batch_size
    heads, time, dim = model.n_head, model.block_size, head_dim(subject)
    shapes = [
        (batch, time, time, heads),
        (batch, heads, time, time),
        (batch, dim, time, heads * 2),
        (heads, batch, dim, time),
    ]
    facts: Facts = {"batch": batch, "time": time, "width": model.n_embd, "heads": heads, "dim": dim}
    return choice(random, f"[{batch}, {heads}, {time}, {dim}]", [str(list(shape)) for shape in shapes], **facts)


def numbers_of_queries(subject: Subject, random: Random) -> Found:
    model, batch, time = subject.model_settings, random.choice((2, 4, 8)), random.choice((16, 32, 64))
    facts: Facts = {"width": model.n_embd, "heads": model.n_head, "batch": batch, "time": time}
    return value(batch * time * model.n_embd, within=0.01, **facts)


# What papers and libraries call a size, and the lab's setting of it.
_NAMES = {
    "d_model": "model.n_embd",
    "num_hidden_layers": "model.n_layer",
    "num_attention_heads": "model.n_head",
    "num_key_value_heads": "model.n_kv_head",
    "n_ctx": "model.block_size",
}


def setting_of_a_name(subject: Subject, random: Random) -> Found:
    name = random.choice(sorted(_NAMES))
    return choice(random, _NAMES[name], list(_NAMES.values()), name=name)


def logits_shape(subject: Subject, random: Random) -> Found:
    model, batch = subject.model_settings, subject.settings.data.batch_size
    vocab, time, width = padded_vocab_size(model, subject.vocab_size), model.block_size, model.n_embd
    wrong = [str(list(shape)) for shape in ((batch, vocab), (batch, time, width), (batch, time, time), (time, vocab))]
    return choice(random, str([batch, time, vocab]), wrong, batch=batch, time=time)


def pattern_numbers(subject: Subject, random: Random) -> Found:
    tokens = random.choice((16, 32, 64, 100))
    allowed = tokens * (tokens + 1) // 2
    return value(allowed, within=0.01, tokens=tokens, allowed=allowed, heads=subject.model_settings.n_head)


def twice_the_context_grows(subject: Subject, random: Random) -> Found:
    model = subject.model_settings
    doubled = parameter_count(replace(model, block_size=2 * model.block_size), subject.vocab_size)
    more = doubled - parameters(subject)
    why = "a vector for each new position" if model.position == "learned" else "rotary positions are not learned"
    facts: Facts = {"positions": model.position, "width": model.n_embd, "time": model.block_size, "why": why}
    return value(more, within=0, twice=2 * model.block_size, more=more, **facts)


def lora_parameters(subject: Subject, random: Random) -> Found:
    layers, rank = subject.model_settings.n_layer, random.choice((2, 4, 8, 16))
    pairs = matrices(subject, attention=True)
    each = sum(rank * (a + b) for a, b in pairs)
    sizes = " and ".join(f"{a:,} to {b:,}" for a, b in pairs)
    return value(layers * each, rank=rank, layers=layers, sizes=sizes, each=each, all=layers * each)


def norm_parameters(subject: Subject, random: Random) -> Found:
    model = subject.model_settings
    biased = model.bias and model.norm == "layernorm"
    each = model.n_embd * (2 if biased else 1)
    facts: Facts = {"layers": model.n_layer, "width": model.n_embd, "each": each}
    return value((2 * model.n_layer + 1) * each, within=0, shift=" and a shift" if biased else "", **facts)


def vocabulary_doubled(subject: Subject, random: Random) -> Found:
    model = subject.model_settings
    vocab, both = padded_vocab_size(model, subject.vocab_size), model.untied_head
    facts: Facts = {
        "head": "has a head of its own" if both else "ties its head to the token embedding",
        "both": ", in both matrices" if both else "",
    }
    return value(vocab * model.n_embd * (2 if both else 1), vocab=vocab, width=model.n_embd, **facts)


def hidden_width(subject: Subject, random: Random) -> Found:
    model = subject.model_settings
    hidden, why = feed_forward_dim(model), "4 times d_model"
    if model.activation == "swiglu":
        why = "8/3 of d_model, up to a multiple of 8, as SwiGLU has three matrices"
    return value(hidden, within=0.01, width=model.n_embd, activation=model.activation, hidden=hidden, why=why)
