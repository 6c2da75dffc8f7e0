"""Requests to a live run: one JSON file each in requests/, written atomically, removed when handled.

Whoever trains handles them in order at its step boundaries; whoever watches only drops them there.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from llmlab.core.files import read_json, write_json

RequestName = Literal["pause", "resume", "stop", "save", "sample", "inspect"]
REQUEST_NAMES: tuple[str, ...] = get_args(RequestName)


@dataclass(frozen=True)
class Request:
    """One request. options: what `sample` (prompts) and `inspect` (question, values, out) need."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


def send(folder: Path, name: RequestName, **options: Any) -> Path:
    """Drops a request into a run's requests/ folder and returns its file. OSError when that is impossible."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"
    write_json(path, {"request": name, "options": options}, durable=False)
    return path


def take(folder: Path) -> list[Request]:
    """The waiting requests, oldest first; each is removed. Damaged or unknown ones are removed and left out.

    One that cannot be removed (a folder, say) is left out: it would be answered again at every step.
    """
    try:
        waiting = sorted(path for path in folder.iterdir() if path.suffix == ".json")
    except OSError:
        return []
    requests = []
    for path in waiting:
        values = read_json(path)
        try:
            path.unlink(missing_ok=True)
        except OSError:
            continue
        if values is not None and values.get("request") in REQUEST_NAMES:
            options = values.get("options")
            requests.append(Request(values["request"], options if isinstance(options, dict) else {}))
    return requests


def clear(folder: Path) -> None:
    """Drops whatever an earlier worker left unanswered."""
    take(folder)
