"""Practice in the window: a question is asked, answered by keyboard, explained, kept; then the next one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_lab import FakeLab
from fakes import FakeRun
from practice_questions import Questions, question
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QStyle, QStyleOptionViewItem
from pytestqt.qtbot import QtBot
from windows import dock_in_sight

from llmlab.core.errors import LabError
from llmlab.practice.deck import HANDFUL, Deck
from llmlab.practice.kinds import all_kinds
from llmlab.practice.question import CHOICE, HEAD, INTERVAL, TRAINING, VALUE, Question
from llmlab.practice.source_lines import lines_of
from llmlab_gui.host.messages import ModelAbout
from llmlab_gui.host.selection import Working
from llmlab_gui.pages.places import DOCK_IDS
from llmlab_gui.practice.dock import PracticeDock


@pytest.fixture
def lab(qtbot: QtBot, tmp_path: Path) -> FakeLab:
    return FakeLab(tmp_path)


@pytest.fixture
def dock(qtbot: QtBot, lab: FakeLab) -> Iterator[PracticeDock]:
    with dock_in_sight(qtbot, PracticeDock(lab), 620, 480) as made:
        yield made


def begin(dock: PracticeDock, lab: FakeLab, *questions: Question | LabError | None) -> Questions:
    host = Questions(questions)
    lab.inspection.host = host
    dock.begin()
    host.say()
    return host


def test_every_kind_leads_to_a_panel() -> None:
    assert {kind.panel for kind in all_kinds().values()} <= set(DOCK_IDS)


def test_a_file_that_a_question_is_about_is_named_without_its_folders(dock: PracticeDock, lab: FakeLab) -> None:
    begin(dock, lab, replace(question(VALUE), model="/models/small/tiny.gguf"))
    assert "about tiny.gguf" in dock.card.kind.text()


def test_a_digit_chooses_enter_answers_and_the_button_that_goes_on_has_the_keyboard(
    dock: PracticeDock, lab: FakeLab, qtbot: QtBot
) -> None:
    host = begin(dock, lab, question(CHOICE), question(VALUE))
    dock.take_keyboard()
    card = dock.card
    assert card.choices.hasFocus()
    qtbot.keyClick(card.choices, Qt.Key.Key_Return)
    assert "by its digit" in card.problem.text()
    qtbot.keyClick(card.choices, Qt.Key.Key_1)
    assert card.problem.text() == ""
    qtbot.keyClick(card.choices, Qt.Key.Key_2)
    assert card.marked is None
    qtbot.keyClick(card.choices, Qt.Key.Key_Return)
    assert card.marked is not None
    assert card.marked.right
    assert card.result.isVisible()
    assert "So." in card.result.text()
    assert card.next_button.hasFocus()
    qtbot.waitUntil(lambda: len(dock.record.answers) == 1)
    assert Deck(lab.outputs).read().answers[0].right
    with qtbot.waitSignal(lab.dock_requested) as asked:
        card.panel_button.click()
    assert asked.args == ["parameters"]
    host.say()
    qtbot.keyClick(card.next_button, Qt.Key.Key_Space)
    assert card.question == question(VALUE)


def test_a_number_that_is_none_leaves_the_question_open(dock: PracticeDock, lab: FakeLab, qtbot: QtBot) -> None:
    begin(dock, lab, question(INTERVAL))
    card = dock.card
    for wrong in ("", "much", "4", "6..5"):
        card.line.setText(wrong)
        qtbot.keyClick(card.line, Qt.Key.Key_Return)
        assert card.marked is None, wrong
        assert card.problem.text(), wrong
    card.line.setText("5..6")
    qtbot.keyClick(card.line, Qt.Key.Key_Return)
    assert "1.0 widths" in card.result.text()
    qtbot.waitUntil(lambda: dock.record.calibration().count == 1)
    assert "0 of 1" in dock.verdict.text()
    table = dock.table
    rows = [table.item(row, 0).text() for row in range(table.rowCount())]
    assert rows[:3:2] == ["By way of asking", "By page"]
    assert len(rows) == 4  # its way and its page


def test_a_question_that_is_computed_can_be_cancelled(dock: PracticeDock, lab: FakeLab) -> None:
    host = Questions((question(INTERVAL),))
    lab.inspection.host = host
    dock.begin()
    dock._words._button.click()
    assert "Practise" in dock._words.text
    host.say()
    assert dock.card.question is None


def test_a_question_that_models_are_trained_for_can_be_skipped(dock: PracticeDock, lab: FakeLab) -> None:
    host = Questions((question(INTERVAL),))
    lab.inspection.host = host
    dock.begin()
    first = host.requests[-1]
    first.progressed.emit(Working(f"{TRAINING} to compare", 0.5))
    assert "50 %" in dock._words.text
    dock._words._button.click()
    assert host.quick
    host.say()
    assert dock.card.question is not None
    first.answered.emit(None)  # which nobody waits for
    assert dock.card.question is not None


def test_an_interval_that_is_too_wide_is_said_to_be(dock: PracticeDock, lab: FakeLab, qtbot: QtBot) -> None:
    begin(dock, lab, replace(question(INTERVAL), useful=2.0, unit="nats"))
    dock.card.line.setText("0..100")
    qtbot.keyClick(dock.card.line, Qt.Key.Key_Return)
    assert "Too wide." in dock.card.result.text()
    assert "2 nats would do" in dock.card.result.text()
    qtbot.waitUntil(lambda: dock.record.calibration().count == 1)
    assert "1 of 1 came true" in dock.verdict.text()
    assert "1 of 1 interval was too wide" in dock.verdict.text()
    assert dock.scores.curves()["interval"].y.tolist() == [5.0]


def test_who_pressed_ask_me_can_type_the_answer(dock: PracticeDock, lab: FakeLab, qtbot: QtBot) -> None:
    dock.activateWindow()
    qtbot.waitUntil(dock.isActiveWindow)
    dock._words._button.setFocus()
    begin(dock, lab, question(INTERVAL))
    assert QApplication.focusWidget() is dock.card.line


def test_a_key_pressed_while_a_question_is_computed_does_not_cancel_it(
    dock: PracticeDock, lab: FakeLab, qtbot: QtBot
) -> None:
    dock.activateWindow()
    qtbot.waitUntil(dock.isActiveWindow)
    host = Questions((question(VALUE), question(VALUE, 1), LabError("It is gone.")))
    lab.inspection.host = host

    def press() -> None:
        """What presses a button without the window's own filter of keys, as Enter does with it."""
        now = QApplication.focusWidget()
        assert dock.isAncestorOf(now)
        qtbot.keyClick(now, Qt.Key.Key_Space)

    dock._words._button.setFocus()
    for number in (0, 1):
        dock._words._button.click() if number == 0 else dock.card.next_button.click()
        assert dock._words._button.text() == "Cancel"
        press()
        host.say()
        assert dock.card.question == question(VALUE, number)
        assert QApplication.focusWidget() is dock.card.line
        dock.card.give_up()
    dock.card.next_button.click()
    host.say()
    assert "It is gone." in dock._words.text
    assert QApplication.focusWidget() is dock._words._button  # Try again


