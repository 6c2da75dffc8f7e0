"""`inspect` writes what the pass itself shows: every tensor of the archive against a hand-watched pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from experiment_models import opened
from safetensors import safe_open
from watched_models import SETTINGS, name, watch_all

from llmlab.anatomy import attention_call
from llmlab.anatomy.anatomy import Refusals
from llmlab.anatomy.capture import POINTS
from llmlab.core.errors import Cancelled, LabError, UsageError
from llmlab.inspection import answers, readout, residual
from llmlab.inspection.answers import answer_question
from llmlab.inspection.archive import Archive, read_archive
from llmlab.inspection.questions import ASPECTS
from llmlab.inspection.spill import Spill

TEXT = "the king said."


def _inspect(model, out: Path, **values) -> Archive:
    return read_archive(answer_question(model, "inspect", {"text": TEXT, **values}, out))


@pytest.mark.parametrize("options", SETTINGS, ids=name)
def test_the_archive_holds_the_patterns_and_the_stream_of_the_pass(options: dict, tmp_path: Path) -> None:
    model = opened(double=False, block_size=32, **options)
    ids = model.tokenizer.encode(TEXT)
    seen, _ = watch_all(model.model, model.anatomy, ids)
    archive = _inspect(model, tmp_path / "a.safetensors", what=["attention", "residual"])
    assert archive.metadata.token_ids == ids
    assert archive.metadata.tokens == list(TEXT)
    for layer in range(model.anatomy.n_layer):
        assert np.array_equal(archive[f"attention/{layer}"], seen.all_patterns()[layer])
        assert np.allclose(archive[f"attention/{layer}"].sum(-1), 1, atol=1e-5)
        assert not np.triu(archive[f"attention/{layer}"], 1).any()
    for point in POINTS:
        assert np.array_equal(archive[f"residual/{point}"], seen.stacked(point))
    assert np.array_equal(archive["residual/final"], seen.final_residual)


def test_long_prompts_whose_patterns_come_in_pieces_give_the_same_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(double=False, block_size=64)
    whole = _inspect(model, tmp_path / "a.safetensors", text=TEXT * 4, what=["attention", "heads"])
    monkeypatch.setattr(attention_call, "_PATTERN_NUMBERS", 1)  # sixteen rows at a time
    pieces = _inspect(model, tmp_path / "b.safetensors", text=TEXT * 4, what=["attention", "heads"])
    assert set(whole) == set(pieces)
    for tensor in whole:
        assert np.allclose(whole[tensor], pieces[tensor], atol=1e-6), tensor


@pytest.mark.parametrize("refused", [None, "Its way to the logits is another."])
def test_contributions_in_memory_take_as_much_as_the_logits_that_the_pass_makes(
    refused: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(double=False, block_size=32)
    vars(model)["anatomy"] = replace(model.anatomy, refusals=Refusals(attribution=refused))
    sizes, made, run = [], [], readout.run
    monkeypatch.setattr(residual, "_IN_MEMORY", 0)
    monkeypatch.setattr(residual, "Spill", lambda folder, memory: sizes.append(memory) or Spill(folder, memory))
    monkeypatch.setattr(readout, "run", lambda *given, **more: made.append(run(*given, **more)) or made[-1])
    _inspect(model, tmp_path / "a.safetensors", what=["contributions"])
    assert [4 * logits.numel() for logits in made] == sizes
    assert made[0].shape[1] == (1 if refused is None else len(TEXT))


def test_weights_and_mode_are_what_they_were_and_no_hook_is_left(tmp_path: Path) -> None:
    model = opened(double=False, block_size=32)
    before = model.weights_sha256
    _inspect(model, tmp_path / "a.safetensors", what=list(ASPECTS))
    del model.__dict__["weights_sha256"]
    assert model.weights_sha256 == before
    assert not model.model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.model.modules())


def test_a_cancel_ends_the_pass_and_leaves_no_file(tmp_path: Path) -> None:
    def cancel(what: str, done: float, total: float) -> None:
        if done == 1:
            raise Cancelled

    model = opened(double=False, block_size=32)
    with pytest.raises(Cancelled):
        answer_question(model, "inspect", {"text": TEXT, "what": ["attention"]}, tmp_path / "a.safetensors", cancel)
    assert not list(tmp_path.iterdir())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.model.modules())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"what": ["attnetion"]}, "attnetion"),
        ({"what": []}, "nothing to inspect"),
        ({"text": ""}, "empty"),
        ({"text": "a" * 200}, "at most 32"),
        ({"ids": [999]}, "does not know"),
        ({"position": 99}, "no token 99"),
        ({"answer": "ab"}, "not one token"),
        ({"beginning": True}, "beginning"),
        ({"colour": "red"}, "colour"),
        ({"top": "five"}, "top"),
        ({"top": 0}, "1 to 100"),
        ({"top": 10**9}, "1 to 100"),
        ({"text": "ß"}, "ß"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(values: dict, said: str, tmp_path: Path) -> None:
    model = opened(double=False, block_size=32)
    with pytest.raises(LabError, match=said):
        answer_question(model, "inspect", {"text": TEXT} | values, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_running_out_of_memory_becomes_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened(double=False, block_size=32)

    def forward(*_: object) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 TB")

    monkeypatch.setattr(type(model.model), "residual_stream", forward)
    with pytest.raises(LabError, match="Memory ran out") as caught:
        answer_question(model, "inspect", {"text": TEXT, "what": ["attention"]}, tmp_path / "a.safetensors")
    assert "Shorten" in caught.value.do


# What `describe` and the header itself give every answer.
EVERY = {
    *("schema", "kind", "model", "weights_sha256", "token_ids", "tokens", "dtype", "attention_path", "versions"),
    *("notes", "question", "family", "n_layer", "step"),
}
TARGET = {"position", "answer", "answer_text", "against", "against_text"}


@pytest.mark.parametrize(
    ("question", "values", "more"),
    [
        ("inspect", {}, TARGET | {"next"}),
        ("pattern", {"layer": 1, "head": 0}, set()),
        ("stages", {"layer": 1, "head": 0}, {"scale", "softcap"}),
        ("neurons", {"layer": 1}, TARGET),
    ],
)
def test_tensors_and_metadata_are_those_that_are_documented(
    question: str, values: dict, more: set[str], tmp_path: Path
) -> None:
    said = answers.__doc__ or ""
    path = answer_question(opened(double=False, block_size=32), question, {"text": TEXT, **values}, tmp_path / "a")
    with safe_open(path, framework="numpy") as file:
        written, metadata = set(file.keys()), set(file.metadata())
    part = re.search(rf"^    {question} .*(\n {{16}}.*)*", said, re.MULTILINE)
    assert part
    listed = part[0].removeprefix(f"    {question}").partition("where the family")[0]
    assert written == set(_expanded(listed))
    assert metadata == EVERY | more
    assert all(re.search(rf"\b{name}\b", said.partition("Metadata, strings")[2]) for name in metadata)


def _expanded(words: str) -> Iterator[str]:
    """`a/{b,c} [L]; /d` -> a/b, a/c, a/d."""
    words = words.replace("{layer}", "{0,1}").replace("{point}", f"{{{','.join(POINTS)}}}")
    group = ""
    for found in re.findall(r"(?:[\w/]|\{[\w,]+\})+", re.sub(r"\[[^]]*\]|\([^)]*\)", "", words)):
        listed = group + found if found.startswith("/") else found
        group = listed.rpartition("/")[0]
        if braces := re.search(r"\{([\w,]+)\}", listed):
            yield from (listed.replace(braces[0], one) for one in braces[1].split(","))
        else:
            yield listed


def test_half_of_a_surrogate_pair_in_a_prompt_is_a_question_mark(tmp_path: Path) -> None:
    model = opened(double=False, block_size=32)
    seen = read_archive(answer_question(model, "inspect", {"text": f"a\udce9{TEXT[:4]}"}, tmp_path / "a.safetensors"))
    plain = read_archive(answer_question(model, "inspect", {"text": f"a?{TEXT[:4]}"}, tmp_path / "b.safetensors"))
    assert seen.metadata.token_ids == plain.metadata.token_ids
    with pytest.raises(UsageError, match="not one token"):
        answer_question(model, "inspect", {"text": TEXT, "answer": "a\udce9"}, tmp_path / "c.safetensors")


def test_what_goes_to_disk_is_told_before_it_is_written(tmp_path: Path) -> None:
    told: list[str] = []

    def tell(what: str, done: float, total: float) -> None:
        told.append(what)
        raise Cancelled

    model = opened(double=False, block_size=2048)
    with pytest.raises(Cancelled):
        answer_question(model, "inspect", {"text": "a" * 2000, "what": ["attention"]}, tmp_path / "a.safetensors", tell)
    anatomy = model.anatomy
    size = 4 * anatomy.n_layer * anatomy.n_head * 2000**2
    assert told == [f"Reading the prompt, {size / 1e6:,.0f} MB go to disk"]


def test_an_unknown_question_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="inspect"):
        answer_question(opened(), "inspct", {}, Path("x"))
