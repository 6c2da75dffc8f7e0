"""The Runs dock: every run, which of them the charts show, and what can be done with one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QPoint, Qt, QTimer
from PySide6.QtGui import QAction, QGuiApplication, QKeySequence, QShowEvent
from PySide6.QtWidgets import QAbstractItemView, QLineEdit, QMenu, QTableView, QWidget

from llmlab.core.errors import LabError
from llmlab.core.task_settings import TaskSettings
from llmlab.store.run_folder import RunFolder
from llmlab.studies.upkeep import rename_run, require_new_name
from llmlab_gui.host.progress_strip import ProgressStrip
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.train.run_deletions import RunDeletions
from llmlab_gui.train.runs_table import COLUMNS, NAME, SHOW, RunDelegate, RunsModel
from llmlab_gui.widgets.labels import EmptyState, labelled
from llmlab_gui.widgets.layouts import beside, column, settling_timer, stack
from llmlab_gui.widgets.question import LineQuestion
from llmlab_gui.widgets.row_tables import KEY_ROLE, select_row, show_whole_rows, sorted_proxy
from llmlab_gui.widgets.saving import Export, export_button, open_outside

# Walking through the list by keyboard should not open every run on the way.
_SETTLE_MS = 150
_LONGEST_FILTER = 40  # characters of it that are repeated
_WIDTHS = (5, 22, 11, 9, 15, 8, 10, 8, 14, 14, 16, 14)  # of the columns, in characters


@dataclass(frozen=True)
class Ticked:
    """The runs that are overlaid, by their ids in the window, as the settings keep them."""

    runs: list[str]


@dataclass(frozen=True)
class Chosen:
    """The run of an outputs folder that was made current by hand, "" for none; as the settings keep it."""

    run: str


@dataclass(frozen=True)
class Slots:
    """Which colours the runs of an outputs folder have, by their ids in the window; as the settings keep it."""

    of: dict[str, int]


class RunsDock(LabDock):
    """Choosing a row makes that run the current one; ticks overlay others in the charts."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "runs", "Runs", parent)
        self.model = RunsModel(lab)
        self.proxy = sorted_proxy(self.model, self)
        self.proxy.setFilterKeyColumn(-1)
        self.proxy.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.deletions = RunDeletions(lab, self)
        self.strip = ProgressStrip(self.deletions, noun="the deletion")
        self.table = QTableView()
        self.table.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # names made from a date differ at their ends
        self.filter = labelled(QLineEdit(placeholderText="Filter by name, state, kind or text"), "Filter the runs")
        self.filter.setClearButtonEnabled(True)
        self._actions = self._build_actions()
        self._build_table()
        row = beside(self.filter, export_button(Export(self.export, lambda: "runs")), grows=self.filter)
        self._none = EmptyState()
        self._places = stack(self.table, self._none)
        self.set_body(column(row, (self._places, 1)))
        self.strip.lie_over(self.table)
        self.caption("All runs in the outputs folder. Ticked ones are overlaid in the charts.", "loss-curves")
        self._settle = settling_timer(self, _SETTLE_MS, self._open_chosen)
        self.filter.textChanged.connect(self._filter)
        self.model.overlay_toggled.connect(self._toggle_overlay)
        lab.runs_changed.connect(self._refresh)
        lab.current_changed.connect(self._select_current)
        lab.shown_runs_changed.connect(self.model.repaint_all)
        lab.shown_runs_changed.connect(self.keep_later)
        self._refresh()

    def remember(self, settings: WindowSettings) -> None:
        super().remember(settings)
        slots = settings.choices(f"colors/{self._outputs}", Slots)
        if slots is not None:
            self.lab.take_up_colors(slots.of)
        ticked = settings.choices("runs/ticked", Ticked)
        if ticked is not None:
            self.lab.set_shown_runs(ticked.runs)
        chosen = settings.choices(f"chosen/{self._outputs}", Chosen)
        if chosen is not None:
            self.lab.choose_again(chosen.run)

    def keep(self) -> None:
        if self._settings is not None:
            if self.lab.looked:
                self._settings.save_choices(f"chosen/{self._outputs}", Chosen(self.lab.chosen()))
                slots = {run_id: slot for run_id, slot in self.lab.colors.slots.items() if self.lab.row(run_id)}
                self._settings.save_choices(f"colors/{self._outputs}", Slots(slots))
            self._settings.save_choices("runs/ticked", Ticked(self.lab.overlaid()))

    @property
    def _outputs(self) -> str:
        return self.lab.outputs.resolve().as_posix()

    def chosen(self) -> list[RunRow]:
        """The selected runs, as the table is sorted."""
        ids = [index.data(KEY_ROLE) for index in self.table.selectionModel().selectedRows(NAME)]
        rows = (self.lab.row(run_id) for run_id in ids)
        return [row for row in rows if row is not None]

    def export(self, path: Path) -> None:
        """The table as it is shown, as CSV, in the background."""
        self.write_table(self.model, path, self.proxy)

    def rename(self, row: RunRow) -> None:
        """Asks for another name, and gives it to the run and to all that names it."""
        new = self.ask_name(row)
        if not new or new == row.run.id:
            return

        def renamed(run: RunFolder) -> None:
            self.lab.take_renamed(row.id, run)
            self.lab.said.emit(f"{row.name} is now called {new}.")

        def failed(error: LabError) -> None:
            self.lab.end_renaming(row.id)
            self.lab.error_raised.emit(error)

        # Away from the window's thread: what names it is changed under the locks of the queue and the notebook.
        self.lab.begin_renaming(row.id, f"{row.run.path.parent.name}/{new}")
        self._background.run(lambda: rename_run(row.run, new), renamed, failed)

    def ask_name(self, row: RunRow) -> str:
        """The name that was typed; "" for none."""

        def check(name: str) -> None:
            if name != row.run.id:
                require_new_name(row.run, name)

        question = LineQuestion(self, "Rename", f"New name of {row.name}:", row.run.id, check)
        agreed = question.exec() == LineQuestion.DialogCode.Accepted
        question.deleteLater()
        return question.answer if agreed else ""

    def _build_actions(self) -> dict[str, QAction]:
        made, lab = {}, self.lab
        for name, text, slot in (
            ("open", "Open", self._open_chosen),
            ("look", "Look inside", self._first(lambda row: lab.look_requested.emit(_reference(row)))),
            ("write", "Write", self._first(lambda row: lab.write_requested.emit(row.id, ""))),
            ("compare", "Compare", self._compare),
            ("overlay", "Overlay in the charts", self._toggle_chosen),
            ("pause", "Pause", self._each(lab.controller.pause)),
            ("resume", "Resume", self._first(lambda row: lab.resume_requested.emit(row.id))),
            ("stop", "Stop", self._each(lab.controller.stop)),
            ("branch", "Branch from a checkpoint…", self._first(self._branch)),
            (
                "again",
                "Set up another like it",
                self._first(lambda row: lab.set_up_again(row.info.settings, row.info.preset)),
            ),
            ("folder", "Open folder", self._first(lambda row: open_outside(row.run.path, lab.error_raised))),
            ("copy", "Copy its id", self._copy_id),
            ("rename", "Rename…", self._first(self.rename)),
            ("delete", "Delete…", lambda: self.deletions.delete(self.chosen())),
        ):
            action = QAction(text, self)
            action.triggered.connect(slot)
            made[name] = action
        made["copy"].setShortcut(QKeySequence.StandardKey.Copy)
        made["delete"].setShortcut(QKeySequence.StandardKey.Delete)
        made["rename"].setShortcut("F2")  # as in file managers
        for name in ("copy", "delete", "rename"):
            made[name].setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            self.table.addAction(made[name])
        return made

    def _build_table(self) -> None:
        table = self.table
        table.setModel(self.proxy)
        table.setAccessibleName("Runs")
        table.setSortingEnabled(True)
        table.sortByColumn(len(COLUMNS) - 1, Qt.SortOrder.DescendingOrder)
        table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        table.setAlternatingRowColors(True)
        table.setWordWrap(False)
        show_whole_rows(table, _WIDTHS)
        table.setItemDelegate(RunDelegate(table))
        table.selectionModel().currentRowChanged.connect(lambda *_: table.viewport().update())  # a frame moves
        table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        table.customContextMenuRequested.connect(self._open_menu)
        table.activated.connect(lambda _: self._open_chosen())
        table.clicked.connect(lambda index: index.column() != SHOW and self._settle.start())
        table.selectionModel().currentRowChanged.connect(self._row_changed)

    def _refresh(self) -> None:
        self.model.refresh()
        if not self.lab.looked:
            self.show_empty("Looking for runs", str(self.lab.outputs))
        elif not self.model.rows:
            hint = "Runs appear here, including those started by llmlab-run in a terminal."
            self.show_no_run(hint, "No runs yet")
        else:
            self.show_body()
        self._say_what_matches()
        current = self.lab.current()
        if current is not None and not self.table.selectionModel().hasSelection():
            self._select_current(current.id)

    def _filter(self) -> None:
        self.proxy.setFilterFixedString(self.filter.text())
        self._say_what_matches()

    def showEvent(self, event: QShowEvent) -> None:
        """Brings the current run into sight: another place of the panel has lost where the table was scrolled to."""
        super().showEvent(event)
        QTimer.singleShot(0, self, lambda: self.table.scrollTo(self.table.currentIndex()))

    def _say_what_matches(self) -> None:
        none = bool(self.model.rows) and not self.proxy.rowCount()
        if none:
            typed = self.filter.text()
            shown = typed if len(typed) <= _LONGEST_FILTER else f"{typed[: _LONGEST_FILTER - 1]}…"
            self._none.say(f"No run matches “{shown}”", "", "Clear the filter", self._clear_filter)
        self._places.setCurrentWidget(self._none if none else self.table)

    def _clear_filter(self) -> None:
        self.filter.clear()
        self.filter.setFocus(Qt.FocusReason.OtherFocusReason)

    def _row_changed(self) -> None:
        if self.table.hasFocus():  # not when the table itself moves the selection
            self._settle.start()

    def _select_current(self, run_id: str) -> None:
        if not any(row.id == run_id for row in self.chosen()):
            select_row(self.table, run_id)
        self._settle.stop()
        self.model.repaint_all()

    def _open_chosen(self) -> None:
        """The run of the selection that the keyboard is at."""
        ids = [row.id for row in self.chosen()]
        at = self.table.currentIndex().siblingAtColumn(NAME).data(KEY_ROLE)
        if ids:
            self.lab.set_current(at if at in ids else ids[0])

    def _toggle_overlay(self, run_id: str, on: bool) -> None:
        current = self.lab.current()
        if not on and current is not None and current.id == run_id:
            self.lab.said.emit(
                "The current run is always in the charts. Choose another run to release it, "
                "or go to another with Ctrl+Down and press Space to overlay that."
            )
            return
        others = [shown for shown in self._ticked() if shown != run_id]
        self.lab.set_shown_runs([*others, run_id] if on else others)

    def _ticked(self) -> list[str]:
        """The current run and those overlaid, also those that are not found here, as in another outputs folder."""
        return [*self.lab.shown_runs(), *self.lab.overlaid()]

    def _toggle_chosen(self) -> None:
        ids = [row.id for row in self.chosen()]
        shown = self._ticked()
        if all(run_id in shown for run_id in ids):
            self.lab.set_shown_runs([run_id for run_id in shown if run_id not in ids])
        else:
            self.lab.set_shown_runs([*shown, *ids])

    def _open_menu(self, point: QPoint) -> None:
        at = self.table.indexAt(point)
        if at.isValid() and not self.table.selectionModel().isSelected(at):
            self.table.selectRow(at.row())
        rows = self.chosen()
        if not rows:
            return
        one = rows[0] if len(rows) == 1 else None
        state = one.status.state if one else ""
        actions = self._actions
        for name in ("open", "branch", "again", "folder"):
            actions[name].setEnabled(one is not None)
        for name in ("look", "write"):
            actions[name].setEnabled(one is not None and one.status.step > 0)
        if one is not None and isinstance(one.info.settings, TaskSettings):  # `llmlab-run paper` sets those up
            actions["again"].setEnabled(False)
        actions["compare"].setText("Compare with its base" if one is not None else "Compare the two")
        actions["compare"].setEnabled(len(rows) == 2 if one is None else bool(one.info.settings.base))
        actions["pause"].setEnabled(state == "running")
        actions["resume"].setEnabled(one is not None and one.can_resume)
        actions["stop"].setEnabled(state in ("queued", "running", "paused"))
        actions["rename"].setEnabled(one is not None and not one.status.live)
        actions["delete"].setEnabled(not any(row.status.live for row in rows))
        shown = self.lab.shown_runs()
        all_shown = all(row.id in shown for row in rows)
        actions["overlay"].setText("Take out of the charts" if all_shown else "Overlay in the charts")
        actions["overlay"].setEnabled(one is None or one is not self.lab.current())  # which is always there
        menu = QMenu(self.table)
        for name, action in actions.items():
            if name in ("overlay", "pause", "branch", "folder", "rename"):
                menu.addSeparator()
            menu.addAction(action)
        menu.exec(self.table.viewport().mapToGlobal(point))
        menu.deleteLater()
        for action in actions.values():  # by their keys they are had without a menu: what cannot be is then said
            action.setEnabled(True)
        self.table.setFocus(Qt.FocusReason.PopupFocusReason)

    def _first(self, act: Callable[[RunRow], object]) -> Callable[[], None]:
        """Does something with the first of the selected runs, where there is one."""

        def slot() -> None:
            for row in self.chosen()[:1]:
                act(row)

        return slot

    def _each(self, act: Callable[[RunFolder], object]) -> Callable[[], None]:
        """Does something with all of them."""

        def slot() -> None:
            for row in self.chosen():
                act(row.run)

        return slot

    def _compare(self) -> None:
        """Two runs, the older one first; or one with its base."""
        rows = self.chosen()
        if len(rows) == 2:
            a, b = sorted(rows, key=lambda row: row.info.created)
            self.lab.comparison_requested.emit(_reference(a), _reference(b))
        elif rows:
            self.lab.compare_requested.emit(str(rows[0].run.path))

    def _branch(self, row: RunRow) -> None:
        self.lab.set_current(row.id)
        self.lab.dock_requested.emit("checkpoints")

    def _copy_id(self) -> None:
        QGuiApplication.clipboard().setText("\n".join(row.name for row in self.chosen()))


def _reference(row: RunRow) -> str:
    """What it has learned so far, as what opens it."""
    return f"{row.run.path}@{'live' if row.status.live else 'latest'}"
