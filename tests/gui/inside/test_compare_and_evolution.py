"""Two models' differences are drawn as the archive has them; a film shows the step that the slider is on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_answers import STEPS, make_comparison, make_evolution
from fake_lab import FakeRow
from fake_model import FakeModelHost
from fakes import FakeRun
from inspection_lab import PROMPT, InspectionLab, line_of, value_of
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from llmlab.core.config import with_values
from llmlab.core.errors import LabError
from llmlab.core.settings import ModelSettings, PretrainSettings
from llmlab.store.checkpoints import checkpoint_name
from llmlab.store.run_folder import RunFolder
from llmlab_gui.forms.reference_box import ReferenceBox, offers
from llmlab_gui.host.process import Request
from llmlab_gui.inside import compare as views
from llmlab_gui.inside.compare import CompareDock
from llmlab_gui.inside.evolution import CONTRIBUTIONS, LENS, MOSAIC, EvolutionDock
from llmlab_gui.widgets.numbers import exact

COUNT = len(PROMPT.split())


@pytest.fixture
def lab(tmp_path: Path, qtbot: QtBot) -> Iterator[InspectionLab]:
    host = FakeModelHost()
    host.answers |= {"compare": make_comparison, "evolve": make_evolution}
    made = InspectionLab(tmp_path, host)
    yield made
    made.close()


@pytest.fixture
def compared(lab: InspectionLab, qtbot: QtBot) -> CompareDock:
    dock = CompareDock(lab)
    lab.open(qtbot, dock)
    dock.a.choose("bar@50")
    dock.b.choose("bar@150")
    dock.compare.click()
    qtbot.waitUntil(lambda: dock.archive is not None)
    return dock


def test_a_loss_beside_a_checkpoint_names_the_text_it_was_measured_on(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, "bar").start().advance(250).save_checkpoint()
    words = dict(offers(tmp_path, [fake.run], []))
    assert words["bar@250"] == f"bar@250, validation loss {fake.losses_of(250)[1]:.3f} on shakespeare"


def test_a_narrow_box_shows_the_name_of_a_model_and_not_the_beginning_of_its_place(
    tmp_path: Path, qtbot: QtBot
) -> None:
    place = str(tmp_path / "models" / "small.gguf")
    box = ReferenceBox("Model A")
    qtbot.addWidget(box)
    box.choose(place)
    box.offer(offers(tmp_path, [], [place]))
    box.resize(140, box.sizeHint().height())
    box.show()
    line = box.lineEdit()
    assert line is not None
    assert line.text().startswith("small.gguf")
    assert line.cursorPosition() == 0
    assert box.reference == place
    assert box.shown(80).startswith("small")
    box.offer([("/a/twin", "twin (0.12M)"), ("/b/twin", "twin (0.12M)")])
    for twin in ("/a/twin", "/b/twin"):
        box.choose(twin)
        assert box.reference == twin
    name = "20261130-081913-baby-shakespeare@1250"
    box.offer([(name, f"{name}, validation loss 2.091 on shakespeare")])
    for chosen in (name, f"/outputs/{name}"):
        box.choose(chosen)
        assert box.shown(140).startswith("2026")
        assert box.shown(140).endswith("@1250")  # which checkpoint of the run
        before = box.grab().toImage()
        with qtbot.waitActive(box):
            box.activateWindow()
        line.setFocus()
        assert box.grab().toImage() != before  # who writes in it sees the text itself
        line.clearFocus()


def test_a_heads_difference_is_drawn_centred_at_zero(lab: InspectionLab, qtbot: QtBot, compared: CompareDock) -> None:
    assert lab.host.asked[-1][0] == "compare"
    assert compared.archive is not None
    assert compared.view.currentIndex() == views.PREDICTIONS  # at first
    compared.view.setCurrentIndex(views.PATTERN)
    lab.inspection.select(layer=2, head=1)
    heat = compared.map.heat
    assert heat is not None
    assert np.array_equal(heat.values, compared.archive["difference/attention/2"][1])
    value = float(compared.archive["difference/attention/2"][1, 3, 0])
    assert f"from 3 “to” to 0 “the”: A − B = {exact(value)}" in compared.map.words(3, 0)
    scale = compared.map.scale()
    assert scale.low == -scale.high


def test_a_click_among_all_heads_opens_that_heads_difference(
    lab: InspectionLab, qtbot: QtBot, compared: CompareDock
) -> None:
    assert compared.archive is not None
    compared.view.setCurrentIndex(views.HEADS)
    heat = compared.map.heat
    assert heat is not None
    moved = np.abs(np.asarray(compared.archive["difference/attention/3"][2], np.float64)).sum(axis=-1).mean() / 2
    assert heat.values[3, 2] == pytest.approx(moved, rel=1e-6)
    compared.map.clicked.emit(3, 2)
    assert (lab.inspection.selection.layer, lab.inspection.selection.head) == (3, 2)
    assert compared.view.currentIndex() == views.PATTERN
    assert np.array_equal(compared.map.heat.values, compared.archive["difference/attention/3"][2])


def test_points_lines_and_predictions_are_the_archives(lab: InspectionLab, qtbot: QtBot, compared: CompareDock) -> None:
    archive = compared.archive
    assert archive is not None
    compared.view.setCurrentIndex(views.STREAM)
    assert np.allclose(compared.map.heat.values, 1 - archive["cosine/residual/post_ffn"])
    compared.view.setCurrentIndex(views.POINT)
    lab.inspection.select(layer=1, token=3)
    assert np.array_equal(compared.map.heat.values, archive["difference/residual/post_ffn"][1])
    compared.view.setCurrentIndex(views.LAYERS)
    assert line_of(compared.chart, "CKA, stream after the layer").y == pytest.approx(archive["cka/post_ffn"])
    assert compared.table()[0] == ("line", "layer", "similarity")
    compared.view.setCurrentIndex(views.PREDICTIONS)
    assert line_of(compared.chart, "KL(A ‖ B)").y == pytest.approx(archive["kl"])
    first = compared.tokens.columns[0]
    assert first.title == "A: bar@50"
    assert [text for text, _ in first.pairs] == [f" word{id}" for id in archive["a/ids"][3]]
    assert [chance for _, chance in first.pairs] == archive["a/probability"][3].tolist()
    table = compared.table()
    assert table is not None
    assert table[0] == ("line", "token", "KL(A ‖ B)")
    assert compared.chart.y_unit == "nats"
    assert [row[2] for row in table[1]] == pytest.approx(archive["kl"].tolist())
    assert compared.pictures() == [compared.chart, compared.tokens]
    lab.host.answers["compare"] = _of_other_vocabularies
    compared.swap.click()
    compared.compare.click()
    qtbot.waitUntil(lambda: compared.archive is not None and "kl" not in compared.archive)
    assert compared.pictures() == [compared.tokens]  # and no empty chart above them
    compared.view.setCurrentIndex(views.LAYERS)
    assert compared.pictures() == [compared.chart]


def _of_other_vocabularies(*asked: Any) -> Any:
    tensors, more = make_comparison(*asked)
    del tensors["kl"]
    return tensors, more


def test_what_cannot_be_compared_is_said_and_another_prompt_forgets(
    lab: InspectionLab, qtbot: QtBot, compared: CompareDock
) -> None:
    lab.inspection.set_prompt("something else entirely", False, at_once=True)
    qtbot.waitUntil(lambda: compared.archive is None)
    assert not compared.export_button.isEnabled()
    lab.host.fail["compare"] = LabError("The models cut the prompt into different tokens.", "", "Align them.")
    compared.swap.click()
    assert (compared.a.reference, compared.b.reference) == ("bar@150", "bar@50")
    compared.compare.click()
    qtbot.waitUntil(lambda: "different tokens" in compared.empty.text)
    compared.a.choose("bar@50")  # of these nobody has said so
    assert "different tokens" not in compared.empty.text
    compared.compare.click()
    qtbot.waitUntil(lambda: "different tokens" in compared.empty.text)
    compared.compare.click()
    assert "different tokens" not in compared.empty.text  # while it is looked at again


def test_a_checkpoint_that_is_gone_gives_its_place_to_one_that_is_there(
    lab: InspectionLab, qtbot: QtBot, tmp_path: Path
) -> None:
    run = lab.add(FakeRun(tmp_path).start().advance(10).save_checkpoint().advance(10).save_checkpoint().stop()).run
    dock = CompareDock(lab)
    lab.open(qtbot, dock, model="fake@20")
    qtbot.waitUntil(lambda: dock.b.reference == "fake@10")  # also where it was shown before its model
    shutil.rmtree(run.checkpoints / checkpoint_name(10))
    dock.hide()
    dock.show()
    qtbot.waitUntil(lambda: dock.b.reference not in ("", "fake@10"))
    assert dock.a.reference == "fake@20"
    dock.b.setFocus()
    dock.b.setEditText("fake@10")
    lab.runs_changed.emit()
    assert not dock._offering  # what is typed may become fake@100
    dock.compare.setFocus()
    lab.runs_changed.emit()  # also where it is in sight
    qtbot.waitUntil(lambda: dock.b.reference not in ("", "fake@10"))
    dock.b.choose("")
    dock.b.offer([("fake@20", "A"), ("fake@10", "deleted since"), ("tiny", "another")])
    dock._propose()
    assert dock.b.reference == "tiny"
    dock.shutdown()


def test_a_run_that_trains_is_compared_by_what_it_has_saved(lab: InspectionLab, qtbot: QtBot, tmp_path: Path) -> None:
    run = FakeRun(tmp_path).start().advance(10).save_checkpoint().advance(10).save_checkpoint()
    lab.add(run)
    assert "fake@live" in dict(offers(tmp_path, [run.run], []))
    dock = CompareDock(lab)
    lab.open(qtbot, dock, model="fake@20")
    qtbot.waitUntil(lambda: dock.b.reference == "fake@10")
    lab.inspection.open("fake@10")
    qtbot.waitUntil(lambda: (dock.a.reference, dock.b.reference) == ("fake@10", "fake@20"))
    lab.inspection.open("fake@live")
    qtbot.waitUntil(lambda: dock.a.reference == "fake@latest")
    dock.shutdown()


@pytest.fixture
def film(lab: InspectionLab, qtbot: QtBot, tmp_path: Path) -> EvolutionDock:
    dock = EvolutionDock(lab)
    lab.add(FakeRun(tmp_path, steps=200).start().advance(150))
    lab.open(qtbot, dock, model="fake@150")
    dock.watch.click()
    qtbot.waitUntil(lambda: dock.ready())
    return dock


def test_the_slider_shows_the_right_step(lab: InspectionLab, qtbot: QtBot, film: EvolutionDock) -> None:
    archive = film.tensors()[0]
    assert film.film.steps == STEPS
    assert film.strip_of_steps.place == 3
    lab.inspection.select(layer=1, head=2)
    for place, step in enumerate(STEPS):
        film.strip_of_steps.slider.setValue(place)
        assert film.strip_of_steps.words.text().startswith(f"step {step}")
        assert np.array_equal(film.map.heat.values, archive["heads/induction"][place])
    assert "validation loss 2.000 · 3 of 4" in _words_at(film, 2)
    line = line_of(film.chart, "layer 1, head 2")
    assert line.x.tolist() == STEPS
    assert line.y == pytest.approx(archive["heads/induction"][:, 1, 2], rel=1e-6)
    assert film.map.scale().high == pytest.approx(archive["heads/induction"].max(), rel=1e-6)
    first, *_, last = archive["heads/induction"]
    layer, head = np.unravel_index(last.argmax(), last.shape)
    told = f"head {layer}.{head}, {first[layer, head]:.3g} at step {STEPS[0]} and {last.max():.3g} at step {STEPS[-1]} "
    assert told in film._caption.text.accessibleName()


def _words_at(film: EvolutionDock, place: int) -> str:
    film.strip_of_steps.slider.setValue(place)
    return film.strip_of_steps.words.text()


def test_playing_goes_through_all_steps_and_stops(lab: InspectionLab, qtbot: QtBot, film: EvolutionDock) -> None:
    strip = film.strip_of_steps
    strip._timer.setInterval(5)
    seen: list[int] = []
    strip.moved.connect(seen.append)
    qtbot.mouseClick(strip.play, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not strip.play.isChecked())
    assert seen == [0, 1, 2, 3]
    assert strip.play.text() == "Play"


def test_lens_and_contributions_move_too(lab: InspectionLab, qtbot: QtBot, film: EvolutionDock) -> None:
    archive = film.tensors()[0]
    film.view.setCurrentIndex(LENS)
    film.strip_of_steps.slider.setValue(1)
    assert np.array_equal(film.grid.grid.values, archive["lens/probability"][1, [0, 2, 4, 6, 8], :, 0])
    lab.inspection.select(token=2)
    assert film.chart.lines[0].y == pytest.approx(archive["lens/target_probability"][:, -1, 2], rel=1e-6)
    film.view.setCurrentIndex(CONTRIBUTIONS)
    assert value_of(film.bars.bars, "2", 0) == archive["attribution/attention"][1, 2]
    assert line_of(film.chart, "logit").y == pytest.approx(archive["attribution/logit"][:, 0], rel=1e-6)
    film.view.setCurrentIndex(MOSAIC)
    assert film.mosaic.isVisible()


def test_a_live_run_adds_frames_while_it_trains(lab: InspectionLab, qtbot: QtBot, tmp_path: Path) -> None:
    dock = EvolutionDock(lab)
    fake = lab.add(FakeRun(tmp_path, steps=400).start().advance(20))
    lab.inspection.look.following.set(True, 0.2)
    lab.open(qtbot, dock, model="fake@live")
    assert dock.live.isEnabled()
    dock.live.click()
    qtbot.waitUntil(lambda: dock.film.steps == [20])
    lab.pump(fake.advance(30))
    qtbot.waitUntil(lambda: dock.film.steps == [20, 50])
    asked = [values for question, values in lab.host.asked if question == "inspect" and "lens" in values["what"]]
    assert asked[-1]["answer"] == "w7"  # the first frame's, so that frames compare
    lab.pump(fake.finish())
    qtbot.waitUntil(lambda: not dock.live.isChecked())
    assert "has ended" in dock.note.text()
    dock.shutdown()


def test_a_run_of_another_outputs_folder_is_asked_about_by_its_place(
    lab: InspectionLab, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    plain = lab.host.evolve

    def evolve(run: str, values: Mapping[str, Any], out: Path) -> Request:
        asked.append(run)
        return plain(run, values, out)

    monkeypatch.setattr(lab.host, "evolve", evolve)
    dock = EvolutionDock(lab)
    fake = lab.add(FakeRun(tmp_path / "elsewhere", steps=400).start().advance(20))
    lab.open(qtbot, dock)
    dock.start()
    qtbot.waitUntil(lambda: dock.film.steps == STEPS)
    assert asked == [str(fake.run.path)]
    dock.shutdown()


def test_an_evolution_that_was_asked_of_one_run_is_never_shown_as_anothers(
    lab: InspectionLab, qtbot: QtBot, outputs: Path
) -> None:
    dock = EvolutionDock(lab)
    for name in ("alpha", "beta"):
        lab.add(FakeRun(outputs, name, steps=400).start().advance(20))
    lab.open(qtbot, dock)
    dock.run_box.setCurrentIndex(dock.run_box.findText("alpha"))
    lab.host.hold = {"evolve"}
    dock.start()
    dock.run_box.setCurrentIndex(dock.run_box.findText("beta"))
    dock.run_box.activated.emit(dock.run_box.currentIndex())
    lab.host.release()
    qtbot.waitUntil(lambda: lab.inspection.working is None)
    assert not dock.film.frames

    # The run in the box is deleted.
    lab.host.hold = set()
    dock.start()
    qtbot.waitUntil(lambda: bool(dock.film.frames))
    del lab._fakes[dock.run_id]
    lab.runs_changed.emit()
    assert dock.run_box.currentText() == "alpha"
    assert not dock.film.frames
    dock.shutdown()


def test_what_is_being_done_is_said_in_words(lab: InspectionLab, qtbot: QtBot, outputs: Path) -> None:
    dock = EvolutionDock(lab)
    lab.add(FakeRun(outputs, steps=400).start().advance(20))
    lab.open(qtbot, dock)
    session, said = lab.inspection, set()
    session.working_changed.connect(lambda: said.add(session.working.what if session.working else ""))
    dock.start()
    qtbot.waitUntil(lambda: dock.film.steps == STEPS)
    assert "Reading the prompt at each checkpoint" in said
    assert "Evolve" not in said
    dock.shutdown()


def test_a_run_with_few_checkpoints_is_offered_another_time_with_log_spaced_ones(
    lab: InspectionLab, qtbot: QtBot, tmp_path: Path
) -> None:
    dock = EvolutionDock(lab)
    with qtbot.waitSignal(lab.setup_requested) as asked:
        dock.set_up()
    assert asked.args[0]["checkpoints.per_decade"] == 10
    settings = PretrainSettings(model=ModelSettings(n_layer=3))
    fake = lab.add(FakeRun(tmp_path, "lean", settings=settings).start().advance(150))
    lab.open(qtbot, dock, model="lean@150")
    for _ in range(2):
        fake.advance(1).save_checkpoint()
    lab.runs_changed.emit()
    assert "lean has 2 checkpoints" in dock.empty.text
    with qtbot.waitSignal(lab.setup_requested) as asked:
        dock.empty._button.click()
    filled = with_values(PretrainSettings(), {key: value for key, value in asked.args[0].items() if "." in key})
    assert (filled.model.n_layer, len(filled.checkpoints.log_spaced(2000))) == (3, 31)
    for _ in range(3):
        fake.advance(1).save_checkpoint()
    lab.runs_changed.emit()
    assert "lean" not in dock.empty.text
    dock.shutdown()


def test_a_run_that_is_renamed_stays_chosen_with_its_film(
    lab: InspectionLab, film: EvolutionDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeRow, "name", property(lambda row: row.id))  # as where another track has one of that name
    narrow = film.run_box.sizeHint().width()
    lab.runs_changed.emit()
    assert film.run_box.currentText() == "pretraining/fake"
    assert film.run_box.sizeHint().width() > narrow  # as wide as what it holds now
    monkeypatch.undo()
    lab.runs_changed.emit()
    assert film.run_box.currentText() == "fake"
    fake = lab._fakes.pop("pretraining/fake")
    fake.run.path.rename(fake.run.path.with_name("winner"))
    fake.run = RunFolder(fake.run.path.with_name("winner"))
    lab._fakes["pretraining/other"] = FakeRun(lab.outputs, "other").start()
    lab._fakes["pretraining/winner"] = fake
    lab.run_renamed.emit("pretraining/fake", "pretraining/winner")
    lab.runs_changed.emit()
    assert (film.run_box.currentText(), film.run_id, film.run_box.count()) == ("winner", "pretraining/winner", 2)
    assert film.film.frames


def test_another_prompt_is_another_film(lab: InspectionLab, qtbot: QtBot, film: EvolutionDock) -> None:
    lab.inspection.set_prompt("something else", False, at_once=True)
    qtbot.waitUntil(lambda: not film.ready())
    assert not film.strip_of_steps.isVisible()
    assert "Highest" not in film._caption.text.accessibleName()  # of the film that is gone
