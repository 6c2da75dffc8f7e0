"""Learn: pages with live code, and links that lead into the rest of the lab."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_lab import FakeLab
from fakes import FakeRun
from practice_questions import Questions, question
from PySide6.QtCore import QPoint, Qt, QUrl
from PySide6.QtGui import QColor, QDesktopServices, QImage, QTextDocument
from PySide6.QtWidgets import QApplication, QDockWidget, QMainWindow, QWidget
from pytestqt.qtbot import QtBot
from windows import shown

from llmlab.core.paths import resources_dir
from llmlab.practice.deck import Deck
from llmlab.practice.question import CHECK, CHOICE, FINE_TUNE, INTERVAL, LOOK_INSIDE, TRAINING
from llmlab_gui.host.messages import ModelAbout
from llmlab_gui.host.selection import Working
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.learn import dock as learn
from llmlab_gui.learn import page_opener
from llmlab_gui.learn.dock import LearnDock
from llmlab_gui.learn.yours import Yours, with_yours
from llmlab_gui.pages import browser as page_browser
from llmlab_gui.pages.browser import PageBrowser
from llmlab_gui.pages.html import page_colors, page_html
from llmlab_gui.pages.library import load_all, load_glossary, load_pages, load_tree
from llmlab_gui.pages.page import FIRST_HOUR, RESULTS, Page, without_outcomes
from llmlab_gui.widgets.labels import QuietLabel
from llmlab_gui.widgets.theme import DARK, LIGHT, theme_notifier


@pytest.fixture
def lab(qtbot: QtBot, tmp_path: Path) -> FakeLab:
    return FakeLab(tmp_path)


@pytest.fixture
def dock(qtbot: QtBot, lab: FakeLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LearnDock]:
    """Four pages of our own; the shipped ones are checked in test_concepts.py."""
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "attention.md").write_text(
        "# Attention\n\nEach token looks at others: <script>x</script>.\n\n"
        "@code llmlab/core/errors.py::LabError.as_dict\n\n? What if?\n\n! [Train](lab:run?preset=baby&steps=30)\n"
    )
    (pages / "loss.md").write_text("# The loss\n\nSee [attention](concept:attention). Needle.\n")
    (pages / "loss-curves.md").write_text("# Curves\n\nA needle, and a needle.\n\n@code llmlab/core/errors.py::Gone\n")
    results = tmp_path / "results"
    results.mkdir()
    (results / "loss.md").write_text(
        "# Measured\n\nSee [it](loss.md), [more](data.json), [away](../x.md).\n\n![f](f.png)\n"
    )
    (results / "data.json").write_text("{}")
    picture = QImage(2000, 10, QImage.Format.Format_RGB32)
    picture.fill(0)
    assert picture.save(str(results / "f.png"))
    monkeypatch.setattr(learn, "load_all", lambda: load_pages(pages) + load_tree(results, "results", RESULTS))
    for module in (learn, page_opener):
        monkeypatch.setattr(module, "resources_dir", lambda: tmp_path)
    dock = shown(LearnDock(lab), qtbot, 800, 500)
    qtbot.waitUntil(lambda: dock.page_name != "")
    yield dock
    dock.shutdown()


def test_the_first_page_opens_by_itself_with_live_code(dock: LearnDock) -> None:
    assert dock.page_name == "attention"
    text = dock.browser.toPlainText()
    assert "def as_dict(self) -> dict[str, str]:" in text
    assert "llmlab/core/errors.py · LabError.as_dict, lines" in text
    assert "Predict" in text
    assert "Try it" in text
    assert "<script>x</script>" in text  # Markdown's HTML is off: it is only text


def test_a_page_is_drawn_only_when_it_comes_to_sight(
    qtbot: QtBot, lab: FakeLab, dock: LearnDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    plain = page_browser.page_html
    monkeypatch.setattr(
        page_browser, "page_html", lambda page, colors, **how: (drawn.append(page.name), plain(page, colors, **how))[1]
    )
    window = QMainWindow()
    qtbot.addWidget(window)
    hidden, front = LearnDock(lab, window), QDockWidget("Front", window)
    for one in (hidden, front):
        window.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, one)
    window.tabifyDockWidget(hidden, front)
    front.raise_()
    window.show()
    qtbot.wait(100)
    theme_notifier.changed.emit()
    qtbot.wait(50)
    dock.hide()
    drawn.clear()  # the other dock's, which is in sight
    theme_notifier.changed.emit()
    qtbot.wait(50)
    assert drawn == []
    assert hidden.page_name == ""
    hidden.raise_()
    qtbot.waitUntil(lambda: drawn == ["attention"])
    front.raise_()
    qtbot.waitUntil(lambda: hidden.visibleRegion().isEmpty())
    theme_notifier.changed.emit()
    assert drawn == ["attention"]
    hidden.raise_()  # in the new theme's colours
    qtbot.waitUntil(lambda: drawn == ["attention", "attention"])


def test_lines_to_copy_keep_their_characters() -> None:
    page = Page("p", "P", "# P\n\n```\nfor _ in range(2):\n    a_b < 3\n```\n")
    document = QTextDocument()
    document.setHtml(page_html(page, page_colors()))
    assert "for _ in range(2):\n    a_b < 3" in document.toPlainText()
    assert "<pre><code" not in page_html(page, page_colors())  # whose background would hide underscores


def test_code_that_is_gone_is_said_in_its_place(dock: LearnDock) -> None:
    dock.go("loss-curves")
    assert "llmlab/core/errors.py::Gone names nothing." in dock.browser.toPlainText()


def test_back_and_forward_like_a_browser(dock: LearnDock, lab: FakeLab) -> None:
    with_link = [QUrl("concept:loss"), QUrl("concept:attention")]
    for url in with_link:
        dock.open_link(url)
    assert dock.page_name == "attention"
    dock.back()
    assert dock.page_name == "loss"
    dock.forward()
    assert dock.page_name == "attention"
    assert not dock.forward_button.isEnabled()
    dock.next_button.click()
    assert dock.page_name == "loss"
    dock.next_button.click()
    assert dock.list.currentItem().text() == "Curves"
    dock.next_button.click()
    assert not dock.next_button.isEnabled()
    assert dock.page_name == "results/loss"


def test_a_page_asked_for_elsewhere_is_shown(dock: LearnDock, lab: FakeLab) -> None:
    lab.concept_requested.emit("loss")
    assert dock.page_name == "loss"
    lab.concept_requested.emit("gone")
    assert "no page 'gone'" in lab.errors[-1].what
    assert dock.page_name == "loss"


def test_the_page_that_was_read_last_opens_at_the_next_start(
    qtbot: QtBot, dock: LearnDock, lab: FakeLab, tmp_path: Path
) -> None:
    settings = WindowSettings(tmp_path / "window.ini")
    dock.remember(settings)
    dock.go("loss")
    dock.shutdown()
    again = LearnDock(lab)
    qtbot.addWidget(again)
    again.remember(settings)
    again.show()
    qtbot.waitUntil(lambda: again.page_name == "loss")
    again.shutdown()


def test_a_term_of_a_panel_leads_to_its_entry(
    qtbot: QtBot, dock: LearnDock, lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dock, "_pages", load_glossary())
    panel = LabDock(lab, "prompt", "Prompt")
    qtbot.addWidget(panel)
    panel.caption("How sure the verdict is.", "tokens")
    (caption,) = [label for label in panel.findChildren(QuietLabel) if "verdict" in label.text()]
    assert '<a href="glossary:verdict">verdict</a>' in caption.text()
    caption.linkActivated.emit("glossary:verdict")
    assert dock.page_name == "glossary"
    bar = dock.browser.verticalScrollBar()
    assert bar.value() > 0
    dock.open_link(QUrl("glossary:corpus"))
    assert bar.value() < bar.maximum() / 2
    dock.open_link(QUrl("concept:glossary#verdict"))
    assert bar.value() > bar.maximum() / 2


def test_links_fill_setup_raise_docks_and_open_the_web(
    qtbot: QtBot, dock: LearnDock, lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with qtbot.waitSignal(lab.setup_requested) as asked:
        dock.open_link(QUrl("lab:run?preset=baby&steps=30&model.n_layer=2"))
    assert asked.args == [{"preset": "baby", "train.steps": "30", "model.n_layer": "2"}]
    with qtbot.waitSignal(lab.dock_requested) as asked:
        dock.open_link(QUrl("dock:loss"))
    assert asked.args == ["loss"]
    opened: list[QUrl] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(url) or True)
    dock.open_link(QUrl("https://example.org/"))
    assert opened == [QUrl("https://example.org/")]
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda _: False)  # as where there is no browser
    with qtbot.waitSignal(lab.error_raised) as refused:
        dock.open_link(QUrl("https://example.org/"))
    assert "https://example.org/" in refused.args[0].do
    lab.add(FakeRun(lab.outputs, "mine").start())
    with qtbot.waitSignal(lab.finetune_requested) as asked:
        dock.open_link(QUrl("lab:finetune?base=mine@final&method=full&name=taught"))
    assert asked.args == [{"preset": "scratch", "model.base": "mine@final", "model.method": "full", "name": "taught"}]
    with qtbot.waitSignal(lab.paper_requested) as asked:
        dock.open_link(QUrl("paper:grokking"))
    assert asked.args == ["grokking", ""]
    dock.open_link(QUrl("lab:run?model.n_leyer=2"))
    assert "n_leyer" in lab.errors[-1].what
    dock.open_link(QUrl("file:///etc/passwd"))
    assert len(opened) == 1


def test_a_workspace_link_arranges_the_panels_and_opens_model_and_prompt(
    qtbot: QtBot, dock: LearnDock, lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(lab.inspection, "open", opened.append)
    with qtbot.assertNotEmitted(lab.workspace_requested):
        dock.open_link(QUrl("workspace:look-inside?model=mine@final&prompt=The%20king"))
    assert "no run mine yet" in lab.errors[-1].what
    lab.inspection.about = ModelAbout("bar", "bar", "scratch")
    prompts: list[str] = []
    with monkeypatch.context() as patch, qtbot.waitSignal(lab.workspace_requested):
        patch.setattr(lab.inspection, "set_prompt", lambda text, *_, **__: prompts.append(text))
        dock.open_link(QUrl("workspace:look-inside?model=mine@final&prompt=To%20be"))
    assert (opened, prompts) == ([], ["To be"])  # the model that is open stays
    assert "no run mine yet" in lab.errors[-1].what
    assert lab.errors[-1].why == "bar, which is open, reads the prompt instead."
    assert "First hour, page 1" in lab.errors[-1].do
    lab.inspection.about = None
    lab.add(FakeRun(lab.outputs, "mine").start())
    with qtbot.waitSignal(lab.workspace_requested) as asked:
        dock.open_link(QUrl("workspace:look-inside?model=mine@final&prompt=The%20king"))
    assert asked.args == ["Look inside"]
    assert opened == ["mine@final"]
    assert lab.inspection.text == "The king"
    lab.add(FakeRun(lab.outputs, "short").start().advance(250).save_checkpoint())
    dock.open_link(QUrl("workspace:look-inside?model=short@final"))
    assert opened[-1] == "short@250"
    assert lab.errors[-1].what == "short has no checkpoint @final."
    assert "@250, is opened" in lab.errors[-1].do
    assert "not reached" in lab.errors[-1].why
    lab.add(FakeRun(lab.outputs, "whole").start().advance(250).save_checkpoint().advance(250).finish())
    for last in (lab.outputs / "pretraining/whole/checkpoints").glob("*500*"):
        shutil.rmtree(last)
    dock.open_link(QUrl("workspace:look-inside?model=whole@final"))
    assert opened[-1] == "whole@250"
    assert "was deleted" in lab.errors[-1].why
    with qtbot.waitSignals([lab.workspace_requested, lab.setup_requested], order="strict"):
        dock.open_link(QUrl("lab:run?steps=30&workspace=train"))


def test_files_beside_a_page_open_and_others_do_not(
    dock: LearnDock, lab: FakeLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[QUrl] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(url) or True)
    dock.go("results/loss")
    dock.open_link(QUrl("data.json"))
    assert [url.toLocalFile() for url in opened] == [str(tmp_path / "results" / "data.json")]
    dock.open_link(QUrl("../pages/loss.md"))  # a page, by its file
    assert dock.page_name == "loss"
    (tmp_path.parent / "elsewhere.json").write_text("{}")  # it is there, and does not come with the lab
    dock.open_link(QUrl("../../elsewhere.json"))
    assert "is not there" in lab.errors[-1].what
    assert len(opened) == 1


def test_a_figure_is_never_wider_than_the_page(qtbot: QtBot, dock: LearnDock) -> None:
    dock.go("results/loss")
    for width in (800, 500):
        dock.resize(width, 500)
        qtbot.waitUntil(lambda: dock.browser.document().size().width() <= dock.browser.viewport().width() + 1)
        assert dock.browser.horizontalScrollBar().maximum() == 0


def test_there_is_no_gap_below_a_figure(dock: LearnDock) -> None:
    """Lines are 140 % high, and a figure would be a line."""
    page = Page("p", "P", "# P\n\n![f](f.png)\n")
    assert '<p style="line-height:100%"><img' in page_html(page, page_colors())


def test_a_drawing_has_the_colours_of_the_theme(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    path = resources_dir() / "concepts" / "figures" / "forward-pass.svg"
    for theme, other in ((LIGHT, DARK), (DARK, LIGHT)):
        monkeypatch.setattr(page_browser, "current_theme", lambda theme=theme: theme)
        image = page_browser.drawing(path)
        colors = {image.pixelColor(x, 344).name() for x in range(image.width())}  # along the stream
        assert theme.accent in colors
        assert other.accent not in colors
        drawn = QImage(3, 1, QImage.Format.Format_RGB32)
        for x, color in enumerate(("#ffffff", "#000000", "#cc79a7")):
            drawn.setPixelColor(x, 0, QColor(color))
        ground, ink, pink = (page_browser.chart(drawn).pixelColor(x, 0) for x in range(3))
        assert ground.name() == theme.surface
        assert ink.name() == (theme.text if theme is DARK else "#000000")
        assert pink.red() > pink.blue() > pink.green() > 60  # as bright as it was, and still pink


def test_groups_have_headings_that_cannot_be_chosen(qtbot: QtBot, dock: LearnDock) -> None:
    texts = [dock.list.item(row).text() for row in range(dock.list.count())]
    assert texts == ["Concepts", "Attention", "The loss", "Curves", "Results", "Measured"]
    dock.go("loss-curves")
    qtbot.keyClick(dock.list, Qt.Key.Key_Down)
    assert dock.page_name == "results/loss"  # the heading was passed over
    for name in ("loss", "results/loss"):
        dock.go(name)
        assert dock.combo.currentData() == name
        assert dock.list.currentItem().data(Qt.ItemDataRole.UserRole) == name


def test_a_click_on_a_link_follows_it(qtbot: QtBot, dock: LearnDock) -> None:
    dock.go("loss")
    cursor = dock.browser.document().find("attention")
    cursor.setPosition(cursor.selectionStart() + 3)
    place = dock.browser.cursorRect(cursor).center()
    qtbot.mouseClick(dock.browser.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert dock.page_name == "attention"


def test_search_narrows_the_list_and_marks_the_words(qtbot: QtBot, dock: LearnDock) -> None:
    qtbot.keyClicks(dock.search, "needle")
    assert dock.list.titles() == ["Curves  (2)", "The loss  (1)"]
    assert dock.page_name == "loss-curves"
    assert len(dock.browser.extraSelections()) == 2
    qtbot.keyClick(dock.search, Qt.Key.Key_Return)
    assert dock.browser.textCursor().selectedText().lower() == "needle"
    dock.search.setText("no page has this")
    assert dock.nothing.isVisible()
    dock.search.clear()
    assert len(dock.list.titles()) == 4
    assert not dock.nothing.isVisible()


def test_a_question_in_plain_words_finds_what_readers_see(qtbot: QtBot, dock: LearnDock) -> None:
    """Beginnings of words that count, in no link's target; first the pages that are called so."""
    page = Page("anatomy", "Anatomy", "# Anatomy\n\nSee [here](glossary:loss-of-rank). A stylish page.\n")
    dock._pages.append(page)
    for typed in ("What is my loss?", "los"):
        dock.search.setText(typed)
        found = [title.partition("  (")[0] for title in dock.list.titles()]
        assert "Anatomy" not in found
        assert found[0] == "The loss"
    dock.search.setText("styl")
    assert dock.list.titles() == ["Anatomy  (1)"]
    dock.search.setText("What is it?")
    assert len(dock.list.titles()) == len(dock._pages)
    dock.search.setText("lish")  # inside a word
    assert dock.nothing.isVisible()


