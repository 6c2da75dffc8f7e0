"""An evolution holds, step by step, what an inspection of each checkpoint gives."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import new_run, train_here

from llmlab.core.errors import Cancelled, LabError, UsageError
from llmlab.inspection.answers import answer_question
from llmlab.inspection.archive import Archive, read_archive
from llmlab.inspection.evolve import evolve
from llmlab.models import source
from llmlab.models.model import OpenModel
from llmlab.store.checkpoints import MODEL_FILE, list_checkpoints
from llmlab.store.run_folder import RunFolder

PROMPT = "the cat"
WHAT = ["attention", "heads", "residual", "contributions", "attribution", "lens"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    outputs = tmp_path_factory.mktemp("outputs")
    return train_here(new_run(outputs, 20, checkpoints__interval=5, checkpoints__keep_last=10))


@pytest.fixture
def run(trained: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy that a test may damage."""
    import shutil

    copy = tmp_path / "outputs" / "pretraining" / "run"
    shutil.copytree(trained.path, copy)
    return RunFolder(copy)


def evolved(run: RunFolder, **values: object) -> Archive:
    out = run.path.parent / "evolution"
    evolve("run", run.path.parent.parent, {"text": PROMPT} | values, out)
    return read_archive(out)


def test_every_step_is_what_a_single_inspection_gives(run: RunFolder, tmp_path: Path) -> None:
    archive = evolved(run, what=WHAT, answer=" ")
    steps = json.loads(archive.metadata.more["steps"])
    assert steps == [checkpoint.step for checkpoint in list_checkpoints(run.checkpoints)]
    assert len(steps) >= 4
    for number, step in enumerate(steps):
        opened = source.open_model(f"run@{step}", run.path.parent.parent)
        answer_question(opened, "inspect", {"text": PROMPT, "what": WHAT, "answer": " "}, tmp_path / "one")
        one = read_archive(tmp_path / "one")
        assert set(archive) == set(one)
        for name in one:
            assert archive[name].dtype == one[name].dtype
            assert np.array_equal(archive[name][number], one[name]), (step, name)
        assert json.loads(archive.metadata.more["weights"])[number] == one.metadata.weights_sha256
    assert archive.metadata.kind == "evolution"
    assert not np.array_equal(archive["heads/entropy"][0], archive["heads/entropy"][-1])


def test_all_steps_are_asked_about_the_last_ones_likeliest_token(run: RunFolder, tmp_path: Path) -> None:
    archive = evolved(run, what=["attribution"])
    text = archive.metadata.more["answer_text"]
    assert any(repr(text) in note for note in archive.metadata.notes)
    assert np.array_equal(
        archive["attribution/sum"], evolved(run, what=["attribution"], answer=text)["attribution/sum"]
    )


def test_each_second_checkpoint_counts_back_from_the_last(run: RunFolder) -> None:
    every = [checkpoint.step for checkpoint in list_checkpoints(run.checkpoints)]
    assert json.loads(evolved(run, every=2).metadata.more["steps"]) == every[::-1][::2][::-1]
    assert json.loads(evolved(run, every=99).metadata.more["steps"]) == every[-1:]


def test_a_damaged_checkpoint_is_left_out_with_a_note(run: RunFolder) -> None:
    first, second, *rest = list_checkpoints(run.checkpoints)
    path = first.path / MODEL_FILE
    path.write_bytes(path.read_bytes()[:-4] + b"\0\1\2\3")
    (second.path / "manifest.json").write_text("{")
    archive = evolved(run)
    assert json.loads(archive.metadata.more["steps"]) == [checkpoint.step for checkpoint in rest]
    notes = " ".join(archive.metadata.notes)
    assert f"Step {first.step} is left out" in notes
    assert f"{second.name} is left out" in notes


def test_a_run_without_a_good_checkpoint_is_an_error(run: RunFolder) -> None:
    for checkpoint in list_checkpoints(run.checkpoints):
        (checkpoint.path / MODEL_FILE).write_bytes(b"")
    with pytest.raises(LabError, match="No checkpoint of run"):
        evolved(run)
    assert not (run.path.parent / "evolution").exists()


def test_one_checkpoint_is_in_memory_at_a_time(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    living: list[weakref.ref[torch.nn.Module]] = []
    really = source.open_model

    def open_model(*args: object) -> OpenModel:
        assert not [model for model in living if model() is not None]
        opened = really(*args)
        living.append(weakref.ref(opened.model))
        return opened

    monkeypatch.setattr(source, "open_model", open_model)
    evolved(run, what=WHAT)
    gc.collect()
    assert len(living) >= 4
    assert not [model for model in living if model() is not None]


def test_progress_runs_once_through_all_checkpoints_and_cancels(run: RunFolder, tmp_path: Path) -> None:
    seen: list[float] = []

    def progress(what: str, done: float, total: float) -> None:
        if what.startswith("Reading"):
            seen.append(done)
            if done >= 2:
                raise Cancelled

    out = tmp_path / "out" / "evolution"
    with pytest.raises(Cancelled):
        evolve("run", run.path.parent.parent, {"text": PROMPT}, out, progress)
    assert seen == sorted(seen)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("run_named", "values", "words"),
    [
        ("run@5", {}, "one checkpoint"),
        ("nothing", {}, "no run"),
        ("run", {"every": 0}, "cannot be taken"),
        ("run", {"what": ["nose"]}, "no 'nose'"),
        ("run", {"answer": "no"}, "not one token"),
        ("run", {"step": 3}, "no 'step'"),
    ],
)
def test_wrong_questions_are_refused(run: RunFolder, run_named: str, values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        evolve(run_named, run.path.parent.parent, {"text": PROMPT} | values, run.path.parent / "evolution")
