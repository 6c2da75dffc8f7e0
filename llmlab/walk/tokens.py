"""From text to token ids: the bytes, and the merges that made each token of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from llmlab.data.gpt2_vocabulary import byte_symbols, gpt2_merges
from llmlab.data.hf_tokenizer import HuggingFaceTokenizer
from llmlab.data.tokenizers import Gpt2Tokenizer, MergesTokenizer, TextTokenizer

Ranks = Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class Merge:
    """Two pieces that became one. number: of the merge in the vocabulary's list, from 0; earlier ones go first."""

    first: str
    second: str
    number: int


def merge_numbers(tokenizer: TextTokenizer) -> Ranks | None:
    """The merges of a byte pair encoding with their numbers; None for a tokenizer that works in another way."""
    merges: Any = None
    match tokenizer:
        case Gpt2Tokenizer():
            merges = gpt2_merges()
        case MergesTokenizer():
            merges = tokenizer.merges
        case HuggingFaceTokenizer():
            backend = getattr(tokenizer.inner, "backend_tokenizer", None)
            model = json.loads(backend.to_str())["model"] if backend is not None else {}
            merges = model.get("merges") if model.get("type") == "BPE" else None
    if merges is None:
        return None
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    ranks: dict[tuple[str, str], int] = {}
    for number, (first, second) in enumerate(pairs):
        ranks.setdefault((first, second), number)
    return ranks


def piece_of(tokenizer: TextTokenizer, id: int) -> str | None:
    """How the vocabulary writes a token, a character for each byte; None where it has no such writing."""
    match tokenizer:
        case Gpt2Tokenizer():
            if id < len(byte_symbols()):
                return list(byte_symbols().values())[id]
            return None if id == tokenizer.end_of_text else "".join(gpt2_merges()[id - len(byte_symbols())])
        case MergesTokenizer():
            return tokenizer.pipeline.id_to_token(id)
        case HuggingFaceTokenizer():
            return str(tokenizer.inner.convert_ids_to_tokens(id))
    return None


def merges_of(piece: str, ranks: Ranks) -> list[Merge] | None:
    """The merges that make a piece of its characters, in their order: again and again the earliest one in the list.

    None for what is not made by merging (a special token).
    """
    parts, done = list(piece), []
    while len(parts) > 1:
        pairs = [(ranks[pair], at) for at, pair in enumerate(pairwise(parts)) if pair in ranks]
        if not pairs:
            return None
        number, at = min(pairs)
        done.append(Merge(parts[at], parts[at + 1], number))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return done


def merge_words(tokenizer: TextTokenizer, id: int, ranks: Ranks | None) -> str:
    """`Ġ + k = Ġk (merge 12), ...`; what else a token is, where no merge made it."""
    if ranks is None:
        return "a token of its vocabulary as it stands: this tokenizer does not merge pairs"
    piece = piece_of(tokenizer, id)
    steps = merges_of(piece, ranks) if piece is not None else None
    if steps is None:
        return "a special token, made by no merge"
    if not steps:
        return "a single byte, made by no merge"
    return ", ".join(f"{one.first} + {one.second} = {one.first}{one.second} (merge {one.number:,})" for one in steps)
