"""Fine-tune set-up: which model, which examples, every setting from the schema, costs and problems before the start."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from cases import each
from fakes import FakeRun
from PySide6.QtCore import QEvent, QMimeData, QPoint, Qt, QUrl
from PySide6.QtGui import QColor, QDragEnterEvent, QDragLeaveEvent, QDropEvent
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot
from small_runs import new_run, train_here
from windows import dock_in_sight

from llmlab.core.config import differences
from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.presets import of_preset, preset_names
from llmlab.core.progress import Progress
from llmlab.core.setting_info import describe
from llmlab.store.run_folder import RunFolder
from llmlab_gui.finetune import setup as finetune_setup
from llmlab_gui.finetune.setup import FinetuneSetupDock
from llmlab_gui.forms.editors import NumberEditor
from llmlab_gui.host.messages import ModelAbout
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.train.run_setup import PlannedRun
from llmlab_gui.widgets.theme import current_theme


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A GPT of one layer and width 16, trained for a few steps."""
    return train_here(new_run(tmp_path_factory.mktemp("base"), steps=4, name="gpt", model__block_size=64))


@pytest.fixture
def base(trained: RunFolder, outputs: Path) -> str:
    """It, among the runs of this test."""
    folder = outputs / "pretraining"
    folder.mkdir()
    (folder / "gpt").symlink_to(trained.path)
    return "gpt@latest"


@pytest.fixture
def dock(qtbot: QtBot, lab: Lab) -> Iterator[FinetuneSetupDock]:
    with dock_in_sight(qtbot, FinetuneSetupDock(lab), 360, 800) as made:
        yield made


def number(dock: FinetuneSetupDock, key: str, text: str) -> None:
    editor = dock.form.fields[key].editor
    assert isinstance(editor, NumberEditor)
    editor.line.setText(text)


def ready(qtbot: QtBot, dock: FinetuneSetupDock) -> None:
    """Waits for the costs of what is set up."""
    qtbot.waitUntil(lambda: "of memory" in dock.estimate.text() and dock.train_button.isEnabled())


def test_every_setting_has_a_field_with_its_help(dock: FinetuneSetupDock) -> None:
    assert list(dock.form.fields) == [info.key for info in describe(FinetuneSettings)]
    for field in dock.form.fields.values():
        assert field.info.help in field.editor.toolTip()
        assert (field.editor.focusProxy() or field.editor).accessibleName()
    assert dock.form.fields["model.base"].help_text().endswith("preset: nothing")
    assert dock.form.fields["model.base"].row.reset.toolTip() == "Back to the preset's value: nothing"


def test_a_single_folded_setting_is_counted_as_one(dock: FinetuneSetupDock) -> None:
    assert dock.form.sections["data"].more.text() == "1 more setting"


@each("name", preset_names(FinetuneSettings))
def test_a_preset_goes_through_the_form_unchanged(dock: FinetuneSetupDock, name: str) -> None:
    dock.presets.setCurrentIndex(dock.presets.findData(name))
    assert dock.form.settings() == of_preset(FinetuneSettings, name)


def test_without_a_model_nothing_can_start_and_it_says_what_to_do(qtbot: QtBot, dock: FinetuneSetupDock) -> None:
    qtbot.waitUntil(lambda: not dock.train_button.isEnabled())
    assert dock.problem.text() == "Choose the model to fine-tune: a run of yours, or any other model."
    color = dock.problem.palette().windowText().color()
    assert color.name() == QColor(current_theme().text).name()  # an untouched field is no mistake
    assert not dock.queue_button.isEnabled()
    dock.model.set_value("no-such-model")
    qtbot.waitUntil(lambda: "no-such-model" in dock.problem.text())
    assert dock.problem.palette().windowText().color().name() == QColor(current_theme().bad).name()


def test_the_newest_own_model_is_offered_and_costs_are_told(qtbot: QtBot, base: str, dock: FinetuneSetupDock) -> None:
    qtbot.waitUntil(lambda: dock.model.value() == base)
    ready(qtbot, dock)
    qtbot.waitUntil(lambda: dock.model.about.text().startswith("Step 4 of a run on tiny"))
    for words in ("About", "parameters learn", "of memory", "a checkpoint"):
        assert words in dock.estimate.text()
    small = dock.estimate.text()
    dock.form.set_values({"model.method": "full"})
    qtbot.waitUntil(lambda: dock.estimate.text() != small and "%" not in dock.estimate.text())


