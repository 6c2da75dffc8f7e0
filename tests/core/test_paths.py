"""Processes of the lab run the lab's code, and none from the folder in which a command was given."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import new_run, train_here
from waits import SECONDS

import llmlab
from llmlab.data import template_rendering as rendering
from llmlab.models.adapter_patterns import require_quick
from llmlab.store.overview import OverviewReader

# What Python's library has, and each of these processes imports before anything else that can fail.
_IMPORTED = ("json", "argparse", "dataclasses", "pathlib", "re", "subprocess", "llmlab")


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a downloaded model, say, in which files are called like modules: to import one leaves a trace."""
    folder, trace = tmp_path / "downloaded", tmp_path / "trace"
    folder.mkdir()
    for name in _IMPORTED:
        (folder / f"{name}.py").write_text(f"open({str(trace)!r}, 'w').close()\nraise SystemExit(3)\n")
    monkeypatch.chdir(folder)
    yield folder
    assert not trace.exists()


@pytest.mark.usefixtures("strange")
def test_patterns_are_tried_by_the_labs_code_alone() -> None:
    require_quick({"target_modules": "(q|v)_proj"}, ["q_proj"], "any")


@pytest.mark.usefixtures("strange")
def test_chat_templates_are_rendered_by_the_labs_code_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_running", None)
    asked = [{"conversation": [{"role": "user", "content": "What?"}]}]
    try:
        assert rendering.render("{{ messages[0].content }}", asked) == ["What?"]
    finally:
        started = rendering.running()
        assert started is not None
        started.end()


@pytest.mark.slow
def test_a_run_is_read_by_the_labs_code_alone(outputs: Path, strange: Path) -> None:
    reader = OverviewReader(train_here(new_run(outputs)))
    try:
        reader._process.wait(SECONDS)
        assert reader.result().events
    finally:
        reader.close()


def test_no_process_of_the_lab_looks_for_modules_where_it_starts() -> None:
    """`python -m` and `python -c` would: both go through `llmlab.core.paths.python_command`."""
    package = Path(llmlab.__file__).parent
    sources = [*package.rglob("*.py"), *(package.parent / "llmlab_gui").rglob("*.py")]
    found = [path.name for path in sources if re.search(r"sys\.executable,\s*\"-[mc]\"", path.read_text("utf-8"))]
    assert found == ["paths.py"]


def test_a_module_is_found_without_being_installed(tmp_path: Path) -> None:
    """By a checkout that was started from its own folder."""
    code = (
        "import sys; from llmlab.core.paths import module_command; print(*module_command('llmlab'), sep=chr(0), end='')"
    )
    root = Path(llmlab.__file__).parents[1]
    command = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True).stdout
    words = [*command.decode().split("\0"), "--version"]
    said = subprocess.run(words, cwd=tmp_path, capture_output=True, check=True, env={}).stdout
    assert llmlab.__version__ in said.decode()
