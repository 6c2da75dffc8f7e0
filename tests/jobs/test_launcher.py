"""Making runs, changing them, and finding them by the names that people give."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from small_runs import new_run, quick_settings, train_here

from llmlab.core.config import with_values
from llmlab.core.errors import LabError, UsageError
from llmlab.jobs.launcher import create_run, prepare_resume, request, require_name, start_worker
from llmlab.store.checkpoints import MODEL_FILE, list_checkpoints, select
from llmlab.store.registry import list_runs, resolve_run
from llmlab.store.run_folder import RunFolder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of 10 steps with checkpoints at 5 and 10."""
    return train_here(new_run(tmp_path_factory.mktemp("launcher"), 10, "bar", checkpoints__best=False))


def test_a_new_run_is_queued_and_remembers_what_was_asked(outputs: Path) -> None:
    settings = quick_settings(7)
    run = create_run(outputs, settings, name="x", preset="baby", watched=True)
    info = RunFolder(outputs / "pretraining" / "x").info()
    assert (info.id, info.track, info.settings, info.preset, info.watched) == (
        "x",
        "pretraining",
        settings,
        "baby",
        True,
    )
    assert (run.status().state, run.status().words, run.status().steps) == ("queued", "starting", 7)
    assert info.parent is None


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/b",
        "a\\b",
        "",
        ".",
        "..",
        ".hidden",
        "-rf",
        "a b",
        "a\n",
        "a\0b",
        "x" * 101,
        "é",
        "run@final",
        "~",
        "/tmp/x",
    ],
)
def test_a_name_that_could_leave_its_folder_or_confuse_a_shell_is_refused(outputs: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a run's name") as refused:
        create_run(outputs, quick_settings(), name=name)
    assert len(max(str(refused.value).split(), key=len)) < 50  # a form would be as wide as one word
    assert list(outputs.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("née", "'é' is not allowed: use a to z"),
        ("a b", "' ' is not allowed: use"),
        ("-a", "'-' is not allowed at the start: use"),
        ("", "Use a to z"),
        ("x" * 101, "Use a to z, A to Z, digits and . _ + -, at most 100 of them"),
    ],
)
def test_a_refused_name_says_which_character_is_wrong(name: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        require_name(name, "a run", 100)
    assert refused.value.why.startswith(said)


@pytest.mark.parametrize("name", ["a", "7", "My.run_2+x-y", "x" * 100])
def test_ordinary_names_are_taken(outputs: Path, name: str) -> None:
    assert create_run(outputs, quick_settings(), name=name).path.parent == outputs / "pretraining"


def test_a_taken_name_is_refused_and_the_run_that_has_it_is_left_alone(outputs: Path) -> None:
    first = new_run(outputs, 5, "x")
    before = {path: path.read_bytes() for path in first.path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="already there"):
        new_run(outputs, 6, "x")
    assert {path: path.read_bytes() for path in first.path.rglob("*") if path.is_file()} == before


def test_runs_without_a_name_never_collide(outputs: Path) -> None:
    runs = [create_run(outputs, quick_settings(), preset="baby") for _ in range(4)]
    assert len({run.id for run in runs}) == 4
    assert all("-baby-tiny" in run.id for run in runs)


@pytest.mark.parametrize(
    "change",
    [
        {"model.n_layer": 2},
        {"model.n_embd": 32},
        {"model.norm": "rmsnorm"},
        {"model.bias": True},
        {"model.vocab_multiple": 64},
        {"data.tokenizer": "gpt2"},
    ],
)
def test_what_would_make_the_checkpoints_useless_cannot_change(
    finished: RunFolder, outputs: Path, change: dict[str, Any]
) -> None:
    (key,) = change
    before = finished.run_json.read_bytes()
    with pytest.raises(UsageError, match=f"{key} cannot change"):
        prepare_resume(finished, change | {"train.steps": 20})
    settings = with_values(finished.info().settings, change | {"train.steps": 20})
    with pytest.raises(UsageError, match=f"{key} cannot change"):
        create_run(outputs, settings, name="branch", parent=(finished, select(finished.checkpoints)))
    assert finished.run_json.read_bytes() == before
    assert list(outputs.iterdir()) == []


def test_a_finished_run_has_nothing_to_resume_until_it_gets_more_steps(finished: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(finished.path, tmp_path / "copy")))
    with pytest.raises(UsageError, match=r"all 10 steps are done.*--steps 20"):
        prepare_resume(run, {})
    assert prepare_resume(run, {"train.steps": "12"}) == [
        "train.steps: 10 -> 12; from here on the run differs from one left alone."
    ]
    assert run.info().settings.train.steps == 12
    assert prepare_resume(run, {"train.steps": 12}) == []


