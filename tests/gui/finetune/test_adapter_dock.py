"""The map and the bars of Adapter are the archive's numbers; it says what to open, and leads to the comparison."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_answers import MODULES, make_change, make_comparison
from fake_model import FakeModelHost
from finetuning_run import tuned_run
from inspection_lab import PROMPT, InspectionLab
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDockWidget, QMainWindow
from pytestqt.qtbot import QtBot

from llmlab.core.errors import LabError
from llmlab_gui.finetune.adapter import AdapterDock
from llmlab_gui.finetune.adapter_views import short_names
from llmlab_gui.inside.compare import CompareDock


@pytest.fixture
def lab(tmp_path: Path, qtbot: QtBot) -> Iterator[InspectionLab]:
    host = FakeModelHost()
    host.kind = "finetuned"
    host.answers |= {"change": make_change, "compare": make_comparison}
    made = InspectionLab(tmp_path, host)
    yield made
    made.close()


@pytest.fixture
def dock(lab: InspectionLab, qtbot: QtBot) -> Iterator[AdapterDock]:
    made = AdapterDock(lab)
    lab.open(qtbot, made, model="tuned@100")
    yield made
    made.shutdown()


def measured(qtbot: QtBot, dock: AdapterDock) -> None:
    qtbot.waitUntil(lambda: dock.archive is not None)


def test_cells_are_norms_and_what_was_not_changed_is_none(qtbot: QtBot, dock: AdapterDock) -> None:
    measured(qtbot, dock)
    heat = dock.map.heat
    assert heat is not None
    assert (heat.rows, heat.columns) == (["–", "0", "1"], ["q_proj", "up_proj", "lm_head"])
    assert np.allclose(heat.values, [[np.nan, np.nan, 2], [13, 5, np.nan], [3**0.5, np.nan, np.nan]], equal_nan=True)
    dock.view.setCurrentIndex(2)
    assert dock.map.heat is not None
    assert dock.map.heat.values[1].tolist()[:2] == [2.0, 1.5]
    assert dock.note.text() == (
        "lora on small@final: 4 matrices, norm 14.2 together, 0.03 times that of the weights before, "
        "2,048 trained parameters."
    )


def test_the_matrix_that_moved_most_is_chosen_and_a_click_chooses_another(qtbot: QtBot, dock: AdapterDock) -> None:
    measured(qtbot, dock)
    assert dock.map.chosen == (1, 0)
    assert [group.bars[0].value for group in dock.spectrum.bars.groups] == [12.0, 5.0, 0.0]
    dock.map.clicked.emit(2, 0)
    assert [group.bars[0].value for group in dock.spectrum.bars.groups] == [1.0, 1.0, 1.0]
    assert "norm 1.7321 = 0.125 of the weight's, effective rank 3 of 3" in dock.map.words(2, 0)
    dock.map.clicked.emit(0, 2)
    assert len(dock.spectrum.bars.groups) == 1  # of a matrix with fewer, no bars of nothing
    dock.map.clicked.emit(2, 1)
    assert not dock.spectrum.bars.groups
    assert "not changed" in dock.map.words(2, 1)


def test_the_table_has_every_matrix_with_all_its_numbers(qtbot: QtBot, dock: AdapterDock) -> None:
    measured(qtbot, dock)
    table = dock.table()
    assert table is not None
    assert [row[0] for row in table[1]] == MODULES
    assert list(table[1][0]) == [MODULES[0], 3, 5.0, 0.5, 1.5, 4.0, 3.0, 0.0]


def test_a_model_that_was_not_fine_tuned_is_not_asked_about(lab: InspectionLab, qtbot: QtBot) -> None:
    lab.host.kind = "scratch"
    dock = AdapterDock(lab)
    lab.open(qtbot, dock)
    assert "bar@150 was not fine-tuned" in dock._empty.text
    assert "BASE+ADAPTER" in dock._empty.text
    assert not any(question == "change" for question, _ in lab.host.asked)
    dock.shutdown()


def test_a_current_fine_tuning_run_is_one_click_away_once_it_has_saved_one(
    lab: InspectionLab, qtbot: QtBot, tmp_path: Path
) -> None:
    lab.host.kind = "scratch"
    dock = AdapterDock(lab)
    lab.open(qtbot, dock)
    mine = tuned_run(tmp_path)
    saved = mine.run.checkpoints.rename(tmp_path / "later")
    lab.add(mine)
    assert "mine has saved no checkpoint yet" in dock._empty.text
    assert dock._empty._button.isHidden()
    saved.rename(mine.run.checkpoints)
    lab.runs_changed.emit()
    assert "Open mine to see it" in dock._empty.text
    lab.host.kind = "finetuned"
    qtbot.mouseClick(dock._empty._button, Qt.MouseButton.LeftButton)
    measured(qtbot, dock)
    dock.shutdown()


def test_a_model_that_was_opened_before_its_tab_is_chosen_is_measured(lab: InspectionLab, qtbot: QtBot) -> None:
    window, dock, front = QMainWindow(), AdapterDock(lab), QDockWidget()
    qtbot.addWidget(window)
    lab.open(qtbot, dock, model="tuned@100")
    for one in (dock, front):
        window.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, one)
    window.tabifyDockWidget(dock, front)
    front.raise_()
    window.show()
    qtbot.waitUntil(lambda: not dock._shown)
    lab.inspection.open("tuned@200")
    qtbot.waitUntil(lambda: dock.archive is None)
    qtbot.waitUntil(lambda: lab.inspection.working is None)
    dock.raise_()
    measured(qtbot, dock)
    dock.shutdown()
    dock.setParent(None)  # it is closed by itself


def test_a_failure_is_shown_in_words_and_can_be_tried_again(lab: InspectionLab, qtbot: QtBot) -> None:
    lab.host.fail["change"] = LabError("The adapter is damaged.", "It is cut.", "Take another.")
    dock = AdapterDock(lab)
    lab.open(qtbot, dock, model="tuned@100")
    qtbot.waitUntil(lambda: "The adapter is damaged" in dock._empty.text)
    del lab.host.fail["change"]
    qtbot.mouseClick(dock._empty._button, Qt.MouseButton.LeftButton)
    measured(qtbot, dock)
    dock.shutdown()


def test_base_and_fine_tuned_are_compared_on_the_prompt_in_one_click(
    lab: InspectionLab, qtbot: QtBot, dock: AdapterDock, tmp_path: Path
) -> None:
    run = tuned_run(tmp_path, base="small@final")
    compare = CompareDock(lab)
    qtbot.addWidget(compare)
    compare.show()
    lab.inspection.open(f"{run.run.path}@50")  # which was deleted since
    qtbot.waitUntil(lambda: dock.archive is not None and dock.archive.metadata.model.endswith("mine@50"))
    qtbot.waitUntil(lambda: bool(lab.inspection.tokens))
    qtbot.mouseClick(dock.compare, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: compare.archive is not None)
    assert (compare.a.reference, compare.b.reference) == ("small@final", "mine@100")
    question, values = next(asked for asked in lab.host.asked if asked[0] == "compare")
    assert (question, values["text"]) == ("compare", PROMPT)
    compare.shutdown()


def test_without_an_active_model_the_fine_tuned_one_is_opened_and_then_compared(
    lab: InspectionLab, qtbot: QtBot, tmp_path: Path
) -> None:
    run = tuned_run(tmp_path, base="small@final")
    compare = CompareDock(lab)
    qtbot.addWidget(compare)
    compare.show()
    lab.inspection.set_prompt(PROMPT, False, at_once=True)
    lab.compare_requested.emit(str(run.run.path))
    qtbot.waitUntil(lambda: compare.archive is not None)
    assert lab.inspection.about is not None
    assert lab.inspection.about.reference == "mine@100"
    assert (compare.a.reference, compare.b.reference) == ("small@final", "mine@100")
    with qtbot.waitSignal(lab.inspection.tokens_changed):
        lab.inspection.set_prompt(f"{PROMPT} and", False, at_once=True)
    assert [asked[0] for asked in lab.host.asked].count("compare") == 1  # of another prompt only when asked again
    compare.shutdown()


def test_a_run_whose_base_is_gone_says_so(lab: InspectionLab, qtbot: QtBot, tmp_path: Path) -> None:
    run = tuned_run(tmp_path, base="nowhere@final")
    compare = CompareDock(lab)
    qtbot.addWidget(compare)
    lab.compare_requested.emit(str(run.run.path))
    qtbot.waitUntil(lambda: bool(lab.errors))
    assert "without its base, nowhere@final" in str(lab.errors[-1])
    compare.shutdown()


def test_names_are_short_where_that_tells_them_apart() -> None:
    assert short_names(["attn.c_proj", "mlp.c_proj", "attn.c_attn"]) == ["attn.c_proj", "mlp.c_proj", "c_attn"]
