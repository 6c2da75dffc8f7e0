"""The Checkpoints dock: what the current run has saved, and what can be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QItemSelectionModel, Qt, QTimer
from PySide6.QtGui import QHideEvent, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QFileDialog, QHeaderView, QLabel, QWidget

from llmlab.core.errors import LabError
from llmlab.store.checkpoints import set_pinned
from llmlab.store.events import CheckpointSaved, Event
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.train.branch_dialog import ask_branch
from llmlab_gui.train.checkpoint_rows import (
    CheckpointRow,
    delete_rows,
    keep_check,
    plan_deletion,
    read_rows,
    verify_row,
)
from llmlab_gui.train.checkpoints_table import COLUMNS, STEP, CheckpointDetails, CheckpointsModel
from llmlab_gui.train.exporter import Exporter, export_refusal
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.layouts import column, split, turn
from llmlab_gui.widgets.question import ask
from llmlab_gui.widgets.row_tables import rows_table, sorted_proxy, table_actions, tool_bar
from llmlab_gui.widgets.saving import open_outside

# A look at the folder's time stamp costs microseconds; checkpoints may also come and go without an event.
_LOOK_MS = 1500
_EXPORT_TIP = "As a Hugging Face folder"
_LENT = "checkpoints/lent"  # its name in the settings
_SIZES = [300, 150]  # pixels: the table, and the facts under it
_SHARES = (62, 38)  # per cent of the width: the table, and the facts beside it
_LOW_ROWS = 18  # in a dock of fewer, the facts would leave the table less than five


@dataclass(frozen=True)
class Lent:
    """The run that is drawn because another branches from it, by its id in the window, "" for none; as the settings
    keep it."""

    run: str


class CheckpointsDock(LabDock):
    """A table of the current run's checkpoints, and the facts of the chosen one."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "checkpoints", "Checkpoints", parent)
        self._run_id = ""
        self._stamp = 0.0
        self._newest = ""  # the name of the row that was chosen because it was the newest
        self._verified: dict[str, CheckpointRow] = {}  # by folder, in this session
        self._hashing = Background(self)  # hashing gigabytes must not hold up the list
        self.exporter = Exporter(self)
        self.model = CheckpointsModel(self)
        self._proxy = sorted_proxy(self.model, self)
        newest_first = (STEP, Qt.SortOrder.DescendingOrder)
        self.table = rows_table(self._proxy, "Checkpoints of the current run", COLUMNS, several=True, sort=newest_first)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.table.clicked.connect(self._stay)
        self.table.doubleClicked.connect(self.write)
        self.table.selectionModel().selectionChanged.connect(self._update_actions)
        self.details = CheckpointDetails()
        self.said = QLabel(wordWrap=True)
        self.said.hide()
        self._build_actions()
        self._lay_out()
        self.caption(
            "Saved states of the run: generate text with one, resume from one, or branch from one.", "checkpoints"
        )

        self._timer = QTimer(self, interval=_LOOK_MS)
        self._timer.timeout.connect(self._look)
        self.exporter.progress.connect(self.say)
        self.exporter.done.connect(self._exported)
        self.exporter.failed.connect(self._failed)
        self._lent = ""  # id of the run that is drawn because another branches from it
        lab.current_changed.connect(self._take_back)
        lab.current_changed.connect(self._change_run)
        lab.events_arrived.connect(self._take)
        lab.runs_changed.connect(self._update_empty)
        current = lab.current()
        self._change_run(current.id if current else "")

    def resizeEvent(self, event: QResizeEvent) -> None:
        """In a low dock the facts are beside the table; where the person put them once they are right."""
        super().resizeEvent(event)
        width, height = event.size().toTuple()
        if height < _LOW_ROWS * self.table.verticalHeader().defaultSectionSize():
            turn(self._halves, across=True, sizes=[width * share // 100 for share in _SHARES], shares=_SHARES)
        else:
            turn(self._halves, across=False, sizes=_SIZES, shares=(1, 0))

    @property
    def row(self) -> RunRow | None:
        """The run whose checkpoints are shown."""
        return self.lab.row(self._run_id) if self._run_id else None

    @property
    def _one(self) -> CheckpointRow | None:
        """The chosen checkpoint, if it is the only one."""
        chosen = self.selected()
        return chosen[0] if len(chosen) == 1 else None

    def selected(self) -> list[CheckpointRow]:
        """The chosen checkpoints, oldest step first."""
        rows = [self._proxy.mapToSource(index).row() for index in self.table.selectionModel().selectedRows()]
        return [self.model.rows[place] for place in sorted(rows)]

    def say(self, text: str) -> None:
        """One quiet line under the table."""
        self.said.setText(text)
        self.said.setVisible(bool(text))

    def remember(self, settings: WindowSettings) -> None:
        """The window may have been closed on a branch, and be opened on another run."""
        super().remember(settings)
        lent = settings.choices(_LENT, Lent)
        if lent is not None and lent.run in self.lab.overlaid():
            self._lent = lent.run
            self._take_back(self._run_id)

    def keep(self) -> None:
        if self._settings is not None:
            self._settings.save_choices(_LENT, Lent(self._lent))

    def shutdown(self) -> None:
        """Ends what still works for this dock."""
        self._timer.stop()
        self.exporter.shutdown()
        super().shutdown()

    def reload(self) -> None:
        """Reads the folder again, off the window's thread."""
        row, run_id = self.row, self._run_id
        if row is None:
            self._show(run_id, [])
            return
        folder = row.run.checkpoints
        self._background.run(lambda: read_rows(folder), lambda rows: self._show(run_id, rows), self._failed)

    # Actions -----------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Opens Write with the chosen checkpoint."""
        if (one := self._one) is not None and one.checkpoint is not None:
            self.lab.write_requested.emit(self._run_id, one.name)

    def pin(self) -> None:
        """Pins the chosen checkpoints, or unpins them if all are pinned."""
        chosen = [row.checkpoint for row in self.selected() if row.checkpoint is not None]
        pinned = not all(checkpoint.pinned for checkpoint in chosen)
        try:
            for checkpoint in chosen:
                set_pinned(checkpoint, pinned)
        except LabError as error:
            self._failed(error)
        self.reload()

    def delete(self) -> None:
        """Deletes the chosen checkpoints after a confirmation; says which stay, and why."""
        run, chosen = self.row, self.selected()
        if run is None or not chosen:
            return
        plan = plan_deletion(chosen, self.model.rows, run.status.live)
        if not plan.rows:
            self._failed(LabError("Nothing was deleted.", " ".join(plan.kept)))
            return
        names = ", ".join(row.name for row in plan.rows[:8]) + (" and more" if len(plan.rows) > 8 else "")
        last = " The run has no other checkpoint: it could then be neither resumed nor prompted."
        told = f"{names}.{last if len(plan.rows) == len(self.model.rows) else ''} This cannot be undone."
        what = f"Delete {len(plan.rows)} checkpoint{'s' if len(plan.rows) != 1 else ''}?"
        told = f"{told} {' '.join(plan.kept)}".strip()
        if not ask(self, "Delete", what, told, {"delete": "Delete"}, harmful="delete"):
            return
        self.say("Deleting…")
        names = f"{len(plan.rows)} checkpoints" if len(plan.rows) > 1 else plan.rows[0].name

        def deleted(_: None) -> None:
            self.say(f"Deleted {names}. {' '.join(plan.kept)}".strip())
            self.reload()

        def failed(error: LabError) -> None:
            self._failed(error)
            self.reload()

        self._background.run(lambda: delete_rows(plan.rows), deleted, failed)

    def branch(self) -> None:
        """Starts a new run from the chosen checkpoint."""
        run, one = self.row, self._one
        if run is None or one is None or one.checkpoint is None:
            return
        try:
            asked = ask_branch(self, self.lab, run, one.step)
        except LabError as error:
            self._failed(error)
            return
        if asked is not None:
            beside = [other for other in self.lab.overlaid() if other != self._lent]
            if run.id not in beside:
                self.lab.set_shown_runs([run.id, *beside])  # what the branch goes on from
                self._lent = run.id
            self.lab.controller.branch(run.run, one.checkpoint, asked.overrides, asked.name, asked.predictions)

    def fine_tune(self) -> None:
        """Sets up a fine-tuning run that begins from the chosen checkpoint."""
        run, one = self.row, self._one
        if run is not None and one is not None:
            self.lab.finetune_requested.emit({"model.base": f"{run.name}@{one.step}"})

    def export(self) -> None:
        """Asks for a folder, and exports the chosen checkpoint into it."""
        one = self._one
        if one is None:
            return
        name = QFileDialog.getExistingDirectory(self, "Export into a folder (made inside the one you choose)")
        if name:
            self.export_to(one, Path(name) / f"{Path(self._run_id).name}-{one.name}-hf")

    def export_to(self, row: CheckpointRow, folder: Path) -> None:
        """Exports a checkpoint as a Hugging Face folder."""
        run = self.row
        if run is None:
            return
        try:
            self.exporter.start(run.run.path, row.step, folder)
            self.say("Exporting…")
            self._update_actions()
        except LabError as error:
            self._failed(error)

    def verify(self) -> None:
        """Compares the hashes of the chosen checkpoints (all, when none is chosen)."""
        chosen = [row for row in self.selected() or self.model.rows if row.checkpoint is not None]
        if not chosen:
            return
        self.say("Reading every byte…")
        check = self._hashing.check
        self._hashing.run(lambda: [verify_row(row, check) for row in chosen], self._checked, self._failed)

    def open_folder(self) -> None:
        """Shows the chosen checkpoint (or all of them) in the system's file manager."""
        run, one = self.row, self._one
        if run is not None:
            open_outside(one.path if one is not None else run.run.checkpoints, self.lab.error_raised)

    # What happens ------------------------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.reload()
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._timer.stop()

    def _take_back(self, run_id: str) -> None:
        """A parent is drawn beside its branches alone, where nobody chose it."""
        row = self.lab.row(run_id)
        parent = (row.info.parent or {}).get("run") if row is not None else None
        if not self._lent or row is None or self._lent in (run_id, f"{row.info.track}/{parent}"):
            return
        lent, self._lent = self._lent, ""
        self.lab.set_shown_runs([other for other in self.lab.overlaid() if other != lent])

    def _change_run(self, run_id: str) -> None:
        self._run_id = run_id if run_id and self.lab.row(run_id) else ""
        self._stamp = 0.0
        self.say("")
        self.model.show([])
        self.reload()
        self._update_empty()

    def _take(self, run_id: str, events: Sequence[Event]) -> None:
        if run_id == self._run_id and any(isinstance(event, CheckpointSaved) for event in events):
            self.reload()

    def _look(self) -> None:
        """Reads the folder when its time stamp moved; ages grow in any case."""
        row = self.row
        if row is None:
            return
        try:
            stamp = row.run.checkpoints.stat().st_mtime
        except OSError:
            stamp = -1.0
        if stamp != self._stamp:
            self._stamp = stamp
            self.reload()
        else:
            self.model.repaint_all()

    def _show(self, run_id: str, rows: list[CheckpointRow]) -> None:
        if run_id != self._run_id:
            return
        checked = self._verified
        rows = [keep_check(row, checked.get(str(row.path))) for row in rows]
        chosen = [row.name for row in self.selected()]
        follows = not self.model.rows or chosen == [self._newest]
        self.model.show(rows)
        if follows and rows:
            self._select_newest()
        elif chosen and not self.selected():  # deleted: Qt has gone on to the row beside it, and chosen none
            self.table.selectRow(self.table.currentIndex().row())
        self._update_empty()
        self._update_actions()

    def _select_newest(self) -> None:
        """Which stays chosen until a person chooses another one."""
        self._newest = self.model.rows[-1].name
        index = self._proxy.mapFromSource(self.model.index(len(self.model.rows) - 1, 0))
        flags = QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows
        self.table.selectionModel().setCurrentIndex(index, flags)

    def _stay(self) -> None:
        """A person has chosen a row, be it the newest: it stays chosen when there is a newer one."""
        self._newest = ""

    def _checked(self, rows: list[CheckpointRow]) -> None:
        self._verified |= {str(row.path): row for row in rows}
        damaged = [row.damage for row in rows if row.damage is not None]
        count = "It is" if len(rows) == 1 else f"All {len(rows)} are"
        self.say(" ".join(damaged) if damaged else f"{count} exactly what was saved.")
        self._show(self._run_id, self.model.rows)

    def _exported(self, folder: str) -> None:
        self.say(f"Exported to {folder}. AutoModelForCausalLM and AutoTokenizer load it.")
        self._update_actions()

    def _failed(self, error: LabError) -> None:
        self.say("")
        self._update_actions()
        self.lab.error_raised.emit(error)

    # Widgets -----------------------------------------------------------------------------------------------------

    def _build_actions(self) -> None:
        words = (
            ("write", "Generate with it", "Prompt the model of this step", self.write, ""),
            ("pin", "Pin", "A pinned checkpoint is kept until you unpin it", self.pin, "P"),
            ("branch", "Branch…", "A new run that starts here", self.branch, ""),
            ("fine_tune", "Fine-tune…", "Fine-tune the model of this step", self.fine_tune, ""),
            ("export", "Export…", _EXPORT_TIP, self.export, ""),
            ("verify", "Verify", "Compare every byte with the hashes of its manifest", self.verify, ""),
            ("folder", "Open folder", "In the file manager", self.open_folder, ""),
            ("delete", "Delete…", "Remove it from the disk", self.delete, "Del"),
        )
        self.actions_by_name = table_actions(self.table, "checkpoint", words)

    def _lay_out(self) -> None:
        self._halves = split((self.table, 1), self.details, sizes=_SIZES, closes=True)
        self.set_body(column(tool_bar(self.actions_by_name), (self._halves, 1), self.said))

    def _update_actions(self) -> None:
        chosen, one = self.selected(), self._one
        readable = [row for row in chosen if row.checkpoint is not None]
        one_sound = one is not None and one.damage is None
        actions = self.actions_by_name
        for name in ("write", "branch", "fine_tune"):
            actions[name].setEnabled(one_sound)
        why = export_refusal(self.row.info.settings) if self.row is not None else ""
        actions["export"].setEnabled(one_sound and not self.exporter.busy and not why)
        actions["export"].setToolTip(f"Only the lab opens it. {why}" if why else _EXPORT_TIP)
        actions["pin"].setEnabled(bool(readable))
        pin = "Unpin" if readable and all(row.pinned for row in readable) else "Pin"
        actions["pin"].setText(pin)
        actions["pin"].setIconText(pin)
        actions["verify"].setEnabled(bool(self.model.rows))
        actions["delete"].setEnabled(bool(chosen))
        self.details.show_row(one, len(chosen))

    def _update_empty(self) -> None:
        row = self.row
        if row is None:
            self.show_no_run("Start one in Set-up, or choose one in Runs.")
        elif self.model.rows:
            self.show_body()
        elif row.saved:
            self.show_empty("The checkpoints are not read yet", "")
        elif row.status.live:
            hint = "The first is saved at the checkpoint interval, at the best evaluation, or when you press Save now."
            self.show_empty("Nothing is saved yet", hint)
        else:
            self.show_empty(
                "This run has no checkpoints", "It ended before its first checkpoint. Start it again in Set-up."
            )
