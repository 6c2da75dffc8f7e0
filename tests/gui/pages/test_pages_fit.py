"""Every page fits a narrow and a wide panel, each in another theme, with its figures and formulas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from itertools import cycle

import pytest
from formula_pages import picture
from PySide6.QtGui import QFont, QFontMetricsF, QGuiApplication, QImage, QImageReader, QTextDocument, QTextTable
from pytestqt.qtbot import QtBot

from llmlab.core.paths import resources_dir
from llmlab.exercises.pieces import all_pieces
from llmlab_gui.learn import dock as learn
from llmlab_gui.pages import browser, html
from llmlab_gui.pages.formulas import draw, drawing_of, formulas_of
from llmlab_gui.pages.library import load_all
from llmlab_gui.pages.page import Page
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.theme import DARK, LIGHT

_ROUNDED = 2  # pixels by which Qt makes a table of many columns wider than its page
_SMALLER = 10  # pixels of a figure in one of its blank picture
_DRAWINGS = sorted((resources_dir() / "concepts" / "figures").glob("*.svg"))


@pytest.fixture
def page_browser(qtbot: QtBot) -> Iterator[learn._LearnBrowser]:
    background = Background()
    widget = learn._LearnBrowser(background)
    qtbot.addWidget(widget)
    widget.show()
    yield widget
    background.shutdown()


@pytest.mark.slow
def test_no_page_scrolls_sideways(page_browser: learn._LearnBrowser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures have their sizes, and nothing in them: to draw them takes a third of the time."""

    def figure(shown: learn._LearnBrowser, name: str) -> QImage:
        path = shown._page.folder / name
        size, ratio = QImageReader(str(path)).size(), browser._SHOWN_LARGER / browser._FIGURE_SHARE
        blank = QImage(size / _SMALLER, QImage.Format.Format_RGB32)
        blank.setDevicePixelRatio((1 / ratio if path.suffix == ".svg" else 1) / _SMALLER)
        return blank

    monkeypatch.setattr(learn._LearnBrowser, "figure", figure)
    pages = [*load_all(), *(Page(piece.name, piece.title, piece.page) for piece in all_pieces())]
    wide = []
    for width, themes in ((360, (DARK, LIGHT)), (900, (LIGHT, DARK))):
        page_browser.resize(width, 600)
        for page, colors in zip(pages, cycle(themes), strict=False):
            for module in (browser, html, learn):
                monkeypatch.setattr(module, "current_theme", lambda colors=colors: colors)
            draw(formulas_of(page.text))
            page_browser.show_page(page)
            room, document = page_browser.viewport().width(), page_browser.document()
            if document.size().width() > room + _ROUNDED or right_of(document) > room:
                wide.append((page.name, width, colors.name))
    assert wide == []


# GitHub refuses \operatorname and what defines or hides something. In \text it sets no _, and an empty line is wrong.
_REFUSED = re.compile(
    r"\\(operatorname|mbox|phantom|newcommand|def|require|mathop|color)\b|\\text\{[^}]*[_^$\\]|\n\s*\n"
)


def test_every_formula_of_a_page_can_be_read_in_a_narrow_panel_and_on_github(
    page_browser: learn._LearnBrowser,
) -> None:
    """What is scaled below three quarters has letters smaller than the text around it. In this file, since drawing them
    takes seconds, and its pages have them drawn."""
    texts = [(page.name, page.text) for page in load_all()] + [(piece.name, piece.page) for piece in all_pieces()]
    found = {source: name for name, text in texts for source in formulas_of(text)}
    assert len(found) > 100
    assert [source for source in found if _REFUSED.search(source)] == []
    draw(found)
    assert [(name, source) for source, name in found.items() if not drawing_of(source)] == []
    widths: dict[int, list[int]] = {}
    for width in (1200, 360):
        page_browser.resize(width, 400)
        widths[width] = [picture(page_browser, source).width() for source in found]
    for (source, name), whole, narrow in zip(found.items(), widths[1200], widths[360], strict=True):
        assert narrow >= 0.75 * whole, (name, source)


