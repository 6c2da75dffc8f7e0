"""`walk` on a run that was just trained: its words, its JSON, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_runs import new_run, train_here

from llmlab.cli.main import main
from llmlab.cli.walk import _value_lines
from llmlab.models.reference import parse
from llmlab.walk.adamw import training_of
from llmlab.walk.stage import Value


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder with the finished run `bar`."""
    outputs = tmp_path_factory.mktemp("outputs")
    train_here(new_run(outputs, steps=12, name="bar"))
    return outputs


def run(trained: Path, *words: str) -> int:
    return main(["walk", "bar", "--outputs", str(trained), "--prompt", "the king said", *words])


def test_walk_prints_every_stage_and_the_same_as_json(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(trained, "--temperature", "0.8", "--cache") == 0
    printed = capsys.readouterr().out
    assert run(trained, "--temperature", "0.8", "--cache", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["tokens"] == list("the king said")
    for number, stage in enumerate(value["stages"], 1):
        assert f"{number:>2}  {stage['title']}  ({stage['name']})" in printed
        assert stage["formula"] in printed
    scores = next(stage for stage in value["stages"] if stage["name"] == "mask")["values"][1]
    assert scores["shape"] == [13, 13]
    assert scores["values"][0][1] == "-inf"
    assert "llmlab/gpt/model.py:" in printed
    assert run(trained, "--stage", "softmax") == 0
    alone = capsys.readouterr().out
    assert "(softmax)" in alone
    assert "(score)" not in alone


def test_walk_appends_what_generate_writes(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--temperature", "0.9", "--top-k", "5", "--seed", "4", "--json"]
    assert (
        main(["generate", "bar", "--outputs", str(trained), "--prompt", "the king said", "--tokens", "3", *words]) == 0
    )
    written = json.loads(capsys.readouterr().out)["tokens"]
    assert run(trained, "--append", "3", *words) == 0
    assert json.loads(capsys.readouterr().out)["tokens"][-3:] == [token["text"] for token in written]


def test_walk_appends_to_one_token_before_it_takes_a_cache_and_prints_ids_whole(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["walk", "bar", "--outputs", str(trained), "--prompt", "t", "--cache", "--append", "2"]) == 0
    assert "2 rows of this head kept, 1 new" in capsys.readouterr().out
    ids = Value("ids", ("position",), np.array([40303.0, 218.0]), ("0 a", "1 b"))
    assert "0 a 40303, 1 b 218" in "".join(_value_lines(ids, whole=False))


def test_walk_goes_backwards_with_what_the_runs_optimizer_kept(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(trained, "--backwards", "--next", "to the queen") == 0
    printed = capsys.readouterr().out
    assert "Settings and means of bar at step 12." in printed
    assert "AdamW step 13 of" in printed
    assert "; the next sequence " in printed
    assert run(trained, "--backwards", "--json") == 0  # the next sequence is the run's own
    value = json.loads(capsys.readouterr().out)
    step = next(stage for stage in value["stages"] if stage["name"] == "step")
    assert step["values"][0]["labels"][-1] == "the next sequence, after"
    before, after = step["values"][0]["values"][:2]
    assert after < before


def test_walk_goes_backwards_from_a_training_sequence(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["walk", "bar", "--outputs", str(trained), "--backwards", "--sequence", "1", "--json"]
    assert main(words) == 0
    value = json.loads(capsys.readouterr().out)
    sequences = training_of(parse("bar", trained)).sequences
    assert value["token_ids"] == sequences[1]
    assert main([*words[:-2], "900"]) == 2
    assert f"There are {len(sequences)}, from 0" in capsys.readouterr().err


def test_of_a_run_that_trains_the_newest_checkpoint_is_walked(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--outputs", str(trained), "--prompt", "the king said", "--json"]
    assert main(["walk", "bar@live", *words]) == 0
    live = capsys.readouterr()
    assert "bar@live trains: this is bar@12, its newest checkpoint." in live.err
    assert main(["walk", "bar", *words]) == 0
    assert json.loads(live.out)["stages"] == json.loads(capsys.readouterr().out)["stages"]
    new_run(tmp_path, name="new")
    assert main(["walk", "new@live", "--outputs", str(tmp_path), "--prompt", "the"]) == 2
    assert "llmlab-run request new save" in capsys.readouterr().err


def test_walk_says_what_it_cannot_do(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--layer", "9"], "no head 9.0"),
        (["--stage", "scores"], "Did you mean score?"),
        (["--change", "nothing"], "is not a change"),
        (["--append", "1", "--position", "0"], "--append continues the prompt"),
        (["--position", "0", "--cache"], "KV cache"),
        (["--temperature", "-1"], "temperature"),
        (["--top-p", "7"], "top_p"),
        (["--append", "-1"], "--append"),
        (["--backwards", "--cache"], "--backwards cannot be combined"),
        (["--weight", "x[0,0]"], "Add --backwards"),
        (["--sequence", "0"], "Add --backwards"),
        (["--backwards", "--sequence", "0"], "Name one of them"),
        (["--backwards", "--weight", "x[0,0]"], "not a weight of a linear layer"),
    ):
        assert run(trained, *words) == 2
        assert said in capsys.readouterr().err
