"""The Claims dock: every claim of the paper, what a check found of it, and what the learner expected."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetrics, QPainter, QPaintEvent, QShowEvent
from PySide6.QtWidgets import QSizePolicy, QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, VERDICTS
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.paper.claim_rows import ClaimRow, criterion_text, p_text, prediction_text, statistic_text
from llmlab_gui.paper.desk import PaperDesk
from llmlab_gui.widgets.labels import ProblemLabel, QuietLabel, demi_bold, labelled
from llmlab_gui.widgets.layouts import beside, column
from llmlab_gui.widgets.row_tables import Column, Index, RowsModel, rows_table, select_row, selected_key
from llmlab_gui.widgets.saving import Export, export_button
from llmlab_gui.widgets.theme import Theme, current_theme, mix, theme_notifier

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
        self.standing = labelled(QuietLabel(), "Results so far")
        self.problem = labelled(ProblemLabel(), "Errors")
        export = export_button(Export(partial(self.write_table, self.model), self._export_name))
        top = beside(self.standing, export, grows=self.standing)
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

    def _export_name(self) -> str:
        check, paper = self.desk.check, self.desk.paper
        return f"{check.id if check is not None else paper.name if paper is not None else 'paper'}-claims"


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
        value=lambda row: row.verdict.statistic.name if row.verdict else None,
    ),
    Column(
        "p",
        lambda row: p_text(row.verdict.p) if row.verdict else "",
        "After Holm's correction",
        right=True,
        width=7,
        value=lambda row: row.verdict.p if row.verdict else None,
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
    in_file = (
        ("Value", lambda row: row.verdict.statistic.value if row.verdict else None),
        ("Low", lambda row: row.verdict.interval[0] if row.verdict and row.verdict.interval else None),
        ("High", lambda row: row.verdict.interval[1] if row.verdict and row.verdict.interval else None),
        ("Unit", lambda row: row.verdict.statistic.unit if row.verdict else None),
    )

    def key(self, row: ClaimRow) -> str:
        return row.claim.id

    def tip(self, row: ClaimRow) -> str:
        said = row.verdict.reason[:500] if row.verdict is not None else row.claim.test
        return f"{row.claim.id}: {row.claim.statement}\n\n{said}"

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role == Qt.ItemDataRole.AccessibleTextRole and index.column() == VERDICT_COLUMN:
            row = self.rows[index.row()]
            return row.state if row.final or row.verdict is None else f"{row.state} so far"
        return super().data(index, role)


_SIDE, _UP = 9, 3  # of the words, to the badge's edge
_GROUND = 0.16  # how much of the colour the ground has
# Shapes differ, so that the colour is not needed to tell verdicts apart.
_SIGNS = {SUPPORTED: "✓", NOT_SUPPORTED: "✗", INCONCLUSIVE: "?"}


def badge_text(state: str) -> str:
    """`✓ supported`."""
    sign = _SIGNS.get(state, "")
    return f"{sign} {state}" if sign else state


def badge_color(state: str, theme: Theme) -> str:
    """The colour that goes with a verdict, or with why there is none."""
    colors = {SUPPORTED: theme.good, NOT_SUPPORTED: theme.bad, INCONCLUSIVE: theme.warning, "running": theme.accent}
    return colors.get(state, theme.quiet)


def paint_badge(painter: QPainter, room: QRectF, state: str) -> None:
    """At the left of `room`, in its middle. A verdict has a ground; other states are words alone."""
    theme = current_theme()
    color, text = QColor(badge_color(state, theme)), badge_text(state)
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    metrics = QFontMetrics(painter.font())
    inside = room.width() - (2 * _SIDE if state in _SIGNS else 0)
    text = metrics.elidedText(text, Qt.TextElideMode.ElideRight, int(inside))
    left = room.left()
    if state in _SIGNS:
        height = metrics.height() + 2 * _UP
        width = min(room.width(), metrics.horizontalAdvance(text) + 2 * _SIDE)
        pill = QRectF(left, room.center().y() - height / 2, width, height)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(mix(theme.surface, color, _GROUND))
        painter.drawRoundedRect(pill, height / 2, height / 2)
        left += _SIDE
    painter.setPen(color)
    painter.drawText(QRectF(left, room.top(), room.right() - left, room.height()), Qt.AlignmentFlag.AlignVCenter, text)
    painter.restore()


class BadgeDelegate(QStyledItemDelegate):
    """Cells whose words are a verdict, or why there is none."""

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        state = str(index.data(Qt.ItemDataRole.DisplayRole) or "")
        self.initStyleOption(option, index)
        option.text = ""
        widget = option.widget
        assert widget is not None
        widget.style().drawControl(QStyle.ControlElement.CE_ItemViewItem, option, painter, widget)
        paint_badge(painter, QRectF(option.rect).adjusted(4, 0, -4, 0), state)


class Badge(QWidget):
    """One verdict, a little larger."""

    def __init__(self) -> None:
        super().__init__()
        self.state = ""  # what it says
        demi_bold(self)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Verdict")
        theme_notifier.changed.connect(self.update)

    def say(self, state: str) -> None:
        """Shows another verdict."""
        self.state = state
        self.setAccessibleDescription(state)
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        metrics = QFontMetrics(self.font())
        wide = 2 * _SIDE if self.state in _SIGNS else 0
        return QSize(metrics.horizontalAdvance(badge_text(self.state)) + wide + 2, metrics.height() + 2 * _UP + 2)

    def paintEvent(self, _event: QPaintEvent) -> None:
        with QPainter(self) as painter:
            painter.setFont(self.font())
            paint_badge(painter, QRectF(self.rect()), self.state)
