"""`llmlab-run finetune`: a real worker on a tiny base, and what is refused before anything is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import new_run, train_here
from tuned_runs import LLAMA_TARGETS, copy_adapter, llama_folder, lora_run

from llmlab.cli.main import main
from llmlab.cli.output import DONE, FAILED, WRONG_USE

QUICK = ["--steps", "3", "--set", "data.scored=2", "--set", "data.batch_size=2", "--set", "train.eval_sequences=2"]
QUICK += ["--set", "train.threads=1", "--set", "samples.tokens=3", "--set", "lora.rank=2"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a base of the lab's own, of GPT-2's vocabulary."""
    folder = tmp_path_factory.mktemp("outputs")
    train_here(new_run(folder, 2, "base", data__tokenizer="gpt2", model__block_size=64))
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that hold no examples, each in its own way."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "empty.jsonl").write_text("")
    (folder / "columns.jsonl").write_text('{"question": "a", "reply": "b"}\n')
    (folder / "answerless.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}]}\n' * 3)
    return folder


def test_a_run_is_made_trained_and_shown(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = ["--outputs", str(outputs)]
    assert main(["finetune", "--model", "base@final", *QUICK, "--name", "tuned", "--json", *here]) == DONE
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events if event["event"] in ("started", "scored", "finished")] == [
        "started",
        "scored",
        "scored",
        "finished",
    ]
    assert main(["show", "tuned", *here]) == DONE
    shown = capsys.readouterr().out
    assert "base@2, lora r2" in shown
    assert main(["runs", "--json", *here]) == DONE
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["tuned"]["track"], rows["tuned"]["method"], rows["tuned"]["source"]) == ("finetuning", "lora", "tasks")
    assert main(["resume", "tuned", "--steps", "5", *here]) == DONE
    assert "Finished at step 5" in capsys.readouterr().out
    assert main(["finetune", "--from", "tuned@5", "--steps", "6", "--name", "branch", *here]) == DONE
    assert "Finished at step 6" in capsys.readouterr().out


def test_lines_of_no_use_are_named_before_the_first_step(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "mixed.jsonl"
    good = [f'{{"instruction": "Repeat: {word}", "output": "{word}"}}' for word in ("sea", "sky", "sun")]
    source.write_text("\n".join([good[0], "{broken", *good[1:], '{"foo": 1}']) + "\n")
    words = ["--model", "base@final", "--data", str(source), *QUICK, "--name", "mixed", "--outputs", str(outputs)]
    assert main(["finetune", *words, "--json"]) == DONE
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (warned,) = [event for event in events if event["event"] == "warned"]
    assert "2 of 5 examples" in warned["message"]
    assert "Number 2: It is not JSON" in warned["message"]
    assert warned["step"] == 0


def refused(words: list[str], outputs: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence of a command that made nothing."""
    capsys.readouterr()  # what libraries said while files were made
    before = sorted(path.name for path in (outputs / "finetuning").glob("*"))
    assert main(["finetune", *words, "--outputs", str(outputs)]) in (WRONG_USE, FAILED)
    assert sorted(path.name for path in (outputs / "finetuning").glob("*")) == before
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "No base was named"),
        (["--model", "nobody"], "There is no model 'nobody'"),
        (["--model", "base@final", "--data", "gone.jsonl"], "There are no examples 'gone.jsonl'"),
        (["--model", "base@final", "--set", "lora.rank=17"], "lora.rank=17 is more than the model has room for"),
        (["--model", "base@final", "--method", "qlorra"], "Did you mean 'qlora'?"),
        (["--model", "base@final", "--preset", "smollm"], "Did you mean smollm2-135m?"),
        (["--model", "base@final", "--set", "model.backend=unsloth"], "Unsloth cannot be used here"),
        (["--from", "base@2"], "base is not a fine-tuning run"),
        (["--model", "base@final", "--set", "train.muon_heads=true"], "It is a setting of a run from scratch on text."),
    ],
)
def test_what_cannot_work_is_refused_before_a_run_is_made(
    words: list[str], said: str, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(words, outputs, capsys)


@pytest.mark.parametrize("name", ["empty", "columns", "answerless"])
def test_examples_of_no_use_are_refused_before_a_run_is_made(
    name: str, outputs: Path, broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{name}.jsonl" in refused(["--model", "base@final", "--data", f"{broken}/{name}.jsonl"], outputs, capsys)


def test_a_folder_without_weights_and_an_adapter_of_another_base_are_refused(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = llama_folder(tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    assert "There is no model.safetensors" in refused(["--model", str(bare)], outputs, capsys)
    mute = llama_folder(tmp_path / "mute")
    for path in mute.glob("tokenizer*"):
        path.unlink()
    assert "came without a tokenizer" in refused(["--model", str(mute)], outputs, capsys)
    base = llama_folder(tmp_path / "one")
    other = llama_folder(tmp_path / "other", hidden_size=64)
    run = lora_run(outputs, str(base), LLAMA_TARGETS, "of-one")
    adapter = copy_adapter(run.checkpoints / "step-00000100", tmp_path / "adapter")
    assert main(["generate", f"{other}+{adapter}", "--prompt", "the", "--outputs", str(outputs)]) == FAILED
    assert "was not made for other" in capsys.readouterr().err