def test_pages_come_first_whose_titles_have_most_of_the_words(dock: LearnDock) -> None:
    text = "# A title\n\nThe batch size and the learning rate.\n"
    for title in ("Speed", "Batches", "Batch size and learning rate", "Learning rate", "Memory"):
        dock._pages.append(Page(title.lower(), title, text))
    dock.search.setText("batch size learning rate")
    found = [title.partition("  (")[0] for title in dock.list.titles()]
    assert found == ["Batch size and learning rate", "Learning rate", "Batches", "Speed", "Memory"]


def test_a_search_is_one_step_for_back(dock: LearnDock) -> None:
    dock._pages += [Page(name, name.title(), f"# {name.title()}\n\nText.\n") for name in ("zebra", "zinc", "zone")]
    before = dock.page_name
    for typed, page in (("ze", "zebra"), ("zi", "zinc"), ("zo", "zone")):
        dock.search.setText(typed)
        assert dock.page_name == page
    dock.back()
    assert dock.page_name == before
    assert not dock.back_button.isEnabled()
    dock.go("zinc")  # not by the search: a step of its own
    dock.search.setText("ze")
    dock.back()
    assert dock.page_name == "zinc"


def test_a_narrow_dock_has_a_combo_box_instead_of_the_list(qtbot: QtBot, dock: LearnDock) -> None:
    assert dock.list.isVisible()
    assert not dock.combo.isVisible()
    dock.resize(420, 500)
    qtbot.waitUntil(dock.combo.isVisible)
    assert not dock.list.isVisible()


