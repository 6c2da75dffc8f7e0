"""Formulas of pages: drawn once they can be, within the page, and their source for whoever copies or hears them."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import getclosurevars
from typing import Any

import pytest
from formula_pages import page_of, picture
from PySide6.QtGui import QAccessible, QImage
from pytestqt.qtbot import QtBot
from windows import shown
from ziamath.nodes.mnode import Mnode
from ziamath.nodes.mrow import Mrow

from llmlab.core.errors import Cancelled
from llmlab_gui.pages import browser as page_browser
from llmlab_gui.pages import formulas
from llmlab_gui.pages.browser import PageBrowser
from llmlab_gui.pages.formulas import draw, drawing_of, not_tried
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.theme import DARK, LIGHT

SOURCE = r"p = \frac{a}{b + c}"
WRONG = r"\frac{1}{"
LONG = r"\text{loss} = " + " + ".join(f"x_{{{n}}}" for n in range(40))


@pytest.fixture
def browser(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> Iterator[PageBrowser]:
    for source in (SOURCE, WRONG, LONG):
        monkeypatch.delitem(formulas._drawings, source, raising=False)
    background = Background()
    browser = shown(PageBrowser("Page", background), qtbot, 360, 400)
    qtbot.waitUntil(lambda: not browser._resized.isActive())
    yield browser
    background.shutdown()


def test_a_page_shows_the_source_until_its_formula_is_drawn(qtbot: QtBot, browser: PageBrowser) -> None:
    page = page_of(SOURCE)
    with qtbot.waitSignal(browser.stale):
        browser.show_page(page)
        assert SOURCE in browser.toPlainText()
        assert "\ufffc" not in browser.toPlainText()
    browser.show_page(page)
    assert f"\ufffc{SOURCE}" in browser.toPlainText()
    assert not_tried(page.text) == []


def test_a_wrong_formula_stays_its_source_and_the_page_goes_on(qtbot: QtBot, browser: PageBrowser) -> None:
    page = page_of(WRONG, SOURCE)
    with qtbot.waitSignal(browser.stale):
        browser.show_page(page)
    browser.show_page(page)
    assert drawing_of(WRONG) == ""
    assert WRONG in browser.toPlainText()
    assert f"\ufffc{SOURCE}" in browser.toPlainText()
    assert not_tried(page.text) == []


@pytest.mark.parametrize(
    "source",
    [
        "x" * 10_000,
        "{" * 60 + "x" + "}" * 60,
        r"\left(" * 40 + "x" + r"\right)" * 40,
        r"\rule{1cm}{99999cm}",
        "x" * 400,
    ],
    ids=["long", "nested", "brackets", "high", "wide"],
)
def test_a_formula_that_is_too_much_stays_its_source(source: str) -> None:
    draw([source])
    assert drawing_of(source) == ""


def test_nested_groups_are_drawn_as_the_library_draws_them_with_work_in_proportion_to_their_depth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = [
        r"\left(\frac{\left[ a^{\left(b\right)} \right]}{\sqrt{\left|x\right|}}\right)^2",
        r"\begin{cases} \left(\frac{1}{2}\right) \\ \int_0^1 f \sum_{i=1}^{n} \left(\frac{a}{b}\right) \end{cases}",
        r"\underbrace{\left(\frac{a}{b}\right)}_{\left[\frac{c}{d}\right]}",
    ]
    made = [0]
    make = Mnode.__init__

    def count(node: Mnode, *args: Any, **how: Any) -> None:
        made[-1] += 1
        make(node, *args, **how)

    monkeypatch.setattr(Mnode, "__init__", count)
    for depth in (4, 8, 12):
        made.append(0)
        assert formulas._svg(r"\left(" * depth + "x" + r"\right)" * depth)
    assert made[3] - made[2] < 2 * (made[2] - made[1])
    drawn = [formulas._svg(source) for source in sources]
    assert all(drawn)
    ours = Mrow._get_height_nostretch
    monkeypatch.setattr(Mrow, "_get_height_nostretch", getclosurevars(ours).nonlocals["measure"])
    assert [formulas._svg(source) for source in sources] == drawn


def test_no_more_drawings_are_kept_than_some_pages_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formulas, "_drawings", {})
    monkeypatch.setattr(formulas, "_MOST", 3)
    monkeypatch.setattr(formulas, "_KEPT", 4)
    text = page_of(*"abcdef").text
    assert not_tried(text) == ["a", "b", "c"]
    draw(not_tried(text))
    assert not_tried(text) == []  # or a page would be shown anew forever
    draw("xyz")
    assert list(formulas._drawings) == ["c", "x", "y", "z"]


def test_a_window_that_closes_waits_for_one_formula_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formulas, "_drawings", {})
    background = Background()

    def drawn(source: str) -> str:
        background.shutdown()
        return source

    monkeypatch.setattr(formulas, "_svg", drawn)
    with pytest.raises(Cancelled):
        draw("abc", background.check)
    assert list(formulas._drawings) == ["a"]


def test_a_formula_is_no_wider_than_the_page(qtbot: QtBot, browser: PageBrowser) -> None:
    draw([SOURCE, LONG])
    widths = []
    for width in (900, 360):
        browser.resize(width, 400)
        browser.show_page(page_of(SOURCE, LONG))
        assert browser.document().size().width() <= browser.viewport().width()
        assert browser.horizontalScrollBar().maximum() == 0
        widths.append((picture(browser, SOURCE).width(), picture(browser, LONG).width()))
    (short, wide), (same, narrow) = widths
    assert short == same  # what fits keeps its size
    assert narrow < browser.viewport().width() < wide
    with qtbot.waitSignal(browser.stale):
        browser.resize(500, 400)


def test_a_formula_has_the_pixels_of_a_dense_screen(browser: PageBrowser, monkeypatch: pytest.MonkeyPatch) -> None:
    draw([SOURCE])
    once = picture(browser, SOURCE)
    monkeypatch.setattr(browser, "devicePixelRatioF", lambda: 2.0)
    twice = picture(browser, SOURCE)
    assert twice.devicePixelRatio() == 2
    assert abs(twice.width() - 2 * once.width()) <= 1


def inks(image: QImage) -> set[str]:
    return {
        image.pixelColor(x, y).name()
        for x in range(image.width())
        for y in range(image.height())
        if image.pixelColor(x, y).alpha() == 255
    }


def test_a_formula_has_the_text_colour_of_the_theme(browser: PageBrowser, monkeypatch: pytest.MonkeyPatch) -> None:
    draw([SOURCE])
    for theme in (LIGHT, DARK):
        monkeypatch.setattr(page_browser, "current_theme", lambda theme=theme: theme)
        assert inks(picture(browser, SOURCE).toImage()) == {theme.text}


def test_the_source_is_what_is_copied_and_what_a_screen_reader_hears(browser: PageBrowser) -> None:
    draw([SOURCE])
    browser.show_page(page_of(SOURCE))
    browser.selectAll()
    copied = browser.createMimeDataFromSelection()
    assert copied.text() == f"P\n\n{SOURCE}\n"
    assert "<img" not in copied.html()
    assert "transparent" not in copied.html()
    heard = QAccessible.queryAccessibleInterface(browser).textInterface()
    assert SOURCE in heard.text(0, heard.characterCount())
