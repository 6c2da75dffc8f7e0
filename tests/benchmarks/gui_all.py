"""Benchmarks of the window one after another, in one process, which imports what they need once.

python tests/benchmarks/gui_all.py gui_redraw gui_palette --runs 10         (each name with its own arguments)
"""

from __future__ import annotations

import importlib
import itertools
import sys


def main() -> int:
    """1 where one of them missed its bar and says so."""
    words, missed = sys.argv[1:], False
    begins = [at for at, word in enumerate(words) if word.startswith("gui_")]
    for begin, end in itertools.pairwise([*begins, len(words)]):
        sys.argv = words[begin:end]
        print(f"== {' '.join(sys.argv)}", flush=True)
        missed |= bool(importlib.import_module(words[begin]).main())
    return missed


if __name__ == "__main__":
    sys.exit(main())
