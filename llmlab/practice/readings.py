"""What is read from one passage in the panels of Look inside: heads, patterns, the lens, contributions."""

from __future__ import annotations

import math
from bisect import bisect_left
from random import Random

import numpy as np

from llmlab.inspection.readout import text_of
from llmlab.practice.kinds import (
    MODEL,
    NAT,
    PERCENT,
    Draft,
    NothingToAsk,
    choice,
    head,
    interval,
    kind,
    minus,
    ordered,
    shown,
    value,
)
from llmlab.practice.question import READ
from llmlab.practice.subject import Subject


def about(subject: Subject) -> str:
    """The beginning of a question about the passage."""
    return f"{subject.name} reads {subject.prompt!r}."


def needed(subject: Subject, name: str) -> np.ndarray:
    """A tensor of the passage. NothingToAsk where the family's panel is refused, or has nothing."""
    if name not in subject.seen or not np.isfinite(found := subject.seen[name]).any():
        raise NothingToAsk(f"{subject.name} has no {name}.")
    return found


def by_head(scores: np.ndarray) -> dict[tuple[int, int], float]:
    """[L, H] -> by layer and head; those without a pattern are left out."""
    layers, heads = scores.shape
    pairs = ((layer, head) for layer in range(layers) for head in range(heads))
    return {pair: float(scores[pair]) for pair in pairs if math.isfinite(scores[pair])}


def text_of_id(subject: Subject, id: int) -> str:
    return repr(text_of(subject.opened.tokenizer, int(id)))


def token(subject: Subject, position: int) -> str:
    """One token of the passage, told apart from others like it by its position."""
    return f"{position}: {subject.seen.metadata.tokens[position]!r}"


def _tokens(subject: Subject, last: int) -> list[str]:
    return [token(subject, position) for position in range(last + 1)]


# name, score (with - before it, the lowest is asked for), question
_OF_TEXT = (
    ("previous-token-head", "previous", "Which head gives the most weight to the token before, on average?"),
    ("first-token-head", "first", "Which head gives the most weight to the first token, on average?"),
    ("sharpest-head", "-entropy", "Which head spreads its weight least (the lowest entropy)?"),
    ("widest-head", "entropy", "Which head spreads its weight most (the highest entropy)?"),
    ("farthest-head", "distance", "Which head looks back farthest, on average?"),
)
_OF_REPEATS = (
    ("induction-head", "induction", "at what followed the last time"),
    ("duplicate-head", "duplicate", "at the same token, the first time"),
)


# Below it no head can be told from the others: attention spread evenly over 32 to 64 tokens gives each 0.02.
_FOUND = 0.1


def _add(name: str, score: str, words: str) -> None:
    @kind(name, "attention-patterns", READ, "attention", MODEL)
    def scored(subject: Subject, random: Random) -> Draft:
        sign, column = (-1, score[1:]) if score.startswith("-") else (1, score)
        scores = {pair: sign * value for pair, value in by_head(needed(subject, f"heads/{column}")).items()}
        best = sorted(scores.items(), key=lambda pair: -pair[1])[:3]
        found = ", ".join(f"{layer}.{head}: {sign * value:.3f}" for (layer, head), value in best)
        how = f"Score “{column}” of each head on this text ({'highest' if sign > 0 else 'lowest'} three: {found})."
        return head(f"{about(subject)} {words}", scores, how, prompt=subject.prompt)


def _add_of_repeats(name: str, score: str, words: str) -> None:
    @kind(name, "induction-heads", READ, "attention", MODEL)
    def scored(subject: Subject, random: Random) -> Draft:
        scores = by_head(needed(subject, f"heads/{score}"))
        text = f"{subject.name} reads random tokens twice in a row. Which of its heads looks most {words}?"
        (layer, number), best = max(scores.items(), key=lambda pair: pair[1])
        if best < _FOUND:
            raise NothingToAsk(f"{subject.name} has no such head.", f"The highest score is {best:.3f}.")
        how = f"Score “{score}”, the mean weight on that token: {layer}.{number} has {best:.3f}."
        return head(text, scores, how)


for _row in _OF_TEXT:
    _add(*_row)
