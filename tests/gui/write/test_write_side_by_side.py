"""Two models answer one prompt, one after the other; in a chat the prompt is a user's turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_lab import FakeLab
from fakes import FakeRun
from finetuning_run import tuned_run
from pytestqt.qtbot import QtBot
from windows import FAKE_HOST

from llmlab_gui.host.messages import Generation
from llmlab_gui.host.process import ModelHost, Request
from llmlab_gui.write.dock import NEXT_TAB, WriteDock


class Listening(ModelHost):
    """Notes what is asked."""

    def __init__(self) -> None:
        super().__init__(command=FAKE_HOST)
        self.asked: list[tuple[str, str, Generation]] = []
        self.asked_next: list[bool] = []

    def generate(self, model: str, prompt: str, how: Generation, top: int = 10) -> Request:
        self.asked.append((model, prompt, how))
        return super().generate(model, prompt, how, top)

    def ask_next(self, model: str, prompt: str, top: int = 20, *, chat: bool = False) -> Request:
        self.asked_next.append(chat)
        return super().ask_next(model, prompt, top, chat=chat)


@pytest.fixture
def host() -> Listening:
    return Listening()


@pytest.fixture
def lab(qtbot: QtBot, tmp_path: Path) -> FakeLab:
    return FakeLab(tmp_path)


@pytest.fixture
def dock(qtbot: QtBot, lab: FakeLab, host: Listening) -> Iterator[WriteDock]:
    dock = WriteDock(lab, host=host)
    qtbot.addWidget(dock)
    dock.resize(1000, 640)
    dock.form.tokens.setValue(6)
    dock.show()
    yield dock
    dock.shutdown()


def chosen(qtbot: QtBot, lab: FakeLab, dock: WriteDock, fake: Any) -> None:
    lab.add(fake)
    qtbot.waitUntil(lambda: dock.picker.checkpoint is not None and dock.picker.run_id == fake.run.full_name)


def idle(qtbot: QtBot, dock: WriteDock) -> None:
    qtbot.waitUntil(dock.generate_button.isEnabled)


def test_a_fine_tuned_model_and_its_base_answer_one_after_the_other(
    qtbot: QtBot, lab: FakeLab, dock: WriteDock, host: Listening
) -> None:
    run = tuned_run(lab.outputs)
    chosen(qtbot, lab, dock, run)
    assert not dock.second.isVisible()
    dock.beside.setChecked(True)
    qtbot.waitUntil(lambda: dock.second.box.reference == "small@final")
    assert dock.first_name.text() == "A  mine, step 100"
    dock.second.box.choose("small@150")
    assert dock.second._name() == "small, step 150"  # as A is named
    dock.second.box.choose("small@final")
    assert dock.second.text.y() == dock.text.y()  # texts begin level
    assert abs(dock.second.text.width() - dock.text.width()) < 10
    dock.generate()
    assert not dock.generate_button.isEnabled()
    idle(qtbot, dock)
    assert [(model, prompt) for model, prompt, _ in host.asked] == [
        (f"{run.run.path}@100", "The king"),
        ("small@final", "The king"),
    ]
    assert host.asked[0][2] == host.asked[1][2]
    assert (len(dock.text.tokens), len(dock.second.text.tokens)) == (6, 6)
    assert dock.second.said.text().startswith("6 tokens in")


def test_a_text_keeps_the_name_of_the_model_that_wrote_it(
    qtbot: QtBot, lab: FakeLab, dock: WriteDock, host: Listening
) -> None:
    chosen(qtbot, lab, dock, tuned_run(lab.outputs))
    dock.beside.setChecked(True)
    dock.generate()
    idle(qtbot, dock)
    other = FakeRun(lab.outputs, "other").start().advance(100)
    other.save_checkpoint()
    chosen(qtbot, lab, dock, other)
    assert dock.first_name.text() == "A  mine, step 100"
    dock.beside.setChecked(False)
    idle(qtbot, dock)
    dock.generate()
    assert dock.first_name.text() == "Written by other, step 100"
    idle(qtbot, dock)


def test_what_someone_chose_stays_and_without_a_choice_nothing_is_asked(
    qtbot: QtBot, lab: FakeLab, dock: WriteDock, host: Listening
) -> None:
    fake = FakeRun(lab.outputs, "plain").start().advance(100)
    fake.save_checkpoint()
    chosen(qtbot, lab, dock, fake)
    dock.beside.setChecked(True)
    dock.generate()
    qtbot.waitUntil(lambda: bool(lab.errors))
    assert "No second model is chosen" in str(lab.errors[-1])
    assert len(host.asked) == 1
    dock.second.box.choose("mine/else")
    chosen(qtbot, lab, dock, tuned_run(lab.outputs))
    idle(qtbot, dock)
    dock.generate()
    idle(qtbot, dock)
    assert host.asked[-1][0] == dock.second.box.reference == "mine/else"


def test_stopping_the_first_leaves_the_second_unasked(
    qtbot: QtBot, lab: FakeLab, dock: WriteDock, host: Listening
) -> None:
    chosen(qtbot, lab, dock, tuned_run(lab.outputs))
    dock.beside.setChecked(True)
    dock.prompt.setPlainText("endless")
    dock.generate()
    qtbot.waitUntil(lambda: len(dock.text.tokens) > 5)
    dock.stop()
    idle(qtbot, dock)
    assert len(host.asked) == 1
    assert not dock.second.text.tokens


def test_a_token_of_the_second_text_shows_its_alternatives_and_leads_on(
    qtbot: QtBot, lab: FakeLab, dock: WriteDock
) -> None:
    chosen(qtbot, lab, dock, tuned_run(lab.outputs))
    dock.beside.setChecked(True)
    qtbot.waitUntil(lambda: bool(dock.second.box.reference))
    dock.generate()
    idle(qtbot, dock)
    view = dock.second.text
    view.choose(2)
    view.chosen.emit(2)
    assert dock.at_token.list.pairs()[0] == (view.tokens[2].text, 0.6)
    before = view.text_before(2)
    dock.at_token.list.picked.emit(" other")
    assert dock.prompt.toPlainText() == f"{before} other"


def test_in_a_chat_the_prompt_is_a_turn_and_no_token_is_appended_to_it(
    qtbot: QtBot, lab: FakeLab, dock: WriteDock, host: Listening
) -> None:
    chosen(qtbot, lab, dock, tuned_run(lab.outputs))
    dock.tabs.setCurrentIndex(NEXT_TAB)
    qtbot.waitUntil(lambda: bool(dock.ahead.list.pairs()))
    dock.chat.setChecked(True)
    qtbot.waitUntil(lambda: host.asked_next[-1] and "The answer would start" in dock.ahead.words.text())
    dock.ahead.list.picked.emit(" the")
    assert dock.prompt.toPlainText() == "The king"
    dock.generate()
    idle(qtbot, dock)
    assert host.asked[-1][2].chat
    assert dock.text.text().startswith("The king\n")
    dock.text.choose(1)
    dock.text.chosen.emit(1)
    dock.at_token.list.picked.emit(" other")
    assert dock.prompt.toPlainText() == "The king"