def test_a_run_cannot_be_resumed_for_fewer_steps_than_it_has_saved(finished: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(finished.path, tmp_path / "copy"))
    before, saved = run.info(), list_checkpoints(run.checkpoints)[-1].step
    with pytest.raises(UsageError, match=f"cannot end at step {saved - 1}: it has saved step {saved}"):
        prepare_resume(run, {"train.steps": saved - 1})
    assert run.info() == before


def test_an_unknown_setting_changes_nothing(finished: RunFolder) -> None:
    before = finished.run_json.read_bytes()
    with pytest.raises(UsageError, match=r"Did you mean train\.steps"):
        prepare_resume(finished, {"train.step": 20})
    assert finished.run_json.read_bytes() == before


def test_a_branch_stands_where_it_departed_before_its_worker_is_there(finished: RunFolder, outputs: Path) -> None:
    settings = with_values(finished.info().settings, {"train.steps": 20})
    branch = create_run(outputs, settings, name="branch", parent=(finished, select(finished.checkpoints)))
    status = branch.recorded_status()
    assert (status.state, status.step, status.steps) == ("queued", 10, 20)


def test_a_branch_with_nothing_left_to_do_is_refused(finished: RunFolder, outputs: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing to do.*--steps 20"):
        create_run(outputs, finished.info().settings, name="b", parent=(finished, select(finished.checkpoints, "10")))
    assert list(outputs.iterdir()) == []


def test_a_branch_from_a_damaged_checkpoint_is_refused_and_leaves_nothing(
    finished: RunFolder, outputs: Path, tmp_path: Path
) -> None:
    parent = RunFolder(Path(shutil.copytree(finished.path, tmp_path / "copy")))
    begin = select(parent.checkpoints, "5")
    with (begin.path / MODEL_FILE).open("ab") as file:
        file.write(b"x")
    settings = with_values(parent.info().settings, {"train.steps": 30})
    with pytest.raises(LabError, match="A branch cannot begin"):
        create_run(outputs, settings, name="b", parent=(parent, begin))
    assert list(outputs.iterdir()) == []


def test_a_text_keeps_the_absolute_path_that_was_given_so_that_branches_have_it(outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "mine.txt").write_text("A text of my own. " * 200)
    (tmp_path / "link").symlink_to(tmp_path / "texts")
    given = str(tmp_path / "link" / "mine.txt")
    parent = train_here(new_run(outputs, 4, "parent", data__corpus=given))
    settings = with_values(parent.info().settings, {"train.steps": 8})
    branch = create_run(outputs, settings, name="branch", parent=(parent, select(parent.checkpoints)))
    assert parent.info().settings.data.corpus == branch.info().settings.data.corpus == given


def test_a_branch_whose_parent_vanishes_meanwhile_leaves_nothing(
    finished: RunFolder, outputs: Path, tmp_path: Path
) -> None:
    parent = RunFolder(Path(shutil.copytree(finished.path, tmp_path / "copy")))
    begin = select(parent.checkpoints, "5")
    settings = parent.info().settings

    def vanish(*_: Any) -> None:
        shutil.rmtree(begin.path)

    with (
        mock.patch("llmlab.jobs.launcher.verify", side_effect=vanish),
        pytest.raises(LabError, match="could not be made"),
    ):
        create_run(outputs, settings, name="b", parent=(parent, begin))
    assert list((outputs / "pretraining").iterdir()) == []


def test_a_worker_that_cannot_be_started_is_a_sentence(outputs: Path) -> None:
    run = new_run(outputs)
    with (
        mock.patch("llmlab.jobs.launcher.subprocess.Popen", side_effect=OSError(12, "Cannot allocate memory")),
        pytest.raises(LabError, match=r"could not be started\. .*Cannot allocate memory"),
    ):
        start_worker(run)


def test_a_shell_that_is_part_of_another_job_trains_runs_as_any_other(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "4"), ("TORCHELASTIC_RUN_ID", "its")):
        monkeypatch.setenv(name, value)
    run = new_run(outputs, 2)
    assert start_worker(run).wait() == 0
    assert run.status().state == "finished"


