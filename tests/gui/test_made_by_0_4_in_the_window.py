"""The window on what version 0.4 made: all of it is listed, as 0.4 itself listed it, and nothing is called damaged."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from pytestqt.qtbot import QtBot
from windows import MakeWindow

# Made and explained in tests/formats; "outputs" in it becomes the test's own outputs folder.
ARCHIVE = Path(__file__).parents[1] / "formats" / "made_by_0.4.tar.xz"


def test_the_window_lists_all_of_it(make_main_window: MakeWindow, outputs: Path, qtbot: QtBot) -> None:
    with tarfile.open(ARCHIVE) as packed:
        packed.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.3 has none
        packed.extractall(outputs.parent)
    said = json.loads((outputs.parent / "said.json").read_text(encoding="utf-8"))
    listed = {one["words"]: one["said"] for one in said["asked"]}
    problems: list[object] = []
    window = make_main_window()
    lab, experiments, checks = window.lab, window.experiments, window.papers.checks
    for source in (lab.error_raised, lab.notebook.failed, experiments.failed, checks.failed):
        source.connect(problems.append)
    lab.notebook.refresh()
    there = (lab.runs, experiments.rows, checks.rows, lambda: lab.notebook.entries)
    qtbot.waitUntil(lambda: bool(problems) or all(rows() for rows in there))
    assert problems == []
    runs = [(row.name, row.status.state, row.status.step) for row in lab.runs()]
    assert runs == [(one["id"], one["state"], one["step"]) for one in listed["runs"]]
    assert all(row.parameters for row in lab.runs())
    assert [row.id for row in experiments.rows()] == [one["id"] for one in listed["experiment list"]]
    assert {row.id for row in checks.rows()} == {"norms", "wind"}
    assert {entry.id for entry in lab.notebook.entries} == {one["id"] for one in listed["notebook"]}
    assert lab.notebook.damaged == []
    assert problems == []
