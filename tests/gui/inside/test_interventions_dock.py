"""Edits chosen anywhere are asked in the core's words; before and after are the archive's; sweeps can be ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_answers import make_intervention, make_sweep
from fake_model import HEADS, LAYERS, FakeModelHost
from inspection_lab import PROMPT, InspectionLab, line_of
from PySide6.QtCore import QPoint
from PySide6.QtWidgets import QApplication, QPushButton
from pytestqt.qtbot import QtBot

from llmlab.core.errors import LabError
from llmlab.core.signs import minus
from llmlab_gui.host.selection import ChosenIntervention
from llmlab_gui.inside.chosen_interventions import edit_menu, interventions_of_part, words, written
from llmlab_gui.inside.interventions import InterventionsDock
from llmlab_gui.inside.lens import LensDock
from llmlab_gui.inside.prompt import PromptDock
from llmlab_gui.lab.window_settings import WindowSettings

COUNT = len(PROMPT.split())


@pytest.fixture
def lab(tmp_path: Path, qtbot: QtBot) -> Iterator[InspectionLab]:
    host = FakeModelHost()
    host.answers |= {"intervene": make_intervention, "sweep": make_sweep}
    made = InspectionLab(tmp_path, host)
    yield made
    made.close()


@pytest.fixture
def dock(lab: InspectionLab, qtbot: QtBot) -> InterventionsDock:
    made = InterventionsDock(lab)
    lab.open(qtbot, made)
    return made


@pytest.mark.parametrize(
    ("edit", "text", "read"),
    [
        (ChosenIntervention("head", 3, 2), "zero head:3.2", "Layer 3, head 2: set to zero"),
        (
            ChosenIntervention("feed_forward", 1, token=0, how="scale", factor=0.5),
            "scale:0.5 feed_forward:1@0",
            "Layer 1, feed-forward at token 0 “the”: scaled by 0.5",
        ),
        (ChosenIntervention("layer", 2, how="mean"), "mean layer:2", "Layer 2, whole block: replaced by its mean"),
        (
            ChosenIntervention("token", 0, token=1, how="patch"),
            "patch token:1",
            "Embedding at token 1 “king”: patched from the source",
        ),
    ],
)
def test_an_edit_is_written_as_the_core_reads_it(edit: ChosenIntervention, text: str, read: str) -> None:
    from llmlab.inspection.intervening import parse_intervention

    assert written(edit) == text
    assert str(parse_intervention(text)).startswith(text.split(":")[0].split(" ")[0])
    assert words(edit, PROMPT.split()) == read


def test_without_an_intervention_no_room_is_kept_for_their_list(dock: InterventionsDock) -> None:
    layout = dock.form.edits.layout()
    assert layout is not None
    new, chosen = (layout.itemAt(place) for place in (0, 1))
    assert new is not None
    assert chosen is not None
    assert (chosen.isEmpty(), new.geometry().height()) == (True, dock.form.height())


def test_a_head_chosen_in_another_panel_is_silenced_and_the_effect_shown(
    lab: InspectionLab, qtbot: QtBot, dock: InterventionsDock
) -> None:
    assert "No intervention yet" in dock.empty.text
    lab.inspection.select(layer=2, head=1)
    dock.empty._button.click()
    assert dock.focusWidget() is dock.form.list  # the button goes
    qtbot.waitUntil(lambda: dock.effect.archive is not None)
    archive = dock.effect.archive
    assert archive is not None
    question, values = next(asked for asked in reversed(lab.host.asked) if asked[0] == "intervene")
    assert (question, values["edits"], values["position"]) == ("intervene", ["zero head:2.1"], COUNT - 1)
    assert dock.form.list.item(0).text() == "Layer 2, head 1: set to zero"
    qtbot.waitUntil(lambda: dock.effect.tokens.columns[0].pairs[0][0] != "…")
    for column, name in zip(dock.effect.tokens.columns, ("before", "after"), strict=True):
        assert column.title == name
        shown = [f"w{id}" for id in archive[f"{name}/ids"][COUNT - 1]]
        assert [text for text, _ in column.pairs] == shown
        assert [chance for _, chance in column.pairs] == archive[f"{name}/probability"][COUNT - 1].tolist()
    before, after = (float(archive[f"target/{name}"][0]) for name in ("before", "after"))
    assert f"{minus(f'{before:.4f}')} → {minus(f'{after:.4f}')}" in dock.effect.headline.text()
    assert line_of(dock.effect.kl, "KL").y == pytest.approx(archive["kl"], rel=1e-6)
    dock.hide()  # as behind another tab
    lab.inspection.set_interventions([])
    dock._show_empty_page()
    dock._show_empty_page()
    dock.show()
    bar = dock.tabs.tabBar()
    assert bar.tabRect(2).left() == bar.tabRect(0).right() + 1  # no room is kept for the tab between them


def test_the_row_adds_what_is_selected(lab: InspectionLab, qtbot: QtBot, dock: InterventionsDock) -> None:
    lab.inspection.select(layer=3, head=2, token=1)
    dock.form.only_token.setChecked(True)
    dock.form.how.setCurrentIndex(2)
    dock.form.factor.setValue(2.0)
    dock.form.add.click()
    assert lab.inspection.edits == [ChosenIntervention("head", 3, 2, 1, "scale", 2.0)]
    dock.form.clear.click()
    assert lab.inspection.edits == []
    qtbot.waitUntil(lambda: "No intervention yet" in dock.empty.text and dock.empty.isVisible())


def test_another_token_is_read_at_once(lab: InspectionLab, qtbot: QtBot, dock: InterventionsDock) -> None:
    lab.inspection.add_intervention(ChosenIntervention("layer", 1))
    qtbot.waitUntil(lambda: dock.effect.archive is not None)
    lab.inspection.select(token=2)
    archive = dock.effect.archive
    assert archive is not None
    assert [chance for _, chance in dock.effect.tokens.columns[0].pairs] == archive["before/probability"][2].tolist()
    assert f"KL at token 2: {float(archive['kl'][2]):.4g}" in dock.effect.headline.text()


def test_what_cannot_be_done_is_said(lab: InspectionLab, qtbot: QtBot, dock: InterventionsDock) -> None:
    lab.host.fail["intervene"] = LabError("There is no source to patch from.", "", "Name another prompt.")
    lab.inspection.add_intervention(ChosenIntervention("layer", 1, how="patch"))
    qtbot.waitUntil(lambda: "no source" in dock.empty.text)
    assert dock.empty.isVisible()
    lab.host.fail.clear()
    dock.form.source.setText("the queen said")
    qtbot.waitUntil(lambda: dock.effect.isVisible())
    assert lab.host.asked[-1][1]["source"] == "the queen said"
    lab.host.fail["tokenize"] = LabError("This vocabulary lacks 'T'.")
    lab.inspection.set_prompt("The", False, at_once=True)
    qtbot.waitUntil(lambda: "lacks 'T'" in dock._empty.text)
    assert dock._empty.isVisible()


@pytest.mark.parametrize(("over", "columns"), [("layer,position", COUNT), ("layer,head", HEADS)])
def test_a_sweep_is_a_map_centred_at_zero(
    lab: InspectionLab, qtbot: QtBot, dock: InterventionsDock, over: str, columns: int
) -> None:
    dock.tabs.setCurrentWidget(dock.sweep)
    dock.sweep.over.setCurrentIndex(dock.sweep.over.findData(over))
    dock.sweep.run.click()
    qtbot.waitUntil(lambda: dock.sweep.archive is not None)
    archive, heat = dock.sweep.archive, dock.sweep.map.heat
    assert archive is not None
    assert heat is not None
    assert np.array_equal(heat.values, archive["sweep/effect"])
    assert heat.values.shape == (LAYERS, columns)
    scale = dock.sweep.map.scale()
    assert scale.low == -scale.high
    dock.sweep.map.clicked.emit(1, 2)
    selection = lab.inspection.selection
    assert (selection.layer, selection.head if over == "layer,head" else selection.token) == (1, 2)
    table = dock.table()
    assert table is not None
    assert [row[-1] for row in table[1]] == archive["sweep/effect"].ravel().tolist()


def test_a_sweep_tells_how_far_it_is_and_can_be_ended(
    lab: InspectionLab, qtbot: QtBot, dock: InterventionsDock
) -> None:
    lab.host.hold.add("sweep")
    others = [PromptDock(lab), LensDock(lab)]
    for other in others:
        qtbot.addWidget(other)
        other.show()
    qtbot.waitUntil(lambda: lab.inspection.look.archive is not None and lab.inspection.working is None)
    with qtbot.waitActive(dock):
        dock.activateWindow()
    dock.tabs.setCurrentWidget(dock.sweep)
    assert not dock.form.part.isVisible()  # the map has its room
    dock.sweep.run.setFocus()
    dock.sweep.run.click()
    qtbot.waitUntil(dock.strip.isVisible)
    buttons = (button for button in dock.findChildren(QPushButton) if button.text() == "Cancel")
    assert [button for button in buttons if button.isVisible()] == [dock.strip.cancel_button]
    assert dock.focusWidget() is dock.sweep.run
    tabs = dock.tabs.tabBar()
    assert dock.strip.mapToGlobal(QPoint()).y() == tabs.mapToGlobal(QPoint(0, tabs.height())).y()  # which can be used
    assert not any(other.strip.isVisible() or other.strip._patience.isActive() for other in others)
    assert "The sweep is under way" in dock.sweep.empty.text
    lab.host.tell_progress("Changing one thing at a time", 3, 12, 40.0)
    assert "one thing" in dock.strip.what.text()
    assert "40 s left" in dock.strip.left.text()
    before = len(lab.host.cancelled)
    assert dock.cancel_work()  # by Escape, as Cancel does, from anywhere in the panel
    assert len(lab.host.cancelled) == before + 1
    qtbot.waitUntil(lambda: lab.inspection.working is None)
    qtbot.waitUntil(lambda: "The sweep was cancelled 25 % of" in dock.sweep.empty.text)
    lab.host.hold.clear()
    dock.sweep.empty._button.click()
    qtbot.waitUntil(lambda: dock.sweep.archive is not None)
    about_the_map = dock.sweep.note.text()
    lab.host.hold.add("sweep")
    for _ in range(2):
        dock.sweep.run.click()
        lab.inspection.cancel()
        qtbot.waitUntil(lambda: dock.sweep.note.text() != about_the_map)
        assert dock.sweep.note.text().endswith(f"cancelled: 0 % of its forward passes were done. {about_the_map}")
        qtbot.waitUntil(lambda: dock.sweep._request is None)
    lab.inspection.set_prompt("queen", False)  # and what is about another prompt is not spoken of
    qtbot.waitUntil(lambda: "No sweep yet" in dock.sweep.empty.text and dock.sweep.empty.isVisible())
    for other in others:
        other.shutdown()


def test_a_sweep_that_another_prompt_or_model_has_ended_says_so_and_is_offered_again(
    lab: InspectionLab, qtbot: QtBot, dock: InterventionsDock
) -> None:
    sweep, session = dock.sweep, lab.inspection
    dock.tabs.setCurrentWidget(sweep)
    for change, said in (
        (lambda: session.set_prompt("queen", False), "The prompt changed during the sweep 25 %"),
        (lambda: session.open("other@1"), "The model changed during the sweep 25 %"),
    ):
        lab.host.hold.add("sweep")
        sweep.run.click()
        lab.host.tell_progress("Changing one thing at a time", 3, 12, 40.0)
        with qtbot.waitSignal(session.tokens_changed):
            change()
        qtbot.waitUntil(lambda said=said: sweep.empty.text.startswith(said))
        assert sweep.empty.isVisible()
        lab.host.hold.clear()
        sweep.empty._button.setFocus()
        sweep.empty._button.click()
        assert dock.focusWidget() is sweep.run
        qtbot.waitUntil(lambda: sweep.archive is not None)


def test_what_has_ended_a_sweep_is_said_of_it_also_after_later_changes(
    lab: InspectionLab, qtbot: QtBot, dock: InterventionsDock
) -> None:
    sweep, session = dock.sweep, lab.inspection
    dock.tabs.setCurrentWidget(sweep)
    lab.host.hold.add("sweep")
    sweep.run.click()
    asked_of = sweep._about[0]
    for change in (lambda: session.set_prompt("queen", False), lambda: session.open("other@1")):
        with qtbot.waitSignal(session.tokens_changed):
            change()
    assert sweep._now()[0] != asked_of
    assert sweep.empty.text.startswith("The prompt changed during the sweep 0 %")


def test_a_right_click_in_another_panel_chooses_what_is_changed(
    lab: InspectionLab, qtbot: QtBot, dock: InterventionsDock
) -> None:
    wanted: list[str] = []
    lab.dock_requested.connect(wanted.append)
    menu = edit_menu(lab, interventions_of_part("feed_forward", 2), dock)
    assert [action.text() for action in menu.actions()] == [
        "Layer 2, feed-forward: set to zero",
        "Layer 2, feed-forward: replaced by its mean",
        "Layer 2, feed-forward: patched from the source",
    ]
    menu.actions()[0].trigger()
    assert lab.inspection.edits == [ChosenIntervention("feed_forward", 2)]
    assert wanted == ["interventions"]
    menu.deleteLater()
    qtbot.waitUntil(lambda: dock.effect.archive is not None)


def test_copy_and_export_take_no_row_of_their_own(dock: InterventionsDock) -> None:
    dock.resize(535, 400)  # as wide as in Look inside at 1280 x 640
    QApplication.processEvents()
    tabs = dock.tabs.tabBar()
    for button in (dock.copy_button, dock.export_button):
        assert button.isVisible()
        middle = button.mapTo(dock.tabs, button.rect().center()).y()
        assert tabs.geometry().top() <= middle <= tabs.geometry().bottom()
        assert button.height() <= tabs.height()


def test_in_a_low_window_a_sweeps_map_is_in_sight_once_the_fields_are_hidden(
    dock: InterventionsDock, qtbot: QtBot
) -> None:
    dock.resize(525, 230)  # as in Look inside at 1280 x 640
    dock.tabs.setCurrentWidget(dock.sweep)
    dock.sweep.run.click()
    qtbot.waitUntil(lambda: dock.sweep.archive is not None)
    seen = dock.sweep.map.visibleRegion().boundingRect().height()
    dock.fields.click()
    assert not dock._row.isVisible()
    map = dock.sweep.map
    qtbot.waitUntil(  # its room comes with later events
        lambda: map.visibleRegion().boundingRect().height() > max(seen, map.height() * 0.9)
    )
    assert "Press Fields to add" in dock.empty._hint.text()
    dock.fields.click()
    dock.tabs.setCurrentIndex(0)
    assert dock._row.isVisible()
    assert dock.form.edits.isVisible()


def test_prompt_and_interventions_are_as_they_were_left_where_a_killed_window_starts_again(
    lab: InspectionLab, qtbot: QtBot, dock: InterventionsDock, tmp_path: Path
) -> None:
    settings = WindowSettings(tmp_path / "window.ini")
    dock.remember(settings)
    prompt = PromptDock(lab)
    qtbot.addWidget(prompt)
    prompt.remember(settings)
    prompt.text.setPlainText("My own")
    left = [ChosenIntervention("head", 3, 2, how="patch")]
    lab.inspection.set_interventions(left)
    dock.form.source.setText("My source")
    qtbot.waitUntil(lambda: not (dock._keeping.isActive() or prompt._keeping.isActive()))
    for model, edits in (("bar@150", left), ("bar@200", left), ("foo@150", [])):
        again = InspectionLab(tmp_path)
        again.host.answers |= lab.host.answers
        docks = InterventionsDock(again), PromptDock(again)
        for other in docks:
            qtbot.addWidget(other)
            other.remember(settings)
            other.keep()  # as where the window is closed before a model is opened
        assert docks[1].text.toPlainText() == "My own"
        again.inspection.open(model)
        qtbot.waitUntil(lambda again=again: bool(again.inspection.tokens))
        assert (again.inspection.text, again.inspection.edits) == ("My own", edits)
        assert docks[0].form.target()["source"] == "My source"
        again.inspection.open("foo@150")
        qtbot.waitUntil(lambda again=again: again.inspection.about.reference == "foo@150")
        assert again.inspection.edits == []
        again.close()