def test_several_processes_can_be_set_with_a_strategy_and_their_memory_is_told(
    qtbot: QtBot, base: str, dock: FinetuneSetupDock
) -> None:
    dock.set_base(base)
    ready(qtbot, dock)
    processes = dock.form.fields["distributed.processes"].editor
    assert not processes.isEnabled()
    dock.form.set_values({"distributed.strategy": "ddp"})
    dock.update_all()
    assert processes.isEnabled()
    qtbot.waitUntil(lambda: "in each of 2 processes" in dock.estimate.text().replace("\u00a0", " "))
    dock.form.fields["model.backend"].editor.set_value("unsloth")
    dock.update_all()
    assert "Set model.backend=peft, or distributed.strategy=none." in dock.problem.text()
    assert not dock.train_button.isEnabled()


def test_start_and_queue_ask_for_exactly_what_the_form_says(
    qtbot: QtBot, lab: Lab, base: str, dock: FinetuneSetupDock
) -> None:
    dock.set_base(base)
    number(dock, "train.steps", "7")
    dock.form.set_values({"model.method": "full"})
    dock.name.setText("mine")
    ready(qtbot, dock)
    for signal, button in ((lab.start_requested, dock.train_button), (lab.queue_requested, dock.queue_button)):
        with qtbot.waitSignal(signal) as asked:
            button.click()
        plan: PlannedRun = asked.args[0]
        assert isinstance(plan.settings, FinetuneSettings)
        scratch = of_preset(FinetuneSettings, "scratch")
        changed = {info.key: new for info, _, new in differences(scratch, plan.settings)}
        assert changed == {"model.base": base, "model.method": "full", "train.steps": 7}
        assert (plan.name, plan.preset) == ("mine", "scratch")
        assert plan.seconds is not None
        assert plan.seconds > 0


@each(
    ("reference", "words"),
    [("nowhere-to-be-found", "There is no model"), ("gpt@999", "999"), ("gpt@live", "has not ended")],
)
def test_a_model_that_cannot_be_a_base_is_said_beside_it(
    qtbot: QtBot, base: str, dock: FinetuneSetupDock, reference: str, words: str
) -> None:
    dock.set_base(reference)
    qtbot.waitUntil(lambda: words in dock.model.wrong.text())
    assert words in dock.problem.text()
    assert not dock.train_button.isEnabled()
    dock.set_base(base)
    ready(qtbot, dock)
    assert dock.model.wrong.isHidden()


def test_a_run_that_has_saved_its_first_checkpoint_can_be_fine_tuned(
    qtbot: QtBot, trained: RunFolder, outputs: Path, lab: Lab, dock: FinetuneSetupDock
) -> None:
    run = outputs / "pretraining" / "gpt"
    shutil.copytree(trained.path, run, ignore=shutil.ignore_patterns("step-*"))
    dock.set_base("gpt@latest")
    qtbot.waitUntil(lambda: "no checkpoint" in dock.problem.text())
    shutil.copytree(trained.checkpoints, run / "checkpoints", dirs_exist_ok=True)
    lab.refresh()
    ready(qtbot, dock)
    assert dock.model.wrong.isHidden()


def test_a_folder_without_weights_is_said(qtbot: QtBot, dock: FinetuneSetupDock, tmp_path: Path) -> None:
    folder = tmp_path / "empty-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    dock.set_base(str(folder))
    qtbot.waitUntil(lambda: "There are no weights" in dock.problem.text())


def test_a_rank_above_the_width_is_said_before_the_start(qtbot: QtBot, base: str, dock: FinetuneSetupDock) -> None:
    dock.set_base(base)
    ready(qtbot, dock)
    number(dock, "lora.rank", "64")
    qtbot.waitUntil(lambda: "lora.rank" in dock.problem.text())
    assert not dock.train_button.isEnabled()
    number(dock, "lora.rank", "4")
    ready(qtbot, dock)


def test_packing_for_a_model_that_reads_a_row_as_one_text_is_refused_before_the_start(
    qtbot: QtBot, dock: FinetuneSetupDock, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny-opt"
    folder.mkdir()
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}
    (folder / "config.json").write_text(json.dumps({"model_type": "opt"} | sizes))
    weight = {"model.decoder.layers.0.fc1.weight": np.zeros((64, 64), dtype=np.float32)}
    safetensors.numpy.save_file(weight, folder / "model.safetensors")
    dock.set_base(str(folder))
    ready(qtbot, dock)
    dock.form.set_values({"data.packing": True})
    qtbot.waitUntil(lambda: "cannot be fine-tuned on packed examples" in dock.problem.text())
    assert not dock.train_button.isEnabled()
    dock.form.set_values({"data.packing": False})
    ready(qtbot, dock)


