"""Write: prompt, tokens with their probabilities, what else could have come, and the learner writing on with it."""

from __future__ import annotations

import math
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_lab import FakeLab
from fakes import FakeRun
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QColor, QGuiApplication, QTextCursor, QTextDocument
from PySide6.QtGui import Qt as rich
from pytestqt.qtbot import QtBot
from waits import WAIT
from windows import FAKE_HOST, dock_in_sight, shown

from llmlab.core.errors import LabError
from llmlab.core.paths import python_command
from llmlab.models.replies import Expected, WrittenToken
from llmlab.store.checkpoints import Checkpoint, list_checkpoints
from llmlab_gui.host.messages import Generation
from llmlab_gui.host.process import LOADING, ModelHost, Request
from llmlab_gui.host.selection import Working
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.widgets import theme
from llmlab_gui.widgets.alternatives import percent, plain_tip, visible
from llmlab_gui.widgets.theme import DARK, LIGHT, Theme
from llmlab_gui.write.dock import NEXT_TAB, TOKEN_TAB, WriteDock
from llmlab_gui.write.token_view import TokenView, tint
from llmlab_gui.write.writer import Writer


@pytest.fixture
def lab(qtbot: QtBot, tmp_path: Path) -> FakeLab:
    return FakeLab(tmp_path)


@pytest.fixture
def dock(qtbot: QtBot, lab: FakeLab) -> Iterator[WriteDock]:
    with dock_in_sight(qtbot, WriteDock(lab, host=ModelHost(command=FAKE_HOST)), 900, 640) as dock:
        yield dock


def trained(qtbot: QtBot, lab: FakeLab, dock: WriteDock, name: str = "fake") -> FakeRun:
    """A live run with checkpoints at 100 and 200, chosen in the dock."""
    fake = FakeRun(lab.outputs, name, steps=1000).start()
    fake.advance(100, evaluate=False).save_checkpoint(("best",))
    fake.advance(100, evaluate=False).save_checkpoint()
    lab.add(fake)
    qtbot.waitUntil(lambda: dock.picker.checkpoint is not None and dock.picker.run_id == f"pretraining/{name}")
    return fake


def written(qtbot: QtBot, dock: WriteDock, count: int) -> None:
    qtbot.waitUntil(lambda: len(dock.text.tokens) == count and dock.generate_button.isEnabled())


def activate(qtbot: QtBot, dock: WriteDock) -> None:
    with qtbot.waitActive(dock):
        dock.activateWindow()