def test_a_new_theme_keeps_page_and_place(dock: LearnDock) -> None:
    dock.resize(800, 200)
    bar = dock.browser.verticalScrollBar()
    bar.setValue(40)
    theme_notifier.changed.emit()
    assert dock.page_name == "attention"
    assert bar.value() == 40


def test_a_page_keeps_its_first_words_at_every_width(dock: LearnDock, qtbot: QtBot) -> None:
    parts = [f"Paragraph {number} {'of many words ' * 20}" for number in range(40)]
    table = "\n".join(["| a | b |", "| --- | --- |", *("| long words here | and there |" for _ in range(9))])
    text = "\n\n".join(["# Long", *parts[:10], table, *parts[10:], "![f](f.png)"])
    dock._pages.append(Page("long", "Long", text, RESULTS, dock._pages[-1].folder))
    dock.go("long")
    browser = dock.browser

    def first() -> str:
        return browser.cursorForPosition(QPoint()).block().text()[:12]

    for words in ("Paragraph 3 ", "Paragraph 30"):
        browser.verticalScrollBar().setValue(0)
        while first() != words:
            browser.verticalScrollBar().setValue(browser.verticalScrollBar().value() + 7)
        for width in (420, 900, 801, 800):
            dock.resize(width, 500)
            assert first() == words, width
            qtbot.waitUntil(lambda: not browser._resized.isActive())  # drawn anew, tables turned
            assert first() == words, width
    dock.go("attention")  # another page begins at its top, also while the width is still new
    dock.go("long")
    dock.resize(500, 500)
    dock.go("attention")
    qtbot.waitUntil(lambda: not browser._resized.isActive())
    assert browser.verticalScrollBar().value() == 0


