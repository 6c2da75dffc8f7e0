"""A fine-tuning run on the disk for the window's tests: settings, status and one checkpoint; no weights, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from llmlab.core.finetuning_settings import BaseSettings, FinetuneSettings
from llmlab.core.kinds import FINETUNING
from llmlab.store.checkpoints import commit
from llmlab.store.events import Event
from llmlab.store.run_folder import RunFolder, RunInfo, RunStatus


@dataclass
class TunedRun:
    """As much of a `fakes.FakeRun` as a FakeLab needs."""

    run: RunFolder
    written: list[Event] = field(default_factory=list)


def tuned_run(outputs: Path, base: str = "small@final", name: str = "mine") -> TunedRun:
    """Ended, with a checkpoint at step 100; a run `small` with one is beside it."""
    small, mine = RunFolder(outputs / "pretraining" / "small"), RunFolder(outputs / FINETUNING / name)
    settings = FinetuneSettings(model=BaseSettings(base=base))
    for run, track, values in ((small, "pretraining", {}), (mine, FINETUNING, {"settings": settings})):
        if run.path.exists():
            continue
        run.checkpoints.mkdir(parents=True)
        if values:
            run.write_info(RunInfo(name, track, 1.75e9, **values))
        else:
            run.run_json.write_text("{}")
        run.write_status(RunStatus(state="finished", step=100, steps=100))
        commit(run.checkpoints, 100, _files, labels=["final"], val_loss=2.0, about={"run": run.id})
    return TunedRun(mine)


def _files(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "training_state.pt").write_bytes(b"state")
