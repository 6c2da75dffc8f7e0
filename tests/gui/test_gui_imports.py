"""The two rules of the house: the window's process never imports torch, and the core never imports Qt."""

from __future__ import annotations

import ast
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
HEAVY = ("torch", "transformers", "datasets", "tokenizers", "tiktoken", "pyarrow", "peft", "bitsandbytes")
QT = ("PySide6", "shiboken6", "pyqtgraph", "PyQt5", "PyQt6", "llmlab_gui")
# What a headless machine or a worker imports; each must do without Qt.
CORE_MODULES = (
    "llmlab.cli.main",
    "llmlab.jobs.worker",
    "llmlab.jobs.launcher",
    "llmlab.store.overview",
    "llmlab.data.corpora",
    "llmlab.data.dataset",
    "llmlab.gpt.model",
    "llmlab.gpt.estimate",
    "llmlab.jobs.model_host",
)


def loaded_after(code: str) -> set[str]:
    """Top-level packages in a fresh interpreter that ran `code`."""
    script = f"{code}\nimport sys\nprint(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("\n")[-2].split())


def test_no_module_of_the_window_imports_torch() -> None:
    loaded = loaded_after("\n".join(f"import {module}" for module in GUI_MODULES))
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)
    assert {"PySide6", "pyqtgraph", "llmlab"} <= loaded  # the imports really happened


def test_an_open_window_has_not_imported_torch(tmp_path: Path) -> None:
    loaded = loaded_after(
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


def test_the_core_runs_without_qt() -> None:
    loaded = loaded_after("\n".join(f"import {module}" for module in CORE_MODULES))
    assert loaded.isdisjoint(QT), loaded & set(QT)


@pytest.mark.parametrize("path", sorted((ROOT / "llmlab").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_of_the_core_imports_qt(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        assert not [name for name in names if name.partition(".")[0] in QT], f"line {getattr(node, 'lineno', 0)}"
