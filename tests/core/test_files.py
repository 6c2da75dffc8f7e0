"""What a person or a model names is read only when it is a file; JSON of any shape is data or damaged; deleting."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fakes import CancelAfter

from llmlab.core.config import read_toml
from llmlab.core.errors import Cancelled, LabError
from llmlab.core.files import new_folder, parse_json, read_json, remove_folder, safetensors_header, sha256_of
from llmlab.data.corpora import find_corpus
from llmlab.data.example_files import read_rows
from llmlab.data.own_texts import file_pieces
from llmlab.inspection.archive import read_archive
from llmlab.models.gguf_file import read_gguf_header
from llmlab.models.reference import parse

# Deeper than any reader of JSON or TOML follows.
_DEPTH = 200_000
READERS: dict[str, Callable[[Path], Any]] = {
    "text.txt": lambda path: list(file_pieces(path)),
    "text.jsonl": lambda path: list(file_pieces(path)),
    "text.parquet": lambda path: list(file_pieces(path)),
    "corpus.txt": lambda path: list(find_corpus(str(path)).pieces()),
    "rows.jsonl": lambda path: list(read_rows(path)),
    "rows.csv": lambda path: list(read_rows(path)),
    "rows.parquet": lambda path: list(read_rows(path)),
    "settings.toml": read_toml,
    "model.gguf": lambda path: read_gguf_header(path, path.stem),
    "named.gguf": lambda path: parse(str(path), path.parent),
    "answer.safetensors": read_archive,
}


@pytest.fixture(params=["a named pipe", "a device"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Callable[[str], Path], str]:
    """Makes what is no file under a name: a pipe that nobody writes to, or a device that never ends; and its kind."""

    def make(name: str) -> Path:
        path = tmp_path / name
        if request.param == "a device":
            path.symlink_to("/dev/zero")
        else:
            os.mkfifo(path)
        return path

    return make, request.param


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_refused_at_once(special: tuple[Callable[[str], Path], str], name: str) -> None:
    make, kind = special
    with pytest.raises(LabError, match=kind):
        READERS[name](make(name))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.timeout(60)
def test_small_readers_take_what_is_no_file_for_unreadable(special: tuple[Callable[[str], Path], str]) -> None:
    path = special[0]("named")
    assert read_json(path) is None
    for read in (safetensors_header, sha256_of):
        with pytest.raises(OSError, match=special[1]):
            read(path)


def test_json_that_nests_without_end_is_damaged(tmp_path: Path) -> None:
    deep = "[" * _DEPTH + "]" * _DEPTH
    with pytest.raises(ValueError, match="nests too deeply"):
        parse_json(deep)
    path = tmp_path / "deep.json"
    path.write_text(f'{{"a": {deep}}}')
    assert read_json(path) is None
    header = f'{{"a": {deep}}}'.encode()
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match="nests too deeply"):
        safetensors_header(weights)
    lines = tmp_path / "deep.jsonl"
    lines.write_text(f'{{"text": {deep}}}\n')
    with pytest.raises(LabError, match="the first is line 1"):
        list(file_pieces(lines))
    assert [row for _, row in read_rows(lines)] == ["It is not JSON: it nests too deeply."]


def test_toml_that_nests_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * _DEPTH + "]" * _DEPTH)
    with pytest.raises(LabError, match=r"deep\.toml is not valid TOML\. It nests too deeply\."):
        read_toml(path)


def test_a_deleted_folder_is_gone_at_once_and_a_link_leads_nowhere_afterwards(tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    for path in (folder / "deep", other):
        path.mkdir(parents=True)
        (path / "file").write_text("x")
    (folder / "link").symlink_to(other)
    with pytest.raises(Cancelled):
        remove_folder(folder, CancelAfter(1))
    assert not folder.exists()
    (left,) = tmp_path.glob(".tmp-run-*")
    remove_folder(left)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    folder.symlink_to(other)
    remove_folder(folder)
    assert (other / "file").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_an_old_folder_that_is_being_deleted_is_nobody_elses_litter(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "file").write_text("x")
    os.utime(folder, (0, 0))

    def begin_another(*_: object) -> None:
        with new_folder(tmp_path / "other"):
            pass

    remove_folder(folder, begin_another)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_folder_that_cannot_be_deleted_keeps_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "file").write_text("x")
    with mock.patch.object(Path, "unlink", side_effect=PermissionError("no")), pytest.raises(PermissionError):
        remove_folder(folder)
    assert (folder / "file").is_file()
