"""An inspection dock that goes leaves nothing; it paints in both themes, and what it shows can be saved."""

from __future__ import annotations

import csv
import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_answers import (
    make_change,
    make_comparison,
    make_evolution,
    make_geometry,
    make_intervention,
    make_parameters,
    make_sweep,
)
from fake_model import FakeModelHost
from fakes import FakeRun
from inspection_lab import InspectionLab
from PySide6.QtCore import QCoreApplication, QEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from waits import WAIT

from llmlab.inspection.archive import read_archive
from llmlab_gui.finetune.adapter import AdapterDock
from llmlab_gui.host.selection import ChosenIntervention
from llmlab_gui.inside.compare import CompareDock
from llmlab_gui.inside.contributions import ContributionsDock
from llmlab_gui.inside.evolution import EvolutionDock
from llmlab_gui.inside.geometry import GeometryDock
from llmlab_gui.inside.inspection_dock import InspectionDock
from llmlab_gui.inside.interventions import InterventionsDock
from llmlab_gui.inside.lens import LensDock
from llmlab_gui.inside.parameters import ParametersDock
from llmlab_gui.inside.residual import ResidualDock
from llmlab_gui.widgets.theme import apply_theme, theme_notifier

DOCKS = (
    AdapterDock,
    ContributionsDock,
    ResidualDock,
    LensDock,
    InterventionsDock,
    CompareDock,
    EvolutionDock,
    GeometryDock,
    ParametersDock,
)


@pytest.fixture
def host() -> FakeModelHost:
    made = FakeModelHost()
    made.kind = "finetuned"
    made.answers |= {"change": make_change, "compare": make_comparison, "evolve": make_evolution}
    made.answers["geometry"] = make_geometry
    made.answers |= {"parameters": make_parameters, "intervene": make_intervention, "sweep": make_sweep}
    return made


@pytest.mark.parametrize("make", DOCKS)
def test_a_dock_that_was_used_and_closed_leaves_nothing(
    qtbot: QtBot, tmp_path: Path, host: FakeModelHost, make: Callable[[InspectionLab], InspectionDock]
) -> None:
    lab = InspectionLab(tmp_path, host)
    dock = make(lab)
    dock.resize(700, 500)
    dock.show()
    lab.inspection.open("bar@150")
    lab.inspection.set_prompt("the king and the queen", False, at_once=True)
    qtbot.waitUntil(lambda: bool(lab.inspection.tokens) and lab.inspection.working is None, timeout=WAIT)
    lab.inspection.add_intervention(ChosenIntervention("head", 1, 0))
    lab.inspection.select(layer=1, token=2)
    theme_notifier.changed.emit()
    dock.repaint()
    dock.shutdown()
    gone = weakref.ref(dock)
    dock.deleteLater()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    del dock
    gc.collect()
    # What still arrives must meet nobody.
    lab.inspection.select(layer=2, token=1)
    lab.inspection.hover(1)
    lab.inspection.set_interventions([])
    lab.inspection.set_prompt("another one", False, at_once=True)
    qtbot.waitUntil(lambda: len(lab.inspection.tokens) == 2, timeout=WAIT)
    theme_notifier.changed.emit()
    assert gone() is None
    lab.close()


@pytest.mark.parametrize("make", DOCKS)
def test_without_a_model_a_dock_says_what_to_do(
    qtbot: QtBot, tmp_path: Path, make: Callable[[InspectionLab], InspectionDock]
) -> None:
    lab = InspectionLab(tmp_path)
    dock = make(lab)
    qtbot.addWidget(dock)
    dock.resize(500, 400)
    dock.show()
    assert dock._stack.currentWidget() is dock._empty
    assert not dock.export_button.isEnabled()
    for export in (dock.table, dock.tensors):
        assert export() is None
    dock.shutdown()
    lab.close()


