"""`paper new`, `missing`, `list`, `show` and `run` of a reader's own paper."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmlab.cli.main import main


def test_a_paper_is_begun_listed_shown_and_asked_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        code = main(["paper", *words, "--outputs", str(tmp_path)])
        said = capsys.readouterr()
        return code, said.out, said.err

    assert run("new", "mine", "--title", "On Mirrors", "--link", "https://example.org/a")[0] == 0
    code, said, _ = run("missing", "mine")
    assert code == 1
    assert "control of claim-1 has no answer. Against which control?" in " ".join(said.split())
    code, said, _ = run("missing", "mine", "--json")
    value = json.loads(said)
    assert (code, value["complete"]) == (1, False)
    assert {"claim", "field", "line", "sentence"} <= set(value["missing"][0])
    listed = json.loads(run("list", "--json")[1])
    assert [own["name"] for own in listed["own"]] == ["mine"]
    assert "On Mirrors" in run("list")[1]
    assert json.loads(run("show", "mine", "--json")[1])["title"] == "On Mirrors"
    assert "no runs that test mine" in run("run", "mine")[2]
    assert "a paper of yours" in run("run", "grokking", "--name", "mine", "--plan")[2]
    code, _, told = run("missing", "gone")
    assert code == 2
    assert "Yours: mine" in told
    assert run("new", "mine")[0] == 2
