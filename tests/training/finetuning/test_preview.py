"""Previews: their numbers add up, each token says what becomes of it, and the terminal prints all of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import transformers
from fakes import CancelAfter
from small_runs import new_run, train_here

from llmlab.cli.examples import _example
from llmlab.cli.main import main
from llmlab.core.errors import Cancelled, UsageError
from llmlab.core.finetuning_settings import ExampleSettings
from llmlab.core.progress import quiet
from llmlab.core.records import from_plain
from llmlab.data.example_preview import (
    HELD_OUT,
    IN_LOSS,
    LEFT_OUT,
    MASKED,
    TRAIN,
    TRUNCATED,
    Preview,
    PreviewExample,
    PreviewToken,
)
from llmlab.data.finetuning_data import load_finetuning_data
from llmlab.models.reference import parse
from llmlab.models.source import open_model, source_of
from llmlab.training.finetuning.preview import Previewer

LINES = [
    {"prompt": "the king", "completion": "sing"},
    "this is no JSON",
    {"prompt": "the", "completion": "the king" + " sings" * 20},
    {"prompt": "the king " * 30, "completion": "no"},
    {"prompt": "ring", "completion": "thing"},
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run `bar` with the smallest vocabulary and a context of 64."""
    root = tmp_path_factory.mktemp("previews")
    bpe = {"data__tokenizer": "bpe", "data__bpe_vocab_size": 300, "model__block_size": 64}
    train_here(new_run(root / "outputs", 2, "bar", **bpe))
    return root / "outputs"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in LINES))
    return path


def previewed(outputs: Path, source: Path | str, place: int = 0, **changes: Any) -> Preview:
    settings = ExampleSettings(source=str(source), **changes)
    return Previewer(outputs).preview("bar", settings, 1, place, quiet)


def all_of(outputs: Path, source: Path, **changes: Any) -> Iterator[Preview]:
    """The preview with each example in turn."""
    for place in range(previewed(outputs, source, **changes).examples):
        yield previewed(outputs, source, place, **changes)


