"""An inspection dock that goes leaves nothing; it paints in both themes, and what it shows can be saved."""

from __future__ import annotations

import csv
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
    make_pattern,
    make_sweep,
)
from fake_model import FakeModelHost
from fakes import FakeRun
from inspection_lab import PROMPT, InspectionLab
from PySide6.QtCore import QCoreApplication, QEvent
from PySide6.QtWidgets import QApplication, QComboBox, QLabel, QWidget
from pytestqt.qtbot import QtBot
from windows import shown, wait_until_freed

from llmlab.inspection.archive import read_archive
from llmlab_gui.charts.arcs import Arcs
from llmlab_gui.charts.bars import BarChart
from llmlab_gui.charts.heatmap import Heatmap
from llmlab_gui.charts.layer_chart import LayerChart
from llmlab_gui.charts.scatter import Scatter
from llmlab_gui.charts.value_grid import ValueGrid
from llmlab_gui.finetune.adapter import AdapterDock
from llmlab_gui.host.selection import ChosenIntervention
from llmlab_gui.inside.attention import AttentionDock
from llmlab_gui.inside.compare import CompareDock
from llmlab_gui.inside.contributions import ContributionsDock
from llmlab_gui.inside.evolution import EvolutionDock
from llmlab_gui.inside.geometry import GeometryDock
from llmlab_gui.inside.inspection_dock import InspectionDock
from llmlab_gui.inside.interventions import InterventionsDock
from llmlab_gui.inside.lens import LensDock
from llmlab_gui.inside.parameters import ParametersDock
from llmlab_gui.inside.prompt import PromptDock
from llmlab_gui.inside.residual import ResidualDock
from llmlab_gui.inside.token_chips import TokenChips
from llmlab_gui.widgets.theme import apply_theme, theme_notifier

