"""The Rebuild panel: the workbook's files are started, checked when they are saved, and shown beside ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from PySide6.QtGui import QDesktopServices
from pytestqt.qtbot import QtBot
from waits import WAIT
from whole_lab import WholeLab

from llmlab.core.config import with_values
from llmlab.core.errors import LabError
from llmlab.core.rebuilt_settings import RebuiltSettings
from llmlab.core.settings import PretrainSettings
from llmlab.exercises.pieces import Workbook, find_piece
from llmlab.jobs.launcher import create_run
from llmlab.jobs.rebuilt import plain_settings
from llmlab.notebook.predictions import Prediction, parse_prediction
from llmlab.store.events import Evaluated, to_line
from llmlab.store.run_folder import RunFolder
from llmlab_gui.rebuild import dock as rebuild
from llmlab_gui.rebuild.dock import RebuildDock

# In place of the lab's command, whose check needs torch: right is what says so.
CHECK = """
import hashlib, json, pathlib, sys, time
name, outputs = sys.argv[3], pathlib.Path(sys.argv[6])
file = outputs / "exercises" / f"{name}.py"
if not file.exists():
    sys.exit("error: it is gone")
if "endless" in file.read_text():
    time.sleep(600)
right = "right" in file.read_text()
if right:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (outputs / "exercises" / "passed.json").write_text(json.dumps({name: digest}))
states = ("passed", "passed", "passed") if right else ("passed", "failed", "waits")
rows = zip(("It runs", "A case", "Edges"), states)
steps = [{"name": t, "title": t, "state": s, "fact": "1 is 2." if s == "failed" else ""} for t, s in rows]
known = ("", "") if right else ("off by one", "Count from 0.")
print(json.dumps({"piece": name, "file": str(file), "passed": right, "steps": steps, "printed": "",
                  "mistake": known[0], "why": known[1]}))