def test_a_concept_page_asks_two_questions_and_keeps_the_answers(dock: LearnDock, lab: FakeLab, qtbot: QtBot) -> None:
    dock.go("attention")
    host = Questions([question(CHOICE, 0), question(CHOICE, 1)])
    lab.inspection.host = host
    box = dock.questions
    told: list[str] = []
    box.answered.connect(told.append)
    assert box.isVisible()
    box.button.setFocus()
    for number in range(2):
        (box.card.next_button if number else box.button).click()
        host.say()
        assert host.asked[-1][1] == "attention"
        qtbot.keyClick(box.card.choices, Qt.Key.Key_2)
        qtbot.keyClick(box.card.choices, Qt.Key.Key_Return)
        assert "So." in box.card.result.text()
    box.card.next_button.click()
    assert not box.card.isVisible()
    assert told == ["attention"] * 2
    qtbot.waitUntil(lambda: len(Deck(lab.outputs).read().answers) == 2)
    assert [answer.page for answer in Deck(lab.outputs).read().answers] == ["attention"] * 2
    dock.go("results/loss")
    assert not box.isVisible()


def test_the_next_question_of_a_page_is_waited_for_in_sight(dock: LearnDock, lab: FakeLab) -> None:
    dock.go("attention")
    host = Questions([question(CHOICE, 0), question(CHOICE, 1)])
    lab.inspection.host = host
    box = dock.questions
    box.button.setFocus()
    box.button.click()
    assert box.button.text() == "Cancel"
    assert not box.button.hasFocus()  # a second Enter does not cancel what the first one asked for
    box.button.click()
    assert box.button.text() == "Ask me"
    assert box.button.hasFocus()
    box.button.click()
    host.say()
    assert box.card.choices.hasFocus()
    box.card.give_up()
    assert "The page that explains it" not in box.card.result.text()  # it is the one that is read
    box.card.next_button.setFocus()
    box.card.next_button.click()
    assert not box.card.next_button.isEnabled()
    assert box.words.text() == "Computing a question ..."
    assert box.button.text() == "Cancel"
    assert not box.button.hasFocus()
    host.say()
    assert box.card.choices.hasFocus()
    assert box.card.next_button.isEnabled()
    assert box.card.question == question(CHOICE, 1)


