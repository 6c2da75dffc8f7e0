"""The Diagnose dock: a mystery is started, evidence is kept, an answer is scored, and the seal is opened."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeRun
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot
from waits import WAIT
from whole_lab import WholeLab
from windows import shown

from llmlab.core.mystery_settings import MysterySettings
from llmlab.core.settings import PretrainSettings
from llmlab.jobs.launcher import create_run
from llmlab.mysteries import case as mysteries
from llmlab.mysteries.faults import NOTHING, fault_of
from llmlab.store.run_folder import RunFolder
from llmlab_gui.diagnose import dock as diagnose
from llmlab_gui.diagnose.dock import REVEAL, DiagnoseDock
from llmlab_gui.host.messages import ModelAbout
from llmlab_gui.lab.training_now import TrainingNow


@pytest.fixture
def trained(lab: WholeLab, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the runs that would be trained: no worker is started."""
    found: list[str] = []
    monkeypatch.setattr(lab.controller, "train_made", lambda run: found.append(run.id))
    return found


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """To the question what becomes of the runs that train: those that come first, then "beside"."""
    found: list[str] = []
    monkeypatch.setattr(TrainingNow, "ask", lambda *_: found.pop(0) if found else "beside")
    return found


@pytest.fixture
def dock(qtbot: QtBot, lab: WholeLab, trained: list[str], answers: list[str]) -> Iterator[DiagnoseDock]:
    made = shown(DiagnoseDock(lab), qtbot, 420, 560)
    yield made
    made.shutdown()


def _started(qtbot: QtBot, dock: DiagnoseDock, level: int = 1) -> RunFolder:
    dock.level.setCurrentIndex(level - 1)
    dock.start_button.click()
    qtbot.waitUntil(lambda: dock.case is not None)
    assert dock.run is not None
    return dock.run


def _cause(run: RunFolder) -> str:
    return fault_of(run.info().settings_as(MysterySettings).mystery.token).name


def test_a_mystery_goes_from_its_start_to_its_reveal_by_keyboard(
    qtbot: QtBot, outputs: Path, dock: DiagnoseDock, lab: WholeLab, trained: list[str]
) -> None:
    assert "Start one" in dock.standing.text()
    assert not dock.tabs.isVisible()
    run = _started(qtbot, dock, level=2)
    assert trained == [run.id]
    assert lab.current() is not None
    assert lab.current().id == run.full_name
    assert "level 2, middle" in dock.standing.text()
    assert not dock.tabs.isTabEnabled(REVEAL)

    evidence = dock.evidence
    assert not evidence.marks.isVisibleTo(evidence)  # an empty list would not say what to do
    evidence.at.setText("120")
    QTest.keyClicks(evidence.note, "stands still")
    QTest.keyClick(evidence.note, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: evidence.marks.count() == 1)
    assert evidence.marks.item(0).text() == "loss@120  stands still"
    assert evidence.marks.isVisibleTo(evidence)
    with qtbot.waitSignal(lab.dock_requested) as asked:
        evidence.marks.setCurrentRow(0)
        evidence.marks.itemActivated.emit(evidence.marks.item(0))
    assert asked.args == ["loss"]

    causes, cause = dock.causes, _cause(run)
    assert list(causes.fields) == mysteries.case_of(run).candidates
    assert all(field.accessibleName() for field in causes.fields.values())
    assert not causes.answer_button.isEnabled()
    causes.fields[cause].setValue(60)
    assert causes.total.text() == "Together 60 %, of 100 %"
    causes.spread_button.click()
    assert sum(field.value() for field in causes.fields.values()) == 100
    causes.answer_button.click()
    qtbot.waitUntil(lambda: dock.tabs.currentIndex() == REVEAL)
    words = dock.reveal.toPlainText()
    fault = mysteries.revealed(run)
    assert f"It was: {fault.title}" in words
    assert "60 %" in words
    for broken in (cause, NOTHING):
        dock.case = replace(mysteries.case_of(run), cause=broken)
        dock._stand()
        assert dock.healthy_button.isHidden() == (broken == NOTHING)
    if fault.right:
        assert all(" ".join(lines.split()) in " ".join(words.split()) for lines in fault.lines())
    assert not any(field.isEnabled() for field in causes.fields.values())
    assert causes.total.isHidden()  # whose sum of rounded parts can be another than 100
    assert len(mysteries.scores(outputs)) == 1


