"""A run's name says which run is meant: what two tracks hold is told apart, and nothing guesses."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import new_run, quick_settings

from llmlab.cli.main import main
from llmlab.core.errors import UsageError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.jobs.launcher import create_run, free_name
from llmlab.models.available import available_models
from llmlab.models.reference import SavedRun, parse
from llmlab.notebook.predictions import parse_prediction
from llmlab.store.checkpoints import commit, list_checkpoints
from llmlab.store.registry import resolve_run, short_name
from llmlab.store.run_folder import RunFolder
from llmlab.studies.lab_notebook import lab_notebook


def save_step(run: RunFolder, step: int) -> None:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"weights")

    commit(run.checkpoints, step, write, labels=("final",), val_loss=None, about={"run": run.id})


@pytest.fixture
def twins(outputs: Path) -> tuple[RunFolder, RunFolder]:
    """pretraining/bar and finetuning/bar, as older outputs folders hold them; each with a checkpoint at step 5."""
    first = new_run(outputs, name="bar")
    second = RunFolder(outputs / "finetuning" / "bar")
    second.path.parent.mkdir()
    shutil.copytree(first.path, second.path)
    for run in (first, second):
        save_step(run, 5)
    return first, second


def test_a_bare_name_of_two_runs_is_refused_with_both_full_names(
    twins: tuple[RunFolder, RunFolder], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = r"They are (finetuning/bar and pretraining/bar|pretraining/bar and finetuning/bar)\."
    with pytest.raises(UsageError, match=both):
        resolve_run("bar@5", outputs)
    with pytest.raises(UsageError, match="can mean 2 things"):
        parse("bar@5", outputs)
    for words in (
        ["checkpoints", "bar", "delete", "5"],
        ["checkpoints", "bar", "pin", "5"],
        ["resume", "bar"],
        ["request", "bar", "stop"],
        ["show", "bar"],
        ["pretrain", "--from", "bar@5", "--steps", "20"],
        ["generate", "bar", "--prompt", "x"],
        ["export", "bar", "--to", "hf", "--out", str(outputs / "exported")],
    ):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert all(name in said for name in ("pretraining/bar", "finetuning/bar")), (words, said)
    assert all(len(list_checkpoints(run.checkpoints)) == 1 for run in twins)


def test_a_full_name_names_a_run_wherever_runs_are_named(twins: tuple[RunFolder, RunFolder], outputs: Path) -> None:
    for run in twins:
        assert resolve_run(run.full_name, outputs).run == run
        assert resolve_run(f"{run.full_name}@5", outputs).checkpoint().path.parent == run.checkpoints
        reference = parse(f"{run.full_name}@5", outputs)
        assert reference == SavedRun(run, run.full_name, "5")
        assert parse(str(reference), outputs) == reference
        assert short_name(run, outputs) == run.full_name
    assert main(["checkpoints", "finetuning/bar", "delete", "5"]) == 0
    assert [len(list_checkpoints(run.checkpoints)) for run in twins] == [1, 0]
    shutil.rmtree(twins[1].path)
    assert short_name(twins[0], outputs) == "bar"
    assert str(parse("pretraining/bar", outputs)) == "bar@latest"


def test_a_full_name_that_is_also_a_folder_elsewhere_is_not_guessed(
    twins: tuple[RunFolder, RunFolder], outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(twins[1].path, tmp_path / "elsewhere" / "finetuning" / "bar")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="the name of 2 runs"):
        resolve_run("finetuning/bar", outputs)
    with pytest.raises(UsageError, match="can mean 2 things"):
        parse("finetuning/bar", outputs)
    monkeypatch.chdir(outputs)  # the same folder by another way
    assert resolve_run("finetuning/bar", outputs).run.path.samefile(twins[1].path)


def test_lists_show_the_track_where_two_runs_have_one_id(
    twins: tuple[RunFolder, RunFolder], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new_run(outputs, name="alone")
    assert main(["runs"]) == 0
    names = {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]}
    assert names >= {"alone", "pretraining/bar", "finetuning/bar"}
    offered = {model.reference for model in available_models(outputs) if model.kind == "run"}
    assert offered == {"pretraining/bar@latest", "finetuning/bar@latest"}


def test_a_new_run_takes_no_name_of_another_track(outputs: Path) -> None:
    run = new_run(outputs, name="bar")
    base = create_run(outputs, quick_settings(3), name="base")
    save_step(base, 3)
    settings = FinetuneSettings()
    with pytest.raises(UsageError, match=r"A run named 'bar' is already there\..*pretraining"):
        create_run(outputs, type(settings)(model=type(settings.model)(base="base@3")), name="bar")
    name = free_name(outputs, quick_settings(3), "baby")
    shutil.copytree(run.path, outputs / "finetuning" / name)
    assert free_name(outputs, quick_settings(3), "baby") != name


def test_the_notebook_tells_runs_of_one_id_apart(outputs: Path) -> None:
    first = new_run(outputs, name="bar")
    second = RunFolder(outputs / "finetuning" / "bar")
    second.path.parent.mkdir()
    shutil.copytree(first.path, second.path)
    book = lab_notebook(outputs)
    for run, said in ((first, "val_loss=1..2@80%"), (second, "val_loss=3..4@80%")):
        entry = book.predict(run, [parse_prediction(said)])
        assert entry.folder == str(run.path)
        assert book.find(run.full_name) == entry
    with pytest.raises(UsageError, match=r"finetuning/bar|pretraining/bar"):
        book.find("bar")


def fail(run: RunFolder, step: int = 0) -> None:
    started = '{"event": "started", "step": 0}\n'
    run.events.write_text(started + '{"event": "step", "step": 1}\n' * step)
    run.log.write_text("Why it failed")
    error = {"what": "The corpus is damaged.", "why": "", "do": ""}
    run.write_status(replace(run.recorded_status(), state="failed", step=step, attempt=1, error=error))


def test_a_start_that_failed_gives_its_name_back_when_it_is_used_again(outputs: Path) -> None:
    run = new_run(outputs, 5, "bar")
    fail(run)
    assert run.log.read_text() == "Why it failed"
    again = new_run(outputs, 7, "bar")
    assert (again.info().settings.train.steps, again.status().state) == (7, "queued")
    assert not again.log.exists()
    assert [path.name for path in run.path.parent.iterdir()] == ["bar"]


def test_a_run_whose_worker_never_began_gives_its_name_back(outputs: Path) -> None:
    run = new_run(outputs, 5, "bar")
    with pytest.raises(UsageError, match="already there"):  # its worker may be about to begin
        new_run(outputs, 7, "bar")
    run.write_status(replace(run.recorded_status(), heartbeat=0.0))
    assert run.status().state == "interrupted"
    assert new_run(outputs, 7, "bar").info().settings.train.steps == 7


def test_a_run_that_made_a_step_or_saved_something_keeps_its_name(outputs: Path) -> None:
    stepped, saved, damaged = (new_run(outputs, 5, name) for name in ("stepped", "saved", "damaged"))
    fail(stepped, step=1)
    fail(saved)
    save_step(saved, 0)
    fail(damaged)
    damaged.events.write_bytes(damaged.events.read_bytes() + b'{"event": "step", "step": 1, "loss": \x00\x00\n')
    for run in (stepped, saved, damaged):
        with pytest.raises(UsageError, match="already there"):
            new_run(outputs, 7, run.id)
        assert run.log.read_text() == "Why it failed"
