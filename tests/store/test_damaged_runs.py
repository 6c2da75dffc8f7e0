"""Damaged and hostile run folders: the older checkpoint is used and it is said, or a sentence ends it; nothing runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kills import differences, events_of
from small_runs import all_events, kill_in_step, new_run, train_here

from llmlab.cli.main import main
from llmlab.core.errors import LabError
from llmlab.core.files import sha256_of
from llmlab.jobs import worker
from llmlab.jobs.launcher import prepare_resume
from llmlab.models.scratch import open_checkpoint
from llmlab.store.checkpoints import MANIFEST_FILE, MODEL_FILE, STATE_FILE, list_checkpoints, sealed, select
from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder

STEPS = 14  # checkpoints at 5, 10, 14
_KEPT = {"checkpoints__keep_last": 9, "checkpoints__best": False, "train__sample_interval": 7}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that nobody disturbed."""
    return train_here(new_run(tmp_path_factory.mktemp("alone"), STEPS, "run", **_KEPT))


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same run, killed after step 12."""
    run = new_run(tmp_path_factory.mktemp("half"), STEPS, "run", **_KEPT)
    kill_in_step(run, 13)
    return run


@pytest.fixture
def run(half: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of `half`, to be damaged."""
    return RunFolder(Path(shutil.copytree(half.path, tmp_path / "outputs" / "pretraining" / "run")))


