"""The set-up form: every setting from the schema and back, wrong values said at once, costs before the start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cases import each
from fakes import FakeRun
from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QApplication, QLineEdit
from pytestqt.qtbot import QtBot
from windows import dock_in_sight

from llmlab.core.config import differences
from llmlab.core.errors import LabError
from llmlab.core.presets import load_preset, preset_names
from llmlab.core.progress import Progress, quiet
from llmlab.core.setting_info import describe
from llmlab.core.settings import PretrainSettings
from llmlab.data.corpora import corpora
from llmlab.data.shard_build import build_shards
from llmlab.data.shard_sources import shard_source
from llmlab.data.tokenizers import Gpt2Tokenizer
from llmlab.gpt.estimate import estimate_pretraining
from llmlab.notebook.predictions import parse_prediction
from llmlab.studies.experiments.kinds import find_kind
from llmlab.studies.experiments.plan import Request, make_plan
from llmlab_gui.forms import corpus_editor
from llmlab_gui.forms.editors import NumberEditor, number_text
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.train.run_setup import Draft, PlannedRun
from llmlab_gui.train.setup import SetupDock
from llmlab_gui.widgets.numbers import bytes_text, unbroken


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was fetched."""
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def dock(qtbot: QtBot, lab: Lab) -> Iterator[SetupDock]:
    with dock_in_sight(qtbot, SetupDock(lab), 340, 700) as made:
        qtbot.waitUntil(lambda: made.corpus.corpus is not None)
        yield made


def line(dock: SetupDock, key: str) -> QLineEdit:
    editor = dock.form.fields[key].editor
    assert isinstance(editor, NumberEditor)
    return editor.line


def choose_preset(dock: SetupDock, name: str) -> None:
    dock.presets.setCurrentIndex(dock.presets.findData(name))


def test_every_setting_has_a_field_with_its_help_and_range(dock: SetupDock) -> None:
    assert list(dock.form.fields) == [info.key for info in describe(PretrainSettings)]
    for field in dock.form.fields.values():
        assert field.info.help in field.editor.toolTip()
        assert field.info.range_text in field.editor.toolTip()
        assert (field.editor.focusProxy() or field.editor).accessibleName()


def test_help_is_of_the_name_while_that_is_written(qtbot: QtBot, dock: SetupDock) -> None:
    dock.form.fields["train.steps"].editor.setFocus()
    qtbot.waitUntil(lambda: "train.steps" in dock.help.text())
    dock.name.setFocus()
    qtbot.waitUntil(lambda: dock.help.text().startswith("<b>name</b>"))


def test_the_time_of_a_run_is_that_of_a_trial(dock: SetupDock) -> None:
    dock.form.set_values({"train.steps": 60})
    dock.update_all()
    settings = dock.form.settings()
    grid = [settings.model.n_embd, 2 * settings.model.n_embd]
    asked = Request(find_kind("width"), settings, dock.lab.outputs, grid=grid, seeds=1, watched=True)
    assert dock.plan().seconds == make_plan(asked).trials[0].estimated_seconds


def test_a_presets_time_is_its_estimate(dock: SetupDock) -> None:
    choose_preset(dock, "gpt2")
    time = dock.presets.currentText().rpartition(" · ")[2]
    dock.update_all()
    assert f"About {time} here" in dock.estimate.text().replace("\u00a0", " ")
    dock.form.set_values({"train.device": "cuda"})
    dock.update_all()
    assert f"About {time} on the processor; a GPU takes less" in dock.estimate.text().replace("\u00a0", " ")


def test_processes_can_be_set_with_a_strategy(dock: SetupDock) -> None:
    processes = dock.form.fields["distributed.processes"].editor
    assert not processes.isEnabled()
    dock.form.set_values({"distributed.strategy": "ddp"})
    dock.update_all()
    assert processes.isEnabled()


def test_the_name_of_a_setting_is_level_with_the_first_line_of_its_editor(dock: SetupDock) -> None:
    seen = [field for field in dock.form.fields.values() if field.editor.isVisible()]
    assert len(seen) >= 3
    for field in seen:
        box = field.editor.focusProxy() or field.editor
        middles = [part.mapTo(dock, part.rect().center()).y() for part in (field.row.name, box)]
        assert abs(middles[0] - middles[1]) <= 2, field.info.key


