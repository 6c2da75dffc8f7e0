"""Points, neighbours, norms and singular values are those of the archive; clicking asks for more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_answers import NAMES, make_geometry, make_parameters
from fake_model import WIDTH, FakeModelHost
from inspection_lab import InspectionLab, line_of
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QMainWindow
from pytestqt.qtbot import QtBot

from llmlab.core.errors import LabError
from llmlab.inspection.archive import Archive
from llmlab_gui.inside.geometry import GeometryDock
from llmlab_gui.inside.parameters import LAYERS as BY_LAYER
from llmlab_gui.inside.parameters import NEURONS, TENSORS, ParametersDock


@pytest.fixture
def lab(tmp_path: Path, qtbot: QtBot) -> Iterator[InspectionLab]:
    host = FakeModelHost()
    host.answers |= {"geometry": make_geometry, "parameters": make_parameters}
    made = InspectionLab(tmp_path, host)
    yield made
    made.close()


@pytest.fixture
def geometry(lab: InspectionLab, qtbot: QtBot) -> GeometryDock:
    dock = GeometryDock(lab)
    lab.open(qtbot, dock, prompt=" ".join(f"w{number}" for number in range(20)))  # the rows shown have these names
    qtbot.waitUntil(lambda: dock.archive is not None)
    return dock


@pytest.fixture
def parameters(lab: InspectionLab, qtbot: QtBot) -> ParametersDock:
    dock = ParametersDock(lab)
    lab.open(qtbot, dock)
    qtbot.waitUntil(lambda: dock.archive is not None)
    return dock


def test_points_lie_where_the_archive_has_them(lab: InspectionLab, qtbot: QtBot, geometry: GeometryDock) -> None:
    assert geometry.archive is not None
    points = geometry.archive["geometry/points"]
    assert np.array_equal(geometry.scatter.points, points[:, :2])
    geometry.pair.setCurrentIndex(2)
    assert np.array_equal(geometry.scatter.points, points[:, 1:])
    label, sizes = geometry.scatter.getAxis("left").label, ((600, 600), (400, 260), (400, 240))
    for size in sizes:  # the axis's name is shortened, not cut
        geometry.resize(*size)
        QApplication.processEvents()
        assert label.toPlainText().startswith("component 3")
        assert "…" not in label.toPlainText()
        name = label.mapRectToScene(label.boundingRect())
        assert name.top() >= 0
        assert name.bottom() <= geometry.scatter.height()
    table = geometry.table()
    assert table is not None
    assert [row[2] for row in table[1]] == points[:, 0].tolist()


def test_a_click_lists_the_nearest_tokens(lab: InspectionLab, qtbot: QtBot, geometry: GeometryDock) -> None:
    geometry.scatter.clicked.emit(1)
    assert geometry.near.text() == "w1"
    qtbot.waitUntil(lambda: geometry.neighbours.topLevelItemCount() == 2)
    assert lab.host.asked[-1][1]["near"] == "w1"
    first = geometry.neighbours.topLevelItem(0)
    assert (first.text(0), first.text(1)) == ("w4", "0.8750")
    assert geometry.neighbours.isVisible()


def test_an_embedding_that_is_not_there_is_refused_in_words(
    lab: InspectionLab, qtbot: QtBot, geometry: GeometryDock
) -> None:
    lab.host.fail["geometry"] = LabError("It has no position embeddings.", "It turns queries and keys.", "")
    geometry.matrix.setCurrentIndex(2)
    qtbot.waitUntil(lambda: "no position embeddings" in geometry.note.text())


def test_norms_and_neurons_are_the_archives(lab: InspectionLab, qtbot: QtBot, parameters: ParametersDock) -> None:
    archive = parameters.archive
    assert archive is not None
    assert parameters.view.currentIndex() == BY_LAYER
    assert line_of(parameters.chart, "weights").y == pytest.approx(archive["layers/norm"], rel=1e-6)
    assert "while it trains" in parameters.note.text()
    parameters.view.setCurrentIndex(NEURONS)
    assert line_of(parameters.chart, "dead on this prompt").y == pytest.approx(archive["neurons/dead"], rel=1e-6)
    assert "never above zero" in parameters.note.text()


def test_that_only_the_first_singular_values_of_a_large_matrix_are_shown_is_said(
    qtbot: QtBot, parameters: ParametersDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = parameters.session.ask

    def ask(kind: str, values: Mapping[str, Any], take: Callable[[Archive], None], *rest: Any) -> None:
        def noted(archive: Archive) -> None:
            archive.metadata.notes.append("wte.weight is large: its first 8 singular values.")
            take(archive)

        plain(kind, values, noted, *rest)

    monkeypatch.setattr(parameters.session, "ask", ask)
    parameters.view.setCurrentIndex(TENSORS)
    parameters.list.topLevelItem(0).setSelected(True)
    qtbot.waitUntil(parameters.spectrum.isVisible)
    assert parameters.note.text() == "wte.weight is large: its first 8 singular values."
    assert parameters.note.isVisible()


def test_a_matrix_shows_its_singular_values(lab: InspectionLab, qtbot: QtBot, parameters: ParametersDock) -> None:
    parameters.view.setCurrentIndex(TENSORS)
    rows = {parameters.list.topLevelItem(n).text(0): parameters.list.topLevelItem(n) for n in range(3)}
    assert set(rows) == set(NAMES)
    assert rows["wte.weight"].text(1) == "10 × 8"
    rows["wte.weight"].setSelected(True)
    qtbot.waitUntil(parameters.spectrum.isVisible)
    assert lab.host.asked[-1][1]["singular"] == ["wte.weight"]
    assert line_of(parameters.spectrum, "wte.weight").y == pytest.approx(np.linspace(3, 0.5, WIDTH))
    parameters.list.clearSelection()
    rows["blocks.0.mlp.bias"].setSelected(True)
    assert not parameters.spectrum.isVisible()
    parameters.list.sortByColumn(2, Qt.SortOrder.AscendingOrder)
    assert parameters.list.topLevelItem(0).text(0) == "blocks.0.mlp.bias"  # 4 < 32 < 80, not as texts


def test_without_numbers_no_axes_are_drawn_and_what_failed_can_be_tried_again(lab: InspectionLab, qtbot: QtBot) -> None:
    lab.host.fail["parameters"] = LabError("bar has no checkpoint @150.", "Saved steps: 65.")
    dock = ParametersDock(lab)
    lab.open(qtbot, dock)
    qtbot.waitUntil(lambda: "no checkpoint" in dock._problem.text)
    assert not dock.chart.isVisible()
    del lab.host.fail["parameters"]
    dock._problem._button.click()
    qtbot.waitUntil(dock.chart.isVisible)


def test_a_panel_behind_the_tab_of_another_asks_nothing_until_its_tab_is_chosen(
    lab: InspectionLab, qtbot: QtBot
) -> None:
    window = QMainWindow()
    qtbot.addWidget(window)
    behind, before = GeometryDock(lab), ParametersDock(lab)
    for dock in (behind, before):
        window.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, dock)
    window.tabifyDockWidget(behind, before)
    before.raise_()
    window.show()
    lab.inspection.open("bar@150")
    qtbot.waitUntil(lambda: lab.inspection.about is not None)
    lab.inspection.set_prompt("the king", False, at_once=True)
    qtbot.waitUntil(lambda: before.archive is not None)
    assert "geometry" not in [question for question, _ in lab.host.asked]
    behind.raise_()
    qtbot.waitUntil(lambda: behind.archive is not None)
    lab.host.asked.clear()
    lab.inspection.set_prompt("the queen", False, at_once=True)
    qtbot.waitUntil(lambda: "geometry" in [question for question, _ in lab.host.asked])
    assert "parameters" not in [question for question, _ in lab.host.asked]
    qtbot.waitUntil(lambda: lab.inspection.working is None)  # the answer finds its dock
