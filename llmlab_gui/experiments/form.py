"""The form of an experiment: the kind and what it asks, what is varied, and what the runs have in common."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QCheckBox, QGridLayout, QLabel, QLineEdit, QSizePolicy, QSpinBox, QWidget

from llmlab.core.config import flat
from llmlab.core.errors import LabError, UsageError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.settings import PretrainSettings
from llmlab.studies.experiments.kinds import FINETUNING, KINDS, PRETRAINING, Kind, find_kind
from llmlab.studies.experiments.plan import Request, lean
from llmlab.studies.plans.records import EXPERIMENTS, ExperimentRecord
from llmlab_gui.experiments.study_setup import StudyForm
from llmlab_gui.forms.corpus_editor import CorpusEditor
from llmlab_gui.forms.editors import number_text
from llmlab_gui.forms.model_editor import ModelEditor
from llmlab_gui.forms.named_editor import ExamplesEditor
from llmlab_gui.forms.preset_form import PresetForm
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.labels import QuietLabel, demi_bold, label_of, labelled
from llmlab_gui.widgets.layouts import choice_box, column, stack

_TRACK_NAMES = {PRETRAINING: "training from scratch", FINETUNING: "fine-tuning"}
_GROUP_NAMES = {"lora": "LoRA", "feed_forward": "feed-forward"}  # that are not their names


@dataclass(frozen=True)
class _Option:
    """One thing more that a kind can be told: its name in ExperimentRecord.options, and in words."""

    name: str
    title: str
    hint: str
    is_number: bool = False


_OPTIONS = {
    "forgetting": _Option("general", "general text", "what the base learned from, where that is known"),
    "loss-curves": _Option("target", "target loss", "optional: report when this loss is reached", is_number=True),
}


@dataclass(frozen=True)
class Asked:
    """What the form says, read on the window's thread; the plan is made from it elsewhere.

    subject: the run that is looked at, whose settings take the place of the request's.
    """

    request: Request
    subject: str = ""


@dataclass(frozen=True)
class Draft:
    """What the form was left with, as the settings keep it. unticked: what is not compared. given: what differs from
    the preset, by `section.field`."""

    kind: str
    track: str
    grid: str
    seeds: int
    unticked: list[str]
    option: str
    subject: str
    name: str
    jobs: int
    preset: str
    given: dict[str, Any]


class ExperimentForm(StudyForm[Asked]):
    """Everything that decides an experiment. `read()` gives what is in it, checked as far as a form can."""

    kind_changed = Signal()

    def __init__(self, lab: Lab) -> None:
        super().__init__("experiment", "made from date and kind")
        self._lab = lab
        kinds = [(kind.name, kind.title, kind.question) for kind in KINDS.values()]
        self.kinds = choice_box("What to find out", kinds, tip="Question that the experiment answers", least=12)
        self.tracks = choice_box("Which runs", tip="Whether its runs train from scratch or fine-tune a model", least=12)
        self.question, self.hypothesis, self.varies = QLabel(wordWrap=True), QuietLabel(), QuietLabel()
        self.question.setAccessibleName("Question")
        self.hypothesis.setAccessibleName("Hypothesis")
        demi_bold(self.question)
        self.grid = labelled(QLineEdit(), "Values")
        self.seeds = labelled(QSpinBox(minimum=1, maximum=100), "Seeds")
        self.seeds.setToolTip("Runs per value that differ only in their seed: they show how much is chance")
        self.groups: dict[str, QCheckBox] = {}
        self.group_row = QWidget()
        self.subject = choice_box("Which run", tip="Run to analyse: any that has made at least one step", least=12)
        self.option = labelled(QLineEdit(), "Option of the experiment")
        self.corpus, self.model, self.examples = CorpusEditor(), ModelEditor(lab), ExamplesEditor(lab)
        self.scratch = PresetForm(
            PretrainSettings,
            {"data.corpus": self.corpus, "train.steps": None, "train.learning_rate": None, "train.seed": None},
        )
        self.finetune = PresetForm(
            FinetuneSettings,
            {"model.base": self.model, "data.source": self.examples}
            | dict.fromkeys(("model.method", "train.steps", "train.learning_rate", "train.seed")),
        )
        self._lay_out()
        self._connect()
        self._use_kind()

    @property
    def kind(self) -> Kind:
        """What is to be found out."""
        return KINDS[self.kinds.currentData()]

    @property
    def track(self) -> str:
        """pretraining or finetuning."""
        return str(self.tracks.currentData())

    @property
    def base(self) -> PresetForm[PretrainSettings] | PresetForm[FinetuneSettings]:
        """The form of the runs' settings."""
        return self.finetune if self.track == FINETUNING else self.scratch

    def set_kind(self, name: str) -> None:
        """Shows what a kind of experiment asks and needs."""
        self.kinds.setCurrentIndex(max(0, self.kinds.findData(name)))

    def read(self) -> Asked:
        self.base.form.complain()
        kind, name, outputs = self.kind, self.name.text().strip(), self._lab.outputs
        if name and (outputs / EXPERIMENTS / name).exists():
            raise LabError(f"An experiment named {name!r} is already there.", "", "Choose another name.")
        if not kind.trains:
            subject = str(self.subject.currentData() or "")
            if not subject:
                raise LabError("There is no run to analyse.", "", "Train one first; it may still be running.")
            asked = Request(kind, PretrainSettings(), outputs, id=name, options=self._options(), watched=True)
            return Asked(replace(asked, command=command_line(asked, {}, subject)), subject)
        self._check_base()
        groups = [group for group, box in self.groups.items() if box.isChecked()]
        if self.groups and not groups:
            raise UsageError("Nothing is selected to compare.", "", f"Tick {' or '.join(self.groups)}.")
        base, given = self.base, self.base.given()
        asked = Request(
            kind,
            lean(base.settings(), kind, given),
            outputs,
            id=name,
            preset=base.preset,
            grid=parse_values(self.grid.text()),
            groups=groups,
            seeds=self.seeds.value(),
            options=self._options(),
            watched=True,
        )
        return Asked(replace(asked, command=command_line(asked, given)))

    def draft(self) -> Draft:
        """What it says now, as far as that can be read."""
        return Draft(
            self.kind.name,
            self.track,
            self.grid.text(),
            self.seeds.value(),
            [name for name, box in self.groups.items() if not box.isChecked()],
            self.option.text(),
            str(self.subject.currentData() or ""),
            self.name.text(),
            self.jobs.value(),
            self.base.preset,
            {key: value for key, value in self.base.readable().items() if key != "model.base" or self.model.named},
        )

    def fill(self, record: ExperimentRecord) -> None:
        """Shows what an experiment was made from. UsageError when its kind or settings are none any more."""
        kind = find_kind(record.kind)
        values = {trial.varied[kind.setting] for trial in record.trials if kind.setting in trial.varied}
        compared = {trial.group for trial in record.trials}
        draft = Draft(
            record.kind,
            record.track,
            ", ".join(f"{value:g}" for value in sorted(values)),
            len(record.seeds),
            [name for name in kind.groups_of(record.track) if name not in compared],
            str(record.options.get(_OPTIONS[kind.name].name, "")) if kind.name in _OPTIONS else "",
            record.subject,
            self.name.text(),
            self.jobs.value(),
            record.preset,
            flat(record.base),
        )
        self.take_up(draft)

    def take_up(self, draft: Draft) -> None:
        """Shows it. UsageError for settings that are none."""
        self.set_kind(draft.kind)
        self.tracks.setCurrentIndex(max(0, self.tracks.findData(draft.track)))
        self.option.setText(draft.option)
        self.name.setText(draft.name)
        self.jobs.setValue(draft.jobs)
        if not self.kind.trains:
            self.list_subjects()
            self.subject.setCurrentIndex(max(0, self.subject.findData(draft.subject)))
            return
        self.grid.setText(draft.grid)
        self.seeds.setValue(draft.seeds)
        for name, box in self.groups.items():
            box.setChecked(name not in draft.unticked)
        self.base.fill(draft.preset, draft.given)

    def list_offers(self) -> None:
        """Finds out anew which runs, models and examples are here."""
        for editor in (self.model, self.examples):
            editor.list_offers()
        self.list_subjects()
        self.model.suggest()

    def list_subjects(self) -> None:
        """The runs that can be looked at."""
        rows = [row for row in self._lab.runs() if row.status.step > 1]
        if [row.name for row in rows] == [name for name, _ in self.subject.entries()]:
            return
        current = self._lab.current()
        wanted = self.subject.currentData() or (current.name if current is not None else "")
        offered = [(row.name, f"{row.name} ({row.status.words}, {row.status.step:,} steps)") for row in rows]
        self.subject.fill(offered, wanted)
        self.edited.emit()

    def _options(self) -> dict[str, Any]:
        """What only this kind knows. UsageError when it cannot be."""
        option, text = _OPTIONS.get(self.kind.name), self.option.text().strip()
        if option is None or not text:
            return {}
        if not option.is_number:
            return {option.name: text}
        try:
            return {option.name: float(text)}
        except ValueError:
            raise UsageError(f"The {option.title} cannot be {text!r}.", "It takes a number.") from None

    def _connect(self) -> None:
        self.kinds.currentIndexChanged.connect(self._use_kind)
        self.tracks.currentIndexChanged.connect(self._use_track)
        for box in (self.grid, self.option):
            box.textChanged.connect(lambda _: self.edited.emit())
        self.subject.currentIndexChanged.connect(lambda _: self.edited.emit())
        self.seeds.valueChanged.connect(lambda _: self.edited.emit())
        for form in (self.scratch, self.finetune):
            form.edited.connect(self.edited)
        for editor in (self.corpus, self.model, self.examples):
            editor.state_changed.connect(self.edited)
        self.corpus.failed.connect(self._lab.error_raised)

    def _check_base(self) -> None:
        """What no form can know: a text that is not on this machine, a model that is none."""
        if self.track == PRETRAINING:
            self.corpus.check()
        else:
            self.model.check()
            self.examples.check()

    def _use_kind(self) -> None:
        kind = self.kind
        self.question.setText(kind.question)
        self.hypothesis.setText(f"<b>Hypothesis.</b> {kind.hypothesis}")
        self.hypothesis.setToolTip(f"From {kind.source}")
        self.varies.setText(f"<b>Varied:</b> {kind.varies}")
        self.tracks.fill([(track, _TRACK_NAMES[track]) for track in kind.tracks], self.tracks.currentData())
        self.tracks.setVisible(kind.trains and len(kind.tracks) > 1)
        self.seeds.setValue(kind.seeds)
        option = _OPTIONS.get(kind.name)
        self.option.setVisible(option is not None)
        self.option_label.setVisible(option is not None)
        self.option.clear()
        if option is not None:
            self.option_label.setText(option.title)
            self.option.setAccessibleName(option.title)
            self.option.setPlaceholderText(option.hint)
        for widget in (*self._training_parts, self.forms):
            widget.setVisible(kind.trains)
        for widget in self._looking_parts:
            widget.setVisible(not kind.trains)
        self._use_track()
        self.kind_changed.emit()

    def _use_track(self) -> None:
        kind = self.kind
        values = kind.grids.get(self.track, ())
        self.grid.setText(", ".join(f"{value:g}" for value in values))
        self.grid.setToolTip(f"Values of {kind.setting}, separated by commas")
        for widget in self._value_parts:
            widget.setVisible(bool(kind.trains and kind.setting))
        self.forms.setCurrentWidget(self.base)
        self.base.leave_out(kind.setting)
        for form in (self.scratch, self.finetune):  # the other one takes no room
            policy = QSizePolicy.Policy.Preferred if form is self.base else QSizePolicy.Policy.Ignored
            form.setSizePolicy(QSizePolicy.Policy.Preferred, policy)
        self._offer_groups(kind.groups_of(self.track))
        self.edited.emit()

    def _offer_groups(self, names: list[str]) -> None:
        for box in self.groups.values():
            box.deleteLater()
        self.groups = {}
        for name in names:
            box = QCheckBox(_GROUP_NAMES.get(name, name))
            box.setChecked(True)
            box.toggled.connect(lambda _: self.edited.emit())
            self._group_layout.addWidget(box, len(self.groups) // 3, len(self.groups) % 3)  # four are wide
            self.groups[name] = box
        for widget in (self.group_row, self.group_label):
            widget.setVisible(bool(names))

    def _lay_out(self) -> None:
        grid = QGridLayout()
        grid.setHorizontalSpacing(6)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(1, 1)
        boxes = QGridLayout(self.group_row)
        boxes.setContentsMargins(0, 0, 0, 0)
        self._group_layout = boxes
        below = (
            ("values", self.grid),
            ("compared", self.group_row),
            ("seeds", self.seeds),
            ("run", self.subject),
            ("option", self.option),
            ("at once", self.jobs),
            ("name", self.name),
        )
        for row, widget in enumerate((self.kinds, self.question, self.hypothesis, self.varies, self.tracks)):
            grid.addWidget(widget, row, 0, 1, 2)
        labels: dict[str, QLabel] = {}
        for place, (text, editor) in enumerate(below):
            labels[text] = label_of(text, editor)
            grid.addWidget(labels[text], 5 + place, 0)
            grid.addWidget(editor, 5 + place, 1)
        self.group_label, self.option_label = labels["compared"], labels["option"]
        self._value_parts: tuple[QWidget, ...] = (labels["values"], self.grid)
        self._training_parts: tuple[QWidget, ...] = (labels["seeds"], self.seeds, labels["at once"], self.jobs)
        self._looking_parts: tuple[QWidget, ...] = (labels["run"], self.subject)
        self.forms = stack(self.scratch, self.finetune)
        column(grid, self.forms, 1, into=self, margins=(0, 0, 6, 0))


def parse_values(text: str) -> list[str]:
    """The values of a grid as someone typed them; none for the kind's own. UsageError for no text of values."""
    return [part for part in re.split(r"[,;\s]+", text.strip()) if part]


# Settings that the command has a word of its own for.
_WORDS = {"model.base": "--model", "data.source": "--data", "data.corpus": "--corpus"}


def command_line(request: Request, given: Mapping[str, Any], subject: str = "") -> str:
    """`llmlab-run experiment ...`. given: what was set otherwise than in the preset, by `section.field`."""
    kind = request.kind
    words = ["llmlab-run", "experiment", kind.name]
    if not kind.trains:
        words.append(subject)
    else:
        words += ["--preset", request.preset]
        for key, value in given.items():
            text = _text(value)
            words += [_WORDS[key], text] if key in _WORDS else ["--set", f"{key}={text}"]
        grid = [str(value) for value in request.grid]
        if grid != [f"{value:g}" for value in kind.grids.get(request.settings.track, ())]:
            words += ["--grid", ",".join(grid)]
        if request.groups and list(request.groups) != kind.groups:
            words += ["--compare", ",".join(request.groups)]
        if request.seeds != kind.seeds:
            words += ["--seeds", str(request.seeds)]
    for name, value in request.options.items():
        words += [f"--{name}", _text(value)]
    if request.id:
        words += ["--name", request.id]
    return shlex.join(words)


def _text(value: Any) -> str:
    """A value as `--set` reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "|".join(value)
    return number_text(value) if isinstance(value, (int, float)) else str(value)
