"""Finding runs, and reading the names that people give them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmlab.core.errors import UsageError, did_you_mean
from llmlab.store.checkpoints import Checkpoint, select
from llmlab.store.run_folder import RunFolder


def list_runs(outputs: Path) -> list[RunFolder]:
    """Every run under `outputs/<track>/`, newest first by folder time; folders without run.json are left out."""
    found: list[tuple[float, RunFolder]] = []
    try:
        tracks = [path for path in outputs.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError:
        return []
    for track in tracks:
        with contextlib.suppress(OSError):  # a folder that may not be read, or went away
            for path in track.iterdir():
                run = RunFolder(path)
                if path.name.startswith("."):  # half-made
                    continue
                with contextlib.suppress(OSError):
                    found.append((run.run_json.stat().st_mtime, run))
    return [run for _, run in sorted(found, key=lambda pair: pair[0], reverse=True)]


@dataclass(frozen=True)
class RunReference:
    """`RUN` or `RUN@which`: a run, and which of its checkpoints (final, best, latest or a step)."""

    run: RunFolder
    which: str | None

    def checkpoint(self, default: str = "latest") -> Checkpoint:
        """The checkpoint named, or the `default` one. LabError when it is not there."""
        return select(self.run.checkpoints, self.which or default)


def runs_called(name: str, runs: Sequence[RunFolder]) -> list[RunFolder]:
    """Those with that id, of any track, or the one with that full name (`TRACK/ID`)."""
    return [run for run in runs if name in (run.id, run.full_name)]


def short_name(run: RunFolder, outputs: Path) -> str:
    """The shortest text that names a run and no other: its id, its full name where two tracks have that id, its folder
    where it lies elsewhere than in `outputs`."""
    if run.outputs.resolve() != outputs.resolve():
        return str(run.path)
    return run.full_name if namesakes(run) else run.id


def namesakes(run: RunFolder) -> list[RunFolder]:
    """Runs of other tracks beside it that the file system takes for one of the same id."""
    with contextlib.suppress(OSError):  # no outputs folder yet
        tracks = [path for path in run.outputs.iterdir() if path.name != run.path.parent.name]
        return [other for track in tracks if (other := RunFolder(track / run.id)).run_json.is_file()]
    return []


def resolve_run(text: str, outputs: Path) -> RunReference:
    """The run that an id, `TRACK/ID`, a folder, or any of them with `@which` names.

    UsageError when several bear that name (with their full names), or none does (with the nearest ids).
    """
    name, at, which = text.rpartition("@")
    candidates = [(text, None)] + ([(name, which)] if at and name else [])
    runs = list_runs(outputs)
    for candidate, chosen in candidates:
        found = {run.path.resolve(): run for run in (*runs_called(candidate, runs), *_in_folder(candidate))}
        if len(found) > 1:
            raise UsageError(
                f"{candidate!r} is the name of {len(found)} runs.",
                f"They are {' and '.join(run.full_name if run in runs else str(run.path) for run in found.values())}.",
                "Write the full name of the one you mean.",
            )
        for run in found.values():
            return RunReference(run, chosen)
    wanted = candidates[-1][0]
    hint = did_you_mean(wanted, [run.id for run in runs], 3, 0.4) or "`llmlab-run runs` lists the runs that are here."
    raise UsageError(f"There is no run {wanted!r}.", f"Looked in {outputs} and for a folder of that name.", hint)


def _in_folder(text: str) -> Iterator[RunFolder]:
    """The run in the folder of that name."""
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # no text that a folder could be named by
        path = Path(os.path.abspath(Path(text).expanduser()))
        if (path / "run.json").is_file():  # where it lies, not where it leads: a link is a run of its outputs folder
            yield RunFolder(path.parent.resolve() / path.name)
