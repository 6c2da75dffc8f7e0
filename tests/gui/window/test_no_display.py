"""Without a display `llmlab-gui` says so in one line and names its twin; Qt's abort never happens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from waits import SECONDS

from llmlab_gui.window.display import missing_library, why_no_window

ROOT = Path(__file__).resolve().parents[3]
linux_only = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="these always have a display")


def run_gui(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    cleaned = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")}
    return subprocess.run(
        [sys.executable, "-m", "llmlab_gui", *arguments],
        cwd=ROOT,
        env=cleaned | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


@linux_only
@pytest.mark.parametrize(
    ("environment", "cause"),
    [
        ({}, "There is no display"),
        ({"DISPLAY": ":4242"}, ":4242 does not answer"),
        ({"DISPLAY": "nonsense"}, "nonsense does not answer"),
        ({"WAYLAND_DISPLAY": "wayland-4242", "XDG_RUNTIME_DIR": "/nowhere"}, "wayland-4242 does not answer"),
        ({"DISPLAY": ":4242", "QT_QPA_PLATFORM": "xcb"}, ":4242 does not answer"),
    ],
)
def test_no_display_is_one_line_and_names_the_twin(environment: dict[str, str], cause: str) -> None:
    done = run_gui(**environment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert cause in done.stderr
    assert "llmlab-run pretrain" in done.stderr


@linux_only
def test_help_and_version_need_no_display() -> None:
    assert "--outputs" in run_gui("--help").stdout
    assert run_gui("--version").stdout.startswith("LLM Learning Lab ")


def test_an_unknown_run_is_refused_in_a_sentence(outputs: Path) -> None:
    done = run_gui("nosuchrun", "--outputs", str(outputs), QT_QPA_PLATFORM="offscreen")
    assert done.returncode == 2
    assert "nosuchrun" in done.stderr
    assert "Traceback" not in done.stderr


@linux_only
def test_platforms_of_qt_that_bring_their_own_screen_are_let_through() -> None:
    for platform in ("offscreen", "minimal", "vnc", "vnc:size=800x600"):
        assert why_no_window({"QT_QPA_PLATFORM": platform}) is None
    assert why_no_window({"QT_QPA_PLATFORM": "xcb"}) is not None


@linux_only
def test_a_wayland_socket_that_listens_is_a_display(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "wayland-7"))
        server.listen(1)
        assert why_no_window({"WAYLAND_DISPLAY": "wayland-7", "XDG_RUNTIME_DIR": str(tmp_path)}) is None
        assert why_no_window({"WAYLAND_DISPLAY": str(tmp_path / "wayland-7")}) is None


def test_a_plugin_that_cannot_be_loaded_names_what_it_lacks(tmp_path: Path) -> None:
    broken = tmp_path / "libqxcb.so"
    broken.write_bytes(b"not a library")
    assert "libqxcb.so" in (missing_library(broken) or "")
    assert missing_library(tmp_path / "absent.so") is None


def test_outputs_that_lead_nowhere_are_refused_in_a_sentence() -> None:
    done = run_gui("--outputs", "~nobody-of-that-name/runs", QT_QPA_PLATFORM="offscreen")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "~nobody-of-that-name/runs leads nowhere" in done.stderr
