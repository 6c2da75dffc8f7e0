"""Layer contributions, residual stream and logit lens show the archive's numbers, exactly, and follow the selection."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_model import HEADS, LAYERS, FakeModelHost
from inspection_lab import PROMPT, InspectionLab, center_of, line_of, value_of
from PySide6.QtCore import QEvent, QObject, Qt, Signal
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from llmlab.core.errors import LabError
from llmlab.inspection.archive import Archive, read_archive, write_archive
from llmlab_gui.inside.contributions import ContributionsDock
from llmlab_gui.inside.inspection_dock import InspectionDock
from llmlab_gui.inside.lens import LensDock
from llmlab_gui.inside.residual import ResidualDock

WORDS = PROMPT.split()


@pytest.fixture
def lab(tmp_path: Path, qtbot: QtBot) -> Iterator[InspectionLab]:
    made = InspectionLab(tmp_path)
    yield made
    made.close()


def opened_contributions(lab: InspectionLab, qtbot: QtBot) -> ContributionsDock:
    dock = ContributionsDock(lab)
    lab.open(qtbot, dock)
    qtbot.waitUntil(lambda: dock.attribution is not None)
    return dock


def choose(dock: ContributionsDock, mode: str) -> None:
    dock.mode.setCurrentIndex(dock.mode.findData(mode))


def test_the_attribution_bars_are_the_archives_and_sum_to_the_logit(lab: InspectionLab, qtbot: QtBot) -> None:
    dock = opened_contributions(lab, qtbot)
    assert dock.attribution is not None
    bars, archive = dock.chart.bars, dock.attribution
    for layer in range(LAYERS):
        assert value_of(bars, str(layer), 0) == archive["attribution/attention"][layer]
        assert value_of(bars, str(layer), 1) == archive["attribution/feed_forward"][layer]
    parts = sum(bar.value for group in bars.groups if group.label != "sum" for bar in group.bars)
    assert parts == pytest.approx(value_of(bars, "sum", 3), abs=1e-5)
    assert value_of(bars, "sum", 3) == pytest.approx(float(archive["attribution/logit"][0]), abs=1e-6)
    assert (bars.unit, bars.across) == ("logit of “w7”", "layer")


def test_the_answer_and_the_other_token_are_asked_for_at_the_selected_place(lab: InspectionLab, qtbot: QtBot) -> None:
    dock = opened_contributions(lab, qtbot)
    lab.inspection.select(token=2)
    dock.answer.setText(" Paris")
    dock.against.setText(" Rome")
    qtbot.waitUntil(lambda: "Rome" in dock.chart.bars.unit)
    question, values = lab.host.asked[-1]
    assert question == "inspect"
    assert (values["position"], values["answer"], values["against"]) == (2, " Paris", " Rome")
    assert dock.chart.bars.unit == "logit of “·Paris” − logit of “·Rome”"


def test_shares_add_up_to_one_and_norms_are_of_the_selected_token(lab: InspectionLab, qtbot: QtBot) -> None:
    dock = opened_contributions(lab, qtbot)
    archive = lab.inspection.look.archive
    assert archive is not None
    choose(dock, "share")
    assert value_of(dock.chart.bars, "sum", 3) == pytest.approx(1.0, abs=1e-5)
    choose(dock, "norm")
    lab.inspection.select(token=3)
    assert value_of(dock.chart.bars, "2", 0) == archive["contributions/norm/attn_out"][2, 3]
    assert value_of(dock.chart.bars, "last", 3) == archive["contributions/norm/post_ffn"][-1, 3]


def test_a_click_on_an_attention_bar_opens_its_heads_and_selects_the_layer(lab: InspectionLab, qtbot: QtBot) -> None:
    dock = opened_contributions(lab, qtbot)
    assert dock.attribution is not None
    place = [group.label for group in dock.chart.bars.groups].index("2")
    qtbot.mouseClick(dock.chart, Qt.MouseButton.LeftButton, pos=dock.chart.center_of(place, 0))
    assert lab.inspection.selection.layer == 2
    assert dock.detail.isVisible()
    heads = [value_of(dock.detail.bars, str(head), 0) for head in range(HEADS)]
    assert heads == dock.attribution["attribution/heads"][2].tolist()
    bias, whole = value_of(dock.detail.bars, "bias", 1), value_of(dock.detail.bars, "sum", 2)
    assert sum(heads) + bias == pytest.approx(whole, abs=1e-5)
    assert whole == value_of(dock.chart.bars, "2", 0)
    dock.detail.clicked.emit(1, 0)
    assert lab.inspection.selection.head == 1
    lab.inspection.select(layer=0)  # another panel
    assert value_of(dock.detail.bars, "0", 0) == dock.attribution["attribution/heads"][0, 0]
    assert dock.chart.bars.groups[dock.chart.chosen].label == "0"


def test_a_click_on_a_feed_forward_bar_asks_for_its_neurons(lab: InspectionLab, qtbot: QtBot) -> None:
    lab.host.answers["neurons"] = lambda host, values, ids: (
        {
            "neurons/index": np.arange(20) + 100 * values["layer"],
            "neurons/activation": np.linspace(1, 2, 20),
            "neurons/attribution": np.linspace(3, -3, 20),
        },
        {},
    )
    dock = opened_contributions(lab, qtbot)
    place = [group.label for group in dock.chart.bars.groups].index("3")
    dock.chart.clicked.emit(place, 1)
    qtbot.waitUntil(lambda: len(dock.detail.bars.groups) == 20)
    assert value_of(dock.detail.bars, "#300", 0) == 3.0
    assert "activation" in dock.detail.tip(0, 0)


def test_why_there_is_no_attribution_is_said_and_the_rest_still_works(tmp_path: Path, qtbot: QtBot) -> None:
    lab = InspectionLab(tmp_path, FakeModelHost({"attribution": "Its last norm is not known."}))
    dock = ContributionsDock(lab)
    lab.open(qtbot, dock)
    qtbot.waitUntil(lambda: "last norm" in dock._problem.text and dock._problem.isVisible())
    assert not dock.chart.bars.groups
    choose(dock, "share")
    assert dock.chart.bars.groups
    assert dock.chart.isVisible()
    assert not dock._problem.isVisible()
    lab.close()


def test_a_refusal_that_comes_after_another_view_was_chosen_hides_nothing_of_it(
    lab: InspectionLab, qtbot: QtBot
) -> None:
    dock = opened_contributions(lab, qtbot)
    lab.host.hold = {"inspect"}
    lab.host.fail["inspect"] = LabError("'xyz' is no token.")
    asked = len(lab.host.asked)
    dock.answer.setText("xyz")
    qtbot.waitUntil(lambda: len(lab.host.asked) > asked)
    choose(dock, "share")
    lab.host.release()
    qtbot.waitUntil(lambda: lab.inspection.working is None)
    assert dock._pages.currentIndex() == 0
    assert dock.chart.bars.groups
    choose(dock, "logit")  # asks again
    qtbot.waitUntil(lambda: len(lab.host.asked) > asked + 1)


def test_a_token_that_is_none_is_refused_in_the_panel(lab: InspectionLab, qtbot: QtBot) -> None:
    dock = opened_contributions(lab, qtbot)
    lab.host.fail["inspect"] = LabError("answer 'Par is' is not one token.", "It is cut into two.", "Try another.")
    dock.against.setText("Par is")
    qtbot.waitUntil(lambda: "not one token" in dock._problem.text)
    assert dock._problem.size() == dock._pages.size()  # no half of the panel is blank
    lab.host.fail.clear()
    qtbot.mouseClick(dock._problem._button, Qt.MouseButton.LeftButton)
    assert dock.against.text() == ""
    qtbot.waitUntil(lambda: bool(dock.chart.bars.groups))
    assert dock.chart.isVisible()
    assert not lab.errors


def export(lab: InspectionLab, qtbot: QtBot, dock: InspectionDock, path: Path) -> Path:
    dock.export(path)
    qtbot.waitUntil(lambda: any(path.name in words for words in lab.words))
    return path


def test_an_exported_table_holds_the_archives_numbers(lab: InspectionLab, qtbot: QtBot, tmp_path: Path) -> None:
    dock = opened_contributions(lab, qtbot)
    assert dock.attribution is not None
    path = export(lab, qtbot, dock, tmp_path / "bars.csv")
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    found = {(row[0], row[1]): float(row[2]) for row in rows[1:]}
    for layer, value in enumerate(dock.attribution["attribution/attention"].tolist()):
        assert found[str(layer), "attention"] == value
    tensors = read_archive(export(lab, qtbot, dock, tmp_path / "bars.safetensors"))
    assert np.array_equal(tensors["attribution/heads"], dock.attribution["attribution/heads"])
    for kind in ("png", "svg"):
        assert export(lab, qtbot, dock, tmp_path / f"bars.{kind}").stat().st_size > 1000
    dock.shutdown()


def test_norms_are_drawn_for_the_selected_token_and_the_mean(lab: InspectionLab, qtbot: QtBot) -> None:
    dock = ResidualDock(lab)
    lab.open(qtbot, dock)
    archive = lab.inspection.look.archive
    assert archive is not None
    lab.inspection.select(token=1)
    stream = line_of(dock.chart, "stream, “king”")
    assert stream.y[0] == archive["contributions/norm/pre_attn"][0, 1]
    assert stream.y[1::2].tolist() == archive["contributions/norm/post_attn"][:, 1].tolist()
    assert stream.y[2::2].tolist() == archive["contributions/norm/post_ffn"][:, 1].tolist()
    assert stream.x.tolist() == [place / 2 for place in range(2 * LAYERS + 1)]
    mean = line_of(dock.chart, "attention adds, mean of tokens").y
    assert mean == pytest.approx(archive["contributions/norm/attn_out"].mean(axis=1), rel=1e-6)
    dock.mean.setChecked(False)
    assert len(dock.chart.lines) == 3
    dock.view.setCurrentIndex(1)
    assert line_of(dock.chart, "whole layer, “king”").y.tolist() == archive["contributions/cosine/block"][:, 1].tolist()


def test_a_click_in_the_map_selects_layer_and_token_everywhere(lab: InspectionLab, qtbot: QtBot) -> None:
    dock = ResidualDock(lab)
    lab.open(qtbot, dock)
    dock.view.setCurrentIndex(2)
    qtbot.waitUntil(dock.map.isVisible)
    place = dock.map.center_of(2, 4).toPoint()
    qtbot.mouseClick(dock.map, Qt.MouseButton.LeftButton, pos=place)
    assert (lab.inspection.selection.layer, lab.inspection.selection.token) == (2, 4)
    value = lab.inspection.look.archive["contributions/norm/post_ffn"][2, 4]
    assert f"{value:.6g}" in dock.map.words(2, 4)


def test_a_virtual_point_is_called_so(lab: InspectionLab, qtbot: QtBot) -> None:
    dock = ResidualDock(lab)
    lab.open(qtbot, dock)
    assert not dock.note.isVisible()
    archive = lab.inspection.look.archive
    assert archive is not None
    archive.metadata.notes.append("post_attn is virtual, pre_attn + attn_out.")
    dock.draw(archive)
    assert "virtual" in dock.note.text()
    assert dock.note.isVisible()


def opened_lens(lab: InspectionLab, qtbot: QtBot) -> LensDock:
    dock = LensDock(lab)
    lab.open(qtbot, dock)
    dock.grid.table.viewport().repaint()
    qtbot.waitUntil(lambda: "…" not in dock.grid.grid.text(0, 0))
    return dock


def test_each_cell_says_the_lens_top_token(lab: InspectionLab, qtbot: QtBot) -> None:
    dock = opened_lens(lab, qtbot)
    archive = lab.inspection.look.archive
    assert archive is not None
    ids, grid = archive["lens/ids"], dock.grid.grid
    assert grid.rows == ("embedding", "after 0", "after 1", "after 2", "final")
    qtbot.waitUntil(lambda: grid.text(4, 6) != "…")
    for row in range(5):
        for column in range(len(WORDS)):
            assert grid.text(row, column) == f"w{ids[2 * row, column, 0]}"
    dock.halves.setChecked(True)
    assert len(dock.grid.grid.rows) == 2 * LAYERS + 1
    assert dock.grid.grid.values.shape == (2 * LAYERS + 1, len(WORDS))
    assert np.array_equal(dock.grid.grid.values, archive["lens/probability"][:, :, 0])


def test_words_that_come_later_are_drawn_in_the_last_row_too(lab: InspectionLab, qtbot: QtBot) -> None:
    dock = opened_lens(lab, qtbot)
    dock.resize(500, 200)
    qtbot.waitUntil(dock.grid.last.isVisible)
    qtbot.waitUntil(lambda: dock.grid.grid.text(4, 6) != "…")
    for table in (dock.grid.table, dock.grid.last):
        table.viewport().repaint()
        with qtbot.waitSignal(Painted(table.viewport()).painted):
            dock._texts.arrived.emit()


class Painted(QObject):
    """Says when a widget is drawn again."""

    painted = Signal()

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Paint:
            self.painted.emit()
        return False


def test_hovering_a_cell_reads_all_of_it(lab: InspectionLab, qtbot: QtBot) -> None:
    dock = opened_lens(lab, qtbot)
    archive = lab.inspection.look.archive
    assert archive is not None
    tip = dock.grid.grid.tip(2, 3)
    for chance in archive["lens/probability"][4, 3]:
        assert f"{100 * chance:.4g} %" in tip
    assert f"correct token “the”: rank {int(archive['lens/rank'][4, 3]):,}" in tip
    assert f"entropy {archive['lens/entropy'][4, 3]:.4g}" in tip
    archive.metadata.tokens[3:5] = [r"\xe4\xbd", r"\xa0"]
    assert r"at token 4 “\xa0”, byte 3 of 3 of 你" in dock.grid.grid.tip(2, 4)


def test_a_click_pins_a_token_and_draws_its_rank_by_layer(lab: InspectionLab, qtbot: QtBot) -> None:
    dock = opened_lens(lab, qtbot)
    archive = lab.inspection.look.archive
    assert archive is not None
    assert not dock.ranks.isVisible()
    qtbot.mouseClick(dock.grid.table.viewport(), Qt.MouseButton.LeftButton, pos=center_of(dock.grid, 3, 2))
    assert dock.pins == [2]
    assert (lab.inspection.selection.token, lab.inspection.selection.layer) == (2, 2)
    assert dock.ranks.isVisible()
    assert dock.ranks.lines[0].y.tolist() == archive["lens/rank"][:, 2].tolist()
    assert "to" in dock.ranks.lines[0].label
    for height, table in ((640, 0.3), (324, 0.4)):  # of a panel as high, that of Look inside at 1366 x 768
        dock.resize(570, height)
        qtbot.waitUntil(lambda height=height, table=table: dock.grid.height() > table * height)
    dock.unpin.click()
    assert not dock.ranks.isVisible()


def lens_of_rows(whole: Archive, rows: list[int], path: Path, **about: Any) -> Archive:
    """As of a lens that is being read, when these rows have come."""
    tensors = {name: np.array(whole[name]) for name in whole if name.startswith("lens/")}
    missing = [row for row in range(2 * LAYERS + 1) if row not in rows]
    for name, values in tensors.items():
        values[missing] = {"lens/ids": -1, "lens/rank": 0}.get(name, np.nan)
    write_archive(path, tensors, replace(whole.metadata, **about))
    return read_archive(path)


def test_a_lens_that_was_cancelled_says_how_much_of_it_there_is_and_is_read_again_alone(
    lab: InspectionLab, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmlab_gui.host.inspection_plan._QUICK_LENS", 0)
    session, host = lab.inspection, lab.host
    dock = opened_lens(lab, qtbot)
    session.look.need("another", ("contributions",))
    whole = session.look.archive
    assert whole is not None
    part = lens_of_rows(whole, [0, 4, 8], tmp_path / "part.safetensors")

    def reads(what: str) -> None:
        qtbot.waitUntil(lambda: session.working is not None and host.asked[-1][1]["what"] == [what])

    host.hold = {"inspect"}
    session.refresh()
    reads("contributions")
    host.release()
    reads("lens")
    session.look._take_part(part)
    dock.archive = part  # as of a prompt whose lens was never whole
    dock._redraw()
    assert not dock.again.isVisible()
    session.cancel()
    assert dock.cut_off.text() == "3 of 5 rows were read"
    assert dock.cut_off.isVisible()
    asked = len(host.asked)
    dock.again.click()
    reads("lens")
    assert not dock.again.isVisible()
    host.release()
    qtbot.waitUntil(lambda: session.working is None)
    assert (dock.tensors() is not None, dock.again.isVisible(), len(host.asked) - asked) == (True, False, 1)

    # Cancelled, or failed, before the first of it came: the panel has nothing of this prompt.
    session.set_prompt("the queen said that", False, at_once=True)
    reads("contributions")
    host.release()
    reads("lens")
    session.cancel()
    assert "not completed" in dock._empty._title.text()
    dock._empty._button.click()
    reads("lens")
    host.fail = {"inspect": LabError("The lens failed.")}
    host.release()
    qtbot.waitUntil(lambda: session.working is None)
    assert "not completed" in dock._empty._title.text()


def test_a_lens_that_begins_anew_does_not_take_away_the_rows_in_sight(
    lab: InspectionLab, qtbot: QtBot, tmp_path: Path
) -> None:
    dock, session = opened_lens(lab, qtbot), lab.inspection
    whole = session.look.archive
    assert whole is not None

    def told(rows: list[int], **about: Any) -> np.ndarray[Any, Any]:
        """The rows in sight when some of a lens have come."""
        session.look._take_part(lens_of_rows(whole, rows, tmp_path / f"{next(numbers)}.safetensors", **about))
        assert (dock.tensors() is not None) == (not np.isnan(dock.grid.grid.values).any())
        return np.flatnonzero(np.isfinite(dock.grid.grid.values[:, 0]))

    numbers = itertools.count()
    everything = list(range(2 * LAYERS + 1))
    dock.pins = [2]
    assert told([0, 8]).tolist() == [0, 1, 2, 3, 4]
    session.look._findings.clear()  # as when a person wants to look again, and the model's file is another one
    assert told([0, 8], weights_sha256="another").tolist() == [0, 4]
    assert np.isnan(dock.ranks.lines[0].y).tolist() == [row not in (0, 8) for row in everything]
    assert told([0, 4, 8], weights_sha256="another").tolist() == [0, 2, 4]
    assert told([0, 8], weights_sha256="another").tolist() == [0, 2, 4]
    assert told(everything, weights_sha256="another").tolist() == [0, 1, 2, 3, 4]
    session.set_prompt("another prompt of the same tokens", False)
    assert told([0, 8], weights_sha256="another").tolist() == [0, 4]


def test_hovering_in_one_panel_shows_in_the_other(lab: InspectionLab, qtbot: QtBot) -> None:
    dock = opened_lens(lab, qtbot)
    qtbot.mouseMove(dock.grid.table.viewport(), center_of(dock.grid, 1, 4))
    qtbot.waitUntil(lambda: lab.inspection.hovered == 4)
