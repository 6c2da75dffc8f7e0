"""The panels on a run that fine-tunes: what it is, answers before and after, what a program checked, and branches."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_lab import FakeLab
from fakes import FakeRun
from preset_settings import resolve_finetune_settings
from PySide6.QtCore import QEvent, QModelIndex, QPoint, QPointF, Qt
from PySide6.QtGui import QGuiApplication, QMouseEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from windows import dock_in_sight

from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.kinds import FINETUNING
from llmlab.store.events import Sampled, Scored, Started
from llmlab.store.history import RunHistory
from llmlab_gui.lab.lab import Lab
from llmlab_gui.train.branch_dialog import BranchDialog
from llmlab_gui.train.checkpoints import CheckpointsDock
from llmlab_gui.train.event_sentences import history_sentences, sentence
from llmlab_gui.train.loss import reference_lines
from llmlab_gui.train.runs import RunsDock
from llmlab_gui.train.runs_table import COLUMNS
from llmlab_gui.train.samples import COMPARE, SCORED, SPREAD, SamplesDock
from llmlab_gui.train.samples_data import CheckedAnswer, CheckedItem, score_note
from llmlab_gui.train.samples_view import TEXT_ROLE

QUESTION, OTHER = "Repeat: moon cat", "What is one plus one?"


def tuned(outputs: Path, name: str = "tuned", **changes: object) -> FakeRun:
    """A run of the folder's shape that fine-tunes."""
    fake = FakeRun(outputs, name, steps=100)
    overrides = {"model.base": "somewhere/base@500", "train.steps": 100, **changes}
    info = replace(fake.run.info(), track=FINETUNING, settings=resolve_finetune_settings(overrides=overrides))
    fake.run.write_info(info)
    return fake.start()


def answered(fake: FakeRun, step: int, first: str, other: str) -> None:
    """The model answers two questions, and a program checks them."""
    at = fake.time_of(step)
    fake.append(Sampled(step, at, [{"prompt": QUESTION, "text": f" {first}"}, {"prompt": OTHER, "text": other}]))
    items: list[dict[str, str | bool]] = [
        {"prompt": OTHER, "expected": "two", "answer": other, "right": other == "two"},
        {"prompt": QUESTION, "expected": "moon cat", "answer": first, "right": first == "moon cat"},
    ]
    fake.append(Scored(step, at, sum(bool(item["right"]) for item in items), 2, items, 0.1))


@pytest.fixture
def lab(qtbot: QtBot, tmp_path: Path) -> FakeLab:
    return FakeLab(tmp_path)


@pytest.fixture
def samples(qtbot: QtBot, lab: FakeLab) -> SamplesDock:
    dock = SamplesDock(lab)
    qtbot.addWidget(dock)
    dock.resize(980, 600)
    dock.show()
    return dock


def shown(dock: SamplesDock) -> list[list[str]]:
    """The texts of the table, row by row."""
    model = dock.view.samples
    return [
        [model.index(row, column).data(TEXT_ROLE) for column in range(model.columnCount())]
        for row in range(model.rowCount())
    ]


def checked(dock: SamplesDock) -> list[list[str]]:
    """The table of checked answers, row by row."""
    model = dock.answers_view.answers
    return [
        [model.index(row, column).data() for column in range(model.columnCount())] for row in range(model.rowCount())
    ]


def test_answers_before_and_after_stand_next_to_each_other(qtbot: QtBot, lab: FakeLab, samples: SamplesDock) -> None:
    fake = tuned(lab.outputs)
    answered(fake, 0, "the the", "two")
    lab.add(fake)
    qtbot.waitUntil(lambda: samples.view.samples.steps == [0])
    assert samples.score.text() == "1 of 2 held-out items were answered exactly right before training."
    fake.advance(50, evaluate=False)
    answered(fake, 50, "moon", "two")
    fake.advance(50, evaluate=False)
    answered(fake, 100, "moon cat", "three")
    lab.pump(fake)
    qtbot.waitUntil(lambda: samples.view.samples.steps == [0, 100])
    assert samples.choice.currentData() == COMPARE
    assert shown(samples) == [["\nthe the", "\nmoon cat"], ["\ntwo", "\nthree"]]  # an answer has a line of its own
    assert "1 of 2 at step 100" in samples.score.text()
    header = samples.view.samples.headerData(0, Qt.Orientation.Horizontal)
    assert header.startswith("step 0 · before training")


