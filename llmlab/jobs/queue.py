"""Runs that wait for their turn: outputs/queue.json, read and written by whoever starts the next one. No torch.

A queued run is a plan: its folder is made when it starts. Every change happens under a lock, and the next run is
taken under it as well, so two windows on one outputs folder never start the same one.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmlab.core.config import from_mapping, to_mapping
from llmlab.core.errors import LabError, UsageError, explained
from llmlab.core.files import locked, read_json, write_json
from llmlab.core.kinds import KINDS
from llmlab.core.progress import Progress, quiet
from llmlab.core.records import from_plain, require_time
from llmlab.core.run_settings import RunSettings
from llmlab.jobs.launcher import create_run, free_name, require_name
from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder

QUEUE_FORMAT = 1


@dataclass(frozen=True)
class QueuedRun:
    """A run that is to be made.

    seconds: how long it will take, as estimated. problem: why it could not be started. taken_as: the name under which
    it is being made; it stays where that was interrupted.
    """

    settings: RunSettings
    name: str | None = None
    preset: str = ""
    seconds: float | None = None
    predictions: list[dict[str, Any]] = field(default_factory=list)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    added: float = field(default_factory=time.time)  # Unix seconds
    problem: str = ""
    taken_as: str = ""

    @property
    def track(self) -> str:
        return self.settings.track


@dataclass(frozen=True)
class QueueState:
    """What waits, first comes first. paused: nothing is started until someone says so."""

    items: tuple[QueuedRun, ...] = ()
    paused: bool = False

    @property
    def next(self) -> QueuedRun | None:
        return next((item for item in self.items if not item.problem), None)

    def item(self, item_id: str) -> QueuedRun | None:
        return next((item for item in self.items if item.id == item_id), None)


class RunQueue:
    """The queue of one outputs folder. Cheap to make; reads nothing until asked."""

    def __init__(self, outputs: Path, progress: Progress = quiet) -> None:
        """progress: called while another program holds the queue."""
        self._outputs, self._progress = outputs, progress

    @property
    def path(self) -> Path:
        return self._outputs / "queue.json"

    def read(self) -> QueueState:
        """What waits. Raises LabError when the file is damaged or of a newer version of the lab."""
        values = read_json(self.path)
        if values is None:
            if self.path.exists():
                raise self._damaged("It is no JSON object.")
            return QueueState()
        version = values.get("format")
        if isinstance(version, int) and version > QUEUE_FORMAT:
            raise LabError("The queue was made by a newer version of the lab.", "", "Update the lab to use it.")
        try:
            return QueueState(tuple(_item(item) for item in values["items"]), bool(values.get("paused")))
        except (UsageError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise self._damaged(str(error)) from error

    def add(self, item: QueuedRun) -> None:
        self._change(lambda state: replace(state, items=(*state.items, item)))

    def remove(self, ids: Sequence[str]) -> None:
        self._change(lambda state: replace(state, items=tuple(item for item in state.items if item.id not in ids)))

    def move(self, item_id: str, place: int) -> None:
        """Puts a run at a place, counted from 0 without it; the others keep their order."""

        def moved(state: QueueState) -> QueueState:
            item = state.item(item_id)
            if item is None:
                return state
            others = [other for other in state.items if other.id != item_id]
            others.insert(min(max(place, 0), len(others)), item)
            return replace(state, items=tuple(others))

        self._change(moved)

    def change_each(self, change: Callable[[QueuedRun], QueuedRun]) -> None:
        self._change(lambda state: replace(state, items=tuple(map(change, state.items))))

    def set_paused(self, paused: bool) -> None:
        self._change(lambda state: replace(state, paused=paused))

    def take(self, item_id: str = "", *, watched: bool = False) -> RunFolder | None:
        """Makes the folder of the next run and takes it out; whoever calls starts its worker. None for none.

        item_id: that run, at once: also while another trains, and while the queue is paused. Otherwise there is none
        while a run of this outputs folder lives. Raises LabError when a run cannot be made; it stays, with its problem.

        The name is written down first: whoever is killed before the queue is written leaves a run that the next one
        finds, and does not make again.
        """
        with self._locked():
            state = self._without_begun(self.read())
            item = state.item(item_id) if item_id else state.next
            if item is None or (not item_id and (state.paused or self.busy())):
                return None
            try:
                run = self._made_before(item)
                if run is None:
                    name = item.name or free_name(self._outputs, item.settings, item.preset)
                    self._write(_replaced(state, item.id, taken_as=name))
                    run = create_run(
                        self._outputs,
                        item.settings,
                        name=name,
                        preset=item.preset,
                        watched=watched,
                        predictions=item.predictions,
                        queued=item.id,
                    )
            except LabError as error:
                self._write(_replaced(state, item.id, problem=str(error), taken_as=""))
                raise
            self._write(replace(state, items=tuple(other for other in state.items if other.id != item.id)))
            return run

    def busy(self) -> bool:
        """Whether a run of this outputs folder trains on this machine, waits in a pause, or is about to."""
        return any(one.live and not one.elsewhere for one in (run.status() for run in list_runs(self._outputs)))

    def _without_begun(self, state: QueueState) -> QueueState:
        """Without items whose run has begun: whoever made it was killed before the queue was written, and someone has
        started the run since."""
        begun = [item for item in state.items if (run := self._made_before(item)) and run.recorded_status().attempt]
        if begun:
            state = replace(state, items=tuple(item for item in state.items if item not in begun))
            self._write(state)
        return state

    def _made_before(self, item: QueuedRun) -> RunFolder | None:
        """The run that was made from an item by someone who was killed before it could be taken out."""
        run = RunFolder(self._outputs / item.track / item.taken_as)
        if not item.taken_as or not run.run_json.is_file():
            return None
        return run if run.info().queued == item.id else None  # or else it is another's

    def _change(self, change: Callable[[QueueState], QueueState]) -> None:
        with self._locked():
            before = self.read()
            after = change(before)
            if after != before:
                self._write(after)

    def _write(self, state: QueueState) -> None:
        values = {"format": QUEUE_FORMAT, "paused": state.paused, "items": [_plain(item) for item in state.items]}
        write_json(self.path, values)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with explained(f"The queue in {self._outputs} could not be changed."):
            self._outputs.mkdir(parents=True, exist_ok=True)
            with locked(self._outputs / ".queue.lock", "the queue", self._progress):
                yield

    def _damaged(self, why: str) -> LabError:
        return LabError("The queue cannot be read.", f"{self.path}: {why}", "Repair the file, or delete it.")


def _replaced(state: QueueState, item_id: str, **changes: Any) -> QueueState:
    return replace(state, items=tuple(replace(item, **changes) if item.id == item_id else item for item in state.items))


def _plain(item: QueuedRun) -> dict[str, Any]:
    return {**vars(item), "track": item.track, "settings": to_mapping(item.settings)}


def _item(values: dict[str, Any]) -> QueuedRun:
    settings = from_mapping(KINDS[values["track"]], values["settings"])
    item = from_plain(QueuedRun, values | {"settings": settings})
    require_time("added", item.added)
    if item.taken_as:
        require_name(item.taken_as, "a run", 100)
    if item.seconds is not None and not math.isfinite(item.seconds):
        raise ValueError(f"seconds is {item.seconds}")
    return item
