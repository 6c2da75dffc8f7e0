"""`adapter` and `export` on what was fine-tuned: their words, their JSON, and their refusals in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import new_run, train_here
from tuned_runs import SCRATCH_TARGETS, lora_run

from llmlab.cli.main import main
from llmlab.inspection.weight_change import change_of
from llmlab.models.source import open_model


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    train_here(new_run(outputs, name="small"))
    lora_run(outputs, "small@final", SCRATCH_TARGETS)
    return outputs


def said(capsys: pytest.CaptureFixture[str], outputs: Path, *words: object) -> tuple[int, str, str]:
    code = main([*map(str, words), "--outputs", str(outputs)])
    out, err = capsys.readouterr()
    return code, out, err


def test_adapter_prints_every_matrix_and_their_sum(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, outputs, "adapter", "tuned@final")
    change = change_of("tuned@final", outputs)
    lines = out.splitlines()
    assert (code, lines[0]) == (0, "tuned@100: lora on small@final")
    assert lines[1].split() == ["layer", "module", "rank", "norm", "relative", "effective", "largest"]
    assert len(lines) == 3 + len(change.modules)
    first = change.modules[0]
    assert lines[2].split()[:4] == ["0", first.part, "4", f"{first.norm:.4g}"]
    assert f"norm {change.norm:.4g}" in lines[-1]


def test_adapter_as_json_has_all_numbers(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = said(capsys, outputs, "adapter", "small@final+tuned@50", "--json")
    values, change = json.loads(out), change_of("tuned@50", outputs)
    assert values["norm"] == change.norm
    assert [row["singular"] for row in values["modules"]] == [list(row.singular) for row in change.modules]
    assert values["modules"][0]["effective_rank"] == change.modules[0].effective_rank


def test_export_writes_an_adapter_that_opens_alone(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said(capsys, outputs, "export", "tuned", "--to", "adapter", "--out", tmp_path / "out", "--json")
    assert code == 0
    assert json.loads(out) == {
        "model": "tuned@100",
        "run": "tuned",
        "checkpoint": "step-00000100",
        "to": "adapter",
        "out": str(tmp_path / "out"),
    }
    wanted = open_model("tuned@100", outputs).weights_sha256
    assert open_model(str(tmp_path / "out"), outputs).weights_sha256 == wanted


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("adapter", "small"), "small@latest was not fine-tuned"),
        (("export", "small", "--to", "adapter", "--out", "out"), "small@latest has no adapter to export"),
        (("export", "tuned", "--to", "gguf", "--out", "out"), "ends in .gguf"),
        (("export", "tuned", "--to", "gguf", "--out", "out.gguf"), "cannot be written as GGUF"),
        (("adapter", "nowhere"), "There is no model 'nowhere'"),
    ],
)
def test_refusals_are_sentences(
    outputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    refusal: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = said(capsys, outputs, *words)
    assert code in (1, 2)
    assert refusal in err
    assert not list(tmp_path.iterdir())
