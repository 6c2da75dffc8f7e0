"""The two walks through the code in the guide to the architecture are true: what they name runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from small_runs import new_run, train_here

from llmlab.cli.main import main
from llmlab.core.paths import resources_dir

ROOT = Path(__file__).resolve().parents[2]
PAGE = (resources_dir() / "guides" / "architecture.md").read_text(encoding="utf-8")


def steps_of(heading: str) -> list[tuple[str, str]]:
    """File and name of each step under a heading."""
    walk = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\d+\. `(llmlab[\w/]*\.py)`: `([\w.]+)`", walk, flags=re.MULTILINE)


def entered(work: Callable[[], object]) -> list[tuple[str, str]]:
    """Files and functions of the lab that run, in the order in which each is entered first; classes that are made."""
    found: dict[tuple[str, str], None] = {}

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(ROOT)):
            name = frame.f_code.co_name
            name = type(frame.f_locals["self"]).__name__ if name == "__init__" else name
            found.setdefault((Path(frame.f_code.co_filename).relative_to(ROOT).as_posix(), name))

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(before)
    return list(found)


def not_run(heading: str, ran: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Steps under a heading that did not run."""
    wanted = [(path, name.rpartition(".")[2]) for path, name in steps_of(heading)]
    return [step for step in wanted if step not in ran]


def test_a_training_step_runs_what_the_architecture_says(tmp_path: Path) -> None:
    run = new_run(tmp_path, steps=2)
    assert len(steps_of("One training step")) == 9
    assert not_run("One training step", entered(lambda: train_here(run))) == []


def test_an_inspected_prompt_runs_what_the_architecture_says(tmp_path: Path) -> None:
    train_here(new_run(tmp_path, steps=2, name="bar"))
    words = ["inspect", "bar", "--prompt", "the king", "--outputs", str(tmp_path), "--out", str(tmp_path / "seen")]
    assert len(steps_of("One inspected prompt")) == 11
    assert not_run("One inspected prompt", entered(lambda: main(words))) == []
