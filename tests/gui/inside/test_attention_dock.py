"""Prompt and Attention: tokens and heads that are chosen or pointed at in one are in the other; views, export, copy."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_lab import FakeLab
from PySide6.QtCore import QCoreApplication, QEvent, QPoint, Qt, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QAbstractScrollArea, QApplication
from pytestqt.qtbot import QtBot
from windows import FAKE_HOST, dock_in_sight, wait_until_freed

from llmlab.inspection.archive import read_archive, write_archive
from llmlab_gui.charts.heatmap import Heat
from llmlab_gui.charts.redraw import RedrawTimer
from llmlab_gui.host.inspection_plan import first_tokens
from llmlab_gui.host.messages import ModelAbout
from llmlab_gui.host.process import ModelHost
from llmlab_gui.host.selection import PromptToken
from llmlab_gui.host.session import InspectionSession
from llmlab_gui.inside.attention import ARCS, HEATMAP, ROLLOUT, STAGES, AttentionDock
from llmlab_gui.inside.head_scores import SCORES
from llmlab_gui.inside.inspection_dock import InspectionDock
from llmlab_gui.inside.prompt import GENERAL, SCRATCH, PromptDock, examples_for
from llmlab_gui.inside.token_chips import TokenChips
from llmlab_gui.widgets import saving
from llmlab_gui.widgets.numbers import read_out
from llmlab_gui.widgets.saving import Cell, LazyRows
from llmlab_gui.widgets.theme import apply_theme, current_theme, style_sheet, theme_notifier

PROMPT = "When Mary and John went"


class LookingLab(FakeLab):
    said = Signal(str)

    def __init__(self, outputs: Path) -> None:
        super().__init__(outputs)
        self.redraw = RedrawTimer(self)
        self.inspection = InspectionSession(outputs, self, host=ModelHost(command=FAKE_HOST))
        self.inspection.failed.connect(self.error_raised)
        self.words: list[str] = []
        self.said.connect(self.words.append)


@pytest.fixture
def lab(qtbot: QtBot, tmp_path: Path) -> Iterator[LookingLab]:
    lab = LookingLab(tmp_path)
    yield lab
    lab.redraw.stop()
    lab.inspection.shutdown()


@pytest.fixture
def prompt(qtbot: QtBot, lab: LookingLab) -> Iterator[PromptDock]:
    with dock_in_sight(qtbot, PromptDock(lab), 700, 320) as dock:
        yield dock


@pytest.fixture
def dock(qtbot: QtBot, lab: LookingLab) -> Iterator[AttentionDock]:
    with dock_in_sight(qtbot, AttentionDock(lab), 900, 640) as dock:
        yield dock


def looked(qtbot: QtBot, lab: LookingLab, text: str = PROMPT, model: str = "small") -> None:
    lab.inspection.set_prompt(text, False)
    lab.inspection.open(model)
    qtbot.waitUntil(lambda: lab.inspection.look.archive is not None)


# Prompt ----------------------------------------------------------------------------------------------------------


def test_a_model_without_a_prompt_gets_an_example_that_suits_it(
    qtbot: QtBot, lab: LookingLab, prompt: PromptDock
) -> None:
    lab.inspection.open("small")
    qtbot.waitUntil(lambda: bool(prompt.chips.tokens))
    assert prompt.text.toPlainText() == GENERAL[0].text
    assert prompt.look.text() == GENERAL[0].look
    lab.inspection.close()
    prompt.text.clear()
    lab.inspection.open("bar@live")
    qtbot.waitUntil(lambda: prompt.text.toPlainText() == SCRATCH[0].text)


def test_examples_are_those_that_the_model_can_read_whole() -> None:
    for kind in ("scratch", "live", "huggingface"):
        for context in (8, 16, 32, 64, 128, 1024, 0):
            found = examples_for(ModelAbout("bar", "bar", kind, context=context))
            assert found
            assert all(0 < len(example.text) < (context or 10_000) for example in found)
        assert set(found) == {*SCRATCH, *GENERAL}
    assert examples_for(ModelAbout("bar", "bar", "scratch", context=64))[0] == SCRATCH[0]  # the default model's


def test_a_prompt_that_is_too_long_is_shortened_at_a_press(
    qtbot: QtBot, lab: LookingLab, prompt: PromptDock, dock: AttentionDock
) -> None:
    looked(qtbot, lab, "short")
    text = " ".join(f"word{number}" for number in range(70))
    for press in (prompt.shorten, dock._empty._button):
        prompt.text.setPlainText(text)
        qtbot.waitUntil(lambda: prompt.shorten.isVisible() and "longer than small can read" in prompt.count.text())
        assert press.text() == "Shorten to 64 tokens"
        qtbot.mouseClick(press, Qt.MouseButton.LeftButton)
        assert prompt.text.toPlainText() == text[: text.index(" word64")]
        qtbot.waitUntil(lambda: len(prompt.chips.tokens) == 64 and dock.heatmap.isVisible())
        assert not prompt.shorten.isVisible()
    assert first_tokens("le café noir", ["le", " caf", r"\xc3", r"\xa9"]) == "le café"
    assert first_tokens("le café noir", ["le", " caf", r"\xc3"]) == "le caf"  # not half a letter
    assert first_tokens("the king", [" the"]) == "the"


def test_on_a_laptop_the_prompt_scrolls_in_no_area_that_scrolls_itself(
    qtbot: QtBot, lab: LookingLab, prompt: PromptDock
) -> None:
    lab.inspection.open("small")
    qtbot.waitUntil(lambda: bool(prompt.look.text()))  # of an example, which is taken by itself
    lab.inspection.set_prompt(("one after the other " * 15).strip(), False, at_once=True)
    prompt.look.setVisible(True)  # with what an example shows
    qtbot.waitUntil(lambda: len(prompt.chips.tokens) == 60)
    for size in ((790, 163), (740, 142), (400, 220)):  # Look inside at 1366 x 720 and at 1280 x 640, and a narrow dock
        prompt.resize(*size)
        QApplication.processEvents()
        areas = [
            a for a in prompt.findChildren(QAbstractScrollArea) if a.isVisible() and a.verticalScrollBar().maximum()
        ]
        assert prompt.chips in areas
        assert not [a for a in areas if any(a.isAncestorOf(other) for other in areas if other is not a)], size
    for width in (640, 1200, 700):  # text and tokens keep their shares of a wide dock
        prompt.resize(width, 200)
        QApplication.processEvents()
        assert prompt.text.width() == pytest.approx(0.42 * width, abs=20)


def test_what_is_typed_is_cut_and_counted(qtbot: QtBot, lab: LookingLab, prompt: PromptDock) -> None:
    lab.inspection.open("small")
    qtbot.waitUntil(lambda: lab.inspection.about is not None)
    prompt.text.setPlainText("The king is dead")
    qtbot.waitUntil(lambda: len(prompt.chips.tokens) == 4)
    assert prompt.count.text().startswith("4 tokens of at most 64 · all attention patterns: 768 bytes")
    assert "id" in prompt.chips.words(1)
    assert "“·king”" in prompt.chips.words(1)


def test_no_row_of_tokens_is_cut_whatever_the_height_and_the_chosen_one_is_in_sight(qtbot: QtBot) -> None:
    chips = TokenChips()
    qtbot.addWidget(chips)
    chips.show()
    chips.show_tokens([PromptToken(7, r"\xe4\xbd"), PromptToken(8, r"\xa0")])
    assert chips.words(1) == r"Position 1: id 8, text “\xa0”, byte 3 of 3 of 你"
    chips.show_tokens([PromptToken(id, f" word{id}") for id in range(60)])
    for height in range(40, 130, 7):
        chips.resize(200, height)
        for token in (0, 59, 30):
            chips.choose(token)
            room = chips.viewport().rect()
            shown = chips.place_of(token)
            assert room.contains(shown.toAlignedRect()), (height, token)
            assert chips.token_at(shown.center()) == token
            for other in range(60):
                place = chips.place_of(other)
                assert not place.top() < 0 < place.bottom(), (height, token, other)
                if place.bottom() > room.height():
                    assert chips.token_at(place.center()) == -1


def test_a_prompt_that_cannot_be_read_says_why_beside_the_tokens(
    qtbot: QtBot, lab: LookingLab, prompt: PromptDock
) -> None:
    lab.inspection.open("small")
    qtbot.waitUntil(lambda: bool(prompt.chips.tokens))
    prompt.text.setPlainText("word " * 70)
    qtbot.waitUntil(lambda: "longer than small can read" in prompt.count.text())
    prompt.text.setPlainText("short")
    qtbot.waitUntil(lambda: prompt.count.text().startswith("1 token of at most 64"))


def test_the_beginning_is_offered_where_there_is_one(qtbot: QtBot, lab: LookingLab, prompt: PromptDock) -> None:
    lab.inspection.set_prompt("a b", False)
    lab.inspection.open("small")
    qtbot.waitUntil(lambda: len(prompt.chips.tokens) == 2)
    assert prompt.beginning.isEnabled()
    prompt.beginning.setChecked(True)
    qtbot.waitUntil(lambda: len(prompt.chips.tokens) == 3)
    assert prompt.chips.tokens[0].text == "<s>"
    lab.inspection.open("plain")
    qtbot.waitUntil(lambda: len(prompt.chips.tokens) == 2 and not prompt.beginning.isEnabled())
    assert not prompt.beginning.isChecked()


def test_history_has_what_was_looked_at_and_not_its_halves(
    qtbot: QtBot, lab: LookingLab, prompt: PromptDock, dock: AttentionDock
) -> None:
    looked(qtbot, lab, "The king")
    for text in ("The king is", "Another one"):
        lab.inspection.set_prompt(text, False, at_once=True)
        qtbot.waitUntil(lambda text=text: lab.inspection.recent.prompts[:1] == [text])
    assert lab.inspection.recent.prompts == ["Another one", "The king is"]
    prompt.history_button.menu().aboutToShow.emit()
    prompt.history_button.menu().actions()[1].trigger()
    assert prompt.text.toPlainText() == "The king is"


def test_every_example_can_be_taken(qtbot: QtBot, lab: LookingLab, prompt: PromptDock) -> None:
    lab.inspection.open("small")
    qtbot.waitUntil(lambda: lab.inspection.about is not None)
    prompt.examples_button.menu().aboutToShow.emit()
    found = examples_for(lab.inspection.about)
    for action, example in zip(prompt.examples_button.menu().actions(), found, strict=True):
        action.trigger()
        assert prompt.text.toPlainText() == example.text
        assert prompt.look.text() == example.look
        assert not prompt.look.isHidden()
        assert example.text.isascii()  # a vocabulary of letters may have no others
    lab.inspection.set_prompt("something else", False)
    assert prompt.look.isHidden()  # what an example shows is said of no other prompt


def test_without_a_model_the_panel_says_how_to_get_one(qtbot: QtBot, lab: LookingLab, dock: AttentionDock) -> None:
    with qtbot.waitSignal(lab.inspection.choose_requested):
        dock._empty._button.click()


# Linked panels ---------------------------------------------------------------------------------------------------


def test_a_click_in_the_mosaic_shows_the_head_everywhere(qtbot: QtBot, lab: LookingLab, dock: AttentionDock) -> None:
    looked(qtbot, lab)
    mosaic = dock.heads.mosaic
    qtbot.mouseClick(mosaic, Qt.MouseButton.LeftButton, pos=mosaic.rect_of(2, 1).center().toPoint())
    assert (lab.inspection.selection.layer, lab.inspection.selection.head) == (2, 1)
    assert (dock.layer.value(), dock.head.value()) == (2, 1)
    archive = lab.inspection.look.archive
    assert archive is not None
    assert np.array_equal(dock.pattern, archive["attention/2"][1])
    assert np.array_equal(dock.heatmap.heat.values, dock.pattern)
    index = dock.heads.table.currentIndex()
    assert index.siblingAtColumn(0).data() == "2.1"
    dock.head.setValue(3)
    assert mosaic.chosen == (2, 3)


def test_tokens_are_linked_between_prompt_heatmap_and_arcs(
    qtbot: QtBot, lab: LookingLab, prompt: PromptDock, dock: AttentionDock
) -> None:
    looked(qtbot, lab)
    qtbot.waitUntil(lambda: len(prompt.chips.tokens) == 5)
    qtbot.mouseClick(
        prompt.chips.viewport(), Qt.MouseButton.LeftButton, pos=prompt.chips.place_of(1).center().toPoint()
    )
    assert dock.heatmap.chosen[0] == 1
    assert dock.arcs.chosen == 1
    qtbot.mouseMove(dock.heatmap, dock.heatmap.center_of(3, 2).toPoint())
    assert prompt.chips.under == 3
    assert dock.arcs.under == 3
    qtbot.mouseClick(dock.heatmap, Qt.MouseButton.LeftButton, pos=dock.heatmap.center_of(4, 2).toPoint())
    assert prompt.chips.chosen == 4
    assert dock.heatmap.chosen == (4, 2)
    prompt.chips.pointed.emit(-1)
    assert lab.inspection.hovered == -1


def test_pointing_reads_the_exact_weight(qtbot: QtBot, lab: LookingLab, dock: AttentionDock) -> None:
    looked(qtbot, lab)
    assert dock.pattern is not None
    words = dock.heatmap.words(3, 1)
    assert words.startswith("·John (3) attends to ·Mary (1): ")
    assert float(words.rpartition(" ")[2]) == pytest.approx(float(dock.pattern[3, 1]), rel=1e-3)
    heat = dock.heatmap.heat
    assert heat is not None
    dock.heatmap.heat = replace(heat, rows=[r"\xe4\xbd", r"\xa0", *heat.rows[2:]])
    words = dock.heatmap.words(1, 0)
    assert words.startswith(r"\xa0 (1, byte 3 of 3 of 你) attends to \xe4\xbd (0, bytes 1 to 2 of 3 of 你): ")


# Views -----------------------------------------------------------------------------------------------------------


def test_stages_show_every_number_of_a_cell(qtbot: QtBot, lab: LookingLab, dock: AttentionDock) -> None:
    looked(qtbot, lab)
    dock.show_view(STAGES)
    qtbot.waitUntil(lambda: dock.stages.archive is not None)
    archive = dock.stages.archive
    assert archive is not None
    dock.stages.maps["scores"].clicked.emit(3, 1)
    words = dock.stages.words.text()
    for name in ("scores", "scaled", "pattern"):
        assert read_out(float(archive[f"stages/{name}"][3, 1]), "value") in words, name
    assert "softmax over 4" in words
    dock.stages.maps["masked"].clicked.emit(1, 3)
    assert "masked, since it comes later" in dock.stages.words.text()


def test_rollout_is_asked_for_only_when_it_is_looked_at(qtbot: QtBot, lab: LookingLab, dock: AttentionDock) -> None:
    looked(qtbot, lab)
    assert "attention/rollout" not in lab.inspection.look.archive
    dock.show_view(ROLLOUT)
    qtbot.waitUntil(lambda: dock.rollout.heat is not None)
    archive = lab.inspection.look.archive
    assert archive is not None
    lab.inspection.select(layer=1)
    assert np.array_equal(dock.rollout.heat.values, archive["attention/rollout"][1])
    dock.show_view(HEATMAP)
    assert dock.aspects == ("heads", "attention")


def test_a_head_of_a_long_prompt_is_asked_for_by_itself(
    qtbot: QtBot, lab: LookingLab, dock: AttentionDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmlab_gui.host.inspection_plan.PATTERNS_LIMIT", 100)
    looked(qtbot, lab)
    assert "attention/0" not in lab.inspection.look.archive
    qtbot.waitUntil(lambda: dock.pattern is not None)
    first = dock.pattern
    lab.inspection.select(layer=2, head=3)
    qtbot.waitUntil(lambda: dock.pattern is not first)
    assert dock.tensors()[1] == ("pattern",)
    assert dock.tensors()[0].metadata.question["head"] == 3


def test_heads_are_sorted_and_filtered_by_score_and_the_chosen_one_stays(
    qtbot: QtBot, lab: LookingLab, dock: AttentionDock
) -> None:
    looked(qtbot, lab)
    heads, archive = dock.heads, lab.inspection.look.archive
    assert archive is not None
    scores = np.array(archive["heads/induction"])
    lowest = tuple(int(place) for place in np.unravel_index(scores.argmin(), scores.shape))  # it will be filtered out
    heads.chosen.emit(*lowest)
    heads.by.setCurrentIndex(heads.by.findData("induction"))
    assert heads.table.model().index(0, 0).data() == "{}.{}".format(*np.unravel_index(scores.argmax(), scores.shape))
    least = float(np.sort(scores.ravel())[-3]) - 0.005
    heads.least.setValue(least)
    assert heads.table.model().rowCount() == int((scores >= heads.least.value()).sum())
    assert np.array_equal(heads.mosaic._dimmed, scores < heads.least.value())
    assert (lab.inspection.selection.layer, lab.inspection.selection.head) == lowest
    heads.by.setCurrentIndex(0)
    assert heads.table.model().rowCount() == scores.size
    assert heads.mosaic._dimmed is None


def test_a_click_on_a_score_brings_the_head_with_most_of_it_to_the_top(
    qtbot: QtBot, lab: LookingLab, dock: AttentionDock
) -> None:
    lab.inspection.select(layer=1, head=1)
    dock.heads.rank("previous")  # before there are heads
    looked(qtbot, lab)
    heads, archive = dock.heads, lab.inspection.look.archive
    assert archive is not None
    chosen = lab.inspection.selection.layer, lab.inspection.selection.head
    assert chosen != (1, 1)
    assert np.array(archive["heads/previous"])[chosen] == np.array(archive["heads/previous"]).max()
    heads.by.setCurrentIndex(0)
    heads.least.setValue(5.0)  # above all of them: each row is hidden
    heads.table.sortByColumn(0, Qt.SortOrder.DescendingOrder)
    lab.inspection.select(layer=1, head=1)
    heads.rank("previous")  # again
    assert (lab.inspection.selection.layer, lab.inspection.selection.head) == chosen
    heads.by.setCurrentIndex(0)
    scores, header = np.array(archive["heads/previous"]), heads.table.horizontalHeader()
    at = header.sectionViewportPosition(heads.scores.column_of("previous")) + 20
    qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(at, header.height() // 2))
    assert heads.table.model().index(0, 0).data() == "{}.{}".format(*np.unravel_index(scores.argmax(), scores.shape))


def test_five_heads_and_their_scores_are_in_sight_on_a_laptop(
    qtbot: QtBot, lab: LookingLab, dock: AttentionDock, tmp_path: Path
) -> None:
    """Also of a model that is much deeper than it has heads, as SmolLM2 with 30 layers of 9, beside all of them."""
    dock.setStyleSheet(style_sheet(current_theme()))
    dock.resize(790, 440)  # what Look inside leaves it at 1366 x 768
    looked(qtbot, lab)
    table, mosaic, pattern = dock.heads.table, dock.heads.mosaic, dock.heatmap
    qtbot.waitUntil(lambda: table.isVisible() and table.model().rowCount() > 4)
    found = lab.inspection.look.archive
    assert found is not None
    deep = {f"heads/{score.key}": np.full((30, 9), 0.25) for score in SCORES}
    write_archive(tmp_path / "deep", deep | {"heads/mosaic": np.full((30, 9, 8, 8), 0.5)}, found.metadata)
    for archive in (found, read_archive(tmp_path / "deep"), found):
        dock.draw(archive)
        QApplication.processEvents()
        rows = table.viewport().height() / table.verticalHeader().defaultSectionSize()
        assert rows >= 5
        last = table.model().columnCount() - 1
        across = [table.columnViewportPosition(at) + table.columnWidth(at) for at in range(last + 1)]
        assert sum(right <= table.viewport().width() for right in across) >= 4, (across, table.viewport().width())
        titles = [table.model().headerData(at, Qt.Orientation.Horizontal) for at in range(last + 1)]
        needed = [table.fontMetrics().horizontalAdvance(title) + 12 for title in titles]  # 12: of the style sheet
        assert all(table.columnWidth(at) >= needed[at] for at in range(last + 1))
        assert mosaic.visibleRegion().boundingRect() == mosaic.rect()  # whole
        assert min(pattern.width(), pattern.height()) >= 250
    table.setColumnWidth(1, 120)
    dock.draw(read_archive(tmp_path / "deep"))
    assert table.columnWidth(1) == 120  # as someone made it


def test_the_table_of_heads_stays_open_beside_a_mosaic_that_is_wider_than_its_pane(
    qtbot: QtBot, lab: LookingLab, dock: AttentionDock, tmp_path: Path
) -> None:
    looked(qtbot, lab)
    found = lab.inspection.look.archive
    assert found is not None
    write_archive(tmp_path / "deep", {"heads/mosaic": np.full((60, 32, 8, 8), 0.5)}, found.metadata)
    dock.heads.resize(200, 440)
    dock.heads.show_heads(read_archive(tmp_path / "deep"))
    assert min(dock.heads._halves.sizes()) > 0


def test_a_model_that_refuses_its_patterns_says_why(qtbot: QtBot, lab: LookingLab, dock: AttentionDock) -> None:
    lab.inspection.set_prompt(PROMPT, False)
    lab.inspection.open("blind")
    qtbot.waitUntil(lambda: "Its patterns cannot be trusted." in dock._empty._hint.text())
    assert not dock.export_button.isEnabled()


def test_cancelled_work_can_be_taken_up_again_in_the_panel(qtbot: QtBot, lab: LookingLab, dock: AttentionDock) -> None:
    lab.inspection.set_prompt("slow one", False)
    lab.inspection.open("small")
    qtbot.waitUntil(lambda: dock.strip.isVisible() and dock.strip.what.text() == "Reading layers")
    assert dock.strip.left.text() == "30 s left"
    assert dock.strip.cancel_button.isHidden()  # all panels read it: it is cancelled in the toolbar
    lab.inspection.cancel()
    assert not dock.strip.isVisible()
    assert "cancelled" in dock._empty._title.text()
    lab.inspection.set_prompt(PROMPT, False, at_once=True)
    qtbot.waitUntil(lambda: dock.pattern is not None)


# Export ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", [HEATMAP, ARCS, ROLLOUT, STAGES])
def test_every_view_is_saved_as_picture_drawing_numbers_and_tensors(
    qtbot: QtBot, lab: LookingLab, dock: AttentionDock, tmp_path: Path, view: str
) -> None:
    looked(qtbot, lab)
    dock.show_view(view)
    qtbot.waitUntil(lambda: dock.table() is not None and (view != ROLLOUT or dock.tensors() is not None))
    for suffix in ("png", "svg", "csv", "safetensors"):
        path = tmp_path / f"attention.{suffix}"
        dock.export(path)
        qtbot.waitUntil(lambda path=path: f"Saved {path}." in lab.words)
        assert path.stat().st_size > 100
    assert (tmp_path / "attention.svg").read_text().count("<") > 20
    lines = (tmp_path / "attention.csv").read_text().splitlines()
    assert len(lines) == 26
    assert lines[0].startswith("query,query text,key,key text,")
    assert lines[2].startswith("0,When,1,·Mary,")
    part = read_archive(tmp_path / "attention.safetensors")
    assert part.metadata.tokens == ["When", " Mary", " and", " John", " went"]
    assert not lab.errors


def test_numbers_and_picture_are_copied(qtbot: QtBot, lab: LookingLab, dock: AttentionDock) -> None:
    looked(qtbot, lab)
    dock.copy_table()
    qtbot.waitUntil(lambda: lab.words[-1:] == ["The numbers were copied."])
    text = QGuiApplication.clipboard().text()
    assert text.startswith("query,query text,key,key text,value\n0,When,0,When,1.0\n")
    dock.copy_picture()
    image, map = QGuiApplication.clipboard().image(), dock.heatmap
    assert not image.isNull()
    assert image.height() > 2 * map.height()  # with a title
    assert dock.picture_title == "Attention: small, layer 0, head 0, of “When Mary and John went”"
    assert dock.export_name == "small-attention-When-Mary-and-John"
    *_, shown = (archive for archive in dock.shown_archives() if archive is not None)
    shown.metadata.tokens[:2] = [r"\xe4\xbd", r"\xa0"]  # the bytes of one character
    assert "of “你 and John went”" in dock.picture_title
    looked(qtbot, lab, model="bar@live")
    qtbot.waitUntil(lambda: "bar@live, step 100, layer 0" in dock.picture_title)
    line = image.copy(0, image.height() - 30, image.width(), 24)
    colors = {line.pixelColor(x, y).name() for x in range(line.width()) for y in range(0, line.height(), 4)}
    assert len(colors) == 1  # no word of what one can point at


def test_a_million_numbers_are_written_in_a_thread_and_the_export_cancelled(
    qtbot: QtBot, lab: LookingLab, dock: AttentionDock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked(qtbot, lab)
    dock.show_view(HEATMAP)
    names = [str(number) for number in range(1024)]
    with monkeypatch.context() as patched:  # no row is made on the window's thread
        patched.setattr(saving.LazyRows, "__getitem__", lambda *_: pytest.fail("a row was made"))
        dock.heatmap.show_heat(Heat(np.zeros((1024, 1024)), names, names))
        table = dock.table()
        assert table is not None
        assert len(table[1]) == 1024 * 1024
    threads: set[threading.Thread] = set()

    def row(at: int) -> list[Cell]:
        threads.add(threading.current_thread())
        return [at]

    monkeypatch.setattr(dock, "table", lambda: (["n"], LazyRows(10**9, row)))  # of which no one sees the end
    dock.export(tmp_path / "numbers.csv")
    qtbot.waitUntil(dock._exports_strip.isVisible)
    dock._exports_strip.cancel_button.click()
    qtbot.waitUntil(dock._exports_strip.isHidden)
    dock.copy_table()
    qtbot.waitUntil(lambda: dock.exports.working is not None)
    dock.exports.cancel()
    qtbot.waitUntil(lambda: dock.exports.working is None)
    assert threading.main_thread() not in threads
    assert (list(tmp_path.glob("numbers*")), lab.errors) == ([], [])


def test_a_full_disk_is_told(qtbot: QtBot, lab: LookingLab, dock: AttentionDock, tmp_path: Path) -> None:
    looked(qtbot, lab)
    dock.export(tmp_path / "missing" / "attention.png")
    qtbot.waitUntil(lambda: bool(lab.errors))
    assert "could not be written" in lab.errors[0].what


@pytest.mark.parametrize("make", [PromptDock, AttentionDock])
def test_a_dock_that_was_used_and_closed_leaves_nothing(
    qtbot: QtBot, lab: LookingLab, make: Callable[[LookingLab], InspectionDock]
) -> None:
    dock = make(lab)
    dock.resize(700, 500)
    dock.show()
    looked(qtbot, lab) if make is AttentionDock else lab.inspection.open("small")
    qtbot.waitUntil(lambda: bool(lab.inspection.tokens))
    for theme in ("dark", "light"):
        apply_theme(QApplication.instance(), theme)
        assert not dock.grab().isNull()
    dock.shutdown()
    gone = weakref.ref(dock)
    dock.deleteLater()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    del dock
    wait_until_freed(qtbot, gone)
    # What still arrives must meet nobody.
    lab.inspection.select(layer=1)
    lab.inspection.hover(2)
    theme_notifier.changed.emit()
