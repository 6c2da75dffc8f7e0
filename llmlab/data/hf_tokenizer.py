"""Tokenizers of transformers, read the way the lab reads its own: no token added by itself, every space kept."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llmlab.core.errors import LabError, UsageError, brief
from llmlab.core.files import read_json
from llmlab.data.gpt2_vocabulary import byte_symbols

_SPACE = "\u2581"  # what sentencepiece writes for a space
# Files of which a tokenizer's folder has at least one: the `vocab_files_names` of transformers' tokenizers.
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json", "vocab.tsv")


class HuggingFaceTokenizer:
    """Wraps a tokenizer of transformers.

    inner: that tokenizer itself, for what only it has: chat templates and offsets. beginning: the beginning-of-text
    token, whether or not the tokenizer adds it by itself (adds_bos).
    """

    def __init__(self, tokenizer: Any) -> None:
        self.inner = tokenizer
        self._read = _reader(tokenizer)
        self._texts: dict[int, str] = {}
        self._added = {int(id): str(token) for id, token in tokenizer.added_tokens_decoder.items()}
        self._special = {int(id) for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        with_special = _with_special(tokenizer)
        first = tokenizer.bos_token_id
        # Some tokenizers put another token first than the one they call the beginning (BERT's [CLS]).
        if first is None and with_special and with_special[0] in tokenizer.all_special_ids:
            first = with_special[0]
        self.beginning = None if first is None else int(first)
        self.adds_bos = bool(with_special) and with_special[0] == self.beginning

    def encode(self, text: str) -> list[int]:
        """Ids without special tokens around them; a text that spells a special token is read as that token.

        LabError for what a vocabulary lacks that knows no unknown token.
        """
        with readable():
            return [int(id) for id in self.inner.encode(text, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text with special tokens and all spaces."""
        with giving_up():
            whole = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
            return str(self.inner.decode([int(id) for id in ids], **whole))

    def token_text(self, id: int) -> str:
        r"""One token with its spaces; bytes that are no whole character as \xNN; `<id>` for a row without a token."""
        text = self._texts.get(id)
        if text is None:
            text = self._texts[id] = self._text_of(int(id))
        return text

    def byte_count(self, id: int) -> int | None:
        """Bytes, in UTF-8, of the text that a token stands for; 0 for a special token, which stands for none.

        The space that sentencepiece puts before a text is counted. None where a token's text depends on those beside
        it (WordPiece).
        """
        if id in self._special:
            return 0
        piece = self._added.get(id) or self._piece(id) or ""
        if self._read is _byte_level and id not in self._added and _BYTE_OF.keys() >= set(piece):
            return len(piece)
        if self.is_byte(id):
            return 1
        written = self._read in (_byte_level, _sentencepiece, _as_written)
        return len(self.token_text(id).encode()) if written else None

    def is_byte(self, id: int) -> bool:
        """Whether a token spells a single byte: the text of a run of these may not be that of each (`<0xF0>`)."""
        return self._read is _sentencepiece and _byte_of(self._piece(id) or "") is not None

    def _text_of(self, id: int) -> str:
        if id in self._added:
            return self._added[id]
        piece = self._piece(id)
        return f"<{id}>" if piece is None else self._read(piece, id)

    def _piece(self, id: int) -> str | None:
        """How the vocabulary writes a token; None for a row without one."""
        try:
            piece = self.inner.convert_ids_to_tokens(id)
        except (IndexError, KeyError, ValueError, OverflowError):
            return None
        return None if piece is None else str(piece)


class IdTokenizer:
    """For a model that came without a tokenizer: it can be asked by ids, and shows them."""

    beginning: int | None = None
    adds_bos = False

    def __init__(self, name: str) -> None:
        self._name = name

    def encode(self, text: str) -> list[int]:
        """UsageError: without a tokenizer nobody knows which ids a text is."""
        raise UsageError(
            f"{self._name} came without a tokenizer, so it cannot read text.",
            f"Its folder holds none of {', '.join(_FILES[:4])}.",
            "Put the tokenizer's files there, or give token ids instead of text.",
        )

    def decode(self, ids: Sequence[int]) -> str:
        """The ids, one after the other."""
        return "".join(self.token_text(id) for id in ids)

    def token_text(self, id: int) -> str:
        """`<id>`."""
        return f"<{int(id)}>"


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """LabError when a tokenizer of the `tokenizers` library fails at a text, which it does with a bare Exception."""
    try:
        with giving_up():
            yield
    except LabError:
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise LabError("This model's tokenizer cannot read the text.", f"{why.rstrip('.')}.") from error


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer's files."""
    return any((folder / name).is_file() for name in _FILES)


def no_tokenizer(name: str) -> LabError:
    """Why a model without a tokenizer cannot learn from examples."""
    return LabError(
        f"{name} cannot be fine-tuned.",
        "It came without a tokenizer, so no example can be written in its tokens.",
        "Put its tokenizer's files (tokenizer.json, tokenizer_config.json) into its folder.",
    )