@pytest.mark.parametrize("make", [make for make in DOCKS if make is not AdapterDock])  # it needs none
def test_without_a_prompt_a_dock_says_so(
    qtbot: QtBot, tmp_path: Path, host: FakeModelHost, make: Callable[[InspectionLab], InspectionDock]
) -> None:
    lab = InspectionLab(tmp_path, host)
    dock = make(lab)
    qtbot.addWidget(dock)
    dock.show()
    lab.inspection.open("bar@150")
    qtbot.waitUntil(lambda: lab.inspection.about is not None and lab.inspection.working is None, timeout=WAIT)
    assert "The prompt is empty" in dock._empty.text
    assert dock._stack.currentWidget() is dock._empty
    lab.inspection.set_prompt("the king", False, at_once=True)
    qtbot.waitUntil(lambda: dock._stack.currentWidget() is not dock._empty, timeout=WAIT)
    dock.shutdown()
    lab.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("make", DOCKS)
def test_a_dock_paints_in_the_themes_colours(
    qapp: QApplication,
    qtbot: QtBot,
    tmp_path: Path,
    host: FakeModelHost,
    make: Callable[[InspectionLab], InspectionDock],
    theme: str,
) -> None:
    apply_theme(qapp, theme)
    lab = InspectionLab(tmp_path, host)
    dock = make(lab)
    lab.open(qtbot, dock)
    qtbot.waitUntil(lambda: lab.inspection.working is None, timeout=WAIT)
    image = dock.grab().toImage()
    light = np.mean([image.pixelColor(x, y).lightnessF() for x in range(4, 700, 40) for y in range(60, 500, 40)])
    assert (light > 0.6) == (theme == "light")
    dock.shutdown()
    lab.close()
    apply_theme(qapp, "light")


def filled(qtbot: QtBot, lab: InspectionLab, dock: InspectionDock) -> None:
    """Asks what a dock only asks when it is told to."""
    if isinstance(dock, CompareDock):
        dock.b.choose("other@1")
        dock.compare.click()
    if isinstance(dock, EvolutionDock):
        dock.watch.click()
    lab.inspection.add_intervention(ChosenIntervention("head", 1, 0))
    qtbot.waitUntil(lambda: dock.ready() and dock.table() is not None and dock.tensors() is not None, timeout=WAIT)
    qtbot.waitUntil(lambda: lab.inspection.working is None, timeout=WAIT)


@pytest.mark.parametrize("make", DOCKS)
def test_what_is_shown_can_be_saved_in_four_ways_and_copied(
    qtbot: QtBot, tmp_path: Path, host: FakeModelHost, make: Callable[[InspectionLab], InspectionDock]
) -> None:
    lab = InspectionLab(tmp_path, host)
    lab.add(FakeRun(tmp_path, steps=200).start().advance(150))
    dock = make(lab)
    lab.open(qtbot, dock, model="fake@150")
    filled(qtbot, lab, dock)
    for kind in ("png", "svg", "csv", "safetensors"):
        path = tmp_path / f"shown.{kind}"
        dock.export(path)
        qtbot.waitUntil(lambda path=path: any(path.name in words for words in lab.words), timeout=WAIT)
        assert path.stat().st_size > 100
    table = dock.table()
    assert table is not None
    header, rows = table
    saved = list(csv.reader((tmp_path / "shown.csv").read_text(encoding="utf-8").splitlines()))
    assert saved[0] == list(header)
    assert len(saved) == len(rows) + 1
    numbers = [float(cell) for row in rows for cell in row if not isinstance(cell, str)]
    read = [
        float(text or "nan") for row, texts in zip(rows, saved[1:], strict=True)
        for cell, text in zip(row, texts, strict=True) if not isinstance(cell, str)
    ]  # fmt: skip
    assert np.array_equal(np.float32(numbers), np.float32(read), equal_nan=True)
    archive, names = dock.tensors() or (None, [])
    assert archive is not None
    copy = read_archive(tmp_path / "shown.safetensors")
    assert all(np.array_equal(copy[name], archive[name], equal_nan=True) for name in copy)
    assert set(copy) <= set(archive)
    assert len(copy) > 0
    assert names
    dock.copy_table()
    qtbot.waitUntil(lambda: lab.words[-1] == "The numbers were copied.", timeout=WAIT)
    assert QApplication.clipboard().text().splitlines()[0] == ",".join(header)
    assert not lab.errors
    dock.shutdown()
    lab.close()
