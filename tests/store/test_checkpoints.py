"""Checkpoints are whole or absent, kept by the rule, and never lost by an error."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fakes import CancelAfter
from forks import Fork, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab.core.errors import Cancelled, LabError
from llmlab.store import checkpoints
from llmlab.store.checkpoints import (
    MANIFEST_FILE,
    MODEL_FILE,
    STATE_FILE,
    Checkpoint,
    best_of,
    clean_staging,
    commit,
    copy_into,
    delete,
    final_of,
    list_checkpoints,
    prune,
    read_checkpoint,
    select,
    set_pinned,
    verify,
)


def _writer(content: str = "x") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / MODEL_FILE).write_text(f"model {content}")
        (folder / STATE_FILE).write_text(f"state {content}")

    return write


def _save(folder: Path, step: int, *labels: str, val_loss: float | None = None, content: str = "x") -> Checkpoint:
    return commit(
        folder, step, _writer(content), labels=labels or ("periodic",), val_loss=val_loss, about={"tokens": step}
    )


def _steps(folder: Path) -> list[int]:
    return [saved.step for saved in list_checkpoints(folder)]


def _entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = _save(tmp_path, 500, "periodic", "best", val_loss=1.5)
    (found,) = list_checkpoints(tmp_path)
    assert found == saved
    assert (found.name, found.step, found.labels, found.val_loss) == ("step-00000500", 500, ("best", "periodic"), 1.5)
    assert found.bytes == len("model x") + len("state x")
    assert found.about == {"tokens": 500}
    assert not found.pinned
    assert verify(found) is None
    assert _entries(tmp_path) == ["step-00000500"]


def test_saving_a_step_again_replaces_it_and_keeps_its_pin(tmp_path: Path) -> None:
    set_pinned(_save(tmp_path, 5, content="old"), True)
    again = _save(tmp_path, 5, "final", content="new")
    assert (again.path / MODEL_FILE).read_text() == "model new"
    assert (again.labels, again.pinned, verify(again)) == (("final",), True, None)
    assert _entries(tmp_path) == ["step-00000005"]


def _failing(step: str) -> Any:
    """A full disk at one moment of a commit."""
    full = OSError(errno.ENOSPC, "No space left on device")
    return mock.patch.object(checkpoints, step, side_effect=full)


@pytest.mark.parametrize("moment", ["fsync_file", "sha256_of", "write_json", "fsync_folder"])
def test_an_error_at_any_moment_of_saving_leaves_what_was_there(tmp_path: Path, moment: str) -> None:
    _save(tmp_path, 5, content="old")
    for step in (5, 6):
        with _failing(moment), pytest.raises(OSError, match="No space"):
            _save(tmp_path, step, content="new")
        (kept,) = [saved for saved in list_checkpoints(tmp_path) if saved.step == 5]
        assert verify(kept) is None
        assert not list(tmp_path.glob(".tmp-*"))


def test_a_write_that_stops_halfway_leaves_what_was_there(tmp_path: Path) -> None:
    _save(tmp_path, 5, content="old")

    def half(folder: Path) -> None:
        (folder / MODEL_FILE).write_text("mod")
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in (5, 6):
        with pytest.raises(OSError, match="No space"):
            commit(tmp_path, step, half, labels=(), val_loss=None, about={})
    assert _entries(tmp_path) == ["step-00000005"]
    assert (tmp_path / "step-00000005" / MODEL_FILE).read_text() == "model old"


def test_a_rename_that_fails_puts_the_old_checkpoint_back(tmp_path: Path) -> None:
    _save(tmp_path, 5, content="old")
    plain = checkpoints.os.replace

    def replace(source: Path, target: Path) -> None:
        if source.name.startswith(".tmp-step"):
            raise OSError(errno.EIO, "Input/output error")
        plain(source, target)

    with mock.patch.object(checkpoints.os, "replace", replace), pytest.raises(OSError, match="Input/output"):
        _save(tmp_path, 5, content="new")
    (kept,) = list_checkpoints(tmp_path)
    assert verify(kept) is None
    assert (kept.path / MODEL_FILE).read_text() == "model old"


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _save(tmp_path / "deleted run" / "checkpoints", 5)
    assert list(tmp_path.iterdir()) == []


def _save_forever(folder: Path) -> int:
    step = 0
    while True:
        step += 1
        # Every second save replaces a step that is there already.
        _save(folder, step // 2, content=f"{step // 2} " * 500)
        prune(folder, 3, checkpoints.checkpoint_name(step // 2))


@pytest.mark.slow
def test_a_kill_at_any_moment_of_saving_leaves_checkpoints_that_verify(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    _save(folder, 0)
    interrupted = 0
    for _ in range(12):
        newest = _steps(folder)[-1]
        child = Fork(lambda: _save_forever(folder))
        wait_until(lambda newest=newest: bool(list(folder.glob(".tmp-*"))))
        child.kill()
        interrupted += bool(list(folder.glob(".tmp-*")))
        clean_staging(folder)
        saved = list_checkpoints(folder)
        assert saved
        assert [verify(checkpoint) for checkpoint in saved] == [None] * len(saved)
        for checkpoint in saved[1:]:
            assert (checkpoint.path / MODEL_FILE).read_text().split()[1] == str(checkpoint.step)
        assert all(name.startswith("step-") for name in _entries(folder))
        shutil.rmtree(folder)
        folder.mkdir()
        _save(folder, 0)
    assert interrupted > 2  # most kills did hit a save


@pytest.mark.parametrize("replacing", [True, False])
def test_cleaning_puts_back_what_was_moved_aside_and_not_replaced(tmp_path: Path, replacing: bool) -> None:
    saved = _save(tmp_path, 7)
    aside = tmp_path / ".tmp-old-step-00000007-0123abcd"
    if replacing:
        shutil.copytree(saved.path, aside)
    else:
        saved.path.rename(aside)
    (tmp_path / ".tmp-step-00000008-89efab01").mkdir()
    (tmp_path / ".tmp-deleted-step-00000001-89efab01").mkdir()
    clean_staging(tmp_path)
    assert _entries(tmp_path) == ["step-00000007"]
    assert verify(list_checkpoints(tmp_path)[0]) is None


def test_deleting_takes_a_checkpoint_out_of_sight_at_once(tmp_path: Path) -> None:
    saved = _save(tmp_path, 7)
    with mock.patch.object(checkpoints.shutil, "rmtree"):  # killed before its bytes are gone
        delete(saved)
    assert list_checkpoints(tmp_path) == []
    clean_staging(tmp_path)
    assert _entries(tmp_path) == []


def _damage(name: str, how: Callable[[bytes], bytes | None]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        content = how((folder / name).read_bytes())
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)

    return act


@pytest.mark.parametrize("name", [MODEL_FILE, STATE_FILE])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda data: data[:-1], "bytes instead of"),
        (lambda data: data + b"x", "bytes instead of"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "sha256 differs"),
        (lambda data: b"", "bytes instead of"),
        (lambda data: None, "lacks"),
    ],
)
def test_a_changed_file_is_found_and_named(
    tmp_path: Path, name: str, how: Callable[[bytes], bytes | None], said: str
) -> None:
    saved = _save(tmp_path, 7)
    _damage(name, how)(saved.path)
    problem = verify(saved)
    assert problem is not None
    assert name in problem
    assert said in problem


@settings(max_examples=120)
@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_bit_flipped_anywhere_in_a_manifest_is_noticed(where: float, bit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        saved = _save(Path(folder), 500, "best", val_loss=1.5)
        path = saved.path / MANIFEST_FILE
        content = bytearray(path.read_bytes())
        before = json.loads(content)
        content[int(where * len(content))] ^= 1 << bit
        path.write_bytes(content)
        found = read_checkpoint(saved.path)
        assert found is None or verify(found) is not None or json.loads(content) == before


def test_a_manifest_that_was_changed_is_named_and_its_checkpoint_never_pruned(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        _save(tmp_path, step, val_loss=float(step))
    changed = tmp_path / "step-00000001" / MANIFEST_FILE
    changed.write_text(changed.read_text().replace('"val_loss": 1.0', '"val_loss": 9.0'))
    first = list_checkpoints(tmp_path)[0]
    assert verify(first) == "manifest.json of step-00000001 is not what was saved: its sha256 is another."
    assert prune(tmp_path, 1, "step-00000003") == []
    assert _steps(tmp_path) == [1, 2, 3]


def test_a_manifest_of_an_earlier_version_that_has_no_hash_of_its_own_is_good(tmp_path: Path) -> None:
    saved = _save(tmp_path, 1)
    manifest = json.loads((saved.path / MANIFEST_FILE).read_text())
    del manifest["sha256"]
    (saved.path / MANIFEST_FILE).write_text(json.dumps(manifest))
    assert verify(list_checkpoints(tmp_path)[0]) is None


def test_a_file_that_cannot_be_read_is_a_problem_and_not_an_error(tmp_path: Path) -> None:
    saved = _save(tmp_path, 7)
    with mock.patch.object(checkpoints, "sha256_of", side_effect=OSError(errno.EIO, "Input/output error")):
        assert "Input/output error" in (verify(saved) or "")
    shutil.rmtree(saved.path)
    assert "lacks" in (verify(saved) or "")


def _with_manifest(folder: Path, **changes: Any) -> Path:
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest | changes))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"step": "many"},
        {"step": None},
        {"step": float("inf")},
        {"step": float("nan")},
        {"step": -3},
        {"step": 8},
        {"labels": 5},
        {"val_loss": "low"},
        {"val_loss": float("nan")},
        {"time": []},
        {"time": 10**400},
        {"files": []},
        {"files": {MODEL_FILE: 7}},
        {"files": {MODEL_FILE: {"bytes": float("inf")}}},
        {"about": 3},
    ],
)
def test_a_manifest_that_makes_no_sense_counts_as_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    saved = _save(tmp_path, 7)
    _with_manifest(saved.path, **changes)
    assert list_checkpoints(tmp_path) == []
    assert checkpoints.unreadable(tmp_path) == ["step-00000007"]


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, None])
def test_a_manifest_that_cannot_be_read_counts_as_none(tmp_path: Path, manifest: bytes | None) -> None:
    saved = _save(tmp_path, 7)
    if manifest is None:
        (saved.path / MANIFEST_FILE).unlink()
    else:
        (saved.path / MANIFEST_FILE).write_bytes(manifest)
    assert list_checkpoints(tmp_path) == []
    assert checkpoints.unreadable(tmp_path) == ["step-00000007"]


@pytest.mark.parametrize("newer", [99, "9", None])
def test_a_checkpoint_of_a_later_format_is_a_problem(tmp_path: Path, newer: Any) -> None:
    saved = _save(tmp_path, 7)
    _with_manifest(saved.path, format=newer)
    assert verify(saved) is not None


def test_what_is_no_checkpoint_is_left_out(tmp_path: Path) -> None:
    _save(tmp_path, 7)
    (tmp_path / "step-notes.txt").write_text("mine")
    (tmp_path / "notes").mkdir()
    (tmp_path / "step-notes").mkdir()
    (tmp_path / ".tmp-step-00000009-0123abcd").mkdir()
    assert _steps(tmp_path) == [7]
    assert checkpoints.unreadable(tmp_path) == []
    assert list_checkpoints(tmp_path / "gone") == []
    assert checkpoints.unreadable(tmp_path / "gone") == []


def test_names_select_the_checkpoints_that_they_say(tmp_path: Path) -> None:
    for step, labels, loss in (
        (5, ("periodic",), 2.0),
        (10, ("best",), 1.0),
        (15, ("final",), 1.5),
        (20, ("stopped",), None),
    ):
        _save(tmp_path, step, *labels, val_loss=loss)
    chosen = {which: select(tmp_path, which).step for which in ("latest", "best", "final", "5", "005")}
    assert chosen == {"latest": 20, "best": 10, "final": 15, "5": 5, "005": 5}
    for missing in ("6", "first", "-5", "²", ""):
        with pytest.raises(LabError, match="5, 10, 15, 20"):
            select(tmp_path, missing)


def test_a_copy_is_whole_and_its_own(tmp_path: Path) -> None:
    saved = _save(tmp_path / "a", 7, val_loss=1.0) if (tmp_path / "a").mkdir() is None else None
    assert saved is not None
    (tmp_path / "b").mkdir()
    copy = copy_into(tmp_path / "b", saved, labels=("branch",))
    shutil.rmtree(tmp_path / "a")
    assert (copy.step, copy.labels, copy.val_loss, copy.about) == (7, ("branch",), 1.0, {"tokens": 7})
    assert verify(copy) is None


_SAVES = st.lists(
    st.tuples(
        st.frozensets(
            st.sampled_from(["periodic", "spaced", "best", "final", "requested", "stopped", "branch"]), min_size=1
        ),
        st.one_of(st.none(), st.integers(1, 5).map(float)),
        st.booleans(),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=40)
@given(_SAVES, st.integers(0, 4))
def test_the_keep_rule_keeps_last_best_final_pinned_and_what_was_asked_for(
    saves: list[tuple[frozenset[str], float | None, bool]], keep_last: int
) -> None:
    with tempfile.TemporaryDirectory() as name, mock.patch("os.fsync"):  # no power is cut here
        folder = Path(name)
        for step, (labels, loss, pinned) in enumerate(saves):
            set_pinned(_save(folder, step, *labels, val_loss=loss), pinned)
        newest = len(saves) - 1
        deleted = prune(folder, keep_last, checkpoints.checkpoint_name(newest))
        expected = {newest}
        expected |= {step for step, (_, _, pinned) in enumerate(saves) if pinned}
        expected |= {step for step, (labels, _, _) in enumerate(saves) if labels & {"spaced", "requested", "branch"}}
        finals = [step for step, (labels, _, _) in enumerate(saves) if "final" in labels]
        expected |= set(finals[-1:])
        measured = [(loss, step) for step, (_, loss, _) in enumerate(saves) if loss is not None]
        expected |= {min(measured)[1]} if measured else set()
        periodic = [step for step, (labels, _, _) in enumerate(saves) if "periodic" in labels or step in finals[:-1]]
        expected |= set(periodic[len(periodic) - keep_last :] if keep_last < len(periodic) else periodic)
        assert _steps(folder) == sorted(expected)
        assert deleted == [checkpoints.checkpoint_name(step) for step in range(len(saves)) if step not in expected]


def test_the_hashing_of_a_checkpoint_can_be_cancelled(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        verify(_save(tmp_path, 1), CancelAfter(1))


def test_nothing_is_deleted_when_the_new_checkpoint_is_not_what_was_saved(tmp_path: Path) -> None:
    for step in range(4):
        _save(tmp_path, step)
    (tmp_path / "step-00000003" / MODEL_FILE).write_text("model y")
    assert prune(tmp_path, 1, "step-00000003") == []
    assert prune(tmp_path, 1, "step-00000009") == []
    assert _steps(tmp_path) == [0, 1, 2, 3]


def test_what_someone_pins_or_deletes_while_the_new_one_is_verified_is_respected(tmp_path: Path) -> None:
    old = [_save(tmp_path, step) for step in range(4)]

    def meanwhile(checkpoint: Checkpoint) -> None:
        set_pinned(old[0], True)
        delete(old[1])

    with mock.patch.object(checkpoints, "verify", side_effect=meanwhile):
        assert prune(tmp_path, 1, "step-00000003") == ["step-00000002"]
    assert _steps(tmp_path) == [0, 3]


def test_a_checkpoint_that_vanishes_just_before_it_is_pruned_is_no_error(tmp_path: Path) -> None:
    for step in range(3):
        _save(tmp_path, step)
    plain = checkpoints.delete

    def delete_twice(checkpoint: Checkpoint) -> None:
        plain(checkpoint)  # someone in the window was faster
        plain(checkpoint)

    with mock.patch.object(checkpoints, "delete", delete_twice):
        prune(tmp_path, 1, "step-00000002")
    assert _steps(tmp_path) == [2]


def test_the_best_is_the_lowest_loss_among_those_that_know_theirs(tmp_path: Path) -> None:
    for step, loss in enumerate((None, 2.0, 0.0, 1.0)):
        _save(tmp_path, step, val_loss=loss)
    best = best_of(list_checkpoints(tmp_path))
    assert best is not None
    assert best.step == 2
    assert best_of([]) is None
    assert final_of(list_checkpoints(tmp_path)) is None
