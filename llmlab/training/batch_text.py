"""A row of what a step read, as it is kept and shown: without what reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchText:
    """A row of a batch. loss: nats per token under the last checkpoint before the step, or else the first after it;
    None where there is none."""

    text: str
    loss: float | None = None
