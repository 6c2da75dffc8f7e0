"""One or more charts over the same x axis, with their controls above them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from PySide6.QtCore import QSize, Qt, QTimer, Signal
from PySide6.QtGui import QResizeEvent, QShowEvent
from PySide6.QtWidgets import QBoxLayout, QLabel, QSizePolicy, QSlider, QWidget

from llmlab_gui.charts.line_chart import LineChart, align
from llmlab_gui.charts.picture import save_curves
from llmlab_gui.charts.redraw import RedrawTimer
from llmlab_gui.charts.smoothing import EXPLANATION, REACHES
from llmlab_gui.widgets.buttons import toggle_button
from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import choice_box, column
from llmlab_gui.widgets.one_line import OneLine
from llmlab_gui.widgets.saving import OF_A_CHART, Export, export_button
from llmlab_gui.widgets.theme import current_theme, theme_notifier

# What x can be: the history's name for it, what the axis is called, the kind of its numbers, and the choice's text.
X_AXES = (
    ("step", "step", "count", "Steps"),
    ("tokens", "training tokens", "count", "Tokens"),
    ("active_seconds", "training time", "seconds", "Training time"),
    ("elapsed", "time since the run began", "seconds", "Time since start"),
)


@dataclass(frozen=True)
class ChartChoices:
    """What the controls above charts are set to. memory: steps on either side that smoothing reads, 0 is off."""

    x_axis: str = "step"
    log_x: bool = False
    log_y: bool = False
    memory: int = 0


class _Note(OneLine):
    """As wide as its words; where there is no such room, cut."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        width = 1 + self.fontMetrics().horizontalAdvance(self.text())  # rounded; and no row places what has none
        return QSize(width, super().sizeHint().height())

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint().boundedTo(super().sizeHint())


