"""Finding runs, and reading the names that people give them."""

from __future__ import annotations

import contextlib
import difflib
from dataclasses import dataclass
from pathlib import Path

from llmlab.errors import UsageError
from llmlab.runs.checkpoints import Checkpoint, select
from llmlab.runs.folder import RunFolder


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


def resolve_run(text: str, outputs: Path) -> RunReference:
    """The run that an id, a folder, or either with `@which` names. UsageError with the nearest ids otherwise."""
    name, at, which = text.rpartition("@")
    candidates = [(text, None)] + ([(name, which)] if at and name else [])
    runs = {run.id: run for run in list_runs(outputs)}
    for candidate, chosen in candidates:
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # no text that a folder could be named by
            path = Path(candidate).expanduser()
            if (path / "run.json").is_file():
                return RunReference(RunFolder(path.resolve()), chosen)
        if candidate in runs:
            return RunReference(runs[candidate], chosen)
    wanted = candidates[-1][0]
    nearest = difflib.get_close_matches(wanted, runs, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(nearest)}?" if nearest else "`llmlab-run runs` lists the runs that are here."
    raise UsageError(f"There is no run {wanted!r}.", f"Looked in {outputs} and for a folder of that name.", hint)
