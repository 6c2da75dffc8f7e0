"""Scores of heads equal their formulas, spelled out in loops, however the pattern is cut on its way."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from small_models import VOCAB, some_ids
from torch import Tensor
from transformers import AutoModelForCausalLM
from watched_models import SETTINGS, name, scratch, watch_all

from llmlab.anatomy.capture import run
from llmlab.anatomy.finding import scratch_anatomy
from llmlab.core.errors import LabError
from llmlab.inspection.heads import HeadSummaries, RepeatScores, repeat_scores, repeated_tokens
from llmlab.models.source import open_model


def in_pieces(summaries: HeadSummaries | RepeatScores, patterns: Tensor, step: int) -> dict[str, Tensor]:
    """The results when a prompt's patterns [L, H, T, T] come `step` rows at a time, without keys behind them."""
    for layer, pattern in enumerate(patterns):
        for first in range(0, pattern.shape[1], step):
            summaries.pattern(layer, first, pattern[:, first : first + step, : first + step])
    return summaries.results()


def random_patterns(time: int, layers: int = 2, heads: int = 4, seed: int = 0) -> Tensor:
    """Causal patterns [L, H, T, T] with rows that sum to one."""
    scores = 3 * torch.randn(layers, heads, time, time, generator=torch.Generator().manual_seed(seed))
    return (scores + torch.full((time, time), -math.inf).triu(1)).softmax(-1)


def brute(pattern: Tensor) -> dict[str, float]:
    """One head's [T, T] scores, query by query."""
    time = len(pattern)
    sums = dict.fromkeys(("entropy", "previous", "first", "distance"), 0.0)
    for i in range(1, time):
        row = pattern[i].double().tolist()
        sums["entropy"] += sum(-p * math.log(p) for p in row if p > 0)
        sums["previous"] += row[i - 1]
        sums["first"] += row[0]
        sums["distance"] += sum(p * (i - j) for j, p in enumerate(row))
    return {what: total / (time - 1) for what, total in sums.items()}


def assert_scores(results: dict[str, Tensor], patterns: Tensor) -> None:
    for layer, heads in enumerate(patterns):
        for head, pattern in enumerate(heads):
            for what, value in brute(pattern).items():
                assert float(results[f"heads/{what}"][layer, head]) == pytest.approx(value, rel=1e-5, abs=1e-6), what


@pytest.mark.parametrize("options", SETTINGS, ids=name)
def test_scores_of_a_prompt_equal_their_formulas(options: dict[str, Any]) -> None:
    model = scratch(options)
    anatomy, ids = scratch_anatomy(model), some_ids(12)
    summaries = HeadSummaries(anatomy, 12)
    run(model, anatomy, ids, [summaries])
    patterns = watch_all(model, anatomy, ids)[0].all_patterns()
    assert_scores(summaries.results(), patterns)
    assert torch.equal(summaries.results()["heads/mosaic"], patterns)  # a short prompt's thumbnail is the pattern


