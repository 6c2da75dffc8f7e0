"""The token cache: whole or absent, shared by processes, in constant memory."""

from __future__ import annotations

import json
import os
import resource
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fakes import CancelAfter
from filelock import FileLock
from forks import Fork

from llmlab.core.errors import Cancelled, LabError
from llmlab.core.progress import quiet
from llmlab.core.settings import DataSettings
from llmlab.data import token_cache as module
from llmlab.data.corpora import find_corpus
from llmlab.data.corpus import Corpus, Piece
from llmlab.data.dataset import load_dataset
from llmlab.data.own_texts import own_corpus
from llmlab.data.token_cache import TokenCache, token_cache
from llmlab.data.tokenizers import BpeTokenizer, CharTokenizer, Gpt2Tokenizer, Tokenizer


@dataclass(frozen=True)
class FakeCorpus(Corpus):
    """The texts it is given, each a document."""

    texts: tuple[str, ...] = ()

    def here(self) -> bool:
        return True

    def pieces(self) -> Iterator[Piece]:
        for text in self.texts:
            yield Piece(text, starts_document=True)

    def content_key(self) -> str:
        return "\0".join(self.texts)


def fake(*texts: str) -> FakeCorpus:
    return FakeCorpus("fake", "Fake", "", "yours", "", "", sum(map(len, texts)), texts)


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, for tests that count what is in it. Where the entries are."""
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def build(corpus: Corpus, tokenizer: Tokenizer | None = None, max_tokens: int = 0) -> TokenCache:
    return token_cache(corpus, tokenizer or Gpt2Tokenizer(), max_tokens, quiet)


def entries(folder: Path) -> list[str]:
    """What is in the cache, but for locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_the_end_of_text_stands_between_documents_only(cache_folder: Path) -> None:
    gpt2 = Gpt2Tokenizer()
    cache = build(fake("One.", "Two <|endoftext|>", "Three."))
    expected = [*gpt2.encode("One."), 50256, *gpt2.encode("Two <|endoftext|>"), 50256, *gpt2.encode("Three.")]
    assert cache.tokens.tolist() == expected
    assert cache.documents.tolist() == [0, 3, 3 + len(gpt2.encode("Two <|endoftext|>")) + 1]
    assert (cache.tokens == 50256).sum() == 2


def test_a_blank_line_stands_between_documents_where_there_is_no_end_of_text(cache_folder: Path) -> None:
    characters = CharTokenizer("ab\n")
    cache = build(fake("ab", "b"), characters)
    assert characters.decode(cache.tokens.tolist()) == "ab\n\nb"
    assert cache.documents.tolist() == [0, 4]


def test_one_document_needs_no_separator(cache_folder: Path) -> None:
    assert build(fake("abba"), CharTokenizer("ab")).tokens.tolist() == [0, 1, 1, 0]


def test_max_tokens_is_kept_to_the_token(cache_folder: Path) -> None:
    whole = build(fake("One two three four.", "Five six."))
    for count in (1, 4, 5, 6, 7):
        part = build(fake("One two three four.", "Five six."), max_tokens=count)
        assert part.tokens.tolist() == whole.tokens[:count].tolist()
        assert all(part.documents < count)


def test_ids_take_two_bytes_where_they_can_and_four_where_they_must(cache_folder: Path) -> None:
    assert build(fake("abc")).tokens.dtype == np.uint16

    class FakeLargeTokenizer(CharTokenizer):
        vocab_size = 70_000

        def __init__(self) -> None:
            super().__init__("ab")
            self.vocab_size = 70_000

        def encode_array(self, text: str) -> np.ndarray:
            return np.full(len(text), 69_999)

        def key(self) -> str:
            return "large"

    cache = build(fake("abc"), FakeLargeTokenizer())
    assert cache.tokens.dtype == np.uint32
    assert cache.tokens.tolist() == [69_999] * 3


def test_tokens_cannot_be_written(cache_folder: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        build(fake("abc")).tokens[0] = 1


def test_a_cache_is_built_once(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(fake("Once upon a time."))
    monkeypatch.setattr(module, "_write", lambda *arguments: pytest.fail("built again"))
    assert build(fake("Once upon a time.")).sha256 == first.sha256


def test_text_tokenizer_and_length_each_have_a_cache(cache_folder: Path) -> None:
    folders = {
        build(corpus, tokenizer, count).folder
        for corpus in (fake("one text"), fake("two text"))
        for tokenizer in (Gpt2Tokenizer(), BpeTokenizer([]))
        for count in (0, 2)
    }
    assert len(folders) == 8


@pytest.mark.parametrize("name", ["tokens.bin", "documents.bin", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "removed"])
def test_a_damaged_cache_is_built_again(cache_folder: Path, name: str, damage: str) -> None:
    before = build(fake("Once upon a time.", "The end."))
    tokens = before.tokens.tolist()
    path = before.folder / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-2])
    elif damage == "changed":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    again = build(fake("Once upon a time.", "The end."))
    assert again.tokens.tolist() == tokens
    assert again.folder == before.folder
    assert entries(cache_folder) == [before.folder.name]


