"""Several examples in one row: which share one, and which models read each as if it stood alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from bases import CPU, prepared, settings_for
from cases import each
from fakes import CancelAfter
from family_models import KINDS, VOCAB, family_model, new_model, some_ids
from hypothesis import given
from hypothesis import strategies as st
from small_runs import train_here

from llmlab.core.errors import Cancelled, LabError
from llmlab.core.finetuning_settings import ExampleSettings
from llmlab.core.progress import quiet
from llmlab.data.chat import Encoded
from llmlab.data.finetuning_data import load_finetuning_data, packed
from llmlab.data.tokenizers import Gpt2Tokenizer
from llmlab.jobs.launcher import create_run
from llmlab.training.finetuning import packing
from llmlab.training.finetuning.backends import Prepared
from llmlab.training.finetuning.estimate import estimate_finetuning
from llmlab.training.finetuning.packing import MIXED, influence, packing_refusal, require_apart
from llmlab.training.finetuning.preview import Previewer

# Which examples share a row -------------------------------------------------------------------------------------------


def pack(lengths: Sequence[int], room: int) -> list[tuple[int, ...]]:
    return packed(lengths, room, quiet)


def first_fit(lengths: Sequence[int], room: int) -> list[tuple[int, ...]]:
    """First fit, the longest first, by trying every row."""
    rows: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        fits = (row for row in rows if sum(lengths[other] for other in row) + lengths[place] <= room)
        row = next(fits, None)
        if row is None:
            rows.append([place])
        else:
            row.append(place)
    return [tuple(row) for row in rows]


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=40), room=st.integers(20, 50))
def test_packing_takes_the_first_row_that_fits_the_longest_example_first(lengths: list[int], room: int) -> None:
    rows = pack(lengths, room)
    assert rows == first_fit(lengths, room)
    assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
    assert all(sum(lengths[place] for place in row) <= room for row in rows)
    fullest = sorted(sum(lengths[place] for place in row) for row in rows)
    assert len(rows) < 2 or fullest[0] + fullest[1] > room  # first fit: no two rows could be one


def test_packing_compares_each_example_with_a_logarithm_of_the_rows() -> None:
    compared = 0

    class Length(int):
        """A length that counts what it is compared with."""

        def __le__(self, other: int) -> bool:
            nonlocal compared
            compared += 1
            return int(self) <= int(other)

        __hash__ = int.__hash__

    count = 4096
    random = np.random.default_rng(0)
    lengths = [Length(length) for length in random.integers(1, 257, count)]
    assert len(pack(lengths, 256)) > count / 4
    assert 0 < compared <= count * (math.log2(count) + 1)


def test_packing_says_how_far_it_is_and_ends_when_it_is_no_longer_wanted() -> None:
    lengths, said = [7] * 5000, list[tuple[str, float, float]]()
    packed(lengths, 20, lambda *now: said.append(now))
    assert said
    assert {(what, total) for what, _, total in said} == {("Packing examples into rows", 5000)}
    assert [done for _, done, _ in said] == sorted(done for _, done, _ in said)
    with pytest.raises(Cancelled):
        packed(lengths, 20, CancelAfter(1))

    def cancelled(what: str, done: float, total: float) -> None:
        if what.startswith("Packing"):
            raise Cancelled

    with pytest.raises(Cancelled):
        load_finetuning_data(ExampleSettings(packing=True), 1, Gpt2Tokenizer(), 0, cancelled)


# Which models keep them apart -----------------------------------------------------------------------------------------


def examples(*seeds: int, tokens: int = 7, most: int = VOCAB) -> list[Encoded]:
    return [Encoded((some_ids(seed, tokens) % most).tolist(), [True] * tokens, 0) for seed in seeds]


def ready(model: Any) -> Prepared:
    return Prepared(model, "tiny", Gpt2Tokenizer(), 64, None, 0, 0)


@pytest.mark.slow
@each("name", KINDS)
def test_which_families_read_a_row_as_one_text_is_known(name: str) -> None:
    first, other, example = examples(1, 2, 3)
    kind, model = KINDS[name], ready(family_model(name))
    moved = influence(model, first, example, 0)
    if kind.model_type in MIXED:
        assert moved > 0.5
        assert abs(moved - influence(model, other, example, 0)) > 1e-3  # it depends on what the other example says
    else:
        assert moved < 1e-5


@pytest.mark.parametrize("kind", ["scratch", "llama", "qwen2", "gpt2"])
def test_bases_made_ready_keep_examples_apart(bases: dict[str, str], outputs: Path, kind: str) -> None:
    what = prepared(bases[kind], outputs)
    what.model.eval()
    assert influence(what, *examples(1, 2), 0) < 1e-4


def test_only_the_beginning_of_long_examples_is_read() -> None:
    first, example = examples(1, 2, tokens=500)
    model = ready(new_model("opt", KINDS["opt"].settings))  # it has 64 positions
    assert influence(model, first, example, 0) > 0.5


def opt_folder(folder: Path) -> str:
    """A tiny OPT with the tokenizer of the tiny models."""
    sizes = {"vocab_size": tiny_models.TOKENIZER.vocab_size, "max_position_embeddings": 512}
    model = new_model("opt", KINDS["opt"].settings | sizes)
    return str(tiny_models.save(model, folder))


def packing_settings(base: str, **data: Any) -> Any:
    values: dict[str, Any] = {"packing": True, "max_length": 300, "max_examples": 40, "scored": 0} | data
    settings = settings_for(base)
    train = replace(settings.train, steps=1, warmup_steps=0, threads=1, eval_sequences=2)
    return replace(settings, data=ExampleSettings(**values), train=train)


def test_packing_is_refused_before_a_run_is_made_where_the_family_is_known(tmp_path: Path) -> None:
    base = opt_folder(tmp_path / "opt")
    with pytest.raises(LabError, match=r"cannot be fine-tuned on packed examples.*\(opt\).*data\.packing=false"):
        estimate_finetuning(packing_settings(base), tmp_path)
    assert estimate_finetuning(packing_settings(base, packing=False), tmp_path).trainable > 0
    assert packing_refusal(str(tiny_models.save(tiny_models.llama(), tmp_path / "llama")), tmp_path) is None
    assert packing_refusal("nowhere", tmp_path) is None
    assert packing_refusal(str(tiny_models.save_gguf(tiny_models.llama(), tmp_path / "a.gguf")), tmp_path) is None


def test_a_preview_says_that_packing_is_refused(tmp_path: Path) -> None:
    base = opt_folder(tmp_path / "opt")

    def trouble(packing: bool) -> tuple[str, str, str] | None:
        data = packing_settings(base, packing=packing).data
        found = Previewer(tmp_path).preview(base, data, 1, 0, quiet)
        assert found.example is not None
        return found.trouble

    refused = trouble(True)
    assert refused is not None
    assert refused[0].endswith("cannot be fine-tuned on packed examples.")
    assert trouble(False) is None


@pytest.mark.slow
def test_a_run_tries_its_base_and_refuses_to_pack_for_one_that_reads_a_row_as_one_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MIXED", frozenset())  # a family that nobody tried yet
    base = opt_folder(tmp_path / "opt")
    run = create_run(tmp_path, packing_settings(base), name="packed")
    with pytest.raises(LabError, match=r"moves an example's logits by .* of their standard deviations"):
        train_here(run)
    train_here(create_run(tmp_path, packing_settings(base, packing=False), name="plain"))


def test_examples_that_share_no_row_are_not_tried(tmp_path: Path) -> None:
    base = opt_folder(tmp_path / "opt")
    settings = packing_settings(base, max_length=80, max_examples=6)
    data = load_finetuning_data(settings.data, 1, tiny_models.TOKENIZER, 0, quiet)
    assert all(len(row) == 1 for row in data.rows)
    require_apart(ready(torch.nn.Module()), data, CPU.precision)
