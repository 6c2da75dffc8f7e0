"""Deleting and renaming runs: nothing that names one is left behind, and nothing is lost unasked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import new_run, quick_settings

from llmlab.cli.main import main
from llmlab.core.errors import LabError, UsageError
from llmlab.core.finetuning_settings import BaseSettings, FinetuneSettings
from llmlab.core.processes import process_start
from llmlab.jobs.launcher import create_run
from llmlab.jobs.queue import QueuedRun, RunQueue
from llmlab.models.available import ADAPTER_FILE
from llmlab.models.reference import SavedRun
from llmlab.models.source import PretrainedRun, source_of
from llmlab.notebook.predictions import parse_prediction
from llmlab.store.checkpoints import MODEL_FILE, STATE_FILE, commit, select
from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder, RunInfo
from llmlab.studies import upkeep
from llmlab.studies.experiments.kinds import find_kind
from llmlab.studies.experiments.plan import Request, make_plan
from llmlab.studies.lab_notebook import lab_notebook
from llmlab.studies.launcher import create_experiment
from llmlab.studies.plans.records import ExperimentFolder
from llmlab.studies.upkeep import delete_run, rename_run, what_rests_on


def ended(run: RunFolder, step: int = 5) -> RunFolder:
    """As a worker leaves it that has finished, with one checkpoint."""

    def write(folder: Path) -> None:
        for name in (MODEL_FILE, STATE_FILE):
            (folder / name).write_bytes(b"numbers")

    commit(run.checkpoints, step, write, labels=("final",), val_loss=None, about={"run": run.id})
    run.write_status(replace(run.recorded_status(), state="finished", step=step, attempt=1))
    return run


def tuned_on(outputs: Path, base: str, name: str) -> RunFolder:
    settings = FinetuneSettings(model=BaseSettings(base=base))
    run = RunFolder(outputs / "finetuning" / name)
    run.checkpoints.mkdir(parents=True)
    run.write_info(RunInfo(name, "finetuning", 1.7e9, settings))
    ended(run)
    (select(run.checkpoints).path / ADAPTER_FILE).write_text("{}")
    return run


@pytest.fixture
def bar(outputs: Path) -> RunFolder:
    return ended(new_run(outputs, name="bar"))


@pytest.fixture
def trash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trash of the test's own."""
    folder = tmp_path / "trash"
    folder.mkdir()

    def take(path: Path) -> bool:
        path.rename(folder / path.name)
        return True

    monkeypatch.setattr(upkeep, "move_to_trash", take)
    return folder


def owning_experiment(outputs: Path, run: RunFolder) -> ExperimentFolder:
    """An experiment whose first run is that one."""
    kind = find_kind("learning-rate")
    request = Request(kind, quick_settings(3, train__eval_interval=1), outputs, id="lr", grid=[1e-3, 1e-2])
    folder = create_experiment(outputs, make_plan(request))
    record = folder.record()
    folder.write_record(replace(record, trials=[replace(record.trials[0], run=run.id), *record.trials[1:]]))
    return folder


def test_all_that_names_a_run_names_it_anew(bar: RunFolder, outputs: Path) -> None:
    settings = quick_settings(9)
    branch = create_run(outputs, settings, name="branch", parent=(bar, select(bar.checkpoints)))
    tuned = tuned_on(outputs, "bar@5", "tuned")
    stacked = tuned_on(outputs, f"bar@5+{tuned.checkpoints / 'step-00000005'}", "stacked")
    bystander = tuned_on(outputs, "barn@5", "bystander")
    folder = owning_experiment(outputs, bar)
    queue = RunQueue(outputs)
    queue.add(QueuedRun(FinetuneSettings(model=BaseSettings(base="bar@5"))))
    renamed = rename_run(bar, "beer")
    assert (renamed.path, bar.path.exists()) == (outputs / "pretraining" / "beer", False)
    assert json.loads(renamed.run_json.read_text())["id"] == "beer"
    assert branch.info().parent == {
        "run": "beer",
        "folder": str(renamed.path),
        "checkpoint": "step-00000005",
        "step": 5,
    }
    assert tuned.info().settings.base == "beer@5"
    assert stacked.info().settings.base == f"beer@5+{tuned.checkpoints / 'step-00000005'}"
    assert bystander.info().settings.base == "barn@5"
    assert folder.record().trials[0].run == "beer"
    (item,) = queue.read().items
    assert isinstance(item.settings, FinetuneSettings)
    assert item.settings.model.base == "beer@5"
    assert rename_run(renamed, "bar").info() == bar.info()
    assert tuned.info().settings.base == "bar@5"


def test_predictions_keep_their_seal_under_a_new_name(bar: RunFolder, outputs: Path) -> None:
    bar.write_status(replace(bar.recorded_status(), state="stopped"))
    book = lab_notebook(outputs)
    before = book.predict(bar, [parse_prediction("val_loss=1..2@80%")])
    rename_run(bar, "beer")
    (entry,) = book.refresh().entries
    assert (entry.id, entry.about, entry.full_name) == (before.id, "beer", "pretraining/beer")
    assert [line.altered for line in entry.lines()] == [""]


