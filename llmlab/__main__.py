"""`python -m llmlab`: the same as `llmlab-run`."""

from __future__ import annotations

import sys

from llmlab.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
