"""Which models the window offers: what is dropped or was used lately, the dialog, and Write with the active one."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast
from unittest import mock

import pytest
from fake_lab import FakeLab
from fakes import CancelAfter, FakeRun
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QPushButton
from pytestqt.qtbot import QtBot
from windows import FAKE_HOST, MakeWindow, shown

from llmlab.core.errors import Cancelled, LabError
from llmlab.core.progress import Progress
from llmlab.core.records import from_plain
from llmlab.models.available import available_models
from llmlab.store.checkpoints import checkpoint_name
from llmlab_gui.forms.model_dialog import ModelDialog
from llmlab_gui.host.messages import ModelAbout
from llmlab_gui.host.process import ModelHost
from llmlab_gui.host.recent import Recent, RecentModel
from llmlab_gui.host.session import InspectionSession
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.pages.places import LOOK_INSIDE
from llmlab_gui.widgets import drops
from llmlab_gui.window.model_bar import ModelBar
from llmlab_gui.window.setups import Setups
from llmlab_gui.write.dock import WriteDock

if TYPE_CHECKING:
    from llmlab_gui.inside.lens import LensDock


@pytest.mark.parametrize(
    "files",
    [("config.json", "model.safetensors", "merges.txt"), ("adapter_config.json",), ("tiny.gguf", "readme.txt")],
    ids=["hugging-face", "adapter", "gguf"],
)
def test_a_folder_with_a_model_is_a_model_also_with_texts_beside_it(tmp_path: Path, files: tuple[str, ...]) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    assert drops.meaning(tmp_path) == drops.DroppedModel(str(tmp_path))


def test_a_gguf_file_is_a_model_and_other_files_are_what_they_were(tmp_path: Path) -> None:
    model, text, picture = (tmp_path / name for name in ("a.gguf", "a.txt", "a.png"))
    for path in (model, text, picture):
        path.write_text("x")
    assert drops.meaning(model) == drops.DroppedModel(str(model))
    assert drops.meaning(text) == drops.DroppedText(text)
    with pytest.raises(LabError, match="nor a model"):
        drops.meaning(picture)


def test_a_folder_is_one_of_texts_however_deep_they_lie_and_the_search_can_be_cancelled(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    with pytest.raises(LabError, match="nor a text"):
        drops.meaning(tmp_path)
    (deep / "story.TXT").write_text("x")
    assert drops.meaning_at_once(tmp_path) is None
    assert drops.meaning(tmp_path) == drops.DroppedText(tmp_path)
    with pytest.raises(Cancelled):
        drops.meaning(tmp_path, CancelAfter(1))


def test_a_dropped_folder_is_searched_in_a_thread_and_the_search_cancelled(
    make_main_window: MakeWindow, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def endless(path: Path, progress: Progress) -> None:
        threads.append(threading.current_thread())
        while True:
            progress(f"Looking for texts in {path.name}", 0, 0)
            time.sleep(0.005)

    monkeypatch.setattr(drops, "meaning", endless)
    window = make_main_window(docks=False)
    monkeypatch.setattr(Setups, "shown_setup", property(lambda _: None))
    monkeypatch.setattr(Setups, "fine_tuning", property(lambda _: object()))
    window.open_path(tmp_path)
    strip = window.covers.looking_strip
    qtbot.waitUntil(strip.isVisible)
    qtbot.waitUntil(lambda: strip.what.text() == f"Looking for texts in {tmp_path.name}")
    assert threads[0] is not threading.main_thread()
    window.lab.error_raised.emit(LabError("The disk is full."))
    assert window.covers.messages.isVisible()
    assert not strip.geometry().intersects(window.covers.messages.geometry())  # it can still be cancelled
    strip.cancel_button.click()
    qtbot.waitUntil(strip.isHidden)
    window.open_path(tmp_path)
    qtbot.waitUntil(lambda: len(threads) == 2)  # and closing ends this one


def test_recent_models_come_first_once_and_survive_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recent = Recent()
    for number in range(30):
        recent.add_model(RecentModel(f"m{number}", f"Model {number}", "small"))
    recent.add_model(RecentModel("m15", "Model 15", "small"))
    recent.add_prompt("The king")
    assert [model.reference for model in recent.models][:3] == ["m15", "m29", "m28"]
    assert len(recent.models) == 20
    run = FakeRun(tmp_path, "bar").start().advance(250).save_checkpoint().run
    (tmp_path / "small@2").mkdir()
    kept = ["pretraining/bar@250", f"{run.path}@250", "bar@latest", "/models/small", f"{tmp_path}/small@2"]
    deleted = ["bar@100", f"{run.path}@100", "pretraining/foo@250"]  # and a run that is gone
    live = ["pretraining/bar@live"]
    both = Recent([RecentModel(reference, "") for reference in (*live, *kept, *deleted)])
    assert [model.reference for model in both.there(tmp_path)] == kept
    both.add_model(RecentModel(f"{run.path}@live", "bar (live)"))
    assert both.left_open(tmp_path) == RecentModel(f"{run.path}@latest", "bar (live)")  # the window was killed
    both.add_model(RecentModel(f"{FakeRun(tmp_path, 'unsaved').start().run.path}@live", "unsaved (live)"))
    assert both.left_open(tmp_path) is None
    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", mock.Mock(side_effect=PermissionError))
        assert both.left_open(tmp_path) is None
    settings = WindowSettings(tmp_path / "window.ini")
    settings.recent = recent
    assert WindowSettings(tmp_path / "window.ini").recent == recent


def test_the_model_that_was_open_is_offered_again_until_it_is_closed_or_a_run_starts(
    qtbot: QtBot, outputs: Path, tmp_path: Path
) -> None:
    model = RecentModel("/models/small", "small")
    for end in ("close", "start", "gone"):
        settings = WindowSettings(tmp_path / "window.ini")
        recent = Recent()
        recent.add_model(model)
        settings.recent = recent
        lab = Lab(outputs)
        bar = ModelBar(lab, settings)
        qtbot.addWidget(bar)
        assert lab.inspection.recent.left_open(outputs) == model
        assert lab.inspection.host._process is None  # nothing is opened unasked
        if end == "close":
            lab.inspection.close()
            assert settings.recent.left_open(outputs) is None
        elif end == "start":
            lab.controller.started.emit(FakeRun(outputs, "bar").start().run)
            assert settings.recent.left_open(outputs) is None
        else:
            lab.inspection.recent.add_model(RecentModel("bar@250", "bar, step 250"))
        assert lab.inspection.recent.left_open(outputs) is None
        lab.shutdown()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"models": 1}', '{"models": [{"name": 1}], "prompts": []}', "[" * 9999]
)
def test_damaged_settings_are_no_recent_models(tmp_path: Path, text: str) -> None:
    settings = WindowSettings(tmp_path / "window.ini")
    settings._settings.setValue("inspection/recent", text)
    assert settings.recent == Recent()


def test_a_description_of_a_newer_host_is_understood_and_a_broken_one_refused() -> None:
    about = from_plain(ModelAbout, {"reference": "a", "name": "A", "kind": "gguf", "n_layer": 2, "news": [1]})
    assert (about.n_layer, about.step, about.refusals) == (2, None, {})
    with pytest.raises(TypeError):
        from_plain(ModelAbout, {"name": "A"})


def test_the_dialog_lists_runs_and_finds_them(qtbot: QtBot, outputs: Path) -> None:
    FakeRun(outputs, "mine", steps=1000).start().advance(50)
    recent = Recent([RecentModel("/models/small", "small", "135M parameters")])
    dialog = ModelDialog(outputs, recent)
    qtbot.addWidget(dialog)
    chosen: list[str] = []
    dialog.chosen.connect(chosen.append)
    dialog.show()
    qtbot.waitUntil(lambda: dialog.rows.rowCount() >= 2)
    dialog.search.setText("training")
    assert dialog.table.model().rowCount() == 1
    dialog.table.selectRow(0)
    assert dialog.reference.text() == "mine@live"
    dialog.accept()
    assert chosen == ["mine@live"]


def test_keys_reach_the_list_from_the_search_and_enter_opens_the_first_match(qtbot: QtBot, outputs: Path) -> None:
    recent = Recent([RecentModel(f"/models/{name}", name, "small") for name in ("apple", "plum", "pear")])
    for keys, opened in (("", "apple"), ("p", "plum"), ("pe", "pear"), ("pl", "plum"), ("small", "apple")):
        assert opened_by(qtbot, outputs, recent, keys, down=0 if keys else 1) == [f"/models/{opened}"]
    for down, opened in ((1, "pear"), (2, "apple"), (3, "apple")):
        assert opened_by(qtbot, outputs, recent, "p", down=down) == [f"/models/{opened}"]
    assert opened_by(qtbot, outputs, recent, "pz") == []  # not what matched before


def test_a_name_is_found_before_what_begins_with_it_what_has_it_and_what_is_described_by_it(
    qtbot: QtBot, outputs: Path
) -> None:
    kept = [("tuned", "full on letters@300"), ("my-letters", ""), ("letters-2", ""), ("Letters", "small")]
    dialog = ModelDialog(outputs, Recent([RecentModel(f"/models/{name}", name, detail) for name, detail in kept]))
    qtbot.addWidget(dialog)

    def names() -> list[str]:
        shown = dialog.table.model()
        return [shown.index(row, 0).data() for row in range(shown.rowCount())]

    dialog.search.setText("letters")
    assert names() == ["Letters", "letters-2", "my-letters", "tuned"]
    assert dialog.reference.text() == "/models/Letters"
    dialog.search.setText("")
    assert names() == [name for name, _ in kept]
    dialog.close()


def test_what_is_listed_after_the_search_began_is_the_first_match_where_nobody_chose_another(
    qtbot: QtBot, outputs: Path
) -> None:
    FakeRun(outputs, "mine", steps=1000).start().advance(50)
    recent = Recent([RecentModel(f"/models/{name}", name, "full on mine@300") for name in ("tuned", "other")])
    for down, found in ((0, "mine@live"), (1, "/models/other")):
        dialog = ModelDialog(outputs, recent)
        qtbot.addWidget(dialog)
        dialog.search.setText("mine")
        assert dialog.reference.text() == "/models/tuned"
        for _ in range(down):
            qtbot.keyClick(dialog.search, Qt.Key.Key_Down)
        assert dialog.rows.rowCount() == 2
        qtbot.waitUntil(lambda dialog=dialog: dialog.rows.rowCount() > 2)
        assert dialog.reference.text() == found
        dialog.close()


def test_a_search_without_a_match_says_so(qtbot: QtBot, outputs: Path) -> None:
    dialog = ModelDialog(outputs, Recent([RecentModel("/models/apple", "apple", "small")]))
    qtbot.addWidget(dialog)
    qtbot.keyClicks(dialog.search, "apz")
    assert "No model matches “apz”." in dialog.note.text()
    qtbot.keyClick(dialog.search, Qt.Key.Key_Backspace)
    assert "matches" not in dialog.note.text()
    dialog.close()


def opened_by(qtbot: QtBot, outputs: Path, recent: Recent, keys: str, down: int = 0) -> list[str]:
    """What Enter opens after these keys in the search, and so many times Down."""
    dialog = ModelDialog(outputs, recent)
    qtbot.addWidget(dialog)
    chosen: list[str] = []
    dialog.chosen.connect(chosen.append)
    dialog.show()
    dialog.search.setFocus()
    qtbot.keyClicks(dialog.search, keys)
    for _ in range(down):
        qtbot.keyClick(dialog.focusWidget(), Qt.Key.Key_Down)
    qtbot.keyClick(dialog.focusWidget(), Qt.Key.Key_Return)
    dialog.close()
    return chosen


def test_while_a_model_opens_and_is_read_the_toolbar_has_the_only_cancel(
    make_main_window: MakeWindow, qtbot: QtBot
) -> None:
    window = make_main_window()
    session, strip = window.lab.inspection, window.train_bar.strip
    session.host._command = list(FAKE_HOST)
    window.use_workspace(LOOK_INSIDE)

    def cancels() -> list[QPushButton]:
        buttons = (button for button in window.findChildren(QPushButton) if button.text() == "Cancel")
        return [button for button in buttons if button.isVisible()]

    height = window.train_bar.height()
    hideable = window.createPopupMenu()
    assert not {bar.windowTitle() for bar in (window.train_bar, window.model_bar)} & {
        action.text() for action in hideable.actions() if action.isVisible()
    }
    session.open("slow/model")
    qtbot.waitUntil(lambda: strip.isVisible() and strip.what.text() == "Reading layers")
    assert window.train_bar.height() == height  # and no dock moves
    window.resize(1280, 640)
    strip.left.setText("about 2 min left")
    words = strip.what.fontMetrics().horizontalAdvance("Attention heads: layer 3 of 12")
    qtbot.waitUntil(lambda: strip.what.width() >= words)
    assert cancels() == [strip.cancel_button]
    assert strip.what.text() == "Opening slow/model" or strip.width() == strip.maximumWidth()
    strip.cancel_button.click()
    qtbot.waitUntil(lambda: not strip.isVisible())
    session.set_prompt("slow one", False)
    session.open("small")
    lens = cast("LensDock", window.docks["lens"])
    qtbot.waitUntil(lambda: strip.isVisible() and lens.strip.isVisible())
    assert cancels() == [strip.cancel_button]
    strip.cancel_button.click()
    qtbot.waitUntil(lambda: not strip.isVisible() and not lens.strip.isVisible())


def test_the_toolbar_names_the_model(qtbot: QtBot, outputs: Path, tmp_path: Path) -> None:
    lab = Lab(outputs)
    lab.inspection.host._command = list(FAKE_HOST)
    bar = shown(ModelBar(lab, WindowSettings(tmp_path / "window.ini")), qtbot, 900, 40)
    assert bar.button.text() == "No model"
    lab.inspection.open("/models/20261130-081913-baby-shakespeare, step 1,250")
    qtbot.waitUntil(lambda: "step" in bar.button.text())
    assert bar.button.text().startswith("20261130-0819…re, step 1,250 · ")
    kept = FakeRun(outputs, "bar").start().advance(250).save_checkpoint()
    lab.inspection.open("bar@250")
    qtbot.waitUntil(lambda: bar.button.text().startswith("bar@250 · "))
    kept.advance(250).save_checkpoint()
    shutil.rmtree(kept.run.checkpoints / checkpoint_name(250))  # as a run does that keeps few
    lab.refresh()
    qtbot.waitUntil(lambda: bar.button.text().startswith("bar@250 (deleted) · "))
    assert "was deleted" in bar.button.toolTip()
    lab.inspection.look.need("panel", ("heads",))
    lab.inspection.set_prompt("The king", False)
    lab.inspection.look.following.set(False)
    live = FakeRun(outputs, "foo").start().advance(90)  # the list of runs is behind the inspection
    lab.inspection.open("foo@live")
    for now, steps in ((100, 60), (150, 0)):
        lab.refresh()
        words = f"foo@live, inspected at step 100, now at {now} · "
        qtbot.waitUntil(lambda words=words: bar.button.text().startswith(words))
        live.advance(steps)
    live.finish()
    lab.inspection.open("/models/small")
    qtbot.waitUntil(lambda: bar.button.text().startswith("small"))
    assert bar.button.text() == "small · 0.12M · Hugging Face · 494 kB"
    assert "3 layers of 4 heads" in bar.button.toolTip()
    bar.menu.aboutToShow.emit()
    texts = [action.text() for action in bar.menu.actions()]
    assert "small" in texts
    assert texts[-1] == "Close the model"
    bar.menu.actions()[-1].trigger()
    assert bar.button.text() == "No model"
    assert WindowSettings(tmp_path / "window.ini").recent.models[0].reference == "/models/small"
    lab.shutdown()


def test_write_is_answered_by_the_active_model(qtbot: QtBot, tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    lab.inspection = InspectionSession(tmp_path, lab, host=ModelHost(command=FAKE_HOST))
    dock = WriteDock(lab)
    qtbot.addWidget(dock)
    dock.show()
    assert not dock.picker.answers
    lab.inspection.open("/models/small")
    qtbot.waitUntil(lambda: dock.picker.answers)
    assert dock.picker.active
    assert dock.picker.reference() == "/models/small"
    dock.form.tokens.setValue(4)
    dock.generate()
    qtbot.waitUntil(lambda: len(dock.text.tokens) == 4)
    fake = FakeRun(tmp_path, "mine", steps=1000).start()
    lab.add(fake.advance(100).save_checkpoint())
    qtbot.waitUntil(lambda: dock.picker.checkpoint is not None)
    assert dock.picker.reference().endswith("mine@100")  # the current run is followed as ever
    lab.inspection.close()
    assert "small (active)" not in [dock.picker.runs.itemText(i) for i in range(dock.picker.runs.count())]
    dock.shutdown()
    lab.inspection.shutdown()


def test_looking_for_models_can_be_cancelled_at_each_run_and_folder(tmp_path: Path) -> None:
    for name in ("bar", "foo"):
        FakeRun(tmp_path, name).start().advance(5).save_checkpoint()
    for calls in range(4):  # two runs, their track's folder, a run in it
        with pytest.raises(Cancelled):
            available_models(tmp_path, CancelAfter(calls))
