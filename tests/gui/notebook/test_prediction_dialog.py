"""The question before a run: what it states, how it is left and switched off, and the curve drawn by hand."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_experiments import FakeExperiment, rate_plan
from fakes import CancelAfter, FakeRun
from preset_settings import resolve_settings
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt, QTimer
from PySide6.QtGui import QMouseEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QApplication, QScrollArea
from pytestqt.qtbot import QtBot
from shiboken6 import delete
from waits import SECONDS

from llmlab.core.errors import Cancelled
from llmlab.core.finetuning_settings import BaseSettings, FinetuneSettings
from llmlab.core.progress import Progress, quiet
from llmlab.data.dataset import load_dataset
from llmlab.notebook.predictions import Prediction, parse_prediction
from llmlab.notebook.quantities import find_quantity, quantities_of_runs
from llmlab.store.events import Evaluated
from llmlab.store.run_log import first_started
from llmlab.studies.experiments.outcomes import Finding, write_results
from llmlab_gui.lab.book import Asking, Book, Expected, Unread
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.notebook.anchors import anchors_of, anchors_of_plan
from llmlab_gui.notebook.asking import ask, question_about
from llmlab_gui.notebook.drawn_curve import DrawnCurve
from llmlab_gui.notebook.prediction_dialog import PredictionDialog
from llmlab_gui.notebook.prediction_form import CurveRow
from llmlab_gui.widgets.focus_ring import FocusRing
from llmlab_gui.window.main_window import MainWindow

MakeWindow = Callable[..., MainWindow]


@pytest.fixture
def book(qapp: QApplication, outputs: Path) -> Iterator[Book]:
    made = Book(outputs)
    yield made
    made.shutdown()


@pytest.fixture
def dialog(qtbot: QtBot, book: Book) -> PredictionDialog:
    made = PredictionDialog(book, "a run", quantities_of_runs(), Expected(500, 4.43))
    qtbot.addWidget(made)
    made.show()
    return made


def stated(dialog: PredictionDialog) -> list[str]:
    return [str(prediction) for prediction in dialog.predictions or []]


def test_enter_on_an_empty_form_starts(qtbot: QtBot, dialog: PredictionDialog) -> None:
    assert not dialog.start_button.isEnabled()  # there is nothing to lock
    qtbot.keyClick(dialog.rows[0].low, Qt.Key.Key_Return)
    assert dialog.predictions == []


def test_the_curve_is_as_wide_as_what_stands_below_it(dialog: PredictionDialog, qtbot: QtBot) -> None:
    dialog.draw_button.setChecked(True)
    curve = dialog.curve
    assert curve is not None
    qtbot.waitUntil(lambda: curve.width() == dialog.sentence.width())


def test_enter_presses_the_button_that_has_the_keyboard(
    ring: FocusRing, qtbot: QtBot, dialog: PredictionDialog
) -> None:
    dialog.activateWindow()
    qtbot.waitUntil(dialog.isActiveWindow)

    def press(button: QAbstractButton) -> None:
        button.setFocus(Qt.FocusReason.TabFocusReason)
        QTest.keyClick(dialog.windowHandle(), Qt.Key.Key_Return)

    dialog.rows[0].low.setText("1.9")
    dialog.rows[0].high.setText("2.1")
    press(dialog.more)
    assert len(dialog.rows) == 2
    press(dialog.draw_button)
    assert dialog.curve is not None
    dialog.curve.points.setText("10:2")
    dialog.curve.points.textEdited.emit("10:2")
    press(dialog.curve.clear_button)
    assert dialog.curve.points.text() == ""
    assert dialog.isVisible()
    press(dialog.back_button)
    assert not dialog.isVisible()
    assert dialog.predictions is None  # nothing is to start


def test_enter_on_start_without_a_prediction_locks_none(qtbot: QtBot, dialog: PredictionDialog) -> None:
    dialog.rows[0].low.setText("1.9")
    dialog.rows[0].high.setText("2.1")
    dialog.skip_button.setFocus(Qt.FocusReason.TabFocusReason)
    qtbot.keyClick(dialog.skip_button, Qt.Key.Key_Return)
    assert dialog.predictions == []


def test_escape_goes_back_and_starts_nothing(qtbot: QtBot, dialog: PredictionDialog) -> None:
    dialog.rows[0].low.setText("1.9")
    qtbot.keyClick(dialog.rows[0].low, Qt.Key.Key_Escape)
    assert dialog.predictions is None
    assert not dialog.isVisible()


def test_starting_without_a_prediction_is_an_answer_of_its_own(dialog: PredictionDialog) -> None:
    dialog.rows[0].low.setText("1.9")
    dialog.skip_button.click()
    assert dialog.predictions == []


def test_nothing_moves_or_complains_while_one_types(qtbot: QtBot, dialog: PredictionDialog) -> None:
    with qtbot.waitActive(dialog):
        dialog.activateWindow()

    def places() -> list[object]:
        buttons = (dialog.start_button, dialog.skip_button, dialog.back_button)
        return [dialog.size(), *(button.geometry() for button in buttons)]

    before, row = places(), dialog.rows[0]
    for keys, line in (("1.9", row.low), ("x", row.high), ("It overfits", dialog.sentence.words)):
        line.setFocus()
        for key in keys:
            qtbot.keyClick(line, key)
            QApplication.processEvents()
            # What was typed into the range cannot be read; that is said when both its ends are left.
            assert bool(dialog.problem.text()) == (line is dialog.sentence.words)
            assert places() == before
    row.high.setText("2.2")
    assert not dialog.problem.text()
    assert places() == before


def test_a_filled_form_is_locked(qtbot: QtBot, dialog: PredictionDialog) -> None:
    row = dialog.rows[0]
    qtbot.keyClicks(row.low, "1.9")
    qtbot.keyClick(row.low, Qt.Key.Key_Return)
    assert dialog.isVisible()  # half a range starts nothing
    assert "one end" in dialog.problem.text()
    qtbot.keyClicks(row.high, "2.2")
    row.sure.set_value(90)
    assert not dialog.problem.text()
    dialog.add_row()
    dialog.rows[1].ask_for("overfits")
    dialog.rows[1].choice.setCurrentText("no")
    dialog.sentence.words.setText("It will be slow")
    dialog.start_button.click()
    assert stated(dialog) == ["val_loss=1.9..2.2@90%", "overfits=no@80%", "text=It will be slow@70%"]


def test_a_range_that_cannot_be_scored_is_said_in_the_words_of_the_form_and_not_started(
    dialog: PredictionDialog,
) -> None:
    row = dialog.rows[0]
    for low, high, said in (
        ("3.5", "2.5", "from 3.5 down to 2.5"),
        ("2", "2.0", "one number"),
        ("2", "3,2", "A comma is no decimal point here."),  # as in lists, where it separates values
        ("2", "x", "'x' is not a number"),
        ("nan", "2", "'nan' is not a number"),
        ("2", "", "one end"),
    ):
        row.low.setText(low)
        row.high.setText(high)
        dialog.start_button.setFocus()
        dialog.start_button.click()
        assert dialog.focusWidget() is (row.high if high in ("3,2", "x", "") else row.low)
        assert said in dialog.problem.text()
        assert "inal validation loss" in dialog.problem.text()
        assert "val_loss" not in dialog.problem.text()
        assert dialog.predictions is None
        assert dialog.isVisible()
    row.ask_for("tokens_per_second")
    row.low.setText("0")
    row.high.setText("2")
    assert row.about.log
    dialog.start_button.click()
    assert "above 0" in dialog.problem.text()
    assert "tokens_per_second" not in dialog.problem.text()


def test_tab_passes_the_frame_around_the_rows(qtbot: QtBot, dialog: PredictionDialog) -> None:
    dialog.activateWindow()
    dialog.sentence.words.setFocus()
    for key in (Qt.Key.Key_Backtab, Qt.Key.Key_Tab):
        for _ in range(20):  # more than there are stops
            qtbot.keyClick(dialog.focusWidget(), key)
            assert not isinstance(dialog.focusWidget(), QScrollArea)


def test_a_new_row_asks_for_something_else(dialog: PredictionDialog) -> None:
    for _ in range(10):
        dialog.more.click()
    names = [row.about.name for row in dialog.rows]
    assert len(set(names)) == len(names) == 6
    assert not dialog.more.isEnabled()


def test_an_experiment_is_asked_with_its_own_quantities(qtbot: QtBot, book: Book) -> None:
    quantities = [find_quantity(name) for name in ("best_lr", "best_loss", "text")]
    dialog = PredictionDialog(book, "an experiment", quantities)
    qtbot.addWidget(dialog)
    assert dialog.draw_button.isHidden()  # it has no one curve
    dialog.rows[0].choice.setCurrentText("1e-3")
    dialog.start_button.click()
    assert stated(dialog) == ["best_lr=1e-3@80%"]


def draw(chart: DrawnCurve, places: list[tuple[float, float]]) -> None:
    """Goes over these points, [step, loss], with the left button."""
    view, pane = chart.getPlotItem().getViewBox(), chart.viewport()

    def at(step: float, loss: float) -> QPoint:
        return chart.mapFromScene(view.mapViewToScene(QPointF(np.log10(step), loss)))

    kinds = [QEvent.Type.MouseButtonPress, *([QEvent.Type.MouseMove] * (len(places) - 1))]
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    for kind, place in zip(kinds, places, strict=True):
        point = QPointF(at(*place))
        button = left if kind == QEvent.Type.MouseButtonPress else Qt.MouseButton.NoButton
        QApplication.sendEvent(pane, QMouseEvent(kind, point, pane.mapToGlobal(point), button, left, none))
    point = QPointF(at(*places[-1]))
    up = QMouseEvent(
        QEvent.Type.MouseButtonRelease, point, pane.mapToGlobal(point), left, Qt.MouseButton.NoButton, none
    )
    QApplication.sendEvent(pane, up)


@pytest.fixture
def chart(qtbot: QtBot) -> Iterator[DrawnCurve]:
    made = CurveRow(500, 4.43)
    qtbot.addWidget(made)
    made.resize(640, 400)
    with qtbot.waitExposed(made):
        made.show()
    yield made.chart  # not returned: nothing else would hold the row that it is in
    made.close()


def test_a_drawing_becomes_points_near_the_hand(qtbot: QtBot, chart: DrawnCurve) -> None:
    assert chart.points() == []
    draw(chart, [(1, 4.4), (10, 3.6), (100, 2.6), (500, 2.0)])
    points = np.array(chart.points())
    assert 10 <= len(points) <= 24
    assert (np.diff(points[:, 0]) > 0).all()
    assert points[0, 0] == 1
    assert points[-1, 0] == pytest.approx(500, rel=0.05)
    hand = np.interp(np.log10(points[:, 0]), np.log10([1, 10, 100, 500]), [4.4, 3.6, 2.6, 2.0])
    assert np.abs(points[:, 1] - hand).max() < 0.12  # pixels, and the smoothing of corners


def test_a_hand_that_goes_back_leaves_one_value_a_step(chart: DrawnCurve) -> None:
    draw(chart, [(1, 4.4), (500, 2.0)])
    draw(chart, [(200, 1.0), (20, 1.0)])  # right to left, over a part of it
    points = np.array(chart.points())
    assert (np.diff(points[:, 0]) > 0).all()
    redrawn = (points[:, 0] > 30) & (points[:, 0] < 150)
    assert np.abs(points[redrawn, 1] - 1.0).max() < 0.05
    assert points[0, 1] == pytest.approx(4.4, abs=0.1)
    assert points[-1, 1] == pytest.approx(2.0, abs=0.1)


def test_a_trembling_hand_is_smoothed(chart: DrawnCurve) -> None:
    steps = np.geomspace(1, 500, 90)
    loss = 3.0 + 0.3 * (-1.0) ** np.arange(90)
    draw(chart, list(zip(steps.tolist(), loss.tolist(), strict=True)))
    inner = np.array(chart.points())[2:-2, 1]
    assert inner.std() < 0.15


def test_a_drawn_curve_is_stated_with_its_tolerance(
    qtbot: QtBot, dialog: PredictionDialog, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialog.draw_button.setChecked(True)
    curve = dialog.curve
    assert curve is not None
    qtbot.waitUntil(lambda: curve.chart.width() > 300)
    room = dialog.screen().availableGeometry()
    dialog.draw_button.setChecked(False)
    dialog.move(room.left(), room.bottom() - dialog.height())
    dialog.draw_button.setChecked(True)  # its buttons stay on the screen
    qtbot.waitUntil(lambda: dialog.frameGeometry().bottom() <= room.bottom())
    for height in (0, room.height() + 40):  # nor does its title stay above it, also where it is higher
        dialog.setMinimumHeight(height)
        qtbot.waitUntil(lambda: not dialog._settle.isActive())
        dialog.move(room.left(), room.top() - 20)
        qtbot.waitUntil(lambda: dialog.frameGeometry().top() >= room.top())
    with monkeypatch.context() as patch:
        above = SimpleNamespace(availableGeometry=lambda: room.translated(0, -room.height()))
        patch.setattr(QApplication, "screenAt", lambda _: above)  # where there is another screen, it may
        dialog.move(room.left(), room.top() - 20)
        qtbot.waitUntil(lambda: not dialog._settle.isActive())
        assert dialog.frameGeometry().top() < room.top()
    draw(curve.chart, [(1, 4.4), (500, 2.0)])
    assert dialog.start_button.isEnabled()
    assert curve.sure.isHidden()
    curve.within.setText("0.2")
    assert not curve.sure.isHidden()
    dialog.start_button.click()
    (prediction,) = dialog.predictions or []
    assert (prediction.quantity, prediction.tolerance, prediction.confidence) == ("loss_curve", 0.2, 0.7)


def test_a_curve_can_be_written_and_cleared(dialog: PredictionDialog, qtbot: QtBot) -> None:
    dialog.draw_button.setChecked(True)
    curve = dialog.curve
    assert curve is not None
    qtbot.keyClicks(curve.points, "1:4.4, 500:2")
    assert curve.chart.points() == [[1.0, 4.4], [500.0, 2.0]]
    draw(curve.chart, [(1, 4.0), (3, 4.0)])  # the hand goes on with what was written
    assert curve.chart.points()[-1][1] == pytest.approx(2.0, abs=0.1)
    curve.clear_button.click()
    assert curve.points.text() == ""
    assert not dialog.start_button.isEnabled()


def test_what_was_stated_before_is_filled_in(qtbot: QtBot, book: Book) -> None:
    lines = ["val_loss=2.05", "val_loss=1.9..2.2@90%", "overfits=no@60%", "steps_to_2.5=100..200@50%"]
    lines += ["text=slow@70%", "loss_curve=1:4.4,500:2+-0.2@70%"]
    before = [parse_prediction(line) for line in lines]
    dialog = PredictionDialog(book, "a run", quantities_of_runs(), Expected(500, 4.43), before=before)
    qtbot.addWidget(dialog)
    assert [row.about.name for row in dialog.rows] == ["val_loss", "overfits", "steps_to_2.5"]
    dialog.start()
    assert sorted(stated(dialog)) == sorted(map(str, before))  # the number without a range, too


def test_losses_to_go_by_come_from_runs_that_read_the_same_tokens(outputs: Path) -> None:
    settings = resolve_settings("baby")
    runs = [
        RunRow(fake.run, fake.run.info(), fake.run.status())
        for fake in (
            FakeRun(outputs, "other", settings=resolve_settings("baby", overrides={"data.corpus": "tiny"})).start(),
            FakeRun(outputs, "pieces", settings=resolve_settings("baby", overrides={"data.tokenizer": "bpe"}))
            .start()
            .advance(1000)
            .finish(),
            FakeRun(outputs, "live").start().advance(500),
            FakeRun(outputs, "n" * 90).start().advance(1000).finish(),
        )
    ]
    began = first_started(runs[2].run)
    assert began is not None
    loss = runs[3].status.val_loss
    at_once = FakeRun(outputs, "stopped-at-once").start().stop()  # it measured what an untrained model loses
    runs.insert(0, RunRow(at_once.run, at_once.run.info(), replace(at_once.run.status(), val_loss=4.2)))
    assert anchors_of(settings, "baby", runs, outputs, quiet) == (
        f"Validation losses to compare with: uniform guess 4.17 (ln 65) · token frequencies alone (unigram) "
        f"{began.unigram_loss:.2f} · last such run, {'n' * 39}…: {loss:.2f} after 1,000 steps."
    )
    first = FakeRun(outputs, "first").start().advance(500).finish()
    parent = RunRow(first.run, first.run.info(), first.run.status())  # the newest such run is another
    told = f"parent, first: {parent.status.val_loss:.2f} after {parent.status.step:,} steps."
    assert anchors_of(settings, "baby", [*runs, parent], outputs, quiet, parent=parent).endswith(told)
    larger = replace(settings, model=replace(settings.model, n_layer=9))
    assert f"last run on the same data, {'n' * 39}… (4 layers with" in anchors_of(larger, "", runs, outputs, quiet)
    assert anchors_of(FinetuneSettings(), "", runs, outputs, quiet) == ""
    folder = outputs / "llama"
    folder.mkdir()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 49152, **sizes}))
    tuned = FinetuneSettings(model=BaseSettings(base=str(folder)))
    known = "Validation losses to compare with: the base before the first step{} · uniform guess 10.80 (ln 49,152)."
    assert anchors_of(tuned, "", runs, outputs, quiet) == known.format(": known after the first such run")
    before = FakeRun(outputs, "before").start()
    runs.append(RunRow(before.run, replace(before.run.info(), settings=tuned), before.run.status()))
    before.append(Evaluated(0, 1.75e9, 2.83, 3.394, best=True, seconds=1.0))
    assert anchors_of(tuned, "", runs, outputs, quiet) == known.format(" 3.39")
    shorter = replace(tuned, data=replace(tuned.data, max_length=64))  # other examples
    assert "known after" in anchors_of(shorter, "", runs, outputs, quiet)
    base = FakeRun(outputs, "base").start().advance(100).save_checkpoint().run
    of_newest = FinetuneSettings(model=BaseSettings(base="base@latest"))
    ended = FakeRun(outputs, "ended").start().advance(1000).finish().run
    made = replace(ended.info(), settings=replace(of_newest, model=BaseSettings(base=f"{base.full_name}@100")))
    told = anchors_of(of_newest, "", [RunRow(ended, made, ended.status())], outputs, quiet)
    assert "last such run, ended" in told  # of the same step of the same base
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 0, **sizes}))
    assert anchors_of(tuned, "", runs, outputs, quiet) == ""  # damaged, which the run will say


def test_what_guessing_costs_comes_from_the_cache_where_no_run_tells(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
    chars = resolve_settings("baby", overrides={"data.corpus": "tiny"})
    frequent = "token frequencies alone (unigram)"
    for tokenizer, uniform in (("char", "about 4.6 (of about 100 tokens)"), ("gpt2", "10.82 (ln 50,257)")):
        settings = replace(chars, data=replace(chars.data, tokenizer=tokenizer))
        said = f"Validation losses to compare with: uniform guess {uniform} · {frequent}: known after the first run."
        assert anchors_of(settings, "baby", [], outputs, quiet) == said
    read = load_dataset(chars.data, 64, quiet)
    size = read.tokenizer.vocab_size
    guesses = f"uniform guess {math.log(size):.2f} (ln {size}) · {frequent} {read.unigram_loss:.2f}"
    assert anchors_of(chars, "baby", [], outputs, quiet) == f"Validation losses to compare with: {guesses}."
    # An experiment goes by the settings that its trials share, and by the last of its kind on the same tokens.
    plan = rate_plan(outputs, "next")
    assert anchors_of_plan(plan, [], outputs, quiet) == f"Validation losses to compare with: {guesses}."
    last = FakeExperiment(outputs, "n" * 50)
    results = last.write_results()
    lowest = [Finding("best", "", 0.01, text="0.01"), Finding("best_loss", "", 3.1)]
    write_results(last.folder, replace(results, findings=results.findings + lowest))
    said = f"Last such experiment, {'n' * 39}…: 0.01 had the lowest validation loss, 3.10."
    losses = f"Validation losses to compare with: {guesses}."
    assert anchors_of_plan(plan, [], outputs, quiet) == f"{said} {losses}"
    in_bits = [replace(one, unit="bits per byte") for one in lowest]  # no anchor of what is predicted in nats
    write_results(last.folder, replace(results, findings=results.findings + in_bits))
    assert anchors_of_plan(plan, [], outputs, quiet) == f"Validation losses to compare with: {guesses}."
    elsewhere = plan.base | {"data": plan.base["data"] | {"corpus": "shakespeare"}}
    assert "last such" not in anchors_of_plan(replace(plan, base=elsewhere), [], outputs, quiet)
    with pytest.raises(Cancelled):
        anchors_of_plan(plan, [], outputs, CancelAfter())


def test_what_to_go_by_is_looked_up_in_the_background_and_moves_nothing(qtbot: QtBot, book: Book) -> None:
    go_on, words = threading.Event(), "uniform guess 4.17 (ln 65) · " * 4

    def anchors(progress: Progress) -> str:
        assert threading.current_thread() is not threading.main_thread()
        assert go_on.wait(SECONDS)
        return words

    reading = threading.Event()
    # The notebook, which may take long to read.
    book._background.run(lambda: reading.wait(SECONDS), lambda _: None, lambda error: None)
    dialog, left = (PredictionDialog(book, "a run", quantities_of_runs(), anchors=anchors) for _ in range(2))
    qtbot.addWidget(dialog)
    dialog.show()
    delete(left)  # answered before anything was known
    QApplication.processEvents()
    places = [dialog.size(), *(part.geometry() for part in (dialog.anchors, dialog.rows[0], dialog.start_button))]
    go_on.set()
    qtbot.waitUntil(lambda: dialog.anchors.text().startswith("uniform"))
    book.look_up(lambda _: "", lambda _: go_on.clear())  # after what the other one asked for
    qtbot.waitUntil(lambda: not go_on.is_set())
    QApplication.processEvents()
    after = [dialog.size(), *(part.geometry() for part in (dialog.anchors, dialog.rows[0], dialog.start_button))]
    assert after == places
    assert not reading.is_set()
    reading.set()
    words *= 4  # more than anybody reckoned with is read whole all the same
    go_on.set()
    book.look_up(anchors, dialog._show_anchors)
    qtbot.waitUntil(lambda: dialog.anchors.text() == words)
    label = dialog.anchors
    qtbot.waitUntil(lambda: label.height() >= label.heightForWidth(label.width()) > places[1].height())


def test_the_question_can_be_switched_off_for_good(qtbot: QtBot, book: Book, tmp_path: Path) -> None:
    settings = WindowSettings(tmp_path / "window.ini")
    book.remember(settings)
    assert book.asks
    dialog = PredictionDialog(book, "a run", quantities_of_runs())
    qtbot.addWidget(dialog)
    dialog.ask_again.setChecked(False)
    assert not book.asks
    assert ask(dialog, book, "a run", quantities_of_runs()) == []  # at once
    assert settings.choices("notebook/asking", Asking) == Asking(before_runs=False)


def test_what_was_gone_back_from_is_there_again_for_the_same_run_alone(qtbot: QtBot, book: Book) -> None:
    seen: list[list[str]] = []

    def act(low: str) -> None:
        asked = QApplication.activeModalWidget()
        assert isinstance(asked, PredictionDialog)
        seen.append([str(prediction) for prediction in asked.stated()])
        if low:
            asked.rows[0].low.setText(low)
            asked.rows[0].high.setText("4.6")
        asked.back_button.click()

    for about, low in (("a run", "3.8"), ("another", ""), ("a run", "")):
        QTimer.singleShot(50, book, lambda low=low: act(low))
        assert ask(None, book, about, quantities_of_runs()) is None
    assert seen == [[], [], ["val_loss=3.8..4.6@80%"]]


def test_what_cannot_be_read_is_there_again_beside_what_can(qtbot: QtBot, book: Book) -> None:
    def typed(dialog: PredictionDialog) -> list[str]:
        assert dialog.curve is not None
        lines = [line for row in dialog.rows for line in (row.low, row.high)]
        lines += [dialog.curve.points, dialog.curve.within, dialog.sentence.words]
        return [line.text() for line in lines]

    def open_one(before: Sequence[Prediction | Unread] = ()) -> PredictionDialog:
        dialog = PredictionDialog(book, "a run", quantities_of_runs(), Expected(100, 4.0), before=before)
        qtbot.addWidget(dialog)
        return dialog

    first = open_one()
    first.add_row()
    first.draw_button.setChecked(True)
    assert first.curve is not None
    lines = [line for row in first.rows for line in (row.low, row.high)]
    words = ["1.9", "2.2", "3,1", "3.1", "1:4.4, half", "0.2", "It falls at once"]
    for line, text in zip((*lines, first.curve.points, first.curve.within, first.sentence.words), words, strict=True):
        line.setText(text)
    first.rows[1].sure.set_value(55)
    with qtbot.waitSignal(first.put_aside) as aside:
        first.reject()
    again = open_one(aside.args[0])
    assert typed(again) == words
    assert [row.about.name for row in again.rows] == [row.about.name for row in first.rows]
    assert again.rows[1].sure.value == 55


def test_both_kinds_of_runs_are_asked_about(qapp: QApplication) -> None:
    about, quantities, expected = question_about(resolve_settings("baby"))
    assert "shakespeare" in about
    assert quantities[0].name == "val_loss"
    assert 4 < expected.start_loss < 5  # ln of some eighty letters
    about, quantities, expected = question_about(FinetuneSettings())
    assert "LoRA" in about
    assert {"score", "loss_curve"} <= {quantity.name for quantity in quantities}
    assert expected.steps == FinetuneSettings().train.steps
