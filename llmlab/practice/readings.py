"""What is read from one passage in the panels of Look inside: heads, patterns, the lens, contributions."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from random import Random

import numpy as np

from llmlab.core.signs import minus, quoted
from llmlab.inspection.readout import text_of
from llmlab.practice.kinds import (
    NAT,
    PERCENT,
    Found,
    NothingToAsk,
    choice,
    head,
    interval,
    kind,
    number_text,
    ordered,
    value,
)
from llmlab.practice.subject import Subject


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
    return quoted(text_of(subject.opened.tokenizer, int(id)))


def token(subject: Subject, position: int) -> str:
    """One token of the passage, told apart from others like it by its position."""
    return f"{position}: {quoted(subject.seen.metadata.tokens[position])}"


def _tokens(subject: Subject, last: int) -> list[str]:
    return [token(subject, position) for position in range(last + 1)]


# By kind, its score; with - before it, the lowest is asked for.
_OF_TEXT = {
    "previous-token-head": "previous",
    "first-token-head": "first",
    "sharpest-head": "-entropy",
    "widest-head": "entropy",
    "farthest-head": "distance",
}
_OF_REPEATS = {"induction-head": "induction", "duplicate-head": "duplicate"}

# Below it no head can be told from the others: attention spread evenly over 32 to 64 tokens gives each 0.02.
_FOUND = 0.1


def _add(name: str, score: str) -> None:
    @kind(name)
    def scored(subject: Subject, random: Random) -> Found:
        sign, column = (-1, score[1:]) if score.startswith("-") else (1, score)
        scores = {pair: sign * value for pair, value in by_head(needed(subject, f"heads/{column}")).items()}
        best = sorted(scores.items(), key=lambda pair: -pair[1])[:3]
        found = ", ".join(f"{layer}.{head}: {sign * value:.3f}" for (layer, head), value in best)
        return head(scores, prompt=subject.prompt, score=column, best=found)


def _add_of_repeats(name: str, score: str) -> None:
    @kind(name)
    def scored(subject: Subject, random: Random) -> Found:
        scores = by_head(needed(subject, f"heads/{score}"))
        (layer, number), best = max(scores.items(), key=lambda pair: pair[1])
        if best < _FOUND:
            raise NothingToAsk(f"{subject.name} has no such head.", f"The highest score is {best:.3f}.")
        return head(scores, score=score, layer=layer, number=number, best=best)


for _name, _score in _OF_TEXT.items():
    _add(_name, _score)
for _name, _score in _OF_REPEATS.items():
    _add_of_repeats(_name, _score)


def _head_of(subject: Subject, random: Random) -> tuple[int, int]:
    return random.choice(sorted(by_head(needed(subject, "heads/previous"))))


def looked_at(subject: Subject, random: Random) -> Found:
    layer, number = _head_of(subject, random)
    row = subject.seen[f"attention/{layer}"][number, -1]
    best = int(row.argmax())
    others = [token(subject, at) for at in np.argsort(-row)[1:5]] or _tokens(subject, len(row) - 1)
    facts = {"layer": layer, "number": number, "weight": row[best], "best": best}
    return choice(random, token(subject, best), others, prompt=subject.prompt, **facts)


def weight_on_first(subject: Subject, random: Random) -> Found:
    layer, number = _head_of(subject, random)
    weight = float(subject.seen[f"attention/{layer}"][number, -1, 0])
    facts = {"layer": layer, "number": number, "weight": weight}
    return interval(weight, useful=PERCENT / 100, prompt=subject.prompt, **facts)


def effective_tokens(subject: Subject, random: Random) -> Found:
    layer, number = _head_of(subject, random)
    row = subject.seen[f"attention/{layer}"][number, -1].astype(np.float64)
    entropy = float(-(row * np.log(row + 1e-30)).sum())
    tokens = len(subject.seen.metadata.tokens)
    facts = {"layer": layer, "number": number, "tokens": tokens, "entropy": entropy}
    return interval(math.exp(entropy), useful=tokens / 2, prompt=subject.prompt, **facts)


def settled_after(subject: Subject, random: Random) -> Found:
    first = needed(subject, "lens/ids")[::2, -1, 0]  # at the last token: before layer 0, after layer 0, 1 ...
    settled = max(row for row in range(len(first)) if row == 0 or first[row - 1] != first[-1])
    names = ["before layer 0", *(f"after layer {layer}" for layer in range(len(first) - 1))]
    said = ", ".join(f"{name} {text_of_id(subject, id)}" for name, id in zip(names, first, strict=True))
    begin = max(0, min(settled - random.randrange(9), len(names) - 9))  # of many layers, nine with the right one
    return ordered(settled - begin, names[begin : begin + 9], prompt=subject.prompt, said=said)


def lens_before_blocks(subject: Subject, random: Random) -> Found:
    ids = needed(subject, "lens/ids")[:, -1]
    wrong = [text_of_id(subject, id) for id in [*ids[0, 1:], *ids[-1]]]
    return choice(random, text_of_id(subject, ids[0, 0]), wrong, prompt=subject.prompt)


def most_likely_next(subject: Subject, random: Random) -> Found:
    ids, share = (needed(subject, f"lens/{name}")[-1, -1] for name in ("ids", "probability"))
    first, second, *_ = named = [text_of_id(subject, id) for id in ids]
    facts = {"first": first, "first_share": 100 * share[0], "second": second, "second_share": 100 * share[1]}
    return choice(random, first, named[1:], prompt=subject.prompt, **facts)


def surest_share(subject: Subject, random: Random) -> Found:
    ids, share = (needed(subject, f"lens/{name}")[-1, -1] for name in ("ids", "probability"))
    surest = text_of_id(subject, ids[0])
    return interval(100 * float(share[0]), useful=PERCENT, prompt=subject.prompt, token=surest)


def worst_predicted(subject: Subject, random: Random) -> Found:
    share = needed(subject, "lens/target_probability")[-1, :-1]  # of the token that follows each position
    worst = int(share.argmin())
    others = [token(subject, at + 1) for at in range(len(share)) if at != worst]
    facts = {"worst": worst + 1, "share": share[worst], "nats": -math.log(max(share[worst], 1e-30))}
    return choice(random, token(subject, worst + 1), others, prompt=subject.prompt, **facts)


def passage_loss(subject: Subject, random: Random) -> Found:
    share = needed(subject, "lens/target_probability")[-1, :-1].astype(np.float64)
    loss = float(-np.log(np.maximum(share, 1e-30)).mean())
    facts = {"uniform": math.log(subject.opened.vocab_size), "count": len(share), "loss": loss}
    return interval(loss, useful=NAT, prompt=subject.prompt, **facts)


def uncertainty(subject: Subject, random: Random) -> Found:
    entropy = float(needed(subject, "lens/entropy")[-1, -1])
    even = math.exp(entropy)
    return interval(even, prompt=subject.prompt, entropy=entropy, exp=number_text(even))


def ranked_early(subject: Subject, random: Random) -> Found:
    ranks = needed(subject, "lens/rank")
    layer = random.randrange((len(ranks) - 1) // 2)
    rank = int(ranks[2 * layer, -1])
    answer = text_of_id(subject, needed(subject, "lens/ids")[-1, -1, 0])
    where = "before layer 0" if layer == 0 else f"after layer {layer - 1}"
    vocab = subject.opened.vocab_size
    ends = [end for end in (1, 10, 100) if end < vocab]
    last = "more than 100" if vocab > 100 else f"{ends[-1] + 1} to {vocab}"
    marks = ("1", *(f"{end // 10 + 1} to {end}" for end in ends[1:]), last)
    return ordered(bisect_left(ends, rank), marks, prompt=subject.prompt, token=answer, where=where, rank=rank)


def _largest(sizes: Mapping[str, float], form: str) -> str:
    """The four largest, the largest first."""
    best = sorted(sizes.items(), key=lambda pair: -pair[1])[:4]
    return ", ".join(f"{name} {minus(f'{size:{form}}')}" for name, size in best)


def loudest_part(subject: Subject, random: Random) -> Found:
    norms = {part: needed(subject, f"contributions/norm/{part}")[:, -1] for part in ("attn_out", "mlp_out")}
    words = {"attn_out": "attention", "mlp_out": "feed-forward"}
    sizes = {
        f"{words[part]} of layer {layer}": float(norm)
        for part, all_ in norms.items()
        for layer, norm in enumerate(all_)
    }
    right = max(sizes, key=lambda name: sizes[name])
    return choice(random, right, list(sizes), prompt=subject.prompt, largest=_largest(sizes, ".3g"))


def stream_growth(subject: Subject, random: Random) -> Found:
    before = float(needed(subject, "contributions/norm/pre_attn")[0].mean())
    after = float(needed(subject, "contributions/norm/post_ffn")[-1].mean())
    return interval(after / before, prompt=subject.prompt, after=after, before=before)


def turned_most(subject: Subject, random: Random) -> Found:
    cosines = needed(subject, "contributions/cosine/block")[:, -1]
    names = [f"layer {layer}" for layer in range(len(cosines))]
    said = ", ".join(f"{name} {minus(f'{cos:.3f}')}" for name, cos in zip(names, cosines, strict=True))
    return choice(random, names[int(cosines.argmin())], names, prompt=subject.prompt, cosines=said)


def carried_by(subject: Subject, random: Random) -> Found:
    parts = {"embedding": float(needed(subject, "attribution/embedding")[0])}
    for name, words in (("attention", "attention"), ("feed_forward", "feed-forward")):
        parts |= {
            f"{words} of layer {layer}": float(bar) for layer, bar in enumerate(needed(subject, f"attribution/{name}"))
        }
    right = max(parts, key=lambda name: parts[name])
    facts = {"token": _answer(subject), "largest": _largest(parts, "+.2f")}
    return choice(random, right, list(parts), prompt=subject.prompt, **facts)


def carried_by_head(subject: Subject, random: Random) -> Found:
    bars = by_head(needed(subject, "attribution/heads"))
    (layer, number), bar = max(bars.items(), key=lambda pair: pair[1])
    facts = {"token": _answer(subject), "layer": layer, "number": number, "bar": minus(f"{bar:+.3f}")}
    return head(bars, prompt=subject.prompt, **facts)


def _answer(subject: Subject) -> str:
    """The token whose logit is taken apart."""
    return text_of_id(subject, int(subject.seen.metadata.more["answer"]))


def how_many_tokens(subject: Subject, random: Random) -> Found:
    words = subject.opened.tokenizer.decode(subject.ids(random, 20)).split()[1:7]
    text = " ".join(words) or "the king"
    ids = subject.opened.tokenizer.encode(text)
    count = len(ids)
    made = (
        "one for each character, spaces too" if count == len(text) else ", ".join(text_of_id(subject, i) for i in ids)
    )
    facts = {"words": text, "characters": len(text), "count": count, "made": made}
    return value(count, within=0, off=1 if count > 8 else 0, **facts)
