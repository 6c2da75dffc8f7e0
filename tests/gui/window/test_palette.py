"""The command palette finds what is meant from a few letters."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from llmlab_gui.window.main_window import MainWindow
from llmlab_gui.window.palette import Command, CommandPalette, best, score

TEXTS = ("Train", "Pause", "Reset layout", "Learning rate & gradient norm", "Loss", "Open run 20261124-baby", "Log")


def found(wanted: str) -> list[str]:
    return [command.text for command in best([Command(text, lambda: None) for text in TEXTS], wanted)]


@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        ("train", "Train"),
        ("reset", "Reset layout"),
        ("rl", "Reset layout"),
        ("lr", "Learning rate & gradient norm"),
        ("grad", "Learning rate & gradient norm"),
        ("lo", "Log"),
        ("los", "Loss"),
        ("baby", "Open run 20261124-baby"),
        ("PAUSE", "Pause"),
    ],
)
def test_a_few_letters_find_the_command(wanted: str, first: str) -> None:
    assert found(wanted)[0] == first


def test_letters_that_are_not_there_find_nothing() -> None:
    assert found("xyzzy") == []
    assert score("esol", "lose") is None  # the order matters


def test_an_empty_line_offers_everything_in_its_order() -> None:
    assert found("") == list(TEXTS)


@pytest.mark.qt_log_ignore("This plugin does not support")
def test_the_palette_runs_what_is_chosen_by_keyboard(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    window.palette_action.trigger()
    palette = window.findChild(CommandPalette)
    assert palette is not None
    qtbot.keyClicks(palette.line, "show samples")
    qtbot.keyClick(palette.line, Qt.Key.Key_Return)
    assert window.docks["samples"].isVisible()
    assert not window.docks["samples"].visibleRegion().isEmpty()


def test_the_palette_offers_panels_runs_presets_pages_and_actions(same_window: MainWindow) -> None:
    kinds = {command.kind for command in same_window.menus.commands()}
    assert {"Do", "Show", "Workspace", "Theme", "Set up", "Paper", "Learn"} <= kinds
