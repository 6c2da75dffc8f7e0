"""What is asked before a branch starts: its settings, what becomes of the runs that train now, and a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QSpinBox,
    QWidget,
)

from llmlab.core.config import parse_assignments, with_values
from llmlab.core.errors import LabError
from llmlab.core.run_settings import RunSettings
from llmlab.core.settings import PretrainTrainSettings
from llmlab.notebook.predictions import Prediction
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.lab.training_now import TrainingNow
from llmlab_gui.notebook.asking import ask_of_run
from llmlab_gui.widgets.labels import ProblemLabel
from llmlab_gui.widgets.layouts import column

_PROBLEM_LINES = 2  # that nothing moves for; more make the dialog higher


@dataclass(frozen=True)
class Branch:
    """A branch as a person wants it. overrides: what differs from the parent's settings, by `section.field`."""

    name: str | None
    overrides: dict[str, str]
    predictions: list[Prediction]


def ask_branch(parent: QWidget, lab: Lab, run: RunRow, step: int) -> Branch | None:
    """What a branch of a run after a step is to be; None where it is not to start. The runs that train now pause if the
    person wants them to."""
    dialog = BranchDialog(run.info.settings, run.name, step, parent)
    accepted = dialog.exec()
    name, overrides = dialog.name.text().strip(), dialog.overrides() if accepted else {}
    dialog.deleteLater()
    if not accepted:
        return None
    settings = with_values(run.info.settings, overrides)
    predict = partial(ask_of_run, parent, lab, settings, run.info.preset, branched=(run, step))
    predictions = TrainingNow(lab).predicted(parent, "Branch", predict)
    return Branch(name or None, overrides, predictions) if predictions is not None else None


class BranchDialog(QDialog):
    """A new run from a checkpoint: its name, steps, learning rate, and any other setting."""

    def __init__(self, settings: RunSettings, run_id: str, step: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._settings, self._step = settings, step
        self._muons_share = 0.0  # Muon's rate, as a share of the learning rate
        train = settings.train
        if isinstance(train, PretrainTrainSettings) and train.optimizer == "muon" and train.learning_rate:
            self._muons_share = train.muon_learning_rate / train.learning_rate
        self.setWindowTitle("Branch")
        about = QLabel(
            f"A new run starts from step {step:,} of {run_id}, with its weights and the optimizer's state. "
            "The old run is not changed."
        )
        about.setWordWrap(True)
        self.name = QLineEdit(placeholderText="made from date and text")
        # From 1 on: Qt would put what was before in the place of a number that is too small, and say nothing.
        planned = settings.train.steps
        self.steps = QSpinBox(minimum=1, maximum=1_000_000_000, value=planned if planned > step else 2 * step)
        self.steps.setGroupSeparatorShown(True)
        self.steps.setToolTip("Total steps, including those before the checkpoint")
        self.rate = _Rate()
        self.rate.setDecimals(7)
        self.rate.setRange(0.0, 10.0)
        self.rate.setSingleStep(settings.train.learning_rate / 10 or 1e-4)
        self.rate.setValue(settings.train.learning_rate)
        proportion = "; Muon's changes in proportion" if self._muons_share else ""
        self.rate.setToolTip(f"Peak learning rate{proportion}")
        self.others = QPlainTextEdit(placeholderText="such as:\ntrain.weight_decay=0.01\ndata.batch_size=24")
        self.others.setToolTip("One section.field=value per line, as with --set")
        self.others.setTabChangesFocus(True)
        self.others.setFixedHeight(self.fontMetrics().height() * 5)
        self.problem = ProblemLabel()
        self.problem.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.problem.setMinimumHeight(_PROBLEM_LINES * self.fontMetrics().lineSpacing())
        self.buttons = QDialogButtonBox()
        self.start = self.buttons.addButton("Start branch", QDialogButtonBox.ButtonRole.AcceptRole)
        self.buttons.addButton("Cancel", QDialogButtonBox.ButtonRole.RejectRole)
        form = QFormLayout()
        for label, widget in (
            ("Name", self.name),
            ("Steps in all", self.steps),
            ("Learning rate", self.rate),
            ("Other settings", self.others),
        ):
            widget.setAccessibleName(label)
            form.addRow(label, widget)
        column(about, form, self.problem, self.buttons, into=self, margins=None)
        self.problem.show()  # empty, too: it keeps its place
        self.setMinimumWidth(420)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self.others.textChanged.connect(self._check)
        self.rate.valueChanged.connect(self._check)
        self.steps.valueChanged.connect(self._check)

    def overrides(self) -> dict[str, str]:
        """What differs from the parent's settings, by `section.field`. UsageError when a line cannot be read."""
        train = self._settings.train
        values: dict[str, str] = {}
        if self.steps.value() != train.steps:
            values["train.steps"] = str(self.steps.value())
        if abs(self.rate.value() - train.learning_rate) > 5e-8:  # half of the last digit shown
            values["train.learning_rate"] = f"{self.rate.value():g}"
            if self.rate.value() < train.min_learning_rate and train.schedule != "constant":
                values["train.min_learning_rate"] = f"{self.rate.value() / 10:g}"
            if self._muons_share:
                values["train.muon_learning_rate"] = f"{self._muons_share * self.rate.value():g}"
        lines = [line.strip() for line in self.others.toPlainText().splitlines() if line.strip()]
        return values | parse_assignments(lines)

    def _check(self) -> None:
        """Says at once what is wrong; a branch with a wrong setting cannot be started."""
        try:
            asked = with_values(self._settings, self.overrides())
            few = f"The branch begins at step {self._step:,}: it needs more steps in all than that."
            self.problem.setText(few if asked.train.steps <= self._step else "")
        except LabError as error:
            self.problem.setText(str(error))
        self.start.setEnabled(not self.problem.text())
        self.resize(self.width(), max(self.height(), self.heightForWidth(self.width())))


class _Rate(QDoubleSpinBox):
    """Takes seven decimals, and shows those that say something."""

    def textFromValue(self, value: float) -> str:
        return super().textFromValue(value).rstrip("0").rstrip(self.locale().decimalPoint())
