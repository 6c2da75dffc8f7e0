"""The window's model of the runs: which there are, which are shown, and what happens in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QColor

from llmlab.core.config import flat, to_mapping
from llmlab.core.errors import LabError
from llmlab.core.run_settings import RunSettings
from llmlab.core.settings import PretrainSettings
from llmlab.notebook.predictions import Prediction
from llmlab.store.events import Event
from llmlab.store.history import RunHistory
from llmlab.store.run_folder import RunFolder, RunStatus
from llmlab_gui.charts.redraw import RedrawTimer
from llmlab_gui.host.session import InspectionSession
from llmlab_gui.lab.book import Book
from llmlab_gui.lab.followed_runs import FollowedRuns
from llmlab_gui.lab.plans import PlansDesk
from llmlab_gui.lab.run_colors import RunColors
from llmlab_gui.lab.run_controller import RunController
from llmlab_gui.lab.run_ends import RunEnds
from llmlab_gui.lab.run_queue import QueueRunner
from llmlab_gui.lab.run_rows import RunRow, called, newest_first, told_apart
from llmlab_gui.lab.runs_poller import RunsPoller

# Several runs report at once; their news is told together.
_COALESCE_MS = 100


class Lab(QObject):
    """Every dock gets it and nothing else. Owns all threads of the window; `shutdown()` waits for them.

    The current run is what the docks are about; shown runs, the current one first, are overlaid in the charts. In
    questions and signals a run's id is TRACK/ID: two tracks may hold one name.
    """

    runs_changed = Signal()  # the list, or some run's status
    current_changed = Signal(str)  # id, "" for none
    shown_runs_changed = Signal()
    events_arrived = Signal(str, list)  # run id, list[Event] in order
    history_reset = Signal(str)  # what was there was cut back or read anew
    error_raised = Signal(object)  # LabError
    error_over = Signal(object)  # one that was raised of a run's end or pause: the run goes on
    said = Signal(str)  # good news, one sentence
    run_ended = Signal(str)  # a run that was live no longer is
    run_renamed = Signal(str, str)  # ids, before and now; the list follows
    run_appeared = Signal(str)  # a live run that someone else started, and that is not shown
    concept_requested = Signal(str)  # page, to be shown in Learn
    compare_requested = Signal(str)  # reference of what was fine-tuned, to be compared with its base
    comparison_requested = Signal(str, str)  # references of two models
    look_requested = Signal(str)  # reference of a model to look into
    write_requested = Signal(str, str)  # run id, checkpoint's folder name, to be prompted in Write
    setup_requested = Signal(dict)  # `preset` and `section.field` keys
    finetune_requested = Signal(dict)  # the same, of a fine-tuning run
    dock_requested = Signal(str)  # dock id
    workspace_requested = Signal(str)  # one of llmlab_gui.pages.places.WORKSPACES; the page that asked stays in sight
    paper_requested = Signal(str, str)  # a paper's name, and the id of a claim or ""
    check_requested = Signal(str, str, str)  # to be set up: a paper, its one claim, the model
    experiment_requested = Signal(object)  # to be set up: a kind's name, or the ExperimentRecord of one like it
    start_requested = Signal(object)  # llmlab_gui.train.run_setup.PlannedRun
    queue_requested = Signal(object)  # the same, to start when its turn comes
    plan_taken = Signal(object)  # the same: it starts, or it waits now
    resume_requested = Signal(str)  # run id; a finished one asks for more steps first

    def __init__(self, outputs: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.outputs = outputs
        self.desks: list[PlansDesk] = []
        self.redraw = RedrawTimer(self)
        self.controller = RunController(outputs, self)
        self.queue = QueueRunner(
            outputs, self.controller, self.runs, self, busy=lambda: any(desk.live() for desk in self.desks)
        )
        self.notebook = Book(outputs, self)
        self.inspection = InspectionSession(outputs, self, step_of=self._step_of)
        self.inspection.failed.connect(self.error_raised)
        self.looked = False  # whether the outputs folder was read at least once
        self._rows: dict[str, RunRow] = {}
        self._renaming: dict[str, str] = {}  # a run's id, and the one it is being given
        self._current = ""
        self._by_hand = False  # the learner chose the current run: do not switch away from it
        self._chosen_before = ""  # at an earlier start: taken up with the first list
        self._overlaid: list[str] = []
        self.colors = RunColors()
        self._ends = RunEnds(self.controller.killed, self.inspection, self.row_called, self)
        self._ends.raised.connect(self.error_raised)
        self._ends.over.connect(self.error_over)
        self._ends.said.connect(self.said)
        self._ends.ended.connect(self.run_ended)
        self._news = QTimer(self, singleShot=True, interval=_COALESCE_MS)
        self._news.timeout.connect(self.runs_changed)
        self.controller.failed.connect(self.error_raised)
        self.controller.complained.connect(lambda run, error: self._ends.complain(run.full_name, error))
        self.controller.said.connect(self.said)
        self.controller.started.connect(self._run_started)
        self.controller.took_turn.connect(partial(self._run_started, in_turn=True))
        self.queue.failed.connect(self.error_raised)
        self.notebook.failed.connect(self.error_raised)
        self.notebook.said.connect(self.said)
        for happened in (self.controller.started, self.controller.took_turn, self.run_ended, self.run_renamed):
            happened.connect(lambda *_: self.notebook.refresh())
        self.runs_changed.connect(self.queue.runs_changed)
        self._followed = FollowedRuns(self)
        self._followed.history_reset.connect(self.history_reset)
        self._followed.events_arrived.connect(self.events_arrived)
        self._followed.events_arrived.connect(self._take_events)
        self._followed.status_changed.connect(self._take_status)
        self._followed.failed.connect(self._follow_failed)
        self._poller = RunsPoller(outputs, self)
        self._poller.found.connect(self._take_rows)
        self._poller.failed.connect(self.error_raised)
        self._poller.start()

    def add_desk(self, desk: PlansDesk) -> None:
        """Takes up plans of several runs: no other run starts between two of theirs."""
        self.desks.append(desk)
        desk.failed.connect(self.error_raised)
        desk.said.connect(self.said)
        desk.started.connect(lambda _: self.notebook.refresh())
        desk.ended.connect(lambda _: self.notebook.refresh())

    # Runs ------------------------------------------------------------------------------------------------------

    def runs(self) -> list[RunRow]:
        """Every run in the outputs folder, newest first."""
        return list(self._rows.values())

    def row(self, run_id: str) -> RunRow | None:
        """A run by its id in the window: see `RunRow.id`."""
        return self._rows.get(run_id)

    def row_called(self, name: str) -> RunRow | None:
        """The run that a reference names: by its id where that is enough, by TRACK/ID, or by its folder."""
        return called(name, self._rows)

    def current(self) -> RunRow | None:
        """The run that the docks are about."""
        return self._rows.get(self._current)

    def current_model(self, *, live: bool = True) -> str:
        """`RunRow.model` of the current run; "" where there is none."""
        row = self.current()
        return row.model(live=live) if row is not None else ""

    def set_current(self, run_id: str) -> None:
        """Makes a run the one that the docks are about; "" for none."""
        self._by_hand = bool(run_id)
        self._make_current(run_id)

    def chosen(self) -> str:
        """Id of the current run where the learner chose it, else ""."""
        return self._current if self._by_hand else ""

    def choose_again(self, run_id: str) -> None:
        """What was chosen at an earlier start is current again where it is still found, unless a run is at work."""
        if not self.looked:
            self._chosen_before = run_id
        elif run_id in self._rows and not self._by_hand and not any(row.status.live for row in self.runs()):
            self.set_current(run_id)

    def shown_runs(self) -> list[str]:
        """Ids of the runs in the charts, the current one first."""
        rest = [run_id for run_id in self.overlaid() if run_id in self._rows]
        return [self._current, *rest] if self._current else rest

    def overlaid(self) -> list[str]:
        """Ids of the runs beside the current one, also of those that are not found yet."""
        return [run_id for run_id in self._overlaid if run_id != self._current]

    def set_shown_runs(self, ids: Iterable[str]) -> None:
        """Overlays these runs; the current one is always shown."""
        wanted = list(dict.fromkeys(ids))
        if wanted != self._overlaid:
            self._overlaid = wanted
            self._follow_shown()
            self.shown_runs_changed.emit()

    def history(self, run_id: str) -> RunHistory:
        """What happened in a run so far; filled while it is shown."""
        return self._followed.history(run_id)

    def color(self, run_id: str) -> QColor:
        """The colour of a run in charts and lists."""
        return self.colors.color(run_id)

    def take_up_colors(self, slots: Mapping[str, int]) -> None:
        """Those that `colors.slots` were at an earlier start."""
        self.colors.slots = dict(slots)
        self._follow_shown()
        self.shown_runs_changed.emit()

    def open_run(self, run: RunFolder) -> None:
        """Shows a run, also one that lies elsewhere than in the outputs folder."""
        if (row := self._read_row(run)) is None:
            return
        known = self._rows.get(row.id)
        if known is not None and known.run.path.resolve() != run.path.resolve():
            self.error_raised.emit(
                LabError(
                    f"{run.path} cannot be shown beside the other runs.",
                    f"A run of the same name is in {known.run.path.parent}.",
                    "Rename one of the two folders.",
                )
            )
            return
        if known is None:
            self._poller.add(run)
            self._insert(row)
        self.set_current(row.id)

    def refresh(self) -> None:
        """Looks at the outputs folder at once."""
        self._poller.poke()

    def forget(self, run_id: str) -> None:
        """Lets go of a run that was deleted."""
        self._take_rows([row for row in self.runs() if row.id != run_id])
        self.set_shown_runs([shown for shown in self._overlaid if shown != run_id])

    def begin_renaming(self, run_id: str, new_id: str) -> None:
        """A run is being given another name; until `take_renamed` or `end_renaming` it keeps its row, as does one that
        has that name already."""
        if new_id not in self._rows:
            self._renaming[run_id] = new_id

    def end_renaming(self, run_id: str) -> None:
        """It could not be renamed."""
        self._renaming.pop(run_id, None)
        self.refresh()

    def take_renamed(self, run_id: str, run: RunFolder) -> None:
        """A run has another name now; it stays current and shown, and its open model open."""
        self._renaming.pop(run_id, None)
        renamed = run.full_name
        current, shown = self._current, [renamed if shown == run_id else shown for shown in self._overlaid]
        about = self.inspection.about
        name, _, which = about.reference.rpartition("@") if about is not None else ("", "", "")
        opened = self.row_called(name) if name else None
        self.colors.rename(run_id, renamed)
        self._ends.rename(run_id, renamed)
        self.run_renamed.emit(run_id, renamed)
        row = RunRow(run, run.info(), run.status())
        # One that came to nothing gave up the name; a look in between may have found it taken, and the old name gone.
        self._take_rows(newest_first([row, *(other for other in self.runs() if other.id not in (run_id, renamed))]))
        self.set_shown_runs(shown)
        if current == run_id:
            self.set_current(renamed)
        if opened is not None and opened.id == run_id:
            self.inspection.open(f"{run.path.resolve()}@{which}")
        self.refresh()

    # Requests of one dock to another ---------------------------------------------------------------------------

    def set_up_again(
        self, settings: RunSettings, preset: str, name: str | None = None, predictions: Sequence[Prediction] = ()
    ) -> None:
        """Puts a run's settings into the set-up panel of its kind; name and predictions of one that was not made."""
        values = flat(to_mapping(settings))
        for key in ("mystery.token", "pieces.yours"):  # a run that is set up by hand has nothing sealed, and no pieces
            values.pop(key, None)
        scratch = isinstance(settings, PretrainSettings)
        (self.setup_requested if scratch else self.finetune_requested).emit(
            {"preset": preset, "name": name or "", "predictions": tuple(predictions), **values}
        )

    def shutdown(self) -> None:
        """Ends every thread and waits for it. Workers train on."""
        self._poller.stop()
        self.queue.shutdown()
        self.notebook.shutdown()
        self.redraw.stop()
        self._news.stop()
        self._followed.shutdown()
        self._poller.wait()
        self.inspection.shutdown()
        for desk in self.desks:
            desk.shutdown()
        self.controller.shutdown()

    def _step_of(self, run: str) -> int | None:
        """How far a run is that a reference names."""
        row = self.row_called(run)
        return row.status.step if row is not None else None

    def _take_rows(self, rows: list[RunRow]) -> None:
        """The poller's news. The watcher knows a followed run's status sooner."""
        known = self._rows
        for old, new in self._renaming.items():
            if old in known:
                rows = [known[old] if row.id == new else row for row in rows if row.id != old]
                rows += [] if known[old] in rows else [known[old]]
        fresh = [row for row in rows if row.id not in known and row.status.live]
        newer = [self._followed.with_newer_status(row).unless_over(known.get(row.id)) for row in rows]
        self._rows = {row.id: row for row in told_apart(newer)}
        for run_id, row in self._rows.items():
            if run_id in known:
                self._ends.compare(known[run_id].status, row)
        for run_id, row in known.items():
            if run_id not in self._rows and row.status.live and not row.run.path.is_dir():
                self.error_raised.emit(row.run.gone())
        first, self.looked = not self.looked, True
        if self._current and self._current not in self._rows:
            self._by_hand = False
            self._make_current("")
        self._follow_shown()
        if first:
            self.choose_again(self._chosen_before)
        self._choose()
        for row in fresh:
            if not first and row.id != self._current:
                self.run_appeared.emit(row.id)
        self.runs_changed.emit()

    def _choose(self, in_turn: RunRow | None = None) -> None:
        """Turns to any run rather than to none. Of those that begin later only to one whose turn in this window's queue
        has come, unless another is being watched: Stop never means a run that came from elsewhere."""
        current = self.current()
        if in_turn is not None and not self._by_hand and (current is None or not current.status.live):
            self._make_current(in_turn.id)
        elif current is None and self._rows:
            live = [row for row in self._rows.values() if row.status.live]
            self._make_current((live or list(self._rows.values()))[0].id)

    def _run_started(self, run: RunFolder, *, in_turn: bool = False) -> None:
        """A run that this window started is what its user wants to see; with `in_turn`, unless that is another one."""
        if (row := self._read_row(run)) is None:
            return
        if self.inspection.about is None:  # its model is of more interest than what was open at an earlier start
            self.inspection.offer_none_again()
        self._followed.started(row.id)
        self._ends.goes_on(row.id)
        self._insert(row)
        if in_turn:
            self._choose(row)
        else:
            self.set_current(row.id)
            self._by_hand = False  # the next one may take its place once it has ended
        self.refresh()

    def _read_row(self, run: RunFolder) -> RunRow | None:
        """None where it cannot be read, which is told."""
        try:
            return RunRow(run, run.info(), run.status())
        except LabError as error:
            self.error_raised.emit(error)
            return None

    def _insert(self, row: RunRow) -> None:
        """A run that the poller will find, too, a little later."""
        others = [other for other in self._rows.values() if other.id != row.id]
        self._rows = {other.id: other for other in told_apart(newest_first([row, *others]))}
        self.looked = True
        self._follow_shown()
        self.runs_changed.emit()

    def _make_current(self, run_id: str) -> None:
        if run_id == self._current:
            return
        self._current = run_id
        self._follow_shown()
        self.current_changed.emit(run_id)
        self.shown_runs_changed.emit()

    def _follow_shown(self) -> None:
        """Each shown run is followed, and has a colour of its own."""
        shown = [run_id for run_id in self.shown_runs() if run_id in self._rows]
        self.colors.give(shown, list(self._rows)[::-1])
        self._followed.follow(self._rows[run_id] for run_id in shown)

    def _take_events(self, run_id: str, events: list[Event]) -> None:
        if (row := self._rows.get(run_id)) is not None:
            self._ends.hear(row, events)

    def _take_status(self, run_id: str, status: RunStatus) -> None:
        row = self._rows.get(run_id)
        if row is None:
            return
        self._rows[run_id] = replace(row, status=status)
        self._ends.compare(row.status, self._rows[run_id])
        if status.state != row.status.state:
            self._news.stop()
            self.runs_changed.emit()
        elif not self._news.isActive():
            self._news.start()

    def _follow_failed(self, run_id: str, error: LabError) -> None:
        row = self._rows.get(run_id)
        if row is not None and row.run.path.is_dir():
            self.error_raised.emit(error)
        else:
            self.refresh()  # deleted: the poller drops it