def test_a_command_between_words_breaks_at_spaces_is_found_and_copied_as_it_can_be_run(
    page_browser: learn._LearnBrowser,
) -> None:
    command = "llmlab-run pretrain --corpus stories --steps 1500 --set train.learning_rate=3e-3 --name first-gpt"
    page = Page("p", "P", f"# P\n\nTrain it, or `{command}`, and look.\n\n! Or `{command}`.\n")
    for width in range(300, 460, 5):
        page_browser.resize(width, 600)
        page_browser.show_page(page)
        page_browser.document().size()
        block, ends = page_browser.document().begin(), set()
        while block.isValid():
            lines, text = block.layout(), block.text()
            ends |= {text[lines.lineAt(n).textStart() - 1] for n in range(1, lines.lineCount())}
            block = block.next()
        assert ends == {" "}, width
    page_browser.selectAll()
    copied = page_browser.createMimeDataFromSelection()
    assert copied.text().count(command) == 2
    assert html.JOINER not in copied.text() + copied.html()
    assert not page_browser.document().find(browser.pattern_of("--SET train")).isNull()


def test_no_line_begins_with_a_per_cent_sign(page_browser: learn._LearnBrowser) -> None:
    words = "It is certain with 95 % and so on. " * 9
    page = Page("p", "P", f"# P\n\n| a | b |\n| --- | --- |\n| {words} | c |\n\n{words}")
    for width in range(300, 460, 5):
        page_browser.resize(width, 600)
        page_browser.show_page(page)
        page_browser.document().size()
        block = page_browser.document().begin()
        while block.isValid():
            lines = block.layout()
            starts = [lines.lineAt(n).textStart() for n in range(lines.lineCount())]
            assert "%" not in {block.text()[at : at + 1] for at in starts}, width
            block = block.next()
    assert "95 % and" in page_browser.toPlainText()
    assert not page_browser.document().find(browser.pattern_of("95 % and")).isNull()


def right_of(document: QTextDocument) -> float:
    """How far the rightmost words reach, which a table's cell can cut off."""
    furthest, block = 0.0, document.begin()
    while block.isValid():
        left, layout = document.documentLayout().blockBoundingRect(block).left(), block.layout()
        lines = [layout.lineAt(number).naturalTextRect().right() for number in range(layout.lineCount())]
        furthest, block = max([furthest, *(left + line for line in lines)]), block.next()
    return furthest


def test_a_wide_table_is_turned_on_a_narrow_page_and_keeps_its_cells() -> None:
    rows = [["step", *map(str, range(100, 800, 100))], ["loss", *(f"{n}.5" for n in range(7))]]
    text = "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * 8, rows[1]))
    page = Page("p", "P", f"# P\n\n{text}\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n")
    cells = {}
    for room, sizes in ((0, [(2, 8), (2, 2)]), (320, [(8, 2), (2, 2)])):
        document = QTextDocument()
        document.setHtml(html.page_html(page, html.page_colors(), room=room))
        tables = [frame for frame in document.rootFrame().childFrames() if isinstance(frame, QTextTable)]
        assert [(table.rows(), table.columns()) for table in tables] == sizes
        cells[room] = document.toPlainText().split()
    assert sorted(cells[0]) == sorted(cells[320])
    assert cells[320][1:7] == ["step", "loss", "100", "0.5", "200", "1.5"]


def test_the_columns_of_a_narrow_table_are_as_wide_as_their_longest_words(qtbot: QtBot) -> None:
    rows = [["x", "many words, each of them short", "name"], ["y", "b", "num_attention_heads"]]
    lines = [f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * 3, rows[1])]
    plain, bold = QFont(QGuiApplication.font()), QFont(QGuiApplication.font())
    bold.setBold(True)
    longest = ((bold, "x"), (bold, "words,"), (plain, "num_attention_heads"))
    needs = [QFontMetricsF(font).horizontalAdvance(word) + html._BETWEEN_NARROW for font, word in longest]
    shares = [f"{100 * need / sum(needs):.1f}" for need in needs]
    for text, expected in (("\n".join(lines), shares), ("| a | b |\n| --- | --- |\n| 1 | 2 |", [])):
        page = Page("p", "P", f"# P\n\n{text}\n")
        shown = html.page_html(page, html.page_colors(), room=320)
        assert re.findall(r'<th width="([\d.]+)%"', shown) == expected
        assert "<th width" not in html.page_html(page, html.page_colors())


