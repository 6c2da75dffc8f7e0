"""Checking a learner's file in a process of its own, and the answer. No torch, and none of the learner's code here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from llmlab.core.errors import LabError, explained
from llmlab.core.files import sha256_of
from llmlab.core.paths import module_command
from llmlab.exercises.pieces import CHECKS, Piece, Workbook

SECONDS = 60.0  # all steps of a right answer take two or three, most of them to load torch; a machine may be busy
MEMORY_BYTES = 1 << 30  # beside Python and torch; no case needs a tenth of it
WRITTEN_BYTES = 4_000_000  # that it prints, or writes into a file
TOO_MUCH_MEMORY, TOO_MUCH_WRITTEN = (
    "It needs more memory than it is given.",
    "It prints or writes more than a check takes.",
)
WHERE = ".where"  # instead of the answer's suffix: where the process writes what it is doing when its time is over
_LOOK_SECONDS = 0.2  # between looks at what it takes, for systems that do not limit it themselves
_PYTHON_BYTES = 1 << 29  # resident memory of Python with torch and the checks: 0.3 GB on Linux
_OUTPUT_KEPT = 2000  # characters of what it printed
PASSED, FAILED, WAITS = "passed", "failed", "waits"


@dataclass(frozen=True)
class StepAnswer:
    """One step: whether it passed, failed, or waits for an earlier one."""

    name: str
    title: str
    state: str
    fact: str = ""


@dataclass(frozen=True)
class Answer:
    """What a check found. mistake: the name of one that is known by what it computes, and `why` it is one."""

    piece: str
    file: str
    passed: bool
    steps: list[StepAnswer] = field(default_factory=list)
    mistake: str = ""
    why: str = ""
    printed: str = ""  # by the learner's code

    @property
    def fact(self) -> str:
        """The first fact that does not hold."""
        return next((step.fact for step in self.steps if step.state == FAILED), "")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def check(piece: Piece, workbook: Workbook, *, seconds: float = SECONDS, memory: int = MEMORY_BYTES) -> Answer:
    """Checks the file of a piece, and records that it passed. UsageError where it is not started."""
    path = workbook.require(piece).resolve()
    with explained(f"{piece.name} could not be checked."):  # where it has just been removed, or its folder
        digest = sha256_of(path)
        answer = check_file(piece, path, seconds=seconds, memory=memory)
    with contextlib.suppress(OSError):  # removed or saved anew meanwhile: what passed may be another version
        workbook.record(piece, digest, answer.passed and sha256_of(path) == digest)
    return answer


def check_file(piece: Piece, path: Path, *, seconds: float = SECONDS, memory: int = MEMORY_BYTES) -> Answer:
    """What the steps find in that file. What it does to its own checks is undone."""
    checks = piece.folder / CHECKS
    before = checks.read_bytes()
    with tempfile.TemporaryDirectory(prefix="llmlab-check-") as folder:
        told, printed = Path(folder) / "answer.jsonl", Path(folder) / "printed.txt"
        told.touch()
        with printed.open("wb") as output:
            end = _run(piece, path, told, output, seconds, memory)
        lines = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        said = printed.read_text(encoding="utf-8", errors="replace")
    if not checks.is_file() or checks.read_bytes() != before:
        checks.write_bytes(before)
        raise LabError(f"{piece.name} has changed its own checks.", f"{checks} is as it was again.")
    if not lines:
        raise LabError(f"{piece.name} could not be checked.", f"Its checks did not begin. {said[-300:]}".strip())
    return _answer(piece, path, lines, end, said)


def _run(piece: Piece, path: Path, told: Path, output: IO[bytes], seconds: float, memory: int) -> str:
    """Runs the checks; says how the process ended, where that was not by itself.

    Linux limits memory and what is written itself, and the code hears of it at the line that does it. Elsewhere the
    process is ended at the next look.
    """
    words = [str(piece.folder), str(path), str(told), str(memory), str(seconds), str(os.getpid())]
    process = subprocess.Popen(
        [*module_command("llmlab.exercises.check_process"), *words],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=path.parent,
        start_new_session=True,
    )
    try:
        begin = time.monotonic()
        while time.monotonic() < begin + seconds:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(_LOOK_SECONDS)
                how = f"exit code {code}" if code > 0 else f"signal {-code}"
                return f"It ended the process that checks it ({how})." if code else ""
            if _resident(process.pid) > memory + _PYTHON_BYTES:
                return TOO_MUCH_MEMORY
            if os.fstat(output.fileno()).st_size > WRITTEN_BYTES:
                return TOO_MUCH_WRITTEN
        return f"It did not end within {seconds:g} seconds. Is there a loop without an end?{_where(told, path)}"
    finally:
        with contextlib.suppress(OSError):  # what it started ends with it
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()


def _where(told: Path, path: Path) -> str:
    """The line of theirs that a process was at shortly before its time was over."""
    with contextlib.suppress(OSError, IndexError):  # the file may be another by now
        stack = told.with_suffix(WHERE).read_text(encoding="utf-8", errors="replace")  # the innermost call first
        if found := re.search(rf'"{re.escape(str(path))}", line (\d+)', stack):
            line = path.read_text(encoding="utf-8", errors="replace").splitlines()[int(found[1]) - 1]
            return f" It was at line {found[1]}: {line.strip()}"
    return ""


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 for one that is gone."""
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def _answer(piece: Piece, path: Path, lines: list[dict[str, Any]], end: str, said: str) -> Answer:
    named: list[list[str]] = lines[0]["steps"]
    reached = max((line["begins"] for line in lines if "begins" in line), default=0)
    failed = next((line for line in lines if "fails" in line), None)
    if failed is None and reached < len(named):
        failed = {"fails": reached, "fact": end or "It ended the process that checks it.", "mistake": "", "why": ""}
    steps = []
    for place, (name, title) in enumerate(named):
        if failed is not None and place == failed["fails"]:
            steps.append(StepAnswer(name, title, FAILED, failed["fact"]))
        else:
            steps.append(StepAnswer(name, title, PASSED if place < reached else WAITS))
    cut = said if len(said) <= _OUTPUT_KEPT else f"{said[:_OUTPUT_KEPT]}\n… (cut)"
    known = failed or {"mistake": "", "why": ""}
    return Answer(piece.name, str(path), failed is None, steps, known["mistake"], known["why"], cut)