@each("name", preset_names())
def test_a_preset_goes_through_the_form_unchanged(dock: SetupDock, name: str) -> None:
    choose_preset(dock, name)
    assert dock.form.settings() == load_preset(name).settings
    assert not dock.form.changed()


@each(
    ("key", "typed", "meant"),
    [
        ("train.learning_rate", "3e-4", 3e-4),
        ("train.learning_rate", ".002", 0.002),
        ("train.steps", "2e3", 2000),
        ("train.steps", "12,000", 12_000),
        ("data.max_tokens", "5000000000", 5_000_000_000),
        ("train.beta1", "0.123456789", 0.123456789),
    ],
)
def test_numbers_are_read_as_people_write_them(dock: SetupDock, key: str, typed: str, meant: float) -> None:
    line(dock, key).setText(typed)
    assert dock.form.fields[key].parsed() == meant


@each("value", [0.1, 1e-3, 3e-4, 0.123456789012345, 1e-8, 10.0, 1 / 3])
def test_a_shown_number_is_the_number(value: float) -> None:
    assert float(number_text(value)) == value


def test_the_arrow_keys_step_whole_numbers_by_one_and_rates_by_1_2_5(dock: SetupDock, qtbot: QtBot) -> None:
    steps, rate = line(dock, "train.steps"), line(dock, "train.learning_rate")
    qtbot.keyClick(steps, Qt.Key.Key_Up)
    assert steps.text() == "2001"
    seen = []
    for key in (Qt.Key.Key_Up, Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_Down, Qt.Key.Key_Down):
        qtbot.keyClick(rate, key)
        seen.append(float(rate.text()))
    assert seen == [0.002, 0.005, 0.002, 0.001, 0.0005]


def test_a_step_stays_within_the_range(dock: SetupDock, qtbot: QtBot) -> None:
    layers = line(dock, "model.n_layer")
    layers.setText("1")
    qtbot.keyClick(layers, Qt.Key.Key_Down)
    assert layers.text() == "1"


def test_prompts_with_line_breaks_and_backslashes_come_back(dock: SetupDock) -> None:
    prompts = ("\n", "The king", "a\\nb", "tab\there", "é—🙂")
    dock.form.set_values({"samples.prompts": prompts})
    assert dock.form.settings().samples.prompts == prompts


def test_a_wrong_value_is_said_at_once_and_nothing_can_start(dock: SetupDock, qtbot: QtBot, lab: Lab) -> None:
    line(dock, "train.learning_rate").setText("fast")
    qtbot.waitUntil(lambda: not dock.train_button.isEnabled())
    assert "train.learning_rate" in dock.problem.text()
    assert "0 to 10" in dock.problem.text()
    with qtbot.waitSignal(lab.error_raised):
        dock.train()
    assert dock.form.sections["train"].open  # the field was brought into sight


def test_settings_that_do_not_fit_together_are_said_with_advice(dock: SetupDock, qtbot: QtBot) -> None:
    line(dock, "model.n_head").setText("5")
    qtbot.waitUntil(lambda: "does not divide" in dock.problem.text())
    assert "model.n_head=4" in dock.problem.text()
    problem = dock.form.problem()
    assert problem is not None
    assert problem[1] is not None
    assert problem[1].info.section == "model"


def test_settings_that_stay_folded_take_no_room(dock: SetupDock, qtbot: QtBot) -> None:
    section = dock.form.sections["train"]
    section.set_open(True)
    for _ in range(2):
        qtbot.waitUntil(lambda: 0 < section.content.height() - section.more.geometry().bottom() < 12)
        section.more.setChecked(True)
        QApplication.processEvents()
        section.more.setChecked(False)


def test_what_differs_from_the_preset_is_marked_and_can_be_taken_back(dock: SetupDock, qtbot: QtBot) -> None:
    field = dock.form.fields["model.n_layer"]
    dock.form.sections["model"].set_open(True)
    line(dock, "model.n_layer").setText("7")
    assert field.changed
    assert field.row.name.font().bold()
    assert field.row.reset.isVisible()
    assert dock.form.sections["model"].summary.text() == "1 changed: n_layer 7"
    field.row.reset.click()
    assert not field.changed
    assert not field.row.name.font().bold()
    assert not field.row.reset.isVisible()
    line(dock, "train.steps").setText("5")
    qtbot.waitUntil(dock.reset_button.isEnabled)
    dock.reset_button.click()
    assert not dock.form.changed()