def test_a_question_that_was_left_open_is_still_asked_when_its_page_comes_back(dock: LearnDock, lab: FakeLab) -> None:
    dock.go("attention")
    asked = [question(CHOICE), question(INTERVAL, 1)]
    host = Questions([*asked, question(CHOICE, 2)])
    lab.inspection.host = host
    box = dock.questions
    box.button.click()
    host.say()
    box.card.choices.setCurrentRow(1)
    dock.go("loss")
    assert not box.card.isVisible()
    box.button.click()  # the other page asks its own
    host.say()
    box.card.line.setText("3..4")
    dock.back()
    assert (box.card.question, box.card.given) == (asked[0], "two")
    assert box.words.text() == "Question 1 of 2"
    assert not box.button.isVisible()
    dock.forward()
    assert (box.card.question, box.card.given) == (asked[1], "3..4")
    dock.back()
    box.card.submit()
    assert box.card.marked is not None
    assert host.asked[-1] == ("", "attention", ["choice-0"])  # made ahead, and none of its kind
    dock.forward()
    dock.back()
    assert not box.card.isVisible()  # it was answered


def test_a_question_that_is_computed_in_a_page_can_be_cancelled(dock: LearnDock, lab: FakeLab) -> None:
    dock.go("attention")
    host = Questions([question(CHOICE)])
    lab.inspection.host = host
    dock.questions.button.click()
    assert dock.questions.button.text() == "Cancel"
    dock.questions.button.click()
    assert dock.questions.button.text() == "Ask me"
    host.say()
    assert not dock.questions.card.isVisible()


