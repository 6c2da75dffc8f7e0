"""Looking inside, the whole way: a real window, the real model host, a run that trains while it is looked at."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from windows import press_train, state_of

from llmlab.core.errors import LabError
from llmlab.inspection.archive import read_archive
from llmlab_gui.forms.model_dialog import ModelDialog
from llmlab_gui.inside.attention import STAGES, AttentionDock
from llmlab_gui.inside.prompt import PromptDock
from llmlab_gui.pages.places import LOOK_INSIDE
from llmlab_gui.window.main_window import MainWindow

PROMPT = "the king and the queen"


def docks(window: MainWindow) -> tuple[PromptDock, AttentionDock]:
    prompt, attention = window.docks["prompt"], window.docks["attention"]
    assert isinstance(prompt, PromptDock)
    assert isinstance(attention, AttentionDock)
    return prompt, attention


def host_of(window: MainWindow) -> psutil.Process:
    process = window.lab.inspection.host._process
    assert process is not None
    return psutil.Process(int(process.processId()))


@pytest.mark.slow
def test_a_run_is_looked_into_while_it_trains_and_after_the_host_was_killed(
    same_window: MainWindow, qtbot: QtBot, tmp_path: Path
) -> None:
    window, session = same_window, same_window.lab.inspection
    errors: list[LabError] = []
    window.lab.error_raised.connect(errors.append)
    run = press_train(window, qtbot, "real", 100_000)
    qtbot.waitUntil(lambda: state_of(window, "real") == "running")

    # Live: answered at its own steps, and again when it has learned.
    session.set_prompt("the king", False)
    session.look.following.set(True, 0.5)
    window.look_inside(f"{run.path}@live")
    prompt, attention = docks(window)
    assert prompt.isVisible()
    assert attention.isVisible()
    qtbot.waitUntil(lambda: session.look.archive is not None or bool(errors))
    assert not errors, errors
    assert session.about is not None
    assert session.about.live
    assert (session.about.n_layer, session.about.n_head) == (2, 2)
    assert "real" in window.model_bar.button.text()
    assert "(live), inspected at step " in window.model_bar.button.text()
    assert prompt.follow.isVisible()
    first = session.look.archive
    qtbot.waitUntil(lambda: session.look.archive is not None and session.look.archive is not first)
    assert not errors

    # A saved checkpoint of it: click a head, and everything follows.
    window.run_actions.stop.trigger()
    qtbot.waitUntil(lambda: state_of(window, "real") == "stopped")
    window.look_inside("real@latest")
    qtbot.waitUntil(lambda: session.about is not None and session.about.kind == "scratch")
    errors.clear()  # who looks again just as the run ends is told so
    session.set_prompt(PROMPT, False, at_once=True)
    qtbot.waitUntil(lambda: prompts(window) == PROMPT)
    archive = session.look.archive
    assert archive is not None
    assert "".join(token.text for token in prompt.chips.tokens) == PROMPT
    mosaic = attention.heads.mosaic
    qtbot.mouseClick(mosaic, Qt.MouseButton.LeftButton, pos=mosaic.rect_of(1, 1).center().toPoint())
    assert np.array_equal(attention.heatmap.heat.values, archive["attention/1"][1])
    assert np.allclose(np.array(archive["attention/1"][1]).sum(-1), 1, atol=1e-5)

    attention.heatmap.pointed.emit(3, 1)  # as the mouse does: tests of the panel by itself
    assert prompt.chips.under == 3
    attention.show_view(STAGES)
    qtbot.waitUntil(lambda: attention.stages.archive is not None)
    assert np.allclose(attention.stages.archive["stages/pattern"], archive["attention/1"][1], atol=1e-5)

    # What is shown is saved.
    said: list[str] = []
    window.lab.said.connect(said.append)
    path = tmp_path / "stages.safetensors"
    attention.export(path)
    qtbot.waitUntil(lambda: f"Saved {path}." in said)
    assert read_archive(path).metadata.model == session.about.reference

    # The host is killed: a message, and the next prompt is answered.
    kill_host(window, qtbot)
    assert window.isVisible()
    session.set_prompt(PROMPT + " and", False, at_once=True)
    qtbot.waitUntil(lambda: prompts(window) == PROMPT + " and")
    assert not errors
    session.close()  # or a panel asks again, and a process outlasts its test
    kill_host(window, qtbot)


def kill_host(window: MainWindow, qtbot: QtBot) -> None:
    """As the system does it when memory runs out."""
    os.kill(host_of(window).pid, signal.SIGKILL)
    qtbot.waitUntil(lambda: window.lab.inspection.host._process is None)


def prompts(window: MainWindow) -> str:
    found = window.lab.inspection.look.archive
    return str(found.metadata.question.get("text", "")) if found is not None else ""


def test_a_model_is_chosen_in_the_dialog(same_window: MainWindow, monkeypatch: pytest.MonkeyPatch) -> None:
    window, opened = same_window, list[str]()
    monkeypatch.setattr(window.lab.inspection, "open", opened.append)
    window.model_bar.choose_action.trigger()
    dialog = next(child for child in window.findChildren(ModelDialog))
    assert not dialog.open_button.isEnabled()
    dialog.reference.setText("owner/base")
    dialog.adapter.setText("/adapters/one")
    dialog.open_button.click()
    assert opened == ["owner/base+/adapters/one"]
    QApplication.processEvents()


def test_every_inspection_panel_waits_for_a_model(same_window: MainWindow) -> None:
    window = same_window
    window.use_workspace(LOOK_INSIDE)
    for name in ("attention", "contributions", "residual", "lens"):
        window.show_dock(name)
        assert window.docks[name]._empty._title.text() == "No model is open"
