"""A learner's own files: read exactly, or refused with the place of what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from fakes import CancelAfter

import llmlab
from llmlab.core.errors import Cancelled, LabError, UsageError
from llmlab.data.corpora import corpora, find_corpus
from llmlab.data.own_texts import text_bytes


def documents(path: Path) -> list[str]:
    return list(find_corpus(str(path)).documents())


def test_a_txt_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Zwölf Boxkämpfer\n" * 40_000, encoding="utf-8")
    assert documents(path) == ["Zwölf Boxkämpfer\n" * 40_000]
    corpus = find_corpus(str(path))
    assert (corpus.kind, corpus.title, corpus.bytes) == ("yours", "mine.txt", path.stat().st_size)


def test_a_byte_order_mark_and_windows_line_ends_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert documents(path) == ["one\ntwo\nthree\n"]


@pytest.mark.parametrize("before", [0, 10, (1 << 18) - 1, 1 << 18])
def test_bytes_that_are_no_utf8_are_refused_with_their_place(tmp_path: Path, before: int) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(b"a" * before + b"\xe9t\xe9")
    with pytest.raises(LabError, match=rf"is not UTF-8 text. Byte {before:,} \(0xe9\)"):
        documents(path)


def test_a_file_that_ends_within_a_character_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes("abc€".encode()[:-1])
    with pytest.raises(LabError, match="Byte 3 "):
        documents(path)


@pytest.mark.parametrize(("content", "says"), [(b"PK\x03\x04\x00\x00", "Byte 4 is zero"), (b"\xff\xfea\x00", "UTF-16")])
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(LabError, match=says):
        documents(path)


def test_a_folder_is_its_txt_files_in_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.TXT", "a/.hidden.txt", "notes.md", ".git/x.txt"):
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert documents(tmp_path / "texts") == ["a/z.TXT", "b.txt"]


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"holds no .txt file"):
        find_corpus(str(tmp_path))


def test_a_text_without_a_byte_is_refused_where_it_is_named(tmp_path: Path) -> None:
    for name in ("mine.txt", "mine.jsonl", "texts/a.txt", "texts/b.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for name in ("mine.txt", "mine.jsonl", "texts"):
        with pytest.raises(LabError, match=f"^{name} is empty. It holds no text. "):
            find_corpus(str(tmp_path / name))
    (tmp_path / "texts" / "b.txt").write_text("b")
    assert documents(tmp_path / "texts")[-1] == "b"


@pytest.mark.parametrize("name", ["mine.txt", "mine.jsonl", "mine.parquet", "texts/b.txt"])
def test_what_is_no_text_from_its_beginning_is_refused_where_it_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    (path.parent / "a.txt").write_text("one", encoding="utf-8")
    path.write_bytes(bytes(range(255, -1, -1)) * 200)
    with pytest.raises(LabError) as refused:
        find_corpus(str(path if path.parent == tmp_path else path.parent))
    assert path.name in str(refused.value)


def test_each_line_of_a_jsonl_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [{"text": "öne\ntwo"}, {"content": "three"}, {"text": ""}, {"text": "four", "content": "no"}]
    path.write_text("\n\n".join(json.dumps(row) for row in rows))
    assert documents(path) == ["öne\ntwo", "three", "four"]


def test_files_of_json_lines_put_one_after_the_other_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b"".join(f'{{"text": "{text}"}}\n'.encode("utf-8-sig") for text in ("one", "two")))
    assert documents(path) == ["one", "two"]


def test_a_document_of_a_jsonl_may_be_longer_than_an_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmlab.data.example_files._LONGEST_LINE", 64)
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"text": "a" * 1000}))
    assert documents(path) == ["a" * 1000]


@pytest.mark.parametrize("bad", ["{", "[]", '{"title": "x"}', '{"text": 3}', '{"text": "\\ud800"}'])
def test_bad_lines_of_a_jsonl_are_counted_and_refused(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"text": "one"}\n\n' + f'{bad}\n{{"text": "two"}}\n{bad}\n')
    with pytest.raises(LabError, match=r"2 line\(s\) without a text; the first is line 3"):
        documents(path)


def test_each_row_of_a_parquet_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    texts = [f"text {number}" for number in range(1000)]
    pyarrow.parquet.write_table(pyarrow.table({"id": list(range(1000)), "text": texts}), path, row_group_size=300)
    assert documents(path) == texts
    assert 8000 < text_bytes(path) < 20_000


def test_a_parquet_without_texts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": [1, 2], "title": ["a", "b"]}), path)
    with pytest.raises(LabError, match=r"has no column of text. It has text, title"):
        documents(path)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", None]}), path)
    with pytest.raises(LabError, match="It is row 1"):
        documents(path)
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(LabError, match="is not a Parquet file"):
        documents(path)


def test_other_kinds_of_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.pdf"
    path.write_bytes(b"%PDF")
    with pytest.raises(UsageError, match=r"It reads .txt, .jsonl, .parquet"):
        find_corpus(str(path))


def test_a_text_that_went_away_is_said(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("here")
    corpus = find_corpus(str(path))
    path.unlink()
    assert not corpus.here()
    with pytest.raises(LabError, match="is not there"):
        list(corpus.documents())


def test_looking_through_a_folder_can_be_cancelled(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(Cancelled):
        find_corpus(str(tmp_path), CancelAfter())


def test_the_content_key_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("aaaa")
    stat = path.stat()
    before = find_corpus(str(path)).content_key()
    path.write_text("bbbb")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert find_corpus(str(path)).content_key() != before


def test_the_named_corpora_are_these() -> None:
    names = [corpus.name for corpus in corpora()]
    assert names == ["tiny", "shakespeare", "austen", "stories", "verdict", "wikitext2", "tinystories"]
    assert all(corpus.licence and corpus.origin and corpus.description and corpus.bytes for corpus in corpora())


def test_listing_corpora_imports_nothing_heavy() -> None:
    script = "import sys; from llmlab.data.corpora import corpora; [c.here() for c in corpora()]; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(llmlab.__file__).parents[1])}
    loaded = set(subprocess.check_output([sys.executable, "-c", script], env=environment, text=True).split())
    assert not loaded & {"torch", "tiktoken", "tokenizers", "transformers", "datasets", "pyarrow", "huggingface_hub"}
