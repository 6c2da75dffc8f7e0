"""What is measured on a run's checkpoints once it has finished; kept as files, so that it is measured once."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from dataclasses import dataclass, field

from llmlab.core.errors import LabError
from llmlab.core.files import write_json
from llmlab.core.finetuning_settings import FULL, FinetuneSettings
from llmlab.core.records import read_record, to_plain
from llmlab.store.checkpoints import list_checkpoints, select
from llmlab.studies.experiments.plan import settings_of
from llmlab.studies.experiments.records import Arm, ExperimentFolder, ExperimentRecord

_KINDS = ("forgetting", "lora-rank")  # whose runs are measured
BASE = "base"  # the measurement of what all runs began from


@dataclass(frozen=True)
class Measurement:
    """Of one arm. general: [step, loss on general text]. effective_rank: mean over the adapted matrices, at the end."""

    text: str = ""  # what the general text is
    tokens: int = 0
    general: list[list[float]] = field(default_factory=list)
    effective_rank: float | None = None
    change_norm: float | None = None  # of all adapters together
    note: str = ""  # why something could not be measured


def read_measurement(folder: ExperimentFolder, name: str) -> Measurement | None:
    """The measurement of an arm or of BASE; None when there is none yet."""
    return read_record(Measurement, folder.measurements / f"{name}.json")


def awaits_measurement(folder: ExperimentFolder, record: ExperimentRecord, name: str) -> bool:
    """Whether a finished arm has yet to be measured: what its experiment asks for is not known before."""
    return record.kind in _KINDS and read_measurement(folder, name) is None


def measure_arm(folder: ExperimentFolder, record: ExperimentRecord, arm: Arm, go: Callable[[], None]) -> None:
    """Measures a finished run, unless that was done. go: called in between; raises when it is to end.

    What could not be measured is noted, and tried again the next time.
    """
    known = read_measurement(folder, arm.name)
    if record.kind not in _KINDS or (known is not None and not known.note):
        return
    try:
        if record.kind == "forgetting":
            measured = _forgotten(folder, record, arm, go)
        else:
            measured = _rank_used(folder, record, arm)
    except LabError as error:  # the run is as good as it was
        measured = Measurement(note=str(error))
    _write(folder, arm.name, measured)


def _write(folder: ExperimentFolder, name: str, measured: Measurement) -> None:
    folder.measurements.mkdir(exist_ok=True)
    write_json(folder.measurements / f"{name}.json", to_plain(dataclasses.asdict(measured)))


def _forgotten(folder: ExperimentFolder, record: ExperimentRecord, arm: Arm, go: Callable[[], None]) -> Measurement:
    from llmlab.models.open import open_model
    from llmlab.studies.experiments.general_text import general_loss, general_text  # torch: for this kind alone

    settings = settings_of(record)
    assert isinstance(settings, FinetuneSettings)
    outputs = folder.outputs
    text = general_text(settings.model.base, str(record.options.get("general", "")), outputs)
    base = read_measurement(folder, BASE)
    if base is None:
        loss = general_loss(open_model(settings.model.base, outputs).model, text)
        base = Measurement(text.name, text.tokens, [[0.0, loss]])
        _write(folder, BASE, base)
    run = folder.run_of(arm, record.track)
    rows = [list(base.general[0])]
    for checkpoint in list_checkpoints(run.checkpoints):
        go()
        opened = open_model(f"{run.full_name}@{checkpoint.step}", outputs)
        rows.append([float(checkpoint.step), general_loss(opened.model, text)])
        del opened
        gc.collect()
    return Measurement(text.name, text.tokens, rows)


def _rank_used(folder: ExperimentFolder, record: ExperimentRecord, arm: Arm) -> Measurement:
    """How many directions the adapters really use, and how large their change is."""
    from llmlab.inspection.weight_change import adapter_change, effective_rank

    settings = settings_of(record, arm)
    if isinstance(settings, FinetuneSettings) and settings.model.method == FULL:
        return Measurement()
    run = folder.run_of(arm, record.track)
    rows = adapter_change(select(run.checkpoints, "final").path)
    ranks = [effective_rank(row.singular) for row in rows if row.singular]
    norm = sum(row.norm**2 for row in rows) ** 0.5
    return Measurement(effective_rank=sum(ranks) / len(ranks) if ranks else None, change_norm=norm)