@pytest.mark.parametrize(("page", "name"), [(LOOK_INSIDE, "first-gpt"), (FINE_TUNE, "answers")])
def test_a_page_of_the_first_hour_says_when_its_model_can_be_asked_about(
    dock: LearnDock, lab: FakeLab, page: str, name: str
) -> None:
    box = dock.questions
    box.show_page(Page(page, "Its title", "", FIRST_HOUR))
    assert not box.button.isEnabled()
    assert box.words.text().endswith("train it first.")
    run = FakeRun(lab.outputs, name, steps=20).start().advance(10)
    lab.add(run)
    run.save_checkpoint()
    lab.runs_changed.emit()
    assert not box.button.isEnabled()
    assert "still training" in box.words.text()
    run.stop()
    lab.runs_changed.emit()
    assert not box.button.isEnabled()
    assert box.words.text().endswith("it was not trained to its end: resume it first.")
    run.advance(10).save_checkpoint(("final",)).finish()
    lab.runs_changed.emit()
    assert box.button.isEnabled()
    assert "computed from your own model" in box.words.text()
    assert box._about() == f"{run.run.path}@final"


def test_the_last_page_of_the_first_hour_says_that_its_check_is_missing(dock: LearnDock, lab: FakeLab) -> None:
    box, host = dock.questions, Questions([None])
    lab.inspection.host = host
    box.show_page(Page(CHECK, "Check a claim", "", FIRST_HOUR))
    box.button.click()
    host.say()
    assert box.words.text() == "Two questions about your check of this claim on first-gpt: run it first."


