"""The process that a piece is checked in.

    python -m llmlab.exercises.check_process FOLDER FILE ANSWER MEMORY SECONDS PARENT

It runs the learner's code, with a limit on memory and on what it writes; whoever started it ends it in time. What is
found goes into the file ANSWER, a line of JSON for each step as it begins and ends: the process may die in any of them.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from llmlab.core.processes import follow_parent
from llmlab.exercises.checker import WHERE, WRITTEN_BYTES
from llmlab.exercises.checking import Step, Wrong, load_file, load_parts, said, steps_of, take
from llmlab.exercises.parts import Part

# Before its time is over it says where it is.
_EARLY_SECONDS = 0.5


def main(argv: list[str]) -> int:
    folder, file, answer, memory, seconds, parent = argv
    follow_parent(int(parent))
    torch.set_num_threads(1)
    parts = load_parts(Path(folder))
    steps = steps_of(parts)
    left = float(seconds) - (time.time() - psutil.Process().create_time())
    with open(answer, "a", encoding="utf-8") as lines, Path(answer).with_suffix(WHERE).open("w") as stack:

        def tell(**values: Any) -> None:
            print(json.dumps(values), file=lines, flush=True)

        tell(steps=[[step.name, step.title] for step in steps])
        _limit(int(memory))
        faulthandler.dump_traceback_later(max(0.1, left - _EARLY_SECONDS), file=stack)
        try:
            _take(steps, parts, Path(file), tell)
        finally:
            faulthandler.cancel_dump_traceback_later()
    return 0


def _take(steps: Sequence[Step], parts: Sequence[Part], file: Path, tell: Callable[..., None]) -> None:
    functions: dict[str, Callable[..., Any]] = {}
    for place, step in enumerate(steps):
        tell(begins=place)
        try:
            if not functions:
                functions = load_file(file, [part.name for part in parts])
            take(step, parts, functions, file)
        except Wrong as wrong:
            known = wrong.mistake
            tell(fails=place, fact=str(wrong), mistake=known.name if known else "", why=known.why if known else "")
            return
        except BaseException as error:  # SystemExit among them
            tell(fails=place, fact=said(error, file), mistake="", why="")
            return
    tell(begins=len(steps))


def _limit(memory: int) -> None:
    """Memory in bytes beyond what Python and torch have already, and what may be written; where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_FSIZE, (WRITTEN_BYTES, WRITTEN_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # os.abort() would leave its memory in a file
    if sys.platform == "linux":  # elsewhere address space is not limited, or counts what is shared
        most = psutil.Process().memory_info().vms + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
