"""The panels on a real model, asked by the real host: what one shows agrees with what another shows."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from PySide6.QtCore import QMimeData, QPoint, Qt, QUrl
from PySide6.QtGui import QDropEvent
from pytestqt.qtbot import QtBot
from small_runs import new_run, train_here
from windows import PatientBot

from llmlab.core.errors import LabError
from llmlab_gui.host.process import Request
from llmlab_gui.inside.compare import PATTERN, PREDICTIONS, CompareDock
from llmlab_gui.inside.contributions import ContributionsDock
from llmlab_gui.inside.evolution import EvolutionDock
from llmlab_gui.inside.geometry import GeometryDock
from llmlab_gui.inside.interventions import InterventionsDock
from llmlab_gui.inside.lens import LensDock
from llmlab_gui.inside.lens_data import is_read
from llmlab_gui.inside.parameters import ParametersDock
from llmlab_gui.inside.residual import ResidualDock
from llmlab_gui.pages.places import LOOK_INSIDE
from llmlab_gui.widgets.alternatives import visible
from llmlab_gui.window.main_window import MainWindow

PROMPT = "the king"


@pytest.fixture(scope="module")
def window_of_a_run(window_of_the_file: MainWindow, request: pytest.FixtureRequest) -> MainWindow:
    """The file's window, whose model's process has read a checkpoint: it serves all tests, and ends with the window."""
    window, session, qtbot = window_of_the_file, window_of_the_file.lab.inspection, PatientBot(request)
    train_here(new_run(window.lab.outputs, 10, "real", model__n_layer=2, checkpoints__keep_last=5))
    qtbot.waitUntil(lambda: window.lab.row("pretraining/real") is not None)
    session.set_prompt(PROMPT, False)
    window.look_inside("real@10")
    qtbot.waitUntil(lambda: session.look.archive is not None)
    return window


@pytest.fixture
def window(window_of_a_run: MainWindow, same_window: MainWindow, qtbot: QtBot) -> MainWindow:
    window, session = same_window, same_window.lab.inspection
    session.set_interventions([])
    session.set_prompt(PROMPT, False, at_once=True)
    window.use_workspace(LOOK_INSIDE)
    window.look_inside("real@10")
    qtbot.waitUntil(lambda: not session.choice.undecided and session.working is None)
    qtbot.waitUntil(lambda: session.look.archive is not None and not session.choice.stale(session.look.archive))
    return window


@pytest.mark.slow
def test_the_panels_agree_with_each_other(window: MainWindow, qtbot: QtBot, tmp_path: Path) -> None:
    session, docks = window.lab.inspection, window.docks
    errors: list[LabError] = []
    window.lab.error_raised.connect(errors.append)
    contributions, interventions, lens = docks["contributions"], docks["interventions"], docks["lens"]
    residual, compare, evolution = docks["residual"], docks["compare"], docks["evolution"]
    geometry, parameters = docks["geometry"], docks["parameters"]
    assert isinstance(contributions, ContributionsDock)
    assert isinstance(interventions, InterventionsDock)
    assert isinstance(lens, LensDock)
    assert isinstance(residual, ResidualDock)
    assert isinstance(compare, CompareDock)
    assert isinstance(evolution, EvolutionDock)
    assert isinstance(geometry, GeometryDock)
    assert isinstance(parameters, ParametersDock)

    # The bars sum to the logit that the lens' last row is made of.
    qtbot.waitUntil(
        lambda: contributions.attribution is not None and not session.choice.stale(contributions.attribution)
    )
    attribution = contributions.attribution
    assert attribution is not None
    bars = contributions.chart.bars
    parts = sum(bar.value for group in bars.groups if group.label != "sum" for bar in group.bars)
    logit = float(attribution["attribution/logit"][0])
    assert parts == pytest.approx(logit, abs=1e-4)
    window.show_dock("lens")
    qtbot.waitUntil(lambda: lens.ready() and len(lens.grid.grid.rows) == 3)
    last = len(PROMPT) - 1
    qtbot.waitUntil(lambda: lens.grid.grid.text(2, last) != "…")
    top = lens.grid.grid.text(2, last)
    assert f"“{visible(attribution.metadata.more['answer_text'])}”" in contributions.chart.bars.unit
    assert top.replace("·", " ").replace("⏎", "\n") == attribution.metadata.more["answer_text"]

    # A click on an attention bar opens its heads; silencing them all changes the logit by what they write and more.
    place = [group.label for group in bars.groups].index("1")
    qtbot.mouseClick(contributions.chart, Qt.MouseButton.LeftButton, pos=contributions.chart.center_of(place, 0))
    assert session.selection.layer == 1
    window.show_dock("interventions")
    interventions.form.part.setCurrentIndex(interventions.form.part.findData("attention"))
    interventions.form.add.click()
    qtbot.waitUntil(lambda: interventions.effect.archive is not None)
    effect = interventions.effect.archive
    assert effect is not None
    assert float(effect["target/before"][0]) == pytest.approx(logit, abs=1e-4)
    assert float(effect["target/after"][0]) != float(effect["target/before"][0])
    assert float(effect["change/post_ffn"][0].max()) == 0.0  # the layer before hears nothing of it
    interventions.tabs.setCurrentWidget(interventions.sweep)
    interventions.sweep.action.setCurrentIndex(interventions.sweep.action.findData("zero"))
    interventions.sweep.run.click()
    qtbot.waitUntil(lambda: interventions.sweep.archive is not None)
    assert float(interventions.sweep.archive["sweep/before"][0]) == pytest.approx(logit, abs=1e-4)

    # A model compared with itself differs nowhere; with an earlier checkpoint, it does.
    window.show_dock("compare")
    compare.view.setCurrentIndex(PATTERN)
    for other, same in (("real@10", True), ("real@5", False)):
        compare.archive = None
        compare.b.choose(other)
        compare.compare.click()
        qtbot.waitUntil(lambda: compare.archive is not None)
        assert (not np.any(compare.map.heat.values)) == same
        assert (float(np.max(compare.archive["kl"])) == 0.0) == same
    compare.view.setCurrentIndex(PREDICTIONS)
    assert compare.tokens.columns[0].pairs[0][0] == attribution.metadata.more["answer_text"]

    # The film's last frame is this checkpoint.
    window.show_dock("evolution")
    evolution.watch.click()
    qtbot.waitUntil(evolution.ready)
    assert evolution.film.steps[-1] == 10
    assert float(evolution.film.frames[-1]["attribution/logit"][0]) == pytest.approx(logit, abs=1e-4)

    # Points have neighbours; tensors have singular values; the stream has norms, and they are saved as they are.
    window.show_dock("geometry")
    qtbot.waitUntil(lambda: geometry.archive is not None)
    geometry.scatter.clicked.emit(3)
    qtbot.waitUntil(lambda: geometry.neighbours.topLevelItemCount() > 0)
    window.show_dock("parameters")
    qtbot.waitUntil(lambda: parameters.list.topLevelItemCount() > 0)
    window.show_dock("residual")
    qtbot.waitUntil(lambda: bool(residual.chart.lines))
    path, said = tmp_path / "norms.csv", list[str]()
    window.lab.said.connect(said.append)
    residual.export(path)
    qtbot.waitUntil(lambda: f"Saved {path}." in said)
    assert session.look.archive is not None
    norms = session.look.archive["contributions/norm/attn_out"][:, last].tolist()
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    assert [float(row[2]) for row in rows if row[0].startswith("attention adds, “")] == norms
    assert not errors


def test_a_slow_lens_is_drawn_part_by_part_and_no_other_panel_asks_again(
    window: MainWindow, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, contributions, lens = window.lab.inspection, window.docks["contributions"], window.docks["lens"]
    assert isinstance(contributions, ContributionsDock)
    assert isinstance(lens, LensDock)
    window.show_dock("lens")
    qtbot.waitUntil(lambda: lens.ready() and contributions.attribution is not None)
    qtbot.waitUntil(lambda: session.working is None)
    monkeypatch.setattr("llmlab_gui.host.inspection_plan._QUICK_LENS", 0)
    drawn, asked, ask = list[list[bool]](), list[str](), session.host.ask

    def look() -> None:
        archive = session.look.archive
        if archive is not None and "lens/ids" in archive:
            drawn.append([is_read(archive, row) for row in range(5)])
            assert np.isfinite(lens.grid.grid.values[:, 0]).tolist() == drawn[-1][::2]
            assert "contributions/norm/post_ffn" in archive

    def counted(model: str, question: str, values: Mapping[str, Any], out: Path) -> Request:
        asked.extend(values.get("what", [question]))
        return ask(model, question, values, out)

    session.look.changed.connect(look)
    monkeypatch.setattr(session.host, "ask", counted)
    session.set_prompt("the queen", False, at_once=True)
    qtbot.waitUntil(lambda: len(drawn) == 3 and session.working is None)
    assert drawn == [[True, False, False, False, True], [True, False, True, False, True], [True] * 5]
    assert (asked.count("lens"), asked.count("attribution")) == (1, 1)
    assert contributions.isVisible()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of transformers, whose writing begins a thread that no window has to answer for."""
    return tiny_models.save(tiny_models.llama(), tmp_path_factory.mktemp("models") / "dropped")


@pytest.mark.slow
def test_a_folder_that_is_dropped_becomes_the_active_model(folder: Path, window: MainWindow, qtbot: QtBot) -> None:
    data = QMimeData()  # as a file manager does it
    data.setUrls([QUrl.fromLocalFile(str(folder))])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    window.dropEvent(QDropEvent(QPoint(300, 300), Qt.DropAction.CopyAction, data, buttons, keys))
    session = window.lab.inspection
    qtbot.waitUntil(lambda: session.about.kind == "huggingface")
    assert session.about is not None
    assert "dropped" in window.model_bar.button.text()
    assert window.docks["attention"].isVisible()
    session.set_prompt("the queen", False, at_once=True)
    qtbot.waitUntil(
        lambda: session.look.archive is not None and session.look.archive.metadata.question["text"] == "the queen"
    )
    assert session.recent.models[0].name == session.about.name
    assert window.settings.recent.models == session.recent.models