def test_a_prediction_that_was_edited_stays_altered_under_a_new_name(bar: RunFolder, outputs: Path) -> None:
    bar.write_status(replace(bar.recorded_status(), state="stopped"))
    entry = lab_notebook(outputs).predict(bar, [parse_prediction("val_loss=1..2@80%")])
    path = outputs / "notebook" / f"{entry.id}.json"
    path.write_text(path.read_text().replace('"high": 2.0', '"high": 9.0').replace('"high": 2,', '"high": 9,'))
    assert all(line.altered for line in lab_notebook(outputs).find("bar").lines())
    rename_run(bar, "beer")
    assert all(line.altered for line in lab_notebook(outputs).find("beer").lines())


def test_what_is_predicted_while_a_run_is_renamed_is_kept(
    bar: RunFolder, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the run, and of one that names it and may train meanwhile."""
    branch = create_run(outputs, quick_settings(9), name="branch", parent=(bar, select(bar.checkpoints)))
    bar.write_status(replace(bar.recorded_status(), state="stopped"))
    real = os.rename

    def rename(old: Path, new: Path) -> None:
        if old == bar.path:
            for run in (bar, branch):
                lab_notebook(outputs).predict(run, [parse_prediction("val_loss=1..2@80%")])
        real(old, new)

    monkeypatch.setattr(os, "rename", rename)
    beer = rename_run(bar, "beer")
    assert [len(run.info().predictions) for run in (beer, branch)] == [1, 1]
    assert (branch.info().parent or {})["run"] == "beer"
    lines = [line for entry in lab_notebook(outputs).refresh().entries for line in entry.lines()]
    assert [line.altered for line in lines] == ["", ""]


def test_what_became_of_a_prediction_is_scored_before_its_run_is_deleted(
    bar: RunFolder, outputs: Path, trash: Path
) -> None:
    bar.write_status(replace(bar.recorded_status(), state="stopped"))
    lab_notebook(outputs).predict(bar, [parse_prediction("minutes=1..2@80%")])
    ended(bar)
    assert delete_run(bar)
    (entry,) = lab_notebook(outputs).refresh().entries
    assert entry.scored_at is not None


@pytest.mark.parametrize("act", ["delete", "rename"])
def test_a_live_run_keeps_its_folder_and_its_name(bar: RunFolder, act: str) -> None:
    pid = os.getpid()
    bar.write_status(replace(bar.recorded_status(), state="running", pid=pid, pid_start=process_start(pid)))
    with pytest.raises(LabError, match="bar has not ended"):
        delete_run(bar) if act == "delete" else rename_run(bar, "beer")
    assert bar.run_json.is_file()


@pytest.mark.parametrize("name", ["taken", "a/b", "", "other-track"])
def test_a_name_that_is_taken_or_none_is_refused(bar: RunFolder, outputs: Path, name: str) -> None:
    new_run(outputs, name="taken")
    tuned_on(outputs, "bar@5", "other-track")
    with pytest.raises(UsageError):
        rename_run(bar, name)
    assert bar.info().id == "bar"


def test_what_rests_on_a_run_is_said(bar: RunFolder, outputs: Path) -> None:
    assert what_rests_on([bar]) == [[]]
    create_run(outputs, quick_settings(9), name="branch", parent=(bar, select(bar.checkpoints)))
    tuned_on(outputs, "bar@5", "tuned")
    owning_experiment(outputs, bar)
    (said,) = what_rests_on([bar])
    assert {sentence.split()[0] for sentence in said} == {"branch", "tuned", "It"}
    assert "It belongs to the experiment lr." in said


def test_a_base_stays_the_same_when_another_run_gets_its_name(bar: RunFolder, outputs: Path) -> None:
    tuned = create_run(outputs, FinetuneSettings(model=BaseSettings(base="bar@final")), name="tuned")
    twin = tuned_on(outputs, "pretraining/bar@5", "bar")
    assert [run.path for run in _bases_of(tuned)] == [bar.path]
    assert what_rests_on([twin, bar]) == [[], ["tuned cannot be opened without it: it is its base."]]
    branch = create_run(outputs, twin.info().settings, name="branch", parent=(twin, select(twin.checkpoints)))
    renamed = rename_run(bar, "beer")
    assert [run.path for run in _bases_of(tuned)] == [renamed.path]
    assert (branch.info().parent or {})["run"] == "bar"  # of the other track


def _bases_of(run: RunFolder) -> list[RunFolder]:
    base = source_of(SavedRun(run, run.id)).base
    return [base.run] if isinstance(base, PretrainedRun) else []


def test_delete_asks_and_moves_to_the_trash(
    bar: RunFolder, outputs: Path, trash: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned_on(outputs, "bar@5", "tuned")
    assert main(["delete", "bar"]) == 2  # nobody is there to be asked
    assert "--yes" in capsys.readouterr().err
    assert bar.path.is_dir()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _="": "n")
    assert main(["delete", "bar"]) == 0
    assert bar.path.is_dir()
    assert main(["delete", "bar", "--yes"]) == 0
    said = capsys.readouterr().out
    assert "tuned cannot be opened without it" in said
    assert (trash / "bar" / "run.json").is_file()
    assert [run.id for run in list_runs(outputs)] == ["tuned"]


def test_of_several_runs_none_is_deleted_when_one_cannot_be(
    bar: RunFolder, outputs: Path, trash: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["delete", "bar", "nobody", "--yes"]) == 2
    new_run(outputs, name="queued")  # waits for its worker
    assert main(["delete", "bar", "queued", "--yes"]) == 1
    assert bar.path.is_dir()


def test_without_a_trash_yes_deletes_for_good_and_says_so(
    bar: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(upkeep, "move_to_trash", lambda path: False)
    assert main(["delete", "bar", "--yes"]) == 0
    assert "for good" in capsys.readouterr().out
    assert not bar.path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the trash of freedesktop.org")
def test_the_trash_needs_no_desktop(bar: RunFolder, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from llmlab.core.files import move_to_trash; "
    code += "print(move_to_trash(Path(sys.argv[1])))"
    names = {"PATH", "PYTHONPATH", "LD_LIBRARY_PATH"}
    environment = {name: value for name, value in os.environ.items() if name in names}
    environment |= {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    command = [sys.executable, "-c", code, str(bar.path)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert said.stdout.strip() == "True"
    assert not bar.path.exists()
    assert (tmp_path / "data" / "Trash" / "files" / "bar" / "run.json").is_file()


def test_rename_says_the_new_name(bar: RunFolder, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rename", "bar@5", "beer"]) == 2
    assert main(["rename", "bar", "beer"]) == 0
    assert "beer" in capsys.readouterr().out
    assert [run.id for run in list_runs(outputs)] == ["beer"]


def failed(outputs: Path, name: str) -> RunFolder:
    """A run whose worker failed before its first step."""
    run = new_run(outputs, name=name)
    run.write_status(replace(run.recorded_status(), state="failed"))
    run.log.write_text("why it failed")
    return run


def test_the_name_that_a_run_has_is_none_to_rename_it_to_and_takes_nothing_away(outputs: Path) -> None:
    run = failed(outputs, "bar")
    with pytest.raises(UsageError, match="already"):
        rename_run(run, "bar")
    assert run.log.read_text() == "why it failed"


def test_what_is_deleted_with_a_run_does_not_miss_it(bar: RunFolder, outputs: Path) -> None:
    tuned = tuned_on(outputs, "bar@5", "tuned")
    tuned_on(outputs, "bar@5", "other")
    assert what_rests_on([bar, tuned]) == [["other cannot be opened without it: it is its base."], []]


def test_what_names_a_run_that_is_a_link_names_it_anew(bar: RunFolder, outputs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "large-disk" / "bar"
    elsewhere.parent.mkdir()
    bar.path.rename(elsewhere)
    bar.path.symlink_to(elsewhere)
    tuned = tuned_on(outputs, "bar@5", "tuned")
    adapter = tuned.checkpoints / "step-00000005"
    stacked = tuned_on(outputs, f"bar@5+{adapter}", "stacked")
    assert len(what_rests_on([bar])[0]) == 2
    rename_run(bar, "beer")
    assert tuned.info().settings.base == "beer@5"
    assert stacked.info().settings.base == f"beer@5+{adapter}"


def test_a_run_that_is_a_link_is_renamed_where_the_lab_has_it_also_when_named_by_its_folder(
    bar: RunFolder, outputs: Path, tmp_path: Path
) -> None:
    elsewhere = bar.path.rename(tmp_path / "bar")
    bar.path.symlink_to(elsewhere)
    assert main(["rename", str(bar.path), "beer"]) == 0
    assert [run.id for run in list_runs(outputs)] == ["beer"]
    assert elsewhere.is_dir()


def test_a_rename_that_could_not_be_finished_says_how_far_it_came(
    bar: RunFolder, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned_on(outputs, "bar@5", "tuned")
    real = RunFolder.write_info

    def full(self: RunFolder, info: RunInfo) -> None:
        if self.id == "tuned":
            raise OSError("No space left on device")
        real(self, info)

    monkeypatch.setattr(RunFolder, "write_info", full)
    with pytest.raises(LabError, match="llmlab-run rename beer bar") as said:
        rename_run(bar, "beer")
    assert said.value.what == "bar is beer now, but not all that names it could be changed."
    monkeypatch.undo()
    assert rename_run(RunFolder(bar.path.with_name("beer")), "bar").info().id == "bar"
    assert list_runs(outputs)[0].path.parent.parent == outputs


def test_a_damaged_queue_does_not_keep_a_run_from_being_deleted(bar: RunFolder, outputs: Path, trash: Path) -> None:
    RunQueue(outputs).path.write_text("no JSON")
    assert what_rests_on([bar]) == [[]]
    assert main(["delete", "bar", "--yes"]) == 0
    assert not bar.path.exists()