def test_cancelling_leaves_nothing_behind(cache_folder: Path) -> None:
    texts = [f"Text {number}." for number in range(10)]
    with pytest.raises(Cancelled):
        token_cache(fake(*texts), Gpt2Tokenizer(), 0, CancelAfter(6))
    assert entries(cache_folder) == []
    assert len(build(fake(*texts)).documents) == 10


def test_what_a_killed_process_left_is_removed_and_never_used(cache_folder: Path) -> None:
    folder = build(fake("abc")).folder
    folder.rename(folder.with_name(f".tmp-{folder.name}-dead"))
    (folder.with_name(f".tmp-{folder.name}-dead") / "tokens.bin").write_bytes(b"half")
    assert build(fake("abc")).tokens.tolist() == Gpt2Tokenizer().encode("abc")
    assert entries(cache_folder) == [folder.name]


def test_an_empty_corpus_is_refused(cache_folder: Path) -> None:
    with pytest.raises(LabError, match="Fake is empty"):
        build(fake(""))
    assert entries(cache_folder) == []


def test_progress_rises_to_one(cache_folder: Path) -> None:
    shares: list[float] = []
    token_cache(find_corpus("tiny"), Gpt2Tokenizer(), 0, lambda what, done, total: shares.append(done / total))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_second_process_says_that_it_waits_and_can_be_cancelled(cache_folder: Path) -> None:
    folder = build(fake("abc")).folder
    said: list[str] = []

    def progress(what: str, done: float, total: float) -> None:
        if said:
            raise Cancelled
        said.append(what)

    with FileLock(folder.with_name(f"{folder.name}.lock")), pytest.raises(Cancelled):
        token_cache(fake("abc"), Gpt2Tokenizer(), 0, progress)
    assert said == ["Waiting for another run that prepares the same text"]


@pytest.mark.slow
def test_two_processes_building_one_cache_agree(cache_folder: Path, tmp_path: Path) -> None:
    def told() -> int:
        said: list[str] = []
        dataset = load_dataset(DataSettings(corpus="austen"), 64, lambda what, done, total: said.append(what))
        built = any("Tokenizing" in what for what in said)
        (tmp_path / f"{os.getpid()}.json").write_text(json.dumps({"key": dataset.key, "built": built}))
        return 0

    children = [Fork(told) for _ in range(2)]
    assert [each.wait() for each in children] == [0, 0]
    answers = [json.loads((tmp_path / f"{each.pid}.json").read_text()) for each in children]
    assert answers[0]["key"] == answers[1]["key"]
    assert sorted(answer["built"] for answer in answers) == [False, True]
    assert len(entries(cache_folder)) == 1


def test_a_full_disk_is_said_and_leaves_nothing_behind(cache_folder: Path, tmp_path: Path) -> None:
    def work() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        with pytest.raises(LabError, match="The cache could not be written") as raised:
            load_dataset(DataSettings(corpus="austen"), 64, quiet)
        return 0 if raised.value.do.startswith("Make room") else 1

    assert Fork(work).wait() == 0
    assert entries(cache_folder) == []


@pytest.mark.parametrize("tokenizer", ["gpt2", "char", "compact", "bpe"])
def test_a_cache_that_cannot_be_written_is_said_with_how_to_name_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(LabError, match=r"The cache could not be written\. .*file.cache.*LLMLAB_CACHE"):
        load_dataset(DataSettings(corpus="tiny", tokenizer=tokenizer), 16, quiet)


def test_a_large_text_needs_little_memory(cache_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    line = "It is a truth universally acknowledged, that a line is a line.\n"
    with path.open("w") as file:
        for _ in range(20):
            file.write(line * (1_000_000 // len(line)))
    corpus = own_corpus(path)
    assert corpus.bytes > 19_000_000
    tracemalloc.start()
    try:
        cache = build(corpus, CharTokenizer(line))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(cache.tokens) == corpus.bytes
    assert peak < 24_000_000