def test_a_request_to_a_run_that_does_not_train_is_a_sentence(finished: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"bar is not running \(it is finished"):
        request(finished, "pause")
    with pytest.raises(LabError, match="not running"):
        request(RunFolder(tmp_path / "gone"), "pause")
    assert not (tmp_path / "gone").exists()


def test_runs_are_listed_newest_first_and_foreign_folders_left_out(outputs: Path) -> None:
    for number, name in enumerate(("a", "b", "c")):
        run = new_run(outputs, name=name)
        os.utime(run.run_json, (1e9 + number, 1e9 + number))
    (outputs / "pretraining" / "empty").mkdir()
    (outputs / "pretraining" / "file").write_text("x")
    (outputs / "notes.txt").write_text("x")
    (outputs / ".hidden" / "x").mkdir(parents=True)
    assert [run.id for run in list_runs(outputs)] == ["c", "b", "a"]
    assert list_runs(outputs / "nowhere") == []


def test_a_folder_that_may_not_be_read_hides_no_other_run(outputs: Path) -> None:
    new_run(outputs, name="a")
    (outputs / "locked").mkdir()
    plain = Path.iterdir

    def iterdir(self: Path) -> Any:
        if self.name == "locked":
            raise PermissionError(13, "Permission denied")
        return plain(self)

    with mock.patch.object(Path, "iterdir", iterdir):
        assert [run.id for run in list_runs(outputs)] == ["a"]


def test_a_run_is_named_by_id_or_folder_with_or_without_a_checkpoint(
    finished: RunFolder, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = finished.path.parents[1]
    for text in ("bar", str(finished.path)):
        assert resolve_run(text, there).run == finished
        assert resolve_run(text, there).which is None
        for which, step in (("final", 10), ("latest", 10), ("5", 5)):
            reference = resolve_run(f"{text}@{which}", there)
            assert (reference.run, reference.which, reference.checkpoint().step) == (finished, which, step)
    monkeypatch.chdir(finished.path.parent)
    assert resolve_run("./bar@5", outputs).checkpoint().step == 5
    with pytest.raises(LabError, match=r"no checkpoint @7.*5, 10"):
        resolve_run("bar@7", there).checkpoint()
    with pytest.raises(LabError, match="no checkpoint @nonsense"):
        resolve_run("bar@nonsense", there).checkpoint()


@pytest.mark.parametrize(
    "text", ["bra", "~nobody-here/x", "", "@", "@final", "a\0b", "x" * 5000, "../../etc", "bra@final"]
)
def test_a_name_that_is_no_run_is_a_sentence_with_the_nearest(finished: RunFolder, text: str) -> None:
    with pytest.raises(UsageError, match="There is no run") as refused:
        resolve_run(text, finished.path.parents[1])
    assert refused.value.do
    if text.startswith("bra"):
        assert "Did you mean bar?" in refused.value.do


def test_a_run_keeps_its_checkpoints_when_its_status_says_nonsense(finished: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(finished.path, tmp_path / "copy")))
    run.write_status(dataclasses.replace(run.recorded_status(), state="running", pid=1, pid_start=1.0))
    assert run.status().state == "interrupted"
    train_here(run)
    assert [saved.step for saved in list_checkpoints(run.checkpoints)][-1] == 10
    assert run.status().state == "finished"
