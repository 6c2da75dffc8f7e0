"""Deleting runs: the question, which says what would miss them, and the work in a thread, which can be cancelled."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtWidgets import QWidget

from llmlab.core.errors import LabError
from llmlab.core.progress import Progress
from llmlab.studies.upkeep import delete_run, what_rests_on
from llmlab_gui.host.long_work import LongWork
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.widgets.question import GONE_FOR_GOOD, ask_to_delete

# Of what else rests on runs that are to be deleted: more than these fill the question.
_MOST_RESTING = 8
_MOST_NAMES = 6  # of runs, in one sentence


class RunDeletions(LongWork):
    """One deletion after the other, over the widget that asks."""

    def __init__(self, lab: Lab, parent: QWidget) -> None:
        super().__init__(parent)
        self._lab, self._asker = lab, parent
        self._going: set[str] = set()  # ids of the runs that are asked about or being deleted

    def delete(self, rows: Sequence[RunRow]) -> None:
        """Asks, then moves runs to the system's trash (or deletes them where there is none). Live ones are refused."""
        live = [row.name for row in rows if row.status.live]
        if live:
            several = len(live) > 1
            what = f"{', '.join(live)} {'have' if several else 'has'} not ended."
            stop = f"Stop {'them' if several else 'it'} first."
            self._lab.error_raised.emit(LabError(what, "A run that is training or paused cannot be deleted.", stop))
            return
        rows = [row for row in rows if row.id not in self._going]
        if not rows:
            return

        def confirm(rests: list[str]) -> None:
            if self.confirm(rows, for_good=False, rests=rests):
                self._delete(rows, for_good=False)
            else:
                self._let_go(rows)

        def failed(error: LabError) -> None:
            self._let_go(rows)
            self._lab.error_raised.emit(error)

        self._going |= {row.id for row in rows}
        # All other runs and plans are read for that.
        self.run(
            "Looking for what refers to them", lambda _: _resting(rows), confirm, failed, lambda: self._let_go(rows)
        )

    def confirm(self, rows: Sequence[RunRow], *, for_good: bool, rests: Sequence[str] = ()) -> bool:
        """The question before runs are deleted. for_good: there is no trash that could hold them. rests: what would
        miss them, where that was not said before."""
        what = f"{len(rows)} run{'s' if len(rows) != 1 else ''}"
        more = [f"And {len(rests) - _MOST_RESTING} more."] if len(rests) > _MOST_RESTING else []
        told = "\n".join(["", *rests[:_MOST_RESTING], *more]) if rests else ""
        reason = GONE_FOR_GOOD if for_good else ""
        names = f"{_names(rows)}, with all checkpoints.{reason}{told}"
        return ask_to_delete(self._asker, what, names, for_good=for_good)

    def _delete(self, rows: Sequence[RunRow], *, for_good: bool) -> None:
        """Away from the window's thread: runs have gigabytes, and what was predicted of them is scored first."""
        gone: list[RunRow] = []

        def work(progress: Progress) -> list[RunRow]:
            kept: list[RunRow] = []
            for place, row in enumerate(rows):
                progress(f"Deleting {row.name}", place, len(rows))
                done = not row.run.path.is_dir() or delete_run(row.run, for_good=for_good, progress=progress)
                (gone if done else kept).append(row)
            return kept

        def settle() -> None:
            for row in gone:
                self._lab.forget(row.id)
            self._lab.refresh()

        def then(kept: list[RunRow]) -> None:
            settle()
            if kept and self.confirm(kept, for_good=True):
                self._let_go(gone)
                self._delete(kept, for_good=True)
            else:
                self._let_go(rows)

        def cancelled() -> None:
            self._let_go(rows)
            settle()

        def failed(error: LabError) -> None:
            cancelled()
            self._lab.error_raised.emit(error)

        self.run(f"Deleting {rows[0].name}", work, then, failed, cancelled)

    def _let_go(self, rows: Sequence[RunRow]) -> None:
        self._going -= {row.id for row in rows}


def _names(rows: Sequence[RunRow]) -> str:
    more = f" and {len(rows) - _MOST_NAMES} more" if len(rows) > _MOST_NAMES else ""
    return ", ".join(row.name for row in rows[:_MOST_NAMES]) + more


def _resting(rows: Sequence[RunRow]) -> list[str]:
    """What would miss these runs, a line each; which run is said where there are several."""
    missed: dict[str, list[RunRow]] = {}
    for row, sentences in zip(rows, what_rests_on([row.run for row in rows]), strict=True):
        for sentence in sentences:
            missed.setdefault(sentence, []).append(row)
    if len(rows) == 1:
        return list(missed)
    return [f"{_names(of)}: {sentence[:1].lower()}{sentence[1:]}" for sentence, of in missed.items()]
