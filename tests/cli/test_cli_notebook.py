"""`notebook` and `--predict`: what is said, in words and as JSON, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import FakeRun

from llmlab.cli.main import main
from llmlab.store.events import Evaluated


@pytest.fixture
def bar(outputs: Path) -> FakeRun:
    """A run that has finished with a validation loss of 2.05, of which 1.9 to 2.2 and a sentence were predicted."""
    fake = FakeRun(outputs, "bar", steps=20)
    fake.predict("val_loss=1.9..2.2@80%", "text=It works@60%")
    fake.losses_of = lambda step: (1.9, 2.05)
    fake.start().advance(20, evaluate=False).append(Evaluated(20, 1.0, 1.9, 2.05, True, 0.1))
    return fake.finish()


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["notebook", *words]) == 0
    return capsys.readouterr().out


def test_the_list_shows_prediction_and_outcome(bar: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys)
    assert "final validation loss: 1.9 to 2.2, 80 % sure" in out
    assert "2.05" in out
    assert "inside" in out
    assert "to judge" in out
    (entry,) = json.loads(said(capsys, "list", "--json"))
    assert (entry["about"], entry["state"]) == ("bar", "to judge")
    assert entry["scores"][0]["brier"] == pytest.approx(0.04)


def test_an_entry_goes_from_a_judgement_to_a_sentence_to_the_calibration(
    bar: FakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "The outcome was 2.05: inside" in said(capsys, "score")
    assert "to judge" in said(capsys, "show", "bar")
    assert "You judged it wrong" in said(capsys, "score", "bar", "2=wrong")
    assert "Losses fall slowly." in said(capsys, "learned", "bar", "Losses fall slowly.")
    assert "1 of 2 came true" in said(capsys, "calibration")
    found = json.loads(said(capsys, "calibration", "--json"))
    assert (found["count"], found["right"]) == (2, 1)
    assert found["brier"] == pytest.approx((0.04 + 0.36) / 2)
    assert [each["count"] for each in found["bins"]] == [1, 1]
    target = tmp_path / "mine.md"
    assert str(target) in said(capsys, "export", str(target))
    assert "> Learned: Losses fall slowly." in target.read_text(encoding="utf-8")


def test_a_run_shows_what_was_predicted_of_it(bar: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "bar"]) == 0
    assert "predicted    final validation loss: 1.9 to 2.2, 80 % sure" in capsys.readouterr().out
    assert main(["show", "bar", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"] == bar.run.info().predictions


def test_what_can_be_predicted_is_listed(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "quantities")
    for name in ("val_loss", "steps_to_2.5", "best_lr", "loss_curve"):
        assert f"\n{name} " in out
    assert {quantity["name"] for quantity in json.loads(said(capsys, "quantities", "--json"))} >= {
        "val_loss",
        "best_lr",
    }


def test_an_empty_notebook_says_how_to_begin(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--predict" in said(capsys)
    assert json.loads(said(capsys, "--json")) == []
    assert "No prediction" in said(capsys, "calibration")


def test_a_run_that_waits_can_be_predicted(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FakeRun(outputs, "foo", steps=20)
    assert "validation minus training loss at the end: 0 to 1, 70 % sure" in said(
        capsys, "predict", "foo", "gap=0..1@70%", "overfits=no@60%"
    )
    (entry,) = json.loads(said(capsys, "--json"))
    assert [p["quantity"] for p in entry["predictions"]] == ["gap", "overfits"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["juggle"], "There are: list, show, predict"),
        (["show"], "takes 1 word"),
        (["show", "baz"], "Did you mean bar"),
        (["learned", "bar"], "takes 2 words"),
        (["predict", "bar"], "Which run, and what?"),
        (["predict", "bar", "val_loss=1..2@80%"], "can no longer be predicted"),
        (["score", "bar", "2"], "2=right"),
        (["score", "bar", "1=right"], "not entered by hand"),
        (["score", "bar", "0=right"], "2=right"),
    ],
)
def test_wrong_use_is_said_in_a_sentence(
    bar: FakeRun, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    main(["notebook"])
    capsys.readouterr()
    assert main(["notebook", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_a_prediction_that_cannot_be_read_makes_no_run(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--corpus", "tiny", "--predict", "val_loss=2-3"]) == 2
    assert "val_loss=1.9..2.2@80%" in capsys.readouterr().err
    assert not (outputs / "pretraining").exists()


def test_a_file_that_cannot_be_written_is_said(bar: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notebook", "export", "/dev/null/notebook.md"]) == 1
    assert "could not be written" in capsys.readouterr().err
