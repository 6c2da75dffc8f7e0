"""`llmlab-run mystery`, from the start to the scores; nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from llmlab.cli.main import main
from llmlab.cli.output import DONE, FAILED, WRONG_USE
from llmlab.core.mystery_settings import MysterySettings
from llmlab.mysteries.faults import fault_of, faults
from llmlab.store.run_folder import RunFolder


def test_a_mystery_goes_from_its_start_to_its_reveal(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str, code: int = DONE) -> str:
        assert main(["mystery", *words]) == code
        found = capsys.readouterr()
        return found.out + found.err

    assert "no mystery yet" in said()
    assert json.loads(said("start", "--level", "3", "--no-start", "--json")) == {"name": "mystery-1"}
    run = RunFolder(outputs / "mysteries" / "mystery-1")
    fault = fault_of(run.info().settings_as(MysterySettings).mystery.token)
    assert f"{'untied':<10}  The tied head was untied" in said("show", "mystery-1")
    assert "evidence: loss@120 falls" in said("mark", "mystery-1", "loss@120", "falls")
    assert "not answered yet" in said("reveal", "mystery-1", code=WRONG_USE)
    assert "not a cause of this mystery" in said("answer", "mystery-1", "no-mask=1", code=WRONG_USE)
    assert "a surprise of 1.00 bits" in said("answer", "mystery-1", f"{fault.name}=50%,other=50%")
    trained: list[str] = []
    with mock.patch("llmlab.cli.mystery.train", lambda run, report: trained.append(run.id)):
        page = said("reveal", "mystery-1")
    assert trained == ["mystery-1-healthy"]
    assert fault.changes in page
    for reference in filter(None, (fault.right, fault.broken)):
        assert reference in page
    assert "1 of 1 came true" in said("scores")
    scores: dict[str, Any] = json.loads(said("scores", "--json"))
    assert scores["scores"][0]["cause"] in faults()
    assert "is not a mystery" in said("show", "mystery-1-healthy", code=FAILED)
    assert "There is no level 4" in said("start", "--level", "4", code=WRONG_USE)
    assert "no action 'guess'" in said("guess", code=WRONG_USE)
