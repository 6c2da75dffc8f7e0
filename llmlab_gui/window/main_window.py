"""The window: docks around one Lab, and what they ask of each other."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from PySide6.QtCore import QSize, Qt, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QKeyEvent, QPaintEvent, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QApplication, QMainWindow, QMenu

from llmlab.core.errors import LabError
from llmlab_gui.experiments.desk import ExperimentDesk
from llmlab_gui.experiments.poller import EXPERIMENTS
from llmlab_gui.lab.dock import LabDock, is_seen
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.pages.page import FIRST_PAGE
from llmlab_gui.pages.places import LEARN, LOOK_INSIDE, PAPER, TRAIN, WORKSPACES
from llmlab_gui.paper.desk import PaperDesk
from llmlab_gui.train.run_actions import RunActions
from llmlab_gui.widgets import drops, tab_order
from llmlab_gui.widgets.background import WindowError
from llmlab_gui.widgets.icons import app_icon
from llmlab_gui.widgets.saving import open_outside
from llmlab_gui.widgets.theme import apply_theme
from llmlab_gui.window import closing
from llmlab_gui.window.closing import CloseChoice
from llmlab_gui.window.covers import Covers
from llmlab_gui.window.keyboard import Keyboard
from llmlab_gui.window.menus import Menus, TrainBar, WorkspaceBar
from llmlab_gui.window.model_bar import ModelBar
from llmlab_gui.window.notices import Notices
from llmlab_gui.window.part_styles import PartStyles
from llmlab_gui.window.setups import Setups
from llmlab_gui.window.status_bar import StatusBar
from llmlab_gui.window.uncaught import log_path
from llmlab_gui.window.workspaces import Workspaces

if TYPE_CHECKING:  # docks, which are made when the window is seen
    from llmlab_gui.paper.notes import PaperDock
    from llmlab_gui.train.log import LogDock

_FIRST_SIZE = QSize(1440, 900)
_FRAME = 40  # about what the title bar needs


class MainWindow(drops.TakesDrops, QMainWindow):
    """Owns the lab and the docks; `close()` asks what becomes of live runs, then ends every thread."""

    furnished = Signal()  # the docks are there

    def __init__(self, outputs: Path, settings: WindowSettings | None = None, *, later: bool = False) -> None:
        """later: the docks are made after the window was first painted, so that it is there at once."""
        super().__init__()
        self.settings = settings or WindowSettings()
        self._is_first = self.settings.open_on(outputs)
        self.setWindowTitle("LLM Learning Lab")
        self.setWindowIcon(app_icon())
        self.setObjectName("window")
        self.setAcceptDrops(True)
        self.setDockNestingEnabled(True)
        # First: with a new style sheet, Qt takes back the colours that widgets inside have set.
        self._styles = PartStyles(self)
        self.lab = Lab(outputs, self)
        self.experiments = ExperimentDesk(outputs, EXPERIMENTS, self)
        self.lab.add_desk(self.experiments)
        self.papers = PaperDesk(self.lab, self)
        self.lab.notebook.remember(self.settings)
        self.docks: dict[str, LabDock] = {}
        self.setups = Setups(self)
        self.run_actions = RunActions(self.lab, self.setups.train, self)
        self.covers = Covers(self)
        self.keyboard = Keyboard(self)
        self._build_toolbars()
        self.status = StatusBar(self.lab, self)
        self.setStatusBar(self.status)
        self.menus = Menus(self)
        self._may_close = False
        self._furnish_when_seen = later
        self._is_settled = False  # the docks were placed in a window of its real size
        self._is_shut_down = False
        self._connect()
        self._place_window()
        if not later:
            self.furnish()

    def furnish(self) -> None:
        """Makes the docks and puts them where they were left."""
        self._furnish_when_seen = False
        if self.docks or self._is_shut_down:
            return
        from llmlab_gui.window.all_docks import (  # half of the time that the window takes to open
            connect_docks,
            make_docks,
        )

        self.docks = make_docks(self.lab, self.experiments, self.papers, self)
        self._styles.style_all()
        self.menus.add_docks()
        self.workspaces = Workspaces(self, self.docks, self.settings)
        self.placed()
        connect_docks(self.docks, self.lab)
        self.setups.watch()
        for dock in self.docks.values():
            dock.remember(self.settings)
        self.keyboard.watch()
        if self.isVisible():
            self._settle_docks()
        self.furnished.emit()
        if not self._is_first:
            self.lab.said.emit("Another window shows this folder too: each keeps what is typed into its own forms.")

    # What the menus and the palette call -----------------------------------------------------------------------

    def show_dock(self, dock_id: str) -> None:
        """Brings a dock to the front and gives it the keyboard."""
        self.furnish()
        dock = self.docks.get(dock_id)
        if dock is None:
            return
        self.covers.wave_welcome()
        self.covers.end_tour()
        guest = dock.isHidden()  # with no place of its own in this workspace
        self.keyboard.give(dock)
        if guest:
            self.workspaces.make_room(dock)

    def use_workspace(self, name: str) -> None:
        """Arranges the docks for one kind of work, as they were left the last time."""
        self.furnish()
        self.covers.wave_welcome()
        self.covers.end_tour()
        self.keyboard.leave()
        self.workspaces.use(name)
        self.placed()

    def arrange(self, workspace: str) -> None:
        """The workspace that a page of Learn asked for. The page itself stays in front: it says what to look at."""
        self.use_workspace(workspace)
        self.show_dock("learn")

    def begin_first_hour(self) -> None:
        """The guided way through the lab, page by page."""
        self.use_workspace(LEARN)
        self.lab.concept_requested.emit(FIRST_PAGE)

    def reset_layout(self) -> None:
        """The workspace in sight, as at the first start."""
        self.furnish()
        self.covers.end_tour()
        self.keyboard.leave()
        self.workspaces.reset()
        self.placed()

    def placed(self) -> None:
        """Docks were placed: bars are shown whatever was remembered, and what lies over the docks is raised again."""
        for bar in (self.model_bar, self.train_bar):
            bar.show()
        self.workspace_bar.mark(self.workspaces.current)
        self.covers.docks_placed()
        self.keyboard.arrive()

    def use_theme(self, choice: str) -> None:
        """light, dark or system; on a busy machine that takes a second or two, in which the pointer waits."""
        self.settings.theme = choice
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        app.setOverrideCursor(Qt.CursorShape.WaitCursor)
        QTimer.singleShot(0, app, app.restoreOverrideCursor)  # when it is drawn
        apply_theme(app, choice)

    def open_path(self, path: Path) -> None:
        """A run, a checkpoint, a text or examples, by its file or folder."""
        if drops.holds_examples(path, asked_for=self.setups.shown_setup is self.setups.fine_tuning):
            self.show_dock("finetune_setup")
            self.setups.fine_tuning.take(path)
            return
        found = drops.meaning_at_once(path)
        if found is not None:
            self._open(found)
            return
        self.covers.looking.run(
            f"Looking into {path.name}", partial(drops.meaning, path), self._open, self.lab.error_raised.emit
        )

    def _open(self, found: drops.Dropped) -> None:
        """What was dropped."""
        self.covers.wave_welcome()
        if isinstance(found, drops.DroppedText):
            self.setups.scratch.set_corpus(str(found.path))
            return
        if isinstance(found, drops.DroppedModel):
            self.look_inside(found.reference)
            return
        self.lab.open_run(found.run)
        if found.checkpoint:
            self.lab.write_requested.emit(found.run.full_name, found.checkpoint)

    def look_inside(self, reference: str) -> None:
        """Opens a model, with the panels that show it."""
        if not any(is_seen(self.docks[name]) for name in ("prompt", "attention") if name in self.docks):
            self._show_in(LOOK_INSIDE, "prompt")
        self.lab.inspection.open(reference)

    def check_paper(self) -> None:
        """Where a check of a paper's claims is set up."""
        self._show_in(PAPER, "check")

    def new_paper(self) -> None:
        """Begins a paper of the reader's own."""
        self._show_in(PAPER, "paper")
        cast("PaperDock", self.docks["paper"]).begin_paper()

    def open_window_log(self) -> None:
        """The window's own log in the system's editor."""
        open_outside(log_path(), self.lab.error_raised)

    def show_log(self) -> None:
        """What the worker of the current run printed."""
        self.show_dock("log")
        cast("LogDock", self.docks["log"]).show_output()

    def _show_in(self, workspace: str, *docks: str) -> None:
        """A workspace as it was left, and in it these panels also where they were closed."""
        self.use_workspace(workspace)
        for name in docks:
            self.docks[name].show()
        self.keyboard.arrive(self.docks[docks[0]])

    def _show_paper(self, _paper: str, claim: str) -> None:
        self._show_in(PAPER, *(("claims", "evidence") if claim else ("paper",)))

    def _show_log_of(self, error: LabError) -> None:
        if isinstance(error, WindowError):
            self.open_window_log()
        else:
            self.show_log()

    def close_quietly(self) -> None:
        """Closes without a question (Ctrl-C in the terminal, the end of the session). Training goes on."""
        self._may_close = True
        self.close()

    # Events ----------------------------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self.docks and not self._is_settled:  # later ones are of a window that was minimised or hidden
            QTimer.singleShot(0, self, self._settle_docks)

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if self._furnish_when_seen:
            self._furnish_when_seen = False
            QTimer.singleShot(0, self, self.furnish)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.covers.place()

    def createPopupMenu(self) -> QMenu:
        """Of a right click on a panel's title; Qt deletes it when it closes."""
        return self.menus.panels()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """What nothing that has the keyboard took. Escape dismisses a message before it ends work that was long."""
        dock = self.keyboard.holder()
        if event.key() != Qt.Key.Key_Escape:
            super().keyPressEvent(event)
        elif self.covers.messages.isVisible():
            self.covers.messages.dismiss()
        elif dock is None or not dock.cancel_work():
            super().keyPressEvent(event)

    def focusNextPrevChild(self, forward: bool) -> bool:
        """Tab, from whatever has the keyboard in this window."""
        return tab_order.move_on(self, forward=forward)

    def take(self, path: Path) -> None:
        # Not within the drop: a slow look would hold up the program that it came from.
        QTimer.singleShot(0, self, partial(self.open_path, path))

    def closeEvent(self, event: QCloseEvent) -> None:
        rows = [] if self._may_close else closing.runs_to_ask_about(self.lab)
        plans = [] if self._may_close else closing.plans_to_ask_about(self._desks)
        waiting = len(self.lab.queue.waiting())
        choice = closing.ask(self, rows, waiting, plans) if rows or plans else CloseChoice.KEEP
        if choice is CloseChoice.KEEP:
            self._shut_down()
            event.accept()
            return
        event.ignore()
        if choice is CloseChoice.STOP:
            closing.stop(self.lab, self._desks, rows)
            ids = [row.id for row in rows] + [plan.id for plan in plans]
            closing.wait_for(self.lab, self._desks, ids, self, self.close_quietly)

    @property
    def _desks(self) -> tuple[ExperimentDesk[Any], ...]:
        """Those that look after plans of several runs."""
        return self.experiments, self.papers.checks

    def _build_toolbars(self) -> None:
        self.train_bar = TrainBar(self.run_actions, self.lab.inspection, self)
        self.palette_action = self.train_bar.palette_action
        self.workspace_bar = WorkspaceBar(self.use_workspace, self)
        # At once: the button that is marked is higher, and the row must not grow when the docks are there.
        self.workspace_bar.mark(self.settings.workspace if self.settings.workspace in WORKSPACES else TRAIN)
        self.model_bar = ModelBar(self.lab, self.settings, self)
        for bar in (self.model_bar, self.train_bar):
            self.addToolBar(bar)
            bar.toggleViewAction().setVisible(False)  # the only Cancel of what all panels wait for is there
        if self.menuBar().isNativeMenuBar():  # at the top of the screen, where it holds menus only
            self.insertToolBar(self.model_bar, self.workspace_bar)
        else:  # a row of its own would take height from the docks
            self.menuBar().setCornerWidget(self.workspace_bar)

    def _connect(self) -> None:
        lab = self.lab
        self.covers.messages.log_wanted.connect(self._show_log_of)
        lab.dock_requested.connect(self.show_dock)
        lab.setup_requested.connect(lambda _: self.show_dock("setup"))
        lab.finetune_requested.connect(lambda _: self.show_dock("finetune_setup"))
        lab.concept_requested.connect(lambda _: self.show_dock("learn"))
        lab.compare_requested.connect(lambda _: self.show_dock("compare"))
        lab.comparison_requested.connect(lambda *_: self.show_dock("compare"))
        lab.look_requested.connect(self.look_inside)
        lab.write_requested.connect(lambda *_: self.show_dock("write"))
        lab.paper_requested.connect(self._show_paper)
        lab.workspace_requested.connect(self.arrange)
        self.notices = Notices(lab, self._desks, self.settings, self)
        lab.runs_changed.connect(self._runs_changed)
        lab.current_changed.connect(self._runs_changed)
        self.covers.welcome.train_wanted.connect(
            lambda: self.run_actions.start_first(lambda: self.use_workspace(TRAIN))  # where its loss falls
        )
        self.covers.welcome.hour_wanted.connect(self.begin_first_hour)
        self.covers.welcome.setup_wanted.connect(lambda: self.show_dock("setup"))

    def _place_window(self) -> None:
        self.resize(_FIRST_SIZE)
        room = self.screen().availableSize()
        if room.width() < _FIRST_SIZE.width() or room.height() < _FIRST_SIZE.height() + _FRAME:
            self.setWindowState(Qt.WindowState.WindowMaximized)
        self.settings.restore_geometry(self)

    def _settle_docks(self) -> None:
        """The docks' shares, once more now that the window has its real size."""
        self._is_settled = True
        self.workspaces.settle()
        self.placed()

    def _runs_changed(self) -> None:
        row = self.lab.current()
        title = "LLM Learning Lab"
        if row is not None:
            status = row.status
            share = f" {100 * status.step // status.steps} %" if status.live and status.steps else ""
            title = f"{row.name}{share} – {title}"
        self.setWindowTitle(title)

    def _shut_down(self) -> None:
        """Ends every thread and process of the window. Training goes on."""
        if self._is_shut_down:
            return
        self._is_shut_down = True
        if self.docks:
            self.workspaces.keep()
            self.settings.save_geometry(self)
        for dock in self.docks.values():
            dock.shutdown()
        self.settings.leave()
        self.covers.looking.shutdown()
        self.notices.shutdown()
        self.papers.shutdown()
        self.lab.shutdown()
