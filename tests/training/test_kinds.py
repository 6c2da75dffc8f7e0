"""A kind of training is one entry and files of its own: run folders, launcher, worker and lists know no more of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from small_runs import train_here

from llmlab.cli.main import main
from llmlab.core.config import with_values
from llmlab.core.errors import LabError, UsageError
from llmlab.core.kinds import KINDS
from llmlab.core.run_settings import CheckpointSettings, RunSettings, RunWords, SampleSettings, TrainSettings
from llmlab.core.setting_info import SettingInfo, setting
from llmlab.core.settings import PretrainSettings
from llmlab.jobs.launcher import create_run, prepare_resume
from llmlab.training.kinds import TrainingKind, kind_of


@dataclass(frozen=True)
class CopyModel:
    width: int = setting(8, "Width.", low=1)


@dataclass(frozen=True)
class CopyData:
    length: int = setting(4, "Tokens that are copied.", low=1)


@dataclass(frozen=True)
class CopySettings(RunSettings):
    """A fourth kind, which the lab has never heard of."""

    track = "copying"
    noun = "a run that copies"
    trained_by = f"{__name__}:Copying"

    model: CopyModel = field(default_factory=CopyModel)
    data: CopyData = field(default_factory=CopyData)
    train: TrainSettings = field(default_factory=TrainSettings)
    samples: SampleSettings = field(default_factory=SampleSettings)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)

    @property
    def tokens_per_step(self) -> int:
        return self.data.length

    @property
    def reads(self) -> str:
        return "copies"

    @property
    def words(self) -> RunWords:
        makes = f"a copier of width {self.model.width}"
        facts = {"copies": f"{self.data.length} tokens"}
        summary = {"length": str(self.data.length)}
        return RunWords("copying", makes, f"w{self.model.width}", facts, [makes], summary)


class Copying(TrainingKind[CopySettings]):
    """How it is made: not at all, which is said."""

    def fits(self, changed: SettingInfo, settings: CopySettings) -> bool:
        return changed.section != "model"

    def seconds(self, settings: CopySettings, outputs: Path) -> float:
        return 1.0

    def make(self, place: Any, settings: CopySettings) -> Any:
        raise LabError(f"{settings.words.makes} was asked for.")


@pytest.fixture(autouse=True)
def fourth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, CopySettings.track, CopySettings)


def test_a_run_of_a_new_kind_is_made_read_and_listed(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = create_run(outputs, with_values(CopySettings(), {"data.length": 7}), name="c")
    assert run.path == outputs / "copying" / "c"
    assert run.info().settings == CopySettings(data=CopyData(7))
    assert run.info().settings_as(CopySettings).data.length == 7
    with pytest.raises(LabError, match=r"c is not a run from scratch on text\. It is a run that copies"):
        run.info().settings_as(PretrainSettings)
    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["length"] == "7"
    assert main(["show", "c"]) == 0
    assert "copies       7 tokens" in capsys.readouterr().out


def test_its_worker_makes_what_its_kind_says(outputs: Path) -> None:
    run = create_run(outputs, CopySettings(), name="c")
    assert isinstance(kind_of(run.info().settings), Copying)
    with pytest.raises(LabError, match="a copier of width 8 was asked for"):
        train_here(run)
    assert run.status().state == "failed"


def test_its_kind_says_what_a_resume_may_change(outputs: Path) -> None:
    run = create_run(outputs, CopySettings(), name="c")
    assert prepare_resume(run, {"data.length": 5})
    with pytest.raises(UsageError, match=r"model\.width cannot change"):
        prepare_resume(run, {"model.width": 16})
