"""Samples: columns by step, live, whatever the model wrote."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from fake_lab import FakeLab
from fakes import FakeRun
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from pytestqt.qtbot import QtBot
from windows import shown

from llmlab.core.errors import LabError
from llmlab.core.kinds import PAPERS
from llmlab.core.task_settings import TaskSettings
from llmlab.jobs.launcher import request
from llmlab.store import requests
from llmlab.store.checkpoints import commit
from llmlab.store.events import Evaluated, Sampled
from llmlab.store.history import RunHistory
from llmlab_gui.train.samples import CHOSEN, COMPARE, NEWEST, SamplesDock
from llmlab_gui.train.samples_data import loss_at, spread
from llmlab_gui.train.samples_view import SHOWN_CHARACTERS


@pytest.fixture
def lab(qtbot: QtBot, tmp_path: Path) -> FakeLab:
    return FakeLab(tmp_path)


@pytest.fixture
def dock(qtbot: QtBot, lab: FakeLab) -> SamplesDock:
    return shown(SamplesDock(lab), qtbot, 980, 600)


def sampled(fake: FakeRun, step: int, **texts: str) -> None:
    samples = [{"prompt": prompt, "text": text} for prompt, text in texts.items()]
    fake.append(Sampled(step, fake.time_of(step), samples))


def wait_steps(qtbot: QtBot, dock: SamplesDock, steps: list[int]) -> None:
    qtbot.waitUntil(lambda: dock.view.samples.steps == steps)


def test_columns_are_steps_and_follow_the_run_live(qtbot: QtBot, lab: FakeLab, dock: SamplesDock) -> None:
    fake = lab.add(FakeRun(lab.outputs, steps=3000).start())
    assert dock.view.samples.columnCount() == 0
    lab.pump(fake.advance(500))
    wait_steps(qtbot, dock, [500])
    lab.pump(fake.advance(500))
    wait_steps(qtbot, dock, [500, 1000])
    header = dock.view.samples.headerData(1, Qt.Orientation.Horizontal)
    assert header.startswith("step 1,000 · newest\nvalidation loss ")
    assert dock.view.samples.rowCount() == 2  # the preset's two prompts


def test_what_is_not_read_yet_is_not_said_to_be_missing(lab: FakeLab, dock: SamplesDock) -> None:
    fake = FakeRun(lab.outputs, steps=3000).start().advance(1500, evaluate=False).stop()
    lab._taken[fake.run.full_name] = len(fake.written)  # its log comes later
    lab.add(fake)
    assert "Reading the samples" in dock._empty.text
    lab._arrive(fake.run.full_name, [event for event in fake.written if not isinstance(event, (Evaluated, Sampled))])
    assert "ended before its first sample" in dock._empty.text


@pytest.mark.parametrize("live", [False, True])
def test_of_a_task_no_sample_is_promised_or_asked_for(lab: FakeLab, dock: SamplesDock, live: bool) -> None:
    fake = FakeRun(lab.outputs).start().advance(5, evaluate=False)
    fake.run.write_info(replace(fake.run.info(), track=PAPERS, settings=TaskSettings()))
    lab.add(fake if live else fake.stop())
    assert dock._empty.text.startswith("A task writes no samples")
    assert not dock._empty._button.isVisible()
    assert not dock.ask_button.isEnabled()


@pytest.mark.parametrize("saved", [False, True])
def test_a_checkpoint_is_offered_to_be_prompted_only_where_there_is_one(
    lab: FakeLab, dock: SamplesDock, saved: bool
) -> None:
    fake = FakeRun(lab.outputs, steps=3000).start().advance(1500, evaluate=False).stop()
    if saved:
        commit(fake.run.checkpoints, 1500, lambda _: None, labels=("final",), val_loss=None, about={})
    lab.add(fake)
    assert dock._empty.text.endswith("before its first sample." + " Prompt a checkpoint in Write instead." * saved)


def test_a_run_that_can_write_none_of_its_prompts_says_so(lab: FakeLab, dock: SamplesDock) -> None:
    fake = lab.add(FakeRun(lab.outputs).start().advance(10, evaluate=False))
    assert "No samples yet" in dock._empty.text
    sampled(fake, 10)
    lab.pump(fake)
    dock._reload()
    assert "lacks characters of each prompt" in dock._empty.text


def test_the_first_and_the_newest_step_are_always_among_those_spread() -> None:
    assert spread([0, 5, 10, 15, 20, 25], 3) == [0, 10, 25]
    assert spread(list(range(1000)), 4) == [0, 333, 666, 999]
    assert spread([3, 4], 5) == [3, 4]
    assert spread([3, 4], 1) == [4]


def test_a_step_that_was_not_evaluated_has_its_own_training_loss(tmp_path: Path) -> None:
    fake, history = FakeRun(tmp_path).start().advance(30, evaluate=False), RunHistory()
    history.extend(fake.written)
    assert loss_at(history, 20) == (fake.step_event(20).loss, "training")


def test_the_slider_compares_any_step_with_the_newest(qtbot: QtBot, lab: FakeLab, dock: SamplesDock) -> None:
    lab.add(FakeRun(lab.outputs, steps=5000).start().advance(3000))
    qtbot.waitUntil(lambda: dock.view.samples.columnCount() > 1)
    dock.choice.setCurrentIndex(dock.choice.findData(COMPARE))
    assert dock.slider.isVisible()
    qtbot.keyClick(dock.slider, Qt.Key.Key_Home)
    assert dock.view.samples.steps == [500, 3000]
    qtbot.keyClick(dock.slider, Qt.Key.Key_Right)
    assert dock.view.samples.steps == [1000, 3000]


def test_chosen_steps_keep_the_newest(qtbot: QtBot, lab: FakeLab, dock: SamplesDock) -> None:
    fake = lab.add(FakeRun(lab.outputs, steps=5000).start().advance(2000))
    qtbot.waitUntil(lambda: 2000 in dock.view.samples.steps)
    dock.steps_button.menu().aboutToShow.emit()
    assert dock.steps_list.count() == 4
    dock.steps_list.item(0).setCheckState(Qt.CheckState.Checked)
    assert dock.choice.currentData() == CHOSEN
    assert dock.view.samples.steps == [500, 2000]
    lab.pump(fake.advance(500))
    wait_steps(qtbot, dock, [500, 2500])


def test_a_cut_back_history_drops_its_columns(qtbot: QtBot, lab: FakeLab, dock: SamplesDock) -> None:
    fake = lab.add(FakeRun(lab.outputs, steps=5000).start().advance(2000))
    dock.choice.setCurrentIndex(dock.choice.findData(NEWEST))
    qtbot.waitUntil(lambda: 2000 in dock.view.samples.steps)
    fake.resume_from(1000)
    lab.reload(fake)
    wait_steps(qtbot, dock, [500, 1000])


def test_markup_in_a_sample_is_text(qtbot: QtBot, lab: FakeLab, dock: SamplesDock) -> None:
    fake = lab.add(FakeRun(lab.outputs).start())
    sampled(fake, 1, **{"<i>p</i>": "<img src='file:///etc/passwd'><b>bold</b>"})
    lab.pump(fake)
    wait_steps(qtbot, dock, [1])
    index = dock.view.samples.index(0, 0)
    document = dock.view._delegate._document(index, 300)
    assert document.toPlainText() == "<i>p</i><img src='file:///etc/passwd'><b>bold</b>"


def test_a_sample_of_a_megabyte_is_cut_in_the_table_and_whole_in_a_copy(
    qtbot: QtBot, lab: FakeLab, dock: SamplesDock
) -> None:
    fake = lab.add(FakeRun(lab.outputs).start())
    sampled(fake, 1, prompt="wörd" * 250_000)
    lab.pump(fake)
    wait_steps(qtbot, dock, [1])
    index = dock.view.samples.index(0, 0)
    assert len(dock.view._delegate._document(index, 300).toPlainText()) < SHOWN_CHARACTERS + 200
    dock.grab()
    dock.view.selectAll()
    qtbot.keyClick(dock.view, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert QGuiApplication.clipboard().text() == "step 1\nprompt" + "wörd" * 250_000


def test_export_holds_every_sample(qtbot: QtBot, lab: FakeLab, dock: SamplesDock, tmp_path: Path) -> None:
    fake = lab.add(FakeRun(lab.outputs).start())
    sampled(fake, 1, a='line\n"quoted", ```fence```')
    sampled(fake, 2, a="two", b="three")
    lab.pump(fake)
    wait_steps(qtbot, dock, [1, 2])
    with qtbot.waitSignal(dock.lab.said):
        dock.export(tmp_path / "s.csv")
    rows = list(csv.reader(io.StringIO((tmp_path / "s.csv").read_text())))
    assert [(row[0], *row[3:]) for row in rows[1:]] == [
        ("1", "a", 'line\n"quoted", ```fence```'),
        ("2", "a", "two"),
        ("2", "b", "three"),
    ]
    with qtbot.waitSignal(dock.lab.said):
        dock.export(tmp_path / "s.md")
    text = (tmp_path / "s.md").read_text()
    assert '````text\naline\n"quoted", ```fence```\n````' in text
    with qtbot.waitSignal(lab.error_raised):
        dock.export(tmp_path / "nowhere" / "s.md")


def test_a_live_run_is_asked_to_sample_and_an_ended_one_is_not(qtbot: QtBot, lab: FakeLab, dock: SamplesDock) -> None:
    fake = lab.add(FakeRun(lab.outputs).start().advance(10))
    assert dock.ask_button.isEnabled()
    qtbot.mouseClick(dock.ask_button, Qt.MouseButton.LeftButton)
    (asked,) = requests.take(fake.run.requests)
    assert (asked.name, asked.options) == ("sample", {"prompts": ["\n", "The king"]})
    lab.pump(fake.stop())
    assert not dock.ask_button.isEnabled()
    with pytest.raises(LabError):
        request(fake.run, "sample")


def test_samples_that_come_while_the_dock_is_hidden_are_there_when_it_shows(
    qtbot: QtBot, lab: FakeLab, dock: SamplesDock
) -> None:
    fake = lab.add(FakeRun(lab.outputs, steps=5000).start().advance(500))
    wait_steps(qtbot, dock, [500])
    dock.hide()
    lab.pump(fake.advance(500))
    assert dock.view.samples.steps == [500]
    dock.show()
    assert dock.view.samples.steps == [500, 1000]