def test_letters_are_smaller_where_a_narrow_page_would_break_words_and_lines(
    page_browser: learn._LearnBrowser,
) -> None:
    """A table of six columns with long words; what a program of 64 columns printed; a turned table, whose rows have
    bold names; and a table of ten columns."""
    pages = {page.name: page for page in load_all()}
    families, runs = pages["results/model-families"], pages["results/experiments/lora-rank/report"]
    printed = Page("p", "P", f"# P\n\n```\n{' '.join(['1.2345'] * 9)} 1\n```\n")
    turned = pages["results/papers/induction-heads/report"]
    for page, width in ((families, 360), (printed, 440), (turned, 379), (runs, 600), (runs, 620)):
        page_browser.resize(width, 600)
        page_browser.show_page(page)
        page_browser.document().size()  # lays out what is not in sight, too
        block, broken = page_browser.document().begin(), []
        while block.isValid():
            lines, text = block.layout(), block.text()
            ends = [lines.lineAt(n).textStart() + lines.lineAt(n).textLength() for n in range(lines.lineCount() - 1)]
            code = text.startswith("1.2345")
            broken += [text for end in ends if code or (text[end - 1].isalnum() and text[end].isalnum())]
            block = block.next()
        assert broken == [], page.name


def test_a_table_too_wide_for_small_letters_is_turned_in_pieces(page_browser: learn._LearnBrowser) -> None:
    """Each piece has the names of all columns, and as many rows as fit; no word is cut."""
    head = ["run", *(f"measured-{'abcdefgh'[n]}" for n in range(8))]
    rows = [[f"feed_forward_{row}", *(f"{row}.123456" for _ in range(8))] for row in range(12)]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * 9, *rows)]
    page = Page("p", "P", "# P\n\n" + "\n".join(lines) + "\n")
    for width in (345, 380, 440):
        page_browser.resize(width, 600)
        page_browser.show_page(page)
        document, words = page_browser.document(), page_browser.toPlainText().split()
        document.size()
        tables = [frame for frame in document.rootFrame().childFrames() if isinstance(frame, QTextTable)]
        assert [table.rows() for table in tables] == [9] * len(tables)
        assert sum(table.columns() - 1 for table in tables) == 12
        letters = {table.cellAt(0, 0).firstCursorPosition().charFormat().font().pixelSize() for table in tables}
        assert len(letters) == 1
        assert len(tables) < 12
        assert sorted(words[1:]) == sorted([*head * len(tables), *(cell for row in rows for cell in row)])
        block = document.begin()
        while block.isValid():
            assert block.layout().lineCount() < 2 or "-" in block.text(), block.text()
            block = block.next()


def test_a_drawing_has_no_colour_that_a_dark_page_would_keep() -> None:
    known = {color for color in asdict(LIGHT).values() if isinstance(color, str)} | set(LIGHT.series)
    for path in _DRAWINGS:
        assert set(re.findall("#[0-9a-f]{6}", path.read_text(encoding="utf-8"))) <= known, path.name


def test_no_words_leave_a_drawing(qtbot: QtBot) -> None:
    out = []
    pattern = r'<text x="(.*?)" y="(.*?)" font-size="(\d+)".*? text-anchor="(\w+)"(.*?)>(.*?)</text>'
    for path in _DRAWINGS:
        text = path.read_text(encoding="utf-8")
        for x, y, size, anchor, weight, words in re.findall(pattern, text):
            font = QFont("sans-serif")
            font.setPixelSize(int(size))
            font.setBold("bold" in weight)
            width = QFontMetricsF(font).horizontalAdvance(words.replace("&lt;", "<").replace("&gt;", ">"))
            left = float(x) - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            if left < -1 or left + width > 461 or float(y) > float(re.findall(r' height="(.*?)"', text)[0]):
                out.append((path.stem, words, round(left), round(left + width)))
    assert out == []
