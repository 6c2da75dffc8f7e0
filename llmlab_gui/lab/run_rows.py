"""The runs in the window's lists: a row for each, how they are told apart, and which one a reference names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from llmlab.core.kinds import PRETRAINING
from llmlab.store.run_folder import RunFolder, RunInfo, RunStatus


@dataclass(frozen=True)
class RunRow:
    """A run: where it is, what was asked of it, and where it stands."""

    run: RunFolder
    info: RunInfo
    status: RunStatus
    parameters: int | None = None  # as its first worker counted them
    shares_name: bool = False  # with a run of another track

    @property
    def id(self) -> str:
        """What tells it from all others: TRACK/ID."""
        return self.run.full_name

    @property
    def name(self) -> str:
        """How people read it, and references name it: with its track only where two tracks hold that id."""
        return self.id if self.shares_name else self.run.id

    @property
    def saved(self) -> bool:
        """Whether it has a checkpoint; none is read, since panels ask often. Most trials of experiments keep none."""
        return any(self.run.checkpoints.glob("step-*"))

    @property
    def pretrained(self) -> bool:
        """Whether it was trained from scratch to its end and saved: a model to start from where none was named."""
        return self.info.track == PRETRAINING and self.status.state == "finished" and self.saved

    @property
    def trains_here(self) -> bool:
        """Whether it trains now, or starts, on this machine."""
        return self.status.state in ("queued", "running") and not self.status.elsewhere

    @property
    def can_resume(self) -> bool:
        """Whether it waits after a pause, has ended, or is on a machine that may be gone."""
        return self.status.state == "paused" or not self.status.live or self.status.elsewhere

    def model(self, *, live: bool) -> str:
        """A reference to it as it trains, else to what it saved last; "" where there is nothing yet.

        live: False for what it saved last in any case.
        """
        if live and self.status.live:
            return f"{self.run.path}@live"
        return f"{self.run.path}@latest" if self.saved else ""

    def unless_over(self, known: RunRow | None) -> RunRow:
        """This row, which may have been read before the end of its run that is known by now: then with that end."""
        if known is None or known.info.created != self.info.created or known.status.live or not self.status.live:
            return self
        began = self.status.attempt > known.status.attempt or self.status.heartbeat >= known.status.heartbeat
        return self if began else replace(self, status=known.status)


def newest_first(rows: Iterable[RunRow]) -> list[RunRow]:
    """By when they began."""
    return sorted(rows, key=lambda row: (row.info.created, row.id), reverse=True)


def told_apart(rows: Sequence[RunRow]) -> list[RunRow]:
    """The same rows, with those marked that share their name."""
    count = Counter(row.run.id for row in rows)
    return [replace(row, shares_name=count[row.run.id] > 1) for row in rows]


def called(name: str, rows: Mapping[str, RunRow]) -> RunRow | None:
    """The run that a reference names: by its id where that is enough, by TRACK/ID, or by its folder. rows: by id."""
    path = PurePath(name)
    if path.is_absolute():  # perhaps of another outputs folder
        row = rows.get("/".join(path.parts[-2:]))
        return row if row is not None and row.run.path.resolve() == Path(path).resolve() else None
    return rows.get(name) or next((row for row in rows.values() if row.name == name), None)
