"""GPT-2's vocabulary, built from the merges that the lab ships, with no network."""

from __future__ import annotations

import bz2
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from llmlab.core.errors import LabError
from llmlab.core.paths import resources_dir

if TYPE_CHECKING:
    import tiktoken

END_OF_TEXT = "<|endoftext|>"
# The text of the merges, which is also what tiktoken expects of vocab.bpe.
MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
# GPT-2's rule for cutting text before merging: contractions, words, numbers and signs with the space in front of
# them, and the rest of the white space. Written with possessive quantifiers, which give the same cuts faster.
SPLIT_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


@lru_cache(maxsize=1)
def gpt2_encoding() -> tiktoken.Encoding:
    """GPT-2's byte pair encoding: 50,256 tokens and the end of text. Takes about 0.2 s, once a process."""
    import tiktoken

    tokens = [*byte_symbols().values(), *map("".join, gpt2_merges())]
    as_bytes = {ord(symbol): byte for byte, symbol in byte_symbols().items()}
    ranks = {token.translate(as_bytes).encode("latin-1"): rank for rank, token in enumerate(tokens)}
    return tiktoken.Encoding(
        name="gpt2",
        pat_str=SPLIT_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={END_OF_TEXT: len(ranks)},
        explicit_n_vocab=50257,
    )


@lru_cache(maxsize=1)
def gpt2_merges() -> tuple[tuple[str, str], ...]:
    """GPT-2's 50,000 merges in order, written in byte symbols. The token of merge `i` has the id 256 + i."""
    path = resources_dir() / "tokenizer" / "gpt2_merges.txt.bz2"
    try:
        text = bz2.decompress(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LabError(
            "GPT-2's vocabulary could not be read.", f"{path}: {error}.", "Install the lab again."
        ) from error
    if hashlib.sha256(text).hexdigest() != MERGES_SHA256:
        raise LabError("GPT-2's vocabulary is damaged.", f"{path} is not what it should be.", "Install the lab again.")
    lines = text.decode().split("\n")[1:]  # the first line is the format's version
    return tuple((first, second) for first, second in map(str.split, filter(None, lines)))


@lru_cache(maxsize=1)
def byte_symbols() -> dict[int, str]:
    """The printable character that stands for each byte, in the order of GPT-2's ids 0 to 255.

    Visible bytes stand for themselves and come first; the other 68 are shifted to U+0100 and up (a space is Ġ).
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    symbols = {byte: chr(byte) for byte in visible}
    hidden = [byte for byte in range(256) if byte not in symbols]
    symbols.update({byte: chr(256 + place) for place, byte in enumerate(hidden)})
    return symbols