def load_tokenizer(folder: Path, name: str, gguf_file: str | None = None) -> HuggingFaceTokenizer | IdTokenizer:
    """The tokenizer in a folder, or of a GGUF file in it. LabError when it cannot be read; no code of it is run."""
    from transformers import AutoTokenizer

    if gguf_file is None and not has_tokenizer(folder):
        return IdTokenizer(name)
    extra = {} if gguf_file is None else {"gguf_file": gguf_file}
    try:
        with giving_up():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **extra)
            if not len(tokenizer):
                raise ValueError("it knows no tokens")
            return HuggingFaceTokenizer(tokenizer)
    except LabError:
        raise
    except Exception as error:  # a foreign file can fail anywhere inside its reader
        raise LabError(
            f"The tokenizer of {name} cannot be read.",
            _blame(folder, error),
            "Take another copy of the model, or save its tokenizer again as a tokenizer.json.",
        ) from error


def _blame(folder: Path, error: Exception) -> str:
    """Why a tokenizer could not be read, in a sentence."""
    settings = read_json(folder / "tokenizer_config.json") or {}
    if isinstance(auto := settings.get("auto_map"), dict) and auto.get("AutoTokenizer"):
        return "It needs code that comes with it, and the lab runs no code of a model."
    for file in ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"):
        if (folder / file).is_file() and read_json(folder / file) is None:
            return f"Its {file} is damaged."
    if isinstance(error, ImportError):
        return f"transformers needs another package for it: {brief(error)}"
    return f"transformers refuses it: {brief(error)}"


@contextlib.contextmanager
def giving_up() -> Iterator[None]:
    """While it lasts, LabError where the `tokenizers` library panics, which is no Exception.

    A pattern of a tokenizer.json that tries too much on a text ends so: Oniguruma stops it after 10 million steps.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        late = "retry-limit" in str(error)
        why = "A pattern in its tokenizer.json takes too long on it." if late else "Its tokenizer.json is damaged."
        raise LabError(
            "The model's tokenizer could not finish a text.",
            why,
            "Shorten the text, or take another copy of the model.",
        ) from error


def _with_special(tokenizer: Any) -> list[int]:
    """The ids of a short text with what the tokenizer adds to it by itself."""
    try:
        ids: list[int] = tokenizer("a", add_special_tokens=True)["input_ids"]
    except Exception:  # a vocabulary of characters that lacks this one
        ids = tokenizer(tokenizer.convert_ids_to_tokens(0), add_special_tokens=True)["input_ids"]
    return ids


def _reader(tokenizer: Any) -> Callable[[str, int], str]:
    """How this tokenizer's pieces become text."""
    kinds = set(_kinds(tokenizer))
    if "ByteLevel" in kinds:
        return _byte_level
    if kinds & {"Metaspace", "ByteFallback", _SPACE} or hasattr(tokenizer, "sp_model"):
        return _sentencepiece
    if kinds == {"Fuse"}:
        return _as_written
    if kinds or getattr(tokenizer, "is_fast", False):
        return lambda piece, id: piece
    return lambda piece, id: str(tokenizer.decode([id], clean_up_tokenization_spaces=False))


def _kinds(tokenizer: Any) -> Iterator[str]:
    """The kinds of the steps by which a pipeline of the `tokenizers` library decodes."""
    pipeline = getattr(tokenizer, "backend_tokenizer", None)
    if pipeline is None:
        return
    waiting = [json.loads(pipeline.to_str()).get("decoder")]
    while waiting:
        step = waiting.pop()
        if not isinstance(step, dict):
            continue
        yield str(step.get("type"))
        if step.get("pattern") == {"String": _SPACE}:
            yield _SPACE
        waiting += step.get("decoders", [])


_BYTE_PIECE = re.compile("<0x[0-9A-Fa-f]{2}>")
_BYTE_OF = {symbol: byte for byte, symbol in byte_symbols().items()}


def _byte_level(piece: str, id: int) -> str:
    """GPT-2's way: every byte is written as a visible character."""
    if any(character not in _BYTE_OF for character in piece):
        return piece
    return bytes(_BYTE_OF[character] for character in piece).decode(errors="backslashreplace")


def _as_written(piece: str, id: int) -> str:
    """Pieces that only have to be put together: characters, as the lab saves a vocabulary of them."""
    return piece


def _sentencepiece(piece: str, id: int) -> str:
    r"""Spaces as U+2581, bytes as <0xNN>: read as \xNN where they are no whole character."""
    byte = _byte_of(piece)
    return piece.replace(_SPACE, " ") if byte is None else bytes([byte]).decode(errors="backslashreplace")


def _byte_of(piece: str) -> int | None:
    """The byte that a piece <0xNN> spells; None for any other piece."""
    return int(piece[3:5], 16) if _BYTE_PIECE.fullmatch(piece) else None
