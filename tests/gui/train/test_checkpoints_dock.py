"""Checkpoints: what is on disk is shown, damaged or not; deleting, pinning, branching and exporting are safe."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_lab import FakeLab
from fakes import FakeRun
from preset_settings import resolve_settings
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QMessageBox, QToolButton
from pytestqt.qtbot import QtBot
from windows import dock_in_sight

from llmlab.core.config import with_values
from llmlab.core.errors import LabError
from llmlab.store.checkpoints import MODEL_FILE, list_checkpoints, read_checkpoint, set_pinned
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.notebook import asking
from llmlab_gui.train.branch_dialog import BranchDialog
from llmlab_gui.train.checkpoint_rows import plan_deletion, read_rows
from llmlab_gui.train.checkpoints import CheckpointsDock
from llmlab_gui.train.checkpoints_table import LOSS, STATE, STEP, WHY
from llmlab_gui.train.exporter import Exporter
from llmlab_gui.widgets.tab_order import stops


@pytest.fixture
def lab(qtbot: QtBot, tmp_path: Path) -> FakeLab:
    return FakeLab(tmp_path)


@pytest.fixture
def dock(qtbot: QtBot, lab: FakeLab) -> Iterator[CheckpointsDock]:
    with dock_in_sight(qtbot, CheckpointsDock(lab), 760, 500) as dock:
        yield dock


def saving(lab: FakeLab, *steps: int, name: str = "fake") -> FakeRun:
    """A live run with a checkpoint at each of these steps."""
    fake = FakeRun(lab.outputs, name, steps=1000).start()
    for step in steps:
        fake.advance(step - fake.step, evaluate=False).save_checkpoint()
    return fake


def shows(qtbot: QtBot, dock: CheckpointsDock, *steps: int) -> None:
    qtbot.waitUntil(lambda: [row.step for row in dock.model.rows] == list(steps))


def choose(dock: CheckpointsDock, *steps: int) -> None:
    dock.table.clearSelection()
    mode = dock.table.selectionMode()
    dock.table.setSelectionMode(dock.table.SelectionMode.MultiSelection)
    for place, row in enumerate(dock.model.rows):
        if row.step in steps:
            dock.table.selectRow(dock._proxy.mapFromSource(dock.model.index(place, 0)).row())
    dock.table.setSelectionMode(mode)
    assert [row.step for row in dock.selected()] == sorted(steps)


def answer_box(monkeypatch: pytest.MonkeyPatch, text: str) -> list[str]:
    """The next message boxes are answered by the button of that text; what they said is returned."""
    said: list[str] = []

    def exec_(box: QMessageBox) -> int:
        said.append(f"{box.text()} {box.informativeText()}")
        next(button for button in box.buttons() if button.text().replace("&", "") == text).click()
        return 0

    monkeypatch.setattr(QMessageBox, "exec", exec_)
    return said


def test_a_saved_checkpoint_appears_with_its_facts(qtbot: QtBot, lab: FakeLab, dock: CheckpointsDock) -> None:
    fake = lab.add(saving(lab, 100))
    shows(qtbot, dock, 100)
    assert [row.step for row in dock.selected()] == [100]
    lab.pump(fake.advance(100, evaluate=False).save_checkpoint(("best",)))
    shows(qtbot, dock, 100, 200)
    assert [row.step for row in dock.selected()] == [200]  # the newest, until a person chooses another one
    assert dock.model.index(1, WHY).data() == "best saved"
    assert dock.model.index(0, WHY).data() == "periodic"
    assert dock.model.index(1, LOSS).data() == f"{fake.losses_of(200)[1]:.4f}"
    choose(dock, 200)
    text = dock.details.toPlainText()
    assert "step-00000200" in text
    choose(dock, 100)
    lab.pump(fake.advance(100, evaluate=False).save_checkpoint())
    shows(qtbot, dock, 100, 200, 300)
    assert [row.step for row in dock.selected()] == [100]
    assert "800,000" in text  # parameters, from the manifest
    assert "sha256" in text


def test_the_newest_stays_chosen_once_a_person_has_clicked_on_it(
    qtbot: QtBot, lab: FakeLab, dock: CheckpointsDock
) -> None:
    fake = lab.add(saving(lab, 100))
    shows(qtbot, dock, 100)
    at = dock.table.visualRect(dock._proxy.index(0, 0)).center()
    qtbot.mouseClick(dock.table.viewport(), Qt.MouseButton.LeftButton, pos=at)
    lab.pump(fake.advance(100, evaluate=False).save_checkpoint(("best",)))
    shows(qtbot, dock, 100, 200)
    assert [row.step for row in dock.selected()] == [100]


def test_five_checkpoints_and_their_losses_are_in_sight_on_a_laptop(
    qtbot: QtBot, lab: FakeLab, dock: CheckpointsDock
) -> None:
    lab.add(saving(lab, 10, 20, 30, 40, 50, 60))
    shows(qtbot, dock, 10, 20, 30, 40, 50, 60)
    table = dock.table
    dock.resize(200, 249)
    QApplication.processEvents()
    for size in ((485, 249), (495, 274), (485, 400), (454, 500)):  # in Fine-tune and in Train at 1366 x 720, and higher
        dock.resize(*size)
        QApplication.processEvents()
        assert table.viewport().height() / table.verticalHeader().defaultSectionSize() >= 5, size
        for column in (STEP, LOSS, WHY):
            right = table.columnViewportPosition(column) + table.columnWidth(column)
            assert right <= table.viewport().width(), (size, column)
        assert dock.details.width() > 150
    dock.resize(485, 249)
    choose(dock, 60)
    QApplication.processEvents()
    buttons = [stop for stop in stops(dock.widget()) if isinstance(stop, QToolButton)]
    assert buttons[0].text() == "Generate with it"
    assert buttons[-1].objectName() == "qt_toolbar_ext_button"  # of what has no room
    assert "\nFolder step-00000060\n" in f"\n{dock.details.toPlainText()}"  # a line each: two columns broke the words


def test_a_folder_that_changes_without_an_event_is_noticed(qtbot: QtBot, lab: FakeLab, dock: CheckpointsDock) -> None:
    fake = lab.add(saving(lab, 100))
    shows(qtbot, dock, 100)
    fake.advance(50, evaluate=False).save_checkpoint()  # not pumped
    shows(qtbot, dock, 100, 150)
    assert len(dock.model.rows) == 2


def test_a_manifest_that_was_edited_is_not_called_unreadable(qtbot: QtBot, lab: FakeLab, dock: CheckpointsDock) -> None:
    fake = saving(lab, 100)
    (checkpoint,) = list_checkpoints(fake.run.checkpoints)
    manifest = checkpoint.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"step": 100', '"step": 101'))
    lab.add(fake)
    shows(qtbot, dock, 100)
    assert "is not what was saved" in (dock.model.rows[0].damage or "")


def test_damage_is_shown_with_its_reason_and_cannot_be_used(qtbot: QtBot, lab: FakeLab, dock: CheckpointsDock) -> None:
    fake = saving(lab, 100, 200, 300)
    folders = [checkpoint.path for checkpoint in list_checkpoints(fake.run.checkpoints)]
    (folders[0] / MODEL_FILE).write_bytes(b"short")
    (folders[1] / "manifest.json").write_text("{")
    lab.add(fake)
    shows(qtbot, dock, 100, 200, 300)
    assert [dock.model.index(row, STATE).data() for row in range(3)] == ["damaged", "damaged", "whole"]
    assert "5 bytes instead of 1000" in (dock.model.rows[0].damage or "")
    assert "cannot be read" in (dock.model.rows[1].damage or "")
    choose(dock, 100)
    assert not dock.actions_by_name["write"].isEnabled()
    assert not dock.actions_by_name["branch"].isEnabled()
    assert dock.actions_by_name["delete"].isEnabled()
    assert "5 bytes instead of 1000" in dock.details.toPlainText()


def test_verify_finds_a_changed_byte_that_sizes_do_not_show(qtbot: QtBot, lab: FakeLab, dock: CheckpointsDock) -> None:
    fake = saving(lab, 100, 200)
    path = fake.run.checkpoints / "step-00000200" / MODEL_FILE
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    lab.add(fake)
    shows(qtbot, dock, 100, 200)
    choose(dock, 100, 200)
    dock.actions_by_name["verify"].trigger()
    qtbot.waitUntil(lambda: dock.model.index(1, STATE).data() == "damaged")
    assert dock.model.index(0, STATE).data() == "verified"
    assert "sha256 differs" in dock.said.text()
    dock.reload()  # what was found out is remembered
    lab.pump(fake.advance(1, evaluate=False).save_checkpoint())
    shows(qtbot, dock, 100, 200, 201)
    assert dock.model.index(1, STATE).data() == "damaged"


def test_delete_key_asks_and_deletes_several(
    qtbot: QtBot, lab: FakeLab, dock: CheckpointsDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = lab.add(saving(lab, 100, 200, 300))
    shows(qtbot, dock, 100, 200, 300)
    choose(dock, 100, 200)
    said = answer_box(monkeypatch, "Cancel")
    with qtbot.waitActive(dock):
        dock.activateWindow()
    dock.table.setFocus()
    qtbot.keyClick(dock.table, Qt.Key.Key_Delete)
    assert len(said) == 1
    assert "Delete 2 checkpoints?" in said[0]
    assert len(list_checkpoints(fake.run.checkpoints)) == 3
    answer_box(monkeypatch, "Delete")
    qtbot.keyClick(dock.table, Qt.Key.Key_Delete)
    shows(qtbot, dock, 300)
    assert [checkpoint.step for checkpoint in list_checkpoints(fake.run.checkpoints)] == [300]
    assert [row.step for row in dock.selected()] == [300]  # the keyboard's next key has a row, too


def test_the_last_checkpoint_of_a_live_run_stays_and_says_why(
    qtbot: QtBot, lab: FakeLab, dock: CheckpointsDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = lab.add(saving(lab, 100))
    shows(qtbot, dock, 100)
    choose(dock, 100)
    said = answer_box(monkeypatch, "Delete")
    dock.delete()
    assert not said
    assert "start over" in lab.errors[-1].why
    lab.pump(fake.stop())
    choose(dock, 100)
    dock.delete()
    assert "neither resumed nor prompted" in said[0]
    shows(qtbot, dock)


def test_pinned_ones_and_the_newest_sound_one_are_left_out_of_a_deletion(lab: FakeLab) -> None:
    fake = saving(lab, 1, 2, 3)
    pinned = read_checkpoint(fake.run.checkpoints / "step-00000001")
    assert pinned is not None
    set_pinned(pinned, True)
    rows = read_rows(fake.run.checkpoints)
    live = plan_deletion(rows, rows, live=True)
    assert [row.step for row in live.rows] == [2, 3]  # the pinned one remains to go on from
    assert live.kept == ("step-00000001 is pinned. Unpin it first.",)
    set_pinned(pinned, False)
    rows = read_rows(fake.run.checkpoints)
    assert [row.step for row in plan_deletion(rows, rows, live=True).rows] == [1, 2]
    assert [row.step for row in plan_deletion(rows, rows, live=False).rows] == [1, 2, 3]


def test_pin_toggles(qtbot: QtBot, lab: FakeLab, dock: CheckpointsDock) -> None:
    fake = lab.add(saving(lab, 100))
    shows(qtbot, dock, 100)
    choose(dock, 100)
    dock.actions_by_name["pin"].trigger()
    qtbot.waitUntil(lambda: dock.model.rows[0].pinned)
    assert (fake.run.checkpoints / "step-00000100" / "pinned").exists()
    assert dock.actions_by_name["pin"].text() == "Unpin"
    dock.actions_by_name["pin"].trigger()
    qtbot.waitUntil(lambda: not dock.model.rows[0].pinned)


def test_double_click_writes_with_it(qtbot: QtBot, lab: FakeLab, dock: CheckpointsDock) -> None:
    lab.add(saving(lab, 100, 200))
    shows(qtbot, dock, 100, 200)
    place = dock.table.visualRect(dock._proxy.mapFromSource(dock.model.index(0, 0))).center()
    viewport = dock.table.viewport()
    with qtbot.waitSignal(lab.write_requested) as asked:
        qtbot.mouseClick(viewport, Qt.MouseButton.LeftButton, pos=place)
        qtbot.mouseDClick(viewport, Qt.MouseButton.LeftButton, pos=place)
    assert asked.args == ["pretraining/fake", "step-00000100"]


def test_a_branch_asks_for_what_differs(
    qtbot: QtBot, lab: FakeLab, dock: CheckpointsDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.add(saving(lab, 100))
    shows(qtbot, dock, 100)
    choose(dock, 100)

    def fill(dialog: BranchDialog) -> bool:
        dialog.name.setText("colder")
        dialog.steps.setValue(400)
        dialog.rate.setValue(0.0005)
        dialog.others.setPlainText("data.batch_size=24")
        return True

    monkeypatch.setattr(BranchDialog, "exec", fill)
    lab.overlaid, shown = list, list[list[str]]()
    lab.set_shown_runs = shown.append
    lab.notebook.set_asks(True)
    asked: list[str] = []
    predicted: list[object] = [None, [], [], []]  # first no answer: it is not to start
    monkeypatch.setattr(
        asking, "ask", lambda _parent, _book, about, *_, **__: (asked.append(about), predicted.pop(0))[1]
    )
    said = answer_box(monkeypatch, "Cancel")
    dock.actions_by_name["branch"].trigger()
    assert said == ["fake is training now. Two runs on one processor slow each other down several times over."]
    assert lab.controller.branched == asked == []
    answer_box(monkeypatch, "Pause it and start")
    dock.actions_by_name["branch"].trigger()
    assert lab.controller.branched == lab.controller.paused == []
    dock.actions_by_name["branch"].trigger()
    assert lab.controller.paused == ["fake"]
    changed = "batch size 24 instead of 12, learning rate 0.0005 instead of 0.001"
    assert asked[0].endswith(f"400 steps, of which 300 remain after the checkpoint; {changed}")
    assert shown == [["pretraining/fake"]]  # its curve is what the branch's goes on from
    lab.overlaid = lambda: ["pretraining/fake", "pretraining/chosen"]
    colder = saving(lab, 100, name="colder")
    colder.run.write_info(dataclasses.replace(colder.run.info(), parent={"run": "fake", "step": 100}))
    lab.add(colder)
    assert len(shown) == 1
    shows(qtbot, dock, 100)
    choose(dock, 100)
    answer_box(monkeypatch, "Start beside them")
    dock.actions_by_name["branch"].trigger()
    assert lab.controller.paused == ["fake"]
    assert shown[1:] == [["pretraining/colder", "pretraining/chosen"]]  # not beside a branch of its branch
    lab.overlaid = lambda: ["pretraining/colder", "pretraining/chosen"]
    # The window is closed here, and opened on another run.
    settings = WindowSettings(lab.outputs / "settings.ini")
    dock.remember(settings)
    dock.shutdown()
    lab.add(FakeRun(lab.outputs, "other").start())
    shown.clear()
    again = CheckpointsDock(lab)
    qtbot.addWidget(again)
    again.remember(settings)
    assert shown == [["pretraining/chosen"]]  # it is no longer beside a run that has nothing to do with it
    again.shutdown()
    changes = {"train.steps": "400", "train.learning_rate": "0.0005", "data.batch_size": "24"}
    assert lab.controller.branched[0] == ("fake", "step-00000100", changes, "colder")


def test_a_branch_with_a_wrong_setting_cannot_be_started(qtbot: QtBot, lab: FakeLab) -> None:
    dialog = BranchDialog(saving(lab, 100).settings, "fake", 100)
    qtbot.addWidget(dialog)
    assert dialog.overrides() == {}
    dialog.show()
    assert dialog.rate.text() == "0.001"  # no zeros behind it
    dialog.others.setPlainText("model.n_leyer=3")
    assert not dialog.start.isEnabled()
    assert "Did you mean model.n_layer?" in dialog.problem.text()
    for wrong in ("train.batch_size=abc", "data.batch_size=" + "none " * 60):
        dialog.others.setPlainText(wrong)
        QApplication.processEvents()
        assert not dialog.start.isEnabled()
        assert dialog.problem.height() >= dialog.problem.heightForWidth(dialog.problem.width())
        assert dialog.problem.y() > dialog.others.mapTo(dialog, dialog.others.rect().bottomLeft()).y()
    dialog.others.setPlainText("data.batch_size=3")
    assert dialog.start.isEnabled()
    dialog.steps.selectAll()
    qtbot.keyClicks(dialog.steps, "60")  # more, someone means, but these are all steps
    assert not dialog.start.isEnabled()
    assert "begins at step 100" in dialog.problem.text()
    dialog.others.setPlainText("train.steps=200")  # this is what counts
    assert dialog.start.isEnabled()
    dialog.steps.setValue(1000)
    dialog.others.setPlainText("train.steps=60")
    assert "begins at step 100" in dialog.problem.text()
    dialog.others.setPlainText("data.batch_size=3")
    last = BranchDialog(saving(lab, 1000, name="whole").settings, "whole", 1000)
    qtbot.addWidget(last)
    assert last.overrides() == {"train.steps": "2000"}  # one step more is no branch
    dialog.rate.setValue(1e-5)  # below the preset's minimum: the minimum goes with it
    assert dialog.overrides()["train.min_learning_rate"] == "1e-06"
    assert dialog.start.isEnabled()


def test_another_learning_rate_of_a_branch_changes_muons_in_proportion(qtbot: QtBot, lab: FakeLab) -> None:
    changes = {"train.optimizer": "muon", "train.muon_learning_rate": 0.02, "train.learning_rate": 1e-3}
    dialog = BranchDialog(with_values(saving(lab, 100).settings, changes), "fake", 100)
    qtbot.addWidget(dialog)
    assert dialog.overrides() == {}
    dialog.rate.setValue(5e-4)
    assert dialog.overrides() == {"train.learning_rate": "0.0005", "train.muon_learning_rate": "0.01"}
    dialog.others.setPlainText("train.muon_learning_rate=0.03")  # what is written there is taken
    assert dialog.overrides()["train.muon_learning_rate"] == "0.03"


def test_an_export_runs_beside_the_window_and_says_where(qtbot: QtBot, tmp_path: Path) -> None:
    code = "import sys; print('writing', *sys.argv[1:])"
    exporter = Exporter(command=(sys.executable, "-c", code))
    said: list[str] = []
    exporter.progress.connect(said.append)
    with qtbot.waitSignal(exporter.done) as done:
        exporter.start(tmp_path / "run", 100, tmp_path / "out")
    assert said == [f"writing export {tmp_path / 'run'}@100 --to hf --out {tmp_path / 'out'}"]
    assert done.args == [str(tmp_path / "out")]
    assert not exporter.busy


def test_what_transformers_cannot_open_is_not_offered_for_export(
    qtbot: QtBot, lab: FakeLab, dock: CheckpointsDock
) -> None:
    export = dock.actions_by_name["export"]
    for name, position, why in (("plain", "learned", ""), ("turned", "rotary", "this model has position=rotary.")):
        settings = resolve_settings("baby", None, [f"model.position={position}"])
        lab.add(FakeRun(lab.outputs, name, settings=settings).start().advance(10).save_checkpoint())
        lab.set_current(f"pretraining/{name}")
        qtbot.waitUntil(lambda name=name: bool(dock.model.rows) and name in dock.row.id)
        choose(dock, 10)
        assert export.isEnabled() == (not why)
        assert export.toolTip().endswith(why or "As a Hugging Face folder")


def test_a_failed_export_is_one_sentence(qtbot: QtBot, tmp_path: Path) -> None:
    code = "import sys; print('working'); print('error: RoPE has no place in GPT-2.', file=sys.stderr); sys.exit(1)"
    exporter = Exporter(command=(sys.executable, "-c", code))
    with qtbot.waitSignal(exporter.failed) as failed:
        exporter.start(tmp_path, 1, tmp_path / "out")
        with pytest.raises(LabError, match="still running"):
            exporter.start(tmp_path, 1, tmp_path / "out")
    assert str(failed.args[0]) == "The export failed. RoPE has no place in GPT-2."


def test_empty_states_say_what_to_do(lab: FakeLab, dock: CheckpointsDock) -> None:
    assert dock._stack.currentWidget() is dock._empty
    assert "Set-up" in dock._empty._hint.text()
    wanted: list[str] = []
    lab.dock_requested.connect(wanted.append)
    dock._empty._button.click()
    assert wanted == ["setup"]
    lab.add(FakeRun(lab.outputs).start())
    assert "Save" in dock._empty._hint.text()
    lab.add(saving(lab, 100, name="saved"))
    assert "not read yet" in dock._empty.text  # and not that there are none
