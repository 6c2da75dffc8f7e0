"""The Claims dock: every claim of the paper, what a check found of it, and what the learner expected."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QModelIndex, Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QWidget

from llmlab.data.papers import VERDICTS
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.paper.claim_rows import ClaimRow, criterion_text, p_text, prediction_text, statistic_text
from llmlab_gui.paper.verdict_badge import BadgeDelegate
from llmlab_gui.widgets.buttons import menu_button
from llmlab_gui.widgets.labels import ProblemLabel, QuietLabel
from llmlab_gui.widgets.layouts import beside, column
from llmlab_gui.widgets.row_tables import Column, Index, RowsModel, rows_table, select_row, selected_key
from llmlab_gui.widgets.saving import ask_where

if TYPE_CHECKING:
    from llmlab_gui.lab.lab import Lab
    from llmlab_gui.paper.desk import PaperDesk

_CAPTION = "Bounds were fixed before anything was trained. Choose a claim: Evidence shows what its verdict rests on."


class ClaimsDock(LabDock):
    """Choosing a row makes that claim the one that Evidence is about."""

    def __init__(self, lab: Lab, desk: PaperDesk, parent: QWidget | None = None) -> None:
        super().__init__(lab, "claims", "Claims", parent)
        self.desk = desk
        self.model = ClaimsModel(self)
        self.table = rows_table(self.model, "Claims of the paper", CLAIM_COLUMNS)
        self._delegate = BadgeDelegate(self.table)
        self.table.setItemDelegateForColumn(VERDICT_COLUMN, self._delegate)
        self.standing = QuietLabel()
        self.standing.setAccessibleName("Results so far")
        self.problem = ProblemLabel()
        self.problem.setAccessibleName("Errors")
        self.export_button = menu_button("Export", "Save the table as CSV")
        self.export_button.menu().addAction("Claims and verdicts (CSV)…", self._ask_where)
        top = beside(self.standing, self.export_button, grows=self.standing)
        self.set_body(column(top, self.problem, (self.table, 1)))
        self.caption(_CAPTION, "predicting")
        self.table.selectionModel().currentRowChanged.connect(self._moved)
        self.table.clicked.connect(self._clicked)
        self.table.activated.connect(self._clicked)
        self.desk.paper_changed.connect(self._refresh)
        self.desk.check_changed.connect(self._refresh)
        self.desk.claim_changed.connect(self._select)
        self._refresh()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.desk.need()

    # Behind the scenes -----------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        rows = self.desk.claims()
        self.model.show(rows)
        if not rows and self.desk.paper is None:
            self.show_empty("No paper is open", "Choose one in Paper: its claims are listed here.")
            return
        if not rows:
            self.show_empty("No claims are here", "The page of your paper, in Paper, says what its files lack.")
            return
        self.show_body()
        self._select()
        problem = self.desk.problem
        self.problem.say(str(problem) if problem is not None else "")
        check = self.desk.check
        found = Counter(row.state for row in rows if row.verdict is not None)
        said = ", ".join(f"{found[verdict]} {verdict}" for verdict in VERDICTS if found[verdict])
        own = self.desk.own.get(self.desk.paper.name) if self.desk.paper is not None else None
        if own is not None:
            words = f"Yours, {own.standing}: no check tests it."
        elif check is None:
            words = f"{len(self.desk.tested)} of {len(rows)} claims can be tested here; no check has been run yet."
        else:
            more = " so far" if check.status.state != "finished" else ""
            words = f"{check.id}: {said or 'no verdict'}{more}. {self._untested(len(rows))}".strip()
        self.standing.setText(words)

    def _untested(self, claims: int) -> str:
        count = claims - len(self.desk.tested)
        return f"{count} {'claim has' if count == 1 else 'claims have'} no test here." if count else ""

    def _select(self) -> None:
        claim = self.desk.claim
        select_row(self.table, claim.claim.id if claim is not None else "")

    def _moved(self) -> None:
        if self.table.hasFocus():  # not when the table itself moves the selection
            self.desk.set_claim(selected_key(self.table))

    def _clicked(self, _index: QModelIndex) -> None:
        self.desk.set_claim(selected_key(self.table))

    def _ask_where(self) -> None:
        check, paper = self.desk.check, self.desk.paper
        name = check.id if check is not None else paper.name if paper is not None else "claims"
        path = ask_where(self, "Export the table", f"{name}-claims.csv", "Table")
        if path is not None:
            self.write_table(self.model, path)


CLAIM_COLUMNS: tuple[Column[ClaimRow], ...] = (
    Column("Claim", lambda row: row.claim.title or row.claim.id, "What the paper says", width=50),
    Column("Verdict", lambda row: row.state, "What the check found, or why there is no verdict", width=21),
    Column(
        "You expected",
        prediction_text,
        "Your prediction from before the check; ✓ and ✗ say whether it came true",
        width=25,
    ),
    Column(
        "Statistic",
        lambda row: statistic_text(row.verdict),
        "The main statistic of the verdict, with its 95 % interval",
        width=50,
    ),
    Column(
        "p", lambda row: p_text(row.verdict.p) if row.verdict else "", "After Holm's correction", right=True, width=7
    ),
    Column(
        "Paper's own",
        lambda row: criterion_text(row.verdict),
        "Whether the same data pass the paper's own criterion, where it names one",
        width=12,
    ),
)
VERDICT_COLUMN = 1


class ClaimsModel(RowsModel[ClaimRow]):
    """All claims of one paper."""

    columns = CLAIM_COLUMNS

    def key(self, row: ClaimRow) -> str:
        return row.claim.id

    def state(self, row: ClaimRow) -> str:
        return row.state

    def tip(self, row: ClaimRow) -> str:
        said = row.verdict.reason[:500] if row.verdict is not None else row.claim.test
        return f"{row.claim.id}: {row.claim.statement}\n\n{said}"

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role == Qt.ItemDataRole.AccessibleTextRole and index.column() == VERDICT_COLUMN:
            row = self.rows[index.row()]
            return row.state if row.final or row.verdict is None else f"{row.state} so far"
        return super().data(index, role)
