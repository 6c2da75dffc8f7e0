"""The Rebuild panel: the workbook's files are started, checked when they are saved, and shown beside ours."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fakes import FakeRun
from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices
from pytestqt.qtbot import QtBot
from waits import WAIT
from whole_lab import WholeLab
from windows import shown

from llmlab.core.config import with_values
from llmlab.core.errors import LabError
from llmlab.core.files import sha256_of
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.presets import default_preset, of_preset
from llmlab.core.processes import host_name, process_start
from llmlab.core.rebuilt_settings import RebuiltSettings, RetunedSettings
from llmlab.core.settings import PretrainSettings
from llmlab.exercises.pieces import Workbook, all_pieces, find_piece
from llmlab.jobs.launcher import create_run
from llmlab.jobs.rebuilt import plain_settings
from llmlab.notebook.predictions import Prediction, parse_prediction
from llmlab.store.checkpoints import commit
from llmlab.store.events import Evaluated, to_line
from llmlab.store.history import read_history
from llmlab.store.run_folder import RunFolder
from llmlab_gui.lab.training_now import TrainingNow
from llmlab_gui.pages.html import JOINER
from llmlab_gui.rebuild import use
from llmlab_gui.rebuild.dock import RebuildDock

PASSES = "It passes. Under Use you can train with it."
# In place of the lab's command, whose check needs torch: right is what says so.
CHECK = """
import hashlib, json, pathlib, sys, time
name, outputs = sys.argv[3], pathlib.Path(sys.argv[-1])
if sys.argv[2] == "use":
    prompt = next(word for word in sys.argv if word.startswith("--prompt=")).removeprefix("--prompt=")
    if prompt == "endless":
        time.sleep(600)
    if prompt == "wrong":
        sys.exit("error: Your lens failed.")
    row = {"layer": 0, "yours": 1, "ours": 1, "your_token": "' king'", "our_token": "' king'", "apart": 0.0}
    print(json.dumps({"model": "bar@5", "rows": [row | {"your_probability": 0.5, "our_probability": 0.5}]}))
    sys.exit()
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
    made = shown(RebuildDock(lab, command=(sys.executable, "-c", CHECK)), qtbot, 820, 560)
    yield made
    made.shutdown()


def test_it_opens_at_the_piece_that_was_worked_on_last_or_at_the_first_that_does_not_pass(
    lab: WholeLab, qtbot: QtBot
) -> None:
    def opens_at() -> str:
        dock = RebuildDock(lab)
        qtbot.addWidget(dock)
        dock.show()
        name = dock.piece.name
        dock.shutdown()
        return name

    workbook, pieces = Workbook(lab.outputs), all_pieces()
    assert opens_at() == pieces[0].name
    for piece in pieces[:2]:
        workbook.start(piece)
        workbook.record(piece, sha256_of(workbook.file(piece)), passed=True)
    assert opens_at() == pieces[2].name
    for place, saved in ((4, 20), (6, 10)):
        workbook.start(pieces[place])
        os.utime(workbook.file(pieces[place]), (saved, saved))
    assert opens_at() == pieces[4].name


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
    qtbot.waitUntil(lambda: texts(dock) == ["✓  It runs", "✗  A case: 1 is 2.", "Edges"])
    assert dock.tabs.currentIndex() == 1
    assert "1 is 2. A known mistake has this result: off by one. Count from 0." in dock.verdict.text()
    replacement = file.with_suffix(".new")  # as editors save: another file takes its place
    replacement.write_text("def softmax(scores): return right", encoding="utf-8")
    replacement.replace(file)
    qtbot.waitUntil(lambda: dock.verdict.text() == PASSES)
    assert dock.tabs.isTabEnabled(2)
    assert "return right" in dock.yours.toPlainText()
    assert "_ChunkedLoss.forward" in dock.lab_code.toPlainText()
    assert dock.list.item(1).text() == "✓  2. Softmax"
    dock.tabs.setCurrentIndex(3)
    assert dock.use.train.isEnabled()
    dock.list.setCurrentRow(0)
    assert dock.use.train.isEnabled()  # with what has passed, whichever is chosen
    dock.list.setCurrentRow(14)
    assert not dock.use.train.isEnabled()
    assert "once its saved file has passed" in dock.use.outcome.toPlainText()


def test_a_save_ends_the_check_of_what_was_saved_before(dock: RebuildDock, qtbot: QtBot) -> None:
    """Not a minute later, when a loop without an end is given up; other pieces are not said to be checked."""
    dock.list.setCurrentRow(1)
    dock.start.click()
    file = dock.lab.outputs / "exercises" / "softmax.py"
    file.write_text("endless", encoding="utf-8")
    qtbot.waitUntil(lambda: dock.verdict.text() == "Checking …")
    dock.list.setCurrentRow(2)
    assert dock.verdict.text().startswith("Save your file")
    dock.list.setCurrentRow(1)
    file.write_text("right", encoding="utf-8")
    qtbot.waitUntil(lambda: dock.verdict.text() == PASSES)
    file.unlink()  # and nothing is said of a file that is gone
    qtbot.waitUntil(lambda: dock.verdict.text().startswith("Save your file"))
    assert not texts(dock)


