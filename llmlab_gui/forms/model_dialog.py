"""Choosing the active model: runs and what is training, models on this machine, a name on the hub, an adapter."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QEvent, QModelIndex, QObject, QSortFilterProxyModel, Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QDialog, QDialogButtonBox, QFileDialog, QFormLayout, QLineEdit, QPushButton, QWidget

from llmlab.models.available import AvailableModel, available_models
from llmlab_gui.host.recent import Recent
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.labels import PrimaryButton, QuietLabel, labelled
from llmlab_gui.widgets.layouts import beside, column
from llmlab_gui.widgets.row_tables import KEY_ROLE, Column, Index, RowsModel, rows_table

_KINDS = {"run": "run", "live": "live run", "huggingface": "Hugging Face", "gguf": "GGUF", "adapter": "adapter"}
_HINT = (
    "Open takes a run (RUN, RUN@best, RUN@150 or RUN@live), a folder, a .gguf file, a name on the Hugging Face Hub, "
    "or BASE+ADAPTER."
)

_COLUMNS: tuple[Column[AvailableModel], ...] = (
    Column("Model", lambda model: model.name, width=36),
    Column("Kind", lambda model: _KINDS.get(model.kind, model.kind), width=14),
    Column("What it is", lambda model: model.detail),
)


class ModelsModel(RowsModel[AvailableModel]):
    """Models that can be opened."""

    columns = _COLUMNS

    def key(self, row: AvailableModel) -> tuple[str, str]:
        return row.reference, row.kind

    def tip(self, row: AvailableModel) -> str:
        return row.reference


class _Found(QSortFilterProxyModel):
    """What has the words that are looked for: a name that is just them first, then names that begin with them, then
    other names, then what is only described so."""

    def __init__(self, rows: ModelsModel) -> None:
        super().__init__(rows)
        self.setSourceModel(rows)
        self.setFilterKeyColumn(-1)
        self.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self._words = ""
        self.sort(0)

    def find(self, words: str) -> None:
        """Shows only what has these words."""
        self._words = words.casefold()
        self.setFilterFixedString(words)
        self.invalidate()  # into the order that these words make

    def lessThan(self, left: Index, right: Index) -> bool:
        return self._place(left) < self._place(right)

    def _place(self, index: Index) -> tuple[bool, bool, bool, int]:
        name = str(index.data()).casefold()
        return name != self._words, not name.startswith(self._words), self._words not in name, index.row()


class ModelDialog(QDialog):
    """`chosen(reference)` when one was; the list is read off the window's thread."""

    chosen = Signal(str)
    failed = Signal(object)  # LabError

    def __init__(self, outputs: Path, recent: Recent, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Choose a model")
        self.resize(720, 520)
        self._background = Background(self)
        self._from_list = ""  # what was chosen there last
        self.rows = ModelsModel(self)
        self._shown = _Found(self.rows)
        self.search = _line("Find a model", "Find")
        self.table = rows_table(self._shown, "Models that can be opened", _COLUMNS)
        self.table.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # an experiment's runs differ at their ends
        self.reference = _line("Model to open", "What to open")
        self.adapter = _line("Adapter's folder", "None")
        self.note = QuietLabel(_HINT)
        self.open_button = PrimaryButton("Open")
        self._lay_out()
        self._connect()
        self._recent = [AvailableModel(one.reference, one.name, "recent", one.detail) for one in recent.there(outputs)]
        self.rows.show(self._recent)
        self._background.run(
            lambda: available_models(outputs, self._background.check),
            self._take_models,
            lambda error: self.note.setText(str(error)),
        )
        self._update()

    def whole_reference(self) -> str:
        """What Open would open."""
        base, adapter = self.reference.text().strip(), self.adapter.text().strip()
        return f"{base}+{adapter}" if base and adapter else base or adapter

    def accept(self) -> None:
        reference = self.whole_reference()
        if reference:
            self.chosen.emit(reference)
            super().accept()

    def done(self, result: int) -> None:
        self._background.shutdown()
        super().done(result)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Down goes from the search into the list, to the row after the one that is chosen."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress and event.key() == Qt.Key.Key_Down:
            self.table.selectRow(min(self.table.currentIndex().row() + 1, self._shown.rowCount() - 1))
            self.table.setFocus(Qt.FocusReason.ShortcutFocusReason)
            return True
        return super().eventFilter(watched, event)

    def _lay_out(self) -> None:
        self.folder_button, self.file_button = QPushButton("Folder…"), QPushButton("GGUF file…")
        self.adapter_button = push_button("Folder…", lambda: self._choose_folder(self.adapter, "An adapter's folder"))
        form = QFormLayout()
        form.addRow("Open", beside(self.reference, self.folder_button, self.file_button, grows=self.reference))
        form.addRow("With adapter", beside(self.adapter, self.adapter_button, grows=self.adapter))
        buttons = QDialogButtonBox()
        buttons.addButton(self.open_button, QDialogButtonBox.ButtonRole.AcceptRole)
        buttons.addButton("Cancel", QDialogButtonBox.ButtonRole.RejectRole)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        column(self.search, (self.table, 1), form, self.note, buttons, into=self, margins=None)

    def _connect(self) -> None:
        self.search.textChanged.connect(self._find)
        self.search.installEventFilter(self)
        self.table.selectionModel().currentRowChanged.connect(self._row_chosen)
        self.table.doubleClicked.connect(lambda _: self.accept())
        self.reference.textChanged.connect(self._update)
        self.adapter.textChanged.connect(self._update)
        self.folder_button.clicked.connect(lambda: self._choose_folder(self.reference, "A model's folder"))
        self.file_button.clicked.connect(self._choose_file)

    def _find(self) -> None:
        """The first match is what Enter opens; nothing is, where there is none."""
        words = self.search.text()
        self._shown.find(words)
        self.table.clearSelection()
        self.table.setCurrentIndex(QModelIndex())
        if self.reference.text() == self._from_list:
            self.reference.clear()
        if words and self._shown.rowCount():
            self.table.selectRow(0)
        self.note.setText(_HINT if self._shown.rowCount() or not words else f"No model matches “{words}”. {_HINT}")

    def _take_models(self, models: list[AvailableModel]) -> None:
        nobody_chose = self.table.currentIndex().row() <= 0  # but the search, what was first so far
        self.rows.show([*self._recent, *models])
        if self.search.text() and nobody_chose:
            self._find()
        if not self.rows.rowCount():
            self.note.setText(f"There are no models yet: train a run first. {_HINT}")

    def _row_chosen(self) -> None:
        index = self.table.currentIndex()
        if index.isValid():
            self._from_list = str(index.data(KEY_ROLE)[0])
            self.reference.setText(self._from_list)

    def _choose_folder(self, line: QLineEdit, title: str) -> None:
        name = QFileDialog.getExistingDirectory(self, title, line.text())
        if name:
            line.setText(name)

    def _choose_file(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "A GGUF file", "", "GGUF (*.gguf)")
        if name:
            self.reference.setText(name)

    def _update(self) -> None:
        self.open_button.setEnabled(bool(self.whole_reference()))


def _line(name: str, hint: str) -> QLineEdit:
    return labelled(QLineEdit(placeholderText=hint, clearButtonEnabled=True), name)
