"""The table of a paper's claims."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt

from llmlab_gui.paper.claim_rows import ClaimRow, criterion_text, p_text, prediction_text, statistic_text
from llmlab_gui.widgets.row_tables import Column, Index, RowsModel

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