def test_a_head_is_answered_by_a_click_in_the_mosaic(dock: PracticeDock, lab: FakeLab, qtbot: QtBot) -> None:
    begin(dock, lab, question(HEAD))
    with qtbot.waitSignal(lab.dock_requested) as asked:
        dock.card.panel_button.click()
    assert asked.args == ["attention"]
    assert lab.inspection.text == "The king"
    for model, typed in (("bar@live", ""), ("bar@150", "1.0")):
        lab.inspection.about = ModelAbout(model, model, "scratch")
        lab.inspection.select(layer=0, head=0)
        lab.inspection.select(layer=1, head=0)
        assert dock.card.line.text() == typed
    dock.card.submit()
    assert dock.card.marked is not None
    assert dock.card.marked.right


def test_a_question_whose_model_cannot_be_opened_any_more_is_replaced_unmarked(
    dock: PracticeDock, lab: FakeLab
) -> None:
    host = begin(dock, lab, question(HEAD), question(VALUE))
    dock.card.open_panel()
    assert lab.inspection.choice.model == "bar@150"
    lab.inspection._take_refusal(LabError("bar has no checkpoint @150."))
    host.say()
    assert dock.card.question == question(VALUE)
    assert not dock._done


def test_instead_of_a_model_that_was_deleted_the_current_run_is_asked_about(dock: PracticeDock, lab: FakeLab) -> None:
    fake = FakeRun(lab.outputs, "bar").start().advance(150).save_checkpoint()
    lab.add(fake)
    lab.inspection.about = ModelAbout("bar@150", "bar", "scratch")
    assert dock.asker.about() == "bar@150"
    lab.inspection.about = ModelAbout("bar@100", "bar", "scratch")
    assert dock.asker.about() == lab.current_model(live=False) == f"{fake.run.path}@latest"