def test_a_double_click_starts_one_mystery(qtbot: QtBot, dock: DiagnoseDock, trained: list[str]) -> None:
    qtbot.mouseClick(dock.start_button, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(dock.start_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(trained) == 1)
    qtbot.mouseClick(dock.start_button, Qt.MouseButton.LeftButton)  # its run was made between the two
    done: list[object] = []
    dock._background.run(lambda: None, done.append, done.append)  # behind whatever was started
    qtbot.waitUntil(lambda: bool(done))
    assert len(trained) == 1
    qtbot.waitUntil(dock.start_button.isEnabled)


def test_a_mystery_asks_what_becomes_of_a_run_that_trains(
    qtbot: QtBot, dock: DiagnoseDock, trained: list[str], answers: list[str]
) -> None:
    answers.append("cancel")
    dock.start()
    assert dock.start_button.isEnabled()
    dock.start()
    qtbot.waitUntil(lambda: len(trained) == 1)


def test_further_experiments_are_made_paid_for_and_shown_beside_each_other(
    qtbot: QtBot, dock: DiagnoseDock, lab: WholeLab, trained: list[str], answers: list[str]
) -> None:
    run = _started(qtbot, dock)
    answers.append("cancel")
    dock.evidence.questions["healthy"].click()
    assert not answers
    dock.evidence.questions["healthy"].click()
    qtbot.waitUntil(lambda: "2 of 4" in dock.evidence.budget.text())
    assert trained == [run.id, f"{run.id}-healthy"]
    assert dock.evidence.questions["healthy"].text() == "Healthy run"
    answers.append("cancel")
    dock.evidence.questions["healthy"].click()  # before its worker has begun: it is shown, and nothing is asked
    assert answers.pop() == "cancel"
    dock.evidence.questions["seed"].click()
    qtbot.waitUntil(lambda: "1 of 4" in dock.evidence.budget.text())
    assert not dock.evidence.questions["measure"].isEnabled()
    shown = [run.full_name, f"{run.full_name}-healthy", f"{run.full_name}-seed"]
    qtbot.waitUntil(lambda: lab.shown_runs() == shown)
    assert trained == [run.id, f"{run.id}-healthy", f"{run.id}-seed"]
    assert [row.id for row in dock.rows()] == [run.full_name]
    errors: list[object] = []
    lab.error_raised.connect(errors.append)
    dock.evidence.marked.emit("nowhere", "")
    qtbot.waitUntil(lambda: len(errors) == 1)
    assert "not a place for evidence" in str(errors[0])


def test_where_the_panels_show_another_run_or_model_that_is_said_and_a_button_brings_this_one(
    qtbot: QtBot, dock: DiagnoseDock, lab: WholeLab, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _started(qtbot, dock)
    assert not dock.bring_button.isVisible()
    for name in (f"{run.id}-seed", f"{run.id}0-healthy"):  # a further experiment; one of mystery-10
        create_run(outputs, MysterySettings(), name=name)
        lab.refresh()
        qtbot.waitUntil(lambda name=name: lab.row(f"mysteries/{name}") is not None)
        lab.set_current(f"mysteries/{name}")
        assert dock.run == run
        assert dock.bring_button.isVisible()
        assert f"The panels show {name}" in dock.standing.text()
    FakeRun(outputs, "tuned").start().advance(10).finish()
    lab.refresh()
    qtbot.waitUntil(lambda: lab.row("pretraining/tuned") is not None)
    lab.set_current("pretraining/tuned")
    assert dock.run == run
    assert "The panels show tuned" in dock.standing.text()
    dock.bring_button.click()
    assert lab.current().id == run.full_name
    assert not dock.bring_button.isVisible()
    assert "The panels" not in dock.standing.text()
    opened: list[str] = []
    monkeypatch.setattr(lab.inspection, "open", opened.append)
    for reference in (f"{outputs}/pretraining/tuned@latest", "/a/model.gguf", f"{run.path}@live"):
        lab.inspection.about = ModelAbout(reference, "some model", "live")
        lab.inspection.about_changed.emit()
        other = str(run.path) not in reference
        assert ("The model that is open is some model" in dock.standing.text()) == other
        assert dock.bring_button.isVisible() == other
        if other:
            dock.bring_button.click()
            assert opened.pop().startswith(f"{run.path}@")


def test_what_is_typed_in_is_kept_while_the_run_trains(qtbot: QtBot, dock: DiagnoseDock, lab: WholeLab) -> None:
    run = _started(qtbot, dock)
    dock.causes.fields["nothing"].setValue(30)
    dock.refresh()
    mysteries.mark(run, "lens")
    dock._read()
    qtbot.waitUntil(lambda: dock.evidence.marks.count() == 1)
    assert dock.causes.fields["nothing"].value() == 30


def _found(qtbot: QtBot, lab: WholeLab, run: RunFolder) -> RunFolder:
    lab.refresh()
    qtbot.waitUntil(lambda: lab.row(run.full_name) is not None)
    return run


def test_a_mystery_is_shown_without_what_another_had(
    qtbot: QtBot, dock: DiagnoseDock, lab: WholeLab, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, go = _started(qtbot, dock), threading.Event()
    mysteries.mark(first, "loss@10", "mine")
    second = mysteries.start(outputs, 1)
    mysteries.mark(second, "loss@50", "yours")
    _found(qtbot, lab, second)
    monkeypatch.setattr(diagnose, "_measure", lambda run, _: [f"{go.wait(WAIT / 1000)}, of {run.id}"])
    dock.ask("measure")
    dock._choose(second.full_name)
    qtbot.waitUntil(lambda: dock.evidence.marks.count() == 1)
    assert dock.evidence.marks.item(0).text() == "loss@50  yours"
    told: list[object] = []
    dock._measuring.run(lambda: None, told.append, told.append)  # after what was measured
    go.set()
    qtbot.waitUntil(lambda: bool(told))
    assert not dock.evidence.measures.text()
    damaged = mysteries.start(outputs, 1)
    (damaged.path / "mystery.json").write_text("{")
    _found(qtbot, lab, damaged)
    with qtbot.waitSignal(lab.error_raised):
        dock._choose(damaged.full_name)
    assert not dock.evidence.marks.count()
    assert not dock.causes.fields
    assert not dock.standing.text()
    dock._choose(first.full_name)
    qtbot.waitUntil(lambda: dock.evidence.marks.count() == 1)
    assert dock.evidence.marks.item(0).text() == "loss@10  mine"


def test_what_was_measured_is_paid_for_on_screen(
    qtbot: QtBot, dock: DiagnoseDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _started(qtbot, dock)
    monkeypatch.setattr(diagnose, "_measure", lambda run, _: [f"measured: {mysteries.ask(run, 'measure')}"])
    dock.evidence.questions["measure"].click()
    qtbot.waitUntil(lambda: dock.evidence.measures.text() == "measured: None")
    qtbot.waitUntil(lambda: "2 of 4" in dock.evidence.budget.text())


def test_a_note_that_cannot_be_kept_stays_where_it_was_written(qtbot: QtBot, dock: DiagnoseDock, lab: WholeLab) -> None:
    _started(qtbot, dock)
    dock.evidence.at.setText("the end")
    dock.evidence.note.setText("falls again")
    with qtbot.waitSignal(lab.error_raised):
        dock.evidence.add_button.click()
    assert dock.evidence.note.text() == "falls again"
    dock.evidence.at.setText("390")
    dock.evidence.add_button.click()
    qtbot.waitUntil(lambda: not dock.evidence.note.text())
    assert dock.evidence.marks.count() == 1


def test_where_a_mystery_was_deleted_another_is_shown(
    qtbot: QtBot, dock: DiagnoseDock, lab: WholeLab, outputs: Path
) -> None:
    gone = _started(qtbot, dock)
    other = _found(qtbot, lab, mysteries.start(outputs, 1))
    lab.set_current(_found(qtbot, lab, create_run(outputs, PretrainSettings(), name="plain")).full_name)
    shutil.rmtree(gone.path)
    lab.refresh()
    qtbot.waitUntil(lambda: dock.run == other and dock.case is not None)
    assert other.id in dock.standing.text()