def test_what_a_program_checked_can_be_read_item_by_item(
    qtbot: QtBot, lab: FakeLab, samples: SamplesDock, tmp_path: Path
) -> None:
    fake = tuned(lab.outputs)
    answered(fake, 0, "the the", "two")
    answered(fake.advance(100, evaluate=False), 100, "moon cat", "two")
    lab.add(fake)
    qtbot.waitUntil(lambda: samples.choice.findData(SCORED) >= 0)
    samples.choice.setCurrentIndex(samples.choice.findData(SCORED))
    # What changed sides comes first.
    assert checked(samples) == [[QUESTION, "moon cat", "✗ the the", "✓ moon cat"], [OTHER, "two", "✓ two", "✓ two"]]
    answers = samples.answers_view.answers
    titles = [answers.headerData(column, Qt.Orientation.Horizontal) for column in range(4)]
    assert titles == ["Request", "Expected", "Before training", "Step 100"]
    assert answers.headerData(3, Qt.Orientation.Horizontal, Qt.ItemDataRole.ToolTipRole).endswith("2 of 2 right")
    samples.answers_view.selectRow(0)
    samples._copy_selection()
    lines = [QUESTION, "Expected: moon cat", "Before training: ✗ the the", "Step 100: ✓ moon cat"]
    assert QGuiApplication.clipboard().text().splitlines() == lines
    with qtbot.waitSignal(samples.lab.said):
        samples.export(tmp_path / "answers.csv")  # what is shown
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [titles, *checked(samples)]
    with qtbot.waitSignal(samples.lab.said):
        samples.export(tmp_path / "answers.md")
    assert "\n".join(["```text", *lines, "```"]) in (tmp_path / "answers.md").read_text("utf-8")


def test_five_checked_answers_are_in_sight_on_a_laptop_and_the_chosen_one_is_whole(
    qtbot: QtBot, lab: FakeLab, samples: SamplesDock
) -> None:
    fake = tuned(lab.outputs)
    items: list[dict[str, str | bool]] = [
        {"prompt": f"{number}: {OTHER}", "expected": "two", "answer": "a word " * 40, "right": False}
        for number in range(8)
    ]
    for step in (0, 100):
        fake.append(Scored(step, fake.time_of(step), 0, 8, items, 0.1))
    lab.add(fake)
    samples.resize(505, 275)  # what Fine-tune leaves it at 1366 x 720
    table = samples.answers_view
    qtbot.waitUntil(lambda: table.isVisible() and table.model().rowCount() == 8)
    QApplication.processEvents()
    table.setCurrentIndex(QModelIndex())  # the keyboard, which came to the table, chose the first
    line = table.verticalHeader().defaultSectionSize()
    assert table.viewport().height() / line >= 5
    assert table.columnViewportPosition(3) + table.columnWidth(3) <= table.viewport().width()
    assert {table.rowHeight(row) for row in range(8)} == {line}
    table.selectRow(1)
    assert table.rowHeight(1) > table.viewport().height()
    assert table.rowViewportPosition(1) == 0
    bar = table.verticalScrollBar()
    ends = []
    for place in range(bar.maximum() + 1):  # all of it can be read
        bar.setValue(place)
        ends.append(table.rowViewportPosition(1) + table.rowHeight(1))
    assert table.viewport().height() in ends
    table.selectRow(2)
    assert table.rowHeight(1) == line