def test_a_handful_ends_and_more_is_offered_and_nothing_comes_twice(
    dock: PracticeDock, lab: FakeLab, qtbot: QtBot
) -> None:
    asked = [question(VALUE, number) for number in range(HANDFUL)]
    host = begin(dock, lab, *asked, None)
    for number in range(HANDFUL):
        assert dock.card.question == asked[number]
        dock.card.line.setText("4" if number else "")
        if number:
            dock.card.submit()
        else:
            dock.card.give_up()
        if number < HANDFUL - 1:
            host.say()  # it was made while this one was answered
        qtbot.waitUntil(lambda: len(dock.record.answers) == number + 1)  # noqa: B023
        dock.card.next_button.click()
    assert "4 of 5 right" in dock._words.text
    assert "comes back tomorrow" in dock._words.text
    assert host.asked[-1][2] == [f"number-{number}" for number in range(HANDFUL - 1)]
    dock._words._button.click()
    host.say()
    assert "nothing more to ask" in dock._words.text


def test_a_question_that_is_still_made_when_it_is_wanted_is_said_to_be(dock: PracticeDock, lab: FakeLab) -> None:
    host = begin(dock, lab, question(VALUE), question(VALUE, 1))
    dock.card.give_up()
    host.requests[-1].progressed.emit(Working("Reading the text", 0.5))
    dock.card.next_button.click()
    assert not dock.card.isVisible()
    assert dock._words.isVisible()
    assert dock._words.text.startswith("Reading the text (50 %)")
    host.say()
    assert dock.card.isVisible()
    assert dock.card.question == question(VALUE, 1)


def test_five_more_are_about_the_model_that_is_active_by_then(
    dock: PracticeDock, lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = begin(dock, lab, *(question(VALUE, number) for number in range(2 * HANDFUL)))
    for number in range(HANDFUL):
        dock.card.give_up()
        if number < HANDFUL - 1:
            host.say()
        dock.card.next_button.click()
    monkeypatch.setattr(dock.asker, "about", lambda: "another@latest")
    dock._words._button.click()
    host.say()
    assert [about for about, *_ in host.asked] == [""] * HANDFUL + ["another@latest"]


def test_the_panel_of_a_model_has_it_open_also_where_no_prompt_is_asked_about(
    dock: PracticeDock, lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    begin(dock, lab, replace(question(HEAD), prompt=""))
    monkeypatch.setattr(lab.inspection, "open", opened.append)
    dock.card.open_panel()
    assert opened == ["bar@150"]


def test_what_fails_is_said_with_the_way_to_try_again(dock: PracticeDock, lab: FakeLab, qtbot: QtBot) -> None:
    assert "Ask me" in dock._words._button.text()
    host = begin(dock, lab, LabError("It is gone.", "Really."), question(VALUE))
    assert "It is gone." in dock._words.text
    dock._words._button.click()
    host.say()
    assert dock.card.question is not None
    (lab.outputs / "practice.json").write_text("{")
    dock.card.give_up()
    qtbot.waitUntil(lambda: len(lab.errors) == 1)
    assert (lab.outputs / "practice.json").read_text() == "{"


def test_every_choice_is_read_whole_at_any_width(dock: PracticeDock, lab: FakeLab, qtbot: QtBot) -> None:
    lines = lines_of("llmlab/gpt/model.py::CausalSelfAttention.__init__")
    begin(dock, lab, replace(question(CHOICE), choices=tuple(sorted(lines, key=len)[-5:])))
    choices = dock.card.choices
    margin = choices.style().pixelMetric(QStyle.PixelMetric.PM_FocusFrameHMargin, None, choices) + 1
    for width in range(420, 760, 4):
        dock.resize(width, 700)
        qtbot.waitUntil(lambda: choices.verticalScrollBar().maximum() == 0)
        for row in range(choices.count()):
            option = QStyleOptionViewItem()
            choices.initViewItemOption(option)
            option.rect = choices.visualItemRect(choices.item(row))
            choices.itemDelegate().initStyleOption(option, choices.indexFromItem(choices.item(row)))
            place = choices.style().subElementRect(QStyle.SubElement.SE_ItemViewItemText, option, choices)
            text = choices.fontMetrics().boundingRect(
                0, 0, place.width() - 2 * margin, 9999, Qt.TextFlag.TextWordWrap, choices.item(row).text()
            )
            assert text.height() <= place.height(), (width, choices.item(row).text())
