"""Errors that nothing caught: in the log, and told."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from llmlab.core.errors import LabError
from llmlab_gui.window import uncaught


def test_an_error_that_comes_of_telling_one_is_in_the_log_alone(
    qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sys, threading):
        monkeypatch.setattr(module, "excepthook", module.excepthook)
    monkeypatch.setattr(uncaught, "qInstallMessageHandler", lambda _: None)
    monkeypatch.setattr(uncaught._log, "handlers", [])
    told: list[LabError] = []

    def tell(error: LabError) -> None:
        told.append(error)
        if len(told) < 9:
            raise ValueError("the second")

    post = uncaught.install(tmp_path / "window.log")
    post.unexpected.connect(tell)
    for _ in range(2):
        sys.excepthook(KeyError, KeyError("the first"), None)
    assert [str(error).count("the first") for error in told] == [1, 1]
    log = (tmp_path / "window.log").read_text()
    assert (log.count("the first"), log.count("ValueError: the second")) == (2, 2)
    uncaught._log.handlers[0].close()
