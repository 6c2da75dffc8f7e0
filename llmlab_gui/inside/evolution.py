"""Evolution: one prompt at every checkpoint of a run, as a film; or a live run, looked at again while it trains."""

from __future__ import annotations

from PySide6.QtCore import QTimer
from PySide6.QtGui import QHideEvent
from PySide6.QtWidgets import QCheckBox, QComboBox, QWidget

from llmlab.core.config import with_values
from llmlab.core.errors import LabError
from llmlab.core.presets import DEFAULT_PRESET
from llmlab.inspection.archive import Archive
from llmlab_gui.charts.bars import BarChart, Bars
from llmlab_gui.charts.heatmap import Heatmap
from llmlab_gui.charts.layer_chart import LayerChart
from llmlab_gui.charts.marks import Span
from llmlab_gui.charts.mosaic import Mosaic
from llmlab_gui.charts.value_grid import ValueGrid
from llmlab_gui.host.process import Request
from llmlab_gui.host.token_texts import texts_of
from llmlab_gui.inside import evolution_views as views
from llmlab_gui.inside.contribution_bars import LOGIT, Target, layer_bars
from llmlab_gui.inside.contribution_bars import rows as bar_rows
from llmlab_gui.inside.film import Film, Frame, film_of
from llmlab_gui.inside.film_strip import FilmStrip
from llmlab_gui.inside.head_scores import SCORES
from llmlab_gui.inside.inspection_dock import InspectionDock
from llmlab_gui.inside.lens_data import PROBABILITY, lens_grid
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.labels import EmptyState, PrimaryButton, QuietLabel, labelled
from llmlab_gui.widgets.layouts import choice_box, column, split, stack
from llmlab_gui.widgets.numbers import read_out
from llmlab_gui.widgets.saving import Table

HEADS, MOSAIC, LENS, CONTRIBUTIONS = range(4)
_VIEWS = ("Head scores", "All patterns", "Logit lens", "Layer contributions")
_CAPTIONS = (
    (
        "A score of every head at one step, and of the selected head over all steps: when did it learn that?",
        "induction-heads",
    ),
    ("The attention pattern of every head, step by step.", "attention-patterns"),
    (
        "What the model would predict after each layer, step by step; below, the probability of the correct token.",
        "logit-lens",
    ),
    ("How much each part adds to the last answer's logit, step by step.", "direct-attribution"),
)
_WHAT = ("heads", "lens", "attribution")
_FILM = 5  # frames from which on one sees something grow
_PER_DECADE = 10  # 31 checkpoints of 2,000 steps
_STRIDES = ((1, "every checkpoint"), (2, "every 2nd"), (5, "every 5th"), (10, "every 10th"))


