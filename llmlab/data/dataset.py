"""From settings to the two token arrays that training reads."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmlab.core.errors import LabError
from llmlab.core.files import read_json, write_json
from llmlab.core.paths import cache_dir
from llmlab.core.progress import Progress
from llmlab.core.settings import DataSettings
from llmlab.data.build_tokenizer import build_tokenizer, known_vocabulary
from llmlab.data.corpora import find_corpus
from llmlab.data.corpus import Corpus
from llmlab.data.mixture import MixedCorpus
from llmlab.data.sharded_tokens import MixedTokens, Tokens
from llmlab.data.token_cache import TokenCache, saved_tokens, token_cache
from llmlab.data.tokenizers import Tokenizer

# Tokens counted at once: 32 MB of int64.
_COUNT_BLOCK = 1 << 22


@dataclass(frozen=True)
class Dataset:
    """A corpus in tokens, split in two that share no token.

    train, val: read-only memory-mapped ids, uint16 or uint32.
    unigram_loss: nats per token on `val` for someone who knows only how often each token stands in `train`.
    bytes_per_token: of `val`. Losses of different tokenizers compare as bits per byte: loss / ln 2 / bytes_per_token.
    floor_loss: nats per token that remain for someone who knows the corpus's generator; None for a real text.
    key: hex sha256 of the tokens, the tokenizer and the split: what an exact resume depends on.

    Of a mixture, train and val are MixedTokens: each source is split by itself. unigram_loss and bytes_per_token are
    then of sequences that come by the weights. sources: how its sources are called.
    """

    train: Tokens
    val: Tokens
    tokenizer: Tokenizer
    unigram_loss: float
    bytes_per_token: float
    floor_loss: float | None
    key: str
    sources: tuple[str, ...] = ()


def load_dataset(data: DataSettings, block_size: int, progress: Progress) -> Dataset:
    """The dataset that the settings describe; what is not cached yet is built.

    Raises Cancelled, and LabError where the corpus is not here, cannot be read, or is too short for one sequence
    of block_size + 1 tokens in each split.
    """
    corpus = find_corpus(data.corpus)
    tokenizer = build_tokenizer(data, corpus, progress)
    if isinstance(corpus, MixedCorpus):
        parts = [_dataset(source, tokenizer, data, block_size, progress) for source in corpus.sources]
        return _mixed(corpus, parts, progress)
    return _dataset(corpus, tokenizer, data, block_size, progress)


def _dataset(corpus: Corpus, tokenizer: Tokenizer, data: DataSettings, block_size: int, progress: Progress) -> Dataset:
    cache = token_cache(corpus, tokenizer, data.max_tokens, progress)
    boundary, val_start = _split(cache, data)
    train, val = cache.tokens[:boundary], cache.tokens[val_start:]
    _check_length(corpus, train, val, block_size, data)
    return Dataset(
        train,
        val,
        tokenizer,
        *_measures(cache, boundary, val_start, tokenizer, progress),
        floor_loss(corpus, cache),
        _key(cache, tokenizer.key(), boundary, val_start),
    )


def _key(cache: TokenCache, tokenizer_key: str, boundary: int, val_start: int) -> str:
    return hashlib.sha256(f"{cache.sha256} {tokenizer_key} {boundary} {val_start}".encode()).hexdigest()


def _mixed(corpus: MixedCorpus, parts: list[Dataset], progress: Progress) -> Dataset:
    """The parts as one."""
    weights, titles = corpus.weights, [source.title for source in corpus.sources]
    parts_key = " ".join(f"{part.key} {weight}" for part, weight in zip(parts, weights, strict=True))
    key = hashlib.sha256(parts_key.encode()).hexdigest()
    saved = cache_dir() / "mixtures" / f"{key}.json"
    loss = (read_json(saved) or {}).get("unigram_loss")
    if not isinstance(loss, float):
        loss = _mixed_unigram_loss(corpus, parts, progress)
        with contextlib.suppress(OSError):  # it is counted again the next time
            saved.parent.mkdir(parents=True, exist_ok=True)
            write_json(saved, {"mixture": corpus.name, "unigram_loss": loss}, durable=False)
    return Dataset(
        MixedTokens([part.train for part in parts], weights),
        MixedTokens([part.val for part in parts], weights),
        parts[0].tokenizer,
        loss,
        sum(float(weight) * part.bytes_per_token for weight, part in zip(weights, parts, strict=True)),
        None,
        key,
        tuple(titles if len(set(titles)) == len(titles) else [source.name for source in corpus.sources]),
    )


def _mixed_unigram_loss(corpus: MixedCorpus, parts: list[Dataset], progress: Progress) -> float:
    """Of someone who knows how often each token stands in the sequences of the mixture."""
    size = parts[0].tokenizer.vocab_size
    known, asked = np.zeros(size), np.zeros(size)
    for weight, part in zip(corpus.weights, parts, strict=True):
        for total, tokens, added in ((known, part.train, 1), (asked, part.val, 0)):
            counts = _counts(tokens, size, progress) + added
            total += float(weight) * counts / counts.sum()
    return float(-(asked * np.log(known)).sum())


@dataclass(frozen=True)
class KnownLosses:
    """What earlier runs on a text left of it. vocab_size: of its tokens. unigram_loss: as a `Dataset` has it.

    Each None where it takes making the tokenizer or the tokens to know it.
    """

    vocab_size: int | None = None
    unigram_loss: float | None = None


def known_losses(data: DataSettings, progress: Progress) -> KnownLosses:
    """What guessing costs on the text that the settings describe, from the cache alone: nothing is built or loaded.

    Where the tokens are there, and nobody asked for this split of them, they are counted. Raises Cancelled, and
    LabError where the corpus is not here or cannot be split.
    """
    corpus = find_corpus(data.corpus, progress)
    known = known_vocabulary(data, corpus)
    if known is None:
        return KnownLosses()
    vocab_size, key = known
    if isinstance(corpus, MixedCorpus):
        return KnownLosses(vocab_size)
    cache = saved_tokens(corpus, key, data.max_tokens)
    if cache is None:
        return KnownLosses(vocab_size)
    boundary, val_start = _split(cache, data)
    loss = (read_json(_measures_file(cache, boundary, val_start)) or {}).get("unigram_loss")
    if not isinstance(loss, float):
        try:
            loss = _unigram_loss(cache, boundary, val_start, vocab_size, progress)
        except ValueError:  # ids beyond the vocabulary: the tokens are damaged, and made again when they are used
            loss = None
    return KnownLosses(vocab_size, loss)


def saved_training_tokens(data: DataSettings, tokenizer_key: str, key: str) -> Tokens | None:
    """`Dataset.train` of a run that is over, from the cache alone. key: of its `Dataset`; "" where it was not recorded.

    None where the tokens are not there, or are others by now; and of a mixture, whose sources are not read as often as
    they are long. LabError where the corpus is not here or cannot be split.
    """
    corpus = find_corpus(data.corpus)
    if isinstance(corpus, MixedCorpus) or (cache := saved_tokens(corpus, tokenizer_key, data.max_tokens)) is None:
        return None
    boundary, val_start = _split(cache, data)
    same = key in ("", _key(cache, tokenizer_key, boundary, val_start))
    return cache.tokens[:boundary] if same else None


def floor_loss(corpus: Corpus, cache: TokenCache) -> float | None:
    """The lowest loss, in nats per token, that any model can reach on average; None for a text without a known source.

    It is H / n. H: entropy of one document in nats under the corpus's generator, where the choice to end is one
    of the choices. n: mean tokens from the start of one document to the start of the next, so with the
    separator, over the cached corpus. The tokens of a document are a function of its text, so they carry the
    same entropy. It holds for a model that sees each story from its beginning; one whose sequence starts in the
    middle knows less.
    """
    entropy = corpus.document_entropy()
    if entropy is None or cache.documents is None or len(cache.documents) < 2:
        return None
    return entropy * (len(cache.documents) - 1) / int(cache.documents[-1])


def _split(cache: TokenCache, data: DataSettings) -> tuple[int, int]:
    """Where the training tokens end and where the validation tokens start."""
    total = len(cache.tokens)
    position = total - max(1, round(total * data.val_fraction))
    if data.split == "position":
        return _limited(position, data), position
    start = cache.last_start(position)
    if start is None:
        count = "one document" if cache.documents is None else f"{len(cache.documents)} document(s)"
        raise LabError(
            f"{data.corpus} cannot be split by documents.",
            f"It has {count}, and the held-out part needs whole ones at the end that make "
            f"up {100 * data.val_fraction:.1f} % of the text while at least one is left to train on.",
            "Use data.split=position.",
        )
    return _limited(start, data), start


def _limited(boundary: int, data: DataSettings) -> int:
    """Where training ends when it may read only so much: what is held out stays the same."""
    return min(boundary, data.train_tokens) if data.train_tokens else boundary


def _check_length(corpus: Corpus, train: Tokens, val: Tokens, block_size: int, data: DataSettings) -> None:
    shortest = min(len(train), len(val))
    if shortest >= block_size + 1:
        return
    raise LabError(
        f"{corpus.title} is too short for model.block_size={block_size}.",
        f"Its {len(train) + len(val)} tokens are split in {len(train)} and {len(val)}, and one sequence "
        f"needs {block_size + 1} of each.",
        f"Lower model.block_size to {shortest - 1} or less, or change data.val_fraction ({data.val_fraction:g})."
        if shortest > 2
        else "Use a longer text.",
    )


def _measures(
    cache: TokenCache, boundary: int, val_start: int, tokenizer: Tokenizer, progress: Progress
) -> tuple[float, float]:
    """Unigram loss and bytes per token of `val`; kept beside the tokens."""
    path = _measures_file(cache, boundary, val_start)
    saved = read_json(path) or {}
    loss, size = saved.get("unigram_loss"), saved.get("bytes_per_token")
    if isinstance(loss, float) and isinstance(size, float):
        return loss, size
    try:
        loss = _unigram_loss(cache, boundary, val_start, tokenizer.vocab_size, progress)
    except ValueError as error:  # of shards, since the bytes of other tokens are checked
        raise LabError(
            f"The tokens in {cache.folder} are damaged.",
            "Some ids are beyond the vocabulary.",
            "Build the corpus again with the same command: intact parts are kept.",
        ) from error
    val = _counts(cache.tokens[val_start:], tokenizer.vocab_size, progress)
    size = float(sum(int(val[id]) * tokenizer.byte_count(int(id)) for id in np.flatnonzero(val)) / val.sum())
    with contextlib.suppress(OSError):  # it is counted again the next time
        write_json(path, {"unigram_loss": loss, "bytes_per_token": size}, durable=False)
    return loss, size


def _measures_file(cache: TokenCache, boundary: int, val_start: int) -> Path:
    which = f"-{cache.sha256[:16]}" if cache.documents is None else ""  # shards may be made again in the same folder
    return cache.folder / f"unigram-{boundary}-{val_start}{which}.json"


def _unigram_loss(cache: TokenCache, boundary: int, val_start: int, vocab_size: int, progress: Progress) -> float:
    """Cross-entropy of `val` under the frequencies in `train`, one added to each count."""
    train = _counts(cache.tokens[:boundary], vocab_size, progress) + 1
    val = _counts(cache.tokens[val_start:], vocab_size, progress)
    return float(-(val * np.log(train / train.sum())).sum() / val.sum())


def _counts(tokens: Tokens, vocab_size: int, progress: Progress) -> np.ndarray:
    """How often each id occurs, int64 [vocabulary], in constant memory. ValueError for an id beyond it."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(tokens), _COUNT_BLOCK):
        progress("Counting tokens", start, len(tokens))
        counts += np.bincount(np.asarray(tokens[start : start + _COUNT_BLOCK]), minlength=vocab_size)
    return counts