def test_the_numbers_are_the_sums_over_the_examples(outputs: Path, source: Path) -> None:
    states: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    for preview in all_of(outputs, source, max_length=40):
        example = preview.example
        assert example is not None
        parts[example.part] += 1
        assert len(example.tokens) == example.length
        assert preview.lengths[example.length // preview.bin_width] > 0
        if example.part != LEFT_OUT:
            states.update(token.state for token in example.tokens)
    assert (parts[TRAIN], parts[HELD_OUT], parts[LEFT_OUT]) == (preview.train, preview.held_out, 1)
    assert (states[IN_LOSS], states[IN_LOSS] + states[MASKED]) == (preview.trained, preview.tokens)
    assert states[TRUNCATED] > 0
    assert preview.cut == 1
    assert preview.longer == 2
    assert preview.left_out == parts[LEFT_OUT]
    assert sum(preview.lengths) == preview.examples == 4
    assert [number for number, _ in preview.bad] == [2, 4]
    assert preview.bad_total == 2


def test_tokens_are_those_that_training_reads(outputs: Path, source: Path) -> None:
    settings = ExampleSettings(source=str(source), max_length=40)
    base = source_of(parse("bar", outputs))
    data = load_finetuning_data(settings, 1, base.tokenizer(), base.context(), quiet)
    by_number = {example.number: encoded for example, encoded in zip(data.examples, data.train, strict=True)}
    by_number |= {e.number: encoded for e, encoded in zip(data.held_out_examples, data.held_out, strict=True)}
    held_out = {example.number for example in data.held_out_examples}
    for preview in all_of(outputs, source, max_length=40):
        example = preview.example
        assert example is not None
        if example.part == LEFT_OUT:
            assert example.number not in by_number
            continue
        read = [token for token in example.tokens if token.state != TRUNCATED]
        assert [token.id for token in read] == by_number[example.number].ids
        assert [token.state == IN_LOSS for token in read] == by_number[example.number].trained
        assert (example.part == HELD_OUT) == (example.number in held_out)
    assert preview.filling == data.padding


def test_json_and_back_is_the_same(outputs: Path, source: Path) -> None:
    for preview in (previewed(outputs, source, max_length=40), previewed(outputs, source, max_length=8)):
        assert from_plain(Preview, json.loads(json.dumps(asdict(preview)))) == preview


def test_json_has_the_names_of_version_0_4(outputs: Path, source: Path) -> None:
    sizes = "examples train held_out cut longer tokens trained filling max_length context shortest median longest"
    assert set(asdict(previewed(outputs, source))) == {
        *("source", "origin", "template", *sizes.split()),
        *("bin_width", "lengths", "bad", "bad_total", "trouble", "example"),
    }


def test_what_leaves_nothing_to_train_on_is_shown_with_the_reason(outputs: Path, source: Path) -> None:
    preview = previewed(outputs, source, max_length=8)
    assert preview.trouble is not None
    assert "too long" in preview.trouble[0]
    assert preview.example is not None
    assert preview.example.part == LEFT_OUT
    assert (preview.train, preview.held_out) == (0, 0)
    assert sum(preview.lengths) == 4


def test_the_context_of_a_model_is_known_without_its_weights(outputs: Path, tmp_path: Path) -> None:
    folder = tiny_models.save(tiny_models.llama(), tmp_path / "tiny")
    file = tiny_models.save_gguf(tiny_models.llama(), tmp_path / "tiny.gguf")
    adapter = tiny_models.save_adapter(folder, tmp_path / "adapter")
    for name in ("bar", str(folder), str(file), f"{folder}+{adapter}"):
        assert source_of(parse(name, outputs)).context() == open_model(name, outputs).anatomy.context == 64
    bloom = tmp_path / "bloom"  # its settings name no length (ALiBi)
    transformers.BloomConfig(vocab_size=99, hidden_size=32, n_layer=1, n_head=4).save_pretrained(bloom)
    assert source_of(parse(str(bloom), outputs)).context() == 2048


def test_a_second_look_reads_the_file_again_only_when_it_changed(outputs: Path, source: Path) -> None:
    previewer = Previewer(outputs)
    settings = ExampleSettings(source=str(source))
    told: list[str] = []

    def look(place: int) -> Preview:
        told.clear()
        return previewer.preview("bar", settings, 1, place, lambda what, done, total: told.append(what))

    look(0)
    assert "Reading examples" in told
    assert look(2).example is not None
    assert told == []
    source.write_text(source.read_text() + json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    assert look(0).examples == 5
    assert "Reading the tokenizer" not in told


def test_a_preview_ends_when_it_is_no_longer_wanted(outputs: Path) -> None:
    with pytest.raises(Cancelled):
        Previewer(outputs).preview("bar", ExampleSettings(), 1, 0, CancelAfter())


def test_an_unknown_model_is_wrong_use(outputs: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        Previewer(outputs).preview("nowhere", ExampleSettings(), 1, 0, quiet)


# In a terminal -----------------------------------------------------------------------------------------------------


def run(outputs: Path, source: Path, *words: str) -> int:
    return main(["data", str(source), "--model", "bar", "--outputs", str(outputs), *words])


def test_the_command_prints_example_lengths_and_bad_lines(
    outputs: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(outputs, source, "--max-length", "40", "--example", "2") == 0
    out = capsys.readouterr().out
    assert "example 2 of 4 (line 3, " in out
    [shown] = re.findall(r"\[\[ the.*", out)
    assert re.search(r"\]\]\|\{\{.*\}\}$", shown)  # trained on, then cut
    assert "(<|endoftext|>" not in out
    assert "40: longer examples are truncated" in out
    assert "It is not JSON" in out
    assert "2 unusable lines" in out


@pytest.mark.parametrize(
    ("most", "said"),
    [
        ("8", "4 examples left out, since nothing of the answer is within"),
        ("40", "1 example truncated, 1 example left out, since nothing of the answer is within"),
        ("64", "none is longer"),
    ],
)
def test_the_command_says_what_becomes_of_long_examples(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], most: str, said: str
) -> None:
    source = tmp_path / "mine.jsonl"
    lines = [line for line in LINES if isinstance(line, dict)]
    source.write_text("".join(json.dumps(line) + "\n" for line in (lines if most != "64" else lines[:1] * 3)))
    assert run(outputs, source, "--max-length", most) == 0
    assert f"at most {most} tokens are read: {said}\n" in capsys.readouterr().out


def test_a_terminal_with_colours_has_answers_green_questions_dim_and_the_rest_struck_out(
    outputs: Path, source: Path
) -> None:
    example = PreviewExample(
        0,
        1,
        TRAIN,
        4,
        (
            PreviewToken(1, "User: a\n", MASKED),
            PreviewToken(2, " s", IN_LOSS),
            PreviewToken(3, "ing", IN_LOSS),
            PreviewToken(4, "x", TRUNCATED),
        ),
    )
    shown = list(_example(previewed(outputs, source), example, True))[1]
    assert shown == "\033[2mUser: a\033[0m\n|\033[1;32m s|ing\033[0m|\033[9;31mx\033[0m"


def test_the_command_speaks_json(outputs: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(outputs, source, "--set", "data.max_length=40", "--set", "train.seed=1", "--json") == 0
    assert from_plain(Preview, json.loads(capsys.readouterr().out)) == previewed(outputs, source, max_length=40)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--example", "9"), "There is no example 9"),
        (("--set", "data.max_length"), "sets nothing"),
        (("--set", "data.max_lenght=9"), "data.max_length"),
        (("--max-length", "none"), "data.max_length cannot be 'none'"),
    ],
)
def test_wrong_words_are_refused(
    outputs: Path, source: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(outputs, source, *words) == 2
    assert said in capsys.readouterr().err
