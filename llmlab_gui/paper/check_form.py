"""The form of a check: its size, the claims, the seeds, and the models where a claim is about such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QCheckBox, QComboBox, QGridLayout, QLabel, QLineEdit, QSizePolicy, QSpinBox, QWidget

from llmlab.core.errors import LabError, UsageError
from llmlab.core.kinds import PAPERS
from llmlab.data.papers import SIZES
from llmlab.studies.experiments.plan import LONGEST_NAME
from llmlab.studies.papers.checks import CheckRequest
from llmlab_gui.forms.reference_box import ReferenceBox
from llmlab_gui.lab.lab import Lab
from llmlab_gui.paper.check_command import command_line
from llmlab_gui.paper.desk import PaperDesk
from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.labels import QuietLabel

_SEVERAL = ";"  # between references


class CheckForm(QWidget):
    """Everything that decides a check of the paper that is read. `read()` gives what is in it."""

    edited = Signal()

    def __init__(self, lab: Lab, desk: PaperDesk, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._lab = lab
        self._desk = desk
        self._paper = ""
        self.size_box = QComboBox()
        self.size_box.setAccessibleName("Size")
        self.size_box.setToolTip("How much is trained, and for how long on this machine")
        self.size_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.size_box.setMinimumContentsLength(16)
        for size in SIZES:
            self.size_box.addItem(size, size)
        self.claims: dict[str, QCheckBox] = {}
        self.claim_row = QWidget()
        self._claims = FlowRow(self.claim_row, spacing=10)
        self.seeds = QSpinBox()
        self.seeds.setRange(0, 100)
        self.seeds.setSpecialValueText("as many as the size has")
        self.seeds.setAccessibleName("Seeds")
        self.seeds.setToolTip("Runs that differ in their seed only: a verdict needs most of them to agree")
        self.model = ReferenceBox("Models to be tested")
        self.model.setToolTip(f"References, {_SEVERAL} between several; empty: the pretrained models that are here")
        line = self.model.lineEdit()
        if line is not None:
            line.setPlaceholderText("the pretrained models that are here")
        self.name = QLineEdit()
        self.name.setAccessibleName("Name of the check")
        self.name.setMaxLength(LONGEST_NAME)
        self.seeds.setMinimumHeight(self.name.sizeHint().height())  # a grid with lines that break gives it less
        self.name.setPlaceholderText("made from date and paper")
        self.name.setToolTip("The check's folder: letters, digits and . _ + -")
        self.note = QuietLabel()
        self._lay_out()
        self.size_box.currentIndexChanged.connect(lambda _: self.edited.emit())
        self.seeds.valueChanged.connect(lambda _: self.edited.emit())
        for edit in (self.model.editTextChanged, self.name.textChanged):
            edit.connect(lambda _: self.edited.emit())

    @property
    def chosen_size(self) -> str:
        """What is chosen, of records.SIZES."""
        return str(self.size_box.currentData())

    def show_paper(self) -> None:
        """The claims of the paper that is read, all of them ticked."""
        paper = self._desk.paper
        name = paper.name if paper is not None else ""
        if name == self._paper:
            return
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
                box.setChecked(True)
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
        self.model.blockSignals(True)
        self.model.offer(references)
        self.model.blockSignals(False)

    def read(self) -> CheckRequest:
        """What is in it. LabError naming the first thing that is wrong."""
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
        return request

    def command(self, request: CheckRequest) -> str:
        """What runs the same in a terminal."""
        return command_line(request, list(self.claims))

    # Behind the scenes -----------------------------------------------------------------------------------------

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