def test_settings_fold_by_arrow_keys_and_advanced_ones_are_told_when_changed(dock: SetupDock, qtbot: QtBot) -> None:
    section = dock.form.sections["train"]
    section.header.setFocus()
    for key, shown in ((Qt.Key.Key_Left, False), (Qt.Key.Key_Right, True), (Qt.Key.Key_Right, True)):
        qtbot.keyClick(section.header, key)
        assert section.open == shown
        assert dock.window().focusWidget() is section.header
    beta = dock.form.fields["train.beta1"]
    assert not beta.editor.isVisible()
    line(dock, "train.beta1").setText("0.8")
    assert section.more.text().endswith("1 changed")
    section.more.click()
    assert beta.editor.isVisible()


def test_tab_goes_down_a_part_that_was_just_unfolded(dock: SetupDock, qtbot: QtBot) -> None:
    section = dock.form.sections["train"]
    section.header.setFocus()
    section.set_open(True)
    section.more.setChecked(True)
    QApplication.processEvents()
    tops = []
    while (now := dock.window().focusWidget()) and section.isAncestorOf(now):
        tops.append(now.mapTo(section, QPoint()).y())
        qtbot.keyClick(now, Qt.Key.Key_Tab)
    assert len(tops) > len(section.fields)
    assert tops == sorted(tops)


def test_the_costs_are_told_before_the_start(dock: SetupDock, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: "parameters" in dock.estimate.text())
    small = dock.estimate.text()
    for wanted in ("memory", "a checkpoint", "tokens read", "About"):
        assert wanted in small
    choose_preset(dock, "gpt2")
    qtbot.waitUntil(lambda: "124M parameters" in dock.estimate.text())


def test_the_memory_of_several_processes_is_told_in_parts_that_make_the_whole(dock: SetupDock, qtbot: QtBot) -> None:
    dock.form.set_values({"distributed.strategy": "fsdp2", "distributed.processes": 4})
    memory = estimate_pretraining(dock.form.settings()).memory
    rest = memory.total - 4 * memory.of_one
    assert rest > 0
    each = f"{bytes_text(memory.of_one)} in each of 4 processes, {bytes_text(rest)} beside them"
    told = unbroken(f"{bytes_text(memory.total)} of memory ({each})")
    qtbot.waitUntil(lambda: told in dock.estimate.text())


def test_what_it_costs_to_keep_checkpoints_is_told(dock: SetupDock, qtbot: QtBot) -> None:
    each = estimate_pretraining(dock.form.settings()).checkpoint_bytes
    dock.form.set_values({"train.steps": 2000, "checkpoints.interval": 100, "checkpoints.keep_last": 2})
    told = f"{bytes_text(5 * each)} for the 5 kept at most (one every 100 steps, all kept: {bytes_text(23 * each)})"
    qtbot.waitUntil(lambda: unbroken(told) in dock.estimate.text())
    dock.form.set_values({"checkpoints.per_decade": 10, "checkpoints.interval": 0})
    # 10^(k/10) has 31 different values up to 2,000; and there are best, final, and the one being written
    told = unbroken(f"{bytes_text(34 * each)} for the 34 kept at most")
    qtbot.waitUntil(lambda: told in dock.estimate.text())


