"""The window's model of papers: which there are, the one that is read, the claim looked at, and the checks of it."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.data.papers import Paper, readable_papers
from llmlab.studies.papers.checks import claims_of_models, claims_tested
from llmlab.studies.papers.own import OwnPaper, own_papers
from llmlab.studies.papers.records import CheckResult
from llmlab_gui.experiments.desk import ExperimentDesk
from llmlab_gui.experiments.poller import CHECKS, ExperimentRow, Report
from llmlab_gui.lab.lab import Lab
from llmlab_gui.paper.claim_rows import ClaimRow, check_options, claim_rows
from llmlab_gui.widgets.background import Background


class PaperDesk(QObject):
    """What the docks of the workspace Paper share; `checks` has all checks of all papers.

    The paper that is read is that of the check last looked at, until the learner chooses another.
    """

    paper_changed = Signal()  # the papers were read, or another one is read now
    claim_changed = Signal()  # another claim is looked at
    check_changed = Signal()  # which check of the paper is looked at, where it stands, or what came out of it
    check_began = Signal()  # one that the learner has started is looked at
    check_wanted = Signal()  # `wanted` was set: a page asks for a check to be set up

    def __init__(self, lab: Lab, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._lab, self._book = lab, lab.notebook
        self.papers: list[Paper] = []
        self.own: dict[str, OwnPaper] = {}  # those of them that are the reader's, by name
        self.looked = False  # whether the papers were read
        self.wanted: tuple[str, str, str] | None = None  # paper, its one claim, and model of a check to be set up
        self.checks: ExperimentDesk[CheckResult] = ExperimentDesk(lab.outputs, CHECKS, self)
        lab.add_desk(self.checks)
        self._background = Background(self)
        self._asked = False
        self._paper, self._claim = "", ""
        self._by_hand = False  # the learner chose the paper
        self.checks.changed.connect(self._keep_to_paper)
        self.checks.changed.connect(self.check_changed)
        self.checks.outcome_changed.connect(self.check_changed)
        self.checks.current_changed.connect(self._check_chosen)
        self._book.changed.connect(self.check_changed)
        lab.paper_requested.connect(self.show)
        lab.check_requested.connect(self.want_check)

    def need(self) -> None:
        """Reads the papers, in the background, when they are first needed."""
        if not self._asked:
            self._asked = True
            self._book.refresh()
            self.reread()

    def reread(self, name: str = "") -> None:
        """Reads the papers anew, as after answers were written. name: the paper to be shown then."""
        outputs = self._lab.outputs
        self._background.run(
            lambda: (*readable_papers(), own_papers(outputs)), partial(self._take, name), self._lab.error_raised.emit
        )

    # What is looked at -----------------------------------------------------------------------------------------

    @property
    def paper(self) -> Paper | None:
        """The paper that is read."""
        return next((paper for paper in self.papers if paper.name == self._paper), None)

    @property
    def claim(self) -> ClaimRow | None:
        """The claim that is looked at: the first, unless one was chosen."""
        rows = self.claims()
        return next((row for row in rows if row.claim.id == self._claim), rows[0] if rows else None)

    def claims(self) -> list[ClaimRow]:
        """All claims of the paper."""
        paper, check = self.paper, self.check
        if paper is None:
            return []
        lines = self._book.lines(check.folder, check.record) if check is not None else []
        return claim_rows(paper, claims_tested(paper), check, self.result, lines)

    @property
    def tested(self) -> list[str]:
        """Ids of the claims that the lab has a test of."""
        return claims_tested(self.paper) if self.paper is not None else []

    @property
    def of_models(self) -> list[str]:
        """Those that are tested on models which the learner names."""
        return claims_of_models(self.paper) if self.paper is not None else []

    @property
    def check(self) -> ExperimentRow | None:
        """The check that is looked at, where it is one of this paper."""
        row = self.checks.current()
        return row if row is not None and _paper_of(row) == self._paper else None

    def checks_here(self) -> list[ExperimentRow]:
        """All checks of the paper, newest first."""
        return [row for row in self.checks.rows() if _paper_of(row) == self._paper]

    @property
    def result(self) -> CheckResult | None:
        """Verdicts of that check, as far as they are there."""
        return self.checks.outcome.results if self.check is not None else None

    @property
    def report(self) -> Report | None:
        """report.md of that check, once it is written."""
        return self.checks.outcome.report if self.check is not None else None

    @property
    def problem(self) -> LabError | None:
        """Why its verdicts cannot be read."""
        return self.checks.outcome.problem if self.check is not None else None

    # Choosing --------------------------------------------------------------------------------------------------

    def show(self, paper: str, claim: str = "") -> None:
        """Reads a paper, and looks at one of its claims."""
        self.need()
        self.set_paper(paper)
        if claim:
            self.set_claim(claim)

    def want_check(self, paper: str, claim: str, model: str) -> None:
        """A check of this claim alone, on this model, is to be set up: by whoever has a form for it."""
        self.wanted = (paper, claim, model)
        self.check_wanted.emit()

    def set_paper(self, name: str) -> None:
        """Reads another paper, with the newest check of it."""
        self._by_hand = True
        if name == self._paper:
            return
        self._paper, self._claim = name, ""
        self._keep_to_paper()
        self.paper_changed.emit()
        self.claim_changed.emit()
        self.check_changed.emit()

    def set_claim(self, id: str) -> None:
        """Looks at another claim of the paper."""
        if id != self._claim:
            self._claim = id
            self.claim_changed.emit()

    def turn_to(self, check: ExperimentRow) -> None:
        """The learner has started it: the claim that is looked at is one that it tests."""
        options, now = check_options(check), self.claim
        if options is not None and options.claims and (now is None or now.claim.id not in options.claims):
            self.set_claim(options.claims[0])
        self.check_began.emit()

    def shutdown(self) -> None:
        """Waits for what is read in the background. The lab ends what follows the checks."""
        self._background.shutdown()

    def _take(self, name: str, found: tuple[list[Paper], list[LabError], list[OwnPaper]]) -> None:
        papers, errors, own = found
        mine = {one.paper.name: one for one in own}
        everything = [*papers, *(one.paper for one in own)]
        if self.looked and not name and (everything, mine) == (self.papers, self.own):
            return
        for error in errors:
            self._lab.error_raised.emit(error)
        self.own, self.papers, self.looked = mine, everything, True
        if name:
            self._by_hand, self._paper = True, name
        if self.paper is None:
            self._by_hand = False
            self._paper = papers[0].name if papers else ""
            self._follow_check()
        self.paper_changed.emit()
        self.claim_changed.emit()
        self.check_changed.emit()

    def _keep_to_paper(self) -> None:
        """Left alone, the desk of checks turns to the newest of any paper: the paper that was chosen has its own."""
        rows = self.checks_here()
        if self._by_hand and rows and self.check is None:
            self.checks.set_current(rows[0].id)

    def _check_chosen(self, _check: str) -> None:
        self._keep_to_paper()
        if self._follow_check():
            self.paper_changed.emit()
            self.claim_changed.emit()
        self.check_changed.emit()

    def _follow_check(self) -> bool:
        """Turns to the paper of the check that is looked at, unless another was chosen; True when it is another."""
        row = self.checks.current()
        paper = _paper_of(row) if row is not None else ""
        if self._by_hand or not paper or paper == self._paper:
            return False
        self._paper, self._claim = paper, ""
        return True


def _paper_of(row: ExperimentRow) -> str:
    options = check_options(row)
    return options.paper if options is not None else ""
