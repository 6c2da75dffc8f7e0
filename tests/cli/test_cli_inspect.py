"""`inspect` on a run that was just trained: its files, its words, its exit codes."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from small_runs import new_run, train_here

from llmlab.cli.inspect import _lines as inspection_lines
from llmlab.cli.main import main
from llmlab.cli.question import listed
from llmlab.inspection.answers import answer_question
from llmlab.inspection.archive import read_archive
from llmlab.inspection.summary import summarise
from llmlab.models.source import open_model

PROMPT = "the king said"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder with the finished run `bar`."""
    outputs = tmp_path_factory.mktemp("outputs")
    train_here(new_run(outputs, steps=12, name="bar"))
    return outputs


def _inspect(trained: Path, out: Path, *words: str, reference: str = "bar@final") -> int:
    return main(["inspect", reference, "--outputs", str(trained), "--prompt", PROMPT, "--out", str(out), *words])


def test_inspect_writes_an_archive_that_safetensors_reads_and_a_summary_of_it(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what = "attention,heads,residual,contributions,attribution,lens,rollout"
    assert _inspect(trained, tmp_path / "seen", "--what", what) == 0
    tensors = load_file(tmp_path / "seen" / "inspection.safetensors")
    time = len(PROMPT)  # the run reads characters
    assert tensors["attention/0"].shape[1:] == (time, time)
    assert tensors["residual/post_ffn"].shape[1] == time
    assert np.allclose(tensors["attribution/sum"], tensors["attribution/logit"], rtol=1e-4, atol=1e-4)
    assert np.allclose(tensors["attention/rollout"].sum(-1), 1, atol=1e-5)
    summary = json.loads((tmp_path / "seen" / "summary.json").read_text())
    assert summary["tokens"] == list(PROMPT)
    assert summary["tensors"] == {name: list(tensor.shape) for name, tensor in tensors.items()}
    assert summary["attribution"][-1]["value"] == pytest.approx(float(tensors["attribution/sum"][0]))
    assert summary["next"][0]["probability"] == pytest.approx(float(tensors["lens/probability"][-1, -1, 0]), rel=1e-4)
    strongest = summary["heads"]["previous"][0]
    assert strongest["score"] == pytest.approx(float(tensors["heads/previous"].max()))
    printed = capsys.readouterr().out
    assert "inspection.safetensors" in printed
    assert "Next:" in printed


def test_the_answer_and_what_it_is_held_against_stand_in_the_archive(trained: Path, tmp_path: Path) -> None:
    assert _inspect(trained, tmp_path, "--what", "attribution", "--answer", "e", "--against", "a") == 0
    about = read_archive(tmp_path / "inspection.safetensors").metadata
    assert (about.more["answer_text"], about.more["against_text"]) == ("e", "a")
    assert about.model == "bar@12"


def test_json_output_is_one_object_and_nothing_else(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _inspect(trained, tmp_path, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert Path(printed["archive"]).is_file()
    assert {"heads", "attribution", "next", "norms"} <= printed.keys()


@pytest.mark.slow
def test_plots_are_pictures_of_what_was_asked(trained: Path, tmp_path: Path) -> None:
    what = "attention,heads,contributions,attribution,lens"
    assert _inspect(trained, tmp_path, "--what", what, "--plots") == 0
    names = {path.stem for path in tmp_path.glob("*.png")}
    assert names == {"attention-0", "heads-mosaic", "heads-scores", "contributions-norms", "attribution", "lens"}
    assert names == {path.stem for path in tmp_path.glob("*.svg")}
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in tmp_path.glob("*.png"))
    assert all("<svg" in path.read_text(encoding="utf-8") for path in tmp_path.glob("*.svg"))


def test_a_run_that_does_not_train_cannot_be_asked_live(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _inspect(trained, tmp_path, reference="bar@live") == 1
    assert "does not train now" in capsys.readouterr().err


def test_equal_questions_give_equal_archives(trained: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert _inspect(trained, tmp_path / name, "--what", "attention,heads,lens") == 0
    first, second = (load_file(tmp_path / name / "inspection.safetensors") for name in ("a", "b"))
    assert all(np.array_equal(first[name], second[name], equal_nan=True) for name in first)


@pytest.mark.parametrize(
    ("words", "reference", "said"),
    [
        (("--what", "attnetion"), "bar", "attnetion"),
        ((), "nowhere", "nowhere"),
        (("--answer", "xyz"), "bar", "not one token"),
        (("--position", "50"), "bar", "no token 50"),
    ],
)
def test_wrong_use_is_one_sentence_and_code_2(
    words: tuple[str, ...], reference: str, said: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _inspect(trained, tmp_path, *words, reference=reference) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert said in printed
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_prompt_of_one_token_has_no_empty_lines_of_scores(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _inspect(trained, tmp_path, "--prompt", "t") == 0
    printed = capsys.readouterr().out
    assert "1 token: t" in printed
    assert "Strongest induction heads, as layer.head: 0." in printed
    assert "previous-token heads" not in printed


def test_of_a_long_prompt_the_terminal_shows_its_ends() -> None:
    assert listed(["a"] * 64).count("a") == 64
    shown = listed(["b", *["a"] * 5000, "c"])
    assert shown.startswith("5,002 tokens: b | a")
    assert shown.endswith("a | c")
    assert len(shown) < 300


def test_the_logit_that_is_explained_is_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _inspect(trained, tmp_path, "--what", "attribution", "--answer", "e", "--against", "a") == 0
    assert "Logit of 'e' minus that of 'a': " in capsys.readouterr().out


@pytest.mark.filterwarnings("error")
def test_evolve_of_one_token_has_no_scores_of_heads_without_a_choice(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evolve", "bar", "--outputs", str(trained), "--prompt", "t", "--out", str(tmp_path), "--plots"]
    assert main(words) == 0
    assert "1 token: t" in capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["heads"]["previous"]) == {None}
    assert None not in summary["heads"]["induction"]


def test_a_model_of_which_numbers_are_not_finite_is_told_so_and_not_a_crash(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = open_model("bar@final", trained)
    with torch.no_grad():
        next(opened.model.parameters()).fill_(torch.nan)
    path = answer_question(opened, "inspect", {"text": PROMPT}, tmp_path / "inspection.safetensors")
    summary = summarise(read_archive(path))
    assert any("finite" in note for note in summary.notes)
    values = summary.as_dict()
    assert values["attribution"][-1]["value"] is None
    json.dumps(values, allow_nan=False)


def test_what_a_killed_command_left_is_cleared_by_the_next_one(trained: Path, tmp_path: Path) -> None:
    old = [tmp_path / ".tmp-inspection.safetensors-0a1b2c3d", tmp_path / ".tmp-compare-x", tmp_path / ".tmp-mine"]
    young = tmp_path / ".tmp-inspection.safetensors-1a1b2c3d"
    old[1].mkdir()
    (old[1] / "a.safetensors").write_bytes(b"half")
    for path in (old[0], old[2], young):
        path.write_bytes(b"half")
    for path in old:
        os.utime(path, (1e9, 1e9))
    assert _inspect(trained, tmp_path) == 0
    assert {path.name for path in tmp_path.glob(".tmp-*")} == {".tmp-mine", young.name}


def test_a_run_that_trains_is_named_with_the_step_at_which_it_answered(trained: Path, tmp_path: Path) -> None:
    assert _inspect(trained, tmp_path) == 0
    summary = summarise(read_archive(tmp_path / "inspection.safetensors"))
    assert inspection_lines(summary)[0] == f"bar@12: scratch GPT, {summary.n_layer} layers"
    live = dataclasses.replace(summary, model="bar@live", step=1250)
    assert inspection_lines(live)[0] == f"bar@live, step 1,250: scratch GPT, {summary.n_layer} layers"


def test_figures_without_room_are_an_error_that_says_where_the_numbers_are(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "heads-mosaic.png").mkdir()
    assert _inspect(trained, tmp_path, "--what", "heads", "--plots", "--force") == 1
    printed = capsys.readouterr().err
    assert "The figures could not be written" in printed
    assert "inspection.safetensors" in printed


def test_an_out_that_is_a_file_is_refused_before_the_model_is_opened(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert _inspect(trained, tmp_path / "file") == 2
    assert "cannot be a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_results_are_not_written_over_others_unless_it_is_said_and_then_no_old_figure_stays_beside_them(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "seen"
    assert _inspect(trained, out, "--what", "heads,lens", "--plots") == 0
    (out / "mine.png").write_bytes(b"mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    assert _inspect(trained, out, "--what", "lens") == 2
    refused = capsys.readouterr().err
    assert f"error: {out} is not empty." in refused
    assert "--force" in refused
    assert _inspect(trained, out, "--what", "nonsense", "--force") == 2  # a slip costs nothing that was saved
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    compare = ["compare", "bar@5", "bar@final", "--outputs", str(trained), "--prompt", PROMPT, "--out", str(out)]
    assert main(compare) == 2
    assert main([*compare, "--force"]) == 0
    assert {path.name for path in out.iterdir()} == {"comparison.safetensors", "summary.json", "mine.png"}


def test_a_comparison_does_not_replace_what_it_reads(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for name in ("a", "b"):
        assert _inspect(trained, tmp_path / name, "--what", "attention") == 0
        files.append(str(tmp_path / name / "inspection.safetensors"))
    assert main(["compare", *files, "--out", str(tmp_path / "b"), "--force"]) == 2
    assert "is what is compared" in capsys.readouterr().err
    assert all(Path(file).is_file() for file in files)