def test_what_cannot_fit_is_not_started_and_what_would_fit_is_said(
    dock: SetupDock, lab: Lab, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    lab.start_requested.connect(asked.append)
    monkeypatch.setattr("llmlab.training.room.shutil.which", lambda name: None)
    monkeypatch.setattr("llmlab_gui.train.run_setup.available_bytes", lambda: 500_000_000)
    dock.form.set_values({"data.batch_size": 1024})
    dock.update_all()
    assert "does not fit into memory" in dock.estimate.text()
    assert "Try data.batch_size=" in dock.estimate.text()
    assert not dock.train_button.isEnabled()
    assert dock.queue_button.isEnabled()  # others may have ended by then
    dock.train()
    assert asked == []
    with monkeypatch.context() as others_ended:
        others_ended.setattr("llmlab_gui.train.run_setup.available_bytes", lambda: 500_000_000_000)
        qtbot.waitUntil(dock.train_button.isEnabled)
    dock.form.set_values({"data.batch_size": 1, "model.n_layer": 200, "model.n_embd": 16384, "model.n_head": 128})
    dock.update_all()
    assert not dock.queue_button.isEnabled()
    dock.form.set_values({"model.n_layer": 4, "model.n_embd": 128, "model.n_head": 4})
    dock.update_all()
    assert dock.train_button.isEnabled()
    assert dock.queue_button.isEnabled()


def test_train_asks_for_exactly_what_the_form_says(dock: SetupDock, qtbot: QtBot, lab: Lab) -> None:
    choose_preset(dock, "nano")
    line(dock, "train.steps").setText("150")
    dock.corpus.set_value("tiny")
    dock.name.setText("my-run")
    qtbot.waitUntil(lambda: dock.corpus.corpus is not None)
    with qtbot.waitSignal(lab.start_requested) as asked:
        dock.train_button.click()
    plan: PlannedRun = asked.args[0]
    changed = {info.key: new for info, _, new in differences(load_preset("nano").settings, plan.settings)}
    assert changed == {"train.steps": 150, "data.corpus": "tiny"}
    assert (plan.name, plan.preset) == ("my-run", "nano")


@each("name", ["../escape", "a b", ".hidden", "x" * 101])
def test_a_name_that_cannot_be_a_folder_is_refused(dock: SetupDock, name: str) -> None:
    dock.name.setText(name)
    with pytest.raises(LabError, match=r"cannot be a run's name.*at most 100 of them, the first a letter or a digit"):
        dock.plan()


def test_a_name_that_is_taken_is_refused(dock: SetupDock, qtbot: QtBot, outputs: Path) -> None:
    for name in ("taken", "x" * 100):
        FakeRun(outputs, name)
        dock.name.setText(name)
        qtbot.waitUntil(lambda name=name: f"named '{name}' is already there" in dock.problem.text())
        assert dock.problem.minimumSizeHint().width() < dock.widget().minimumSizeHint().width()
    assert str(outputs) in dock.problem.text()


@pytest.mark.qt_log_ignore("This plugin does not support")
def test_a_link_of_a_page_fills_the_form(dock: SetupDock, lab: Lab) -> None:
    line(dock, "train.steps").setText("77")
    asked = {"preset": "nano", "train.steps": "300", "data.corpus": "austen", "model.n_layer": "2"}
    lab.setup_requested.emit(asked | {"checkpoints.per_decade": "3"})
    settings = dock.form.settings()
    assert dock.presets.currentData() == "nano"
    assert (settings.train.steps, settings.data.corpus, settings.model.n_layer) == (300, "austen", 2)
    assert settings.train.learning_rate == load_preset("nano").settings.train.learning_rate
    assert dock.help.text() == "<b>Set up:</b> Nano · n layer 2 · corpus austen · steps 300 · checkpoints per decade 3."


# Corpora that are not here -------------------------------------------------------------------------------------


def _wait_for_corpus(dock: SetupDock, qtbot: QtBot, name: str) -> None:
    dock.corpus.set_value(name)
    qtbot.waitUntil(lambda: dock.corpus.corpus is not None and dock.corpus.corpus.name == name)


def test_a_corpus_that_is_not_here_is_offered_not_started(dock: SetupDock, qtbot: QtBot) -> None:
    _wait_for_corpus(dock, qtbot, "verdict")
    qtbot.waitUntil(lambda: "not on this machine" in dock.problem.text())
    assert dock.corpus.fetch_button.isVisible()
    assert dock.corpus.fetch_button.text() == "Fetch 20.5 kB"
    assert not dock.train_button.isEnabled()
    _wait_for_corpus(dock, qtbot, "tiny")
    qtbot.waitUntil(dock.train_button.isEnabled)
    assert not dock.corpus.fetch_button.isVisible()


def test_fetching_shows_progress_and_makes_the_corpus_usable(
    dock: SetupDock, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(corpus: Any, progress: Progress) -> None:
        progress("Fetching", 10_000, 20_479)
        corpus.folder.mkdir(parents=True, exist_ok=True)
        (corpus.folder / corpus.file).write_text("A story. " * 2000)

    monkeypatch.setattr(corpus_editor, "fetch", fetch)
    _wait_for_corpus(dock, qtbot, "verdict")
    dock.corpus.fetch_button.click()
    qtbot.waitUntil(lambda: not dock.corpus.missing)
    qtbot.waitUntil(dock.train_button.isEnabled)
    qtbot.waitUntil(lambda: dock.corpus.bar.format() == "10.0 kB of 20.5 kB")


def test_fetching_can_be_cancelled(dock: SetupDock, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    def fetch(corpus: Any, progress: Progress) -> None:
        while True:
            progress("Fetching", 0, 20_479)
            told.append(0)
            time.sleep(0.001)

    monkeypatch.setattr(corpus_editor, "fetch", fetch)
    _wait_for_corpus(dock, qtbot, "verdict")
    dock.corpus.fetch_button.click()
    qtbot.waitUntil(lambda: bool(told))
    assert dock.corpus.bar.format() == "Connecting…"  # until something comes
    qtbot.waitUntil(lambda: dock.corpus.fetch_button.text() == "Cancel")
    dock.corpus.fetch_button.click()
    qtbot.waitUntil(lambda: dock.corpus.fetch_button.text().startswith("Fetch"))
    assert dock.corpus.missing


def test_a_missing_corpus_is_not_started_while_another_one_is_fetched(
    dock: SetupDock, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(corpus: Any, progress: Progress) -> None:
        while True:
            progress("Fetching", 1, 0)
            time.sleep(0.001)

    monkeypatch.setattr(corpus_editor, "fetch", fetch)
    _wait_for_corpus(dock, qtbot, "verdict")
    dock.corpus.fetch_button.click()
    qtbot.waitUntil(lambda: dock.corpus.fetch_button.text() == "Cancel")
    other = next(corpus for corpus in corpora() if not corpus.here() and corpus.name != "verdict")
    _wait_for_corpus(dock, qtbot, other.name)
    qtbot.waitUntil(lambda: other.title in dock.problem.text())
    assert dock.corpus.missing
    assert not dock.train_button.isEnabled()


def test_what_was_mended_a_moment_ago_can_be_started_at_once(dock: SetupDock, qtbot: QtBot, lab: Lab) -> None:
    line(dock, "train.steps").setText("many")
    qtbot.waitUntil(lambda: not dock.train_button.isEnabled())
    line(dock, "train.steps").setText("30")
    with qtbot.waitSignal(lab.start_requested) as asked:
        qtbot.mouseClick(dock.train_button, Qt.MouseButton.LeftButton)
    assert asked.args[0].settings.train.steps == 30


def test_a_fetch_that_fails_is_told(dock: SetupDock, qtbot: QtBot, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: Any) -> None:
        raise LabError("The Verdict could not be fetched.", "There is no network.", "Try again.")

    monkeypatch.setattr(corpus_editor, "fetch", fetch)
    _wait_for_corpus(dock, qtbot, "verdict")
    with qtbot.waitSignal(lab.error_raised) as told:
        dock.corpus.fetch_button.click()
    assert told.args[0].what == "The Verdict could not be fetched."


@pytest.mark.qt_log_ignore("This plugin does not support")
def test_a_built_corpus_is_in_the_list_and_a_mixture_can_be_typed_and_is_described(
    qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("One text.")
    build_shards(shard_source(str(tmp_path / "text.txt"), "text"), "mine", Gpt2Tokenizer(), quiet, processes=1)
    editor = corpus_editor.CorpusEditor()
    qtbot.addWidget(editor)
    assert editor.combo.findData("mine") >= 0
    editor.set_value("mine")
    assert "3 gpt2 tokens in 1 shard" in editor.about.text()
    build_shards(shard_source(str(tmp_path / "text.txt"), "text"), "later", Gpt2Tokenizer(), quiet, processes=1)
    editor.combo.showPopup()  # a corpus that was built meanwhile is offered, and the choice stays
    assert editor.combo.findData("later") >= 0
    assert editor.value() == "mine"
    editor.combo.hidePopup()

    asked: list[str] = []
    mixture = next(action for action in editor.own.menu().actions() if "mixture" in action.text())
    for typed, said in ((" tiny:1, mine:3 ", "A mixture of 2 texts"), ("tiny:1,there:1", "There is no corpus 'there'")):

        def type_it(*args: Any, text: str, typed: str = typed) -> tuple[str, bool]:
            asked.append(text)
            return typed, True

        monkeypatch.setattr(corpus_editor.QInputDialog, "getText", type_it)
        mixture.trigger()
        qtbot.waitUntil(lambda said=said: said in editor.about.text())
    assert asked == ["mine:0.7,shakespeare:0.3", "tiny:1, mine:3"]
    editor._background.shutdown()


def test_no_line_of_the_estimate_is_lost_in_a_low_panel_and_its_buttons_are_in_sight(
    dock: SetupDock, qtbot: QtBot
) -> None:
    qtbot.waitUntil(lambda: dock.estimate.text() != "")
    for size in ((340, 240), (300, 200), (600, 220)):
        dock.resize(*size)

        def fits(size: tuple[int, int] = size) -> None:
            assert dock.estimate.height() >= dock.estimate.heightForWidth(dock.estimate.width()), size
            for button in (dock.train_button, dock.queue_button):
                assert button.visibleRegion().boundingRect().size() == button.size(), size

        qtbot.waitUntil(fits)


def test_a_corpus_that_was_built_in_other_tokens_is_said_to_be_cut_anew(
    dock: SetupDock, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("One text.")
    build_shards(shard_source(str(tmp_path / "text.txt"), "text"), "mine", Gpt2Tokenizer(), quiet, processes=1)
    for corpus, tokenizer, anew in (
        ("mine", "char", True),
        ("mine", "gpt2", False),
        ("tiny:1,mine:3", "gpt2", False),
        ("tiny:1,mine:3", "bpe", True),
        ("tiny", "char", False),
    ):
        dock.form.set_values({"data.corpus": corpus, "data.tokenizer": tokenizer})
        qtbot.waitUntil(lambda corpus=corpus: dock.corpus.corpus is not None and dock.corpus.value() == corpus)
        dock.update_all()
        said = f"(gpt2, 50,257 tokens): this run tokenizes its text again, with {tokenizer}."
        assert (f"mine was built with another vocabulary {said}" in dock.estimate.text()) == anew, (corpus, tokenizer)


def test_a_path_that_is_gone_and_a_text_that_is_empty_are_said(dock: SetupDock, qtbot: QtBot, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    for name, says in (("gone.txt", "no file or folder"), ("empty.txt", "empty.txt is empty. It holds no text.")):
        dock.set_corpus(str(tmp_path / name))
        qtbot.waitUntil(lambda says=says: says in dock.problem.text())
        assert not dock.train_button.isEnabled()


def test_what_was_stated_of_one_run_is_not_stated_of_another_preset(dock: SetupDock, qtbot: QtBot, lab: Lab) -> None:
    stated = (parse_prediction("val_loss=1..2@80%"),)
    lab.setup_requested.emit({"preset": "baby", "predictions": stated})
    assert dock.plan().predictions == stated
    dock.form.set_values({"train.steps": 120})
    assert dock.plan().predictions == stated  # the same run, changed
    qtbot.keyClick(dock.presets, Qt.Key.Key_Down)
    assert dock.presets.currentData() != "baby"
    assert dock.plan().predictions == ()


def test_what_the_form_was_left_with_is_there_after_a_restart(
    dock: SetupDock, qtbot: QtBot, lab: Lab, tmp_path: Path
) -> None:
    settings = WindowSettings(tmp_path / "window.ini")
    dock.remember(settings)  # nothing was left yet
    choose_preset(dock, "nano")
    dock.name.setText("next-one")
    dock.form.set_values({"train.seed": 7, "samples.prompts": ("one\ntwo", "three")})
    line(dock, "train.steps").setText("many")  # what is wrong is not kept
    with pytest.raises(LabError):
        dock.form.settings()
    assert dock._keeping.isActive()
    dock._keeping.timeout.emit()  # the window was killed some time after, and never closed
    with dock_in_sight(qtbot, SetupDock(lab), 360, 800) as again:
        again.remember(settings)
        assert (again.chosen.preset, again.name.text()) == ("nano", "next-one")
        assert again.chosen.given() == {"train.seed": 7, "samples.prompts": ("one\ntwo", "three")}
        again.save_draft("set-up/pretraining", Draft("gone", "", {"train.gone": 1}))
        again.remember(settings)
        assert again.chosen.given() == {}


def test_in_a_low_window_all_essentials_are_in_sight(dock: SetupDock) -> None:
    dock.resize(332, 318)  # as in a window of 1280 x 640
    QApplication.processEvents()
    for widget in (dock.presets, dock.corpus, line(dock, "train.steps"), line(dock, "train.seed"), dock.estimate):
        assert widget.visibleRegion().boundingRect().height() == widget.height()
    assert dock.name.visibleRegion().boundingRect().height() > dock.name.height() // 2
    assert dock.chosen.about.isHidden()
    dock.resize(332, 400)
    QApplication.processEvents()
    assert dock.chosen.about.isVisible()
    assert not dock.help.visibleRegion().isEmpty()