def test_a_model_of_the_hub_that_is_not_here_can_be_started_all_the_same(qtbot: QtBot, dock: FinetuneSetupDock) -> None:
    dock.set_base("someone/some-model")
    qtbot.waitUntil(lambda: "not on this machine" in dock.estimate.text())
    qtbot.waitUntil(lambda: "it is downloaded when the run starts" in dock.model.about.text())
    assert dock.train_button.isEnabled()


@each(
    ("source", "words"),
    [("nothing-here", "There are no examples"), ("gone.jsonl", "There are no examples"), ("", "Choose examples")],
)
def test_examples_that_are_not_there_are_said_beside_them(
    qtbot: QtBot, base: str, dock: FinetuneSetupDock, source: str, words: str
) -> None:
    dock.set_base(base)
    dock.set_examples(source)
    qtbot.waitUntil(lambda: words in dock.problem.text())
    dock.set_examples("tasks")
    ready(qtbot, dock)


def test_what_is_wrong_with_a_setting_is_said_under_it(qtbot: QtBot, base: str, dock: FinetuneSetupDock) -> None:
    dock.set_base(base)
    number(dock, "train.steps", "many")
    field = dock.form.fields["train.steps"]
    qtbot.waitUntil(field.row.problem.isVisible)
    assert "train.steps" in field.row.problem.text()
    number(dock, "train.steps", "20")
    assert field.row.problem.isHidden()
    dock.form.sections["train"].set_open(True)
    number(dock, "train.min_learning_rate", "0.5")  # each value is fine, together they are not
    qtbot.waitUntil(lambda: "min_learning_rate" in dock.problem.text())
    told = [one.row.problem.text() for one in dock.form.fields.values() if one.row.problem.isVisible()]
    assert len(told) == 1
    assert "is above" in told[0]