def test_a_piece_that_is_started_in_a_terminal_is_checked_when_it_is_saved(dock: RebuildDock, qtbot: QtBot) -> None:
    Workbook(dock.lab.outputs).start(find_piece("softmax"))
    dock.list.setCurrentRow(1)
    (dock.lab.outputs / "exercises" / "softmax.py").write_text("right", encoding="utf-8")
    qtbot.waitUntil(lambda: dock.verdict.text() == PASSES)


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
    with qtbot.waitSignal(lab.error_raised) as raised:
        dock.check.click()
    error = raised.args[0]
    assert isinstance(error, LabError)
    assert error.what == "it is gone"


def test_nothing_is_wider_than_a_narrow_window(dock: RebuildDock) -> None:
    assert dock.minimumSizeHint().width() < 560


def test_what_passed_is_trained_with_and_ours_beside_it(
    dock: RebuildDock, qtbot: QtBot, lab: WholeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[RunFolder] = []
    monkeypatch.setattr(lab.controller, "train_made", made.append)
    expected = parse_prediction("val_loss=1..2@80%")
    answers: list[list[Prediction] | None] = [None, [expected]]
    monkeypatch.setattr(use, "ask_of_run", lambda *_: answers.pop(0))
    said, titles = ["beside", "cancel", "beside", "cancel", "beside"], list[str]()
    monkeypatch.setattr(TrainingNow, "ask", lambda _, __, title: (titles.append(title), said.pop(0))[1])
    dock.list.setCurrentRow(1)
    dock.start.click()
    (lab.outputs / "exercises" / "softmax.py").write_text("right = 1", encoding="utf-8")
    qtbot.waitUntil(lambda: dock.verdict.text() == PASSES)
    dock.tabs.setCurrentIndex(3)
    assert dock.use.train.isEnabled()
    assert not dock.use.ours.isEnabled()
    dock.use.steps.setValue(40)
    dock.use.train.click()  # the prediction is cancelled, and with it the start
    dock.use.train.click()  # or the question what becomes of a run that trains
    dock.use.train.click()
    qtbot.waitUntil(lambda: len(made) == 1)
    yours = made[0]
    assert not answers
    assert yours.info().settings.train.steps == 40
    assert yours.info().predictions
    assert yours.info().settings_as(RebuiltSettings).pieces.yours == ("softmax",)
    assert (yours.path / "pieces" / "softmax.py").read_text(encoding="utf-8") == "right = 1"
    lab.open_run(yours)
    qtbot.waitUntil(lambda: lab.row(yours.full_name) is not None)
    assert not dock.use.train.isEnabled()  # it has not ended
    assert not dock.use.ours.isEnabled()
    yours.write_status(replace(yours.recorded_status(), state="failed"))
    lab.refresh()
    qtbot.waitUntil(lambda: "taken no step" in dock.use.outcome.toPlainText())
    assert dock.use.train.isEnabled()
    assert not dock.use.ours.isEnabled()
    yours.write_status(replace(yours.recorded_status(), state="stopped", step=20))
    assert yours.id.startswith("yours-")
    ours_name = f"ours-{yours.id.removeprefix('yours-')}"
    other = create_run(lab.outputs, with_values(PretrainSettings(), {"train.seed": 5}), name=ours_name)
    other.write_status(replace(other.recorded_status(), state="finished"))
    lab.refresh()
    qtbot.waitUntil(lambda: lab.row(other.full_name) is not None)
    qtbot.waitUntil(dock.use.ours.isEnabled)  # the other has the name, and other settings
    assert "up to step 20 where yours ended" in dock.use.outcome.toPlainText()
    other.path.rename(lab.outputs / "gone")
    lab.refresh()
    qtbot.waitUntil(lambda: lab.row(other.full_name) is None)
    lab.set_shown_runs(["pretraining/compared"])
    dock.use.ours.click()
    dock.use.ours.click()
    qtbot.waitUntil(lambda: len(made) == 2)
    assert titles == ["Train with mine"] * 3 + ["Train ours"] * 2
    assert not said
    assert "pretraining/compared" in lab.overlaid()  # what was ticked stays so
    ours = made[1]
    assert ours.id == ours_name
    assert ours.info().settings == plain_settings(yours.info())
    lab.open_run(ours)
    qtbot.waitUntil(lambda: set(lab.shown_runs()) == {yours.full_name, ours.full_name})  # both curves
    stopped: list[RunFolder] = []
    monkeypatch.setattr(lab.controller, "stop", stopped.append)
    here = {"state": "running", "pid": os.getpid(), "pid_start": process_start(os.getpid()), "heartbeat": time.time()}
    ours.write_status(replace(ours.recorded_status(), step=19, steps=40, host=host_name(), **here))
    lab.refresh()
    qtbot.waitUntil(lambda: lab.row(ours.full_name).status.step == 19)
    assert not stopped
    ours.write_status(replace(ours.recorded_status(), step=21))
    lab.refresh()
    qtbot.waitUntil(lambda: stopped == [ours])
    for run, loss in ((yours, 2.5), (ours, 2.25)):
        run.events.write_text(to_line(Evaluated(0, 1.0, 2.0, loss, True, 0.1)), encoding="utf-8")
    ours.write_status(replace(ours.recorded_status(), state="stopped"))
    lab.refresh()
    qtbot.waitUntil(lambda: "+0.2500" in dock.use.outcome.toPlainText())
    assert not dock.use.ours.isEnabled()  # it has come as far
    read: list[RunFolder] = []
    monkeypatch.setattr(use, "read_history", lambda run: read.append(run) or read_history(run))
    held, first, second = threading.Event(), lab.row(yours.full_name), lab.row(ours.full_name)
    assert first is not None
    assert second is not None
    dock.use._background.run(lambda: held.wait(WAIT / 1000), lambda _: None, lab.error_raised.emit)
    for step in (30, 31, 32):  # a long log takes longer to read than a run to come on
        dock.use._show(first, replace(second, status=replace(second.status, step=step)), passed=True)
    held.set()
    ended: list[None] = []
    dock.use._background.run(lambda: None, ended.append, lab.error_raised.emit)
    qtbot.waitUntil(lambda: bool(ended))
    assert read in ([yours, ours], [yours, ours] * 2)  # the lab's own list of runs may come in between
    lab.set_shown_runs([])
    dock.use.outcome.anchorClicked.emit(QUrl("runs:both"))
    assert lab.shown_runs() == [yours.full_name, ours.full_name]


def test_lens_and_lora_are_used_on_a_model(
    dock: RebuildDock, qtbot: QtBot, lab: WholeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[RunFolder] = []
    monkeypatch.setattr(lab.controller, "train_made", made.append)
    monkeypatch.setattr(use, "ask_of_run", lambda *_: [])
    monkeypatch.setattr(TrainingNow, "ask", lambda *_: "beside")
    base = create_run(lab.outputs, PretrainSettings(), name="bar")
    commit(base.checkpoints, 5, lambda folder: None, labels=("final",), val_loss=1.0, about={})
    base.write_status(replace(base.recorded_status(), state="finished"))
    FakeRun(lab.outputs, "trial", created=3e9).start().advance(1).finish()  # newer, but without a checkpoint
    lab.refresh()
    qtbot.waitUntil(lambda: lab.row_called("trial") is not None)
    pieces = [find_piece("logit-lens"), find_piece("lora")]
    workbook = Workbook(lab.outputs)
    for piece in pieces:
        workbook.start(piece)
        workbook.record(piece, sha256_of(workbook.file(piece)), True)
    dock.tabs.setCurrentIndex(3)
    dock.list.setCurrentRow(15)
    panel = dock.use
    assert not panel.train.isVisible()
    qtbot.waitUntil(lambda: panel.model.reference == "bar@latest")
    panel.model.choose("bar@final")
    panel.prompt.setText("-right")  # which is no option
    panel.read.click()
    assert panel.read.text() == "Cancel"
    assert "Opening bar@final" in panel.outcome.toPlainText()
    panel.prompt.setText("another")
    panel.prompt.returnPressed.emit()  # nothing is cancelled
    qtbot.waitUntil(lambda: "king" in panel.outcome.toPlainText())
    assert f"what comes after -{JOINER}right" in panel.outcome.toPlainText()
    assert panel.read.text() == "Read with mine"
    panel.prompt.setText("endless")
    panel.read.click()
    panel.read.click()  # cancelled
    assert panel.read.text() == "Read with mine"
    assert "Opening" not in panel.outcome.toPlainText()
    panel.prompt.setText("wrong")
    with qtbot.waitSignal(lab.error_raised) as raised:
        panel.read.click()
    assert raised.args[0].what == "Your lens failed."
    dock.list.setCurrentRow(14)
    assert panel.steps.value() == of_preset(FinetuneSettings, default_preset(FinetuneSettings)).train.steps
    panel.steps.setValue(7)
    assert not panel.read.isEnabled()  # bar has no adapters
    for name, method in (("tuned", "lora"), ("whole", "full")):
        settings = with_values(FinetuneSettings(), {"model.base": "bar@5", "model.method": method})
        create_run(lab.outputs, settings, name=name)
    lab.refresh()
    qtbot.waitUntil(lambda: lab.row_called("whole") is not None)
    for reference, reads in (("tuned@final", True), ("tuned", True), ("whole@final", False), ("/models/small", False)):
        panel.model.choose(reference)
        assert panel.read.isEnabled() == reads, reference
    panel.model.choose("pretraining/bar@5")
    panel.train.click()
    qtbot.waitUntil(lambda: len(made) == 1)
    settings = made[0].info().settings_as(RetunedSettings)
    assert (settings.model.base, settings.train.steps, settings.pieces.yours) == (
        "pretraining/bar@5",
        7,
        ("lora",),
    )