def test_ctrl_enter_writes_and_one_seed_gives_one_text(qtbot: QtBot, lab: FakeLab, dock: WriteDock) -> None:
    trained(qtbot, lab, dock)
    activate(qtbot, dock)
    dock.form.tokens.setValue(9)
    dock.prompt.setFocus()
    qtbot.keyClick(dock.prompt, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    written(qtbot, dock, 9)
    first = dock.text.text()
    assert first.startswith("The king")
    assert dock.said.text().startswith("9 tokens in")
    qtbot.mouseClick(dock.generate_button, Qt.MouseButton.LeftButton)
    written(qtbot, dock, 9)
    assert dock.text.text() == first
    dock.form.seed.setValue(7)
    qtbot.mouseClick(dock.generate_button, Qt.MouseButton.LeftButton)
    written(qtbot, dock, 9)
    assert dock.text.text() != first


def test_the_distribution_before_and_after_each_setting_of_sampling_is_shown(
    qtbot: QtBot, lab: FakeLab, dock: WriteDock
) -> None:
    trained(qtbot, lab, dock)
    dock.form.tokens.setValue(3)
    dock.form.top_p.setValue(0.9)
    dock.generate()
    written(qtbot, dock, 3)
    dock.text.choose(1)
    page, word = dock.at_token, dock.text.tokens[1].text
    offers = [page.steps.itemText(place) for place in range(page.steps.count())]
    assert offers == ["The model's own", "After top-p 0.9"]
    assert page.list.pairs() == [(word, 0.6), (" other", 0.3), ("\n", 0.1)]
    page.steps.setCurrentIndex(1)
    assert page.list.pairs() == [(word, 0.75), (" other", 0.25), ("\n", 0.0)]
    tips = [page.list.model().index(row, 0).data(Qt.ItemDataRole.ToolTipRole) for row in range(3)]
    assert all(f"{before} % before" in tip for before, tip in zip((60, 30, 10), tips, strict=True))
    assert "2 tokens are left" in page.words.text()
    dock.text.choose(2)  # the step stays chosen along the text
    assert page.list.pairs()[1] == (" other", 0.25)
    dock.form.top_p.setValue(1.0)
    dock.generate()
    written(qtbot, dock, 3)
    dock.text.choose(0)
    assert page.steps.isHidden()
    assert page.list.pairs()[1] == (" other", 0.3)


def test_two_windows_on_one_folder_leave_each_its_own_prompt(
    qtbot: QtBot, lab: FakeLab, dock: WriteDock, tmp_path: Path
) -> None:
    file = tmp_path / "window.ini"
    first, second, elsewhere = (WindowSettings(file) for _ in range(3))
    assert first.open_on(lab.outputs)
    assert not second.open_on(lab.outputs)
    assert elsewhere.open_on(tmp_path / "others")
    for settings, prompt in ((first, "Of the first"), (second, "Of the second")):  # which closes last
        dock.remember(settings)
        dock.prompt.setPlainText(prompt)
        dock.keep()
    for settings in (first, second, elsewhere):
        settings.leave()
    first, second = WindowSettings(file), WindowSettings(file)
    for settings, prompt in ((first, "Of the first"), (second, "Of the second")):
        assert settings.open_on(lab.outputs) == (settings is first)
        dock.remember(settings)
        assert dock.prompt.toPlainText() == prompt
    first.leave()
    third = WindowSettings(file)
    assert third.open_on(lab.outputs)  # the second is still open, and the first's drafts are free
    third.leave()
    second.leave()


@pytest.mark.parametrize(("days", "is_free"), [(1, False), (20, True)])
def test_drafts_that_a_window_of_another_machine_left_locked_are_free_after_two_weeks(
    tmp_path: Path, days: int, is_free: bool
) -> None:
    settings = WindowSettings(tmp_path / "window.ini")
    assert settings.open_on(tmp_path)
    lock = next(tmp_path.glob("*.lock"))
    settings.leave()
    lock.write_text("123\nllmlab-gui\nelsewhere\n")
    begun = time.time() - days * 86_400
    os.utime(lock, (begun, begun))
    assert settings.open_on(tmp_path) == is_free
    settings.leave()


def test_the_prompt_is_there_after_a_restart(qtbot: QtBot, lab: FakeLab, dock: WriteDock, tmp_path: Path) -> None:
    settings = WindowSettings(tmp_path / "window.ini")
    dock.remember(settings)
    how = Generation(0.5, 3, 0.85, 0.02, 1.3, tokens=7, seed=11, chat=True)
    for left, spaces in ((how, True), (Generation(), False)):  # and how it is continued
        dock.form.show_how(left)
        dock.chat.setChecked(left.chat)
        dock.spaces.setChecked(spaces)
        dock.shutdown()
        dock.form.show_how(Generation(0.1, tokens=9))
        dock.chat.setChecked(not left.chat)
        dock.spaces.setChecked(not spaces)
        dock.remember(settings)
        assert (dock._sampling(), dock.spaces.isChecked()) == (left, spaces)
    first = dock.prompt.toPlainText()
    for left in (first, "Once\nupon a time", ""):
        dock.prompt.setPlainText(left)
        assert dock._keeping.isActive()
        dock._keeping.timeout.emit()  # the window was killed some time after, and never closed
        dock.prompt.setPlainText("another")
        dock.remember(settings)
        assert dock.prompt.toPlainText() == left
        qtbot.keyClicks(dock.prompt, " of France")
        assert dock.prompt.toPlainText() == f"{left} of France"


def test_the_model_that_was_chosen_is_there_after_a_restart(
    qtbot: QtBot, lab: FakeLab, dock: WriteDock, tmp_path: Path
) -> None:
    settings = WindowSettings(tmp_path / "window.ini")
    dock.remember(settings)
    runs = [trained(qtbot, lab, dock, name) for name in ("second", "first")]
    dock.keep()  # nobody has chosen
    dock.remember(settings)
    trained(qtbot, lab, dock, "third")
    chosen = ("pretraining/first", "step-00000100")
    dock._keeping.stop()
    dock.show_model(*chosen)
    qtbot.waitUntil(lambda: dock.picker.checkpoint is not None and dock._keeping.isActive())
    dock._keeping.timeout.emit()  # the window was killed some time after
    later = FakeLab(lab.outputs)
    with dock_in_sight(qtbot, WriteDock(later, host=ModelHost(command=FAKE_HOST)), 900, 640) as again:
        again.remember(settings)  # before it knows of any run
        again.keep()
        later._fakes |= {run.run.full_name: run for run in runs}
        later.set_current("pretraining/second")  # that of an earlier start, before the list is told
        later.runs_changed.emit()
        assert again.picker.choice == chosen
        later.add(FakeRun(lab.outputs, "fourth").start(), in_turn=True)
        assert again.picker.choice == chosen
        qtbot.waitUntil(lambda: again.picker.answers)
        assert again.picker.reference() == f"{runs[1].run.path}@100"


def test_esc_stops_and_keeps_what_is_written(qtbot: QtBot, lab: FakeLab, dock: WriteDock) -> None:
    trained(qtbot, lab, dock)
    activate(qtbot, dock)
    dock.prompt.setPlainText("endless")
    dock.generate()
    qtbot.waitUntil(lambda: len(dock.text.tokens) > 5)
    assert dock.cancel_work()  # Escape, of which the window decides
    qtbot.waitUntil(lambda: "Stopped after" in dock.said.text())
    assert len(dock.text.tokens) > 5
    assert dock.generate_button.isEnabled()
    assert not dock.stop_button.isEnabled()
    assert not dock.cancel_work()


def test_the_keyboard_stays_at_what_ends_and_begins_a_text(qtbot: QtBot, lab: FakeLab, dock: WriteDock) -> None:
    trained(qtbot, lab, dock)
    activate(qtbot, dock)
    dock.prompt.setPlainText("endless")
    dock.generate_button.setFocus()
    qtbot.keyClick(dock.generate_button, Qt.Key.Key_Space)
    assert dock.stop_button.hasFocus()
    qtbot.waitUntil(lambda: "of 120 tokens" in dock.said.text())
    qtbot.keyClick(dock.stop_button, Qt.Key.Key_Space)
    qtbot.waitUntil(dock.generate_button.hasFocus)


def test_the_next_token_follows_the_typing_with_its_entropy(qtbot: QtBot, lab: FakeLab, dock: WriteDock) -> None:
    trained(qtbot, lab, dock)
    dock.prompt.clear()
    qtbot.keyClicks(dock.prompt, "abc")
    qtbot.waitUntil(lambda: (" 3", 0.25) in dock.ahead.list.pairs())
    assert "Entropy 1.04 nats = 1.50 bits" in dock.ahead.words.text()
    assert dock.tabs.currentIndex() == NEXT_TAB


def test_what_another_model_or_prompt_gave_is_dimmed_and_named(qtbot: QtBot, lab: FakeLab, dock: WriteDock) -> None:
    fake = trained(qtbot, lab, dock, "alpha")
    dock.form.tokens.setValue(5)
    dock.generate()
    written(qtbot, dock, 5)
    dock.text.choose(2)
    dock.prompt.setPlainText("The queen")
    dock.prompt.setPlainText("The king")
    qtbot.waitUntil(lambda: dock.ahead.of is not None)
    veils = (dock._text_veil, dock.ahead.veil, dock._token_veil)
    assert [veil.words for veil in veils] == ["", "", ""]
    assert dock.said.isEnabled()

    # Another prompt, and back.
    dock.prompt.setPlainText("The queen")
    assert [veil.words for veil in veils] == ["of another prompt"] * 3
    assert all(not veil.isHidden() for veil in veils)
    dock.prompt.setPlainText("The king")
    assert [veil.words for veil in veils] == ["", "", ""]

    # A newer checkpoint, nobody having chosen another: the text stays, and says who wrote it.
    assert dock.first_name.isHidden()
    fake.advance(100).save_checkpoint()
    dock.picker.reload()
    qtbot.waitUntil(lambda: dock.picker.reference().endswith("@300"))
    assert (veils[0].words, veils[2].words) == ("", "")
    assert (dock.first_name.isVisible(), dock.first_name.text()) == (True, "Written by alpha, step 200")

    # Another checkpoint of the same run, and another run: at once, and also where its files cannot be read.
    dock.picker.which.setCurrentIndex(dock.picker.which.findData("step-00000100"))
    dock.picker._choose_checkpoint()
    assert veils[0].words == veils[2].words == "of another model"
    broken = FakeRun(lab.outputs, "beta", steps=1000).start()
    lab.add(broken)
    dock.picker.select(broken.run.full_name, "latest")
    assert veils[0].words == veils[2].words == "of another model"
    assert veils[1].words in ("", "of alpha, step 200")
    assert not dock.ahead.list.pairs() or veils[1].words
    assert not dock.said.isEnabled()

    # Its own text is at full strength.
    dock.picker.select("pretraining/alpha", "latest")
    qtbot.waitUntil(lambda: dock.picker.answers and veils[0].words == "")


class Slow(ModelHost):
    """Its answers come when a test sends them."""

    asked: Request | None = None

    def ask_next(self, model: str, prompt: str, top: int = 20, *, chat: bool = False) -> Request:
        self.asked = Request(lambda: None)
        return self.asked

    def generate(self, model: str, prompt: str, how: Generation, top: int = 10) -> Request:
        return self.ask_next(model, prompt)


def test_the_next_token_of_an_earlier_model_is_not_shown(qtbot: QtBot, lab: FakeLab) -> None:
    host = Slow(command=FAKE_HOST)
    with dock_in_sight(qtbot, WriteDock(lab, host=host), 900, 640) as dock:
        trained(qtbot, lab, dock)
        qtbot.waitUntil(lambda: host.asked is not None)
        earlier = host.asked
        assert earlier is not None
        with qtbot.waitSignal(dock.picker.changed):
            lab.write_requested.emit("pretraining/fake", "step-00000100")
        earlier.end(earlier.answered, Expected((("a", 1.0),), 0.0))
        assert (dock.ahead.words.text(), dock.ahead.list.pairs()) == ("", [])


def test_a_prompt_beyond_the_models_context_says_how_much_of_it_is_not_read(
    qtbot: QtBot, lab: FakeLab, dock: WriteDock
) -> None:
    trained(qtbot, lab, dock)
    qtbot.waitUntil(lambda: bool(dock.ahead.list.pairs()))
    assert dock.too_long.isHidden()
    dock.prompt.setPlainText("a" * 3500)
    qtbot.waitUntil(dock.too_long.isVisible)
    assert dock.too_long.text() == "The prompt is longer than the model's context: its first 2,500 tokens are not read."
    dock.generate()
    assert dock.too_long.isVisible()
    dock.prompt.setPlainText("a")
    qtbot.waitUntil(dock.too_long.isHidden)


def test_bigrams_of_its_text_are_a_second_column_where_the_model_has_one(
    qtbot: QtBot, lab: FakeLab, dock: WriteDock
) -> None:
    trained(qtbot, lab, dock)
    qtbot.waitUntil(lambda: len(dock.ahead.list.pairs()) == 3)
    assert dock.ahead.heading.isHidden()
    dock.prompt.setPlainText("bigrams")
    qtbot.waitUntil(lambda: not dock.ahead.heading.isHidden())
    assert dock.ahead.heading.text() == "Bigrams after “e” in its text: 62 % overlap"
    assert "“e” 4,213 times in the training text, most often “·the” (75 %), “r” (12 %)." in dock.ahead.heading.toolTip()
    rows = dock.ahead.list.model()
    said = [rows.index(row, 0).data() for row in range(rows.rowCount())]
    assert said == ["·the  50 %  75 %", "⏎  25 %  0 %", "·7  25 %  12 %"]
    dock.prompt.setPlainText("mixture")
    qtbot.waitUntil(lambda: dock.ahead.heading.text() == "No bigrams: its text is a mixture of sources.")
    assert (dock.ahead.heading.isHidden(), dock.ahead.heading.toolTip()) == (False, "")
    dock.prompt.setPlainText("others")
    qtbot.waitUntil(dock.ahead.heading.isHidden)
    assert rows.index(0, 0).data() == "·the  50 %"


def test_that_there_is_no_checkpoint_is_said_once_that_is_known(
    qtbot: QtBot, lab: FakeLab, dock: WriteDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = threading.Event()

    def late(folder: Path) -> list[Checkpoint]:
        assert known.wait(WAIT / 1000)
        return list_checkpoints(folder)

    monkeypatch.setattr("llmlab_gui.write.model_picker.list_checkpoints", late)
    lab.add(FakeRun(lab.outputs, steps=1000).start().advance(10).stop())
    for _ in range(2):  # and when it is chosen again
        qtbot.waitUntil(lambda: dock.note.text() == "Reading which checkpoints there are.")
        known.set()
        qtbot.waitUntil(lambda: "no checkpoint yet" in dock.note.text())
        known.clear()
        dock.picker.select("pretraining/fake", "latest")
        lab.runs_changed.emit()
    known.set()


def test_the_tip_of_a_token_shows_it_as_it_stands() -> None:
    for token in ("<b>", "&lt;", "the"):
        tip, read = plain_tip(f"{token}: 50 %"), QTextDocument()
        (read.setHtml if rich.mightBeRichText(tip) else read.setPlainText)(tip)
        assert read.toPlainText() == f"{token}: 50 %"


def test_a_click_on_an_alternative_appends_it_and_undo_takes_it_back(
    qtbot: QtBot, lab: FakeLab, dock: WriteDock
) -> None:
    trained(qtbot, lab, dock)
    qtbot.waitUntil(lambda: len(dock.ahead.list.pairs()) == 3)
    view = dock.ahead.list
    place = view.visualRect(view.model().index(0, 0)).center()
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert dock.prompt.toPlainText() == "The king the"
    qtbot.waitUntil(lambda: (" 12", 0.25) in dock.ahead.list.pairs())
    view.setCurrentIndex(view.model().index(1, 0))
    qtbot.keyClick(view, Qt.Key.Key_Return)
    assert dock.prompt.toPlainText() == "The king the\n"
    dock.prompt.undo()
    assert dock.prompt.toPlainText() == "The king the"
    with qtbot.waitSignal(lab.said) as said:
        view.picked.emit(r"\xe4\xbd")
    assert "part of a character" in said.args[0]
    assert dock.prompt.toPlainText() == "The king the"


def test_arrow_keys_show_what_else_could_have_come_and_a_click_branches_the_text(
    qtbot: QtBot, lab: FakeLab, dock: WriteDock
) -> None:
    trained(qtbot, lab, dock)
    dock.form.tokens.setValue(4)
    dock.generate()
    written(qtbot, dock, 4)
    dock.text.setFocus()
    qtbot.keyClick(dock.text, Qt.Key.Key_Right)
    qtbot.keyClick(dock.text, Qt.Key.Key_Right)
    assert dock.text.current == 1
    assert dock.tabs.currentIndex() == TOKEN_TAB
    assert dock.at_token.list.pairs()[1] == (" other", 0.3)
    before = "The king" + dock.text.tokens[0].text
    dock.at_token.list.picked.emit(" other")
    assert dock.prompt.toPlainText() == before + " other"


def test_pointing_and_clicking_find_the_token_under_the_mouse(qtbot: QtBot) -> None:
    view = shown(TokenView(), qtbot, 400, 200)
    view.begin("Prompt")
    view.append_tokens([WrittenToken(" one", 0.5), WrittenToken("\n", 0.2), WrittenToken("🎲x", 0.01)])
    cursor = QTextCursor(view.document())
    cursor.setPosition(len("Prompt") + 2)
    place = view.cursorRect(cursor).center() + QPoint(2, 0)
    assert view.token_at(place) == 0
    with qtbot.waitSignal(view.pointed) as pointed:
        qtbot.mouseMove(view.viewport(), place)
    assert pointed.args == [0]
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert view.current == 0
    cursor.setPosition(len("Prompt one⏎\n") + 2)  # after the die, which counts twice
    assert view.token_at(view.cursorRect(cursor).center() + QPoint(2, 0)) == 2
    assert view.token_at(QPoint(380, 190)) == -1
    cursor.setPosition(1)
    assert view.token_at(view.cursorRect(cursor).center()) == -1  # the prompt is nobody's token


@pytest.mark.parametrize("times", [200, 2000])  # Qt lays out as much of the longer one at once as it has time for
def test_what_is_written_after_a_long_prompt_is_in_sight(qtbot: QtBot, times: int) -> None:
    view = TokenView()
    qtbot.addWidget(view)
    view.resize(300, 100)
    with qtbot.waitExposed(view):
        view.show()
    bar = view.verticalScrollBar()
    view.begin("The king said to the cat. " * times)
    view.append_tokens([WrittenToken(" And", 0.5)])
    qtbot.waitUntil(lambda: bar.maximum() > 2 * times and bar.value() == bar.maximum())
    view.resize(200, 60)  # as what is written above it takes more room
    view.append_tokens([WrittenToken(" what\n", 0.5)] * 9)
    qtbot.waitUntil(lambda: bar.value() == bar.maximum())
    assert view.viewport().rect().contains(view.cursorRect(_at_end(view)).center())
    bar.setValue(100)  # who reads what stands above stays there
    view.append_tokens([WrittenToken(" or\n", 0.5)] * 9)
    view.set_show_spaces(True)
    assert bar.value() == 100
    view.append_tokens([WrittenToken(" else\n", 0.5)] * 9)
    assert bar.value() == 100


def _at_end(view: TokenView) -> QTextCursor:
    cursor = QTextCursor(view.document())
    cursor.movePosition(QTextCursor.MoveOperation.End)
    return cursor


def test_copying_gives_the_text_without_signs(qtbot: QtBot) -> None:
    view = TokenView()
    qtbot.addWidget(view)
    view.begin("a\nb")
    view.append_tokens([WrittenToken(" c·d", 0.5), WrittenToken("\n", 0.2), WrittenToken("\t🎲<b>\x00", 0.01)])
    view.set_show_spaces(True)
    assert view.toPlainText() == "a\nb·c·d⏎\n⇥🎲<b>␀"
    view.selectAll()
    view.copy()
    assert QGuiApplication.clipboard().text() == "a\nb c·d\n\t🎲<b>\x00".replace("\x00", "\x00")
    assert view.text() == "a\nb c·d\n\t🎲<b>\x00"


def test_a_program_that_copied_a_text_ends_well() -> None:
    copies = """
from PySide6.QtWidgets import QApplication
from llmlab.models.replies import WrittenToken
from llmlab_gui.write.token_view import TokenView
app = QApplication([])
view = TokenView()
view.begin("a")
view.append_tokens([WrittenToken(" b", 0.5)])
view.set_show_spaces(True)
view.selectAll()
view.copy()
print(app.clipboard().text(), app.clipboard().mimeData().formats())
"""
    done = subprocess.run(python_command(copies), capture_output=True, text=True, timeout=WAIT / 1000, check=False)
    assert (done.returncode, done.stdout) == (0, "a b ['text/plain']\n")


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_a_less_likely_token_has_a_stronger_tint(monkeypatch: pytest.MonkeyPatch, colors: Theme) -> None:
    monkeypatch.setattr(theme, "_current", colors)
    ground = QColor(colors.surface).lightnessF()
    strength = [abs(tint(probability).lightnessF() - ground) for probability in (1.0, 0.3, 0.1, 0.01, 0.001)]
    assert strength[0] == 0
    assert strength == sorted(set(strength))
    assert tint(0.001) == tint(1e-8)


def test_white_space_is_visible_and_percentages_have_sensible_digits() -> None:
    assert visible(" the\n\t") == "·the⏎⇥"
    assert visible("") == "(nothing)"
    assert visible("\u00a0") == "⍽"
    assert visible("\u032ea") == "\\u032ea"  # alone, it was drawn below its cell
    assert visible("e\u0301") == "e\u0301"
    assert visible("\ufe0f") == "\\ufe0f"  # of an emoji; as marks of Thai, it has no combining class
    assert visible("\x07") == "\\u0007"
    assert [percent(p) for p in (1.0, 0.5, 0.0995, 0.0123, 0.0004)] == ["100 %", "50 %", "10 %", "1.2 %", "< 0.1 %"]


def test_a_crash_is_told_and_the_next_generation_works(qtbot: QtBot, lab: FakeLab, dock: WriteDock) -> None:
    trained(qtbot, lab, dock)
    dock.prompt.setPlainText("crash")
    dock.generate()
    qtbot.waitUntil(lambda: bool(lab.errors))
    assert "MemoryError" in lab.errors[-1].why
    dock.prompt.setPlainText("good")
    dock.form.tokens.setValue(3)
    dock.generate()
    written(qtbot, dock, 3)


def test_what_failed_is_told_as_text_beside_the_button_too(qtbot: QtBot, lab: FakeLab) -> None:
    host = Slow(command=FAKE_HOST)
    with dock_in_sight(qtbot, WriteDock(lab, host=host), 900, 640) as dock:
        trained(qtbot, lab, dock)
        qtbot.waitUntil(lambda: host.asked is not None)
        error = LabError("The model's template says <b>no</b>.")
        for ask in (dock._ask_next, dock.generate):
            ask()
            assert host.asked is not None
            host.asked.end(host.asked.failed, error)
        for label in (dock.ahead.words, dock.said):
            assert (label.text(), label.textFormat()) == (error.what, Qt.TextFormat.PlainText)


def test_a_hostile_token_is_text(qtbot: QtBot, lab: FakeLab, dock: WriteDock) -> None:
    trained(qtbot, lab, dock)
    dock.text.begin("")
    dock.text.append_tokens([WrittenToken("<b>the</b>", 0.5, (("<b>the</b>", 0.5), ("<img src=x>", 0.5)))])
    dock.text.choose(0)
    assert dock.text.toPlainText() == "<b>the</b>"
    assert "&lt;b&gt;" in dock.at_token.words.text()


def test_a_live_run_says_which_step_answers_and_offers_to_save(qtbot: QtBot, lab: FakeLab, dock: WriteDock) -> None:
    fake = trained(qtbot, lab, dock)
    lab.pump(fake.advance(50, evaluate=False))
    assert "Training is at step 250. Step 200, the last saved one, answers." in dock.note.text()
    dock.note.linkActivated.emit("save")
    assert lab.controller.saved == ["fake"]
    lab.pump(fake.save_checkpoint(("requested",)))
    qtbot.waitUntil(lambda: "Step 250, the last saved one" in dock.note.text())
    lab.pump(fake.stop())
    assert not dock.note.isVisible()


def test_any_checkpoint_of_any_run_can_be_chosen(qtbot: QtBot, lab: FakeLab, dock: WriteDock) -> None:
    trained(qtbot, lab, dock, "first")
    trained(qtbot, lab, dock, "second")
    lab.write_requested.emit("pretraining/first", "step-00000100")
    qtbot.waitUntil(lambda: dock.picker.checkpoint is not None)
    assert dock.picker.reference().endswith("first@100")
    dock.picker.which.setCurrentIndex(dock.picker.which.findData("best"))
    dock.picker.which.activated.emit(dock.picker.which.currentIndex())
    assert dock.picker.reference().endswith("first@200")
    told: list[str] = []
    dock.picker.changed.connect(lambda: told.append(dock.picker.reference()))
    for name in ("second", "first"):  # and back, before the first answer is there
        dock.picker.select(f"pretraining/{name}", "latest")
        assert dock.picker.checkpoint is None  # and none of the run before
    qtbot.waitUntil(lambda: not dock.picker.reading)
    assert told == []


def test_the_run_that_was_chosen_stays_when_the_queue_starts_another(
    qtbot: QtBot, lab: FakeLab, dock: WriteDock
) -> None:
    lab.add(FakeRun(lab.outputs, "first").start().advance(10), in_turn=True)
    lab.add(FakeRun(lab.outputs, "second").start().advance(10), in_turn=True)
    assert dock.picker.run_id == "pretraining/second"  # nobody has chosen
    dock.picker.runs.setCurrentIndex(dock.picker.runs.findData("pretraining/first"))
    dock.picker.runs.activated.emit(dock.picker.runs.currentIndex())
    lab.add(FakeRun(lab.outputs, "third").start(), in_turn=True)
    assert dock.picker.run_id == "pretraining/first"
    lab.set_current("pretraining/third")  # by the learner
    assert dock.picker.run_id == "pretraining/third"
    lab.set_current("")
    dock.picker.which.activated.emit(0)  # a checkpoint of it
    lab.add(FakeRun(lab.outputs, "fourth").start(), in_turn=True)
    assert dock.picker.run_id == "pretraining/third"


def test_a_run_without_a_checkpoint_cannot_be_asked(qtbot: QtBot, lab: FakeLab, dock: WriteDock) -> None:
    assert dock._stack.currentWidget() is dock._empty
    with qtbot.waitSignal(lab.dock_requested) as wanted:
        dock._empty._button.click()
    assert wanted.args == ["setup"]
    fake = lab.add(FakeRun(lab.outputs).start().advance(10))
    qtbot.waitUntil(lambda: "Nothing is saved yet." in dock.note.text())
    assert not dock.generate_button.isEnabled()
    activate(qtbot, dock)
    dock.prompt.setFocus()
    qtbot.keyClick(dock.prompt, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    assert lab.errors == []
    lab.pump(fake.save_checkpoint())
    qtbot.waitUntil(dock.generate_button.isEnabled)


def test_the_list_names_what_its_rows_leave(qtbot: QtBot, dock: WriteDock) -> None:
    dock.at_token.list.show_pairs([("a", 0.5), ("b", 0.2)], "a")
    model = dock.at_token.list.model()
    assert model.index(2, 0).data() == "all others  30 %"
    assert len(dock.at_token.list.pairs()) == 2
    assert math.isclose(sum(p for _, p in dock.at_token.list.pairs()), 0.7)
    for before, share in (((), "< 0.1 %"), ((0.6, 0.4), "out")):  # without a setting nothing is ruled out
        dock.at_token.list.show_pairs([("a", 1.0), ("b", 0.0)], before=before)
        assert model.index(1, 0).data() == f"b  {share}"


def test_loading_is_said_once_and_stopping_stays_said(qtbot: QtBot) -> None:
    request = Request(lambda: None)
    host, view = SimpleNamespace(generate=lambda *_: request), TokenView()
    qtbot.addWidget(view)
    writer = Writer(host, view)
    said: list[str] = []
    writer.said.connect(said.append)
    writer.begin("fake", "The", Generation())
    for news in (LOADING, Working("Loading the weights", 0.5), Working("Waiting for the next step")):
        request.tell(request.progressed, news)
    for text in (" cat", " sat"):
        request.tell(request.token, WrittenToken(text, 0.5))
    writer.stop()
    request.tell(request.progressed, LOADING)
    assert said == ["Asking the model…", "Loading the model…", "Generating…", "Stopping…"]
    writer.shutdown()
