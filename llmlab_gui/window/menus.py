"""The menu bar, the tool bars, and the command palette that finds all of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QSize, Qt
from PySide6.QtGui import QAction, QActionGroup, QGuiApplication, QKeySequence
from PySide6.QtWidgets import QFileDialog, QMenu, QSizePolicy, QToolBar, QWidget

from llmlab.core.kinds import fine_tunes
from llmlab_gui.host.progress_strip import ProgressStrip
from llmlab_gui.host.session import InspectionSession
from llmlab_gui.pages import places
from llmlab_gui.train.run_actions import RunActions
from llmlab_gui.widgets.icons import icon, state_icon
from llmlab_gui.widgets.layouts import beside
from llmlab_gui.widgets.one_line import keep_short
from llmlab_gui.widgets.theme import THEME_CHOICES, theme_notifier
from llmlab_gui.window.about import ShortcutsDialog, debug_information, show_about
from llmlab_gui.window.commands import THEMES, gather, search_pages
from llmlab_gui.window.palette import Command, CommandPalette

if TYPE_CHECKING:
    from llmlab_gui.window.main_window import MainWindow

_RECENT_RUNS = 12
_STRIP_WIDTH = 480  # at most
# The docks' groups in menus, by the package that has them.
_FEATURES = {
    "train": places.TRAIN,
    "inside": places.LOOK_INSIDE,
    "walk": places.WALK,
    "finetune": places.FINE_TUNE,
    "experiments": places.EXPERIMENTS,
    "paper": places.PAPER,
    "write": places.WRITE,
    "notebook": "Notebook",
    "learn": places.LEARN,
    "diagnose": places.DIAGNOSE,
    "rebuild": places.REBUILD,
    "practice": places.PRACTICE,
}
_TEXTS = "Texts (*.txt *.jsonl *.parquet);;All files (*)"


class Menus(QObject):
    """Builds the menus of a window once; the recent runs are filled in when they are looked at."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        self._actions: list[QAction] = []
        self._dock_actions: list[QAction] = []
        self._build_file()
        self._build_run()
        self._build_view()
        self._build_help()
        window.palette_action.triggered.connect(self.open_palette)

    def open_palette(self) -> None:
        """Shows the command palette."""
        palette = CommandPalette(self.commands(), self._window, partial(search_pages, self._window))
        palette.show()

    def commands(self) -> list[Command]:
        """All that can be done now, for the palette."""
        return gather(self._window, self._actions, self._dock_actions)

    def add_docks(self) -> None:
        """The docks in the View menu, once they are there."""
        window = self._window
        shown, go_to = {}, {}
        for number, (dock_id, dock) in enumerate(window.docks.items(), start=1):
            feature = _FEATURES[type(dock).__module__.split(".")[1]]
            if feature not in shown:
                shown[feature], go_to[feature] = self._panels.addMenu(feature), self._go_to.addMenu(feature)
            shown[feature].addAction(dock.toggleViewAction())
            show = partial(window.show_dock, dock_id)
            action = self._make(f"show_{dock_id}", dock.windowTitle(), show, _dock_keys(number))
            go_to[feature].addAction(action)
            self._dock_actions.append(action)

    def panels(self) -> QMenu:
        """The panels as the View menu groups them, in a menu of their own."""
        menu = QMenu(self._window)
        menu.addActions(self._panels.actions())
        return menu

    def shortcuts(self) -> list[QAction]:
        """Every action with keys."""
        window = self._window
        others = [window.palette_action, *self._actions, *window.workspace_bar.actions(), *self._dock_actions]
        return [*window.run_actions.all(), *others]

    def _build_file(self) -> None:
        menu = self._menu("&File")
        window = self._window
        self._add(menu, "new", "New run…", lambda: window.show_dock("setup"), "Ctrl+N")
        self._add(menu, "open", "Open a run's folder…", self._open_run, "Ctrl+O")
        self._add(menu, "open_text", "Train on your own text…", self._open_text)
        self.recent = menu.addMenu("Recent runs")
        self.recent.aboutToShow.connect(self._fill_recent)
        menu.addSeparator()
        menu.addAction(window.model_bar.choose_action)
        self._actions.append(window.model_bar.choose_action)
        self.recent_models = menu.addMenu("Recent models")
        self.recent_models.aboutToShow.connect(self._fill_recent_models)
        menu.addSeparator()
        self._add(menu, "quit", "Quit", window.close, "Ctrl+Q").setMenuRole(QAction.MenuRole.QuitRole)

    def _build_run(self) -> None:
        menu = self._menu("&Run")
        menu.addActions(self._window.run_actions.all())
        menu.addSeparator()
        self._add(menu, "enqueue", "Add to the queue", self._window.setups.queue, "Ctrl+Shift+T")
        self._add(menu, "queue", "Pause or resume the queue", self._window.lab.queue.toggle_paused)
        check = self._add(menu, "check", "Check a paper's claims", self._window.check_paper)
        check.setStatusTip("Its notes, its claims and the runs that test them, in the workspace Paper")
        self._add(menu, "new_paper", "New paper…", self._window.new_paper)
        self._compare = self._add(menu, "compare_base", "Compare with its base", self._compare_with_base)
        self._compare.setStatusTip("What fine-tuning changed: the run's newest checkpoint and its base on one prompt")
        self._window.lab.current_changed.connect(self._fit_to_run)
        self._fit_to_run()

    def _build_view(self) -> None:
        window = self._window
        menu = self._menu("&View")
        menu.addActions(window.workspace_bar.actions())
        self._add(menu, "reset_layout", "Reset layout", window.reset_layout)
        menu.addSeparator()
        self._panels = menu.addMenu("Panels")
        self._go_to = menu.addMenu("Go to")
        for name, text, move, keys in (
            ("next_panel", "Next panel", partial(window.keyboard.go, 1), "F6"),
            ("previous_panel", "Previous panel", partial(window.keyboard.go, -1), "Shift+F6"),
            ("next_tab", "Next tabbed panel", partial(window.keyboard.turn, 1), "Ctrl+PgDown"),
            ("previous_tab", "Previous tabbed panel", partial(window.keyboard.turn, -1), "Ctrl+PgUp"),
        ):
            self._add(menu, name, text, move, keys)
        menu.addSeparator()
        themes, group = menu.addMenu("Theme"), QActionGroup(self)
        for choice in THEME_CHOICES:
            action = themes.addAction(THEMES[choice], partial(window.use_theme, choice))
            action.setCheckable(True)
            action.setChecked(choice == window.settings.theme)
            group.addAction(action)
        notify = self._add(menu, "notify", "Notify when a long run ends", self._toggle_notify)
        notify.setStatusTip("A desktop notification, while another program is in front")
        notify.setCheckable(True)
        notify.setChecked(window.settings.notify)
        full = self._add(menu, "full_screen", "Full screen", self._toggle_full_screen, "F11")
        full.setShortcutContext(Qt.ShortcutContext.ApplicationShortcut)

    def _build_help(self) -> None:
        menu, window = self._menu("&Help"), self._window
        self._add(menu, "learn", "Learn", lambda: window.show_dock("learn"), "F1")
        self._add(menu, "first_hour", "The first hour", lambda: window.begin_first_hour())
        self._add(menu, "tour", "Take the tour", window.covers.start_tour)
        menu.addAction(window.palette_action)
        self._add(menu, "shortcuts", "Keyboard shortcuts", self._show_shortcuts, "Ctrl+/")
        menu.addSeparator()
        self._add(menu, "debug", "Copy debug information", self._copy_debug_information)
        self._add(menu, "window_log", "Open the window's log", window.open_window_log)
        menu.addSeparator()
        about = self._add(menu, "about", "About LLM Learning Lab", partial(show_about, window))
        about.setMenuRole(QAction.MenuRole.AboutRole)

    def _menu(self, title: str) -> QMenu:
        return self._window.menuBar().addMenu(title)

    def _add(self, menu: QMenu, name: str, text: str, slot: Callable[[], object], keys: str = "") -> QAction:
        action = self._make(name, text, slot, keys)
        menu.addAction(action)
        self._actions.append(action)
        return action

    def _make(self, name: str, text: str, slot: Callable[[], object], keys: str) -> QAction:
        action = QAction(text, self._window)
        action.setObjectName(f"action.{name}")
        action.triggered.connect(lambda _checked=False: slot())
        if keys:
            action.setShortcut(QKeySequence(keys))
        return action

    def _fill_recent(self) -> None:
        self.recent.clear()
        rows = self._window.lab.runs()[:_RECENT_RUNS]
        for row in rows:
            open_it = partial(self._window.lab.set_current, row.id)
            self.recent.addAction(state_icon(row.status.state), row.name, open_it)
        keep_short(self.recent)
        if not rows:
            self.recent.addAction("There are none yet").setEnabled(False)

    def _fill_recent_models(self) -> None:
        self.recent_models.clear()
        models = self._window.lab.inspection.recent.there(self._window.lab.outputs)
        for model in models:
            self.recent_models.addAction(
                model.name.replace("&", "&&"), partial(self._window.look_inside, model.reference)
            )
        keep_short(self.recent_models)
        if not models:
            self.recent_models.addAction("There are none yet").setEnabled(False)

    def _open_run(self) -> None:
        name = QFileDialog.getExistingDirectory(self._window, "A run's folder", str(self._window.lab.outputs))
        if name:
            self._window.open_path(Path(name))

    def _open_text(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self._window, "Your own text", "", _TEXTS)
        if name:
            self._window.open_path(Path(name))

    def _fit_to_run(self) -> None:
        row = self._window.lab.current()
        self._compare.setEnabled(row is not None and fine_tunes(row.info.track))

    def _compare_with_base(self) -> None:
        row = self._window.lab.current()
        if row is not None:
            self._window.lab.compare_requested.emit(str(row.run.path))

    def _copy_debug_information(self) -> None:
        """What a bug report needs, to the clipboard."""
        QGuiApplication.clipboard().setText(debug_information(self._window.lab.outputs))
        self._window.lab.said.emit("Debug information was copied.")

    def _toggle_notify(self) -> None:
        self._window.settings.notify = not self._window.settings.notify

    def _toggle_full_screen(self) -> None:
        window = self._window
        window.setWindowState(window.windowState() ^ Qt.WindowState.WindowFullScreen)

    def _show_shortcuts(self) -> None:
        dialog = ShortcutsDialog(self.shortcuts(), self._window)
        dialog.exec()
        dialog.deleteLater()