for _row in _OF_REPEATS:
    _add_of_repeats(*_row)


def _head_of(subject: Subject, random: Random) -> tuple[int, int]:
    return random.choice(sorted(by_head(needed(subject, "heads/previous"))))


@kind("looked-at", "attention", READ, "attention", MODEL)
def looked_at(subject: Subject, random: Random) -> Draft:
    layer, number = _head_of(subject, random)
    row = subject.seen[f"attention/{layer}"][number, -1]
    best = int(row.argmax())
    last = len(row) - 1
    text = f"{about(subject)} At its last token: to which token does head {layer}.{number} give the most weight?"
    how = f"The last row of its pattern: {row[best]:.3f} on token {best}, the largest weight."
    others = [token(subject, at) for at in np.argsort(-row)[1:5]]
    return choice(random, text, token(subject, best), others or _tokens(subject, last), how, prompt=subject.prompt)


@kind("weight-on-first", "attention-patterns", READ, "attention", MODEL)
def weight_on_first(subject: Subject, random: Random) -> Draft:
    layer, number = _head_of(subject, random)
    weight = float(subject.seen[f"attention/{layer}"][number, -1, 0])
    text = f"{about(subject)} How much weight does head {layer}.{number} put on the first token, at the last one?"
    how = f"Its pattern, last row, first column: {weight:.3f}."
    return interval(text, weight, how, useful=PERCENT / 100, prompt=subject.prompt)


@kind("effective-tokens", "attention-patterns", READ, "attention", MODEL)
def effective_tokens(subject: Subject, random: Random) -> Draft:
    layer, number = _head_of(subject, random)
    row = subject.seen[f"attention/{layer}"][number, -1].astype(np.float64)
    entropy = float(-(row * np.log(row + 1e-30)).sum())
    tokens = subject.seen.metadata.tokens
    text = (
        f"{about(subject)} Among how many tokens does head {layer}.{number} "
        f"spread its weight at the last of the {len(tokens)} (exp of its entropy)?"
    )
    how = f"Entropy of its last row: {entropy:.3f} nats; exp of it."
    return interval(text, math.exp(entropy), how, useful=len(tokens) / 2, prompt=subject.prompt)


@kind("settled-after", "logit-lens", READ, "lens", MODEL)
def settled_after(subject: Subject, random: Random) -> Draft:
    first = needed(subject, "lens/ids")[::2, -1, 0]  # at the last token: before layer 0, after layer 0, 1 ...
    settled = max(row for row in range(len(first)) if row == 0 or first[row - 1] != first[-1])
    names = ["before layer 0", *(f"after layer {layer}" for layer in range(len(first) - 1))]
    text = (
        f"{about(subject)} Read with the logit lens at the last token: "
        "from where on does its most likely next token stay the same?"
    )
    said = ", ".join(f"{name} {text_of_id(subject, id)}" for name, id in zip(names, first, strict=True))
    first_shown = max(0, min(settled - random.randrange(9), len(names) - 9))  # of many layers, nine with the right one
    shown_names = names[first_shown : first_shown + 9]
    return ordered(text, shown_names, names[settled], f"Most likely {said}.", prompt=subject.prompt)


@kind("lens-before-blocks", "logit-lens", READ, "lens", MODEL)
def lens_before_blocks(subject: Subject, random: Random) -> Draft:
    ids = needed(subject, "lens/ids")[:, -1]
    right, wrong = text_of_id(subject, ids[0, 0]), [text_of_id(subject, id) for id in [*ids[0, 1:], *ids[-1]]]
    text = (
        f"{about(subject)} What does the logit lens read at the last "
        "token before the first layer, from the embedding alone?"
    )
    return choice(random, text, right, wrong, "The first row of the lens, last position.", prompt=subject.prompt)


@kind("most-likely-next", "loss", READ, "lens", MODEL)
def most_likely_next(subject: Subject, random: Random) -> Draft:
    ids, share = (needed(subject, f"lens/{name}")[-1, -1] for name in ("ids", "probability"))
    text = f"{about(subject)} Which token does it expect next?"
    how = (
        f"Its last row: {text_of_id(subject, ids[0])} with {100 * share[0]:.1f} "
        f"%, then {text_of_id(subject, ids[1])} with {100 * share[1]:.1f} %."
    )
    return choice(
        random,
        text,
        text_of_id(subject, ids[0]),
        [text_of_id(subject, id) for id in ids[1:]],
        how,
        prompt=subject.prompt,
    )