def _reseal(folder: Path) -> None:
    """Makes a checkpoint's manifest fit whatever its files are now."""
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    for name in (MODEL_FILE, STATE_FILE):
        path = folder / name
        manifest["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    (folder / MANIFEST_FILE).write_text(json.dumps(sealed(manifest)))


def _shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


class _Touch:
    """Unpickled, it makes a file: code that a stranger would run here."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def _reseal_after(act: Callable[[Path], None]) -> Callable[[Path], None]:
    def both(folder: Path) -> None:
        act(folder)
        _reseal(folder)

    return both


def _with_state(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        state = torch.load(folder / STATE_FILE, weights_only=True)
        change(state)
        torch.save(state, folder / STATE_FILE)
        _reseal(folder)

    return act


def _header(header: bytes, length: int | None = None) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        (folder / MODEL_FILE).write_bytes(struct.pack("<Q", len(header) if length is None else length) + header)
        _reseal(folder)

    return act


_BEYOND = json.dumps({"token_embedding.weight": {"dtype": "F32", "shape": [70, 16], "data_offsets": [0, 10**15]}})
_HUGE = json.dumps({"token_embedding.weight": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}})

DAMAGE: dict[str, Callable[[Path], None]] = {
    "model cut": lambda folder: _shorten(folder / MODEL_FILE),
    "model flipped": lambda folder: _flip_a_bit(folder / MODEL_FILE),
    "model gone": lambda folder: (folder / MODEL_FILE).unlink(),
    "state cut": lambda folder: _shorten(folder / STATE_FILE),
    "state flipped": lambda folder: _flip_a_bit(folder / STATE_FILE),
    "state gone": lambda folder: (folder / STATE_FILE).unlink(),
    "manifest empty": lambda folder: (folder / MANIFEST_FILE).write_bytes(b""),
    "manifest gone": lambda folder: (folder / MANIFEST_FILE).unlink(),
    "manifest of another step": lambda folder: (folder / MANIFEST_FILE).write_bytes(
        (folder.with_name("step-00000005") / MANIFEST_FILE).read_bytes()
    ),
    "all files gone": lambda folder: [path.unlink() for path in folder.iterdir()],
    "resealed model cut": _reseal_after(lambda folder: _shorten(folder / MODEL_FILE)),
    "resealed state cut": _reseal_after(lambda folder: _shorten(folder / STATE_FILE)),
    "resealed state empty": _reseal_after(lambda folder: (folder / STATE_FILE).write_bytes(b"")),
    "header of a petabyte": _header(b"{}", 2**50),
    "header that is no json": _header(b"x" * 40),
    "header without tensors": _header(b"{}"),
    "tensor beyond the file": _header(_BEYOND.encode()),
    "tensor of a yottabyte": _header(_HUGE.encode()),
    "header nested deep": _header(b'{"a":' * 50_000),
    "state of another step": _with_state(lambda state: state["progress"].update(step=7)),
    "state without progress": _with_state(lambda state: state.pop("progress")),
    "step that is text": _with_state(lambda state: state["progress"].update(step="ten")),
    "seconds that are a list": _with_state(lambda state: state["progress"].update(active_seconds=[1])),
    "origin that is text": _with_state(lambda state: state.update(origin="here")),
    "position that is text": _with_state(lambda state: state.update(events_bytes="many")),
    "format that is text": _with_state(lambda state: state.update(format="new")),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_newest_checkpoint_is_passed_over_for_the_older_and_it_is_said(
    run: RunFolder, alone: RunFolder, damage: Callable[[Path], None]
) -> None:
    damage(run.checkpoints / "step-00000010")
    train_here(run)
    assert events_of(run, "started")[-1]["step"] == 5
    (warning,) = events_of(run, "warned")
    assert "step-00000010" in warning["message"]
    assert warning["message"].endswith("It is passed over.")
    assert differences(alone, run) == []
    assert [event["step"] for event in events_of(run, "step")] == list(range(1, STEPS + 1))
    assert select(run.checkpoints, "10").step == 10  # saved anew in its place


@pytest.mark.parametrize("name", ["model flipped", "state cut", "manifest empty", "manifest gone", "all files gone"])
def test_when_all_are_damaged_a_sentence_says_so_and_nothing_is_lost(run: RunFolder, name: str) -> None:
    before = run.events.read_bytes()
    for folder in sorted(run.checkpoints.iterdir()):
        DAMAGE[name](folder)
    with pytest.raises(LabError, match="No checkpoint of run can be used") as refused:
        train_here(run)
    assert "step-00000005" in refused.value.why
    assert "step-00000010" in refused.value.why
    assert run.events.read_bytes().startswith(before)
    assert all_events(run)[-1]["event"] == "failed"
    assert run.status().state == "failed"
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-00000005", "step-00000010"]


@pytest.mark.parametrize("file", [MODEL_FILE, STATE_FILE])
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_in_a_checkpoint_whose_manifest_fits_is_never_run(
    run: RunFolder, tmp_path: Path, file: str, how: str
) -> None:
    witness = tmp_path / "witness"
    for folder in run.checkpoints.iterdir():
        if how == "torch":
            torch.save({"format": 1, "progress": _Touch(witness)}, folder / file)
        else:
            (folder / file).write_bytes(pickle.dumps(_Touch(witness), protocol=2))
        _reseal(folder)
    with pytest.raises(LabError, match="No checkpoint of run can be used") as refused:
        train_here(run)
    assert not witness.exists()
    if file == STATE_FILE:
        assert "nothing in it was run" in refused.value.why
    else:
        with pytest.raises(LabError):
            open_checkpoint(run, select(run.checkpoints))
    for words in (["inspect", "latest"], ["verify"], ["list"]):
        main(["checkpoints", str(run.path), *words])
    main(["generate", str(run.path), "--tokens", "1"])
    main(["export", str(run.path), "--out", str(tmp_path / "hf")])
    assert not witness.exists()
    pickle.loads(pickle.dumps(_Touch(witness)))  # it would have
    assert witness.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(optimizer=[1, 2]),
        lambda state: state["optimizer"].popitem()[1].clear() or state["optimizer"].update(strange={}),
        lambda state: next(iter(state["optimizer"].values())).update(exp_avg=torch.zeros(3)),
        lambda state: next(iter(state["optimizer"].values())).update(exp_avg="zeros"),
        lambda state: state.update(random={}),
        lambda state: state["random"].update(torch=torch.zeros(3)),
        lambda state: state["random"].update(python=[3, [1, 2], None]),
        lambda state: state["random"].update(numpy=["MT19937", torch.zeros(2), 0, 0, 0.0]),
    ],
)
def test_a_state_that_does_not_fit_the_model_ends_in_a_sentence(
    run: RunFolder, change: Callable[[dict[str, Any]], Any]
) -> None:
    _with_state(change)(run.checkpoints / "step-00000010")
    saved = [checkpoint.name for checkpoint in list_checkpoints(run.checkpoints)]
    with pytest.raises(LabError, match="training state does not fit this model"):
        train_here(run)
    assert [checkpoint.name for checkpoint in list_checkpoints(run.checkpoints)] == saved


def _with_run_json(run: RunFolder, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(run.run_json.read_text())
    change(values)
    run.run_json.write_text(json.dumps(values))


HOSTILE_RUN_JSON: dict[str, Callable[[dict[str, Any]], Any]] = {
    "settings gone": lambda values: values.pop("settings"),
    "settings a number": lambda values: values.update(settings=5),
    "settings a list": lambda values: values.update(settings=[1]),
    "section a number": lambda values: values["settings"].update(train=5),
    "steps text": lambda values: values["settings"]["train"].update(steps="many"),
    "steps huge": lambda values: values["settings"]["train"].update(steps=10**30),
    "steps infinite": lambda values: values["settings"]["train"].update(steps=float("inf")),
    "width negative": lambda values: values["settings"]["model"].update(n_embd=-128),
    "choice unknown": lambda values: values["settings"]["model"].update(norm="batchnorm"),
    "prompts nested": lambda values: values["settings"]["samples"].update(prompts=[[["x"]]]),
    "unknown setting": lambda values: values["settings"]["train"].update(rm=1),
    "format text": lambda values: values.update(format="newest"),
    "format null": lambda values: values.update(format=None),
    "format later": lambda values: values.update(format=99),
    "created text": lambda values: values.update(created="yesterday"),
    "created gone": lambda values: values.pop("created"),
    "threads text": lambda values: values.update(threads="all"),
    "watched a list": lambda values: values.update(watched=[1]),
    "parent a number": lambda values: values.update(parent=5),
    "preset a mapping": lambda values: values.update(preset={"a": 1}),
    "versions nested": lambda values: values.update(versions={"torch": [1]}),
    "predictions text": lambda values: values.update(predictions="high"),
}


@pytest.mark.parametrize("change", HOSTILE_RUN_JSON.values(), ids=HOSTILE_RUN_JSON.keys())
def test_a_run_json_that_makes_no_sense_ends_in_a_sentence_everywhere(
    run: RunFolder, change: Callable[[dict[str, Any]], Any], capfd: pytest.CaptureFixture[str]
) -> None:
    _with_run_json(run, change)
    with pytest.raises(LabError, match="run"):
        run.info()
    capfd.readouterr()
    assert worker.main([str(run.path)]) == 1
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "run" in said
    for act in (lambda: prepare_resume(run, {}), lambda: train_here(run)):
        with pytest.raises(LabError):
            act()
    assert [listed.id for listed in list_runs(run.path.parents[1])] == ["run"]
    for words in (["runs"], ["show", str(run.path)], ["resume", str(run.path)]):
        main([*words, "--outputs", str(run.path.parents[1])])
        assert "Traceback" not in capfd.readouterr().err
    assert len(list_checkpoints(run.checkpoints)) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b"[" * 100_000, b'{"format": 1}'])
def test_a_run_json_that_cannot_be_read_ends_in_a_sentence(run: RunFolder, content: bytes) -> None:
    run.run_json.write_bytes(content)
    with pytest.raises(LabError):
        run.info()
    assert worker.main([str(run.path)]) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"state": 5}',
        b'{"state": "running", "pid": "me", "pid_start": "now"}',
        b'{"state": "running", "pid": 1e300, "pid_start": 0}',
        b'{"state": "running", "pid": 99999999999999999999999, "pid_start": 0.0}',
        b'{"state": "running", "pid": -1, "pid_start": 0.0}',
        b'{"state": "paused", "step": "ten"}',
        b'{"state": "running", "step": NaN, "attempt": [1]}',
        b'{"state": "queued", "heartbeat": "now"}',
        b'{"state": "queued", "heartbeat": NaN}',
        b'{"state": "no such state", "error": "bad"}',
        b'{"attempt": "x", "events_start": -5}',
    ],
)
def test_a_damaged_status_counts_as_interrupted_and_the_run_goes_on(
    run: RunFolder, alone: RunFolder, content: bytes
) -> None:
    run.status_json.write_bytes(content)
    assert run.status().state in ("interrupted", "no such state")
    assert prepare_resume(run, {}) == []
    train_here(run)
    assert run.status().state == "finished"
    assert differences(alone, run) == []


@pytest.mark.parametrize(
    "content",
    [
        *(None, b"{", b"[]", b"{}", b'{"kind": "char"}', b'{"kind": "char", "characters": 5}', b'{"kind": ["char"]}'),
        *(b'{"kind": "bpe", "merges": ["a"]}', b'{"kind": "bpe", "merges": [["a", "b"]]}'),
        *(b'{"kind": "compact", "gpt2_ids": ["x"]}', b'{"kind": "compact", "gpt2_ids": [999999999, -4]}'),
        *(b'{"kind": "gpt2"}', b'{"kind": "char", "characters": "abc"}'),
    ],
)
def test_a_damaged_tokenizer_ends_in_a_sentence(run: RunFolder, content: bytes | None) -> None:
    run.tokenizer_json.unlink() if content is None else run.tokenizer_json.write_bytes(content)
    with pytest.raises(LabError):
        open_checkpoint(run, select(run.checkpoints)).tokenizer.encode("text")


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"model": 5, "vocab_size": 70},
        {"model": {"n_layer": "x"}, "vocab_size": 70},
        {"model": {"n_embd": 16384, "n_layer": 200, "n_head": 1}, "vocab_size": 10**9},
        {"model": {"n_embd": 16384, "n_layer": 2, "n_head": 1}, "vocab_size": 70},
        {"vocab_size": -3},
        {"vocab_size": "x"},
        {"vocab_size": 10**12},
        {"vocab_size": 71},
        {"vocab_size": float("inf")},
    ],
)
def test_a_description_that_does_not_fit_the_weights_ends_in_a_sentence_before_memory_is_taken(
    run: RunFolder, about: dict[str, Any]
) -> None:
    folder = run.checkpoints / "step-00000010"
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["about"] = (manifest["about"] | about) if about else {}
    (folder / MANIFEST_FILE).write_text(json.dumps(sealed(manifest)))
    with pytest.raises(LabError):
        open_checkpoint(run, select(run.checkpoints))


def test_weights_of_another_model_are_refused_by_name(run: RunFolder, tmp_path: Path) -> None:
    other = train_here(new_run(tmp_path / "other", 2, model__n_embd=32))
    for folder in run.checkpoints.iterdir():
        shutil.copy(select(other.checkpoints).path / MODEL_FILE, folder / MODEL_FILE)
        _reseal(folder)
    with pytest.raises(LabError, match="do not fit this model") as refused:
        train_here(run)
    assert "size mismatch" in refused.value.why
