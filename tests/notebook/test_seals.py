"""What was stated, and its outcome, cannot be taken back: an edit shows everywhere, and counts as a miss."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fakes import FakeRun
from forks import Fork
from preset_settings import resolve_settings
from test_claims import begun, judged
from test_notebook import ended, predicted
from test_outcomes import experiment

from llmlab.cli.main import main
from llmlab.cli.notebook import tell_outcomes
from llmlab.jobs.launcher import create_run
from llmlab.notebook import notebook
from llmlab.notebook.entries import Entry, statements
from llmlab.notebook.locked import lock, read_locked
from llmlab.notebook.markdown import notebook_markdown
from llmlab.notebook.predictions import parse_prediction
from llmlab.notebook.seals import BEFORE, BROKEN, CHAIN, NOTEBOOK, Chain, read_chain
from llmlab.store.events import Evaluated, to_line
from llmlab.store.run_folder import RunFolder, RunInfo
from llmlab.store.worker_folder import WorkerFolder
from llmlab.studies.experiments.outcomes import Finding, read_results
from llmlab.studies.lab_notebook import lab_notebook
from llmlab.studies.papers.records import read_result
from llmlab.studies.report import write_check_report, write_report

KINDS = ("run", "experiment", "check")


@dataclass(frozen=True)
class Story:
    """Something about which one thing was predicted with 80 %, and which will come true, and how it ends."""

    kind: str
    about: str
    record: Path
    end: Callable[[], object]
    report: Callable[[], str] | None

    def edit(self, **changes: Any) -> None:
        """Changes the prediction in its record; without changes, takes it out."""
        values = json.loads(self.record.read_text())
        values["predictions"] = [values["predictions"][0] | changes] if changes else []
        self.record.write_text(json.dumps(values))


@pytest.fixture(params=KINDS)
def story(outputs: Path, request: pytest.FixtureRequest) -> Story:
    """Sealed, and not begun."""
    made = _story(outputs, request.param)
    lab_notebook(outputs).refresh()
    return made


def _story(outputs: Path, kind: str) -> Story:
    if kind == "run":
        fake = predicted(outputs, "bar", "val_loss=1.9..2.2@80%")
        return Story(kind, "bar", fake.run.run_json, lambda: ended(fake), None)
    if kind == "experiment":
        folder = experiment(outputs, [Finding("best_lr", "best learning rate", 1e-3)], complete=False)
        locked = lock(kind, [parse_prediction("best_lr=1e-3@80%")])
        folder.write_record(replace(folder.record(), predictions=locked))

        def end() -> None:
            results = json.loads(folder.results_json.read_text()) | {"complete": True}
            folder.results_json.write_text(json.dumps(results))

        def report() -> str:
            results = read_results(folder)
            assert results is not None
            return write_report(folder, folder.record(), results).read_text()

        return Story(kind, "lr", folder.experiment_json, end, report)
    check = begun(outputs, "keys=supported@80%")
    return Story(
        kind,
        "tunnel",
        check.experiment_json,
        lambda: judged(check, keys="supported"),
        lambda: write_check_report(check, check.record(), read_result(check.results_json)).read_text(),
    )


def entry_of(outputs: Path) -> Entry:
    (entry,) = lab_notebook(outputs).refresh().entries
    return entry


def assert_shown_as_altered(
    outputs: Path, story: Story, capsys: pytest.CaptureFixture[str], *, record: bool = True
) -> None:
    """In the list, in the entry, in the closing line, in the export, in the report, and a miss in the calibration.

    record: the report tells it, too: the prediction itself was changed.
    """

    def said(*words: str) -> str:
        capsys.readouterr()
        assert main(["notebook", *words, "--outputs", str(outputs)]) == 0
        return capsys.readouterr().out

    row = next(line for line in said("list").splitlines() if line.startswith(story.about))
    assert "altered" in row
    assert not any(word in row for word in ("inside", "right"))
    assert "Altered: " in said("show", story.about)
    tell_outcomes(WorkerFolder(story.record.parent), json.loads(story.record.read_text())["created"], as_json=False)
    closing = capsys.readouterr().out
    assert "Altered: " in closing
    assert "80 % sure" in closing  # what was stated, and not what it was made
    assert "altered" in notebook_markdown(lab_notebook(outputs).refresh().entries)
    if story.report is not None and record:
        assert "Altered: " in story.report()
    found = json.loads(said("calibration", "--json"))
    assert (found["count"], found["right"]) == (1, 0)
    assert found["brier"] == pytest.approx(0.64)
    assert "1 was altered and counts as a miss" in said("calibration")


def test_a_prediction_that_is_held_counts_as_it_was_stated(outputs: Path, story: Story) -> None:
    story.end()
    (line,) = entry_of(outputs).lines()
    assert not line.altered
    assert line.score is not None
    assert line.score.right


@pytest.mark.parametrize("edit", ["narrower", "removed"])
def test_a_prediction_edited_after_the_start_is_altered(
    outputs: Path, story: Story, edit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    story.edit(**({"confidence": 0.99} if edit == "narrower" else {}))
    story.end()
    assert_shown_as_altered(outputs, story, capsys)


def test_a_prediction_edited_after_the_end_is_altered(
    outputs: Path, story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    story.end()
    entry_of(outputs)
    story.edit(confidence=0.99)
    assert_shown_as_altered(outputs, story, capsys)


def test_a_score_edited_is_altered(outputs: Path, story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    story.end()
    path = lab_notebook(outputs).folder / f"{entry_of(outputs).id}.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"scores": [values["scores"][0] | {"surprise": 9.0}]}))
    assert_shown_as_altered(outputs, story, capsys, record=story.kind == "experiment")
    lab_notebook(outputs).learn(entry_of(outputs), "Much.")  # what was edited in the file is not sealed
    assert_shown_as_altered(outputs, story, capsys, record=story.kind == "experiment")


def test_an_entry_removed_by_hand_is_shown(outputs: Path, story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    story.end()
    (lab_notebook(outputs).folder / f"{entry_of(outputs).id}.json").unlink()
    assert_shown_as_altered(outputs, story, capsys)


def hashed(values: Any) -> str:
    """As whoever forges a line makes it."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def chain_of(outputs: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (outputs / NOTEBOOK / CHAIN).read_text().splitlines()]