DOCKS = (
    *(AdapterDock, ContributionsDock, ResidualDock, LensDock, InterventionsDock, CompareDock, EvolutionDock),
    *(GeometryDock, ParametersDock),
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
    qtbot.waitUntil(lambda: bool(lab.inspection.tokens) and lab.inspection.working is None)
    lab.inspection.add_intervention(ChosenIntervention("head", 1, 0))
    lab.inspection.select(layer=1, token=2)
    theme_notifier.changed.emit()
    dock.repaint()
    dock.shutdown()
    gone = weakref.ref(dock)
    dock.deleteLater()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    del dock
    wait_until_freed(qtbot, gone)
    # What still arrives must meet nobody.
    lab.inspection.select(layer=2, token=1)
    lab.inspection.hover(1)
    lab.inspection.set_interventions([])
    lab.inspection.set_prompt("another one", False, at_once=True)
    qtbot.waitUntil(lambda: len(lab.inspection.tokens) == 2)
    theme_notifier.changed.emit()
    lab.close()


@pytest.mark.parametrize("make", DOCKS)
def test_a_dock_says_what_it_waits_for_and_then_paints_in_the_themes_colours(
    qapp: QApplication,
    qtbot: QtBot,
    tmp_path: Path,
    host: FakeModelHost,
    make: Callable[[InspectionLab], InspectionDock],
) -> None:
    lab = InspectionLab(tmp_path, host)
    dock = make(lab)
    shown(dock, qtbot, 760, 560)
    assert dock._stack.currentWidget() is dock._empty
    assert not dock.export_button.isEnabled()
    for export in (dock.table, dock.tensors):
        assert export() is None
    lab.inspection.open("bar@150")
    qtbot.waitUntil(lambda: lab.inspection.about is not None and lab.inspection.working is None)
    if not isinstance(dock, AdapterDock):  # it needs no prompt
        assert "The prompt is empty" in dock._empty.text
        assert dock._stack.currentWidget() is dock._empty
    lab.inspection.set_prompt(PROMPT, False, at_once=True)
    qtbot.waitUntil(lambda: dock._stack.currentWidget() is not dock._empty)
    qtbot.waitUntil(lambda: lab.inspection.working is None)
    for theme in ("dark", "light"):
        apply_theme(qapp, theme)
        QApplication.processEvents()
        image = dock.grab().toImage()
        light = np.mean([image.pixelColor(x, y).lightnessF() for x in range(4, 700, 40) for y in range(60, 500, 40)])
        assert (light > 0.6) == (theme == "light")
    dock.shutdown()
    lab.close()


def filled(qtbot: QtBot, lab: InspectionLab, dock: InspectionDock) -> None:
    """Asks what a dock only asks when it is told to."""
    if isinstance(dock, CompareDock):
        dock.b.choose("other@1")
        dock.compare.click()
    if isinstance(dock, EvolutionDock):
        dock.watch.click()
    lab.inspection.add_intervention(ChosenIntervention("head", 1, 0))
    qtbot.waitUntil(lambda: dock.ready() and dock.table() is not None and dock.tensors() is not None)
    qtbot.waitUntil(lambda: lab.inspection.working is None)


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
        qtbot.waitUntil(lambda path=path: any(path.name in words for words in lab.words))
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
    qtbot.waitUntil(lambda: lab.words[-1] == "The numbers were copied.")
    assert QApplication.clipboard().text().splitlines()[0] == ",".join(header)
    assert not lab.errors
    dock.shutdown()
    lab.close()


class Verses(FakeModelHost):
    """Every token that it knows of is white space: ` a` and line breaks in turn."""

    def ids_of(self, text: str) -> list[int]:
        self.vocabulary = [" a" if number % 2 else "\n" for number in range(500)]
        return list(range(len(text.split())))


@pytest.mark.slow
def test_a_line_break_and_a_space_are_signs_in_every_label(qtbot: QtBot, tmp_path: Path, host: FakeModelHost) -> None:
    verses = Verses()
    verses.kind, verses.answers = host.kind, {**host.answers, "pattern": make_pattern}
    verses.answers["intervene"] = lambda *asked: (make_intervention(*asked)[0], {"position": "6", "answer_text": "\n"})
    labs = []
    for make in (*DOCKS, AttentionDock, PromptDock):
        lab = InspectionLab(tmp_path / make.__name__, verses)
        lab.add(FakeRun(lab.outputs, steps=200).start().advance(150))
        labs.append(lab)
        dock = make(lab)
        lab.open(qtbot, dock, model="fake@150")
        if make is not PromptDock:  # which has no tensors
            filled(qtbot, lab, dock)
        views = getattr(dock, "view", None)
        for place in range(views.count() if isinstance(views, QComboBox) else 1):
            if isinstance(views, QComboBox):
                views.setCurrentIndex(place)
            qtbot.waitUntil(lambda lab=lab: lab.inspection.working is None)
            found = labels(dock)
            assert not [text for text in found if "\n" in text or "“ " in text], (make.__name__, place)
        dock.shutdown()
    for lab in labs:  # now: a dock may draw again until it is gone
        lab.close()


def labels(dock: InspectionDock) -> list[str]:
    """All words about tokens that a panel draws."""
    found: list[str] = []
    for chart in dock.findChildren(QWidget):
        if isinstance(chart, Heatmap) and chart.heat is not None:
            found += [*chart.heat.rows, *chart.heat.columns, chart.describe(0, 0)]
        elif isinstance(chart, ValueGrid) and chart.grid.rows:
            found += [*chart.grid.columns, chart.grid.text(0, 0), *chart.grid.tip(0, 1).split("\n")]
        elif isinstance(chart, LayerChart):
            found += [line.label for line in chart.lines]
        elif isinstance(chart, BarChart):
            found += [chart.bars.unit, *(group.label for group in chart.bars.groups)]
        elif isinstance(chart, Arcs):
            found += chart._names
        elif isinstance(chart, Scatter):
            found += chart.names
        elif isinstance(chart, TokenChips):
            found += [chart.words(token) for token in range(len(chart.tokens))]
        elif isinstance(chart, QLabel):
            found.append(chart.text())
    return found