def _dock_keys(number: int) -> str:
    """Alt with a digit for the first ten docks, Ctrl and Alt for the next ten: Ctrl alone is for workspaces."""
    modifiers = ("Alt", "Ctrl+Alt")
    tens = (number - 1) // 10
    return f"{modifiers[tens]}+{number % 10}" if tens < len(modifiers) else ""


class WorkspaceBar(QToolBar):
    """The workspaces side by side, the one in sight marked."""

    def __init__(self, use: Callable[[str], object], window: QWidget) -> None:
        super().__init__("Workspaces", window)
        self.setObjectName("toolbar.workspaces")
        self.setMovable(False)
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)
        group = QActionGroup(self)
        for number, name in enumerate(places.WORKSPACES, start=1):
            action = QAction(name, window)
            action.setObjectName(f"action.workspace.{number}")
            action.setCheckable(True)
            key = f"Ctrl+{number % 10}" if number <= 10 else ""  # the keyboard has ten digits
            action.setShortcut(QKeySequence(key))
            action.setToolTip(f"Workspace {name}" + (f" ({key})" if key else ""))
            action.triggered.connect(partial(_called, use, name))
            group.addAction(action)
            self.addAction(action)

    def mark(self, name: str) -> None:
        """Shows which workspace is in sight."""
        self.actions()[places.WORKSPACES.index(name)].setChecked(True)


