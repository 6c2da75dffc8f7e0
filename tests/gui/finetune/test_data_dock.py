"""Data: examples token by token, what is chosen here and in the set-up, lengths, bad lines, errors and cancelling."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fake_previews
import pytest
from fake_lab import FakeLab
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent, QGuiApplication
from PySide6.QtWidgets import QApplication, QLabel
from pytestqt.qtbot import QtBot
from windows import FAKE_HOST, dock_in_sight

from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.data.example_preview import IN_LOSS, MASKED, TRUNCATED
from llmlab_gui.finetune.data import DataDock
from llmlab_gui.finetune.example_chips import state_colors
from llmlab_gui.finetune.preview_view import BAD_LINES, EXAMPLE, LENGTHS
from llmlab_gui.host.messages import ModelAbout
from llmlab_gui.host.process import ModelHost
from llmlab_gui.widgets.theme import DARK, LIGHT, apply_theme


@pytest.fixture
def lab(qtbot: QtBot, tmp_path: Path) -> FakeLab:
    return FakeLab(tmp_path)


@pytest.fixture
def dock(qtbot: QtBot, lab: FakeLab) -> Iterator[DataDock]:
    with dock_in_sight(qtbot, DataDock(lab, host=ModelHost(command=FAKE_HOST)), 700, 700) as dock:
        yield dock
    lab.inspection.shutdown()


def settings(source: str = "tasks", model: str = "mine@300", max_length: int = 256) -> FinetuneSettings:
    plain = FinetuneSettings()
    return replace(
        plain, model=replace(plain.model, base=model), data=replace(plain.data, source=source, max_length=max_length)
    )


def shown(qtbot: QtBot, dock: DataDock, source: str, place: int = 0) -> None:
    """Waits until an example of a source is in sight."""

    def there() -> bool:
        preview = dock.view.preview
        return (
            preview is not None
            and preview.source == source
            and preview.example is not None
            and preview.example.place == place
            and dock.view.isVisible()
        )

    qtbot.waitUntil(there)


def test_without_a_model_it_says_what_to_do(dock: DataDock) -> None:
    assert dock.nothing.isVisible()
    assert "No model reads these examples yet" in dock.nothing.text
    assert dock.examples.value() == "tasks"
    for label in dock.findChildren(QLabel):
        box = label.buddy()
        if box is not None:  # under it are more lines: the name is level with the first
            assert abs(label.mapTo(dock, label.rect().center()).y() - box.mapTo(dock, box.rect().center()).y()) <= 2


def test_a_run_that_trains_is_not_suggested_as_the_model(dock: DataDock, lab: FakeLab) -> None:
    session = lab.inspection
    for reference, kind, suggested in (("mine@live", "live", ""), ("mine@300", "scratch", "mine@300")):
        session.about = ModelAbout(reference, "mine", kind)
        session.about_changed.emit()
        assert dock.model.value() == suggested


def test_it_shows_what_the_set_up_describes_and_follows_it(qtbot: QtBot, dock: DataDock) -> None:
    dock.show_setup(settings())
    shown(qtbot, dock, "tasks")
    assert dock.view.template.text() == "Template: made up, for mine@300"
    assert dock.follow.isChecked()
    dock.show_setup(settings(max_length=9))
    qtbot.waitUntil(lambda: dock.view.preview is not None and dock.view.preview.max_length == 9)
    assert [token.text for token in dock.view.chips.tokens][-1] == " answer"
    assert dock.view.chips.states.count(TRUNCATED) == len(dock.view.chips.states) - 9


def test_each_token_is_coloured_by_what_becomes_of_it(qtbot: QtBot, dock: DataDock) -> None:
    dock.show_setup(settings())
    shown(qtbot, dock, "tasks")
    chips = dock.view.chips
    assert chips.states == [MASKED] * (len(chips.tokens) - 3) + [IN_LOSS] * 3
    for place, state in enumerate(chips.states):
        assert chips.colors_of(place) == state_colors(state, place)
    assert chips.words(len(chips.tokens) - 1).endswith("in the loss: the model is trained to predict it")
    point = chips.place_of(len(chips.tokens) - 1).center().toPoint()
    qtbot.mouseClick(chips.viewport(), Qt.MouseButton.LeftButton, pos=point)
    assert "in the loss" in dock.view.about_token.text()
    qtbot.keyClick(chips, Qt.Key.Key_Home)
    assert "masked" in dock.view.about_token.text()


def test_in_a_short_panel_the_example_is_a_tab_and_in_a_tall_one_above_the_lengths(
    qtbot: QtBot, dock: DataDock
) -> None:
    dock.show_setup(settings())
    shown(qtbot, dock, "tasks")
    view = dock.view
    for height, tabs in ((700, 2), (420, 3), (700, 2), (420, 3)):
        dock.resize(600, height)
        qtbot.waitUntil(lambda tabs=tabs: view.tabs.count() == tabs)
        assert view.chips.isVisible()
        assert view.tabs.tabText(view.tabs.indexOf(view.bad_lines)) == "Unusable lines (0)"


def test_what_is_trained_on_is_in_sight_however_small_the_panel_is(qtbot: QtBot, dock: DataDock) -> None:
    dock.resize(260, 480)
    dock.show_setup(settings())
    shown(qtbot, dock, "tasks")
    chips = dock.view.chips
    assert chips.viewport().rect().contains(chips.place_of(chips.states.index(IN_LOSS)).toRect())


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_states_differ_in_both_themes(theme: object) -> None:
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    apply_theme(app, "light" if theme is LIGHT else "dark")
    grounds = [state_colors(state, 0)[0].name() for state in (IN_LOSS, MASKED, TRUNCATED)]
    assert len(set(grounds)) == 3
    apply_theme(app, "light")


def test_next_previous_and_a_number_lead_through_the_examples(qtbot: QtBot, dock: DataDock) -> None:
    dock.show_setup(settings())
    shown(qtbot, dock, "tasks")
    view = dock.view
    assert not view.previous_button.isEnabled()
    qtbot.mouseClick(view.next_button, Qt.MouseButton.LeftButton)
    shown(qtbot, dock, "tasks", 1)
    assert view.about_example.text().startswith("line 2 · training")
    view.number.setValue(10)
    shown(qtbot, dock, "tasks", 9)
    assert "held out" in view.about_example.text()
    view.number.setValue(fake_previews.EXAMPLES)
    shown(qtbot, dock, "tasks", fake_previews.EXAMPLES - 1)
    assert not view.next_button.isEnabled()
    qtbot.mouseClick(view.previous_button, Qt.MouseButton.LeftButton)
    shown(qtbot, dock, "tasks", fake_previews.EXAMPLES - 2)


def test_what_is_chosen_here_stays_until_the_set_up_is_followed_again(qtbot: QtBot, dock: DataDock) -> None:
    dock.show_setup(settings())
    shown(qtbot, dock, "tasks")
    assert not dock.use_button.isEnabled()
    dock.choose(source="mine.jsonl")
    shown(qtbot, dock, "mine.jsonl")
    assert not dock.follow.isChecked()
    dock.show_setup(settings(model="other@5"))
    assert dock.examples.value() == "mine.jsonl"
    with qtbot.waitSignal(dock.use_wanted) as wanted:
        qtbot.mouseClick(dock.use_button, Qt.MouseButton.LeftButton)
    assert wanted.args == ["mine.jsonl", "mine@300"]
    dock.follow.setChecked(True)
    shown(qtbot, dock, "tasks")
    assert dock.model.value() == "other@5"


def test_a_file_that_is_dropped_is_read(qtbot: QtBot, dock: DataDock, tmp_path: Path) -> None:
    path = tmp_path / "dropped.jsonl"
    path.write_text('{"text": "a"}\n', encoding="utf-8")
    dock.show_setup(settings())
    shown(qtbot, dock, "tasks")
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    drop = QDropEvent(
        QPointF(QPoint(20, 20)),
        Qt.DropAction.CopyAction,
        data,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    dock.dropEvent(drop)
    shown(qtbot, dock, str(path))


def test_a_text_that_is_dropped_is_refused_in_a_sentence(dock: DataDock, lab: FakeLab, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("once", encoding="utf-8")
    dock.take(path)
    assert "holds no examples" in str(lab.errors[-1])


def test_lengths_are_a_histogram_with_the_place_of_the_cut(qtbot: QtBot, dock: DataDock) -> None:
    dock.show_setup(settings(max_length=12))
    shown(qtbot, dock, "tasks")
    lengths = dock.view.lengths
    assert lengths.cut_words == "1 is longer"
    assert [name.startswith("truncated at ") for name in lengths.legend.names] == [True]
    plot = lengths.getPlotItem()
    over = plot.titleLabel.sceneBoundingRect() & plot.vb.sceneBoundingRect()
    assert not plot.titleLabel.isVisible() or over.isEmpty()  # words never lie over the bars
    assert lengths.legend.sceneBoundingRect().bottom() <= plot.vb.sceneBoundingRect().top() + 1
    header, rows = lengths.table()
    assert header == ("tokens_from", "tokens_to", "examples")
    assert [row[2] for row in rows] == list(fake_previews.LENGTHS)
    feet = [lengths.place_of(place + 0.5, 0.1) for place in range(15)]
    tips = [lengths.tip_at(feet[place]) for place in range(8, 15)]
    assert tips == [f"{place} tokens: {fake_previews.LENGTHS[place]:,} examples" for place in range(8, 15)]
    image = lengths.grab().toImage()
    colors = [image.pixelColor(feet[place].toPoint()).name() for place in (9, 14, 12)]  # kept, beyond the cut, none
    assert len(set(colors)) == 3


def test_bad_lines_are_listed_and_counted_in_the_tab(qtbot: QtBot, dock: DataDock) -> None:
    dock.choose("bad.jsonl", "mine@300")
    shown(qtbot, dock, "bad.jsonl")
    model = dock.view.lines
    assert dock.view.tabs.tabText(dock.view.tabs.indexOf(dock.view.bad_lines)) == "Unusable lines (3)"
    assert [model.index(row, 0).data() for row in range(3)] == ["4", "9", "12"]
    assert model.index(1, 1).data() == "Line 9 is not JSON."


def test_why_nothing_can_be_trained_is_said_above_the_examples(qtbot: QtBot, dock: DataDock) -> None:
    dock.choose("none.jsonl", "mine@300")
    shown(qtbot, dock, "none.jsonl")
    assert dock.view.trouble.isVisible()
    assert "too long" in dock.view.trouble.text()
    dock.choose(source="tasks")
    shown(qtbot, dock, "tasks")
    assert not dock.view.trouble.isVisible()


def test_an_error_is_shown_in_the_panel_and_read_again_on_request(qtbot: QtBot, dock: DataDock, lab: FakeLab) -> None:
    dock.choose("error.jsonl", "mine@300")
    qtbot.waitUntil(lambda: "cannot read this" in dock.nothing.text)
    assert "Leave it out." in dock.nothing.text
    assert not lab.errors
    dock.choose(source="tasks")
    shown(qtbot, dock, "tasks")


def test_reading_can_be_cancelled_and_begun_again(qtbot: QtBot, dock: DataDock) -> None:
    dock.choose("slow.jsonl", "mine@300")
    qtbot.waitUntil(dock.strip.isVisible)
    qtbot.waitUntil(lambda: dock.strip.what.text() == "Reading layers")
    assert dock.nothing.text == ""  # which the strip would cover
    qtbot.mouseClick(dock.strip.cancel_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "was cancelled" in dock.nothing.text)
    assert not dock.strip.isVisible()
    dock.choose(source="tasks")
    shown(qtbot, dock, "tasks")


def test_a_dead_process_is_said_and_a_new_one_answers(qtbot: QtBot, dock: DataDock) -> None:
    dock.choose("crash.jsonl", "mine@300")
    qtbot.waitUntil(lambda: "has ended" in dock.nothing.text)
    dock.choose(source="tasks")
    shown(qtbot, dock, "tasks")


def test_an_older_question_is_no_longer_wanted(qtbot: QtBot, dock: DataDock) -> None:
    dock.choose("slow.jsonl", "mine@300")
    qtbot.waitUntil(dock.strip.isVisible)
    dock.choose(source="tasks")
    shown(qtbot, dock, "tasks")
    assert dock.previews.working is None


def test_nothing_is_asked_while_nobody_looks(qtbot: QtBot, dock: DataDock) -> None:
    dock.hide()
    dock.show_setup(settings())
    dock._settle.timeout.emit()
    assert not dock.previews._host.busy
    assert dock.view.preview is None
    dock.show()
    shown(qtbot, dock, "tasks")


def test_what_is_shown_can_be_exported_and_copied(qtbot: QtBot, dock: DataDock, tmp_path: Path) -> None:
    dock.choose("bad.jsonl", "mine@300")
    shown(qtbot, dock, "bad.jsonl")
    view = dock.view
    for what, kinds in ((EXAMPLE, ("png", "svg", "csv")), (LENGTHS, ("png", "svg", "csv")), (BAD_LINES, ("csv",))):
        for kind in kinds:
            with qtbot.waitSignal(dock.lab.said):
                view.export(what, tmp_path / f"{what}.{kind}")
    with (tmp_path / "example.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == view.chips.states
    assert (tmp_path / "bad lines.csv").read_text().startswith("line,why\n4,Line 4 is not JSON.")
    view._copy_table(LENGTHS)
    assert QGuiApplication.clipboard().text().startswith("tokens_from,tokens_to,examples\n")
    with qtbot.waitSignal(dock.lab.error_raised):
        view.export(LENGTHS, tmp_path / "missing" / "lengths.csv")
