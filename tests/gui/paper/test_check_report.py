"""The report of a check is read in the window: its own, rendered with its figures, and none of another paper's."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_checks import PAPER, FakeCheck
from PySide6.QtCore import QUrl
from PySide6.QtGui import QTextDocument
from PySide6.QtWidgets import QScrollArea
from pytestqt.qtbot import QtBot
from whole_lab import WholeLab
from windows import dock_in_sight

from llmlab.studies.report import write_check_report
from llmlab_gui.experiments import poller
from llmlab_gui.paper.check import CheckDock, check_report


def reported(outputs: Path, name: str = "heads", *, created: float = 1.75e9) -> FakeCheck:
    """A finished check, with the report that its worker would write."""
    check = FakeCheck(outputs, name, created=created)
    write_check_report(check.folder, check.record, check.judge())
    check.finish()
    return check


def test_the_report_of_the_check_is_rendered_with_its_figures(
    qtbot: QtBot, lab: WholeLab, outputs: Path, tmp_path: Path
) -> None:
    check = reported(outputs)
    with dock_in_sight(qtbot, check_report(lab, lab.papers), 900, 600) as dock:
        qtbot.waitUntil(lambda: "The reason of two-layers" in dock.browser.toPlainText())
        assert "How it was made" in dock.browser.toPlainText()
        assert check.folder.id in dock.where.text()
        image = QTextDocument.ResourceType.ImageResource.value
        assert dock.browser.loadResource(image, QUrl("figures/rise.png")).width() > 100
        assert dock.browser.loadResource(image, QUrl("../../../etc/passwd")) is None
        with qtbot.waitSignal(lab.said):
            dock.save(tmp_path / "kept.md")
        assert (tmp_path / "figures" / "heads.png").is_file()
        lab.papers.set_paper("grokking")  # no check of it was run
        assert "No check is selected" in dock._empty.text
        lab.papers.set_paper(PAPER)
        qtbot.waitUntil(lambda: dock._stack.currentWidget() is dock._body)


@pytest.mark.usefixtures("no_figures")
def test_another_checks_report_begins_at_its_top(qtbot: QtBot, lab: WholeLab, outputs: Path) -> None:
    reported(outputs, "older", created=1.7e9)
    reported(outputs, "newer", created=1.71e9)
    with dock_in_sight(qtbot, check_report(lab, lab.papers), 600, 300) as dock:
        qtbot.waitUntil(lambda: dock._drawn_of == "newer")
        bar = dock.browser.verticalScrollBar()
        bar.setValue(bar.maximum())
        assert bar.value() > 0
        lab.papers.checks.set_current("older")
        qtbot.waitUntil(lambda: dock._drawn_of == "older")
        assert bar.value() == 0


@pytest.mark.usefixtures("no_figures")
def test_it_is_opened_from_the_check(qtbot: QtBot, lab: WholeLab, outputs: Path) -> None:
    reported(outputs)
    with dock_in_sight(qtbot, CheckDock(lab, lab.papers), 480, 640) as dock:
        lab.papers.show(PAPER)
        qtbot.waitUntil(lambda: dock.report_button.isVisibleTo(dock))
        with qtbot.waitSignal(lab.dock_requested) as asked:
            dock.report_button.click()
        assert asked.args == ["check_report"]


def test_nothing_of_a_check_is_cut_off_in_a_narrow_panel(qtbot: QtBot, lab: WholeLab, outputs: Path) -> None:
    check = FakeCheck(outputs, "heads-of-a-check-with-a-name-of-some-length")
    check.run(1)
    check.interrupt()
    with dock_in_sight(qtbot, CheckDock(lab, lab.papers), 330, 640) as dock:
        lab.papers.show(PAPER)
        qtbot.waitUntil(lambda: dock.study.resume_button.isVisible())
        for area in dock.findChildren(QScrollArea):
            qtbot.waitUntil(lambda area=area: area.widget().width() <= area.viewport().width())


@pytest.mark.usefixtures("no_figures")
def test_a_report_of_endless_size_is_not_read(
    qtbot: QtBot, lab: WholeLab, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "_MOST_REPORT_BYTES", 1000)
    check = reported(outputs)
    assert check.folder.report.stat().st_size > 1000
    with dock_in_sight(qtbot, check_report(lab, lab.papers), 600, 300) as dock:
        lab.papers.show(PAPER)
        qtbot.waitUntil(lambda: lab.papers.result is not None)
        assert lab.papers.report is None
        assert "No report" in dock._empty.text