def write_chain(outputs: Path, seals: list[dict[str, Any]]) -> None:
    (outputs / NOTEBOOK / CHAIN).write_text("".join(json.dumps(seal) + "\n" for seal in seals))


@pytest.mark.parametrize("what", ["predicted", "scored"])
def test_a_seal_edited_is_altered(outputs: Path, story: Story, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    story.end()
    entry_of(outputs)
    seals = chain_of(outputs)
    (seal,) = [seal for seal in seals if seal["what"] == what]
    seal["values"] |= {"choice": "not supported"} if what == "predicted" else {"surprise": 9.0}
    write_chain(outputs, seals)
    assert_shown_as_altered(outputs, story, capsys)


@pytest.mark.parametrize("place", [0, 1])
def test_a_seal_taken_out_is_missed(
    outputs: Path, story: Story, place: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last one, too, that no other names: the entry was written after it."""
    story.end()
    entry_of(outputs)
    seals = chain_of(outputs)
    del seals[place]
    write_chain(outputs, seals)
    assert_shown_as_altered(outputs, story, capsys)
    damaged = lab_notebook(outputs).read().damaged
    assert len(damaged) == (place == 0)
    assert all("1 seal is missing from the notebook" in sentence for sentence in damaged)


def test_a_line_whose_hash_does_not_fit_is_broken_also_where_nothing_follows_it(outputs: Path) -> None:
    predicted(outputs, "bar", "val_loss=1.9..2.2@80%")
    entry_of(outputs)
    (seal,) = chain_of(outputs)
    write_chain(outputs, [seal | {"created": seal["created"] + 1}])
    (read,) = read_chain(outputs / NOTEBOOK).seals
    assert read.found == BROKEN


def test_an_edit_of_all_three_places_breaks_what_was_sealed_later(outputs: Path) -> None:
    """Record, entry and seal say the same, with hashes that fit: the next seal still names the old one."""
    first, book = predicted(outputs, "first", "val_loss=1.0..1.2@80%"), lab_notebook(outputs)
    ended(predicted(outputs, "second", "val_loss=1.9..2.2@80%"))
    book.refresh()
    (forged,) = lock("run", [parse_prediction("val_loss=1.9..2.2@80%")])
    forged |= {"locked_at": first.run.info().predictions[0]["locked_at"]}
    forged["seal"] = hashed(["run", forged["locked_at"], 0, read_locked(forged).prediction.as_dict()])
    first.run.write_info(replace(first.run.info(), predictions=[forged]))
    path = book.folder / "run-first.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"predictions": [forged]}))
    seals = chain_of(outputs)
    assert seals[0]["entry"] == "run-first"
    seals[0] |= {"values": forged, "hash": ""}
    seals[0]["hash"] = hashed(seals[0])
    write_chain(outputs, seals)
    ended(first)
    entries = {entry.about: entry for entry in book.refresh().entries}
    assert [line.altered for line in entries["first"].lines()] == ["its seal in the notebook was changed"]
    assert [line.altered for line in entries["second"].lines()] == [""]
    assert {one.right for one in statements([entries["first"]])} == {False}


def test_a_seal_put_in_between_is_altered(outputs: Path) -> None:
    ended(predicted(outputs, "first", "val_loss=1.0..1.2@80%"))
    lab_notebook(outputs).refresh()
    first, second = chain_of(outputs)
    forged = first | {"number": 2, "previous": first["hash"], "place": 1, "hash": ""}
    forged["hash"] = hashed(forged)
    write_chain(outputs, [first, forged, second])
    held, added = entry_of(outputs).lines()
    assert (held.altered, added.altered) == ("", "its seal in the notebook was changed")


def test_where_a_run_is_made_its_predictions_are_sealed_at_once(outputs: Path) -> None:
    run = create_run(outputs, resolve_settings("baby"), name="bar", predictions=[parse_prediction("val_loss=1..2@80%")])
    (seal,) = chain_of(outputs)
    assert (seal["about"], seal["values"], seal["found"]) == ("pretraining/bar", run.info().predictions[0], "")
    begun(outputs, "keys=supported@80%")
    assert [seal["subject"] for seal in chain_of(outputs)] == ["run", "check"]
    run.write_info(replace(run.info(), predictions=[]))  # before anybody looked into the notebook
    lines = {entry.about: entry.lines() for entry in lab_notebook(outputs).refresh().entries}
    assert [str(line.locked.prediction) for line in lines["bar"]] == ["val_loss=1..2@80%"]
    assert lines["bar"][0].altered == "run.json says something else now"
    assert not lines["tunnel"][0].altered


def test_what_is_first_sealed_after_its_first_step_does_not_count(outputs: Path) -> None:
    """Somebody wrote it into run.json, with a hash that fits."""
    fake = ended(FakeRun(outputs, "bar", steps=20))
    fake.run.write_info(replace(fake.run.info(), predictions=lock("run", [parse_prediction("val_loss=2..2.1@99%")])))
    entry = entry_of(outputs)
    assert [line.altered for line in entry.lines()] == [""]
    assert statements([entry]) == []
    assert "sealed only after the first step" in notebook_markdown([entry])


def test_what_was_learned_and_judged_may_change(outputs: Path) -> None:
    ended(predicted(outputs, "bar", "text=It works@60%"))
    book = lab_notebook(outputs)
    entry = entry_of(outputs)
    for outcome in ("wrong", "right"):
        entry = book.learn(book.judge(entry, 0, outcome), f"It was {outcome}.")
        assert [(line.altered, line.score and line.score.outcome) for line in entry.lines()] == [("", outcome)]
    path = book.folder / "run-bar.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"learned": "Edited by hand.", "title": "Other"}))
    assert not any(line.altered for line in entry_of(outputs).lines())
    assert [seal["what"] for seal in chain_of(outputs)] == ["predicted", "scored", "scored"]


def test_a_run_that_was_renamed_keeps_its_entry(outputs: Path) -> None:
    fake, book = predicted(outputs, "bar", "val_loss=1.9..2.2@80%", created=5.0), lab_notebook(outputs)
    before = entry_of(outputs)
    fake.run.path.rename(fake.run.path.with_name("baz"))
    fake.run = RunFolder(fake.run.path.with_name("baz"))
    predicted(outputs, "bar", "val_loss=1..2@80%", created=6.0)  # the name is free
    new, after = book.refresh().entries
    assert (after.id, after.about) == (before.id, "baz")
    assert (new.about, new.id == before.id) == ("bar", False)
    ended(fake)
    (line,) = book.refresh().entries[1].lines()
    assert (line.altered, line.score is not None) == ("", True)


def test_a_score_that_was_sealed_stays_though_its_program_was_killed_before_it_wrote_the_entry(outputs: Path) -> None:
    fake, book = predicted(outputs, "bar", "val_loss=1.9..2.2@80%"), lab_notebook(outputs)
    path = outputs / NOTEBOOK / f"{entry_of(outputs).id}.json"
    before = path.read_text()
    ended(fake, 2.05)
    book.refresh()
    path.write_text(before)
    fake.run.events.write_text(fake.run.events.read_text().replace("2.05", "2.95"))
    for entry in (entry_of(outputs), entry_of(outputs)):
        (line,) = entry.lines()
        assert line.score is not None
        assert (line.altered, line.score.outcome, line.score.right) == ("", 2.05, True)
    assert [seal["what"] for seal in chain_of(outputs)] == ["predicted", "scored"]


def test_a_new_entry_takes_no_id_that_was_sealed(outputs: Path) -> None:
    fake = ended(predicted(outputs, "bar", "val_loss=1.9..2.2@80%", created=5.0))
    path = outputs / NOTEBOOK / f"{entry_of(outputs).id}.json"
    path.unlink()
    shutil.rmtree(fake.run.path)
    predicted(outputs, "bar", "val_loss=1..2@80%", created=6.0)
    new, old = lab_notebook(outputs).refresh().entries
    assert (old.id == path.stem, new.id == path.stem) == (True, False)
    assert ["" if not line.altered else "altered" for entry in (new, old) for line in entry.lines()] == ["", "altered"]


def test_a_run_that_was_renamed_by_hand_is_not_taken_for_its_copy(outputs: Path) -> None:
    """They were made at the same moment, and only one of them has the second prediction."""
    run, book = predicted(outputs, "bar", "val_loss=1.9..2.2@80%").run, lab_notebook(outputs)
    backup = shutil.copytree(run.path, outputs / "backup")
    before = book.predict(run, [parse_prediction("overfits=yes@70%")])
    run.path.rename(run.path.with_name("beer"))
    backup.rename(run.path.with_name("old"))
    (run.path.with_name("old") / "run.json").touch()  # looked at first
    entries = book.refresh().entries
    assert [line.altered for entry in entries for line in entry.lines() if line.altered] == []
    assert next(entry.id for entry in entries if entry.about == "beer") == before.id


def old_folder(outputs: Path) -> FakeRun:
    """As version 0.4 left it: hashes with the name in them, entries of format 1, no seals."""
    fake = ended(FakeRun(outputs, "bar", steps=20))
    prediction = parse_prediction("val_loss=1.9..2.2@80%")
    locked = {**prediction.as_dict(), "locked_at": 1.7e9, "at_step": 0}
    locked["seal"] = hashed(["run", "bar", 1.7e9, 0, prediction.as_dict()])
    fake.run.write_info(replace(fake.run.info(), predictions=[locked]))
    score = {"outcome": 2.05, "right": True, "brier": 0.04, "surprise": 0.0, "error": 0.0, "distance": 0.0}
    entry = Entry("run-bar", "run", "bar", str(fake.run.path), "A run", fake.created, 20, [locked], [score])
    (outputs / NOTEBOOK).mkdir()
    plain = replace(entry, scored_at=1.8e9, learned="Much.", format=1).as_dict()
    (outputs / NOTEBOOK / "run-bar.json").write_text(json.dumps(plain))
    return fake


def test_a_notebook_from_before_there_were_seals_is_shown_as_it_is_and_sealed(outputs: Path) -> None:
    fake, book = old_folder(outputs), lab_notebook(outputs)
    for contents in (book.read(), book.refresh(), book.refresh()):
        (entry,) = contents.entries
        (line,) = entry.lines()
        assert (line.altered, line.found, entry.learned, contents.damaged) == ("", BEFORE, "Much.", [])
        assert [one.right for one in statements([entry])] == [True]
        assert "made before version 0.5" in notebook_markdown([entry])
    assert [seal["what"] for seal in chain_of(outputs)] == ["predicted", "scored"]
    fake.run.write_info(replace(fake.run.info(), predictions=[]))
    assert entry_of(outputs).lines()[0].altered


def test_a_run_of_an_earlier_version_that_was_renamed_by_hand_is_not_altered(outputs: Path) -> None:
    fake = old_folder(outputs)
    fake.run.path.rename(fake.run.path.with_name("beer"))
    entry = entry_of(outputs)
    assert (entry.about, entry.full_name) == ("beer", "pretraining/beer")
    assert [(line.altered, line.found) for line in entry.lines()] == [("", BEFORE)]


def test_an_old_prediction_that_was_edited_before_it_was_sealed_is_altered(outputs: Path) -> None:
    fake = old_folder(outputs)
    (locked,) = fake.run.info().predictions
    fake.run.write_info(replace(fake.run.info(), predictions=[locked | {"low": 2.0}]))
    assert entry_of(outputs).lines()[0].altered == "run.json says something else now"
    (outputs / NOTEBOOK / CHAIN).unlink()
    (outputs / NOTEBOOK / "run-bar.json").unlink()
    assert entry_of(outputs).lines()[0].altered == "it was changed after it was locked"


@pytest.mark.slow
def test_a_program_killed_before_or_after_any_write_leaves_nothing_that_looks_altered(tmp_path: Path) -> None:
    """Every replacement of a file, from the run that is made to its score and what was learned."""

    def live(outputs: Path) -> None:
        run = create_run(
            outputs, resolve_settings("baby"), name="bar", predictions=[parse_prediction("text=It works@60%")]
        )
        book = lab_notebook(outputs)
        book.predict(run, [parse_prediction("val_loss=1..9@80%")])
        run.write_status(replace(run.recorded_status(), state="finished", step=20))
        run.events.write_text(to_line(Evaluated(20, 1.0, 1.9, 2.05, True, 0.1)))
        (entry,) = book.refresh().entries
        book.judge(entry, 0, "right")
        book.learn(book.find("bar"), "Much.")

    really = os.replace
    deaths = 0
    for moment in range(2 * 100):
        outputs = tmp_path / str(moment)
        outputs.mkdir()

        def die(source: Path, target: Path, left: list[int] = [moment]) -> None:  # noqa: B006
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            really(source, target)
            if left[0] == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 2

        def work(outputs: Path = outputs, die: Callable[[Path, Path], None] = die) -> int:
            with mock.patch.object(os, "replace", die):
                live(outputs)
            return 0

        code = Fork(work).wait()
        book = lab_notebook(outputs)
        for contents in (book.read(), book.refresh(), book.refresh()):
            assert contents.damaged == []
            assert [line.altered for entry in contents.entries for line in entry.lines() if line.altered] == []
            assert len(contents.entries) <= 1
        if code == 0:
            break
        assert code == -signal.SIGKILL
        deaths += 1
    assert deaths >= 16
    assert {
        (line.locked.prediction.quantity, line.score and line.score.right) for line in entry_of(outputs).lines()
    } == {("text", True), ("val_loss", True)}


def test_a_prediction_is_not_lost_where_another_program_is_writing_run_json(outputs: Path) -> None:
    fake, (began, begin) = FakeRun(outputs, "bar"), os.pipe()

    def predict() -> int:
        os.write(begin, b".")
        lab_notebook(outputs).predict(fake.run, [parse_prediction("val_loss=1..2@80%")])
        return 0

    def change(info: RunInfo) -> RunInfo:
        workers.append(Fork(predict))
        os.read(began, 1)
        return replace(info, threads=7)

    workers: list[Fork] = []
    fake.run.change_info(change)
    assert workers[0].wait() == 0
    assert (fake.run.info().threads, len(fake.run.info().predictions)) == (7, 1)
    assert not entry_of(outputs).lines()[0].altered


@pytest.mark.slow
def test_two_programs_at_once_make_one_chain(outputs: Path) -> None:
    def work(name: str) -> int:
        for number in range(8):
            create_run(
                outputs,
                resolve_settings("baby"),
                name=f"{name}-{number}",
                predictions=[parse_prediction(f"val_loss=1..{number + 2}@80%")],
            )
            lab_notebook(outputs).refresh()
        return 0

    workers = [Fork(lambda name=name: work(name)) for name in ("a", "b")]
    assert [worker.wait() for worker in workers] == [0, 0]
    contents = lab_notebook(outputs).refresh()
    assert contents.damaged == []
    assert len(contents.entries) == 16
    assert not [line for entry in contents.entries for line in entry.lines() if line.altered or line.found]
    assert [seal["number"] for seal in chain_of(outputs)] == list(range(1, 17))


@pytest.mark.parametrize("known", [True, False], ids=["an entry is there", "none is"])
def test_whoever_reads_while_another_program_scores_sees_nothing_altered(
    outputs: Path, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    book, fake = lab_notebook(outputs), predicted(outputs, "bar", "val_loss=1.9..2.2@80%")
    if known:
        book.refresh()
    real, scored = notebook.read_chain, []

    def read(folder: Path) -> Chain:
        chain = real(folder)
        if not scored:  # by another program, as soon as the reader has the seals
            scored.append(True)
            ended(fake)
            lab_notebook(outputs).refresh()
        return chain

    monkeypatch.setattr(notebook, "read_chain", read)
    (entry,) = book.read().entries
    assert scored
    assert [line.altered for line in entry.lines()] == [""]


DEEP = "[" * 100_000 + "]" * 100_000
HOSTILE = {
    "deep": DEEP,
    "deep inside": '{"predictions": [{"quantity": ' + DEEP + "}]}",
    "nested values": '{"predictions": [{"more": ' + "[" * 900 + "]" * 900 + "}]}",
    "sealed": '{"sealed": {"0": 3}}',
    "no moment": '{"created": 1e300}',
    "numbers": '{"predictions": [{"at_step": 1e400, "locked_at": NaN}], "scores": [{"outcome": NaN}]}',
    "types": '{"predictions": 3, "scores": "x", "judged": []}',
    "no text": "\x00\x01",
    "no names": "[3]",
}


@pytest.mark.parametrize("damage", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_entry_or_seal_costs_only_itself(
    outputs: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("good", "bad"):
        ended(predicted(outputs, name, "val_loss=1.9..2.2@80%"))
    book = lab_notebook(outputs)
    book.refresh()
    path = book.folder / "run-bad.json"
    text = path.read_text()
    whole = json.dumps(json.loads(text) | {"marker": 0})
    path.write_text(whole[:-1] + "," + damage[1:] if damage.startswith("{") else damage)
    seals = (book.folder / CHAIN).read_text().splitlines()
    (book.folder / CHAIN).write_text("\n".join([*seals, damage, '{"what": "predicted", "place": 1e9}', ""]))
    for words in ((), ("show", "good"), ("score",), ("calibration",), ("export", str(outputs / "all.md"))):
        assert main(["notebook", *words, "--outputs", str(outputs)]) == 0
    assert main(["notebook", "--json", "--outputs", str(outputs)]) == 0
    good = next(entry for entry in book.refresh().entries if entry.about == "good")
    assert [bool(line.altered) for line in good.lines()] == [False]


def test_what_a_program_reads_from_the_result_is_not_judged_by_hand(outputs: Path) -> None:
    fake, book = predicted(outputs, "bar", "val_loss=1.0..1.2@80%"), lab_notebook(outputs)
    path = book.folder / f"{entry_of(outputs).id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"judged": {"0": "1.1"}}))
    ended(fake)
    (line,) = entry_of(outputs).lines()
    assert (line.score and line.score.outcome) == 2.05


def test_seals_that_cannot_be_read_are_a_sentence_and_hinder_no_run(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = outputs / NOTEBOOK
    folder.mkdir()
    os.mkfifo(folder / CHAIN)
    run = create_run(outputs, resolve_settings("baby"), name="bar", predictions=[parse_prediction("val_loss=1..2@80%")])
    assert main(["notebook", "--outputs", str(outputs)]) == 1
    assert "The seals of the notebook cannot be read." in capsys.readouterr().err
    assert main(["show", "bar", "--outputs", str(outputs)]) == 0
    assert "final validation loss: 1 to 2, 80 % sure" in capsys.readouterr().out
    (folder / CHAIN).unlink()
    (line,) = entry_of(outputs).lines()
    assert (line.altered, line.found, line.locked.as_dict()) == ("", "", run.info().predictions[0])


def test_missing_seals_are_said_with_every_command(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended(predicted(outputs, "bar", "val_loss=1.9..2.2@80%"))
    entry_of(outputs)
    write_chain(outputs, chain_of(outputs)[1:])
    commands = (("list",), ("calibration",), ("show", "bar"), ("export", str(outputs / "all.md")), ("score",))
    for words in (*commands, ("score", "bar"), ("learned", "bar", "Much.")):
        assert main(["notebook", *words, "--outputs", str(outputs)]) == 0
        assert "1 seal is missing from the notebook" in capsys.readouterr().err
