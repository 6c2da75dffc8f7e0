"""Rules of the house: the window's process never imports torch, the core never imports Qt, painters are closed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from waits import SECONDS

ROOT = Path(__file__).resolve().parents[2]
GUI_MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "llmlab_gui").rglob("*.py")
    if path.name != "__main__.py"
)
# What the window needs of experiments and papers, some of it only when it is asked for.
_STUDIES = ["plans.records", "plans.divergence", "launcher", "report"]
_STUDIES += [f"papers.{name}" for name in ["agreement", "checks", "interface", "records"]]
_STUDIES += [f"experiments.{name}" for name in ["kinds", "outcomes", "plan", "fits", "results", "analyses", "curves"]]
OF_THE_WINDOW = [*GUI_MODULES, *(f"llmlab.studies.{name}" for name in _STUDIES)]
HEAVY = ("torch", "transformers", "datasets", "tokenizers", "tiktoken", "pyarrow", "peft", "bitsandbytes", "matplotlib")
QT = ("PySide6", "shiboken6", "pyqtgraph", "PyQt5", "PyQt6", "llmlab_gui")
# What a headless machine or a worker imports; each must do without Qt.
CORE_MODULES = (
    *("llmlab.jobs.worker", "llmlab.jobs.launcher", "llmlab.store.overview", "llmlab.data.corpora"),
    *("llmlab.data.dataset", "llmlab.gpt.model", "llmlab.gpt.estimate", "llmlab.jobs.model_host"),
)


def loaded_after(code: str) -> set[str]:
    """Top-level packages in a fresh interpreter that ran `code`."""
    script = f"{code}\nimport sys\nprint(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("\n")[-2].split())


def test_the_window_opens_without_its_docks_and_no_module_of_it_imports_torch(tmp_path: Path) -> None:
    all_docks = (ROOT / "llmlab_gui/window/all_docks.py").read_text(encoding="utf-8")
    docks = re.findall(r"^from (llmlab_gui\.(?!lab)\S+) import .*Dock$", all_docks, re.MULTILINE)
    assert len(docks) > 30
    loaded = loaded_after(
        "import sys, llmlab_gui.window.main_window\n"
        f"assert sys.modules.keys().isdisjoint({docks})\n"  # they are loaded when the window is seen
        + "\n".join(f"import {module}" for module in OF_THE_WINDOW)
        + "\n"
        "from pathlib import Path\n"
        "from PySide6.QtWidgets import QApplication\n"
        "from llmlab_gui.window.main_window import MainWindow\n"
        "from llmlab_gui.lab.window_settings import WindowSettings\n"
        "app = QApplication([])\n"
        f"window = MainWindow(Path({str(tmp_path)!r}), WindowSettings(Path({str(tmp_path / 'w.ini')!r})))\n"
        "window.show()\n"
        "for dock_id in window.docks:\n"
        "    window.show_dock(dock_id)\n"
        "    app.processEvents()\n"
        "window.menus.commands()\n"
        "window.close_quietly()\n"
    )
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)
    assert {"PySide6", "pyqtgraph", "llmlab"} <= loaded  # the imports really happened


@pytest.mark.slow
def test_the_core_runs_without_qt() -> None:
    loaded = loaded_after("\n".join(f"import {module}" for module in CORE_MODULES))
    assert loaded.isdisjoint(QT), loaded & set(QT)


def test_the_help_imports_nothing_that_takes_long_and_a_command_no_others() -> None:
    code = "import sys\nfrom llmlab.cli.main import main\n"
    code += "main(['pretrain', '--no-such'])\nassert 'llmlab.cli.runs' not in sys.modules\n"
    code += "main([])\nassert 'llmlab.cli.doctor' in sys.modules\n"
    assert loaded_after(code).isdisjoint((*HEAVY, *QT))


def test_no_line_of_the_core_imports_qt() -> None:
    imports = re.compile(rf"^\s*(?:from|import) .*\b(?:{'|'.join(QT)})\b(?=[\s.,]|$)", re.MULTILINE)
    found = [path for path in (ROOT / "llmlab").rglob("*.py") if imports.search(path.read_text(encoding="utf-8"))]
    assert found == []


def test_every_painter_of_the_window_is_closed_where_painting_fails() -> None:
    """By `with`: one that is open when what it paints on goes ends the process, and the error is never told."""
    left_open = re.compile(r"^(?!\s*with ).*\bQ(?:Style)?Painter\(", re.MULTILINE)
    found = [path for path in (ROOT / "llmlab_gui").rglob("*.py") if left_open.search(path.read_text(encoding="utf-8"))]
    assert found == []
