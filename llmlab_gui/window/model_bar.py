"""The toolbar with the active model: what it is, how large, and the way to another one."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QFileDialog, QMenu, QToolBar, QToolButton, QWidget

from llmlab.core.signs import count_text
from llmlab_gui.forms.model_dialog import ModelDialog
from llmlab_gui.host.findings import step_of
from llmlab_gui.host.recent import is_gone
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.widgets.icons import icon
from llmlab_gui.widgets.numbers import bytes_text
from llmlab_gui.widgets.one_line import keep_short
from llmlab_gui.widgets.theme import theme_notifier

_MOST_RECENT = 8
_LONGEST_NAME = 28
_GONE = "\nThis checkpoint was deleted. The model answers until another one is opened."


class ModelBar(QToolBar):
    """Every inspection panel is about the model that it names."""

    def __init__(self, lab: Lab, settings: WindowSettings, parent: QWidget | None = None) -> None:
        super().__init__("Model", parent)
        self.setObjectName("toolbar.model")
        self.setMovable(False)
        self.setIconSize(QSize(18, 18))
        self._lab, self._session, self._settings = lab, lab.inspection, settings
        self._session.recent = settings.recent
        self.button = QToolButton(toolButtonStyle=Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.button.setAccessibleName("Active model")
        self.menu = QMenu(self.button)
        self.menu.aboutToShow.connect(self._fill)
        self.button.setMenu(self.menu)
        self.choose_action = QAction("Choose a model…", self)
        self.choose_action.setObjectName("action.model")
        self.choose_action.setShortcut("Ctrl+M")
        self.choose_action.setToolTip("Open a model to look into (Ctrl+M)")
        self.choose_action.triggered.connect(lambda _=False: self.choose())
        self.addWidget(self.button)
        for changed in (self._session.about_changed, self._session.look.changed):
            changed.connect(self._draw)
        lab.runs_changed.connect(self._draw)  # as a checkpoint may have been deleted, or a live run learned
        self._session.recent_changed.connect(self._remember)
        self._session.choose_requested.connect(self.choose)
        theme_notifier.changed.connect(self._draw)
        self._draw()

    def choose(self) -> None:
        """Asks for a model and opens it."""
        dialog = ModelDialog(self._lab.outputs, self._session.recent, self.window())
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.chosen.connect(self._session.open)
        dialog.open()

    def open_folder(self) -> None:
        """A Hugging Face folder, an adapter, a run or a folder with a GGUF file."""
        name = QFileDialog.getExistingDirectory(self.window(), "A model's folder", str(self._lab.outputs))
        if name:
            self._session.open(name)

    def open_file(self) -> None:
        """A GGUF file."""
        name, _ = QFileDialog.getOpenFileName(self.window(), "A GGUF file", "", "GGUF (*.gguf)")
        if name:
            self._session.open(name)

    def _fill(self) -> None:
        """What can be had without a dialog: the current run, live or saved, and what was open lately."""
        menu, session = self.menu, self._session
        menu.clear()
        menu.addAction(self.choose_action)
        row = self._lab.current()
        if row is not None:
            if row.status.live:
                menu.addAction(f"{row.name}, live", partial(session.open, f"{row.run.path}@live"))
            menu.addAction(f"{row.name}, latest checkpoint", partial(session.open, f"{row.run.path}@latest"))
        menu.addAction("Open a model's folder…", self.open_folder)
        menu.addAction("Open a GGUF file…", self.open_file)
        recent = session.recent.there(self._lab.outputs)[:_MOST_RECENT]
        if recent:
            menu.addSection("Recent")
        for model in recent:
            action = menu.addAction(model.name.replace("&", "&&"), partial(session.open, model.reference))
            action.setToolTip(f"{model.reference}\n{model.detail}")
        keep_short(menu)
        menu.addSeparator()
        menu.addAction("Close the model", session.close).setEnabled(session.about is not None)

    def _draw(self) -> None:
        about = self._session.about
        self.button.setIcon(icon("model"))
        if about is None:
            self.button.setText("No model")
            self.button.setToolTip("Choose a model to look into (Ctrl+M)")
            return
        name, half = about.name, _LONGEST_NAME // 2
        if len(name) > _LONGEST_NAME:  # its end is the step
            name = f"{name[: half - 1]}…{name[-half:]}"
        gone = is_gone(about.reference, self._lab.outputs)
        name = f"{name} (deleted)" if gone else f"{name}{self._inspected_at()}"
        self.button.setText(f"{name} · {count_text(about.parameters)} · {about.kind_name} · {bytes_text(about.bytes)}")
        memory = f"\nIts process uses {bytes_text(about.memory_bytes)}." if about.memory_bytes else ""
        self.button.setToolTip(
            f"{about.reference}\n{about.family}: {about.n_layer} layers of {about.n_head} heads, d_model "
            f"{about.n_embd:,}, {about.vocab_size:,} tokens, context {about.context:,}\n{about.size_text}{memory}"
            f"{_GONE if gone else ''}"
        )

    def _inspected_at(self) -> str:
        """The step that the numbers of a live run are of, and the one that it has reached since."""
        inspection, now = self._session.look.archive, self._session.look.following.step
        if now is None or inspection is None or (step := step_of(inspection)) is None:
            return ""
        # Both at any time, or the buttons beside it would move to and fro. A status may be older than an inspection.
        return f", inspected at step {step:,}, now at {max(now, step):,}"

    def _remember(self) -> None:
        self._settings.recent = self._session.recent
