"""What is free is what the system and the container leave, and a model that needs more is refused before it is read."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from llmlab.core import memory
from llmlab.core.errors import LabError


def _group(folder: Path, limit: str, used: int, about: str) -> tuple[str, str, str]:
    for name, text in (("max", limit), ("current", str(used)), ("stat", about)):
        (folder / name).write_text(text)
    return str(folder / "max"), str(folder / "current"), str(folder / "stat")


@pytest.mark.parametrize(
    ("limit", "used", "about", "expected"),
    [
        ("1000000\n", 400_000, "anon 1\ninactive_file 100000\nfile 5", 700_000),
        ("1000000\n", 700_000, "active_file 200000\ninactive_file 100000\nanon 1", 600_000),
        ("1000000\n", 400_000, "", 600_000),
        ("1000000\n", 1_500_000, "anon 1", 0),
    ],
)
def test_a_containers_limit_counts_without_the_files_that_it_can_drop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, used: int, about: str, expected: int
) -> None:
    monkeypatch.setattr(memory, "_GROUPS", (_group(tmp_path, limit, used, about),))
    assert memory.available_bytes() == expected


def test_without_a_limit_the_system_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for groups in ((), (_group(tmp_path, "max\n", 5, ""),), (("/nowhere",) * 3,)):
        monkeypatch.setattr(memory, "_GROUPS", groups)
        assert memory.available_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_what_does_not_fit_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 2_000_000_000)
    memory.require_memory(1_000_000_000, "small")
    with pytest.raises(LabError, match=r"large does not fit into memory. Its weights take 1\.90 GB; 2\.00 GB are free"):
        memory.require_memory(1_900_000_000, "large")