class ChartPanel(QWidget):
    """Charts that share x. `fill` is called before each redraw, to hand the charts their curves.

    `mark_dirty()` asks for a redraw; the RedrawTimer makes it, when the panel can be seen.
    """

    choices_changed = Signal(object)  # ChartChoices

    def __init__(
        self,
        charts: Sequence[tuple[LineChart, int]],
        fill: Callable[[], None],
        redraw: RedrawTimer,
        write: Callable[[Callable[[], object], Path], object],
        *,
        smoothing: int | None = None,
        controls: Sequence[QWidget] = (),
    ) -> None:
        """charts: each with its share of the height. write: is given the work that exports them, and the file.

        smoothing: its reach at first, in steps; None for no control. controls: of the owner, before the panel's own.
        """
        super().__init__()
        self.charts = [chart for chart, _ in charts]
        self.dirty = True
        self._drawn_in = ""  # the name of the theme
        self.export_name = "chart"
        self.export_title = ""
        self._fill = fill
        self._redraw = redraw
        self._write = write
        self._least: list[QSize] = []  # of the charts, when the panel was asked for its own last
        self._row = self._controls(smoothing, controls)
        self._box = QBoxLayout(QBoxLayout.Direction.TopToBottom)
        self._box.setSpacing(0)
        for chart, share in charts:
            self._box.addWidget(chart, share)
        column(self._row, self._box, into=self, spacing=0)
        cast("QBoxLayout", self.layout()).setStretchFactor(self._box, 1)
        for chart in self.charts:
            chart.show_x_name(chart is self.charts[-1])
            chart.needs_redraw.connect(self.mark_dirty)
            chart.frozen.connect(lambda: self.set_follow(False))
            chart.whole_wanted.connect(partial(self.set_follow, True))
            chart.pointed.connect(self._point)
            if chart is not self.charts[0]:
                chart.setXLink(self.charts[0])
        theme_notifier.changed.connect(self._apply_theme)
        redraw.register(self)
        self._x_choice.currentIndexChanged.connect(self._chosen)
        for button in (self._log_x, self._log_y):
            button.toggled.connect(self._chosen)
        if self._slider is not None:
            self._slider.valueChanged.connect(self._chosen)

    @property
    def x_axis(self) -> str:
        """The history's name of what x is."""
        return str(self._x_choice.currentData())

    @property
    def memory(self) -> int:
        """Steps on either side that smoothing reads; 0 is off."""
        return REACHES[self._slider.value()] if self._slider is not None else 0

    def mark_dirty(self) -> None:
        """What is shown is out of date."""
        self.dirty = True
        if self.isVisible():
            self._redraw.wake()

    def redraw_if_dirty(self) -> None:
        """Brings all charts up to date."""
        if self.dirty:
            self._fill()
            for chart in self.charts:
                chart.draw()
            align(self.charts)
            self.dirty, self._drawn_in = False, current_theme().name

    def lay_out(self, *, across: bool) -> None:
        """The charts side by side, or below one another."""
        direction = QBoxLayout.Direction.LeftToRight if across else QBoxLayout.Direction.TopToBottom
        if direction != self._box.direction():
            self._box.setDirection(direction)
            for chart in self.charts[:-1]:
                chart.show_x_name(across)

    def minimumSizeHint(self) -> QSize:
        """With all rows that the controls take in this width: the charts keep their height below them."""
        least = [chart.minimumSizeHint() for chart in self.charts]
        if least != self._least:  # else each answer would ask for the next: a layout that is invalid is asked again
            self._least = least
            self._box.invalidate()  # Qt does so only with the next events
        hint, row = super().minimumSizeHint(), self._row
        return QSize(hint.width(), hint.height() - row.minimumSize().height() + row.heightForWidth(self.width()))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self.updateGeometry()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._drawn_in not in ("", current_theme().name):
            self.redraw_if_dirty()  # before anybody sees the other theme's curves
        QTimer.singleShot(0, self, self.redraw_if_dirty)  # the size may be new, too; the redraw timer may rest

    def shutdown(self) -> None:
        """Nothing is drawn any more."""
        self._redraw.unregister(self)

    def set_x_axis(self, name: str) -> None:
        """Chooses what x is, by the history's name for it."""
        self._x_choice.setCurrentIndex(self._x_choice.findData(name))

    def set_memory(self, memory: int) -> None:
        """Chooses the smoothing: the nearest that the control offers."""
        if self._slider is not None:
            self._slider.setValue(min(range(len(REACHES)), key=lambda i: abs(REACHES[i] - memory)))

    def set_note(self, text: str, tip: str = "") -> None:
        """A few words beside the controls. tip: what they mean."""
        if text != self._note.text():
            self._note.say(text)
            self._note.setToolTip("\n".join(filter(None, (text, tip))))

    def set_log(self, *, x: bool, y: bool) -> None:
        """Chooses logarithmic axes."""
        self._log_x.setChecked(x)
        self._log_y.setChecked(y)

    @property
    def choices(self) -> ChartChoices:
        """What the controls are set to."""
        return ChartChoices(self.x_axis, self._log_x.isChecked(), self._log_y.isChecked(), self.memory)

    def set_choices(self, choices: ChartChoices) -> None:
        """Sets the controls; an axis that is not known stays what it is."""
        if self._x_choice.findData(choices.x_axis) >= 0:
            self.set_x_axis(choices.x_axis)
        self.set_log(x=choices.log_x, y=choices.log_y)
        self.set_memory(choices.memory)

    def _chosen(self) -> None:
        self.choices_changed.emit(self.choices)

    # Controls --------------------------------------------------------------------------------------------------

    def _controls(self, smoothing: int | None, first: Sequence[QWidget]) -> FlowRow:
        row = FlowRow()
        row.setContentsMargins(6, 2, 6, 0)
        row.setSpacing(6)
        row.add(*first)
        self._x_choice = choice_box("Horizontal axis", [(key, text) for key, _, _, text in X_AXES])
        self._x_choice.setToolTip("What the horizontal axis is")
        self._x_choice.currentIndexChanged.connect(self._x_chosen)
        self._log_x = toggle_button("log x", "Logarithmic horizontal axis")
        self._log_y = toggle_button("log y", "Logarithmic vertical axis; values at or below zero are left out")
        for button in (self._log_x, self._log_y):
            button.toggled.connect(self._logs_chosen)
        row.add(self._x_choice, self._log_x, self._log_y)
        self._slider: QSlider | None = None
        if smoothing is not None:
            self._add_smoothing(row, smoothing)
        row.addStretch(1)
        self._note = _Note()
        row.addWidget(self._note)
        self._follow = toggle_button("Follow", "Keep the whole run in sight. Panning or zooming turns this off.")
        self._follow.setChecked(True)
        self._follow.clicked.connect(self.set_follow)
        row.add(self._follow, export_button(Export(self.export, lambda: self.export_name, OF_A_CHART)))
        return row

    def _add_smoothing(self, row: FlowRow, memory: int) -> None:
        self._slider = labelled(QSlider(Qt.Orientation.Horizontal), "Smoothing")
        self._slider.setRange(0, len(REACHES) - 1)
        self._slider.setPageStep(1)
        self._slider.setFixedWidth(96)
        self._smoothing_text = QLabel()
        self._smoothing_text.setMinimumWidth(self.fontMetrics().horizontalAdvance("smooth: ±50,000 steps"))
        for widget in (self._slider, self._smoothing_text):
            widget.setToolTip(EXPLANATION)
            row.addWidget(widget)
        self._slider.valueChanged.connect(self._smoothing_chosen)
        self.set_memory(memory)
        self._smoothing_chosen()

    def _x_chosen(self) -> None:
        _, label, kind, _ = X_AXES[self._x_choice.currentIndex()]
        for chart in self.charts:
            chart.set_x_axis(label, kind)
        self.set_follow(True)

    def _logs_chosen(self) -> None:
        for chart in self.charts:
            chart.set_log(x=self._log_x.isChecked(), y=self._log_y.isChecked())
        self._follow.setChecked(True)

    def _smoothing_chosen(self) -> None:
        self._smoothing_text.setText(f"smooth: ±{self.memory:,} steps" if self.memory else "smooth: off")
        self.mark_dirty()

    # The view --------------------------------------------------------------------------------------------------

    def set_follow(self, follow: bool) -> None:
        """Whether all charts keep the whole run in sight."""
        self._follow.setChecked(follow)
        for chart in self.charts:
            chart.set_follow(follow)

    def _point(self, x: float) -> None:
        for chart in self.charts:
            chart.cross_hair.point_at(x)

    def _apply_theme(self) -> None:
        for chart in self.charts:
            chart.apply_theme(current_theme())
        self.dirty = True
        if self.isVisible():  # the timer rests for seconds while a run trains on all cores
            self.redraw_if_dirty()

    # Export ----------------------------------------------------------------------------------------------------

    def export(self, path: Path) -> None:
        """Has what is shown written to a .png, .svg or .csv file; a million numbers take seconds."""
        self.redraw_if_dirty()
        self._write(save_curves(self.charts, self.x_axis, path, self.export_title, self._note.text()), path)
