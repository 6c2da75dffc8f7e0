"""A reader's own paper in the workspace Paper: begun and answered by keyboard alone, left and gone on with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PySide6.QtCore import QEvent, Qt
from PySide6.QtWidgets import QApplication, QDialog
from pytestqt.qtbot import QtBot
from whole_lab import WholeLab
from windows import dock_in_sight

from llmlab.studies.papers.own import CLAIM_QUESTIONS, NOTES_QUESTIONS, OwnPaper, find_own_paper
from llmlab.studies.papers.own_answers import new_paper, write_answer
from llmlab_gui.experiments.report_dock import ReportDock
from llmlab_gui.paper import questions
from llmlab_gui.paper.check import CheckDock, check_report
from llmlab_gui.paper.claim_rows import NO_TEST
from llmlab_gui.paper.claims import ClaimsDock
from llmlab_gui.paper.notes import PaperDock
from llmlab_gui.paper.questions import PaperQuestions
from llmlab_gui.widgets.question import LineQuestion


def own_of(lab: WholeLab) -> OwnPaper:
    own = find_own_paper("mine", lab.outputs)
    assert own is not None
    return own


def type_answer(qtbot: QtBot, dialog: PaperQuestions, words: str) -> None:
    qtbot.keyClicks(dialog.answer, words)
    qtbot.keyClick(dialog.answer, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)


def test_a_paper_is_begun_answered_by_keyboard_left_and_gone_on_with(
    qtbot: QtBot, lab: WholeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def line(dialog: LineQuestion) -> int:
        dialog.line.setText("mine")
        dialog.accept()
        return dialog.result()

    def answer_some(dialog: PaperQuestions) -> int:
        dialog.show()
        type_answer(qtbot, dialog, "On Mirrors")
        type_answer(qtbot, dialog, "A. Reader")
        type_answer(qtbot, dialog, "soon")
        assert "four digits" in dialog.problem.text()
        dialog.answer.clear()
        type_answer(qtbot, dialog, "2020")
        qtbot.keyClicks(dialog.answer, "https://example.org/a")
        qtbot.keyClick(dialog, Qt.Key.Key_Escape)  # which keeps it
        assert dialog.result() == QDialog.DialogCode.Rejected
        return 0

    monkeypatch.setattr(LineQuestion, "exec", line)
    monkeypatch.setattr(PaperQuestions, "exec", answer_some)
    with (
        dock_in_sight(qtbot, PaperDock(lab, lab.papers), 480, 600) as dock,
        dock_in_sight(qtbot, ClaimsDock(lab, lab.papers), 900, 300) as claims,
    ):
        qtbot.waitUntil(lambda: lab.papers.looked)
        assert not dock.ask_action.isEnabled()  # of the lab's own papers
        dock.new_action.trigger()
        qtbot.waitUntil(lambda: lab.papers.paper is not None and lab.papers.paper.name == "mine")
        assert dock.ask_action.isEnabled()
        assert dock.folder_action.isEnabled()
        paper = own_of(lab).paper
        assert (paper.title, paper.authors, paper.year) == ("On Mirrors", "A. Reader", 2020)
        assert paper.links == ("https://example.org/a",)
        qtbot.waitUntil(lambda: "control of claim-1 has no answer" in dock.browser.toPlainText())
        assert [row.state for row in claims.model.rows] == [NO_TEST]
        assert claims.model.table()[1][0][:2] == ["claim-1", NO_TEST]
        assert "answers missing" in claims.standing.text()


def test_the_questions_go_on_where_they_were_left_and_end(qtbot: QtBot, lab: WholeLab) -> None:
    new_paper("mine", lab.outputs, "On Mirrors", "https://example.org/a")
    asked = []
    for _ in range(2):  # left in between
        dialog = PaperQuestions(own_of(lab))
        qtbot.addWidget(dialog)
        dialog.show()
        for _ in range(8):
            asked.append(dialog.question.text())
            field = dialog.answer.accessibleName()
            assert field == dialog.question.text()
            answers = {"In which year?": "2020", "Where can it be read?": "https://example.org/b"}
            type_answer(qtbot, dialog, answers.get(field, f"about {len(asked)} and more"))
            if dialog.result():
                break
        dialog.leave_button.click()
    assert len(set(asked)) == len(asked) == 3 + len(NOTES_QUESTIONS) + len(CLAIM_QUESTIONS)
    assert own_of(lab).standing == "complete"


def test_another_claim_is_asked_for_and_a_file_changed_by_hand_is_told_of(
    qtbot: QtBot, lab: WholeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_paper("mine", lab.outputs)
    dialog = PaperQuestions(own_of(lab))
    qtbot.addWidget(dialog)
    dialog.show()
    dialog._add("second")
    assert "Claim “second”" in dialog.where.text()
    (folder / "claims.toml").write_text("no toml", encoding="utf-8")
    type_answer(qtbot, dialog, "A title of some words")
    assert "line 1" in dialog.problem.text()
    assert dialog.answer.toPlainText() == "A title of some words"
    (folder / "claims.toml").unlink()
    dialog.leave_button.click()
    assert "could not be read" in dialog.problem.text()
    chosen = ["", "close"]
    monkeypatch.setattr(questions, "ask", lambda *_, **__: chosen.pop(0))
    dialog.reject()
    assert dialog.isVisible()
    assert dialog.answer.toPlainText() == "A title of some words"
    dialog.reject()  # nobody is held up by a file that is gone
    assert not dialog.isVisible()


def test_an_answer_changed_by_hand_meanwhile_is_not_written_over_and_one_can_be_emptied(
    qtbot: QtBot, lab: WholeLab
) -> None:
    folder = new_paper("mine", lab.outputs, "On Mirrors", "https://example.org/a")
    dialog = PaperQuestions(own_of(lab))
    qtbot.addWidget(dialog)
    dialog.show()
    write_answer(folder, None, "authors", "Somebody")
    type_answer(qtbot, dialog, "A. Reader")
    assert "Another program changed" in dialog.problem.text()
    assert own_of(lab).paper.authors == "Somebody"
    dialog.answer.clear()
    type_answer(qtbot, dialog, "")
    type_answer(qtbot, dialog, "2020")
    dialog.answer.clear()
    type_answer(qtbot, dialog, "")
    assert own_of(lab).paper.links == ()


def test_a_paper_whose_file_is_broken_is_offered_and_says_what_to_mend(qtbot: QtBot, lab: WholeLab) -> None:
    folder = new_paper("mine", lab.outputs)
    (folder / "claims.toml").write_text("[paper]\ntitle = none\n", encoding="utf-8")
    told: list[str] = []
    lab.error_raised.connect(lambda error: told.append(str(error)))
    with dock_in_sight(qtbot, PaperDock(lab, lab.papers), 480, 600) as dock:
        lab.papers.show("mine")
        qtbot.waitUntil(lambda: "It cannot be read" in dock.browser.toPlainText())
        assert "line 2" in dock.browser.toPlainText()
        dock.ask_action.trigger()
        qtbot.waitUntil(lambda: "line 2" in "".join(told))
        claims = ClaimsDock(lab, lab.papers)
        qtbot.addWidget(claims)
        assert "says what its files lack" in claims._empty.text


def test_what_is_written_in_an_editor_is_seen_when_the_window_is_in_front_again(qtbot: QtBot, lab: WholeLab) -> None:
    folder = new_paper("mine", lab.outputs)
    with dock_in_sight(qtbot, PaperDock(lab, lab.papers), 480, 600) as dock:
        lab.papers.show("mine")
        qtbot.waitUntil(lambda: NOTES_QUESTIONS[0] in dock.browser.toPlainText())
        notes = folder / "notes.md"
        notes.write_text(notes.read_text(encoding="utf-8") + "\nWeights of another size.\n", encoding="utf-8")
        QApplication.sendEvent(dock, QEvent(QEvent.Type.ActivationChange))
        qtbot.waitUntil(lambda: "Weights of another size." in dock.browser.toPlainText())
        changes: list[str] = []
        lab.papers.paper_changed.connect(lambda: changes.append("changed"))
        lab.papers.reread()  # nothing is new
        lab.papers.reread("mine")
        qtbot.waitUntil(lambda: bool(changes))
        assert changes == ["changed"]


@pytest.mark.parametrize("dock_of", [CheckDock, check_report])
def test_check_and_its_report_say_of_a_paper_without_tests_what_one_can_do(
    qtbot: QtBot, lab: WholeLab, dock_of: Callable[..., CheckDock | ReportDock]
) -> None:
    new_paper("mine", lab.outputs)
    with dock_in_sight(qtbot, dock_of(lab, lab.papers), 480, 600) as dock:
        lab.papers.show("mine")
        qtbot.waitUntil(lambda: "An experiment of your own" in dock._empty.text)
        assert isinstance(dock, ReportDock) or not (dock.form.isVisible() or dock.setup.problem.isVisible())
        with qtbot.waitSignal(lab.dock_requested) as asked:
            dock._empty._button.click()
        assert asked.args == ["experiment"]
