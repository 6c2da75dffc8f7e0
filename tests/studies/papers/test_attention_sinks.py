"""Attention sinks: shares of planted patterns, what uniform attention gives, and the verdicts that follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import small_models
import tiny_models
import torch
from torch import Tensor, nn

from llmlab.anatomy.capture import run
from llmlab.anatomy.finding import anatomy_of
from llmlab.core.errors import LabError
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.tokenizers import CharTokenizer
from llmlab.gpt.model import GPT, CausalSelfAttention
from llmlab.inspection.heads import HeadSummaries
from llmlab.models.model import untrained_like
from llmlab.studies.papers.agreement import by_models
from llmlab.studies.papers.attention_sinks import thresholds as bounds
from llmlab.studies.papers.attention_sinks.position import (
    OWN,
    candidates,
    judge_position,
    place_kept,
    position_verdict,
    put_first,
    taken_along,
)
from llmlab.studies.papers.attention_sinks.reading import (
    FirstTokens,
    Found,
    Reading,
    Shares,
    in_upper_half,
    read,
    uniform_share,
)
from llmlab.studies.papers.attention_sinks.sink import judge_sink, sink_heads, sink_verdict
from llmlab.studies.papers.prompts import DOMAINS, Prompts, draw_prompts

TIME = 12  # what small models read
LETTERS = " \nabcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,;:!?'\"-()"


def some_prompts(count: int = 4, vocab_size: int = small_models.VOCAB, time: int = TIME) -> Prompts:
    ids = small_models.some_ids(count, time, vocab_size=vocab_size).tolist()
    return Prompts(ids, [["one", "other"][number % 2] for number in range(count)])


def uniform_gpt(**changes: object) -> GPT:
    """Its queries are all 0, so that every score is the same."""
    model = small_models.lively(small_models.shape(n_layer=4, **changes))
    with torch.no_grad():
        for block in model.blocks:
            attention = block.attention
            assert isinstance(attention, CausalSelfAttention)
            attention.qkv.weight[: attention.dims[0]] = 0
            if attention.qkv.bias is not None:
                attention.qkv.bias[: attention.dims[0]] = 0
    return model


def sinking_gpt(token: int) -> GPT:
    """Every query asks for one token, whose key alone answers, so loudly that it gets all attention.

    No position, no feed-forward and no mixing: the stream stays what the embedding made of it.
    """
    model = GPT(small_models.shape(n_layer=4, norm="rmsnorm", position="rotary"), small_models.VOCAB)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("norm.weight"):
                parameter.zero_()
        width = model.settings.n_embd
        model.token_embedding.weight[:, 0] = 1.0  # what all tokens have in common
        model.token_embedding.weight[token, 1] = 1.0  # what this one has alone
        for block in model.blocks:
            attention = block.attention
            assert isinstance(attention, CausalSelfAttention)
            lowest = attention.head_dim // 2 - 1  # the pair of coordinates that rotary turns least
            for head in range(attention.n_head):
                row = head * attention.head_dim + lowest
                attention.qkv.weight[row, 0] = 40.0
                attention.qkv.weight[width + row, 1] = 40.0
    return model.eval()


def reading(upper: list[float], early: float = 0.03, **changes: object) -> Reading:
    """Of a model with four layers: the share in its upper half, by prompt."""
    values = {
        "tokens": 64,
        "depth": 4,
        "layers": [0, 1, 2, 3],
        "shares": [[0.05, 0.05, share, share] for share in upper],
        "heads": [[0.05, 0.4]] * 4,
        "early": [[early, 0.02, 0.01] for _ in upper],
        "norms": [[0.0, 1.0, 2.0, 3.0, 4.0] for _ in upper],
        "first_norms": [[0.0, 5.0, 6.0, 7.0, 4.0] for _ in upper],
        "domains": ["one"] * len(upper),
    }
    return Reading(**(values | changes))


def around(mean: float, spread: float = 0.01, count: int = 20) -> list[float]:
    return (mean + spread * np.linspace(-1, 1, count)).tolist()


def random_weights(share: float = 0.06) -> list[Reading]:
    return [reading([share] * 3) for _ in range(bounds.UNTRAINED_MODELS)]


# What uniform attention gives --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "key"), [(2, 0), (3, 1), (64, 0), (64, 16), (128, 3)])
def test_the_uniform_share_is_the_mean_of_a_uniform_pattern(tokens: int, key: int) -> None:
    pattern = np.tril(np.ones((tokens, tokens)))
    pattern /= pattern.sum(1, keepdims=True)
    assert uniform_share(tokens, key) == pytest.approx(pattern[key + 1 :, key].mean(), rel=1e-12)


def test_the_uniform_share_of_the_first_token_is_a_harmonic_number_less_one() -> None:
    harmonic = math.fsum(1 / number for number in range(1, 65))
    assert uniform_share(64) == pytest.approx((harmonic - 1) / 63, rel=1e-12)
    assert uniform_share(64) == pytest.approx(0.0594, abs=1e-4)


# Shares ------------------------------------------------------------------------------------------------------------


def test_equal_scores_give_the_uniform_share_in_every_head() -> None:
    found = read(uniform_gpt(), some_prompts())
    assert np.array(found.heads) == pytest.approx(np.full((4, 4), uniform_share(TIME)), abs=1e-5)
    expected = [uniform_share(TIME, key) for key in (1, 2, 3)]
    assert np.array(found.early) == pytest.approx(np.tile(expected, (4, 1)), abs=1e-5)


def test_a_model_that_looks_at_one_token_gives_it_everything_where_it_stands() -> None:
    model = sinking_gpt(token=3)
    others = [[id for id in ids if id != 3][: TIME - 1] for ids in small_models.some_ids(4, 2 * TIME).tolist()]
    prompts = Prompts([[3, *ids] for ids in others], ["one"] * 4)
    found = read(model, prompts)
    assert found.upper == pytest.approx([1.0] * 4, abs=1e-3)
    assert np.array(found.early) == pytest.approx(0.0, abs=1e-3)
    assert sink_heads(found) == 1.0
    first = put_first(model, prompts, {"other": 4, "the same": 3})
    assert np.array(first.first[0]) == pytest.approx(1.0, abs=1e-3)
    assert np.array(first.first[2]) == pytest.approx(1.0, abs=1e-3)
    assert np.array(first.first[1]) == pytest.approx(uniform_share(TIME), abs=1e-3)  # gone, and so is the sink
    moved = Prompts([[4, *ids] for ids in others], ["one"] * 4)
    assert np.array(put_first(model, moved, {"it": 3}).moved[1]) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    "make", [tiny_models.llama, tiny_models.gpt2, lambda: small_models.lively(small_models.shape())]
)
def test_shares_are_those_of_the_patterns_and_of_the_head_panel(make: Callable[[], nn.Module]) -> None:
    model = make()
    anatomy = anatomy_of(model)
    ids = small_models.some_ids(TIME).tolist()
    shares, panel = Shares(anatomy, TIME, (0, 5)), HeadSummaries(anatomy, TIME)
    whole: dict[int, Tensor] = {}

    class Whole(Shares):
        def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
            whole[layer] = pattern.clone()

    run(model, anatomy, ids, [shares, panel, Whole(anatomy, TIME, (0,))], last=True)
    assert shares.results()[0] == pytest.approx(panel.results()["heads/first"].numpy(), abs=1e-6)
    for layer, pattern in whole.items():
        assert shares.results()[1, layer] == pytest.approx(pattern[:, 6:, 5].mean(1).numpy(), abs=1e-6)


def test_a_pattern_that_comes_in_pieces_gives_the_same_shares() -> None:
    anatomy = anatomy_of(small_models.lively(small_models.shape(n_layer=1)))
    pattern = torch.rand(4, TIME, TIME).tril()
    whole, pieces = (Shares(anatomy, TIME, (0, 4, TIME - 2)) for _ in range(2))
    whole.pattern(0, 0, pattern)
    for first in range(0, TIME, 5):
        pieces.pattern(0, first, pattern[:, first : first + 5, : first + 5])
    assert pieces.results() == pytest.approx(whole.results(), abs=1e-6)


def test_the_norms_are_those_of_the_stream_without_the_first_token() -> None:
    model = small_models.lively(small_models.shape(position="learned"))
    prompts = some_prompts(1)
    found = read(model, prompts)
    x = model.token_embedding(torch.tensor(prompts.ids)) + model.position_embedding.weight
    for place, block in enumerate([None, *model.blocks]):
        x = x if block is None else block(x)
        norms = x[0].norm(dim=-1).log().detach()
        assert found.norms[0][place] == pytest.approx(float(norms[1:].mean()), abs=1e-5)
        assert found.first_norms[0][place] == pytest.approx(float(norms[0]), abs=1e-5)


def test_the_upper_half_begins_at_the_middle() -> None:
    assert in_upper_half([0, 1, 2, 3], 4) == [2, 3]
    assert in_upper_half([0], 1) == [0]
    assert in_upper_half([1, 3, 5], 6) == [1, 2]  # layers without a pattern have no place


# Untrained models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [tiny_models.llama, tiny_models.gpt2, lambda: small_models.lively(small_models.shape())]
)
def test_an_untrained_model_has_the_shape_and_none_of_the_weights(make: Callable[[], nn.Module]) -> None:
    model = make()
    before = torch.get_rng_state()
    one, same, other = (untrained_like(model, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [dict(m.named_parameters()) for m in (model, one, same, other)]
    assert all(w.keys() == weights[0].keys() for w in weights)
    assert all(torch.equal(weights[1][name], weights[2][name]) for name in weights[1])
    matrices = [name for name, weight in weights[0].items() if weight.dim() == 2]
    assert not any(torch.equal(weights[1][name], weights[3][name]) for name in matrices)
    assert all(weights[0][name].shape == weights[1][name].shape for name in matrices)
    assert not one.training
    share = read(one, some_prompts(2)).upper.mean()
    assert share == pytest.approx(uniform_share(TIME), rel=0.1)  # small weights: scores near 0


# Prompts -----------------------------------------------------------------------------------------------------------


def test_prompts_are_of_one_length_of_every_domain_and_the_same_each_time() -> None:
    found = draw_prompts(tiny_models.TOKENIZER, 20, 3)
    assert [len(ids) for ids in found.ids] == [20] * 3 * len(DOMAINS)
    assert found.domains == [domain for domain in DOMAINS for _ in range(3)]
    assert len({tuple(ids) for ids in found.ids}) == len(found.ids)
    assert draw_prompts(tiny_models.TOKENIZER, 20, 3) == found
    assert draw_prompts(tiny_models.TOKENIZER, 20, 3, seed=1) != found


def test_domains_that_a_vocabulary_lacks_are_left_out() -> None:
    letters = CharTokenizer(LETTERS)
    found = draw_prompts(letters, 20, 2)
    assert {*found.domains} >= {"stories"}
    assert "records" not in found.domains
    assert [*candidates(letters)] == ["line break", "The", "full stop", "Zebra"]
    with pytest.raises(LabError, match="no ordinary text"):
        draw_prompts(CharTokenizer("xyz"), 20, 2)


class Beginning(CharTokenizer):
    """Puts a token before every text, as Llama's does."""

    adds_bos = True

    @property
    def beginning(self) -> int:
        return self.vocab_size