def test_a_page_whose_questions_do_not_fit_the_open_model_says_which_would(dock: LearnDock, lab: FakeLab) -> None:
    lab.inspection.about = ModelAbout("bar", "bar", "scratch")
    dock.go("loss-curves")
    box, host = dock.questions, Questions([None])
    lab.inspection.host = host
    box.button.click()
    host.say()
    assert box.words.text().startswith("No question of this page fits this model. Open that of another run")


def test_the_second_page_of_the_first_hour_asks_about_another_model_that_is_open(dock: LearnDock, lab: FakeLab) -> None:
    box = dock.questions
    box.show_page(Page(LOOK_INSIDE, "Look inside", "", FIRST_HOUR))
    lab.inspection.about = ModelAbout("bar", "bar", "scratch")
    lab.inspection.about_changed.emit()
    assert box.button.isEnabled()
    assert box._about() == ""


def test_where_only_trained_questions_are_left_a_skip_says_so(dock: LearnDock, lab: FakeLab) -> None:
    dock.go("attention")
    host = Questions([None])
    lab.inspection.host = host
    box = dock.questions
    box.button.click()
    host.requests[-1].progressed.emit(Working(f"{TRAINING} to compare", 0.5))
    box.button.click()
    assert host.quick
    host.say()
    assert box.words.text().startswith("Skipped.")


def test_the_questions_stand_in_the_page_and_scroll_with_it(dock: LearnDock, lab: FakeLab, qtbot: QtBot) -> None:
    dock.go("attention")
    browser, box, bar = dock.browser, dock.questions, dock.browser.verticalScrollBar()
    lab.inspection.host = Questions([question(CHOICE)])

    def place() -> tuple[int, int]:
        """Its upper and lower edge on the page."""
        return box.y() + bar.value(), box.geometry().bottom() + bar.value()

    before = place()
    assert before[1] <= browser.document().size().height()
    box.button.setFocus()
    box.button.click()
    lab.inspection.host.say()
    qtbot.waitUntil(lambda: box.card.isVisible() and box.height() >= box.layout().sizeHint().height())
    top, end = place()
    assert top == before[0]  # below the same words
    assert end > before[1]
    assert end <= browser.document().size().height()  # the page is longer by what it needs
    assert box.width() <= browser.viewport().width()
    bar.setValue(bar.maximum())
    assert place() == (top, end)
    assert 0 < box.geometry().bottom() < browser.viewport().height()
    bar.setValue(0)
    browser._follow_keyboard(None, box.card.choices)
    if box.height() < browser.viewport().height() - 20:  # all of it, where there is room
        assert box.y() >= 0
        assert box.geometry().bottom() < browser.viewport().height()
    bar.setValue(0)
    browser.ensureWidgetVisible(box.card.give_up_button)
    low = box.card.give_up_button.mapTo(browser.viewport(), box.card.give_up_button.rect().bottomLeft()).y()
    assert 0 < low <= browser.viewport().height()


def test_tab_goes_through_a_question_and_moves_no_page(dock: LearnDock, lab: FakeLab, qtbot: QtBot) -> None:
    dock.show()
    dock.activateWindow()
    dock.go("attention")
    box, bar = dock.questions, dock.browser.verticalScrollBar()
    lab.inspection.host = Questions([question(CHOICE)])
    box.button.click()
    lab.inspection.host.say()
    qtbot.waitUntil(lambda: box.card.isVisible() and box.height() >= box.layout().sizeHint().height())
    box.card.choices.setFocus()
    qtbot.waitUntil(box.card.choices.hasFocus)
    top = bar.value()
    seen = [QApplication.focusWidget()]
    for _ in range(2):
        qtbot.keyClick(seen[-1], Qt.Key.Key_Tab)
        seen.append(QApplication.focusWidget())
    assert all(box.isAncestorOf(widget) for widget in seen), seen
    assert len(set(map(id, seen))) == 3
    assert bar.value() == top
    qtbot.keyClick(seen[-1], Qt.Key.Key_Backtab)
    assert QApplication.focusWidget() is seen[1]