def _called(use: Callable[[str], object], name: str, _checked: bool = False) -> None:
    use(name)


class TrainBar(QToolBar):
    """What can be done with the current run; at the right, what the model's process does, and the way to the rest."""

    def __init__(self, actions: RunActions, session: InspectionSession, window: QWidget) -> None:
        super().__init__("Training", window)
        self.setObjectName("toolbar.train")
        self.setMovable(False)
        self.setIconSize(QSize(18, 18))
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.addActions(actions.all())
        self.strip = ProgressStrip(
            session, noun="opening or reading", words=lambda what: what if session.reading else ""
        )
        self.strip.setMaximumWidth(_STRIP_WIDTH)
        if (layout := self.strip.layout()) is not None:
            layout.setContentsMargins(6, 0, 6, 0)  # no higher than the buttons: the docks below stay where they are
        spacer = QWidget()
        spacer.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        beside(0, (self.strip, 1), into=spacer)
        self.addWidget(spacer)
        self.palette_action = QAction(icon("search"), "Find a command", window)
        self.palette_action.setObjectName("action.palette")
        self.palette_action.setShortcuts([QKeySequence("Ctrl+K"), QKeySequence("Ctrl+Shift+P")])
        self.palette_action.setToolTip("Find a command, run, panel or page (Ctrl+K)")
        self.addAction(self.palette_action)
        theme_notifier.changed.connect(self._restyle)

    def _restyle(self) -> None:
        self.palette_action.setIcon(icon("search"))