def test_texts_begin_with_what_the_tokenizer_puts_before_every_text() -> None:
    letters = CharTokenizer(LETTERS)
    with_one = Beginning(LETTERS)
    plain, begun = draw_prompts(letters, 20, 2), draw_prompts(with_one, 20, 2)
    assert begun.ids == [[with_one.beginning, *ids[:19]] for ids in plain.ids]
    assert candidates(with_one) == candidates(letters)  # it stands there anyway
    with_one.adds_bos = False
    assert draw_prompts(with_one, 20, 2) == plain
    assert [*candidates(with_one)] == [*candidates(letters), "beginning of text"]


# Verdicts: sink ----------------------------------------------------------------------------------------------------


def test_a_clear_sink_is_supported_and_one_at_the_bound_is_not() -> None:
    assert judge_sink(reading(around(0.5)), random_weights()) == SUPPORTED
    assert judge_sink(reading(around(bounds.SINK_SHARE)), random_weights()) == INCONCLUSIVE
    assert judge_sink(reading([bounds.SINK_SHARE] * 5), random_weights()) == SUPPORTED
    assert judge_sink(reading(around(0.2)), random_weights()) == INCONCLUSIVE


def test_a_share_that_random_weights_or_another_early_token_have_too_is_not_supported() -> None:
    assert judge_sink(reading(around(0.06)), random_weights(0.08)) == NOT_SUPPORTED
    assert judge_sink(reading(around(0.4), early=0.42), random_weights()) == NOT_SUPPORTED
    assert judge_sink(reading(around(0.4), early=0.4), random_weights()) == INCONCLUSIVE
    assert judge_sink(reading(around(0.5)), random_weights(0.35)) == INCONCLUSIVE


