"""A vocabulary of the lab's with the learner's `encode`: theirs merges the bytes of each word."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tokenizers import pre_tokenizers

from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, quiet
from llmlab.data.gpt2_vocabulary import byte_symbols, gpt2_merges
from llmlab.data.sharded_tokens import Tokens
from llmlab.data.tokenizers import Gpt2Tokenizer, MergesTokenizer, Tokenizer

# A Python loop takes a minute or two for as many.
_MOST_TOKENS = 20_000_000
# Tokens that are words in memory at once: their lists take 600 bytes a token.
_AT_ONCE = 100_000


class OwnEncoding:
    """Text to the vocabulary's ids. Text is cut into words by GPT-2's rule first, as the lab's own tokenizers do."""

    def __init__(self, tokenizer: Tokenizer, encode: Callable[..., list[int]]) -> None:
        """LabError for a vocabulary that is not made by merges."""
        if not isinstance(tokenizer, (Gpt2Tokenizer, MergesTokenizer)):
            raise LabError(
                "Your bpe cannot be used.", "The run's vocabulary has no merges.", "Add --set data.tokenizer=bpe"
            )
        merges = gpt2_merges() if isinstance(tokenizer, Gpt2Tokenizer) else tokenizer.merges
        symbols = list(byte_symbols().values())
        pieces = [*symbols, *(first + second for first, second in merges)]  # by the ids that `encode` is given
        named: dict[str, list[int]] = {}  # two merges can make the same piece, which has one id in the vocabulary
        for id, piece in enumerate(pieces):
            named.setdefault(piece, []).append(id)
        ids = {piece: id for id, piece in enumerate(dict.fromkeys(pieces))}
        self._tokenizer, self._encode = tokenizer, encode
        self._merges = {
            (a, b): len(symbols) + number
            for number, (first, second) in enumerate(merges)
            for a in named[first]
            for b in named[second]
        }
        self._ids = [ids[piece] for piece in pieces]
        self._place = {symbol: place for place, symbol in enumerate(symbols)}
        self._cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._words: dict[str, list[int]] = {}  # a text repeats its words

    def __call__(self, text: str) -> list[int]:
        return [id for word in self._words_of(text) for id in self._word(word)]

    def again(self, tokens: Tokens, progress: Progress = quiet) -> np.ndarray:
        """Encoded tokens, encoded anew. LabError where they are too many, or are not what `encode` makes of the text.
        Cancelled when `progress` says so.

        At the ends of a stretch a word may be cut in two, within a character even: what no whole word is stays.
        """
        if not isinstance(tokens, np.ndarray) or len(tokens) > _MOST_TOKENS:
            why = f"It is in Python, and takes a text of at most {_MOST_TOKENS:,} tokens in one file."
            raise LabError("Your bpe cannot encode this corpus.", why, "Choose a smaller one, or leave bpe out.")
        end = self._tokenizer.end_of_text
        ends = np.flatnonzero(tokens == end).tolist() if end is not None else []
        parts: list[np.ndarray] = []
        tell_at = 0
        for first, last in zip([-1, *ends], [*ends, len(tokens)], strict=True):
            for begin in range(first + 1, last, _AT_ONCE):
                if begin >= tell_at:  # a text may have many ends
                    progress("Encoding the text with your bpe", begin, len(tokens))
                    tell_at = begin + _AT_ONCE
                made = self._stretch(tokens[begin : min(begin + _AT_ONCE, last)].tolist())
                parts.append(np.array(made, tokens.dtype))
            parts.append(tokens[last : last + 1])  # the end of text
        found = np.concatenate(parts)
        if len(found) != len(tokens):
            why = f"It makes {len(found):,} tokens of a text that has {len(tokens):,} by the same merges."
            raise LabError(
                "Your bpe does not encode this corpus rightly.", why, "Check it: llmlab-run exercise check bpe"
            )
        return found

    def _stretch(self, ids: Sequence[int]) -> list[int]:
        at = 0
        while at < len(ids) and self._tokenizer.decode(ids[at : at + 1]).startswith("\ufffd"):  # within a character
            at += 1
        words, found = self._words_of(self._tokenizer.decode(ids[at:])), list(ids[:at])
        for number, word in enumerate(words):
            count, length = 0, 0  # tokens of the word, and their bytes
            while length < len(word) and at + count < len(ids):
                length += self._tokenizer.byte_count(ids[at + count])
                count += 1
            whole = 0 < number < len(words) - 1 and length == len(word)
            found += self._word(word) if whole else ids[at : at + count]
            at += count
        return found

    def _words_of(self, text: str) -> list[str]:
        """A symbol for each byte."""
        return [word for word, _ in self._cut.pre_tokenize_str(text)]

    def _word(self, word: str) -> list[int]:
        if word not in self._words:
            try:
                made = self._encode([self._place[symbol] for symbol in word], self._merges)
                self._words[word] = [self._ids[id] for id in made]
            except (IndexError, TypeError) as error:
                raise LabError("Your bpe gives ids that are in no vocabulary.", f"{error}.") from error
        return self._words[word]
