"""What a page asks of the real window: a workspace with the page still in sight, a filled set-up, the first hour."""

from __future__ import annotations

from typing import cast

import pytest
from PySide6.QtCore import QUrl
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from llmlab_gui.lab.dock import is_seen
from llmlab_gui.learn.dock import LearnDock
from llmlab_gui.pages.library import load_pages
from llmlab_gui.pages.page import FIRST_PAGE
from llmlab_gui.pages.places import DOCK_PAGES
from llmlab_gui.paper.check import CheckDock
from llmlab_gui.train.setup import SetupDock
from llmlab_gui.window.main_window import MainWindow


def test_the_first_hour_begins_with_its_first_page_in_sight(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    window.findChild(QAction, "action.first_hour").trigger()
    learn = cast(LearnDock, window.docks["learn"])
    qtbot.waitUntil(lambda: is_seen(learn))
    assert learn.page_name == FIRST_PAGE
    window.use_workspace("Train")
    window.covers.welcome.hour_wanted.emit()
    qtbot.waitUntil(lambda: is_seen(learn))
    # Its one click fills the set-up, the run's name included.
    learn.open_link(QUrl("lab:run?workspace=train&preset=nano&steps=30&name=mine"))
    setup = cast(SetupDock, window.docks["setup"])
    assert (setup.name.text(), setup.form.settings().train.steps) == ("mine", 30)
    assert is_seen(setup)
    learn.open_link(QUrl("lab:run?steps=40"))
    assert setup.name.text() == ""  # another run is not named like the one before


def test_a_claims_link_sets_up_its_check(
    same_window: MainWindow, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = same_window
    monkeypatch.setattr(window.lab, "row_called", lambda name: name == "mine" or None)
    learn = cast(LearnDock, window.docks["learn"])
    learn.open_link(QUrl("paper:attention-sinks/sink?model=mine@final"))
    form = cast(CheckDock, window.docks["check"]).form
    qtbot.waitUntil(lambda: form.model.reference == "mine@final")
    assert [id for id, box in form.claims.items() if box.isChecked()] == ["sink"]
    qtbot.waitUntil(lambda: is_seen(window.docks["check"]) and is_seen(learn))
    assert window.papers.wanted is None  # asked for once: another paper's form is its own


@pytest.mark.parametrize("workspace", ["look-inside", "write"])
def test_a_page_that_asks_for_a_workspace_stays_in_sight(same_window: MainWindow, qtbot: QtBot, workspace: str) -> None:
    window = same_window
    learn = cast(LearnDock, window.docks["learn"])
    window.lab.concept_requested.emit("attention")
    learn.open_link(QUrl(f"workspace:{workspace}"))
    qtbot.waitUntil(lambda: is_seen(learn))
    assert is_seen(window.docks["prompt" if workspace == "look-inside" else "write"])


def test_every_dock_has_its_title_in_the_table_and_offers_its_other_pages(same_window: MainWindow) -> None:
    window = same_window
    titles = {name: dock.windowTitle().replace("&&", "&") for name, dock in window.docks.items() if name != "learn"}
    assert {name: title for name, (title, _) in DOCK_PAGES.items()} == titles
    pages = {page.name: page.title for page in load_pages()}
    for name, (_, known) in DOCK_PAGES.items():
        dock = window.docks[name]
        menu = dock.page_menu(known[0])
        assert [action.text() for action in menu.actions()] == [pages[page] for page in known[1:]]
        captions = [label.text() for label in dock.findChildren(QLabel) if "Learn more" in label.text()]
        assert all(("Other pages" in text) == (len(known) > 1) for text in captions)
        assert captions
    said = [dock._caption.text.accessibleName() for dock in window.docks.values()]
    assert sorted(set(said)) == sorted(said)  # each says what it alone shows
    window.docks["loss"].page_menu("loss-curves").actions()[0].trigger()
    assert cast(LearnDock, window.docks["learn"]).page_name == DOCK_PAGES["loss"][1][1]