def test_a_message_about_an_answer_leaves_the_button_in_sight(dock: LearnDock, lab: FakeLab, qtbot: QtBot) -> None:
    dock.go("attention")
    dock.resize(420, 300)
    lab.inspection.host = Questions([question(INTERVAL)])
    box, browser = dock.questions, dock.browser
    qtbot.waitUntil(lambda: not browser._resized.isActive())  # it is drawn anew where its width has changed
    box.button.click()
    lab.inspection.host.say()
    qtbot.waitUntil(box.card.isVisible)
    box.card.line.setText("12")
    button = box.card.answer_button
    browser.ensureWidgetVisible(button)
    bar = browser.verticalScrollBar()
    bar.setValue(bar.value() - (browser.viewport().height() - _below(browser, button)))  # at the lower edge
    box.card.submit()
    assert box.card.problem.isVisible()
    qtbot.waitUntil(lambda: button.height() < _below(browser, button) <= browser.viewport().height())


def _below(browser: PageBrowser, widget: QWidget) -> int:
    """The lower edge of a part of the guest in what is seen of the page."""
    return widget.mapTo(browser.viewport(), widget.rect().bottomLeft()).y() + 1


def test_what_became_of_a_prediction_is_said_over_pages_that_start_runs(dock: LearnDock, lab: FakeLab) -> None:
    dock.go("attention")
    lab.notebook.said.emit("You said 2; it was 3.")
    assert dock.outcome.isVisible()
    assert dock.outcome.text() == "You said 2; it was 3."
    dock.go("results/loss")
    assert not dock.outcome.isVisible()
    lab.notebook.said.emit("You said 2; it was 3.")
    assert not dock.outcome.isVisible()
    assert {page.group for page in load_all() if "](lab:" in page.text} == set(learn._OF_RUNS)


def test_what_came_of_a_question_is_seen_when_it_is_asked_for_or_searched(dock: LearnDock) -> None:
    attention = next(page for page in dock._pages if page.name == "attention")
    more = (
        "\n\n| a | b |\n| --- | --- |\n| c | 8 |\n\nSo it is.\n\n? And then?\n\n! [Do](dock:loss). For this page, 9.\n"
    )
    dock._pages[dock._pages.index(attention)] = replace(
        attention, text=f"{attention.text.rstrip()} For this page it was 7.{more}"
    )
    dock.go("loss")
    dock.go("attention")

    def seen() -> list[str]:
        text = dock.browser.toPlainText()
        return [words for words in ("it was 7.", "So it is.", "And then?", "For this page, 9.") if words in text]

    assert seen() == ["And then?"]
    assert dock.browser.toPlainText().count("Show what came out") == 2
    dock.open_link(QUrl("reveal:0"))
    assert seen() == ["it was 7.", "So it is.", "And then?"]
    dock.open_link(QUrl("reveal:1"))
    assert len(seen()) == 4
    dock._revealed.clear()
    dock.go("loss")
    dock.go("attention")
    assert seen() == ["And then?"]
    dock.search.setText("was 7")
    assert len(seen()) == 4


def test_every_outcome_of_a_concept_page_can_be_hidden() -> None:
    hidden = [page.name for page in load_pages() if without_outcomes(page).text != page.text]
    assert len(hidden) > 20
    for page in load_pages():
        left = without_outcomes(page)
        own = [[block.kind for block in one.blocks if block.kind != "prose"] for one in (page, left)]
        assert own[0] == own[1], page.name
        headings = [re.findall("^#+ .*", one.text, re.MULTILINE) for one in (page, left)]
        assert headings[0] == headings[1], page.name
        for block in left.blocks:
            assert block.kind != "run" or "For this page" not in block.text, page.name
            said = re.sub(r"`[^`]*`|\]\([^)]*\)", "", block.text)
            assert block.kind != "run" or not re.search(r"\d\.\d\d", said), page.name  # told in other words


def test_what_came_in_the_first_hour_is_hidden_until_the_readers_run_shows_it() -> None:
    pages = load_tree(resources_dir() / "first-hour", "first-hour", FIRST_HOUR)
    for page in pages:
        left = without_outcomes(page).text
        assert "For this page" not in left, page.name
        assert "## What it means" not in left, page.name
        assert ("Next:" if page is not pages[-1] else "## Where to go") in left, page.name
        assert without_outcomes(with_yours(page, Yours("Mine."))).text == with_yours(page, Yours("Mine.")).text, (
            page.name
        )
