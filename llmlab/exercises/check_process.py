"""The process that a piece is checked in: `python -m llmlab.exercises.check_process FOLDER FILE ANSWER MEMORY PARENT`.

It runs the learner's code, with a limit on memory and on what it writes; whoever started it ends it in time. What is
found goes into the file ANSWER, a line of JSON for each step as it begins and ends: the process may die in any of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from llmlab.core.processes import follow_parent
from llmlab.exercises.checking import Wrong, load_file, load_parts, said, steps_of, take

_WRITTEN_BYTES = 4_000_000


def main(argv: list[str]) -> int:
    folder, file, answer, memory, parent = argv
    follow_parent(int(parent))
    torch.set_num_threads(1)
    parts = load_parts(Path(folder))
    steps = steps_of(parts)
    with open(answer, "a", encoding="utf-8") as lines:

        def tell(**values: Any) -> None:
            print(json.dumps(values), file=lines, flush=True)

        tell(steps=[[step.name, step.title] for step in steps])
        _limit(int(memory))
        functions: dict[str, Callable[..., Any]] = {}
        for place, step in enumerate(steps):
            tell(begins=place)
            try:
                if not functions:
                    functions = load_file(Path(file), [part.name for part in parts])
                take(step, parts, functions, Path(file))
            except Wrong as wrong:
                known = wrong.mistake
                tell(fails=place, fact=str(wrong), mistake=known.name if known else "", why=known.why if known else "")
                return 0
            except BaseException as error:  # SystemExit among them
                tell(fails=place, fact=said(error, Path(file)), mistake="", why="")
                return 0
        tell(begins=len(steps))
    return 0


def _limit(memory: int) -> None:
    """Memory in bytes beyond what Python and torch have already, and what may be written; where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    import psutil

    resource.setrlimit(resource.RLIMIT_FSIZE, (_WRITTEN_BYTES, _WRITTEN_BYTES))
    if sys.platform == "linux":  # elsewhere address space is not limited, or counts what is shared
        most = psutil.Process().memory_info().vms + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
