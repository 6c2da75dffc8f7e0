"""The workspace Paper: papers and claims are listed, a check starts and goes on, its verdicts and charts are shown."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_checks import CLAIMS, PAPER, FakeCheck, bar_chart, curve_chart, verdict
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication, QImage
from PySide6.QtWidgets import QDockWidget, QMainWindow
from pytestqt.qtbot import QtBot
from whole_lab import WholeLab
from windows import dock_in_sight

from llmlab.core.charts import Axis, Chart, Series
from llmlab.core.errors import LabError
from llmlab.core.kinds import PAPERS
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, PAPERS_DIR, SUPPORTED
from llmlab.jobs.worker_process import launch
from llmlab.studies import launcher
from llmlab_gui.experiments import controller
from llmlab_gui.lab.dock import is_seen
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.notebook.asking import ask_of_check
from llmlab_gui.paper.check import CheckDock
from llmlab_gui.paper.check_form import CheckForm
from llmlab_gui.paper.claim_rows import NO_TEST, NOT_ASKED, number, statistic_text, value_text
from llmlab_gui.paper.claims import ClaimsDock
from llmlab_gui.paper.evidence import EvidenceDock
from llmlab_gui.paper.notes import PaperDock
from llmlab_gui.widgets.theme import theme_notifier


@pytest.fixture
def check_dock(qtbot: QtBot, lab: WholeLab) -> Iterator[CheckDock]:
    lab.notebook.set_asks(False)
    with dock_in_sight(qtbot, CheckDock(lab, lab.papers), 480, 640) as made:
        yield made


@pytest.fixture
def claims(qtbot: QtBot, lab: WholeLab) -> Iterator[ClaimsDock]:
    with dock_in_sight(qtbot, ClaimsDock(lab, lab.papers), 1000, 300) as made:
        yield made


@pytest.fixture
def evidence(qtbot: QtBot, lab: WholeLab) -> Iterator[EvidenceDock]:
    with dock_in_sight(qtbot, EvidenceDock(lab, lab.papers), 1000, 600) as made:
        yield made


def read(qtbot: QtBot, lab: WholeLab, paper: str = PAPER) -> None:
    """Waits for the papers, and reads one of them."""
    lab.papers.show(paper)
    qtbot.waitUntil(lambda: lab.papers.paper is not None and lab.papers.checks.looked)


def click(claims: ClaimsDock, qtbot: QtBot, claim: str) -> None:
    place = [row.claim.id for row in claims.model.rows].index(claim)
    where = claims.table.visualRect(claims.model.index(place, 0)).center()
    qtbot.mouseClick(claims.table.viewport(), Qt.MouseButton.LeftButton, pos=where)


# Papers and claims ---------------------------------------------------------------------------------------------


def test_every_paper_is_offered_and_its_notes_are_shown(qtbot: QtBot, lab: WholeLab) -> None:
    with dock_in_sight(qtbot, PaperDock(lab, lab.papers), 480, 600) as dock:
        read(qtbot, lab)
        offered = {dock.papers.itemData(place) for place in range(dock.papers.count())}
        assert offered == {path.parent.name for path in PAPERS_DIR.glob("*/claims.toml")}
        paper = lab.papers.paper
        assert paper is not None
        shown = dock.browser.toPlainText()
        assert paper.authors in shown
        assert paper.links[0].partition("://")[2] in shown
        dock.papers.setCurrentIndex(dock.papers.findData("grokking"))
        dock.papers.activated.emit(dock.papers.currentIndex())
        assert lab.papers.paper is not None
        assert lab.papers.paper.name == "grokking"
        assert "mod 113" in dock.browser.toPlainText()


def test_claims_say_what_is_known_of_each(qtbot: QtBot, lab: WholeLab, outputs: Path, claims: ClaimsDock) -> None:
    read(qtbot, lab)
    paper = lab.papers.paper
    assert paper is not None
    assert [row.claim.id for row in claims.model.rows] == [claim.id for claim in paper.claims]
    assert "no check has been run yet" in claims.standing.text()
    check = FakeCheck(outputs)
    check.run(1)
    qtbot.waitUntil(lambda: {row.state for row in claims.model.rows} >= {"running"})
    states = {row.claim.id: row.state for row in claims.model.rows}
    assert states["composition"] == NOT_ASKED
    assert states["large-models"] == NO_TEST
    check.judge(verdict(CLAIMS[0], SUPPORTED))
    qtbot.waitUntil(lambda: claims.model.rows[0].state == SUPPORTED)
    assert claims.model.rows[1].state == "running"
    assert "1 supported so far" in claims.standing.text()
    assert "0.934 (0.91 to 0.95) bits" in claims.model.index(0, 3).data()
    header, rows = claims.model.table()
    cells = dict(zip(header, rows[0], strict=True))
    assert [cells[name] for name in ("Value", "Low", "High", "Unit", "p", "Paper's own")] == [
        *(0.934, 0.91, 0.95, "bits", 0.004),
        "passes",
    ]


def test_a_click_on_a_claim_shows_its_evidence_and_its_charts(
    qtbot: QtBot, lab: WholeLab, outputs: Path, claims: ClaimsDock, evidence: EvidenceDock, tmp_path: Path
) -> None:
    check = FakeCheck(outputs)
    check.judge()
    check.finish()
    read(qtbot, lab)
    qtbot.waitUntil(lambda: claims.model.rows[0].verdict is not None)
    click(claims, qtbot, CLAIMS[0])
    assert evidence.badge.state == NOT_SUPPORTED
    words = evidence.words.toPlainText()
    for part in ("The reason of two-layers", "At least 0.5 in four", "0.93", "score | best", "They name no bound"):
        assert part in words
    assert evidence.pane.charts.count() == 2
    assert evidence.chart.chart == curve_chart()
    evidence.pane.charts.setCurrentIndex(1)
    assert evidence.chart.chart == bar_chart()
    assert evidence.chart.scale_item.isVisible()
    header, rows = evidence.chart.table()
    assert rows[1][header.index("category")] == "layer 1"
    assert rows[1][header.index("high")] == 0.95
    for ending in ("png", "svg", "csv"):
        evidence.pane.export(tmp_path / f"chart.{ending}")
    qtbot.waitUntil(lambda: (tmp_path / "chart.csv").is_file())
    assert not QImage(str(tmp_path / "chart.png")).isNull()
    title = f"{evidence.desk.check.id}: {bar_chart().title}"  # without the choice's "2 of 2"
    assert f"<title>{title}</title>" in (tmp_path / "chart.svg").read_text(encoding="utf-8")
    click(claims, qtbot, CLAIMS[1])
    assert evidence.badge.state == INCONCLUSIVE
    assert evidence.pane.charts.count() == 1
    click(claims, qtbot, "large-models")
    assert evidence.chart.chart is None
    assert "no test" in evidence.words.toPlainText()


def test_a_point_of_a_chart_says_its_value_and_interval(
    qtbot: QtBot, lab: WholeLab, outputs: Path, evidence: EvidenceDock
) -> None:
    check = FakeCheck(outputs)
    check.judge()
    check.finish()
    read(qtbot, lab)
    qtbot.waitUntil(lambda: evidence.chart.chart is not None)
    tip = evidence.chart.tip_at(evidence.chart.place_of(2.0, 0.2))
    assert "seed 1" in tip
    assert "0.2000 (0.1500 to 0.4000)" in tip
    evidence.pane.log_y.click()
    assert evidence.chart.log_y
    theme_notifier.changed.emit()
    assert evidence.chart.chart == curve_chart()


def test_a_finished_run_is_opened_as_the_model_of_all_panels(
    qtbot: QtBot, lab: WholeLab, outputs: Path, evidence: EvidenceDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(lab.inspection, "open", opened.append)
    check = FakeCheck(outputs)
    check.run(1)
    read(qtbot, lab)
    qtbot.waitUntil(lambda: bool(evidence.runs_button.menu().actions()))
    first = check.record.trials[0]
    assert [action.text() for action in evidence.runs_button.menu().actions()] == [first.name]
    asked: list[str] = []
    lab.dock_requested.connect(asked.append)
    evidence.runs_button.menu().actions()[0].trigger()
    evidence.evolution_button.menu().actions()[0].trigger()
    assert opened == [f"papers/{first.run}@final"] * 2
    assert asked == ["evolution"]


def test_the_runs_that_are_offered_are_those_of_the_check_that_is_shown(
    qtbot: QtBot, lab: WholeLab, outputs: Path, evidence: EvidenceDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(lab.inspection, "open", opened.append)
    older, newer = FakeCheck(outputs, "older", created=1.7e9), FakeCheck(outputs, "newer", created=1.71e9)
    for check in (older, newer):
        check.finish()
    read(qtbot, lab)
    actions = evidence.runs_button.menu().actions
    qtbot.waitUntil(lambda: bool(actions()))
    assert older.record.trials[0].name == newer.record.trials[0].name
    for check in (newer, older):
        lab.papers.checks.set_current(check.folder.id)
        qtbot.waitUntil(lambda: bool(actions()))
        actions()[0].trigger()
    assert opened == [f"papers/{check.record.trials[0].run}@final" for check in (newer, older)]


# Checks --------------------------------------------------------------------------------------------------------


def test_the_form_says_what_each_size_takes_and_gives_the_command(
    qtbot: QtBot, lab: WholeLab, check_dock: CheckDock
) -> None:
    read(qtbot, lab)
    qtbot.waitUntil(lambda: check_dock.setup.button.isEnabled())
    form = check_dock.form
    sizes = range(form.size_box.count())
    qtbot.waitUntil(lambda: all("about" in form.size_box.itemText(place) for place in sizes))
    assert check_dock.setup.record is not None
    both = len(check_dock.setup.record.trials)
    form.claims["composition"].setChecked(False)
    form.seeds.setValue(2)
    qtbot.waitUntil(lambda: check_dock.setup.record is not None and len(check_dock.setup.record.trials) < both)
    estimate = check_dock.setup.estimate
    assert "Every verdict will be inconclusive: a verdict needs 4 seeds" in estimate.text()
    lab.notebook.set_asks(True)
    assert ask_of_check(check_dock, lab, check_dock.setup.record) == []  # nothing is left to ask
    check_dock.copy_button.click()
    command = "llmlab-run paper run induction-heads --size minutes --claims two-layers,phase-change --seeds 2"
    assert QGuiApplication.clipboard().text() == command
    assert check_dock.setup.record.command == command
    for box in form.claims.values():
        box.setChecked(False)
    qtbot.waitUntil(lambda: "Tick" in check_dock.setup.problem.text())
    assert not check_dock.setup.button.isEnabled()
    assert not check_dock.copy_button.isEnabled()
    form.claims["composition"].setChecked(True)
    qtbot.waitUntil(check_dock.copy_button.isEnabled)
    form.name.setText("a/b")
    qtbot.waitUntil(lambda: "a/b" in check_dock.setup.problem.text())
    assert not check_dock.copy_button.isEnabled()


def test_the_tip_of_seeds_names_how_many_must_agree(
    qtbot: QtBot, lab: WholeLab, check_dock: CheckDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "4 of them must agree, and 80 % of all" in check_dock.form.seeds.toolTip()
    monkeypatch.setattr("llmlab_gui.paper.check_form.SEEDS_AGREEING", 5)
    other = CheckForm(lab, check_dock.desk)
    qtbot.addWidget(other)
    assert "5 of them must agree" in other.seeds.toolTip()


def test_what_is_in_the_form_of_a_check_is_there_after_a_restart(
    qtbot: QtBot, lab: WholeLab, check_dock: CheckDock, tmp_path: Path
) -> None:
    settings = WindowSettings(tmp_path / "window.ini")
    check_dock.remember(settings)
    read(qtbot, lab)
    form = check_dock.form
    form.size_box.setCurrentIndex(form.size_box.findData("hour"))
    form.claims["composition"].setChecked(False)
    form.seeds.setValue(5)
    left = form.draft()
    read(qtbot, lab, "grokking")
    assert all(box.isChecked() for box in form.claims.values())
    read(qtbot, lab)
    assert form.draft() == left
    check_dock.shutdown()
    form.seeds.setValue(7)
    form.claims["composition"].setChecked(True)
    check_dock.remember(settings)
    assert form.draft() == left
    for outputs in (lab.outputs, tmp_path / "others"):  # a new window, before it has read the papers
        again = WholeLab(outputs)
        with dock_in_sight(qtbot, CheckDock(again, again.papers), 480, 640) as opened:
            opened.remember(settings)
            qtbot.waitUntil(lambda papers=again.papers: papers.paper is not None)
            assert (opened.form.draft() == left) == (outputs == lab.outputs)
        again.shutdown()


def test_a_size_that_is_chosen_while_another_is_planned_is_planned_next(
    qtbot: QtBot, lab: WholeLab, check_dock: CheckDock
) -> None:
    read(qtbot, lab)
    qtbot.waitUntil(lambda: check_dock.setup.record is not None)
    record = check_dock.setup.record
    assert record is not None
    minutes = check_dock.form.read()
    check_dock.form.size_box.setCurrentIndex(check_dock.form.size_box.findData("hour"))
    check_dock.setup._take(minutes, {"minutes": record})  # arrives now; nothing is known of an hour yet
    assert check_dock.setup.record is record
    qtbot.waitUntil(lambda: check_dock.setup.record is not None and "--size hour" in check_dock.setup.record.command)


def test_what_is_edited_after_run_was_pressed_is_not_started_by_it(
    qtbot: QtBot, lab: WholeLab, check_dock: CheckDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(lab.papers.checks.controller, "start", lambda record, _: started.append(record))
    read(qtbot, lab)
    check_dock.setup.start()  # there is no plan yet
    check_dock.form.seeds.setValue(2)
    qtbot.waitUntil(lambda: check_dock.setup.record is not None and "--seeds 2" in check_dock.setup.record.command)
    assert started == []


def test_a_check_that_could_not_be_started_can_be_tried_again(
    qtbot: QtBot, lab: WholeLab, check_dock: CheckDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **how: object) -> None:
        raise LabError("There is no room on the disk.")

    monkeypatch.setattr(controller, "start_experiment", no_room)
    read(qtbot, lab)
    qtbot.waitUntil(lambda: check_dock.setup.record is not None)
    for _ in range(2):
        with qtbot.waitSignal(lab.error_raised):
            check_dock.setup.button.click()
        qtbot.waitUntil(lambda: check_dock.setup.record is not None)


def test_a_name_that_no_folder_can_have_is_not_taken(qtbot: QtBot, lab: WholeLab, check_dock: CheckDock) -> None:
    read(qtbot, lab)
    check_dock.form.name.setText("n" * 400)
    check_dock.form.read()
    assert len(check_dock.form.name.text()) < 100


def test_a_claim_without_a_test_is_not_waited_for(qtbot: QtBot, lab: WholeLab, check_dock: CheckDock) -> None:
    read(qtbot, lab)
    lab.papers.want_check(PAPER, "large-models", "some-model")
    assert lab.papers.wanted is None
    assert all(box.isChecked() for box in check_dock.form.claims.values())


def test_a_check_that_is_started_by_a_click_grows_to_its_verdicts(
    qtbot: QtBot, lab: WholeLab, check_dock: CheckDock, evidence: EvidenceDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_worker(monkeypatch)
    read(qtbot, lab)
    check_dock.form.claims["composition"].setChecked(False)
    check_dock.form.name.setText("mine")
    lab.papers.set_claim("composition")
    qtbot.waitUntil(lambda: check_dock.setup.record is not None and check_dock.setup.record.id == "mine")
    check_dock.setup.button.click()
    qtbot.waitUntil(lambda: lab.papers.check is not None and lab.papers.check.id == "mine")

    def first_that_it_tests() -> None:  # what is begun may be listed before the form hears that it began
        assert lab.papers.claim is not None
        assert lab.papers.claim.claim.id == "two-layers"

    qtbot.waitUntil(first_that_it_tests)
    qtbot.waitUntil(lambda: evidence.badge.state == NOT_SUPPORTED)
    qtbot.waitUntil(lambda: check_dock.study.bar.value() == check_dock.study.bar.maximum())
    assert check_dock.checks.currentText() == "mine · minutes · finished"
    assert not check_dock.study.resume_button.isVisibleTo(check_dock)
    assert evidence.chart.chart == curve_chart()
    assert check_dock.form.name.text() == ""  # it is taken


def test_evidence_comes_before_a_page_in_its_place_when_a_check_begins(qtbot: QtBot, lab: WholeLab) -> None:
    window, evidence, page = QMainWindow(), EvidenceDock(lab, lab.papers), QDockWidget("A page")
    qtbot.addWidget(window)
    window.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, evidence)
    window.tabifyDockWidget(evidence, page)
    window.show()
    page.raise_()
    qtbot.waitUntil(lambda: is_seen(page) and not is_seen(evidence))
    lab.papers.check_began.emit()
    qtbot.waitUntil(lambda: is_seen(evidence))
    evidence.shutdown()


def test_the_progress_of_a_check_that_was_started_is_in_sight_in_a_low_panel(
    qtbot: QtBot, lab: WholeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_worker(monkeypatch)
    lab.notebook.set_asks(False)
    with dock_in_sight(qtbot, CheckDock(lab, lab.papers), 400, 280) as dock:
        read(qtbot, lab)
        qtbot.waitUntil(lambda: dock.setup.record is not None)
        dock.setup.button.setFocus()
        dock.setup.button.click()
        for part in (dock.study.bar, dock.study.standing, dock.setup.button):
            qtbot.waitUntil(lambda part=part: part.height() > 0 and part.visibleRegion().boundingRect() == part.rect())


def test_an_interrupted_check_is_offered_to_go_on_and_does(
    qtbot: QtBot, lab: WholeLab, outputs: Path, check_dock: CheckDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_worker(monkeypatch)
    check = FakeCheck(outputs)
    check.run(1)
    check.interrupt()
    read(qtbot, lab)
    standing = (
        check_dock.study.standing
    )  # a look may come between any two of the folder's writes: the last one is waited for
    qtbot.waitUntil(lambda: "It is interrupted. Resume takes 1 min 30 s." in standing.text())
    assert check_dock.study.resume_button.isVisibleTo(check_dock)
    assert check_dock.study.bar.value() == round(1000 * 30 / (30 + 90))  # seconds taken, and left
    assert not check_dock.study.stop_button.isVisibleTo(check_dock)
    check_dock.study.resume_button.click()
    qtbot.waitUntil(lambda: check.folder.status().state == "finished")
    qtbot.waitUntil(lambda: lab.papers.result is not None)


def test_stop_asks_the_worker_of_the_check_that_is_shown(
    qtbot: QtBot, lab: WholeLab, outputs: Path, check_dock: CheckDock
) -> None:
    check = FakeCheck(outputs)
    check.run(0, step=40)
    read(qtbot, lab)
    qtbot.waitUntil(lambda: check_dock.study.stop_button.isVisibleTo(check_dock))
    assert f"Run 1 of {len(check.record.trials)}" in check_dock.study.standing.text()
    assert "step 40 of 100" in check_dock.study.standing.text()
    check_dock.study.stop_button.click()
    asked = check.folder.requests
    qtbot.waitUntil(lambda: asked.is_dir() and any(asked.iterdir()))


def test_papers_and_their_checks_follow_each_other(
    qtbot: QtBot, lab: WholeLab, outputs: Path, claims: ClaimsDock
) -> None:
    older, newer = FakeCheck(outputs, "older", created=1.7e9), FakeCheck(outputs, "newer", created=1.71e9)
    older.judge(verdict(CLAIMS[0], SUPPORTED))
    older.finish()
    newer.finish()
    lab.papers.need()
    # The paper of the newest check is read, though it is not the first of all papers.
    qtbot.waitUntil(lambda: lab.papers.check is not None and lab.papers.check.id == "newer")
    assert lab.papers.paper is not None
    assert lab.papers.paper.name == PAPER
    lab.papers.checks.set_current("older")
    qtbot.waitUntil(lambda: claims.model.rows[0].state == SUPPORTED)
    lab.papers.set_paper("attention-sinks")
    assert lab.papers.check is None
    assert all(row.verdict is None for row in claims.model.rows)
    lab.papers.set_paper(PAPER)
    assert lab.papers.check is not None


def test_a_paper_that_was_chosen_keeps_a_check_of_its_own(
    qtbot: QtBot, lab: WholeLab, outputs: Path, check_dock: CheckDock, claims: ClaimsDock
) -> None:
    read(qtbot, lab)  # chosen before there is any check
    mine = FakeCheck(outputs, "mine", created=1.7e9)
    mine.judge(verdict(CLAIMS[0], SUPPORTED))
    mine.finish()
    qtbot.waitUntil(lambda: lab.papers.check is not None)
    other = FakeCheck(outputs, "other", created=1.71e9, paper="grokking", claims=["late"])
    other.run(0)  # a terminal started it: the newest that lives
    qtbot.waitUntil(lambda: lab.papers.checks.row("other") is not None)
    assert lab.papers.check is not None
    assert lab.papers.check.id == "mine"
    qtbot.waitUntil(lambda: claims.model.rows[0].state == SUPPORTED)
    assert check_dock.checks.currentData() == "mine"


def test_a_check_that_is_deleted_makes_room_for_another_of_its_paper(
    qtbot: QtBot, lab: WholeLab, outputs: Path, claims: ClaimsDock
) -> None:
    for name, created in (("older", 1.7e9), ("newer", 1.71e9)):
        FakeCheck(outputs, name, created=created).finish()
    FakeCheck(outputs, "other", created=1.72e9, paper="grokking", claims=["late"]).finish()
    read(qtbot, lab)
    qtbot.waitUntil(lambda: lab.papers.check is not None and lab.papers.check.id == "newer")
    shutil.rmtree(outputs / PAPERS / "newer")
    qtbot.waitUntil(lambda: lab.papers.checks.row("newer") is None)
    assert lab.papers.check is not None
    assert lab.papers.check.id == "older"
    shutil.rmtree(outputs / PAPERS / "older")
    qtbot.waitUntil(lambda: "no check has been run yet" in claims.standing.text())


# What others may have written ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("truncated", '{"paper": "induction-heads", "verdicts": [{"claim": "two'),
        ("wrong types", '{"paper": 3, "size": [], "verdicts": "many"}'),
        ("no verdict", '{"paper": "x", "size": "y", "verdicts": [{"claim": "two-layers", "verdict": "certainly"}]}'),
        ("nested", "[" * 100_000),
        ("not text", "\x00\xff"),
    ],
)
def test_a_damaged_verdict_is_said_and_the_window_goes_on(
    qtbot: QtBot, lab: WholeLab, outputs: Path, claims: ClaimsDock, evidence: EvidenceDock, name: str, text: str
) -> None:
    check = FakeCheck(outputs)
    check.folder.results_json.write_text(text, encoding="utf-8")
    check.finish()
    read(qtbot, lab)
    qtbot.waitUntil(lambda: "holds no verdicts" in claims.problem.text())
    assert all(row.verdict is None for row in claims.model.rows)
    check.judge()  # whole again
    qtbot.waitUntil(lambda: evidence.badge.state == NOT_SUPPORTED)
    assert claims.problem.text() == ""


def test_a_check_whose_plan_is_damaged_is_said_in_its_own_words(qtbot: QtBot, lab: WholeLab, outputs: Path) -> None:
    check = FakeCheck(outputs)
    check.folder.experiment_json.write_text("{", encoding="utf-8")
    with qtbot.waitSignal(lab.error_raised) as told:
        lab.papers.need()
    words = str(told.args[0])
    assert "no check that can be read" in words
    assert "paper.json" in words
    assert "llmlab-run paper list" in words


def test_a_verdict_file_of_endless_size_is_not_read(
    qtbot: QtBot, lab: WholeLab, outputs: Path, claims: ClaimsDock
) -> None:
    check = FakeCheck(outputs)
    with check.folder.results_json.open("wb") as file:
        file.truncate(1 << 40)  # a hole, which takes no room on the disk
    read(qtbot, lab)
    qtbot.waitUntil(lambda: "more than any check writes" in claims.problem.text())


def test_numbers_that_no_chart_has_a_place_for_are_left_out(
    qtbot: QtBot, lab: WholeLab, outputs: Path, evidence: EvidenceDock
) -> None:
    check = FakeCheck(outputs)
    check.judge()
    hostile = json.loads(check.folder.results_json.read_text(encoding="utf-8"))
    chart = hostile["verdicts"][0]["charts"][0]
    chart["series"][0] |= {"x": [0, 1, 2, 3], "y": [float("nan"), 1e308, -1e308, 0.5], "low": [], "high": []}
    chart["title"] = "<img src=x>" * 1000
    hostile["verdicts"][0] |= {"statistic": {"name": "s", "value": float("nan")}, "interval": [float("inf")] * 2}
    hostile["verdicts"][0]["reason"] = "# So *many* words. " * 100_000
    hostile["verdicts"][0]["tables"] = [{"title": "t", "columns": ["a"], "rows": [["b", "c"]] * 5000}]
    check.folder.results_json.write_text(json.dumps(hostile), encoding="utf-8")
    check.finish()
    read(qtbot, lab)
    qtbot.waitUntil(lambda: evidence.chart.chart is not None)
    evidence.grab()
    assert len(evidence.words.toPlainText()) < 20_000
    assert len(evidence.pane.charts.currentText()) < 200


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01349, "0.0135"), (4.0, "4"), (120.4, "120"), (1_200_000.4, "1,200,000"), (2e-7, "2e-07"), (math.inf, "–")],
)
def test_numbers_are_written_with_the_digits_that_matter(value: float, text: str) -> None:
    assert number(value) == text


def test_the_value_of_a_statistic_comes_before_its_name_which_may_be_cut() -> None:
    found = verdict(CLAIMS[0])
    assert statistic_text(found) == f"{value_text(found.statistic, found.interval)}: {found.statistic.name}"
    assert statistic_text(None) == ""


@pytest.mark.parametrize("kind", ["line", "dashed", "points", "bars"])
def test_empty_and_single_series_are_drawn(qtbot: QtBot, evidence: EvidenceDock, kind: str) -> None:
    pair = curve_chart().x_axis, curve_chart().y_axis
    for x in ([], [1.0]):
        evidence.chart.show_chart(Chart(f"{kind}{len(x)}", "", *pair, [Series("", list(x), list(x), kind)]))
        evidence.chart.set_log(x=True, y=True)
        evidence.chart.grab()
        assert len(evidence.chart.table()[1]) == len(x)


def test_layers_have_whole_ticks_and_names_lie_beside_the_curves(qtbot: QtBot, evidence: EvidenceDock) -> None:
    chart = curve_chart()
    layers = Chart("layers", "", Axis("layer"), chart.y_axis, chart.series)
    halves = Chart("halves", "", Axis("layer"), chart.y_axis, [Series("", [0.5, 1.25], [0.0, 1.0])])
    ticks = []
    for shown in (layers, halves):
        evidence.chart.show_chart(shown)
        evidence.chart.grab()
        axis = evidence.chart.getAxis("bottom")
        ticks.append([value for _, values in axis.tickValues(*axis.range, 900) for value in values])
    assert all(value == round(value) for value in ticks[0])
    assert not all(value == round(value) for value in ticks[1])
    evidence.chart.show_chart(layers)
    evidence.chart.grab()
    legend, view = evidence.chart.legend, evidence.chart.getPlotItem().getViewBox()
    assert legend.shown == ["seed 1", "chance"]
    assert not legend.sceneBoundingRect().intersects(view.sceneBoundingRect())


# The window ----------------------------------------------------------------------------------------------------


def fake_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of checks train nothing."""
    monkeypatch.setattr(launcher, "launch", lambda _, *asked, **how: launch("fake_checks", *asked, **how))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