def test_the_row_that_is_pressed_is_chosen_also_where_it_moves_away_under_the_mouse(
    qtbot: QtBot, samples: SamplesDock
) -> None:
    table, step = samples.answers_view, 100
    long, short = (CheckedAnswer("a word " * times, right=False) for times in (80, 1))
    items = [CheckedItem(str(number), "two", {step: short if number else long}) for number in range(12)]
    table.answers.show_items(items, lambda _: "")
    samples._views.setCurrentWidget(table)
    samples.show_body()
    QApplication.processEvents()
    line = table.verticalHeader().defaultSectionSize()
    table.selectRow(0)
    assert table.rowHeight(0) > 2 * line
    place = table.visualRect(table.answers.index(3, 0)).center()
    qtbot.mousePress(table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    at = QPointF(place + QPoint(1, 0))
    moved = QMouseEvent(
        QEvent.Type.MouseMove,
        at,
        table.viewport().mapToGlobal(at),
        Qt.MouseButton.NoButton,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    QApplication.sendEvent(table.viewport(), moved)
    qtbot.mouseRelease(table.viewport(), Qt.MouseButton.LeftButton, pos=at.toPoint())
    assert table.currentIndex().row() == 3
    assert {table.rowHeight(row) for row in range(12)} == {line}  # a short one needs no more


def test_a_run_that_wrote_no_samples_shows_its_checked_answers(
    qtbot: QtBot, lab: FakeLab, samples: SamplesDock
) -> None:
    fake = tuned(lab.outputs)
    item = {"prompt": OTHER, "expected": "two", "answer": "two", "right": True}
    fake.append(Scored(0, fake.time_of(0), 1, 1, [item], 0.1))
    lab.add(fake)
    qtbot.waitUntil(lambda: samples.answers_view.answers.steps == [0])
    assert samples.choice.currentData() == SCORED
    assert checked(samples) == [[OTHER, "two", "✓ two"]]
    assert samples.choice._cut() == samples.choice.currentText()
    fake.append(Sampled(10, fake.time_of(10), [{"prompt": OTHER, "text": " three"}]))  # as asked for by Sample now
    lab.pump(fake)
    qtbot.waitUntil(lambda: samples.choice.currentData() == COMPARE)
    assert shown(samples) == [["\nthree"]]


def test_a_run_from_scratch_is_shown_as_ever(qtbot: QtBot, lab: FakeLab, samples: SamplesDock) -> None:
    lab.add(tuned(lab.outputs))
    assert samples.choice.currentData() == COMPARE
    lab.add(FakeRun(lab.outputs, "scratch", steps=1000).start().advance(600))
    qtbot.waitUntil(lambda: samples.view.samples.steps == [500])
    assert samples.choice.currentData() == SPREAD
    assert samples.choice.findData(SCORED) < 0
    assert samples.score.isHidden()


def test_scores_are_cut_with_the_steps_that_a_worker_goes_back_over(tmp_path: Path) -> None:
    history = RunHistory()
    began = tuned(tmp_path).written[0]
    history.extend([Scored(0, 1.0, 1, 4, [], 0.1), Scored(50, 2.0, 3, 4, [], 0.1)])
    assert score_note(history).endswith("3 of 4 at step 50.")
    history.extend([replace(began, step=20)])
    assert score_note(history) == "1 of 4 held-out items were answered exactly right before training."
    assert score_note(RunHistory()) == ""


def test_the_loss_needs_no_line_that_is_not_known(tmp_path: Path) -> None:
    history = RunHistory()
    fake = tuned(tmp_path)
    started = fake.written[0]
    assert isinstance(started, Started)
    history.extend([replace(started, unigram_loss=None, uniform_loss=None, vocab_size=None)])
    assert reference_lines(history) == []


def test_the_log_tells_scores_and_the_template(tmp_path: Path) -> None:
    fake = tuned(tmp_path)
    answered(fake, 0, "the the", "two")
    started = fake.written[0]
    assert isinstance(started, Started)
    fake.written[0] = replace(started, tokenizer="ChatML, the model's own")
    told = [said.text for event in fake.written if (said := sentence(event)) is not None]
    assert "; vocabulary of 65; template ChatML, the model's own; on cpu" in told[0]
    assert told[-1] == "Answered 1 of 2 held-out items exactly right."
    history = RunHistory()
    history.extend(fake.written)
    assert [said.text for said in history_sentences(history, 10)] == told


def test_the_table_says_what_kind_of_run_it_is_and_on_which_base(qtbot: QtBot, outputs: Path) -> None:
    tuned(outputs, "adapter", **{"lora.rank": 4})
    tuned(outputs, "whole", **{"model.method": "full"})
    FakeRun(outputs, "scratch").start()
    lab = Lab(outputs)
    dock = RunsDock(lab)
    qtbot.addWidget(dock)
    qtbot.waitUntil(lambda: len(dock.model.rows) == 3)
    cells = {
        row.run.id: [column.text(row) for column in COLUMNS if column.title in ("Kind", "Learns from", "Base")]
        for row in dock.model.rows
    }
    assert cells == {
        "adapter": ["lora, rank 4", "tasks", "base@500"],
        "whole": ["full", "tasks", "base@500"],
        "scratch": ["pretraining", "shakespeare", "–"],
    }
    with qtbot.waitSignal(dock.lab.said):
        dock.export(outputs / "runs.csv")
    header, *lines = (outputs / "runs.csv").read_text().splitlines()
    assert all(line.count(",") >= header.count(",") for line in lines)
    lab.shutdown()


def test_kinds_in_words() -> None:
    settings = FinetuneSettings()
    assert settings.words.does == "lora, rank 8"
    assert replace(settings, model=replace(settings.model, base="a/b")).base == "a/b"


@pytest.fixture
def checkpoints(qtbot: QtBot, lab: FakeLab) -> Iterator[CheckpointsDock]:
    with dock_in_sight(qtbot, CheckpointsDock(lab), 700, 500) as dock:
        yield dock


def test_a_checkpoint_can_be_fine_tuned(qtbot: QtBot, lab: FakeLab, checkpoints: CheckpointsDock) -> None:
    lab.add(FakeRun(lab.outputs, "gpt").start().advance(100, evaluate=False).save_checkpoint())
    qtbot.waitUntil(checkpoints.actions_by_name["fine_tune"].isEnabled)
    with qtbot.waitSignal(lab.finetune_requested) as asked:
        checkpoints.actions_by_name["fine_tune"].trigger()
    assert asked.args == [{"model.base": "gpt@100"}]


def test_a_branch_of_a_fine_tuning_run_takes_its_own_settings(qtbot: QtBot) -> None:
    dialog = BranchDialog(resolve_finetune_settings(), "tuned", 100)
    qtbot.addWidget(dialog)
    dialog.others.setPlainText("lora.dropout=0.1")
    assert dialog.start.isEnabled()
    assert dialog.overrides() == {"lora.dropout": "0.1"}
    dialog.others.setPlainText("data.corpus=tiny")
    assert not dialog.start.isEnabled()
