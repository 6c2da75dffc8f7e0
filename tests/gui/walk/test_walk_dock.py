"""The Walk panel shows what the model's process answered, goes through it by keys, and asks for what was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_model import FakeModelHost, Made
from fakes import FakeRun
from inspection_lab import InspectionLab
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from llmlab.core.errors import LabError
from llmlab.walk.stage import Code, Stage, Value, marked, to_archive
from llmlab_gui.charts.cell_map import NONE
from llmlab_gui.charts.heatmap import short
from llmlab_gui.walk.dock import WalkDock
from llmlab_gui.walk.stage_view import _heat
from llmlab_gui.widgets.focus_ring import _ROOM


def stages_of(values: Mapping[str, Any], count: int) -> list[Stage]:
    vector = np.linspace(-1, 1, 8)
    if values.get("changes"):
        vector = vector + 1
    code = Code("llmlab/gpt/model.py", 154, "x = x + self.attention(self.attention_norm(x), past, first)")
    pattern = np.tril(np.ones((count, count))) / np.arange(1, count + 1)[:, None]
    y, a = Value("y", ("component",), vector), Value("a", ("query", "key"), pattern)
    id = Value("id", ("token",), np.array([7.0]), ("'w7'",))
    return [
        Stage("text", "Text", "a string of characters", "3 characters", "All there is.", "prompt"),
        Stage("norm", "Norm", "y = x / s", "1 / 2", "Size.", "residual", (y,), code, 1e-7),
        Stage("softmax", "Softmax", "a = e", "1", "Sum.", "attention", (a,)),
        Stage("next", "Next token", "t", "'w7'", "Again.", "write", (id,)),
    ]


def make_walk(host: FakeModelHost, values: Mapping[str, Any], ids: list[int]) -> Made:
    stages = stages_of(values, len(ids))
    tensors, texts = to_archive(marked(stages, stages_of({}, len(ids))) if values.get("changes") else stages)
    return tensors, {"stages": texts, "sequences": "5"}


@pytest.fixture
def lab(tmp_path: Path, qtbot: QtBot) -> Iterator[InspectionLab]:
    host = FakeModelHost()
    host.answers |= {"walk": make_walk, "walk_back": make_walk}
    made = InspectionLab(tmp_path, host)
    yield made
    made.close()


@pytest.fixture
def dock(lab: InspectionLab, qtbot: QtBot) -> WalkDock:
    made = WalkDock(lab)
    lab.open(qtbot, made, prompt="w1 w2 w3")
    qtbot.waitUntil(lambda: bool(made.stages))
    return made


def asked(lab: InspectionLab) -> dict[str, Any]:
    return [values for question, values in lab.host.asked if question == "walk"][-1]


def test_arrow_keys_go_through_the_stages_and_each_is_shown(dock: WalkDock, qtbot: QtBot) -> None:
    assert [dock.list.item(row).text() for row in range(dock.list.count())][:2] == ["1. Text", "2. Norm"]
    dock.list.setFocus()
    for key in (Qt.Key.Key_Right, Qt.Key.Key_Down):
        qtbot.keyClick(dock.list, key)
    assert dock.view.stage is dock.stages[2]
    dock.view.picture.choose(0, 1)  # which another stage has not
    qtbot.mouseClick(dock.view.title, Qt.MouseButton.LeftButton)
    assert dock.view.title.hasFocus()
    qtbot.keyClick(dock.view.title, Qt.Key.Key_Left)
    view = dock.view
    assert (view.title.text(), view.formula.text(), view.numbers.text()) == ("Norm", "y = x / s", "1 / 2")
    assert "llmlab/gpt/model.py:154" in view.code.text()
    assert "equal to the model's numbers within 1e-07" in view.note.text()
    assert view.picture.heat is not None
    assert view.picture.heat.values.shape == (1, 8)
    assert view.picture.heat.signed
    assert view.picture.words(0, 1).startswith("1: ")  # its only row has no name
    assert view.picture.chosen == NONE
    assert dock.pictures() == [view.picture]
    view.as_table.setChecked(True)
    assert dock.pictures() == []
    assert [view.table.model().index(row, 0).data() for row in (0, 7)] == ["−1", "1"]
    with qtbot.waitSignal(dock.lab.dock_requested) as wanted:
        view.why.linkActivated.emit("dock:residual")
    assert wanted.args == ["residual"]
    table = dock.table()
    assert table is not None
    assert len(table[1]) == 8 + 9 + 1


def test_whole_numbers_as_ids_are_drawn_without_decimals() -> None:
    kinds = [
        _heat(Value("ids", ("position",), numbers), numbers, [""]).kind for numbers in (np.ones(9), np.full(9, 0.5))
    ]
    assert kinds == ["count", "value"]
    assert [short(68.0, kind) for kind in kinds] == ["68", "68.0"]


def test_a_walk_that_was_cancelled_says_so_and_is_offered_again(
    dock: WalkDock, lab: InspectionLab, qtbot: QtBot
) -> None:
    lab.host.hold = {"walk_back"}
    dock.walk_to("walk_back", "")
    assert dock.main_part() is dock.list  # the keyboard does not turn the walk around while it is awaited
    lab.inspection.cancel()
    qtbot.waitUntil(dock._none.isVisible)
    assert dock._none.text == "Walk was cancelled"
    assert dock.main_part() is dock._none._button
    lab.host.hold = set()
    dock._none._button.click()
    qtbot.waitUntil(lambda: bool(dock.stages))
    assert dock.main_part() is dock.list


def test_after_a_walk_that_was_cancelled_either_direction_can_be_chosen(
    dock: WalkDock, lab: InspectionLab, qtbot: QtBot
) -> None:
    lab.host.hold = {"walk_back"}
    dock.walk_to("walk_back", "")
    lab.inspection.cancel()
    qtbot.waitUntil(dock._none.isVisible)
    assert dock.direction.isVisible()
    dock.direction.setCurrentIndex(0)
    qtbot.waitUntil(lambda: bool(dock.stages) and dock.list.isVisible())
    dock.direction.setCurrentIndex(1)  # asks for what was cancelled
    qtbot.waitUntil(lambda: dock.list.isVisible() and lab.inspection.waits(("walk",)))


def test_a_walk_that_stays_when_the_next_one_is_cancelled_is_dimmed_and_the_next_one_is_offered_again(
    dock: WalkDock, lab: InspectionLab, qtbot: QtBot
) -> None:
    lab.host.hold = {"walk"}
    dock.layer.setValue(1)
    qtbot.waitUntil(lambda: lab.inspection.waits(("walk",)))
    assert not dock.stale()
    lab.inspection.cancel()
    qtbot.waitUntil(lambda: dock.stale() == "before the last change")
    assert dock.list.isVisible()
    assert not dock.export_button.isEnabled()
    lab.host.hold, before = set(), len(lab.host.asked)
    dock._veil._button.click()
    qtbot.waitUntil(lambda: not dock.stale() and not lab.inspection.waits(("walk",)))
    assert len(lab.host.asked) == before + 1
    assert asked(lab)["layer"] == 1
    assert dock.export_button.isEnabled()


def test_layer_head_position_and_the_draw_are_asked_for(dock: WalkDock, lab: InspectionLab, qtbot: QtBot) -> None:
    assert (asked(lab)["layer"], asked(lab)["head"], asked(lab)["position"]) == (0, 0, 2)
    dock.layer.setValue(3)
    dock.head.setValue(1)
    dock.position.setValue(0)
    assert (asked(lab)["layer"], asked(lab)["head"], asked(lab)["position"]) == (3, 1, 0)
    assert lab.inspection.selection.layer == 3
    qtbot.waitUntil(lambda: not dock.append.isEnabled())  # a position with others behind it
    dock.list.setCurrentRow(3)
    assert dock.drawing.temperature.isVisible()
    dock.drawing.temperature.setValue(0.5)
    qtbot.waitUntil(lambda: asked(lab)["temperature"] == 0.5)
    assert dock.view.stage is not None
    assert dock.view.stage.name == "next"  # stays where it was
    dock.list.setCurrentRow(0)
    assert not dock.drawing.temperature.isVisible()
    assert not dock.key.isVisible()
    dock.list.setCurrentRow(2)
    assert dock.key.isVisible()
    assert "key" not in asked(lab)  # the one that is attended to most
    dock.key.setValue(1)
    qtbot.waitUntil(lambda: asked(lab).get("key") == 1)


def test_a_change_is_marked_against_what_was_and_can_be_undone(
    dock: WalkDock, lab: InspectionLab, qtbot: QtBot
) -> None:
    dock.list.setCurrentRow(1)
    dock.view.picture.clicked.emit(0, 5)
    assert dock.change.text() == "norm[5]="
    count = len(lab.host.asked)
    qtbot.keyClick(dock.change, Qt.Key.Key_Return)  # not finished
    assert len(lab.host.asked) == count
    qtbot.keyClicks(dock.change, "2.5")
    assert dock.key.text() == "the most attended to"
    qtbot.keyClick(dock.change, Qt.Key.Key_Return)
    assert asked(lab)["changes"] == ["norm[5]=2.5"]
    qtbot.waitUntil(lambda: "changed" in dock.list.item(1).text())
    assert "changed" not in dock.list.item(0).text()
    assert dock.key.text() == "the most attended to before the change"
    heat = dock.view.picture.heat
    assert heat is not None
    assert list(heat.rows) == ["now", "before"]
    dock.view.against.setChecked(True)
    assert np.allclose(dock.view.picture.heat.values, 1)
    lab.host.fail["walk"] = LabError("'x' is not a change.")
    dock.change.setText("x")
    assert dock.undo.isEnabled()  # also where the change is refused
    qtbot.keyClick(dock.change, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: "is not a change" in dock.problem.text())
    assert dock.stages  # what was there stays
    lab.host.fail.clear()
    dock.change.setText("score[1]=3")
    qtbot.keyClick(dock.change, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: dock.key.text() == "the one that is set")
    qtbot.mouseClick(dock.undo, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "changed" not in dock.list.item(1).text())
    assert not dock.problem.text()
    assert dock.key.text() == "the most attended to"


def test_any_number_of_a_vector_begins_its_change(dock: WalkDock, qtbot: QtBot) -> None:
    """By a click in the picture, or Enter in the table."""
    dock.list.setCurrentRow(2)
    dock.view.picture.clicked.emit(1, 0)  # a pattern of all positions: another one is walked to change it
    assert not dock.change.text()
    dock.list.setCurrentRow(3)
    assert dock.view.is_drawn() is False  # one number is shown as a table
    dock.view.table.activated.emit(dock.view.table.model().index(0, 0))
    assert not dock.change.text()  # a token is drawn, not set
    shown = Stage(
        "logits", "Logits", "", "", "", "lens", (Value("most likely", ("token",), np.ones(3), picked=(9, 4, 7)),)
    )
    dock.view.show_stage(shown)
    dock.view.table.activated.emit(dock.view.table.model().index(1, 0))
    assert dock.change.text() == "logits[4]="


def test_the_table_of_a_large_walk_is_made_row_by_row(dock: WalkDock) -> None:
    large = Value("all scores", ("query", "key"), np.zeros((3000, 3000)))
    dock.stages = [Stage("score", "Score", "", "", "", "", (large, Value("q", ("i",), np.array([4.0, 5.0]))))]
    table = dock.table()
    assert table is not None
    assert len(table[1]) == 9_000_002
    assert table[1][3001] == ("score", "all scores", "1 1", 0.0)
    assert table[1][9_000_001] == ("score", "q", "1", 5.0)


def test_the_drawn_token_is_appended_and_walked_again(dock: WalkDock, lab: InspectionLab, qtbot: QtBot) -> None:
    lab.host.vocabulary[7] = r"\xc3\xa9"  # of bytes, which spell é
    dock.append.click()
    assert (asked(lab)["ids"], asked(lab)["drawn"], asked(lab)["position"]) == ([1, 2, 3, 7], 1, 3)
    qtbot.waitUntil(lambda: dock.take_back.isVisible())
    assert dock.take_back.text() == "Take back é"
    dock.cache.setChecked(True)
    assert asked(lab)["cache"] is True
    dock.take_back.click()
    assert "ids" not in asked(lab)
    dock.cache.setChecked(False)
    qtbot.waitUntil(dock.append.isEnabled)
    dock.append.click()
    assert asked(lab)["ids"] == [1, 2, 3, 7]
    lab.inspection.set_prompt("w4 w5", False, at_once=True)  # another text has none appended
    qtbot.waitUntil(lambda: asked(lab)["text"] == "w4 w5")
    assert "ids" not in asked(lab)


def test_a_token_is_appended_once_until_the_next_one_is_drawn(dock: WalkDock, lab: InspectionLab, qtbot: QtBot) -> None:
    dock.append.click()
    dock.append.click()  # what is drawn behind the first is not known yet
    assert asked(lab)["ids"] == [1, 2, 3, 7]
    qtbot.waitUntil(dock.take_back.isVisible)


def test_backwards_the_prompt_is_a_window_and_a_weight_can_be_named(
    dock: WalkDock, lab: InspectionLab, qtbot: QtBot
) -> None:
    dock.direction.setCurrentIndex(1)
    question, values = lab.host.asked[-1]
    assert (question, values["position"], values["weight"]) == ("walk_back", 1, "")  # the last token predicts nothing
    qtbot.waitUntil(lambda: dock.position.maximum() == 1)
    assert dock.append.isHidden()
    assert dock.cache.isHidden()
    dock.change.setText("blocks.0.attention.out.weight[3,4]")
    qtbot.keyClick(dock.change, Qt.Key.Key_Return)
    assert lab.host.asked[-1][1]["weight"] == "blocks.0.attention.out.weight[3,4]"
    qtbot.waitUntil(lambda: dock.sequence.maximum() == 4)
    dock.sequence.setValue(3)
    qtbot.waitUntil(lambda: lab.host.asked[-1][1].get("sequence") == 3)
    assert lab.host.asked[-1][1]["position"] == -1
    qtbot.waitUntil(dock.view.isVisible)
    dock.position.setValue(0)
    assert lab.host.asked[-1][1]["position"] == 0
    dock.direction.setCurrentIndex(0)
    assert not dock.change.text()
    assert lab.host.asked[-1][0] == "walk"
    qtbot.waitUntil(lambda: dock.position.maximum() == 2)


def test_a_stage_of_either_direction_is_shown_as_soon_as_it_is_there(
    dock: WalkDock, lab: InspectionLab, qtbot: QtBot
) -> None:
    def make_back(host: FakeModelHost, values: Mapping[str, Any], ids: list[int]) -> Made:
        loss = Value("loss", ("position",), np.ones(3))
        tensors, texts = to_archive([Stage(name, name, "f", "1", "W.", "loss", (loss,)) for name in ("loss", step)])
        return tensors, {"stages": texts, "sequences": "5"}

    lab.host.answers["walk_back"], step = make_back, "adamw"
    for direction, stage in (("walk_back", "adamw"), ("walk", "softmax"), ("walk", "norm")):
        dock.walk_to(direction, stage)
        qtbot.waitUntil(lambda stage=stage: dock.view.stage is not None and dock.view.stage.name == stage)
    dock.list.setCurrentRow(0)
    before = len(lab.host.asked)
    dock.change.setText("norm[0]=1")
    qtbot.keyClick(dock.change, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: len(lab.host.asked) > before and dock.stages[1].changed)
    assert dock.view.stage is not None
    assert dock.view.stage.name == "text"
    step = "muon"
    dock.walk_to("walk_back", "adamw")  # which this walk has not
    qtbot.waitUntil(lambda: [stage.name for stage in dock.stages] == ["loss", "muon"])
    dock.list.setCurrentRow(1)
    shown = dock.archive
    dock.sequence.setValue(2)
    qtbot.waitUntil(lambda: dock.archive is not shown)
    assert dock.view.stage.name == "muon"  # the one that was chosen by hand


def test_a_model_that_cannot_be_walked_says_why(lab: InspectionLab, qtbot: QtBot) -> None:
    lab.host.fail["walk"] = LabError("bar@live cannot be walked through while it trains.", "Its weights change.")
    lab.host.refusals["attention"] = "The pattern looks ahead."  # of a mystery it would be the answer
    dock = WalkDock(lab)
    lab.open(qtbot, dock, prompt="w1 w2")
    qtbot.waitUntil(lambda: dock._trouble is not None)
    assert "cannot be walked through" in dock._empty.text


def test_a_prompt_that_the_model_cannot_read_is_said_in_place_of_a_walk(lab: InspectionLab, qtbot: QtBot) -> None:
    lab.host.fail["tokenize"] = LabError("This vocabulary of 2 characters lacks 'T'.")
    dock = WalkDock(lab)
    qtbot.addWidget(dock)
    dock.show()
    lab.inspection.open("bar@150")
    qtbot.waitUntil(lambda: lab.inspection.about is not None)
    lab.inspection.set_prompt("The", False, at_once=True)
    qtbot.waitUntil(lambda: "lacks 'T'" in dock._empty.text)
    assert dock._empty.isVisible()
    trouble = lab.host.fail.pop("tokenize")
    lab.inspection.refresh()
    qtbot.waitUntil(lambda: bool(dock.stages) and dock.list.isVisible())
    lab.host.fail["tokenize"] = trouble
    lab.inspection.set_prompt("The king", False, at_once=True)
    qtbot.waitUntil(dock._empty.isVisible)  # nor is the walk of another prompt left there
    lab.inspection.select(layer=1)
    assert asked(lab)["text"] == "The"
    del lab.host.fail["tokenize"]
    lab.inspection.set_prompt("The", False, at_once=True)
    assert dock.list.isVisible()  # the walk of this prompt is there still
    assert not dock.stale()


def test_a_direction_that_a_model_refuses_can_be_left_again(dock: WalkDock, lab: InspectionLab, qtbot: QtBot) -> None:
    lab.host.fail["walk_back"] = LabError("bar cannot be walked backwards.", "Its weights are quantized.")
    dock.direction.setCurrentIndex(1)
    qtbot.waitUntil(lambda: "quantized" in dock.problem.text())
    assert dock.direction.isVisible()
    assert not dock.stages
    dock.direction.setCurrentIndex(0)
    qtbot.waitUntil(lambda: bool(dock.stages))
    assert not dock.problem.text()


def test_without_a_model_the_current_runs_is_offered(lab: InspectionLab, qtbot: QtBot) -> None:
    dock = WalkDock(lab)
    qtbot.addWidget(dock)
    dock.show()
    assert dock._empty._button.text() == "Choose a model"
    run = FakeRun(lab.outputs, "mine", steps=20).start().advance(10)
    run.save_checkpoint()
    lab.add(run)
    assert dock._empty._button.text() == "Open the current run's model"
    dock._empty._button.setFocus()
    dock._empty._button.click()
    qtbot.waitUntil(lambda: lab.inspection.about is not None)
    lab.inspection.set_prompt("w1 w2 w3", False, at_once=True)
    qtbot.waitUntil(lambda: bool(dock.stages))
    assert dock.window().focusWidget() is dock.list  # and the arrow keys go from stage to stage


def test_the_words_of_a_stage_have_room_for_the_ring_of_the_keyboard_around_them(dock: WalkDock) -> None:
    why = dock.view.why
    room = why.geometry().adjusted(-_ROOM, -_ROOM, _ROOM, _ROOM)
    assert why.parentWidget().rect().contains(room)
