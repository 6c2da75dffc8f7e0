"""The question before a check: a verdict for each claim is stated, skipped or refused, and shown beside what came."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_checks import CLAIMS, PAPER, FakeCheck, verdict
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot
from whole_lab import WholeLab
from windows import dock_in_sight

from llmlab.core.progress import quiet
from llmlab.data.papers import NOT_SUPPORTED, SUPPORTED, read_paper
from llmlab.notebook.notebook import Contents
from llmlab.studies.papers.checks import CheckRequest, plan_check, quantities_of_check
from llmlab_gui.lab.book import Book
from llmlab_gui.notebook.anchors import verdicts_before
from llmlab_gui.notebook.table import COLUMNS, NotebookModel
from llmlab_gui.notebook.verdicts_dialog import VerdictsDialog
from llmlab_gui.paper.claim_rows import ClaimRow, prediction_text
from llmlab_gui.paper.claims import ClaimsDock
from llmlab_gui.paper.pages import claim_page


@pytest.fixture
def dialog(qtbot: QtBot, outputs: Path) -> Iterator[VerdictsDialog]:
    book = Book(outputs)
    record = plan_check(CheckRequest(read_paper(PAPER), "minutes", outputs, list(CLAIMS), 1))
    made = VerdictsDialog(book, "a paper", quantities_of_check(record))
    qtbot.addWidget(made)
    made.show()
    yield made
    book.shutdown()


def test_each_claim_is_asked_for_in_its_own_words(dialog: VerdictsDialog) -> None:
    paper = read_paper(PAPER)
    assert [row.about.title for row in dialog.rows] == [paper.claim(claim).title for claim in CLAIMS]
    assert not dialog.start_button.isEnabled()
    assert not dialog.rows[0].sure.isVisible()


def test_what_is_chosen_is_stated_with_how_sure_one_is(dialog: VerdictsDialog) -> None:
    row = dialog.rows[1]
    row.verdict.setCurrentText(NOT_SUPPORTED)
    row.sure.set_value(90)
    assert row.sure.isVisible()
    dialog.start_button.click()
    assert dialog.predictions is not None
    assert [(p.quantity, p.choice, p.confidence) for p in dialog.predictions] == [
        (f"claim:{PAPER}/{CLAIMS[1]}", NOT_SUPPORTED, 0.9)
    ]


def test_the_last_check_of_the_paper_is_what_one_can_go_by(outputs: Path) -> None:
    asked = plan_check(CheckRequest(read_paper(PAPER), "minutes", outputs, list(CLAIMS), 1))
    assert verdicts_before(asked, outputs, quiet) == ""
    FakeCheck(outputs, "unfinished")
    FakeCheck(outputs, "other", paper="grokking", claims=()).judge(verdict("generalises", SUPPORTED))
    FakeCheck(outputs, "last").judge(verdict(CLAIMS[0], SUPPORTED), verdict(CLAIMS[1], NOT_SUPPORTED))
    found = f"supported: {CLAIMS[0]}; not supported: {CLAIMS[1]}"
    assert verdicts_before(asked, outputs, quiet) == f"The last check of this paper, last (minutes), found {found}."
    one = replace(asked, options=asked.options | {"claims": [CLAIMS[1]]})
    assert verdicts_before(one, outputs, quiet).endswith(f"found not supported: {CLAIMS[1]}.")


def test_escape_starts_nothing(qtbot: QtBot, dialog: VerdictsDialog) -> None:
    dialog.rows[0].verdict.setCurrentText(SUPPORTED)
    qtbot.keyClick(dialog, Qt.Key.Key_Escape)
    assert dialog.predictions is None
    assert not dialog.isVisible()


def test_a_prediction_stands_beside_its_claim_and_says_whether_it_came_true(
    qtbot: QtBot, lab: WholeLab, outputs: Path, dialog: VerdictsDialog
) -> None:
    for row, said in zip(dialog.rows, (SUPPORTED, SUPPORTED), strict=True):
        row.verdict.setCurrentText(said)
    dialog.start()
    assert dialog.predictions is not None
    check = FakeCheck(outputs, predictions=[prediction.as_dict() for prediction in dialog.predictions])
    with dock_in_sight(qtbot, ClaimsDock(lab, lab.papers), 1000, 300) as claims:
        lab.papers.show(PAPER)
        qtbot.waitUntil(lambda: bool(claims.model.rows) and claims.model.rows[0].predicted is not None)
        assert prediction_text(claims.model.rows[0]) == "supported, 70 % sure"
        check.judge(verdict(CLAIMS[0], SUPPORTED), verdict(CLAIMS[1], NOT_SUPPORTED))
        check.finish()
        qtbot.waitUntil(lambda: claims.model.rows[0].final and claims.model.rows[0].verdict is not None)
        rows = claims.model.rows
        assert prediction_text(rows[0]) == "✓ supported, 70 % sure"
        assert prediction_text(rows[1]) == "✗ supported, 70 % sure"
        assert prediction_text(replace(rows[1], predicted=None)) == ""


def test_a_prediction_that_was_changed_since_is_shown_as_altered(outputs: Path, dialog: VerdictsDialog) -> None:
    dialog.rows[0].verdict.setCurrentText(NOT_SUPPORTED)
    stated = [prediction.as_dict() for prediction in dialog.stated()]
    folder = FakeCheck(outputs, predictions=stated).folder
    record = folder.record()
    changed = [prediction | {"choice": SUPPORTED} for prediction in record.predictions]
    for predictions, altered in ((record.predictions, ""), (changed, "✗ altered: ")):
        (line,) = Contents().lines(folder, record.created, predictions)
        claim = ClaimRow(read_paper(PAPER).claims[0], "running", predicted=line)
        assert prediction_text(claim).startswith(altered or NOT_SUPPORTED)
        assert ("It counts as a miss." in claim_page(claim).text) == bool(altered)


def test_what_is_stated_of_a_check_is_sealed_with_it_and_shown_in_the_notebook(
    qtbot: QtBot, lab: WholeLab, outputs: Path, dialog: VerdictsDialog
) -> None:
    dialog.rows[1].verdict.setCurrentText(NOT_SUPPORTED)
    FakeCheck(outputs, predictions=[prediction.as_dict() for prediction in dialog.stated()])
    with qtbot.waitSignal(lab.notebook.changed):
        lab.notebook.refresh()
    (line,) = lab.notebook.entries[0].lines()
    assert not line.altered
    model = NotebookModel()
    model.show([line])
    shown = [model.index(0, column).data() for column in range(len(COLUMNS))]
    assert shown[:4] == ["heads", f"{CLAIMS[1]}: not supported", "", "70 %"]
    assert shown[7] == "waiting"
