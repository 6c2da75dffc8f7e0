"""Checking a learner's file in a process of its own, and the answer. No torch, and none of the learner's code here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llmlab.core.errors import LabError
from llmlab.core.files import sha256_of
from llmlab.core.paths import module_command
from llmlab.exercises.pieces import Piece, Workbook

SECONDS = 60.0  # all steps of a right answer take two or three, most of them to load torch; a machine may be busy
MEMORY_BYTES = 1 << 30  # beside Python and torch; no case needs a tenth of it
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


def answer_from_json(values: dict[str, Any]) -> Answer:
    """The inverse of `as_json`. Raises TypeError and KeyError."""
    return Answer(**{**values, "steps": [StepAnswer(**step) for step in values["steps"]]})


def check(piece: Piece, workbook: Workbook, *, seconds: float = SECONDS, memory: int = MEMORY_BYTES) -> Answer:
    """Checks the file of a piece, and records that it passed. UsageError where it is not started."""
    path = workbook.require(piece).resolve()
    digest = sha256_of(path)
    answer = check_file(piece, path, seconds=seconds, memory=memory)
    with contextlib.suppress(OSError):  # removed or saved anew meanwhile: what passed may be another version
        workbook.record(piece, digest, answer.passed and sha256_of(path) == digest)
    return answer


def check_file(piece: Piece, path: Path, *, seconds: float = SECONDS, memory: int = MEMORY_BYTES) -> Answer:
    """What the steps find in that file."""
    with tempfile.TemporaryDirectory(prefix="llmlab-check-") as folder:
        told, printed = Path(folder) / "answer.jsonl", Path(folder) / "printed.txt"
        told.touch()
        with printed.open("wb") as output:
            end = _run(piece, path, told, output, seconds, memory)
        lines = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        said = printed.read_text(encoding="utf-8", errors="replace")
    if not lines:
        raise LabError(f"{piece.name} could not be checked.", f"Its checks did not begin. {said[-300:]}".strip())
    return _answer(piece, path, lines, end, said)


def _run(piece: Piece, path: Path, told: Path, output: Any, seconds: float, memory: int) -> str:
    """Runs the checks; says how the process ended, where that was not by itself."""
    words = [str(piece.folder), str(path), str(told), str(memory), str(os.getpid())]
    process = subprocess.Popen(
        [*module_command("llmlab.exercises.check_process"), *words],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=path.parent,
        start_new_session=True,
    )
    try:
        code = process.wait(timeout=seconds)
        return f"It ended the process that checks it (exit code {code})." if code else ""
    except subprocess.TimeoutExpired:
        return f"It did not end within {seconds:g} seconds. Is there a loop without an end?"
    finally:
        with contextlib.suppress(OSError):  # what it started ends with it
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()


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
