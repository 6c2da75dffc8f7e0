"""The whole way, with a real worker: a GPT of the learner's own is fine-tuned from the window."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot
from small_runs import new_run, train_here
from windows import MakeWindow

from llmlab.core.kinds import FINETUNING
from llmlab.store.checkpoints import final_of, list_checkpoints
from llmlab.store.run_folder import RunFolder
from llmlab_gui.finetune.setup import FinetuneSetupDock
from llmlab_gui.train.checkpoints import CheckpointsDock
from llmlab_gui.train.loss import LossDock
from llmlab_gui.train.samples import COMPARE, SCORED, SamplesDock
from llmlab_gui.window.main_window import MainWindow

# transformers' import alone takes many seconds on a busy machine.
STEPS = 12
SMALL = {
    "preset": "scratch",
    "lora.rank": "2",
    "data.max_examples": "40",
    "data.batch_size": "4",
    "data.scored": "4",
    "train.warmup_steps": "2",
    "train.eval_interval": "6",
    "train.eval_sequences": "4",
    "train.sample_interval": "6",
    "train.threads": "1",
    "samples.tokens": "4",
    "checkpoints.interval": "0",
}


@pytest.fixture
def window(make_main_window: MakeWindow, qtbot: QtBot, outputs: Path) -> MainWindow:
    train_here(new_run(outputs, steps=4, name="base", model__block_size=128, data__tokenizer="bpe"))
    made = make_main_window()
    made.resize(1600, 1000)
    qtbot.waitUntil(lambda: len(made.lab.runs()) == 1)
    made.use_workspace("Fine-tune")
    return made


def fill(window: MainWindow, qtbot: QtBot, name: str) -> FinetuneSetupDock:
    """Describes a small run and waits until it can be started."""
    setup = window.docks["finetune_setup"]
    assert isinstance(setup, FinetuneSetupDock)
    window.lab.finetune_requested.emit(SMALL | {"train.steps": str(STEPS), "model.base": "base@latest"})
    setup.name.setText(name)
    qtbot.waitUntil(lambda: setup.train_button.isEnabled() and "of memory" in setup.estimate.text())
    return setup


def state_of(window: MainWindow, name: str) -> str:
    row = window.lab.row_called(name)
    return row.status.state if row else ""


@pytest.mark.slow
def test_from_set_up_to_answers_before_and_after_and_then_the_next_of_the_queue(
    window: MainWindow, qtbot: QtBot, outputs: Path
) -> None:
    fill(window, qtbot, "first")
    qtbot.waitUntil(lambda: window.setups.shown_setup is window.docks["finetune_setup"])
    window.run_actions.train.trigger()
    qtbot.waitUntil(lambda: state_of(window, "first") in ("queued", "running"))
    fill(window, qtbot, "second").queue_button.click()
    # It waits, unless the first has ended meanwhile.
    qtbot.waitUntil(lambda: bool(window.lab.queue.state.items or state_of(window, "second")))
    qtbot.waitUntil(lambda: state_of(window, "first") == "finished")
    run = RunFolder(outputs / FINETUNING / "first")
    assert final_of(list_checkpoints(run.checkpoints)) is not None
    # The queue's run takes its place, also on the screen; what the first one did is still there.
    qtbot.waitUntil(lambda: state_of(window, "second") == "finished")
    assert not window.lab.queue.state.items

    window.lab.set_current("finetuning/first")
    loss, samples, checkpoints = window.docks["loss"], window.docks["samples"], window.docks["checkpoints"]
    assert isinstance(loss, LossDock)
    assert isinstance(samples, SamplesDock)
    assert isinstance(checkpoints, CheckpointsDock)
    qtbot.waitUntil(lambda: "finetuning/first/train" in loss.chart.curves())
    qtbot.waitUntil(lambda: len(loss.chart.curves()["finetuning/first/train"].x) == STEPS)
    qtbot.waitUntil(lambda: samples.view.samples.steps == [0, STEPS])
    assert samples.choice.currentData() == COMPARE
    assert samples.score.text().endswith(f"of 4 at step {STEPS}.")
    samples.choice.setCurrentIndex(samples.choice.findData(SCORED))
    assert samples.answers_view.answers.rowCount() == 4
    qtbot.waitUntil(lambda: bool(checkpoints.model.rows))
    assert [row.step for row in checkpoints.model.rows][-1] == STEPS