def test_without_enough_controls_nothing_is_said() -> None:
    assert judge_sink(reading(around(0.5)), random_weights()[1:]) == INCONCLUSIVE


def test_models_must_agree() -> None:
    assert by_models([SUPPORTED]) == SUPPORTED
    assert by_models([SUPPORTED] * 4 + [NOT_SUPPORTED]) == SUPPORTED
    assert by_models([SUPPORTED] * 3 + [NOT_SUPPORTED]) == INCONCLUSIVE
    assert by_models([NOT_SUPPORTED] * 2) == NOT_SUPPORTED
    assert by_models([]) == INCONCLUSIVE


def test_the_verdict_says_which_models_say_what() -> None:
    sinking = Found("deep", 10, reading(around(0.5)), tuple(random_weights()))
    level = Found("shallow", 10, reading(around(0.06)), tuple(random_weights(0.08)))
    found = sink_verdict([sinking, level], {"gone": "It is not here."})
    assert found.verdict == INCONCLUSIVE
    assert "Supported in deep; not supported in shallow." in found.reason
    assert "gone was left out: It is not here." in found.reason
    assert found.statistic.value == pytest.approx(50, abs=1e-4)
    assert found.statistic.unit == "%"
    assert f"{found.statistic.value:.1f} %" in found.reason  # as its sentences say it
    assert found.evidence["outcomes"] == {"deep": SUPPORTED, "shallow": NOT_SUPPORTED}
    assert [series.kind for series in found.charts[0].series] == ["line", "line", "dashed", "dashed", "dashed"]
    assert sink_verdict([], {"gone": "It is not here."}).verdict == INCONCLUSIVE


