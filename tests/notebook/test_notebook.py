"""The notebook of an outputs folder: entries follow from what was locked, and are scored when the outcome is known."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeRun
from preset_settings import resolve_settings
from test_outcomes import evaluated, experiment

from llmlab.core.errors import LabError, UsageError
from llmlab.jobs.launcher import create_run
from llmlab.notebook.entries import DONE, OPEN, TO_JUDGE, TO_LEARN, statements
from llmlab.notebook.locked import lock
from llmlab.notebook.markdown import notebook_markdown
from llmlab.notebook.predictions import parse_prediction
from llmlab.notebook.seals import LATE
from llmlab.notebook.words import outcome_sentence
from llmlab.studies.experiments.outcomes import Finding
from llmlab.studies.lab_notebook import lab_notebook


def predicted(outputs: Path, name: str, *lines: str, created: float = 1.75e9) -> FakeRun:
    """A run that waits, with predictions locked and sealed."""
    return FakeRun(outputs, name, steps=20, created=created).predict(*lines)


def ended(fake: FakeRun, loss: float = 2.05) -> FakeRun:
    """It trains to its end, with this validation loss."""
    fake.start().advance(20, evaluate=False)
    evaluated(fake, loss + 1, loss)
    fake.finish()
    # As a worker's last event, which repeats the last evaluation.
    text = fake.run.events.read_text().splitlines()
    last = json.loads(text[-1]) | {"train_loss": loss - 0.5, "val_loss": loss}
    fake.run.events.write_text("\n".join([*text[:-1], json.dumps(last)]) + "\n")
    return fake


def test_a_prediction_is_locked_scored_and_learned_from(outputs: Path) -> None:
    fake, book = predicted(outputs, "bar", "val_loss=1.9..2.2@80%", "text=It works@60%"), lab_notebook(outputs)
    (entry,) = book.refresh().entries
    assert (entry.about, entry.state, entry.surprise) == ("bar", OPEN, None)
    ended(fake)
    contents = book.refresh()
    assert contents.fresh == [entry.id]
    (entry,) = contents.entries
    assert entry.state == TO_JUDGE
    first, second = entry.lines()
    assert (
        outcome_sentence(first)
        == "You predicted final validation loss: 1.9 to 2.2, 80 % sure. The outcome was 2.05: inside."
    )
    assert first.score is not None
    share = replace(first.locked, prediction=parse_prediction("score=10..40@80%"))
    share_line = replace(first, locked=share, score=replace(first.score, outcome=34.375))
    percent = "You predicted right answers after training: 10 to 40 %, 80 % sure. The outcome was 34.38 %: inside."
    assert outcome_sentence(share_line) == percent
    assert first.score.brier == pytest.approx(0.04)
    assert second.score is None
    entry = book.judge(entry, 1, "wrong")
    assert entry.state == TO_LEARN
    entry = book.learn(entry, "  Two\nlines  of it. ")
    assert (entry.state, entry.learned) == (DONE, "Two lines of it.")
    assert book.refresh().fresh == []
    assert book.find("bar") == entry == book.find(entry.id)
    assert [(s.confidence, s.right) for s in statements([entry])] == [(0.8, True), (0.6, False)]


def test_create_run_locks_what_was_predicted(outputs: Path) -> None:
    settings = resolve_settings("baby")
    run = create_run(outputs, settings, name="bar", predictions=[parse_prediction("val_loss=1.9..2.2@80%")])
    (line,) = lab_notebook(outputs).refresh().entries[0].lines()
    assert not line.altered
    assert line.locked.at_step == 0
    assert line.locked.as_dict() == run.info().predictions[0]
    assert line.entry.title == settings.title == "4 layers with d_model 128 on shakespeare, 2,000 steps"


def test_a_run_is_not_asked_for_what_an_experiment_answers(outputs: Path) -> None:
    with pytest.raises(UsageError, match="best_lr cannot be predicted of a run"):
        create_run(outputs, resolve_settings("baby"), name="bar", predictions=[parse_prediction("best_lr=1e-3@60%")])
    with pytest.raises(UsageError, match="val_loss cannot be predicted of an experiment"):
        lock("experiment", [parse_prediction("val_loss=1..2@60%")])
    assert lock("experiment", [parse_prediction("text=It works")])


def test_plain_values_that_are_no_prediction_make_no_run(outputs: Path) -> None:
    with pytest.raises(UsageError):
        create_run(outputs, resolve_settings("baby"), name="bar", predictions=[{"quantity": "val_loss"}])
    assert not (outputs / "pretraining" / "bar").exists()


def test_an_edit_after_the_start_shows_and_is_a_miss(outputs: Path) -> None:
    fake, book = predicted(outputs, "bar", "val_loss=1.9..2.2@80%"), lab_notebook(outputs)
    info = fake.run.info()
    fake.run.write_info(replace(info, predictions=[info.predictions[0] | {"low": 0.0, "high": 9.0}]))
    ended(fake)
    (entry,) = book.refresh().entries
    (line,) = entry.lines()
    assert line.altered
    assert str(line.locked.prediction) == "val_loss=1.9..2.2@80%"  # as it was
    assert [(one.right, one.altered) for one in statements([entry])] == [(False, True)]
    assert "run.json says something else now" in notebook_markdown([entry])


def test_an_edit_of_run_json_does_not_reach_an_entry_that_is_there(outputs: Path) -> None:
    fake, book = predicted(outputs, "bar", "val_loss=1.9..2.2@80%"), lab_notebook(outputs)
    book.refresh()
    other = lock("run", [parse_prediction("val_loss=0..9@99%")])
    fake.run.write_info(replace(fake.run.info(), predictions=other))
    (entry,) = book.refresh().entries
    assert [str(line.locked.prediction) for line in entry.lines()] == ["val_loss=1.9..2.2@80%"]


def test_a_prediction_after_the_first_step_is_late(outputs: Path) -> None:
    fake, book = predicted(outputs, "bar", "val_loss=1.9..2.2@80%"), lab_notebook(outputs)
    book.predict(fake.run, [parse_prediction("overfits=no@70%")])  # it has not begun
    fake.start().advance(5, evaluate=False)
    entry = book.predict(fake.run, [parse_prediction("train_loss=1..2@70%")])
    assert [line.locked.at_step for line in entry.lines()] == [0, 0, 5]
    evaluated(fake.advance(15, evaluate=False), 3.0, 2.0).finish()
    (entry,) = book.refresh().entries
    assert len(statements([entry])) == 2
    with pytest.raises(UsageError, match="can no longer be predicted"):
        book.predict(fake.run, [parse_prediction("gap=0..1@70%")])


def test_a_run_that_was_stopped_waits_unless_it_is_scored_as_it_stands(outputs: Path) -> None:
    fake, book = predicted(outputs, "bar", "val_loss=1.9..2.2@80%"), lab_notebook(outputs)
    evaluated(fake.start().advance(10, evaluate=False), 2.1).stop()
    (entry,) = book.refresh().entries
    assert entry.state == OPEN
    assert book.score(entry).lines()[0].score is not None
    assert book.refresh().entries[0].state == DONE  # a hit needs no sentence


def test_an_entry_outlives_its_run_and_a_new_run_of_that_name_has_its_own(outputs: Path) -> None:
    book = lab_notebook(outputs)
    fake = ended(predicted(outputs, "bar", "val_loss=1.9..2.2@80%", created=1.0))
    (first,) = book.refresh().entries
    shutil.rmtree(fake.run.path)
    assert book.refresh().entries == [first]
    with pytest.raises(LabError, match="gone"):
        book.score(first)
    predicted(outputs, "bar", "val_loss=1..2@80%", created=2.0)
    second, again = book.refresh().entries
    assert again == first
    assert second.id != first.id


def test_damaged_files_cost_only_themselves(outputs: Path) -> None:
    book = lab_notebook(outputs)
    ended(predicted(outputs, "one", "val_loss=1.9..2.2@80%"))
    ended(predicted(outputs, "two", "val_loss=1.9..2.2@80%"))
    book.refresh()
    good = json.loads((book.folder / "run-two.json").read_text())
    for damage in ("", "{", "[]", json.dumps(good | {"predictions": 3}), json.dumps(good | {"format": 99})):
        (book.folder / "run-two.json").write_text(damage)
        contents = book.read()
        assert {entry.about: [bool(line.altered) for line in entry.lines()] for entry in contents.entries} == {
            "one": [False],
            "two": [True],  # as far as its seals tell
        }
        assert len(contents.damaged) == 1
        assert "run-two.json" in contents.damaged[0]
    assert book.refresh().entries == contents.entries  # a file that can be mended is not replaced
    (book.folder / "run-one.json").write_text(json.dumps(good | {"predictions": [{}, good["predictions"][0]]}))
    (entry,) = [entry for entry in book.read().entries if entry.id == "run-one"]
    assert [line.altered for line in entry.lines()] == [
        "its entry in the notebook says something else now",
        "its seal is missing from the notebook",
    ]


def test_damaged_predictions_and_runs_are_passed_over(outputs: Path) -> None:
    fake = ended(predicted(outputs, "bar", "val_loss=1.9..2.2@80%"))
    FakeRun(outputs, "hurt").run.run_json.write_text('{"predictions": [1], "settings": 3}')
    fake.run.write_info(replace(fake.run.info(), predictions=[{"quantity": "nonsense"}, *fake.run.info().predictions]))
    (entry,) = lab_notebook(outputs).refresh().entries
    first, added = entry.lines()
    assert (first.altered, first.score is not None) == ("run.json says something else now", True)
    assert (added.altered, added.found) == ("", LATE)  # nobody knows when it was stated
    assert [one.right for one in statements([entry])] == [False]


def test_an_experiment_is_scored_when_all_its_arms_have_ended(outputs: Path) -> None:
    findings = [Finding("best_lr", "best learning rate", 1e-3)]
    folder = experiment(outputs, findings, complete=False)
    locked = lock("experiment", [parse_prediction("best_lr=1e-2@60%")])
    folder.write_record(replace(folder.record(), predictions=locked))
    book = lab_notebook(outputs)
    assert book.refresh().entries[0].state == OPEN
    results = json.loads(folder.results_json.read_text()) | {"complete": True}
    folder.results_json.write_text(json.dumps(results))
    (entry,) = book.refresh().entries
    (line,) = entry.lines()
    assert not line.altered
    assert line.score is not None
    assert (line.score.outcome, line.score.right) == ("0.001", False)
    assert line.score.surprise == pytest.approx(2.321928)  # 0.4 over two other rates: log2(1 / 0.2)


def test_a_judgement_must_fit_what_is_judged(outputs: Path) -> None:
    ended(predicted(outputs, "bar", "val_loss=1.9..2.2@80%", "text=It works@60%", "layer=3@50%"))
    book = lab_notebook(outputs)
    (entry,) = book.refresh().entries
    with pytest.raises(UsageError, match="not entered by hand"):
        book.judge(entry, 0, "right")
    with pytest.raises(UsageError, match="right or wrong"):
        book.judge(entry, 1, "perhaps")
    with pytest.raises(UsageError, match="no prediction 9"):
        book.judge(entry, 8, "right")
    assert book.judge(entry, 2, "3").lines()[2].score.right is True
    with pytest.raises(UsageError, match="1000 characters"):
        book.learn(entry, "x" * 1001)
    with pytest.raises(UsageError, match="Did you mean bar"):
        book.find("baz")


def test_the_exported_file_holds_all_of_it(outputs: Path) -> None:
    ended(predicted(outputs, "bar", "val_loss=1..1.2@80%", "text=A *wild* | guess@60%"))
    book = lab_notebook(outputs)
    (entry,) = book.refresh().entries
    book.judge(entry, 1, "right")
    book.learn(entry, "Losses fall <slowly>.")
    text = notebook_markdown(book.read().entries)
    assert "## Calibration" in text
    assert "1 of 2 came true" in text
    assert "Losses fall \\<slowly\\>." in text
    assert "A \\*wild\\* \\| guess" in text
    assert "a great surprise" in text
    rows = [line for line in text.splitlines() if line.startswith("|") and "sure" in line]
    assert [row.replace("\\|", "").count("|") for row in rows] == [8, 8]


def test_nothing_is_made_where_nothing_was_predicted(outputs: Path) -> None:
    FakeRun(outputs, "bar").start().advance(20).finish()
    assert lab_notebook(outputs).refresh().entries == []
    assert not (outputs / "notebook").exists()


@pytest.mark.parametrize(
    "damage",
    [
        {"low": math.nan},
        {"low": -(10**400)},
        {"locked_at": 10**400},
        {"locked_at": math.nan},
        {"confidence": math.nan},
        {"created": math.nan},
        {"created": 1e300},
        {"created": 10**400},
    ],
    ids=str,
)
def test_a_damaged_file_of_one_run_takes_nothing_from_the_others(outputs: Path, damage: dict[str, float]) -> None:
    ended(predicted(outputs, "good", "val_loss=1.9..2.2@80%"))
    bad = ended(predicted(outputs, "bad", "val_loss=1.9..2.2@80%"))
    values = json.loads(bad.run.run_json.read_text())
    (values if "created" in damage else values["predictions"][0]).update(damage)
    bad.run.run_json.write_text(json.dumps(values))
    for _ in range(2):
        entries = lab_notebook(outputs).refresh().entries
        assert [entry.state for entry in entries if entry.about == "good"] == [DONE]
    assert len(entries) <= 2
    notebook_markdown(entries)


@pytest.mark.parametrize(
    "line",
    [
        "val_loss=-1e308..1e308@80%",
        "val_loss=1.7e308..1.75e308@80%",
        "val_loss=0..5e-324@80%",
        "tokens_per_second=1000000000000000..1000000000000001@80%",
    ],
)
def test_ranges_as_wide_or_narrow_as_numbers_can_be_are_scored(outputs: Path, line: str) -> None:
    ended(predicted(outputs, "bar", line))
    (entry,) = lab_notebook(outputs).refresh().entries
    assert entry.state in (DONE, TO_LEARN)  # scored
    notebook_markdown([entry])


def test_events_that_cannot_be_read_are_a_sentence_and_take_nothing_from_other_runs(outputs: Path) -> None:
    fake = ended(predicted(outputs, "broken", "val_loss=1.9..2.2@80%"))
    ended(predicted(outputs, "sound", "val_loss=1.9..2.2@80%"))
    fake.run.events.unlink()
    fake.run.events.mkdir()  # as any error of reading
    contents = lab_notebook(outputs).refresh()
    assert {entry.about: entry.scored_at is not None for entry in contents.entries} == {"broken": False, "sound": True}
    (sentence,) = contents.damaged
    assert sentence.startswith(f"broken: {fake.run.events} cannot be read. Is a directory.")