@pytest.mark.parametrize(("time", "step"), [(150, 150), (150, 37), (150, 1), (65, 64), (128, 50)])
def test_scores_and_thumbnail_do_not_depend_on_how_the_rows_come(time: int, step: int) -> None:
    patterns = random_patterns(time)
    results = in_pieces(HeadSummaries(scratch_anatomy(scratch(SETTINGS[0])), time), patterns, step)
    assert_scores(results, patterns)
    for a in range(64):
        for b in range(64):
            rows = slice(a * time // 64, (a + 1) * time // 64)
            keys = slice(b * time // 64, (b + 1) * time // 64)
            assert torch.equal(results["heads/mosaic"][..., a, b], patterns[..., rows, keys].amax((-1, -2)))


def test_a_uniform_head_has_entropy_of_the_logarithm_and_a_one_hot_head_none() -> None:
    time = 80
    uniform = torch.ones(time, time).tril()
    uniform /= uniform.sum(-1, keepdim=True)
    previous = torch.eye(time).roll(1, 0)
    previous[0] = torch.eye(time)[0]
    patterns = torch.stack((uniform, previous, torch.eye(time), torch.eye(time)[:1].expand(time, time)))
    results = in_pieces(
        HeadSummaries(scratch_anatomy(scratch(SETTINGS[0])), time), patterns[None].repeat(2, 1, 1, 1), 30
    )
    logarithms = sum(math.log(i + 1) for i in range(1, time)) / (time - 1)
    assert results["heads/entropy"][0].tolist() == pytest.approx([logarithms, 0, 0, 0], abs=1e-5)
    assert results["heads/previous"][0].tolist()[1:3] == [1, 0]
    assert results["heads/first"][0].tolist()[3] == 1
    assert results["heads/distance"][0].tolist() == pytest.approx([time / 4, 1, 0, time / 2], abs=1e-4)


def test_a_prompt_of_one_token_leaves_no_choice() -> None:
    model = scratch(SETTINGS[0])
    summaries = HeadSummaries(scratch_anatomy(model), 1)
    run(model, scratch_anatomy(model), [3], [summaries])
    assert summaries.results()["heads/entropy"].isnan().all()
    assert summaries.results()["heads/mosaic"].tolist() == [[[[1.0]]] * 4] * 2


def test_repeated_tokens_come_twice_differ_within_a_half_and_follow_the_seed() -> None:
    ids = repeated_tokens(31, 10, 5)
    assert ids[:10] == ids[10:]
    assert len(set(ids)) == 10
    assert ids == repeated_tokens(31, 10, 5) != repeated_tokens(31, 10, 6)
    begun = repeated_tokens(31, 30, 5, beginning=7)
    assert begun[0] == 7
    assert 7 not in begun[1:]
    with pytest.raises(LabError, match="31 different tokens"):
        repeated_tokens(31, 31, 5, beginning=7)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("step", [100, 7, 1])
def test_repeat_scores_read_the_right_diagonals(offset: int, step: int) -> None:
    length = 9
    time = offset + 2 * length
    patterns = random_patterns(time)
    results = in_pieces(RepeatScores(scratch_anatomy(scratch(SETTINGS[0])), length, offset), patterns, step)
    for shift, what in enumerate(("duplicate", "induction")):
        wanted = sum(patterns[..., offset + length + k, offset + k + shift] for k in range(length)) / length
        assert torch.allclose(results[f"heads/{what}"], wanted)


def test_repeat_scores_are_those_of_a_pass_over_repeated_tokens_and_say_how() -> None:
    model = scratch(SETTINGS[0])
    anatomy = scratch_anatomy(model)
    results, how = repeat_scores(model, anatomy, vocab=VOCAB, seed=3)
    ids = repeated_tokens(VOCAB, 6, 3)  # the context of 12 holds 6 twice
    pattern = watch_all(model, anatomy, ids)[0].all_patterns()
    assert torch.allclose(results["heads/induction"], sum(pattern[..., 6 + k, k + 1] for k in range(6)) / 6)
    assert "6 random tokens" in how
    with pytest.raises(LabError, match="no room"):
        repeat_scores(model, anatomy, vocab=1)


@pytest.mark.parametrize("begins", [True, False])
def test_who_follows_the_sentence_with_plain_transformers_gets_the_scores(tmp_path: Path, begins: bool) -> None:
    folder = tiny_models.save(tiny_models.llama(), tmp_path / "llama")
    opened = open_model(str(folder), tmp_path)
    beginning = opened.tokenizer.beginning if begins else None
    assert (beginning is not None) == begins
    vocab = opened.vocab_size
    results, how = repeat_scores(opened.model, opened.anatomy, vocab=vocab, beginning=beginning)
    said = re.fullmatch(
        r"Duplicate-token and induction scores are measured on (\d+) random tokens that are read twice"
        r": the first of torch\.randperm\((\d+)\) with seed (\d+)"
        r"(?: other than the beginning-of-sequence token \(id (\d+)\), which is read before them)?\.",
        how,
    )
    assert said is not None, how
    length, below, seed, first = (None if number is None else int(number) for number in said.groups())
    assert length is not None
    order = torch.randperm(below, generator=torch.Generator().manual_seed(seed)).tolist()
    half = [id for id in order if id != first][:length]
    before = [] if first is None else [first]
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    patterns = model(torch.tensor([before + half + half]), output_attentions=True).attentions
    second = len(before) + length
    for shift, what in enumerate(("duplicate", "induction")):
        wanted = [
            sum(layer[0, :, second + k, len(before) + k + shift] for k in range(length)) / length for layer in patterns
        ]
        torch.testing.assert_close(results[f"heads/{what}"], torch.stack(wanted), rtol=1e-4, atol=1e-6)
