"""The form of a check: its size, the claims, the seeds, and the models where a claim is about such."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtWidgets import QCheckBox, QGridLayout, QLabel, QSizePolicy, QSpinBox, QWidget

from llmlab.core.errors import LabError, UsageError
from llmlab.core.kinds import PAPERS
from llmlab.data.papers import SIZES
from llmlab.studies.papers.agreement import SEEDS_AGREEING, SHARE_OF_SEEDS
from llmlab.studies.papers.checks import CheckRequest
from llmlab_gui.experiments.study_setup import StudyForm
from llmlab_gui.forms.reference_box import ReferenceBox
from llmlab_gui.lab.lab import Lab
from llmlab_gui.paper.desk import PaperDesk
from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.labels import QuietLabel
from llmlab_gui.widgets.layouts import choice_box

_SEVERAL = ";"  # between references


@dataclass(frozen=True)
class CheckDraft:
    """What the form was left with, as the settings keep it. claims: those that were ticked."""

    paper: str
    size: str
    claims: list[str]
    seeds: int
    model: str
    jobs: int
    name: str


class CheckForm(StudyForm[CheckRequest]):
    """Everything that decides a check of the paper that is read. `read()` gives what is in it."""

    def __init__(self, lab: Lab, desk: PaperDesk) -> None:
        super().__init__("check", "made from date and paper")
        self._lab = lab
        self._desk = desk
        self._paper = ""
        tip = "How much is trained, and for how long on this machine"
        self.size_box = choice_box("Size", [(size, size) for size in SIZES], tip=tip, least=16)
        self.claims: dict[str, QCheckBox] = {}
        self._unticked: dict[str, set[str]] = {}  # claims, by the paper that was read
        self.claim_row = QWidget()
        self._claims = FlowRow(self.claim_row, spacing=10)
        self.seeds = QSpinBox(minimum=0, maximum=100)
        self.seeds.setSpecialValueText("as many as this size uses")
        self.seeds.setAccessibleName("Seeds")
        self.seeds.setToolTip(
            f"Runs that differ in their seed only: for a verdict, {SEEDS_AGREEING} of them must agree, and "
            f"{100 * SHARE_OF_SEEDS:.0f} % of all"
        )
        self.model = ReferenceBox("Models to be tested")
        self.model.setToolTip(f"References, {_SEVERAL} between several; empty: the pretrained models that are here")
        line = self.model.lineEdit()
        if line is not None:
            line.setPlaceholderText("the pretrained models that are here")
        for box in (self.seeds, self.jobs):
            box.setMinimumHeight(self.name.sizeHint().height())  # a grid with lines that break gives it less
        self.note = QuietLabel()
        self._lay_out()
        self.size_box.currentIndexChanged.connect(lambda _: self.edited.emit())
        self.seeds.valueChanged.connect(lambda _: self.edited.emit())
        self.model.editTextChanged.connect(lambda _: self.edited.emit())

    @property
    def chosen_size(self) -> str:
        """What is chosen, of records.SIZES."""
        return str(self.size_box.currentData())

    def show_paper(self) -> None:
        """The claims of the paper that is read, ticked as they were left; all of them, the first time."""
        paper = self._desk.paper
        name = paper.name if paper is not None else ""
        if name == self._paper:
            return
        self._unticked[self._paper] = {id for id, box in self.claims.items() if not box.isChecked()}
        self._paper = name
        for box in self.claims.values():
            self._claims.removeWidget(box)
            box.hide()
            box.deleteLater()
        self.claims = {}
        tested = self._desk.tested
        for claim in paper.claims if paper is not None else ():
            if claim.id in tested:
                box = QCheckBox(claim.id)
                box.setChecked(claim.id not in self._unticked.get(name, ()))
                box.setToolTip(claim.title)
                box.setAccessibleName(f"{claim.id}: {claim.title}")
                box.toggled.connect(self._ticked)
                self._claims.addWidget(box)
                self.claims[claim.id] = box
        untested = [claim.id for claim in paper.claims if claim.id not in tested] if paper is not None else []
        self.note.setText(f"Not tested here: {', '.join(untested)}." if untested else "")
        self.note.setVisible(bool(untested))
        self.model.choose("")
        self._show_models()
        self.edited.emit()

    def show_sizes(self, words: Mapping[str, str]) -> None:
        """What each size means here: `18 runs, about 12 min`."""
        for place in range(self.size_box.count()):
            size = str(self.size_box.itemData(place))
            said = words.get(size, "")
            self.size_box.setItemText(place, f"{size}: {said}" if said else size)

    def offer_models(self, references: Sequence[tuple[str, str]]) -> None:
        """References that can be chosen, with their words; what is in the form stays as it is."""
        with QSignalBlocker(self.model):
            self.model.offer(references)

    def read(self) -> CheckRequest:
        paper = self._desk.paper
        if paper is None:
            raise UsageError("No paper is open.", "", "Choose one in Paper.")
        if not self.claims:
            raise UsageError("The lab has no test of this paper yet.", "", "Its claims say what one would need.")
        claims = [id for id, box in self.claims.items() if box.isChecked()]
        if not claims:
            raise UsageError("No claim is ticked.", "", "Tick at least one.")
        name = self.name.text().strip()
        if name and (self._lab.outputs / PAPERS / name).exists():
            raise LabError(f"A check or run named {name!r} is already there.", "", "Choose another name.")
        models = [part.strip() for part in self.model.reference.split(_SEVERAL) if part.strip()]
        everything = len(claims) == len(self.claims)
        request = CheckRequest(
            paper,
            self.chosen_size,
            self._lab.outputs,
            [] if everything else claims,
            self.seeds.value(),
            models if self._asks_for_models(claims) else [],
            name,
            watched=True,
        )
        return replace(request, command=_command(request, list(self.claims)))

    def draft(self) -> CheckDraft:
        """All that is in it."""
        claims = [id for id, box in self.claims.items() if box.isChecked()]
        values = self.seeds.value(), self.model.reference, self.jobs.value(), self.name.text()
        return CheckDraft(self._paper, self.chosen_size, claims, *values)

    def show_draft(self, draft: CheckDraft) -> None:
        """Puts it back, where it is of the paper that is read."""
        if draft.paper != self._paper:
            return
        self.size_box.setCurrentIndex(max(0, self.size_box.findData(draft.size)))
        for id, box in self.claims.items():
            box.setChecked(id in draft.claims)
        self.seeds.setValue(draft.seeds)
        self.model.choose(draft.model)
        self.jobs.setValue(draft.jobs)
        self.name.setText(draft.name)

    def _ticked(self) -> None:
        self._show_models()
        self.edited.emit()

    def _asks_for_models(self, claims: Sequence[str]) -> bool:
        return any(claim in self._desk.of_models for claim in claims)

    def _show_models(self) -> None:
        shown = self._asks_for_models([id for id, box in self.claims.items() if box.isChecked()])
        for widget in (self.model, self._model_label):
            widget.setVisible(shown)

    def _lay_out(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 6, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(5)
        grid.setColumnStretch(1, 1)
        self._model_label = QLabel("models")
        rows: tuple[tuple[QLabel, QWidget], ...] = (
            (QLabel("size"), self.size_box),
            (QLabel("claims"), self.claim_row),
            (QLabel("seeds"), self.seeds),
            (self._model_label, self.model),
            (QLabel("at once"), self.jobs),
            (QLabel("name"), self.name),
        )
        for place, (label, editor) in enumerate(rows):
            label.setBuddy(editor)
            top = Qt.AlignmentFlag.AlignTop if editor is self.claim_row else Qt.AlignmentFlag.AlignVCenter
            grid.addWidget(label, place, 0, top)
            grid.addWidget(editor, place, 1)
        grid.addWidget(self.note, len(rows), 0, 1, 2)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        self._show_models()


def _command(request: CheckRequest, tested: Sequence[str]) -> str:
    """`llmlab-run paper run ...`. tested: all claims that could be asked for; asking for all needs no word."""
    words = ["llmlab-run", "paper", "run", request.paper.name, "--size", request.size]
    if request.claims and list(request.claims) != list(tested):
        words += ["--claims", ",".join(request.claims)]
    if request.seeds:
        words += ["--seeds", str(request.seeds)]
    for model in request.models:
        words += ["--model", model]
    if request.name:
        words += ["--name", request.name]
    return shlex.join(words)
