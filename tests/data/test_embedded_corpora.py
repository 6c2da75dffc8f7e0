"""The texts that come with the lab are the ones that the index describes."""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

import pytest

from llmlab.core.errors import LabError
from llmlab.core.paths import resources_dir
from llmlab.data import embedded_corpora as embedded
from llmlab.data.corpus import Piece, document_pieces
from llmlab.data.embedded_corpora import EmbeddedCorpus, embedded_corpora
from llmlab.data.tokenizers import Gpt2Tokenizer


@pytest.mark.parametrize("corpus", embedded_corpora(), ids=lambda corpus: corpus.name)
def test_texts_and_files_are_those_of_the_index(corpus: EmbeddedCorpus) -> None:
    whole = hashlib.sha256()
    size = 0
    for document in corpus.files:
        packed = (resources_dir() / "corpora" / document.file).read_bytes()
        assert len(packed) < 1_500_000
        assert hashlib.sha256(packed).hexdigest() == document.packed_sha256
        text = lzma.decompress(packed)
        assert len(text) == document.bytes
        assert hashlib.sha256(text).hexdigest() == document.sha256
        whole.update(text)
        size += len(text)
    assert (whole.hexdigest(), size) == (corpus.sha256, corpus.bytes)
    assert corpus.here()
    assert corpus.licence
    assert corpus.origin


@pytest.mark.parametrize("corpus", embedded_corpora(), ids=lambda corpus: corpus.name)
def test_texts_are_clean(corpus: EmbeddedCorpus) -> None:
    for text in corpus.documents():
        assert "gutenberg" not in text.lower()
        assert "\r" not in text
        assert "\t" not in text
        assert "\n\n\n\n" not in text
        assert not any(line.endswith(" ") for line in text.split("\n"))
        assert text.endswith("\n")


def test_documents_are_the_files_of_a_corpus() -> None:
    counts = {corpus.name: sum(1 for _ in corpus.documents()) for corpus in embedded_corpora()}
    assert counts == {"tiny": 1, "shakespeare": 42, "austen": 6}


def test_a_damaged_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_folder", lambda: tmp_path)
    corpus = embedded_corpora()[0]
    (tmp_path / "tiny").mkdir()
    path = tmp_path / corpus.files[0].file
    for content in (b"not xz", lzma.compress(b"another text")):
        path.write_bytes(content)
        with pytest.raises(LabError, match=r"could not be read|damaged"):
            list(corpus.documents())


def test_a_missing_text_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_folder", lambda: tmp_path)
    corpus = embedded_corpora()[0]
    assert not corpus.here()
    with pytest.raises(LabError, match="could not be read"):
        list(corpus.documents())


@pytest.mark.parametrize("size", [64, 1000])
def test_pieces_have_the_tokens_of_the_whole_text(size: int) -> None:
    text = next(embedded_corpora()[0].documents())[:20000]
    text += "\n\n\n  indented   text\t \n \n and   more\n" * 200 + "x" * 30 + " end  "
    tokenizer = Gpt2Tokenizer()
    pieces = list(document_pieces([text[:777], text[777:778], text[778:]], size))
    assert "".join(piece.text for piece in pieces) == text
    assert all(len(piece.text) <= size for piece in pieces)
    assert [piece.starts_document for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert [id for piece in pieces for id in tokenizer.encode(piece.text)] == tokenizer.encode(text)


def test_a_text_without_white_space_is_cut_all_the_same() -> None:
    assert [piece.text for piece in document_pieces(["x" * 25], 10)] == ["x" * 10, "x" * 10, "x" * 5]
    assert list(document_pieces([""])) == []
    assert list(document_pieces(["a"])) == [Piece("a", True)]
