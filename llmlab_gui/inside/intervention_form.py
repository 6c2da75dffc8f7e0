"""The form of interventions: a row that adds one, and the list of those chosen in any panel."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QLabel,
    QLineEdit,
    QListWidget,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from llmlab.core.signs import count_text
from llmlab_gui.host.selection import ChosenIntervention
from llmlab_gui.host.session import InspectionSession
from llmlab_gui.inside.chosen_interventions import HOWS, PARTS, words
from llmlab_gui.widgets.buttons import tool_button
from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import beside, choice_box, column

_ROWS_SHOWN = 4
_ALIGNMENTS = (("", "token by token"), ("start", "aligned at the start"), ("end", "aligned at the end"))


class InterventionForm(QWidget):
    """Follows the session's selection and edits. `changed`: the question is another one now."""

    changed = Signal()

    def __init__(self, session: InspectionSession, row: FlowRow) -> None:
        """row: where the fields of the logit that is read go."""
        super().__init__()
        self._session = session
        self.part, self.how = choice_box("Part to intervene on", PARTS), choice_box("Kind of intervention", HOWS)
        self.layer, self.head = _spin("Layer"), _spin("Head")
        self.factor = labelled(QDoubleSpinBox(minimum=-100, maximum=100, singleStep=0.5, value=0.5), "Factor")
        self.only_token = QCheckBox("at the selected token only")
        self.add = tool_button("Add", "Change this, too", slot=lambda: session.add_intervention(self.edit()))
        self.list = labelled(QListWidget(), "Part to intervene on")
        self.list.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Maximum)
        self.remove, self.clear = tool_button("Remove"), tool_button("Remove all")
        self.source = labelled(QLineEdit(placeholderText="source prompt for activation patching"), "Source prompt")
        self.align = choice_box("How positions of the source align with the prompt's", _ALIGNMENTS)
        self.answer, self.against = QLineEdit(), QLineEdit()
        for field, name, hint in (
            (self.answer, "Watched token", "most likely"),
            (self.against, "Counterfactual token", "none"),
        ):
            field.setAccessibleName(name)
            field.setToolTip(f"{name}; a leading space counts")
            field.setPlaceholderText(hint)
            field.setMaximumWidth(120)
        self._head_label, self._layer_label = QLabel("head"), QLabel("layer")
        self._lay_out(row)
        self._connect()
        self._follow_model()
        self._show_fields()
        self._show_interventions()

    def edit(self) -> ChosenIntervention:
        """The edit that the row describes."""
        part = str(self.part.currentData())
        selected = self._session.selection.token_at(len(self._session.tokens))
        return ChosenIntervention(
            part,  # type: ignore[arg-type]
            self.layer.value() if part != "token" else 0,
            self.head.value() if part == "head" else -1,
            selected if part == "token" or self.only_token.isChecked() else -1,
            str(self.how.currentData()),  # type: ignore[arg-type]
            self.factor.value() if self.how.currentData() == "scale" else 0.0,
        )

    def target(self) -> dict[str, str]:
        """The fields of the question that are not the edits."""
        return {
            "answer": self.answer.text(),
            "against": self.against.text(),
            "source": self.source.text(),
            "align": str(self.align.currentData()),
        }

    def show_target(self, target: dict[str, str]) -> None:
        """What `target` returned."""
        for name, field in (("answer", self.answer), ("against", self.against), ("source", self.source)):
            field.setText(target.get(name, ""))
        self.align.setCurrentIndex(max(0, self.align.findData(target.get("align", ""))))

    def _lay_out(self, row: FlowRow) -> None:
        self.source.setMinimumWidth(200)
        row.add(QLabel("watched token"), self.answer, QLabel("compared with"), self.against)
        row.add(QLabel("source"), self.source, self.align)
        new = FlowRow()
        new.add(self.part, self._layer_label, self.layer, self._head_label, self.head, self.how, self.factor)
        new.add(self.only_token, self.add)
        buttons = QVBoxLayout()  # a widget would keep its place while all in it are hidden
        buttons.addWidget(self.remove)
        buttons.addWidget(self.clear)
        buttons.addStretch(1)
        chosen = beside(self.list, buttons, grows=self.list)
        self.edits = column(new, chosen, spacing=4)  # what is changed, beside what is read
        column(self.edits, into=self)

    def _connect(self) -> None:
        session = self._session
        session.about_changed.connect(self._follow_model)
        session.selection_changed.connect(self._follow_selection)
        session.interventions_changed.connect(self._show_interventions)
        session.tokens_changed.connect(self._show_interventions)
        self.part.currentIndexChanged.connect(self._show_fields)
        self.how.currentIndexChanged.connect(self._show_fields)
        self.remove.clicked.connect(self._remove)
        self.clear.clicked.connect(lambda: session.set_interventions([]))
        self.list.itemSelectionChanged.connect(self._show_buttons)
        for field in (self.source, self.answer, self.against):
            field.textChanged.connect(lambda _text: self.changed.emit())
        self.align.currentIndexChanged.connect(lambda _index: self.changed.emit())

    def _follow_model(self) -> None:
        about = self._session.about
        self.layer.setMaximum(max(0, about.n_layer - 1) if about is not None else 0)
        self.head.setMaximum(max(0, about.n_head - 1) if about is not None else 0)
        size = f" ({count_text(about.parameters)} parameters stay as they are)" if about is not None else ""
        self.add.setToolTip(f"Change this, too{size}")
        self._follow_selection()

    def _follow_selection(self) -> None:
        self.layer.setValue(self._session.selection.layer)
        self.head.setValue(self._session.selection.head)

    def _show_fields(self) -> None:
        part = self.part.currentData()
        for widget in (self._head_label, self.head):
            widget.setVisible(part == "head")
        self._layer_label.setVisible(part != "token")
        self.layer.setVisible(part != "token")
        self.only_token.setVisible(part != "token")
        self.factor.setVisible(self.how.currentData() == "scale")

    def _show_interventions(self) -> None:
        self.list.clear()
        tokens = [token.text for token in self._session.tokens]
        for edit in self._session.edits:
            self.list.addItem(words(edit, tokens))
        rows = min(max(1, self.list.count()), _ROWS_SHOWN)
        height = max(self.list.sizeHintForRow(0), self.fontMetrics().height() + 4)
        self.list.setFixedHeight(rows * height + 2 * self.list.frameWidth() + 2)
        self.list.setVisible(self.list.count() > 0)
        self._show_buttons()

    def _show_buttons(self) -> None:
        self.remove.setVisible(self.list.count() > 1)
        self.remove.setEnabled(bool(self.list.selectedItems()))
        self.clear.setVisible(self.list.count() > 0)
        self.clear.setText("Remove all" if self.list.count() > 1 else "Remove")

    def _remove(self) -> None:
        gone = self.list.currentRow()
        self._session.set_interventions([edit for row, edit in enumerate(self._session.edits) if row != gone])


def _spin(name: str) -> QSpinBox:
    spin = labelled(QSpinBox(), name)
    spin.setAlignment(Qt.AlignmentFlag.AlignRight)
    return spin
