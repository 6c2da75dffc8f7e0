"""The lab's four tokenizers. Each decodes to exactly the text it was given."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from llmlab.core.errors import LabError
from llmlab.data.gpt2_vocabulary import END_OF_TEXT, byte_symbols, gpt2_encoding, gpt2_merges

# What stands between documents where there is no id for the end of text: a blank line.
TEXT_SEPARATOR = "\n\n"
_BYTES = 256
_GPT2_VOCABULARY = 50_257  # the bytes, 50,000 merges, and the end of text


class TextTokenizer(Protocol):
    """What inspection needs of a tokenizer; the lab's own and wrapped ones of transformers have it."""

    def encode(self, text: str) -> list[int]:
        """Text -> ids, without special tokens."""

    def decode(self, ids: Sequence[int]) -> str:
        """Ids -> text."""

    def token_text(self, id: int) -> str:
        r"""One token as people read it: its spaces kept, bytes that are no whole character as \xNN."""

    @property
    def beginning(self) -> int | None:
        """The id that texts began with in training; None when they began with none."""


class Tokenizer(ABC):
    """Text to token ids and back.

    comparable: losses are those of GPT-2's own vocabulary, so that they can be compared with other models of it.
    end_of_text: the id that stands between documents, which no text contains; None where there is no such id.
    """

    kind: str
    vocab_size: int
    comparable = False
    end_of_text: int | None

    @abstractmethod
    def encode_array(self, text: str) -> np.ndarray:
        """Token ids of `text`, int64 [tokens]. A text that spells the end of text is ordinary text."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids; bytes that are no UTF-8 (half a character) become U+FFFD."""

    @abstractmethod
    def token_text(self, id: int) -> str:
        r"""One token as text; bytes that are no whole character are written as \xNN."""

    @abstractmethod
    def byte_count(self, id: int) -> int:
        """Bytes, in UTF-8, of the text that a token stands for; of the end of text those of the blank line it replaces.

        So a corpus has as many bytes, whatever cuts it into tokens.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All that `tokenizer_from_json` needs to build it again."""

    @property
    def beginning(self) -> int | None:
        """The id that a text begins after: the one between documents."""
        return self.end_of_text

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`. LabError naming characters that a vocabulary of characters lacks."""
        return self.encode_array(text).tolist()

    def key(self) -> str:
        """Hex sha256 of what decides its ids."""
        return _key(self.to_json())


class Gpt2Tokenizer(Tokenizer):
    """GPT-2's byte pair encoding."""

    kind = "gpt2"
    comparable = True

    def __init__(self) -> None:
        self._encoding = gpt2_encoding()
        self.vocab_size = self._encoding.n_vocab
        self.end_of_text = self._encoding.eot_token

    def encode_array(self, text: str) -> np.ndarray:
        return np.array(self._encoding.encode_ordinary(text), dtype=np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        return self._encoding.decode([int(id) for id in ids])

    def token_text(self, id: int) -> str:
        return self._encoding.decode_single_token_bytes(int(id)).decode(errors="backslashreplace")

    def byte_count(self, id: int) -> int:
        ended = id == self.end_of_text
        return len(TEXT_SEPARATOR if ended else self._encoding.decode_single_token_bytes(int(id)))

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind}


class CharTokenizer(Tokenizer):
    """One token a character, in the order of their code points. It knows no other character."""

    kind = "char"
    end_of_text = None

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters = sorted(set(characters))
        self.vocab_size = len(self.characters)
        self._codes = np.array([ord(character) for character in self.characters], dtype=np.uint32)

    def encode_array(self, text: str) -> np.ndarray:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        ids = np.minimum(np.searchsorted(self._codes, codes), self.vocab_size - 1)
        unknown = codes[self._codes[ids] != codes]
        if unknown.size:
            names = ", ".join(repr(chr(code)) for code in np.unique(unknown)[:8])
            raise LabError(
                f"This vocabulary of {self.vocab_size} characters lacks {names}.",
                "It holds only the characters of the text it was made from.",
                "Leave them out, or train with data.tokenizer=gpt2, which takes any text.",
            )
        return ids.astype(np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.characters[id] for id in ids)

    def token_text(self, id: int) -> str:
        return self.characters[id]

    def byte_count(self, id: int) -> int:
        return len(self.characters[id].encode("utf-8", "surrogatepass"))

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "characters": "".join(self.characters)}


class MergesTokenizer(Tokenizer):
    """Byte pair encoding with merges of its own: the 256 bytes, one token a merge, and the end of text.

    Text is cut by GPT-2's rule first. Single bytes are always there, so it takes any text.
    """

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        from tokenizers import Tokenizer as Pipeline
        from tokenizers import decoders, models, pre_tokenizers

        self.merges = [(first, second) for first, second in merges]
        symbols = byte_symbols()
        # Two merges can make the same token, which has one id.
        tokens = dict.fromkeys([*symbols.values(), *(first + second for first, second in self.merges)])
        vocabulary = {token: id for id, token in enumerate([*tokens, END_OF_TEXT])}
        self.vocab_size = len(vocabulary)
        self.end_of_text = self.vocab_size - 1
        byte_of = {symbol: byte for byte, symbol in symbols.items()}
        self._bytes = [bytes(byte_of[symbol] for symbol in token) for token in tokens] + [END_OF_TEXT.encode()]
        self.pipeline = Pipeline(models.BPE(vocabulary, self.merges))
        self.pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.pipeline.decoder = decoders.ByteLevel()

    def encode_array(self, text: str) -> np.ndarray:
        # `encode` also notes where each token lies in the text: 0.41 s of processor time for 400 kB, so 0.24.
        return np.array(self.pipeline.encode_batch_fast([text], add_special_tokens=False)[0].ids, dtype=np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self._bytes[id] for id in ids).decode(errors="replace")

    def token_text(self, id: int) -> str:
        return self._bytes[id].decode(errors="backslashreplace")

    def byte_count(self, id: int) -> int:
        return len(TEXT_SEPARATOR if id == self.end_of_text else self._bytes[id])


class CompactTokenizer(MergesTokenizer):
    """GPT-2's vocabulary without the tokens that a corpus never uses.

    It keeps the tokens that occur, the tokens these are merged from, and the 256 bytes. Merging goes through
    the kept tokens only: the corpus is tokenized exactly as GPT-2 does it, because every merge that happens there is
    kept and in the same order; other text may have more tokens.
    """

    kind = "compact"

    def __init__(self, gpt2_ids: Sequence[int]) -> None:
        """gpt2_ids: the GPT-2 ids to keep; bytes and the end of text are kept in any case."""
        self.gpt2_ids = _with_parts({id for id in gpt2_ids if 256 <= id < 256 + len(gpt2_merges())})
        super().__init__([gpt2_merges()[id - 256] for id in self.gpt2_ids])

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "gpt2_ids": self.gpt2_ids}


class BpeTokenizer(MergesTokenizer):
    """A byte pair encoding learned from a corpus."""

    kind = "bpe"

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "merges": [f"{first} {second}" for first, second in self.merges]}


def tokenizer_from_json(values: dict[str, Any]) -> Tokenizer:
    """The tokenizer that `to_json` described. LabError when it describes none."""
    try:
        match values["kind"]:
            case "gpt2":
                return Gpt2Tokenizer()
            case "char":
                return CharTokenizer(values["characters"])
            case "compact":
                return CompactTokenizer([int(id) for id in values["gpt2_ids"]])
            case "bpe":
                merges = [merge.split(" ") for merge in values["merges"]]
                return BpeTokenizer([(first, second) for first, second in merges])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LabError("The saved tokenizer is damaged.", f"{type(error).__name__}: {error}.") from error
    raise LabError("The saved tokenizer is of no known kind.", f"It says {values['kind']!r}.")


def vocabulary_of(values: dict[str, Any]) -> tuple[int, str]:
    """`vocab_size` and `key()` of the tokenizer that `to_json` described, which is not made: no library is loaded.

    ValueError when it describes none.
    """
    match values:
        case {"kind": "gpt2"}:
            size = _GPT2_VOCABULARY
        case {"kind": "char", "characters": str(characters)}:
            size = len(set(characters))
        case {"kind": "compact", "gpt2_ids": list(ids)}:
            size = _BYTES + len(ids) + 1
        case {"kind": "bpe", "merges": list(merges)}:
            size = len({*byte_symbols().values(), *(str(merge).replace(" ", "") for merge in merges)}) + 1
        case _:
            raise ValueError(f"no tokenizer is {values!r:.100}")
    return size, _key(values)


def _key(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def save_hf_tokenizer(tokenizer: Tokenizer, folder: Path, chat_template: str | dict[str, str] | None = None) -> None:
    """Writes tokenizer.json and its settings, so that AutoTokenizer.from_pretrained(folder) gives the same ids.

    As usual in transformers, a text that spells the end of text is read there as that one token.
    """
    from transformers import PreTrainedTokenizerFast

    special = (
        {} if tokenizer.end_of_text is None else dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    )
    saved = PreTrainedTokenizerFast(
        tokenizer_object=_pipeline(tokenizer),
        clean_up_tokenization_spaces=False,
        chat_template=chat_template,
        **special,
    )
    saved.save_pretrained(folder)


def _pipeline(tokenizer: Tokenizer) -> Any:
    """The tokenizer as a pipeline of the `tokenizers` library (its own copy, which the caller may change)."""
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Pipeline

    match tokenizer:
        case CharTokenizer():
            ids = {character: id for id, character in enumerate(tokenizer.characters)}
            pipeline = Pipeline(models.WordLevel(ids, unk_token=""))
            pipeline.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
            pipeline.decoder = decoders.Fuse()
            return pipeline
        case MergesTokenizer():
            return Pipeline.from_str(tokenizer.pipeline.to_str())
        case _:
            return BpeTokenizer(gpt2_merges()).pipeline  # the same ids: bytes, merges in order, end of text


def _with_parts(ids: set[int]) -> list[int]:
    """`ids` and, again and again, the tokens that each is merged from; sorted, without the bytes."""
    merges = gpt2_merges()
    id_of = {first + second: id for id, (first, second) in enumerate(merges, start=256)}
    kept = set(ids)
    for id in sorted(ids, reverse=True):  # parts have smaller ids than what they make
        open_ids = [id]
        while open_ids:
            for part in merges[open_ids.pop() - 256]:
                part_id = id_of.get(part)  # None for a byte
                if part_id is not None and part_id not in kept:
                    kept.add(part_id)
                    open_ids.append(part_id)
    return sorted(kept)
