"""What is predicted of a check is sealed before its first run, and scored when it has come to its end."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from llmlab.cli import experiment_follow
from llmlab.cli.main import main
from llmlab.core.task_settings import BIJECTION
from llmlab.notebook.locked import read_locked
from llmlab.studies.check_worker import CheckWorker
from llmlab.studies.experiment_worker import Stop
from llmlab.studies.lab_notebook import lab_notebook
from llmlab.studies.papers import checks
from llmlab.studies.papers.bayesian_geometry import plan
from llmlab.studies.papers.records import read_result
from llmlab.studies.plans.records import CheckFolder, find_plan

_TINY = {"data.values": 3, "data.pairs": 3, "model.n_layer": 1, "model.n_embd": 16}
_TINY |= {"data.batch_size": 16, "train.steps": 2, "train.eval_sequences": 16, "train.eval_interval": 2}
WORDS = ("paper", "run", "bayesian-geometry", "--claims", "calibration", "--name", "tunnel")
PREDICTED = ("--predict", "calibration=supported@70%", "--predict", "text=It fails@60%")


@pytest.fixture(autouse=True)
def tiny(no_figures: None) -> Iterator[None]:
    """One run of two steps, as if its seed were enough, and nobody who follows a worker."""
    size = replace(plan.SIZES["minutes"], seeds=1, tasks={BIJECTION: _TINY}, sequences=20)
    enough = mock.patch.object(checks, "SEEDS_AGREEING", 1)
    alone = mock.patch.object(experiment_follow, "follow", return_value=0)
    with mock.patch.dict(plan.SIZES, minutes=size), enough, alone:
        yield


def begun(outputs: Path, *words: str) -> CheckFolder:
    assert main([*WORDS, *words, "--outputs", str(outputs)]) == 0
    return find_plan("tunnel", outputs, CheckFolder)


def test_a_command_seals_what_it_predicts(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = begun(outputs, *PREDICTED)
    assert "you expect  calibration: supported, 70 % sure" in capsys.readouterr().out
    locked = [read_locked(values) for values in folder.record().predictions]
    assert [one.found("check", "tunnel") for one in locked if one is not None] == ["", ""]
    assert main(["notebook", "--outputs", str(outputs), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["subject"], entry["about"], entry["state"]) == ("check", "tunnel", "open")


def test_what_is_predicted_comes_before_the_start(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun(outputs)
    assert main([*WORDS, *PREDICTED, "--outputs", str(outputs)]) == 2
    assert "comes before the start" in capsys.readouterr().err
    assert main(["paper", "resume", "tunnel", *PREDICTED, "--outputs", str(outputs)]) == 2
    assert "resume takes no --predict" in capsys.readouterr().err
    begun(outputs)  # going on without any is fine
    assert find_plan("tunnel", outputs, CheckFolder).record().predictions == []


def test_what_can_only_be_inconclusive_is_not_predicted(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.object(checks, "SEEDS_AGREEING", 2):
        assert main([*WORDS, *PREDICTED, "--outputs", str(outputs)]) == 2
        assert "Every verdict will be inconclusive: a verdict needs 2 seeds." in capsys.readouterr().err
        assert not list(outputs.iterdir())
        assert main([*WORDS, "--plan", *PREDICTED[2:], "--outputs", str(outputs)]) == 0  # a sentence of one's own
        assert "Every verdict will be inconclusive" in capsys.readouterr().out


def test_an_unknown_claim_begins_no_check(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, hint in (("calibratoin=supported@70%", "calibration"), ("calibration=suported@70%", "supported")):
        assert main([*WORDS, "--predict", words, "--outputs", str(outputs)]) == 2
        assert f"Did you mean {hint}?" in capsys.readouterr().err
    assert not list(outputs.iterdir())


def test_a_check_is_scored_when_it_has_ended_and_not_when_it_was_interrupted(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, book = begun(outputs, *PREDICTED), lab_notebook(outputs)
    with mock.patch.object(CheckWorker, "_measure", side_effect=Stop):  # after its run
        CheckWorker(folder).run()
    assert folder.status().state == "stopped"
    assert [entry.scored_at for entry in book.refresh().entries] == [None]

    CheckWorker(folder).run()
    assert folder.status().state == "finished"
    (entry,) = book.refresh().entries
    first, second = entry.lines()
    assert first.score is not None
    assert first.score.outcome == "inconclusive"  # one seed says nothing
    assert first.score.surprise == pytest.approx(-math.log2(0.3 / 2))
    assert second.score is None
    assert main(["notebook", "show", "tunnel", "--outputs", str(outputs)]) == 0
    out = capsys.readouterr().out
    assert "calibration: supported, 70 % sure. The outcome was inconclusive: wrong." in out
    assert "2.7 bits: a surprise" in out
    assert "- Predicted before it began: supported, 70 % sure" in folder.report.read_text()

    # Begun again, it says the same: from what was kept, and from what has to be measured anew.
    verdicts = read_result(folder.results_json).verdicts
    assert verdicts
    (kept,) = folder.measurements.glob("*.json")
    for damage in (lambda: None, kept.unlink, lambda: kept.write_text("{")):
        damage()
        CheckWorker(folder).run()
        assert read_result(folder.results_json).verdicts == verdicts
    assert book.refresh().entries == [entry]


def test_quantities_say_how_a_claim_is_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notebook", "quantities"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("the id of a claim"))
    assert "supported or not supported or inconclusive" in line