def test_unsloth_is_tried_only_when_asked_for_and_its_absence_said(
    qtbot: QtBot, base: str, dock: FinetuneSetupDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def probe(_progress: Progress) -> str:
        tried.append(1)
        return "There is no CUDA device here."

    monkeypatch.setattr(finetune_setup, "probe_unsloth", probe)
    dock.set_base(base)
    ready(qtbot, dock)
    assert not tried
    dock.form.set_values({"model.backend": "unsloth"})
    qtbot.waitUntil(lambda: "There is no CUDA device here." in dock.problem.text())
    assert not dock.train_button.isEnabled()
    dock.form.set_values({"model.backend": "peft"})
    ready(qtbot, dock)
    assert len(tried) == 1


def test_a_preset_without_a_model_keeps_the_chosen_one(qtbot: QtBot, base: str, dock: FinetuneSetupDock) -> None:
    dock.presets.setCurrentIndex(dock.presets.findData("qwen2.5-0.5b"))
    assert dock.model.value() == of_preset(FinetuneSettings, "qwen2.5-0.5b").model.base
    dock.set_base(base)
    dock.presets.setCurrentIndex(dock.presets.findData("scratch"))
    assert dock.model.value() == base
    dock.reset_button.click()
    assert dock.model.value() == base


def test_the_base_in_sight_stays_when_a_newer_model_was_trained_until_one_is_opened(
    qtbot: QtBot, lab: Lab, base: str, dock: FinetuneSetupDock
) -> None:
    qtbot.waitUntil(lambda: dock.model.value() == base)
    FakeRun(lab.outputs, "newer", created=2e9).start().advance(10).save_checkpoint().finish()
    FakeRun(lab.outputs, "trial", created=3e9).start().advance(10).finish()  # without a checkpoint: it is no base
    lab.refresh()
    qtbot.waitUntil(lambda: len(lab.runs()) == 3)
    assert dock.model.value() == base
    for current in ("", "pretraining/trial"):
        lab.set_current(current)
        dock.model.set_value("")  # by the way back beside it
        dock.model.suggest()
        assert dock.model.value() == base
    line = dock.model.box.lineEdit()
    assert line is not None
    lab.set_current("")
    lab.inspection.about = ModelAbout("newer@10", "newer, step 10", "run")
    lab.inspection.about_changed.emit()
    assert dock.model.value() == "newer@latest"  # it is the active model
    line.selectAll()
    qtbot.keyClick(line, Qt.Key.Key_Delete)
    dock.model.suggest()
    assert dock.model.value() == ""  # someone is about to type another


def test_the_base_is_the_current_run_until_a_person_names_one_which_is_there_after_a_restart(
    qtbot: QtBot, lab: Lab, base: str, dock: FinetuneSetupDock, tmp_path: Path
) -> None:
    FakeRun(lab.outputs, "newer", created=2e9).start().advance(10).save_checkpoint().finish()
    lab.refresh()
    qtbot.waitUntil(lambda: len(lab.runs()) == 2)
    settings = WindowSettings(tmp_path / "window.ini")
    dock.remember(settings)
    for name in ("newer", "gpt"):
        lab.set_current(f"pretraining/{name}")
        assert dock.model.value() == f"{name}@latest"
    FakeRun(lab.outputs, "gone", created=3e9).start().advance(10).save_checkpoint().finish()
    lab.refresh()
    qtbot.waitUntil(lambda: len(lab.runs()) == 3)
    lab.set_current("pretraining/gone")
    assert dock.model.value() == "gone@latest"
    shutil.rmtree(lab.outputs / "pretraining" / "gone")
    lab.refresh()
    qtbot.waitUntil(lambda: dock.model.value() == "newer@latest")
    dock.shutdown()
    with dock_in_sight(qtbot, FinetuneSetupDock(lab), 360, 800) as again:
        again.remember(settings)
        lab.set_current("pretraining/newer")
        assert again.model.value() == "newer@latest"  # what was only suggested is not kept
        again.set_base("gpt@4")
        lab.set_current("pretraining/gpt")
        again.shutdown()
    with dock_in_sight(qtbot, FinetuneSetupDock(lab), 360, 800) as last:
        last.remember(settings)
        last.model.suggest()
        assert last.model.value() == "gpt@4"
    with dock_in_sight(qtbot, FinetuneSetupDock(lab), 360, 800) as other:
        assert other.model.value() == base
        qtbot.waitUntil(lambda: "Suggested" in other.model.about.text())
        other.set_base(base)  # what was suggested, but named now
        qtbot.waitUntil(lambda: "Suggested" not in other.model.about.text())
        lab.set_current("pretraining/newer")
        assert other.model.value() == base
        assert other.given()["model.base"] == base


def test_the_settings_of_a_run_come_back(qtbot: QtBot, lab: Lab, dock: FinetuneSetupDock) -> None:
    dock.form.set_values({"model.base": "a/b", "lora.rank": 3, "samples.prompts": ("one\ntwo", "three")})
    settings = dock.form.settings()
    dock.fill({"preset": "scratch"})
    assert dock.form.settings() != settings
    lab.set_up_again(settings, "scratch")
    assert dock.form.settings() == settings


def test_the_model_box_offers_what_is_here(qtbot: QtBot, base: str, dock: FinetuneSetupDock) -> None:
    box = dock.model.box
    qtbot.waitUntil(lambda: base in [box.itemData(place) for place in range(box.count())])


def drop(dock: FinetuneSetupDock, path: Path) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    position, action = QPoint(5, 5), Qt.DropAction.CopyAction
    dock.dropEvent(QDropEvent(position, action, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier))


def test_what_is_dropped_is_taken(
    qtbot: QtBot, lab: Lab, base: str, trained: RunFolder, dock: FinetuneSetupDock, tmp_path: Path
) -> None:
    examples = tmp_path / "mine.jsonl"
    examples.write_text('{"prompt": "1+1", "completion": "2"}\n')
    drop(dock, examples)
    assert dock.examples.value() == str(examples)
    drop(dock, trained.path)
    assert dock.model.value() == str(trained.path)
    ready(qtbot, dock)
    errors: list[LabError] = []
    lab.error_raised.connect(errors.append)
    note = tmp_path / "note.txt"
    note.write_text("just text")
    drop(dock, note)
    assert "holds no examples" in errors[0].what


def test_what_may_land_is_framed_while_it_is_dragged_and_all_else_is_refused(
    dock: FinetuneSetupDock, trained: RunFolder, tmp_path: Path
) -> None:
    for name in ("mine.jsonl", "note.txt", "picture.png"):
        (tmp_path / name).write_text("x")
    for path, lands in (
        (tmp_path / "mine.jsonl", True),
        (trained.path, True),
        (tmp_path / "note.txt", False),  # the window around it may take it
        (tmp_path / "picture.png", False),
    ):
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path))])
        buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        entered = QDragEnterEvent(QPoint(5, 5), Qt.DropAction.CopyAction, data, buttons, keys)
        QApplication.sendEvent(dock, entered)
        frame = dock.findChild(QWidget, "drop frame")
        assert (entered.isAccepted(), frame is not None) == (lands, lands), path
        if frame is not None:
            assert frame.isVisible()
            assert frame.geometry() == dock.rect()
            QApplication.sendEvent(dock, QDragLeaveEvent())
            assert not frame.isVisible()
            QApplication.sendPostedEvents(frame, QEvent.Type.DeferredDelete)


# In the window -------------------------------------------------------------------------------------------------------
