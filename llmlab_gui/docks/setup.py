"""The Set-up dock: what the next run will be, what it will cost, and the button that starts it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import (
    QComboBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from llmlab.config import describe
from llmlab.errors import LabError
from llmlab.gpt.estimate import estimate
from llmlab.runs.folder import RunFolder
from llmlab.runs.registry import PRETRAINING
from llmlab.settings import DEFAULT_PRESET, Preset, PretrainSettings, load_preset, preset_names
from llmlab_gui.docks.base import LabDock, PrimaryButton, QuietLabel
from llmlab_gui.forms.corpus_editor import CorpusEditor
from llmlab_gui.forms.field import Field
from llmlab_gui.forms.settings_form import SettingsForm
from llmlab_gui.numbers_text import bytes_text, count_text, minutes_text
from llmlab_gui.theme import current_theme, theme_notifier

if TYPE_CHECKING:
    from llmlab_gui.lab import Lab

_TITLES = {
    "model": "Model",
    "data": "Data",
    "train": "Training",
    "samples": "Samples",
    "checkpoints": "Checkpoints",
}
# In sight without unfolding anything: what learners change first.
_ESSENTIAL = ("data.corpus", "train.steps", "train.seed")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_SETTLE_MS = 120


@dataclass(frozen=True)
class Plan:
    """A run as the form describes it."""

    settings: PretrainSettings
    name: str | None
    preset: str


class SetupDock(LabDock):
    """Presets, the form, the estimate, Train."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "setup", "Set-up", parent)
        self._presets: dict[str, Preset] = {}
        self.presets = QComboBox()
        self.presets.setAccessibleName("Preset")
        self.presets.setToolTip("A starting point; everything below can be changed")
        self.about = QuietLabel()
        self.corpus = CorpusEditor()
        infos = {info.key: info for info in describe(PretrainSettings)}
        own = {key: Field(infos[key], self.corpus if key == "data.corpus" else None, parent=self) for key in _ESSENTIAL}
        self.form: SettingsForm[PretrainSettings] = SettingsForm(PretrainSettings, _TITLES, own)
        self.name = QLineEdit()
        self.name.setAccessibleName("Name of the run")
        self.name.setPlaceholderText("made from date, preset and corpus")
        self.name.setToolTip("The run's folder: letters, digits and . _ + -")
        self.estimate = QLabel()
        self.estimate.setWordWrap(True)
        self.estimate.setAccessibleName("Estimate")
        self.problem = QLabel()
        self.problem.setWordWrap(True)
        self.problem.setAccessibleName("What is wrong")
        self.help = QuietLabel("Point at a setting to read what it means.")
        self.help.setAccessibleName("Help")
        self.help.setMinimumHeight(self.fontMetrics().lineSpacing() * 3)
        self.help.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.reset_button = QPushButton("Reset to preset")
        self.train_button = PrimaryButton("Train")
        self._lay_out(own)
        self.caption("What decides a run. Bold settings differ from the preset.", "optimisation")
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(_SETTLE_MS)
        self._settle.timeout.connect(self._update)
        self._fill_presets()
        self.presets.currentIndexChanged.connect(self._use_preset)
        self.form.edited.connect(self._settle.start)
        self.form.entered.connect(self._show_help)
        self.name.textChanged.connect(lambda _: self._settle.start())
        self.corpus.state_changed.connect(self._update)
        self.corpus.failed.connect(lab.error_raised)
        self.reset_button.clicked.connect(self.form.reset)
        self.train_button.clicked.connect(self.train)
        lab.setup_requested.connect(self.fill)
        lab.runs_changed.connect(self._check_name)
        lab.controller.started.connect(self._clear_used_name)
        theme_notifier.changed.connect(self._update)
        self._use_preset()
        self._update()

    def plan(self) -> Plan:
        """The run that the form describes. LabError when it cannot be."""
        self._require_corpus()
        return Plan(self.form.settings(), self._named(), self.presets.currentData())

    def train(self) -> None:
        """Starts it."""
        try:
            plan = self.plan()
        except LabError as error:
            self._reveal_problem()
            self.lab.error_raised.emit(error)
            return
        self.lab.start_requested.emit(plan)

    def fill(self, values: Mapping[str, Any]) -> None:
        """Shows a preset and what differs from it, and comes to the front. values: `preset` and `section.field`."""
        others = {key: value for key, value in values.items() if key != "preset"}
        place = self.presets.findData(values.get("preset") or DEFAULT_PRESET)
        self.presets.setCurrentIndex(max(0, place))
        self.form.reset()
        try:
            self.form.set_values(others)
        except LabError as error:
            self.lab.error_raised.emit(error)
        self.show()
        self.raise_()

    def set_corpus(self, path: str) -> None:
        """Reads this text, all else as it is."""
        self.corpus.set_value(path)
        self.show()
        self.raise_()

    def shutdown(self) -> None:
        self.corpus.shutdown()

    def _lay_out(self, own: Mapping[str, Field]) -> None:
        essentials = QGridLayout()
        essentials.setHorizontalSpacing(6)
        essentials.setVerticalSpacing(4)
        essentials.setColumnStretch(1, 1)
        preset_label, name_label = QLabel("preset"), QLabel("name")
        preset_label.setBuddy(self.presets)
        name_label.setBuddy(self.name)
        essentials.addWidget(preset_label, 0, 0)
        essentials.addWidget(self.presets, 0, 1, 1, 3)
        essentials.addWidget(self.about, 1, 1, 1, 3)
        for row, key in enumerate(_ESSENTIAL, start=2):
            label, editor, unit, reset = own[key].widgets
            essentials.addWidget(label, row, 0, Qt.AlignmentFlag.AlignTop)
            essentials.addWidget(editor, row, 1, 1, 1 if own[key].info.unit else 2)
            essentials.addWidget(unit, row, 2)
            essentials.addWidget(reset, row, 3, Qt.AlignmentFlag.AlignTop)
        essentials.addWidget(name_label, 5, 0)
        essentials.addWidget(self.name, 5, 1, 1, 3)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 6, 0)
        column.addLayout(essentials)
        column.addWidget(self.form, 1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        self._scroll = scroll
        buttons = QHBoxLayout()
        buttons.addWidget(self.reset_button)
        buttons.addStretch(1)
        buttons.addWidget(self.train_button)
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll, 1)
        layout.addWidget(self.help)
        layout.addWidget(self.problem)
        layout.addWidget(self.estimate)
        layout.addLayout(buttons)
        body.setMinimumWidth(300)
        self.set_body(body)

    def _fill_presets(self) -> None:
        for name in preset_names():
            preset = self._presets[name] = load_preset(name)
            self.presets.addItem(f"{preset.title} · {minutes_text(preset.minutes)}", name)
            self.presets.setItemData(self.presets.count() - 1, preset.description, Qt.ItemDataRole.ToolTipRole)
        self.presets.setCurrentIndex(self.presets.findData(DEFAULT_PRESET))

    def _use_preset(self) -> None:
        preset = self._presets[self.presets.currentData()]
        self.about.setText(preset.description)
        self.form.set_baseline(preset.settings)

    def _update(self) -> None:
        """Says what is wrong, or else what the run will need."""
        theme = current_theme()
        for label in (self.problem, self.estimate):
            palette = QPalette(label.palette())
            palette.setColor(QPalette.ColorRole.WindowText, QColor(theme.bad if label is self.problem else theme.text))
            label.setPalette(palette)
        changed = len(self.form.changed())
        self.reset_button.setEnabled(changed > 0)
        try:
            plan = self.plan()
        except LabError as error:
            self.problem.setText(str(error))
            self.problem.show()
            self.estimate.hide()
            self.train_button.setEnabled(False)
            return
        self.problem.hide()
        self.estimate.setText(self._costs(plan.settings))
        self.estimate.show()
        self.train_button.setEnabled(True)

    def _costs(self, settings: PretrainSettings) -> str:
        needed = estimate(settings)
        tokens = settings.train.steps * settings.data.batch_size * settings.model.block_size * settings.train.grad_accum
        parts = [
            f"<b>About {minutes_text(needed.minutes)}</b> here",
            f"{count_text(needed.parameters)} parameters ({count_text(needed.embedding_parameters)} in embeddings)",
            f"{bytes_text(needed.memory_bytes)} of memory",
            f"{bytes_text(needed.checkpoint_bytes)} a checkpoint",
            f"{count_text(tokens)} tokens read",
        ]
        warnings = []
        free = psutil.virtual_memory().available
        if needed.memory_bytes > free:
            warnings.append(f"Only {bytes_text(free)} of memory are free now.")
        kept = needed.checkpoint_bytes * (settings.checkpoints.keep_last + 3)  # best, final, the one being written
        space = _free_space(self.lab)
        if space is not None and kept > space:
            warnings.append(f"Only {bytes_text(space)} of disk are free for up to {bytes_text(kept)} of checkpoints.")
        color = current_theme().warning
        told = "".join(f'<br><span style="color: {color}">{warning}</span>' for warning in warnings)
        return " · ".join(parts) + "." + told

    def _named(self) -> str | None:
        """The name that was typed, checked; None for one made by the lab."""
        name = self.name.text().strip()
        if not name:
            return None
        if not _NAME.fullmatch(name):
            raise LabError(f"{name!r} cannot be a run's name.", "Letters, digits and . _ + - are allowed.")
        if (self.lab.outputs / PRETRAINING / name).exists():
            raise LabError(f"A run named {name!r} is already there.", "", "Choose another name.")
        return name

    def _require_corpus(self) -> None:
        if self.corpus.problem is not None:
            raise self.corpus.problem
        if self.corpus.missing and self.corpus.corpus is not None:
            raise LabError(f"{self.corpus.corpus.title} is not on this machine.", "", "Press Fetch, or choose another.")

    def _clear_used_name(self, run: RunFolder) -> None:
        if self.name.text().strip() == run.id:
            self.name.clear()

    def _check_name(self) -> None:
        if self.name.text():
            self._settle.start()

    def _reveal_problem(self) -> None:
        found = self.form.problem()
        field = found[1] if found else None
        if field is None:
            return
        section = self.form.sections.get(field.info.section)
        if section is not None and field in section.fields:
            section.reveal(field)
        self._scroll.ensureWidgetVisible(field.editor)
        field.editor.setFocus(Qt.FocusReason.OtherFocusReason)

    def _show_help(self, field: Field) -> None:
        self.help.setText(field.help_text())


def _free_space(lab: Lab) -> int | None:
    folder = lab.outputs
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