sys.exit(not right)
"""


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: found.append(url.toLocalFile()) or True)
    return found


@pytest.fixture
def dock(lab: WholeLab, qtbot: QtBot, opened: list[str]) -> Iterator[RebuildDock]:
    made = RebuildDock(lab, command=(sys.executable, "-c", CHECK))
    qtbot.addWidget(made)
    made.resize(820, 560)
    made.show()
    yield made
    made.shutdown()


def texts(dock: RebuildDock) -> list[str]:
    return [dock.steps.item(row).text().strip() for row in range(dock.steps.count())]


def test_a_piece_is_started_checked_when_it_is_saved_and_shown_beside_ours(
    dock: RebuildDock, qtbot: QtBot, opened: list[str]
) -> None:
    assert dock.list.count() == 16
    dock.list.setCurrentRow(1)
    file = dock.lab.outputs / "exercises" / "softmax.py"
    assert (dock.start.text(), dock.check.isEnabled(), dock.tabs.isTabEnabled(2)) == ("Start", False, False)
    dock.start.click()
    assert opened == [str(file)]
    assert file.is_file()
    assert dock.start.text() == "Open in editor"
    assert str(file) in dock.file.text()
    file.write_text("def softmax(scores): return wrong", encoding="utf-8")
    qtbot.waitUntil(lambda: texts(dock) == ["✓  It runs", "✗  A case: 1 is 2.", "Edges"], timeout=WAIT)
    assert dock.tabs.currentIndex() == 1
    assert "1 is 2. This is what comes of a known mistake: off by one. Count from 0." in dock.verdict.text()
    replacement = file.with_suffix(".new")  # as editors save: another file takes its place
    replacement.write_text("def softmax(scores): return right", encoding="utf-8")
    replacement.replace(file)
    qtbot.waitUntil(lambda: dock.verdict.text() == "It passes.", timeout=WAIT)
    assert dock.tabs.isTabEnabled(2)
    assert "return right" in dock.yours.toPlainText()
    assert "_ChunkedLoss.forward" in dock.lab_code.toPlainText()
    assert dock.list.item(1).text() == "✓  2. Softmax"
    assert dock.train.isEnabled()


def test_a_save_ends_the_check_of_what_was_saved_before(dock: RebuildDock, qtbot: QtBot) -> None:
    """Not a minute later, when a loop without an end is given up; other pieces are not said to be checked."""
    dock.list.setCurrentRow(1)
    dock.start.click()
    file = dock.lab.outputs / "exercises" / "softmax.py"
    file.write_text("endless", encoding="utf-8")
    qtbot.waitUntil(lambda: dock.verdict.text() == "Checking …", timeout=WAIT)
    dock.list.setCurrentRow(2)
    assert dock.verdict.text().startswith("Save your file")
    dock.list.setCurrentRow(1)
    file.write_text("right", encoding="utf-8")
    qtbot.waitUntil(lambda: dock.verdict.text() == "It passes.", timeout=WAIT)
    file.unlink()  # and nothing is said of a file that is gone
    qtbot.waitUntil(lambda: dock.verdict.text().startswith("Save your file"), timeout=WAIT)
    assert not texts(dock)


def test_a_piece_that_is_started_in_a_terminal_is_checked_when_it_is_saved(dock: RebuildDock, qtbot: QtBot) -> None:
    Workbook(dock.lab.outputs).start(find_piece("softmax"))
    dock.list.setCurrentRow(1)
    (dock.lab.outputs / "exercises" / "softmax.py").write_text("right", encoding="utf-8")
    qtbot.waitUntil(lambda: dock.verdict.text() == "It passes.", timeout=WAIT)


def test_hints_come_one_by_one(dock: RebuildDock) -> None:
    piece = dock.piece
    assert piece.hints[0] not in dock.task.toPlainText()
    for number in (1, 2, 3):
        assert dock.hint.text() == f"Hint {number} of 3"
        dock.hint.click()
        assert f"Hint {number}." in dock.task.toPlainText()
    assert not dock.hint.isEnabled()
    dock.list.setCurrentRow(3)
    assert "Hint 1." not in dock.task.toPlainText()


def test_a_check_that_fails_itself_is_said(dock: RebuildDock, qtbot: QtBot, lab: WholeLab) -> None:
    dock.start.click()
    (lab.outputs / "exercises" / "bpe.py").unlink()
    with qtbot.waitSignal(lab.error_raised, timeout=WAIT) as raised:
        dock.check.click()
    error = raised.args[0]
    assert isinstance(error, LabError)
    assert (error.what, error.why) == ("The check failed.", "it is gone")


def test_nothing_is_wider_than_a_narrow_window(dock: RebuildDock) -> None:
    assert dock.minimumSizeHint().width() < 560


def test_what_passed_is_trained_with_and_ours_beside_it(
    dock: RebuildDock, qtbot: QtBot, lab: WholeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[RunFolder] = []
    monkeypatch.setattr(lab.controller, "train_made", made.append)
    expected = parse_prediction("val_loss=1..2@80%")
    answers: list[list[Prediction] | None] = [None, [expected]]
    monkeypatch.setattr(rebuild, "ask_of_run", lambda *_: answers.pop(0))
    dock.list.setCurrentRow(1)
    dock.start.click()
    (lab.outputs / "exercises" / "softmax.py").write_text("right = 1", encoding="utf-8")
    qtbot.waitUntil(dock.train.isEnabled, timeout=WAIT)
    assert not dock.ours.isEnabled()
    dock.train.click()  # the question is cancelled, and with it the start
    dock.train.click()
    qtbot.waitUntil(lambda: len(made) == 1, timeout=WAIT)
    yours = made[0]
    assert not answers
    assert dock.tabs.currentIndex() == 3
    assert yours.info().predictions
    assert yours.info().settings_as(RebuiltSettings).pieces.yours == ("softmax",)
    assert (yours.path / "pieces" / "softmax.py").read_text(encoding="utf-8") == "right = 1"
    lab.open_run(yours)
    qtbot.waitUntil(lambda: lab.row(yours.full_name) is not None, timeout=WAIT)
    assert not dock.train.isEnabled()  # it has not ended
    assert not dock.ours.isEnabled()
    yours.write_status(replace(yours.recorded_status(), state="finished"))
    other = create_run(
        lab.outputs, with_values(PretrainSettings(), {"train.seed": 5}), name=f"{yours.id.removesuffix('-yours')}-ours"
    )
    other.write_status(replace(other.recorded_status(), state="finished"))
    lab.refresh()
    qtbot.waitUntil(lambda: lab.row(other.full_name) is not None, timeout=WAIT)
    qtbot.waitUntil(dock.ours.isEnabled, timeout=WAIT)  # the other has the name, and other settings
    assert "stand here" in dock.outcome.toPlainText()
    other.path.rename(lab.outputs / "gone")
    lab.refresh()
    qtbot.waitUntil(lambda: lab.row(other.full_name) is None, timeout=WAIT)
    dock.ours.click()
    qtbot.waitUntil(lambda: len(made) == 2, timeout=WAIT)
    assert made[1].id == f"{yours.id.removesuffix('-yours')}-ours"
    assert made[1].info().settings == plain_settings(yours.info())
    for run, loss in ((yours, 2.5), (made[1], 2.25)):
        run.events.write_text(to_line(Evaluated(0, 1.0, 2.0, loss, True, 0.1)), encoding="utf-8")
        run.write_status(replace(run.recorded_status(), state="finished"))
    lab.refresh()
    qtbot.waitUntil(lambda: "+0.2500" in dock.outcome.toPlainText(), timeout=WAIT)
    assert not dock.ours.isEnabled()
    assert dock.tabs.isTabEnabled(3)
