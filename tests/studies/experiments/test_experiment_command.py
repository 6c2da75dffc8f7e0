"""`llmlab-run experiment` as a terminal and a script see it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_trials import experiment, finish_all

from llmlab.cli import experiment_follow
from llmlab.cli.main import main
from llmlab.core import progress
from llmlab.studies.launcher import stop_experiment
from llmlab.studies.plans.records import ExperimentFolder, ExperimentStatus, TrialStatus, find_plan

TINY = ["--corpus", "tiny", "--steps", "6", "--set", "train.eval_interval=3", "--set", "train.threads=1"]
TINY += [
    word for part in ("n_layer=1", "n_head=2", "n_embd=16", "block_size=16") for word in ("--set", f"model.{part}")
]


def run(*words: str) -> int:
    return main(["experiment", *words])


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def test_a_plan_is_printed_with_its_time_and_makes_nothing(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("learning-rate", *TINY, "--grid", "1e-3,1e-2", "--seeds", "2", "--name", "p", "--plan") == 0
    text = capsys.readouterr().out
    assert "4 runs, 2 seeds each, about 0:2" in text
    assert "lr1e-2-s2" in text
    assert not (outputs / "experiments").exists()


def test_a_whole_experiment_from_the_command_line(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["width", *TINY, "--grid", "8,16", "--name", "wide", "--predict", "best=16@70%"]
    assert run(*words, "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ends = [(line["name"], line["state"]) for line in lines if line["event"] == "trial" and line["state"] == "finished"]
    assert ends == [("w8", "finished"), ("w16", "finished")]
    assert lines[-1]["event"] == "finished"
    assert {trial["run"] for trial in lines[-1]["results"]["trials"]} == {"wide-w8", "wide-w16"}
    report = Path(lines[-1]["report"]).read_text()
    assert "`llmlab-run experiment width --corpus tiny" in report
    assert "varied value of the lowest loss: 16, 70 % sure" in report
    # The same name with the same words goes on (here: there is nothing left); with others it is refused.
    before = (outputs / "pretraining" / "wide-w8" / "events.jsonl").read_bytes()
    assert run("resume", "wide") == 0
    assert (outputs / "pretraining" / "wide-w8" / "events.jsonl").read_bytes() == before
    assert "Report:" in capsys.readouterr().out


def test_the_same_words_go_on_with_an_experiment_of_a_version_that_had_fewer_settings(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["width", *TINY, "--grid", "8,16", "--name", "wide", "--plan", "--json"]
    assert run(*words) == 0
    record = printed(capsys)
    for section, name in (("train", "eval_early"), ("checkpoints", "per_decade")):
        del record["base"][section][name]
    path = outputs / "experiments" / "wide" / "experiment.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))
    assert run(*words) == 0
    assert printed(capsys) == record
    assert run(*words, "--set", "train.weight_decay=0.2") == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["learningrate"], "Did you mean learning-rate?"),
        (["width", "--model", "bar@final"], "experiment of pretraining"),
        (["loss-curves"], "none was named"),
        (["width", "bar"], "takes no 'bar'"),
        (["show"], "needs an experiment's id"),
        (["show", "y"], "There is no experiment 'y'"),
        (["width", "--grid", "16,wide"], "model.n_embd cannot be 'wide'"),
        (["lora-rank"], "model.base"),
        (["width", "--corpus", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(
    outputs: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert run(*words) in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert says in said or "No model was named" in said
    assert "Traceback" not in said
    assert not (outputs / "experiments").exists()


def test_experiments_are_listed_and_shown(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = experiment(outputs, "depth", grid=[1, 2])
    assert run("list", "--json") == 0
    assert [(row["id"], row["state"]) for row in json.loads(capsys.readouterr().out)] == [("x", "planned")]
    finish_all(folder, lambda trial: 3.0 - 0.1 * trial.x)
    assert run("report", "x") == 0
    assert (
        capsys.readouterr().out == f"{folder.report.read_text()}\nFigures: {folder.figures}\nReport: {folder.report}\n"
    )
    assert run("show", "x") == 0
    text = capsys.readouterr().out
    assert "What does a deeper model gain" in text
    assert "best_loss" in text
    assert run("show", "x", "--json") == 0
    assert printed(capsys)["results"]["complete"] is True


def test_a_terminal_shows_a_report_without_its_markdown(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    folder = experiment(outputs, "depth", grid=[1, 2])
    finish_all(folder, lambda trial: 3.0 - 0.1 * trial.x)
    assert run("report", "x") == 0
    shown = capsys.readouterr().out
    assert "What happened" in shown
    assert "best_loss" in shown
    assert {mark for mark in ("##", "| ---", "![", "](") if mark in shown} == set()
    assert shown.endswith(f"Figures: {folder.figures}\nReport: {folder.report}\n")


def test_without_a_terminal_how_far_the_plan_is_is_a_line_now_and_then(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 100.5, 104.0, 110.1])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    folder = experiment(outputs, "depth", grid=[1, 2])
    shown = experiment_follow._Shown(folder.record(), False)
    name = folder.record().trials[0].name
    at = [
        ExperimentStatus("running", trial=name, doing="Reading tiny (40%)", eta_seconds=70.0),
        ExperimentStatus("running", trial=name, doing="Reading tiny (60%)", eta_seconds=69.0),
        ExperimentStatus("running", trial=name, trials={name: TrialStatus("running", 3, 6, 3.5)}, eta_seconds=66.0),
        ExperimentStatus("running", trial=name, trials={name: TrialStatus("running", 5, 6, 3.25)}, eta_seconds=60.0),
    ]
    for status in at:
        shown.status(status)
    assert capsys.readouterr().out.splitlines() == [
        f"run 1/2  {name}  Reading tiny (40%)  1:10 left",
        f"run 1/2  {name}  step 5/6  loss 3.250  1:00 left",
    ]


def test_a_name_that_means_another_plan_is_refused(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment(outputs, "depth", grid=[1, 2])
    assert run("depth", *TINY, "--grid", "1,2", "--name", "x") == 2
    assert "started with other settings" in capsys.readouterr().err
    with pytest.raises(Exception, match="not running"):
        stop_experiment(find_plan("x", outputs, ExperimentFolder))