@kind("surest-share", "loss", READ, "lens", MODEL)
def surest_share(subject: Subject, random: Random) -> Draft:
    ids, share = (needed(subject, f"lens/{name}")[-1, -1] for name in ("ids", "probability"))
    text = f"{about(subject)} How likely is its most likely next token, {text_of_id(subject, ids[0])}?"
    how = "The last row of the lens."
    return interval(text, 100 * float(share[0]), how, unit="%", useful=PERCENT, prompt=subject.prompt)


@kind("worst-predicted", "loss", READ, "lens", MODEL)
def worst_predicted(subject: Subject, random: Random) -> Draft:
    share = needed(subject, "lens/target_probability")[-1, :-1]  # of the token that follows each position
    worst = int(share.argmin())
    others = [at for at in range(len(share)) if at != worst]
    text = f"{about(subject)} Which of these tokens surprises it most?"
    how = (
        f"It gave token {worst + 1} a probability of {share[worst]:.2g}: "
        f"{-math.log(max(share[worst], 1e-30)):.2f} nats."
    )
    return choice(
        random, text, token(subject, worst + 1), [token(subject, at + 1) for at in others], how, prompt=subject.prompt
    )


@kind("passage-loss", "loss", READ, "lens", MODEL)
def passage_loss(subject: Subject, random: Random) -> Draft:
    share = needed(subject, "lens/target_probability")[-1, :-1].astype(np.float64)
    loss = float(-np.log(np.maximum(share, 1e-30)).mean())
    text = (
        f"{about(subject)} What is its mean loss over these tokens, in nats "
        f"(a uniform guess: {math.log(subject.opened.vocab_size):.2f})?"
    )
    how = f"−ln p of {len(share)} tokens, their mean: {loss:.3f}."
    return interval(text, loss, how, unit="nats", useful=NAT, prompt=subject.prompt)


@kind("uncertainty", "loss", READ, "lens", MODEL)
def uncertainty(subject: Subject, random: Random) -> Draft:
    entropy = float(needed(subject, "lens/entropy")[-1, -1])
    text = f"{about(subject)} Its next token: as uncertain as a choice among how many equally likely ones?"
    return interval(
        text,
        math.exp(entropy),
        f"Entropy {entropy:.3f} nats; exp of it is {shown(math.exp(entropy))}.",
        prompt=subject.prompt,
    )


