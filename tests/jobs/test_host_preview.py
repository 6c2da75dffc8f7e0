"""The model host shows examples as a model reads them, and keeps the open model while it does."""

from __future__ import annotations

import json
from pathlib import Path

import tiny_models
from test_host import Conversation

from llmlab.core.finetuning_settings import ExampleSettings
from llmlab.core.progress import quiet
from llmlab.core.records import from_plain
from llmlab.data.example_preview import Preview
from llmlab.training.finetuning.preview import Previewer


def test_a_preview_is_the_one_that_is_had_without_the_host(tmp_path: Path) -> None:
    folder = tiny_models.save(tiny_models.llama(max_position_embeddings=128), tmp_path / "tiny")
    source = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"the king {number}", "completion": "sing"} for number in range(5)]
    source.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": 1}]))
    host = Conversation(LLMLAB_OUTPUTS=str(tmp_path))
    settings = {"source": str(source), "max_length": 100, "val_fraction": 0.2}
    question = {"do": "preview", "model": str(folder), "settings": settings, "seed": 3}
    try:
        host.ask(id=1, do="open", model=str(folder))
        said = host.ask(id=2, **question, place=2)
        assert said[-1]["event"] == "previewed"
        expected = Previewer(tmp_path).preview(str(folder), ExampleSettings(**settings), 3, 2, quiet)
        assert from_plain(Preview, said[-1]["preview"]) == expected
        assert expected.bad == ((6, "It has no answer: no completion or response."),)
        said = host.ask(id=3, **question | {"settings": settings | {"source": str(tmp_path / "none.csv")}}, place=0)
        assert said[-1]["event"] == "error"
        assert "It is neither a file here" in said[-1]["why"]
        said = host.ask(id=4, **question | {"settings": settings | {"max_length": -1}}, place=0)
        assert "data.max_length" in said[-1]["what"]
        again = host.ask(id=5, do="tokenize", model=str(folder), text="the king", beginning=False)
        assert [answer["event"] for answer in again] == ["tokens"]  # the model was not closed
    finally:
        host.process.kill()
        host.process.wait()