# Verdicts: place or token ------------------------------------------------------------------------------------------


def first_tokens(own: float, other: float, moved: float = 0.02) -> FirstTokens:
    rows = [around(own, 0.005), around(other, 0.005)]
    return FirstTokens([OWN, "other"], 16, 64, rows, [around(0.02, 0.005), around(moved, 0.005)])


def test_a_place_that_keeps_its_share_is_supported() -> None:
    first = first_tokens(0.5, 0.48)
    assert judge_position(first) == SUPPORTED
    assert place_kept(first)[0] == pytest.approx(0.96, abs=1e-6)
    assert taken_along(first)[0] == pytest.approx(0.02 / 0.48, abs=1e-6)


def test_a_token_that_takes_the_share_away_refutes_it() -> None:
    assert judge_position(first_tokens(0.5, 0.2)) == NOT_SUPPORTED
    assert judge_position(first_tokens(0.2, 0.5)) == NOT_SUPPORTED  # whichever of them draws more
    assert judge_position(first_tokens(0.5, 0.35)) == INCONCLUSIVE


def test_a_token_that_is_a_sink_anywhere_refutes_it() -> None:
    assert judge_position(first_tokens(0.5, 0.5, moved=0.45)) == NOT_SUPPORTED
    assert judge_position(first_tokens(0.5, 0.5, moved=0.3)) == INCONCLUSIVE


def test_without_a_sink_nothing_is_said_about_its_reason() -> None:
    level = uniform_share(64)
    assert judge_position(first_tokens(1.9 * level, 1.9 * level)) == INCONCLUSIVE
    assert judge_position(first_tokens(2.2 * level, 2.2 * level, moved=0.01)) == SUPPORTED
    words = position_verdict([Found("flat", 10, first=first_tokens(level, level))], {}).reason
    assert "no sink to ask about in flat" in words


def test_a_sink_that_lies_in_the_place_and_one_that_lies_in_the_token_are_told_apart() -> None:
    ids = [[id for id in row if id not in (3, 4)][:TIME] for row in small_models.some_ids(4, 2 * TIME).tolist()]
    tokens = put_first(sinking_gpt(token=3), Prompts(ids, ["one"] * 4), {"it": 3, "other": 4})
    assert judge_position(tokens) == NOT_SUPPORTED
    same = replace(tokens, first=[tokens.first[1]] * 3, moved=[tokens.first[0]] * 3)
    assert judge_position(same) == SUPPORTED