@kind("ranked-early", "logit-lens", READ, "lens", MODEL)
def ranked_early(subject: Subject, random: Random) -> Draft:
    ranks = needed(subject, "lens/rank")
    layer = random.randrange((len(ranks) - 1) // 2)
    rank = int(ranks[2 * layer, -1])
    answer = text_of_id(subject, needed(subject, "lens/ids")[-1, -1, 0])
    where = "before layer 0" if layer == 0 else f"after layer {layer - 1}"
    text = f"{about(subject)} It expects {answer} next. What was the rank of that token {where} (1: the most likely)?"
    vocab = subject.opened.vocab_size
    ends = [end for end in (1, 10, 100) if end < vocab]
    last = "more than 100" if vocab > 100 else f"{ends[-1] + 1} to {vocab}"
    marks = ("1", *(f"{end // 10 + 1} to {end}" for end in ends[1:]), last)
    how = f"The lens gives it rank {rank:,} there."
    return ordered(text, marks, marks[bisect_left(ends, rank)], how, prompt=subject.prompt)


@kind("loudest-part", "residual-stream", READ, "contributions", MODEL)
def loudest_part(subject: Subject, random: Random) -> Draft:
    norms = {part: needed(subject, f"contributions/norm/{part}")[:, -1] for part in ("attn_out", "mlp_out")}
    words = {"attn_out": "attention", "mlp_out": "feed-forward"}
    sizes = {
        f"{words[part]} of layer {layer}": float(norm)
        for part, all_ in norms.items()
        for layer, norm in enumerate(all_)
    }
    right = max(sizes, key=lambda name: sizes[name])
    text = f"{about(subject)} What adds the longest vector to the residual stream at the last token?"
    how = (
        "Norms of what is added: "
        f"{', '.join(f'{name} {size:.3g}' for name, size in sorted(sizes.items(), key=lambda one: -one[1])[:4])}."
    )
    return choice(random, text, right, list(sizes), how, prompt=subject.prompt)


@kind("stream-growth", "residual-stream", READ, "residual", MODEL)
def stream_growth(subject: Subject, random: Random) -> Draft:
    before = float(needed(subject, "contributions/norm/pre_attn")[0].mean())
    after = float(needed(subject, "contributions/norm/post_ffn")[-1].mean())
    text = (
        f"{about(subject)} By which factor is the norm of the residual stream, averaged over "
        "the tokens, larger after the last layer than before the first?"
    )
    how = f"Mean norm over the tokens: {after:.3g} after, {before:.3g} before."
    return interval(text, after / before, how, prompt=subject.prompt)


@kind("turned-most", "residual-stream", READ, "residual", MODEL)
def turned_most(subject: Subject, random: Random) -> Draft:
    cosines = needed(subject, "contributions/cosine/block")[:, -1]
    names = [f"layer {layer}" for layer in range(len(cosines))]
    text = f"{about(subject)} Which layer turns the residual stream most at the last token?"
    how = (
        "Cosine between the stream before and after: "
        + ", ".join(f"{name} {minus(f'{cos:.3f}')}" for name, cos in zip(names, cosines, strict=True))
        + "."
    )
    return choice(random, text, names[int(cosines.argmin())], names, how, prompt=subject.prompt)


@kind("carried-by", "direct-attribution", READ, "contributions", MODEL)
def carried_by(subject: Subject, random: Random) -> Draft:
    parts = {"embedding": float(needed(subject, "attribution/embedding")[0])}
    for name, words in (("attention", "attention"), ("feed_forward", "feed-forward")):
        parts |= {
            f"{words} of layer {layer}": float(bar) for layer, bar in enumerate(needed(subject, f"attribution/{name}"))
        }
    right = max(parts, key=lambda name: parts[name])
    answer = text_of_id(subject, int(subject.seen.metadata.more["answer"]))
    text = f"{about(subject)} It predicts {answer}. Which part adds most to that token's logit?"
    best = sorted(parts.items(), key=lambda pair: -pair[1])[:4]
    return choice(
        random,
        text,
        right,
        list(parts),
        "Direct attribution: " + ", ".join(f"{name} {minus(f'{bar:+.2f}')}" for name, bar in best) + ".",
        prompt=subject.prompt,
    )


@kind("carried-by-head", "direct-attribution", READ, "contributions", MODEL)
def carried_by_head(subject: Subject, random: Random) -> Draft:
    bars = by_head(needed(subject, "attribution/heads"))
    answer = text_of_id(subject, int(subject.seen.metadata.more["answer"]))
    (layer, number), bar = max(bars.items(), key=lambda pair: pair[1])
    text = f"{about(subject)} It predicts {answer}. Which head adds most to that token's logit?"
    return head(
        text, bars, f"Direct attribution by head: {layer}.{number} adds {minus(f'{bar:+.3f}')}.", prompt=subject.prompt
    )


@kind("how-many-tokens", "tokens", READ, "prompt", MODEL)
def how_many_tokens(subject: Subject, random: Random) -> Draft:
    words = subject.opened.tokenizer.decode(subject.ids(random, 20)).split()[1:7]
    text = " ".join(words) or "the king"
    ids = subject.opened.tokenizer.encode(text)
    count = len(ids)
    made = (
        "one for each character, spaces too" if count == len(text) else ", ".join(text_of_id(subject, i) for i in ids)
    )
    asked = f"How many tokens does the tokenizer of {subject.name} make of {text!r} ({len(text)} characters)?"
    return value(asked, count, f"It makes {count} of it: {made}.", within=0, off=1 if count > 8 else 0)
