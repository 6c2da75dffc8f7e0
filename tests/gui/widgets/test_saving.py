"""Where someone saves a file: under the name that was typed, and over nothing that was not asked about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtWidgets import QFileDialog, QWidget
from pytestqt.qtbot import QtBot

from llmlab_gui.widgets import saving

Ask = Callable[..., Path | None]


@pytest.fixture
def ask_where(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """`ask_where(*typed, replaces=)`: the names that are typed one after the other, and the answer to the question."""
    parent = QWidget()
    qtbot.addWidget(parent)

    def choose(*typed: Path | str, replaces: bool = False) -> Path | None:
        names = iter([*map(str, typed), ""])
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (next(names), ""))
        monkeypatch.setattr(saving, "ask", lambda *_args, **_more: "replace" if replaces else "")
        return saving.ask_where(parent, Path("loss.csv"))

    return choose


def test_a_name_with_a_dot_keeps_all_of_it(ask_where: Ask, tmp_path: Path) -> None:
    assert ask_where(tmp_path / "lr 0.003") == tmp_path / "lr 0.003.csv"
    assert ask_where(tmp_path / "lr 0.003.csv") == tmp_path / "lr 0.003.csv"
    assert ask_where(tmp_path / "LOSS.CSV") == tmp_path / "LOSS.CSV"
    assert ask_where(tmp_path / "loss") == tmp_path / "loss.csv"
    assert ask_where("") is None


def test_a_file_that_the_dialog_did_not_ask_about_is_replaced_only_when_told_so(ask_where: Ask, tmp_path: Path) -> None:
    kept = tmp_path / "lr 0.003.csv"
    kept.write_text("mine")
    typed = tmp_path / "lr 0.003"
    assert ask_where(typed, replaces=True) == kept
    assert ask_where(typed, tmp_path / "other", replaces=False) == tmp_path / "other.csv"
    assert ask_where(typed, replaces=False) is None


def test_every_format_of_every_thing_is_in_the_menu_and_a_single_one_needs_none(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[Path] = []
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda _parent, _title, start, _kinds: (start, ""))
    several = saving.export_button(
        saving.Export(written.append, lambda: "loss", saving.OF_A_CHART, "Chart"),
        saving.Export(written.append, lambda: "runs", what="Runs"),
    )
    single = saving.export_button(saving.Export(written.append, lambda: "all", ("md",)))
    for button in (several, single):
        qtbot.addWidget(button)
    actions = several.menu().actions()
    assert [action.text() for action in actions][-1] == "Runs: table (CSV)…"
    for action in actions:
        action.trigger()
    single.click()
    assert [path.name for path in written] == ["loss.png", "loss.svg", "loss.csv", "runs.csv", "all.md"]
