"""An inspection dock that goes takes everything with it; in both themes, with and without a model, it paints."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_model import FakeModelHost
from inspection_lab import InspectionLab
from PySide6.QtCore import QCoreApplication, QEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from test_compare_and_evolution import make_comparison, make_evolution
from test_geometry_and_parameters import make_geometry, make_parameters
from test_interventions_dock import make_intervention, make_sweep

from llmlab_gui.docks.compare import CompareDock
from llmlab_gui.docks.contributions import ContributionsDock
from llmlab_gui.docks.evolution import EvolutionDock
from llmlab_gui.docks.geometry import GeometryDock
from llmlab_gui.docks.inspection_dock import InspectionDock
from llmlab_gui.docks.interventions import InterventionsDock
from llmlab_gui.docks.lens import LensDock
from llmlab_gui.docks.parameters import ParametersDock
from llmlab_gui.docks.residual import ResidualDock
from llmlab_gui.inspection.selection import ChosenEdit
from llmlab_gui.theme import apply_theme, theme_notifier

DOCKS = (
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
    made.answers |= {"compare": make_comparison, "evolve": make_evolution, "geometry": make_geometry}
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
    qtbot.waitUntil(lambda: bool(lab.inspection.tokens) and lab.inspection.working is None, timeout=5000)
    lab.inspection.add_edit(ChosenEdit("head", 1, 0))
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
    lab.inspection.set_edits([])
    lab.inspection.set_prompt("another one", False, at_once=True)
    qtbot.waitUntil(lambda: len(lab.inspection.tokens) == 2, timeout=3000)
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
    qtbot.waitUntil(lambda: lab.inspection.working is None, timeout=5000)
    image = dock.grab().toImage()
    light = np.mean([image.pixelColor(x, y).lightnessF() for x in range(4, 700, 40) for y in range(60, 500, 40)])
    assert (light > 0.6) == (theme == "light")
    dock.shutdown()
    lab.close()
    apply_theme(qapp, "light")