class EvolutionDock(InspectionDock):
    """A film strip below one of four views."""

    needs_inspection = False
    needs_prompt = True
    asks = ("evolve", "evolution.live")

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "evolution", "Evolution", parent)
        self.film = Film("")
        self._prompt_then = ("", False)  # what the film is about
        self._archives: list[Archive] = []  # frames are views of them
        self._waiting = False  # for a live answer
        self._reading: Request | None = None  # what was asked last, of the run in the box
        self._texts = texts_of(self.session)
        self.run_box = choice_box("Run whose checkpoints are read")
        self.stride = choice_box("Which checkpoints", _STRIDES)
        self.view = choice_box("View of the evolution")
        self.score = choice_box("Score", [(score.key, score.title, score.words) for score in SCORES])
        self.watch = PrimaryButton("Read checkpoints", self.start)
        self.live = labelled(QCheckBox("follow live"), tip="While the run trains, add a frame every few seconds")
        self.note = QuietLabel()
        self.empty = EmptyState()
        self.map = Heatmap("Score of every head", square=False)
        self.mosaic = Mosaic()
        self.grid = ValueGrid("Logit lens at one step")
        self.bars = BarChart("Contributions at one step")
        self.chart = LayerChart("score", x_label="step")
        self.strip_of_steps = FilmStrip()
        self._views = stack(self.map, self.mosaic, self.grid, self.bars)
        self._lay_out()
        self._follow = QTimer(self)
        self._follow.timeout.connect(self._look)
        self._connect()
        self._list_runs()
        self._show_view()
        self._say_nothing_yet()

    # What it shows -----------------------------------------------------------------------------------------------

    def ready(self) -> bool:
        return bool(self.film.frames)

    def shown_archives(self) -> list[Archive | None]:
        return list(self._archives)

    def stale(self) -> str:
        """Of another prompt; the run is the one in the box, whichever model is active, until another one is opened."""
        if not self.film.frames:
            return ""
        if self.session.choice.undecided:
            return f"of {self.run_box.currentText()}"
        return "" if self._prompt_then == (self.session.text, self.session.beginning) else "of another prompt"

    def pictures(self) -> list[QWidget]:
        return [self._views.currentWidget() or self.map, self.chart] if self.film.frames else []

    def table(self) -> Table | None:
        """Head scores and patterns: score by step, layer and head. Others: the lines over all steps."""
        frames, score = self.film.frames, str(self.score.currentData())
        if not frames:
            return None
        if self._view in (HEADS, MOSAIC):
            rows = [
                (frame.step, layer, head, value)
                for frame in frames
                for layer, heads in enumerate(frame[f"heads/{score}"])
                for head, value in enumerate(heads)
            ]
            return ("step", "layer", "head", score), rows
        if self._view == CONTRIBUTIONS:
            bars = [(frame.step, *row) for frame in frames for row in bar_rows(layer_bars(frame, LOGIT, 0))]
            return ("step", "group", "part", "logit"), bars
        lines = [(line.label, x, y) for line in self.chart.lines for x, y in zip(line.x, line.y, strict=True)]
        return ("token", "step", "probability"), lines

    def tensors(self) -> tuple[Archive, list[str]] | None:
        return (self._archives[-1], list(self._archives[-1])) if self._archives else None

    # Asking ------------------------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """The chosen run, "" for none."""
        return str(self.run_box.currentData() or "")

    def start(self) -> None:
        """Asks for the film of the chosen run's checkpoints."""
        row = self.lab.row(self.run_id)
        if row is None:
            self._refuse(LabError("No run is chosen.", "", "Train one first: Set-up."))
            return
        values = {"what": list(_WHAT), "every": self.stride.currentData()}
        self._reading = self.session.evolve(str(row.run.path), values, self._take, self._refuse)

    def _take(self, archive: Archive) -> None:
        try:
            film = film_of(archive)
        except (KeyError, ValueError, TypeError) as error:
            self._refuse(LabError("The reply is not an evolution.", str(error)))
            return
        self._archives = [archive]
        self.note.setText(" ".join(archive.metadata.notes))
        self._show_film(film)

    def _refuse(self, error: LabError) -> None:
        if self.film.frames:
            self.note.setText(str(error))
        else:
            self.note.setText("")
            self.empty.say(error.what, f"{error.why} {error.do}".strip(), *self.shortening())

    def _set_live(self, on: bool) -> None:
        if on:
            self._follow.start(round(1000 * self.session.look.following.seconds))
            self._look()
        else:
            self._follow.stop()

    def _look(self) -> None:
        """One more frame of a run that trains."""
        row = self.lab.row(self.run_id)
        if row is None or not row.status.live:
            self.live.setChecked(False)
            self.note.setText("The run has ended: read its checkpoints.")
            return
        newest = self.film.steps[-1] if self.film.frames else None
        waiting = self._waiting and self.session.working is not None  # a cancelled question is never answered
        if waiting or not self._shown or (newest is not None and row.status.step == newest):
            return
        self._waiting = True
        asked = {"what": list(_WHAT), "answer": self._answer()}
        model = f"{row.run.path}@live"
        sent = self.session.ask("inspect", asked, self._take_live, self._refuse_live, "evolution.live", model)
        self._reading, self._waiting = sent, sent is not None

    def _answer(self) -> str:
        """The token that the film's attributions speak of, so that frames compare; "" before there is one."""
        return self.film.frames[-1].metadata.more.get("answer_text", "") if self.film.frames else ""

    def _take_live(self, archive: Archive) -> None:
        self._waiting = False
        row = self.lab.row(self.run_id)
        step = archive.metadata.more.get("step") or (row.status.step if row is not None else 0)
        shown = self.lab.row_called(self.film.run)
        film = self.film if shown is not None and shown.id == self.run_id else Film(self.run_id)
        self._archives.append(archive)
        self._show_film(film.with_frame(Frame(archive, int(step))))

    def _refuse_live(self, error: LabError) -> None:
        self._waiting = False
        self.live.setChecked(False)
        self._refuse(error)

    # Drawing -----------------------------------------------------------------------------------------------------

    @property
    def _view(self) -> int:
        return self.view.currentIndex()

    @property
    def _frame(self) -> Frame:
        return self.film.frames[min(self.strip_of_steps.place, len(self.film.frames) - 1)]

    def _show_film(self, film: Film) -> None:
        self.film = film
        self._prompt_then = (self.session.text, self.session.beginning)
        self.strip_of_steps.show_film(film)
        self._pane.setVisible(bool(film.frames))
        self.empty.setVisible(not film.frames)
        self.strip_of_steps.setVisible(bool(film.frames))
        self.update_state()
        self._show_view()

    def _redraw(self) -> None:
        """This step's view and the line over all steps."""
        if not self.film.frames:
            return
        frame, selection = self._frame, self.session.selection
        token = selection.token_at(len(frame.metadata.tokens))
        score = next(score for score in SCORES if score.key == self.score.currentData())
        if self._view in (HEADS, MOSAIC):
            lines = views.score_lines(self.film, score.key, selection.layer, selection.head)
            self.chart.show_lines(lines, y=score.title.lower(), unit=score.unit)
            if self._view == HEADS:
                heat = views.score_heat(self.film, frame, score.key, score.unit)
                self.map.describe = lambda layer, head: (
                    f"Layer {layer}, head {head}, step {frame.step:,}: {score.title.lower()} "
                    f"{read_out(heat.values[layer, head], 'value')} {score.unit}".rstrip()
                )
                self.map.show_heat(heat)
                self.map.choose(selection.layer, selection.head)
                highest = views.highest(self.film, score.key, score.unit)
                self.caption(f"{highest} {_CAPTIONS[HEADS][0]}", "induction-heads")
            else:
                self.mosaic.show_heads(frame["heads/mosaic"])
                self.mosaic.choose(selection.layer, selection.head)
        elif self._view == LENS:
            self.grid.show_grid(lens_grid(frame, PROBABILITY, self._text, halves=False))
            self.grid.mark(-1, token)
            self.chart.show_lines(views.lens_lines(self.film, token, self._text), y="probability")
        else:
            more = frame.metadata.more
            target = Target(more.get("answer_text", ""), more.get("against_text", ""))
            self.bars.show_bars(layer_bars(frame, LOGIT, 0, target) if "attribution/sum" in frame else Bars())
            self.chart.show_lines(views.logit_lines(self.film), y="logit")
        self.chart.set_spans([Span(frame.step, frame.step)])

    def _text(self, token: int) -> str:
        return self._texts.text(self.film.text_model(), token)

    def _show_view(self) -> None:
        self._views.setCurrentIndex(self._view)
        self.score.setVisible(self._view in (HEADS, MOSAIC))
        self.caption(*_CAPTIONS[self._view])
        self._redraw()

    # The frame ---------------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self.run_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)  # runs come later
        self.view.addItems(_VIEWS)
        self.controls.add(self.run_box, self.stride, self.watch, self.live, self.view, self.score)
        self._pane = split(self._views, self.chart, sizes=[300, 180], closes=True)
        self.set_body(column(self.note, (self.empty, 1), (self._pane, 1), self.strip_of_steps))

    def _connect(self) -> None:
        self.live.toggled.connect(self._set_live)
        self.view.currentIndexChanged.connect(self._show_view)
        self.score.currentIndexChanged.connect(self._redraw)
        self.run_box.activated.connect(self._forget)
        self.strip_of_steps.moved.connect(self._redraw)
        for chosen in (self.map.clicked, self.mosaic.clicked):
            chosen.connect(lambda layer, head: self.session.select(layer=layer, head=head))
        self.grid.clicked.connect(lambda _row, token: self.session.select(token=token))
        self.session.selection_changed.connect(self._redraw)
        self.session.tokens_changed.connect(self._follow_prompt)
        self.session.about_changed.connect(self._follow_model)
        self._texts.arrived.connect(self._redraw)
        self.lab.runs_changed.connect(self._list_runs)
        self.lab.run_renamed.connect(self._follow_renaming)

    def _list_runs(self) -> None:
        offered = [(row.id, row.name) for row in self.lab.runs()]
        if offered != self.run_box.entries():
            chosen = self.run_id
            self.run_box.fill(offered)
            self._choose_run(chosen)
            if chosen and self.run_id != chosen:  # it was deleted
                self._forget()
        if not self.film.frames and self.isVisible():
            self._hint()
        chosen_row = self.lab.row(self.run_id)
        self.live.setEnabled(chosen_row is not None and chosen_row.status.live)

    def _follow_renaming(self, old: str, new: str) -> None:
        place = self.run_box.findData(old)
        if place >= 0:  # it stays chosen
            self.run_box.setItemData(place, new)

    def _choose_run(self, wanted: str) -> None:
        about = self.session.about
        active = about.reference.partition("@")[0] if about is not None else ""
        opened = self.lab.row_called(active) if active else None
        current = self.lab.current()
        ids = [wanted, *(row.id for row in (opened, current) if row is not None)]
        places = [self.run_box.findData(run_id) for run_id in ids if run_id]
        found = [place for place in places if place >= 0]
        self.run_box.setCurrentIndex(found[0] if found else min(0, self.run_box.count() - 1))

    def _follow_model(self) -> None:
        before = self.run_id
        self._choose_run("")
        if self.run_id != before:
            self._forget()
        self._list_runs()

    def _follow_prompt(self) -> None:
        if self._prompt_then != (self.session.text, self.session.beginning):
            self._forget()

    def _forget(self) -> None:
        """Another run or prompt: the film is about neither."""
        self.live.setChecked(False)
        self._waiting = False
        if self._reading is not None:
            self.session.cancel(self._reading)
            self._reading = None
        self._archives = []
        self.strip_of_steps.stop()
        self._say_nothing_yet()
        self._show_film(Film(""))
        self._list_runs()

    def _say_nothing_yet(self) -> None:
        self._hint()
        self.empty.setVisible(True)
        self.note.setText("")
        self._pane.setVisible(False)
        self.strip_of_steps.setVisible(False)

    def _hint(self) -> None:
        """What an evolution is; of a run that keeps only a few checkpoints, that another one could keep more."""
        hint = "Read checkpoints runs the prompt through each of them; follow live does so while a run trains."
        row = self.lab.row(self.run_id)
        kept = len(list(row.run.checkpoints.glob("step-*"))) if row is not None else 0
        if kept >= _FILM:
            self.empty.say("No evolution yet", hint)
            return
        if row is not None:
            has = f"{kept or 'no'} checkpoint{'' if kept == 1 else 's'}"
            hint += f" {row.name} has {has}: unless told otherwise, a run keeps only its last few."
        self.empty.say("No evolution yet", hint, "Set up a run that keeps them", self.set_up)

    def set_up(self) -> None:
        """Puts another run like the chosen one into Set-up, with log-spaced checkpoints, all of which are kept."""
        row = self.lab.row(self.run_id)
        if row is None:
            self.lab.setup_requested.emit({"preset": DEFAULT_PRESET, "checkpoints.per_decade": _PER_DECADE})
            return
        spaced = with_values(row.info.settings, {"checkpoints.per_decade": _PER_DECADE})
        self.lab.set_up_again(spaced, row.info.preset)

    def _come_to_sight(self) -> None:
        super()._come_to_sight()
        self._hint()
        if self.live.isChecked():
            self._look()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self.strip_of_steps.stop()
