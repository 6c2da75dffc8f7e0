"""The archive: a file that safetensors itself reads, streamed, atomic, and refused when it is not whole or not ours."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from llmlab.core.errors import LabError
from llmlab.inspection.archive import ArchiveWriter, Metadata, read_archive, write_archive

ABOUT = Metadata(
    "inspection",
    "bar@150",
    "ab" * 32,
    [3, 1],
    ["The", " ☃\u2028"],
    "float32",
    "eager",
    {"torch": "2"},
    ["a note"],
    {"top": 5},
)


def _tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "attention/0": random.random((3, 5, 5), np.float32),
        "lens/ids": random.integers(0, 9, (4, 5, 2)).astype(np.int32),
        "attribution/logit": np.array([2.5], np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }


def test_safetensors_itself_reads_what_was_written(tmp_path: Path) -> None:
    tensors = _tensors()
    write_archive(tmp_path / "a.safetensors", tensors, ABOUT)
    read = load_file(tmp_path / "a.safetensors")
    assert read.keys() == tensors.keys()
    assert all(np.array_equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in read)
    with safe_open(tmp_path / "a.safetensors", "numpy") as file:
        header = file.metadata()
    assert header["schema"] == "1"
    assert json.loads(header["token_ids"]) == [3, 1]
    assert json.loads(header["tokens"]) == ["The", " ☃\u2028"]


def test_saving_and_reading_is_bitwise_the_same(tmp_path: Path) -> None:
    tensors = _tensors()
    write_archive(tmp_path / "a.safetensors", tensors, ABOUT)
    archive = read_archive(tmp_path / "a.safetensors")
    assert archive.metadata == ABOUT
    assert set(archive) == set(tensors)
    for name, values in tensors.items():
        assert archive[name].tobytes() == values.tobytes()
        assert archive[name].dtype == values.dtype
        assert archive.shape(name) == values.shape


def test_pieces_in_any_order_make_the_same_tensor_as_one_write(tmp_path: Path) -> None:
    whole = np.random.default_rng(1).random((2, 3, 6, 6), np.float32)
    with ArchiveWriter(
        tmp_path / "a.safetensors", {"p": (np.float32, whole.shape), "n": (np.int32, (2,))}, ABOUT
    ) as writer:
        for layer in (1, 0):
            for head in (2, 0, 1):
                writer.write("p", whole[layer, head, 4:], layer, head, first_row=4)
                writer.write("p", whole[layer, head, :4], layer, head)
    archive = read_archive(tmp_path / "a.safetensors")
    assert np.array_equal(archive["p"], whole)
    assert not archive["n"].any()  # what is never written reads as zeros


def test_a_piece_that_does_not_fit_is_refused_instead_of_overwriting_its_neighbour(tmp_path: Path) -> None:
    with ArchiveWriter(
        tmp_path / "a.safetensors", {"p": (np.float32, (4, 3)), "q": (np.float32, (4, 3))}, ABOUT
    ) as writer:
        with pytest.raises(ValueError, match="does not fit"):
            writer.write("p", np.ones((3, 3), np.float32), first_row=2)
        with pytest.raises(ValueError, match="does not fit"):
            writer.write("p", np.ones((4, 2), np.float32))


def test_metadata_may_be_completed_after_the_pass(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a.safetensors", {"p": (np.float32, (1,))}, ABOUT) as writer:
        writer.write("p", np.ones(1, np.float32))
        writer.metadata = dataclasses.replace(ABOUT, notes=["x" * 9000], more={"answer": "7"})
    archive = read_archive(tmp_path / "a.safetensors")
    assert archive.metadata.more == {"answer": "7"}
    assert archive["p"][0] == 1


def test_what_is_added_at_the_end_is_read_like_the_rest(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a.safetensors", {"p": (np.float32, (3,))}, ABOUT) as writer:
        writer.add("ids", np.arange(5, dtype=np.int32))
        writer.write("p", np.ones(3, np.float32))
        writer.add("score", np.float32([[0.5]]))
    read = load_file(tmp_path / "a.safetensors")
    assert read["ids"].tolist() == [0, 1, 2, 3, 4]
    assert read["p"].tolist() == [1, 1, 1]
    assert np.array_equal(read_archive(tmp_path / "a.safetensors")["score"], [[0.5]])


def test_more_than_the_header_has_room_for_is_an_error_and_not_a_broken_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="header"), ArchiveWriter(tmp_path / "a.safetensors", {}, ABOUT) as writer:
        writer.metadata = dataclasses.replace(ABOUT, notes=["x" * 100_000])
    assert not list(tmp_path.iterdir())


def test_an_error_on_the_way_leaves_no_file_and_the_old_archive_whole(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.safetensors", {"p": np.ones(3, np.float32)}, ABOUT)
    with pytest.raises(RuntimeError), ArchiveWriter(tmp_path / "a.safetensors", {"p": (np.float32, (3,))}, ABOUT):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert read_archive(tmp_path / "a.safetensors")["p"].sum() == 3


def test_no_room_for_the_tensors_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    too_large = {"p": (np.float32, (2**60,))}
    with pytest.raises(LabError, match="would need"), ArchiveWriter(tmp_path / "a", too_large, ABOUT):
        pass
    assert not list(tmp_path.iterdir())
    # Room that was there when it was looked for, and is gone when it is taken.
    monkeypatch.setattr("llmlab.inspection.archive.shutil.disk_usage", lambda _: SimpleNamespace(free=2**63))
    with pytest.raises(OSError, match="large"), ArchiveWriter(tmp_path / "a", too_large, ABOUT):
        pass
    assert not list(tmp_path.iterdir())


def test_half_of_a_surrogate_pair_does_not_spoil_the_header(tmp_path: Path) -> None:
    write_archive(tmp_path / "a", {"p": np.ones(3, np.float32)}, dataclasses.replace(ABOUT, model="caf\udce9"))
    assert read_archive(tmp_path / "a").metadata.model == "caf?"
    assert load_file(tmp_path / "a")["p"].sum() == 3


def test_every_cut_of_an_archive_is_refused_with_a_sentence(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.safetensors", _tensors(), ABOUT)
    whole = (tmp_path / "a.safetensors").read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(LabError) as caught:
            read_archive(tmp_path / "cut.safetensors")
        assert "cut.safetensors" in caught.value.what
        assert caught.value.do


def _with_header(path: Path, header: object) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))


@pytest.mark.parametrize(
    "header",
    [
        [],
        {},
        {"__metadata__": []},
        {"__metadata__": {"schema": "one"}},
        {"__metadata__": {"schema": "1"}},
        {"__metadata__": ABOUT.to_strings() | {"token_ids": "{}"}},
        {"__metadata__": ABOUT.to_strings(), "p": {"dtype": "F8", "shape": [1], "data_offsets": [0, 4]}},
        {"__metadata__": ABOUT.to_strings(), "p": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}},
        {"__metadata__": ABOUT.to_strings(), "p": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 4]}},
        {"__metadata__": ABOUT.to_strings(), "p": {"dtype": "F32", "shape": [1e3], "data_offsets": [0, 4]}},
        {"__metadata__": ABOUT.to_strings(), "p": {"dtype": "F32", "shape": [64], "data_offsets": [0, 256]}},
        {"__metadata__": ABOUT.to_strings(), "p": 7},
    ],
)
def test_a_foreign_or_hostile_header_is_refused_with_a_sentence(tmp_path: Path, header: object) -> None:
    _with_header(tmp_path / "h.safetensors", header)
    with pytest.raises(LabError, match=r"h\.safetensors"):
        read_archive(tmp_path / "h.safetensors")


def test_weights_are_not_taken_for_an_inspection(tmp_path: Path) -> None:
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(LabError, match="not an inspection"):
        read_archive(tmp_path / "model.safetensors")


def test_a_newer_schema_is_named_as_such(tmp_path: Path) -> None:
    _with_header(tmp_path / "n.safetensors", {"__metadata__": {"schema": "2", "anything": "else"}})
    with pytest.raises(LabError, match="newer lab"):
        read_archive(tmp_path / "n.safetensors")
