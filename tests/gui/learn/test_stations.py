"""Stations in Learn: what is done of them, the line under a page, and the explanation at a path's end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_lab import FakeLab
from practice_questions import Questions, question
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot
from windows import shown

from llmlab.core.errors import LabError
from llmlab.learning.progress import READ, State, StationLog
from llmlab.learning.recall import Try, save, tries
from llmlab.learning.stations import learning_paths
from llmlab.practice.deck import Deck
from llmlab.practice.question import CHOICE, VALUE, Marked
from llmlab_gui.learn import dock as learn
from llmlab_gui.learn import stations
from llmlab_gui.learn.dock import LearnDock
from llmlab_gui.pages.page import Page
from llmlab_gui.pages.paths import BEGIN, explain_page, load_path_pages, path_page

NAME = "text-to-text"
PATH = learning_paths()[NAME]
FIRST, SECOND = (station.page for station in PATH.stations[:2])


@pytest.fixture
def lab(qtbot: QtBot, tmp_path: Path) -> FakeLab:
    return FakeLab(tmp_path)


@pytest.fixture
def dock(qtbot: QtBot, lab: FakeLab, monkeypatch: pytest.MonkeyPatch) -> Iterator[LearnDock]:
    long = "\n\n".join(f"Paragraph {number}." for number in range(60))
    pages = [Page(name, name.title(), f"# {name.title()}\n\n{long}\n") for name in (FIRST, SECOND, "checkpoints")]
    monkeypatch.setattr(learn, "load_all", lambda: [*load_path_pages(pages), *pages])
    dock = shown(LearnDock(lab), qtbot, 800, 500)
    qtbot.waitUntil(lambda: dock.page_name != "")
    yield dock
    dock.shutdown()


def state_of(lab: FakeLab, page: str) -> State:
    place = PATH.place(page)
    assert place is not None
    return StationLog(lab.outputs).standing()[NAME].stations[place]


def last_try(lab: FakeLab) -> Try:
    return tries(lab.outputs, PATH)[-1]


def test_a_newcomer_sees_where_to_begin_and_goes_from_station_to_station(dock: LearnDock) -> None:
    assert dock.page_name == BEGIN
    assert "Begin with the first hour" in dock.browser.toPlainText()
    assert not dock.foot.isVisible()
    dock.go(path_page(NAME))
    assert dock.foot.next_button.text() == "Begin ›"
    dock.foot.next_button.click()
    assert dock.page_name == FIRST
    text = dock.browser.toPlainText()
    assert f"Station 1 of 12 of {PATH.title}. {PATH.stations[0].asks}" in text
    assert "To do at this station" in text
    assert "station 1 of 12: open" in dock.foot.words.text()
    dock.foot.next_button.click()
    assert dock.page_name == SECOND
    dock.foot.words.linkActivated.emit(f"concept:{path_page(NAME)}")
    assert dock.page_name == path_page(NAME)
    dock.go("checkpoints")
    assert not dock.foot.isVisible()


def test_a_page_is_read_when_it_was_scrolled_through_and_not_when_its_end_was_jumped_to(
    dock: LearnDock, lab: FakeLab, qtbot: QtBot
) -> None:
    dock.go(FIRST)
    bar = dock.browser.verticalScrollBar()
    assert bar.maximum() > 2 * bar.pageStep()
    bar.setValue(bar.maximum())
    dock.go(SECOND)
    bar = dock.browser.verticalScrollBar()
    while bar.value() < bar.maximum():
        bar.setValue(bar.value() + bar.pageStep())
    qtbot.waitUntil(lambda: state_of(lab, SECOND).read)
    assert not state_of(lab, FIRST).read
    qtbot.waitUntil(lambda: "page read, question open" in dock.foot.words.text())


def test_a_station_is_done_by_reading_and_answering_or_by_hand(
    dock: LearnDock, lab: FakeLab, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    dock.go(FIRST)
    StationLog(lab.outputs).add(READ, pages=[FIRST])
    Deck(lab.outputs).add(replace(question(CHOICE), concept=FIRST), Marked(False, "1"))
    dock.questions.asker.look()  # as after an answer
    qtbot.waitUntil(lambda: dock.foot.words.text().endswith(": done"))
    dock.go(SECOND)
    dock.foot.mark_button.click()
    qtbot.waitUntil(lambda: "marked as done" in dock.foot.words.text())
    dock.foot.mark_button.click()
    qtbot.waitUntil(lambda: not state_of(lab, SECOND).done)
    dock.go(path_page(NAME))
    qtbot.waitUntil(lambda: "✓ " in dock.browser.toPlainText())
    monkeypatch.setattr(stations, "ask", lambda *_, **__: "")
    dock.foot.mark_button.click()  # begin anew; no
    monkeypatch.setattr(stations, "ask", lambda *_, **__: "anew")
    assert "✓ " in dock.browser.toPlainText()
    dock.foot.mark_button.click()
    qtbot.waitUntil(lambda: "✓ " not in dock.browser.toPlainText())


def test_an_explanation_is_saved_as_it_is_typed_ticked_and_opens_what_was_missing(
    dock: LearnDock, lab: FakeLab, qtbot: QtBot
) -> None:
    dock.stations.mark(NAME, [FIRST, SECOND], done=True)
    dock.go(explain_page(NAME))
    box = dock.explain
    assert box.isVisible()
    assert not box.points.isVisible()
    qtbot.keyClicks(box.text, "Text is cut into tokens.")
    qtbot.waitUntil(lambda: bool(tries(lab.outputs, PATH)))
    assert last_try(lab).text == "Text is cut into tokens."
    qtbot.keyClicks(box.text, " And more.")
    dock.go("checkpoints")  # at once
    assert last_try(lab).text == "Text is cut into tokens. And more."
    dock.go(explain_page(NAME))
    assert box.text.toPlainText() == "Text is cut into tokens. And more."
    box.uncover_button.click()
    assert box.text.isReadOnly()
    assert box.points.count() == len(PATH.explain.points)
    qtbot.keyClick(box.points, Qt.Key.Key_Space)  # the first point
    box.keep_button.click()
    assert last_try(lab).ticked == 1
    assert 'href="concept:embeddings"' in box.result.text()
    assert 'href="concept:tokens"' not in box.result.text()
    qtbot.waitUntil(lambda: not state_of(lab, SECOND).done)
    assert state_of(lab, FIRST).done
    qtbot.waitUntil(lambda: StationLog(lab.outputs).standing()[NAME].explained)


def test_a_second_try_says_what_is_new_and_the_first_stays(dock: LearnDock, lab: FakeLab, qtbot: QtBot) -> None:
    dock.go(explain_page(NAME))
    box = dock.explain
    for text, row in (("first", 0), ("second", 1)):
        box.text.setPlainText(text)
        box.uncover_button.click()
        box.points.item(row).setCheckState(Qt.CheckState.Checked)
        box.keep_button.click()
        if row == 0:
            box.again_button.click()
            assert box.text.toPlainText() == ""
            assert not box.text.isReadOnly()
    assert [one.text for one in tries(lab.outputs, PATH)] == ["first", "second"]
    assert [box.points.item(row).text() for row in range(2)] == [
        f"{PATH.explain.points[0].belongs} (was there at first)",
        f"{PATH.explain.points[1].belongs} (new)",
    ]
    box.which.activated.emit(0)
    assert box.text.toPlainText() == "first"
    assert not box.keep_button.isVisible()  # it is as it was


def test_an_explanation_that_cannot_be_saved_stays_in_sight(dock: LearnDock, lab: FakeLab, qtbot: QtBot) -> None:
    (lab.outputs / "explained").write_text("in the way")
    dock.go(explain_page(NAME))
    qtbot.keyClicks(dock.explain.text, "Mine.")
    dock.explain.uncover_button.click()
    assert dock.explain.problem.isVisible()
    dock.go(explain_page("why-it-learns"))
    assert dock.explain.text.toPlainText() == "Mine."


def test_who_types_without_a_pause_is_saved_too(dock: LearnDock, lab: FakeLab, qtbot: QtBot) -> None:
    dock.go(explain_page(NAME))
    timer = dock.explain._settle
    timer.setInterval(300)

    def type_on() -> bool:
        dock.explain.text.insertPlainText("a")  # every 10 ms
        return bool(tries(lab.outputs, PATH))

    qtbot.waitUntil(type_on)


def test_a_second_window_that_only_looks_at_a_draft_writes_no_copy_of_it(
    dock: LearnDock, lab: FakeLab, qtbot: QtBot
) -> None:
    dock.go(explain_page(NAME))
    qtbot.keyClicks(dock.explain.text, "Mine.")
    dock.go(FIRST)
    draft = last_try(lab)
    dock.go(explain_page(NAME))
    save(replace(draft, text="Mine, from another window."), PATH)
    dock.go(FIRST)
    assert [one.text for one in tries(lab.outputs, PATH)] == ["Mine, from another window."]


def test_ticks_are_kept_when_the_page_is_left_and_who_had_nothing_can_write_again(
    dock: LearnDock, lab: FakeLab, qtbot: QtBot
) -> None:
    dock.go(explain_page(NAME))
    box = dock.explain
    assert not box.uncover_button.isEnabled()  # nothing was written
    dock.stations.mark(NAME, [FIRST, SECOND], done=True)
    box.text.setPlainText("I do not know.")
    box.uncover_button.click()
    box.keep_button.click()  # nothing ticked
    qtbot.waitUntil(lambda: dock.stations.standing[NAME].done == 0)
    assert box.result.text().startswith(f"0 of {len(PATH.explain.points)} points. What is missing")
    box.points.item(0).setCheckState(Qt.CheckState.Checked)
    box.keep_button.click()
    # What it does not lack after all is done again; what it lacks is opened by a row after that.
    qtbot.waitUntil(lambda: state_of(lab, FIRST).done and not state_of(lab, SECOND).done)
    box.again_button.click()
    assert box.which.currentIndex() == -1
    box.text.setPlainText("Better.")
    box.uncover_button.click()
    box.points.item(1).setCheckState(Qt.CheckState.Checked)
    dock.go(FIRST)
    assert last_try(lab).ticked == 1


def test_an_explanation_that_is_lost_with_the_window_is_told_before(
    dock: LearnDock, lab: FakeLab, qtbot: QtBot
) -> None:
    told: list[LabError] = []
    lab.error_raised.connect(told.append)
    dock.go(explain_page(NAME))
    qtbot.keyClicks(dock.explain.text, "Mine.")
    (lab.outputs / "explained").write_text("in the way")
    dock.go(FIRST)
    assert "was not saved" in told[0].what
    (lab.outputs / "explained").unlink()
    dock.go(explain_page(NAME))
    assert dock.explain.text.toPlainText() == "Mine."
    dock.go(FIRST)
    assert last_try(lab).text == "Mine."


def test_enter_in_a_question_does_not_follow_a_link_of_its_page(dock: LearnDock, lab: FakeLab, qtbot: QtBot) -> None:
    dock.go(FIRST)
    lab.inspection.host = host = Questions([question(VALUE, 0), question(VALUE, 1)])
    box = dock.questions
    box.button.setFocus()
    box.button.click()
    host.say()
    for number in range(2):
        box.card.line.setText("4")
        qtbot.keyClick(box.card.line, Qt.Key.Key_Return)
        assert dock.page_name == FIRST
        assert "So." in box.card.result.text()
        if not number:
            host.say()  # made ahead
            qtbot.keyClick(box.card.next_button, Qt.Key.Key_Return)


def test_the_next_station_has_the_keyboard(dock: LearnDock, qtbot: QtBot) -> None:
    dock.go(FIRST)
    dock.foot.next_button.setFocus()
    dock.foot.next_button.click()
    qtbot.waitUntil(dock.browser.hasFocus)
    dock.go(explain_page(NAME))
    dock.explain.back_button.click()
    assert dock.browser.hasFocus()


def test_the_line_under_a_page_is_in_sight_in_a_small_dock(dock: LearnDock, qtbot: QtBot) -> None:
    dock.go(explain_page(NAME))  # which needs more room than a page
    dock.go(FIRST)
    dock.resize(430, 300)
    qtbot.waitUntil(lambda: dock.foot.width() < 430)
    assert dock.foot.isVisible()
    assert dock._room.verticalScrollBar().maximum() == 0
