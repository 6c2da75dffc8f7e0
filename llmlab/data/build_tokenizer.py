"""Making the tokenizer that the settings ask for, which may mean reading the corpus once."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TypeGuard

import numpy as np

from llmlab.core.errors import LabError
from llmlab.core.files import read_json, write_json
from llmlab.core.paths import cache_dir
from llmlab.core.progress import Progress
from llmlab.core.settings import DataSettings
from llmlab.data import tokenizers
from llmlab.data.corpus import Corpus
from llmlab.data.gpt2_vocabulary import byte_symbols
from llmlab.data.mixture import MixedCorpus
from llmlab.data.shards import BuiltCorpus
from llmlab.data.token_cache import cache_lock, token_stream

# Raised when a tokenizer would come out differently from the same text.
_FORMAT = 1
# English has about 4.5 characters a GPT-2 token: with max_tokens, bpe learns from the part that is read and no more.
_CHARACTERS_A_TOKEN = 4.5


def build_tokenizer(data: DataSettings, corpus: Corpus, progress: Progress) -> tokenizers.Tokenizer:
    """The tokenizer of `data.tokenizer` for this corpus, from the cache where it was made before.

    With data.max_tokens, only the part of the corpus that is read decides; of a mixture, all text does. Raises
    Cancelled and what the corpus raises.
    """
    if data.tokenizer == "gpt2":
        return tokenizers.Gpt2Tokenizer()
    if _has_it(corpus, data):
        return corpus.tokenizer()
    path = _file(data, corpus)
    with cache_lock(path, progress):
        saved = _saved(path)
        if saved is None:
            saved = _make(data, corpus, progress)
            write_json(path, saved.to_json())
    return saved


def known_vocabulary(data: DataSettings, corpus: Corpus) -> tuple[int, str] | None:
    """`vocab_size` and `key()` of what `build_tokenizer` gives; None where that was never made."""
    if _has_it(corpus, data):
        return corpus.manifest.vocab_size, corpus.manifest.tokenizer_key
    values = {"kind": "gpt2"} if data.tokenizer == "gpt2" else read_json(_file(data, corpus))
    with contextlib.suppress(ValueError):  # a damaged one is made again
        return tokenizers.vocabulary_of(values) if values else None
    return None


def cut_anew(data: DataSettings, corpus: Corpus) -> list[BuiltCorpus]:
    """The corpus, or those parts of a mixture, that was built in other tokens than `data` asks for: its text is decoded
    and cut again."""
    parts = corpus.sources if isinstance(corpus, MixedCorpus) else (corpus,)
    kept = (
        not isinstance(corpus, MixedCorpus) or data.tokenizer == "gpt2"
    )  # a vocabulary of a mixture is learned from all of it
    return [part for part in parts if isinstance(part, BuiltCorpus) and not (kept and _has_it(part, data))]


def _has_it(corpus: Corpus, data: DataSettings) -> TypeGuard[BuiltCorpus]:
    """Whether a corpus was built with the tokenizer that is asked for."""
    if not isinstance(corpus, BuiltCorpus) or corpus.manifest.tokenizer != data.tokenizer:
        return False
    return data.tokenizer != "bpe" or corpus.manifest.vocab_size == data.bpe_vocab_size


def _file(data: DataSettings, corpus: Corpus) -> Path:
    """Where the tokenizer is kept."""
    size = data.bpe_vocab_size if data.tokenizer == "bpe" else 0
    what = f"{_FORMAT} {data.tokenizer} {corpus.name} {corpus.content_key()} {size} {_limit(data, corpus)}"
    return cache_dir() / "tokenizers" / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.json"


def _limit(data: DataSettings, corpus: Corpus) -> int:
    """Tokens of the corpus that decide; 0 means all."""
    return 0 if isinstance(corpus, MixedCorpus) else data.max_tokens


def _saved(path: Path) -> tokenizers.Tokenizer | None:
    values = read_json(path)
    try:
        return tokenizers.tokenizer_from_json(values) if values else None
    except LabError:  # damaged: it is made again
        return None


def _make(data: DataSettings, corpus: Corpus, progress: Progress) -> tokenizers.Tokenizer:
    if data.tokenizer == "char":
        texts = _texts(corpus, _limit(data, corpus), "Collecting the characters", progress)
        return tokenizers.CharTokenizer(list(set(chain.from_iterable(texts))))
    if data.tokenizer == "compact":
        return tokenizers.CompactTokenizer(_occurring_ids(data, corpus, progress))
    return tokenizers.BpeTokenizer(_learned_merges(data, corpus, progress))


def _occurring_ids(data: DataSettings, corpus: Corpus, progress: Progress) -> list[int]:
    gpt2, limit = tokenizers.Gpt2Tokenizer(), _limit(data, corpus)
    occurs = np.zeros(gpt2.vocab_size, dtype=bool)
    count = characters = 0
    for ids, _, read in token_stream(corpus, gpt2):
        if limit:
            ids = ids[: limit - count]
        occurs[ids] = True
        count += len(ids)
        characters += read
        progress("Collecting the tokens that occur", min(characters, corpus.bytes), corpus.bytes)
        if limit and count >= limit:
            break
    return np.flatnonzero(occurs).tolist()


def _learned_merges(data: DataSettings, corpus: Corpus, progress: Progress) -> list[tuple[str, str]]:
    """Byte pair merges that the corpus suggests, most frequent pair first; the same for the same text."""
    from tokenizers import Tokenizer as Pipeline
    from tokenizers import models, pre_tokenizers, trainers

    pipeline = Pipeline(models.BPE())
    pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=data.bpe_vocab_size - 1,  # one id is the end of text
        initial_alphabet=list(byte_symbols().values()),
        min_frequency=2,  # a pair seen once says nothing
        show_progress=False,
    )
    limit = int(_limit(data, corpus) * _CHARACTERS_A_TOKEN)
    pipeline.train_from_iterator(_texts(corpus, limit, "Learning the tokens", progress), trainer)
    merges = json.loads(pipeline.to_str())["model"]["merges"]
    return [(first, second) for first, second in merges]


def _texts(corpus: Corpus, limit: int, what: str, progress: Progress) -> Iterator[str]:
    """The text with blank lines between documents; no piece more once `limit` characters are read (0: all).

    Pieces stay whole, as the token cache reads them, so a vocabulary of characters knows all that it meets there.
    """
    count = characters = 0
    for piece in corpus.pieces():
        text = tokenizers.TEXT_SEPARATOR + piece.text if piece.starts_document and count else piece.text
        count += len(text)
        yield text
        characters += len(piece.text)
        progress(what, min(characters, corpus.bytes), corpus.bytes)
        if limit and count >= limit:
            return
