"""Planning, following and reading experiments takes no torch: the window does it in its own process."""

from __future__ import annotations

import subprocess
import sys

LIGHT = "kinds outcomes plan fits divergence results analyses curves"


def test_what_the_window_imports_brings_neither_torch_nor_matplotlib() -> None:
    imports = "import llmlab.studies.records, llmlab.studies.launcher, llmlab.studies.report; "
    imports += "; ".join(f"import llmlab.studies.experiments.{name}" for name in LIGHT.split())
    heavy = "[name for name in ('torch', 'transformers', 'matplotlib', 'PySide6') if name in sys.modules]"
    script = f"import sys; {imports}; print({heavy})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
