"""`compare`, `evolve` and `intervene` on a run trained here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import new_run, train_here

from llmlab.cli.main import main
from llmlab.core.errors import Cancelled
from llmlab.inspection.archive import read_archive
from llmlab.store.checkpoints import list_checkpoints
from llmlab.store.run_folder import RunFolder

PROMPT, SOURCE = "the cat", "the dog"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    outputs = tmp_path_factory.mktemp("outputs")
    return train_here(new_run(outputs, 12, name="bar", model__n_layer=2, model__n_head=2))


def said(run: RunFolder, out: Path, capsys: pytest.CaptureFixture[str], command: str, *words: str) -> str:
    outputs = str(run.path.parent.parent)
    assert main([command, *words, "--outputs", outputs, "--prompt", PROMPT, "--out", str(out)]) == 0
    return capsys.readouterr().out


def answered(run: RunFolder, out: Path, capsys: pytest.CaptureFixture[str], command: str, *words: str) -> Any:
    return json.loads(said(run, out, capsys, command, *words, "--json"))


def test_compare_writes_differences_and_a_summary(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = said(run, tmp_path, capsys, "compare", "bar@5", "bar@final", "--plots")
    archive = read_archive(tmp_path / "comparison.safetensors")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {"difference/attention/0", "cosine/residual/post_ffn", "kl"} <= set(archive)
    assert (summary["model"], summary["model_b"], summary["identical"]) == ("bar@5", "bar@12", False)
    assert summary["kl"] == pytest.approx(archive["kl"].tolist())
    assert summary["largest"]["attention/1"] == pytest.approx(np.abs(archive["difference/attention/1"]).max())
    assert "bar@5 against bar@12" in printed
    assert "KL(A || B)" in printed
    assert {"kl.png", "cosine.svg", "cka.png", "attention-difference.png"} <= {path.name for path in tmp_path.iterdir()}


def test_a_model_compared_with_itself_is_said_to_be_equal(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "exactly zero" in said(run, tmp_path, capsys, "compare", "bar", "bar@final")
    assert answered(run, tmp_path, capsys, "compare", "bar", "bar", "--force")["identical"] is True


def test_saved_inspections_are_compared_without_their_models(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in ("5", "12"):
        said(run, tmp_path / step, capsys, "inspect", f"bar@{step}", "--what", "attention,residual")
    files = [str(tmp_path / step / "inspection.safetensors") for step in ("5", "12")]
    assert main(["compare", *files, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "bar@5 against bar@12" in printed
    assert "next tokens differ" not in printed
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    said(run, tmp_path / "live", capsys, "compare", "bar@5", "bar@12")
    live = json.loads((tmp_path / "live" / "summary.json").read_text())
    assert (summary["largest"], summary["cka"], summary["identical"]) == (live["largest"], live["cka"], False)
    assert main(["compare", files[0], "bar", "--out", str(tmp_path / "out")]) == 2
    assert "One is a saved inspection" in capsys.readouterr().err
    assert main(["compare", "bar", "bar", "--out", str(tmp_path / "out")]) == 2
    assert "no prompt" in capsys.readouterr().err


def test_evolve_has_a_row_for_every_checkpoint(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = said(run, tmp_path, capsys, "evolve", "bar", "--what", "heads,lens,attribution", "--plots")
    archive = read_archive(tmp_path / "evolution.safetensors")
    steps = [checkpoint.step for checkpoint in list_checkpoints(run.checkpoints)]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["steps"] == steps
    assert archive["heads/induction"].shape == (len(steps), 2, 2)
    for number in range(len(steps)):
        best = summary["heads"]["previous"][number]
        assert best["score"] == pytest.approx(archive["heads/previous"][number].max())
        assert best["score"] == pytest.approx(archive["heads/previous"][number, best["layer"], best["head"]])
    rows = [line.split()[0] for line in printed.splitlines()]
    assert [row for row in rows if row.isdigit()] == [str(step) for step in steps]
    assert {"heads-by-step.png", "lens-by-step.svg"} <= {path.name for path in tmp_path.iterdir()}


def test_a_sweep_lists_its_strongest_cells(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("bar", "--source", SOURCE, "--answer", "s", "--against", "e", "--sweep", "layer,position")
    printed = said(run, tmp_path, capsys, "intervene", *words, "--plots")
    archive = read_archive(tmp_path / "intervention.safetensors")
    summary = json.loads((tmp_path / "summary.json").read_text())
    effect = archive["sweep/effect"]
    assert effect.shape == (2, 7)
    assert (archive.metadata.kind, summary["effect"], summary["point"]) == ("sweep", "normalised", "pre_attn")
    first = summary["strongest"][0]
    assert abs(first["effect"]) == pytest.approx(np.abs(effect).max())
    assert first["effect"] == pytest.approx(effect[first["layer"], first["index"]])
    assert first["token"] == PROMPT[first["index"]]
    assert "Logit of 's' minus that of 'e' after token 6" in printed
    assert (tmp_path / "sweep.png").stat().st_size > 1000
    by_head = answered(run, tmp_path / "heads", capsys, "intervene", "bar", "--sweep", "layer,head", "--ablate", "zero")
    assert (by_head["effect"], by_head["point"], len(by_head["strongest"])) == ("change", "", 4)


def test_single_edits_show_before_and_after(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--zero", "head:1.0", "--scale", "layer:0=0.5", "--patch", "token:5", "--mean", "mlp:1@-1")
    printed = said(run, tmp_path, capsys, "intervene", "bar", *words, "--source", SOURCE, "--plots")
    archive = read_archive(tmp_path / "intervention.safetensors")
    summary = json.loads((tmp_path / "summary.json").read_text())
    changes = ["zero head:1.0", "scale:0.5 layer:0", "patch residual:0.pre_attn@5", "mean feed_forward:1@-1"]
    assert summary["changes"] == changes
    assert summary["after"] == pytest.approx(archive["target/after"][0])
    assert summary["next_before"][0]["text"] == summary["aim"]["answer"]
    assert f"Changed: {', '.join(changes)}" in printed
    assert {"kl.png", "change.svg"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("intervene", "bar"), "nothing to change"),
        (("intervene", "bar", "--zero", "head:0.0", "--sweep", "layer,head"), "two questions"),
        (("intervene", "bar", "--sweep", "layer,position"), "no source"),
        (("intervene", "bar", "--zero", "nose:1"), "names no part"),
        (("intervene", "bar", "--scale", "layer:1"), "is not an intervention"),
        (("intervene", "bar", "--zero", "head:9.0"), "no layer 9"),
        (("compare", "bar", "baz"), "baz"),
        (("compare", "bar", "bar", "--what", "nose"), "nose"),
        (("evolve", "bar@5",), "one checkpoint"),
        (("evolve", "bar", "--every", "0"), "cannot be taken"),
    ],
)  # fmt: skip
def test_wrong_words_are_refused_in_a_sentence(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], part: str
) -> None:
    outputs = str(run.path.parent.parent)
    assert main([*words, "--outputs", outputs, "--prompt", PROMPT, "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert part in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, Cancelled])
def test_an_interrupted_command_leaves_no_archive(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    from llmlab.inspection import differences

    def interrupted(*args: object) -> None:
        raise interruption

    monkeypatch.setattr(differences, "_pieces", interrupted)
    outputs = str(run.path.parent.parent)
    words = ["compare", "bar", "bar", "--outputs", outputs, "--prompt", PROMPT, "--out", str(tmp_path / "out")]
    assert main(words) == 130
    assert list((tmp_path / "out").iterdir()) == []


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("compare", "evolve", "intervene"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "examples:" in capsys.readouterr().out
