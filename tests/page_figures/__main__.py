"""Draws the figures of concept pages anew: those that are named, or all."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from llmlab.core.paths import resources_dir
from page_figures import FIGURES

if __name__ == "__main__":
    for name in sys.argv[1:] or FIGURES:
        path = resources_dir() / "concepts" / "figures" / f"{name}.svg"
        path.write_text(FIGURES[name]().svg(), encoding="utf-8")
