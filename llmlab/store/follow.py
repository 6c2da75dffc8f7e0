"""Following events.jsonl while it grows, and noticing when a resumed worker cut it back."""

from __future__ import annotations

from llmlab.store.events import Event, from_line
from llmlab.store.run_folder import RunFolder


class EventFollower:
    """Reads a run's events once each, in order; `poll()` returns what is new.

    A worker that resumes cuts events.jsonl back to its checkpoint and appends `started` with that step. The
    follower then goes on from the cut; a consumer drops everything later than the step of any `started` it gets.
    """

    def __init__(self, run: RunFolder, offset: int = 0) -> None:
        """offset: byte to begin at (the start of a line), for what was read by other means."""
        self._run = run
        self._offset = offset
        self._attempt = run.recorded_status().attempt

    @property
    def offset(self) -> int:
        """Bytes read so far, whole lines only."""
        return self._offset

    def poll(self, max_bytes: int = 1 << 20) -> list[Event]:
        """New whole lines, at most about `max_bytes` of them; damaged lines are passed over."""
        status = self._run.recorded_status()
        if status.attempt > self._attempt:
            self._attempt = status.attempt
            self._offset = min(self._offset, status.events_start)
        try:
            with self._run.events.open("rb") as file:
                file.seek(self._offset)
                block = file.read(max_bytes)
                end = block.rfind(b"\n") + 1
                if not end and len(block) == max_bytes:  # one line longer than the limit: take it whole
                    block += file.readline()
                    end = len(block) if block.endswith(b"\n") else 0
        except OSError:
            return []
        self._offset += end
        events = (from_line(line) for line in block[:end].splitlines())
        return [event for event in events if event is not None]
